/** A rule of one's own, held to the invariants: what a user's test looks like. */
import { test, fc } from "@fast-check/vitest";
import { expect } from "vitest";
import { exponentiatedGradient, fixedState, need, type Rule, uniformWeights } from "gradmix/dga";
import { checkRule, names, signal } from "gradmix/testing";

/** Mirror ascent on the losses: draws most from where the loss stays large. */
const hardest: Rule = {
  name: "hardest",
  needs: ["losses"],
  init: (domains) => fixedState("hardest", domains, uniformWeights(domains.length)),
  update: (state, given) => {
    const losses = need("hardest", state, given, "losses");
    const weights = Array.from(exponentiatedGradient(state.weights, losses, 0.1));
    return { ...state, weights, updates: state.updates + 1 };
  },
};

test("hardest keeps what every rule must keep", () => {
  checkRule(() => hardest, { promises: { monotone: ["losses"] } });
});

test.prop([fc.integer({ min: 2, max: 9 }).chain((k) => signal(k, { mild: true }))])(
  "hardest gives the largest weight to the largest loss",
  (given) => {
    const { weights } = hardest.update(hardest.init(names(given.losses.length)), given);
    const top = Array.from(given.losses).indexOf(Math.max(...Array.from(given.losses)));
    expect(weights[top]).toBe(Math.max(...weights));
  },
);
