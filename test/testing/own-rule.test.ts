/** A rule of one's own, held to the invariants: what a user's test looks like. */
import { test, fc } from "@fast-check/vitest";
import { expect } from "vitest";
import { initialState, measuredDomains, mirrorStep, need, type Rule, uniformWeights } from "gradmix/dga";
import { checkRule, type Knobs, names, signal } from "gradmix/testing";

/** Mirror ascent on the losses: draws most from where the loss stays large. */
const hardest = ({ eta = 0.1 }: Knobs = {}): Rule => ({
  name: "hardest",
  needs: ["losses"],
  stepsOn: "losses",
  init: (domains) => initialState("hardest", domains, uniformWeights(domains.length)),
  update(state, given, change) {
    const direction = need("hardest", state, given, "losses");
    const among = measuredDomains("hardest", state, given);
    const weights = mirrorStep(state.weights, { eta, direction, among }, change);
    return { ...state, weights: Array.from(weights), updates: state.updates + 1 };
  },
});

test("hardest keeps what every rule must keep", () => {
  const ran = checkRule((_, knobs) => hardest(knobs), {
    knobs: ["eta"],
    promises: { monotone: ["losses"], mirror: true },
    direction: (given) => given.losses ?? [],
  });
  expect(ran).toContain("a schedule of η is a smaller η");
});

test.prop([fc.integer({ min: 2, max: 9 }).chain((k) => signal(k, { mild: true }))])(
  "hardest gives the largest weight to the largest loss",
  (given) => {
    const rule = hardest();
    const { weights } = rule.update(rule.init(names(given.losses.length)), given);
    const top = Array.from(given.losses).indexOf(Math.max(...Array.from(given.losses)));
    expect(weights[top]).toBe(Math.max(...weights));
  },
);
