/**
 * DoReMi (Xie et al., arXiv 2305.10429, Algorithm 1): group DRO on the excess loss over a reference model.
 *
 *     λᵢ = max(ℓᵢ − ℓᵢ^ref, 0),  α ← normalise(α ⊙ exp(η·λ)),  α ← (1 − c)·α + c/k.
 *
 * Both losses are means per token of the same text. The paper and its public code clip at 0 token by token, which means per domain cannot
 * show (by Jensen's inequality theirs is never less). DoGE's code of the same rule clips the domain's mean, as here. A domain without
 * text in this signal keeps the excess it had last; before its first it has 0 (the public code: log |V|, so that it gains until it is seen).
 * The paper trains the final model with the mean of the weights over the steps: the averaged weights of a run.
 */
import { checkRange } from "../../options.ts";
import { checkOptionNames, measuredDomains, need, type Rule } from "../rule.ts";
import { exponentiatedGradient, mixUniform } from "../simplex.ts";
import { startOf } from "./by-domain.ts";

export interface DoremiOptions {
  readonly name: "doremi";
  /** η ≥ 0. Default 1, the paper's. */
  readonly eta?: number;
  /** c, the share of uniform weights that is mixed in, 0 ≤ c < 1. Default 1e-3, the paper's; its public code has 1e-4. */
  readonly smoothing?: number;
  /** Default uniform. */
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
}

export function doremi(options: DoremiOptions = { name: "doremi" }): Rule {
  checkOptionNames("doremi", options, ["eta", "smoothing", "start"]);
  const { eta = 1, smoothing = 1e-3 } = options;
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("smoothing", smoothing, { min: 0, max: 1, openMax: true });
  return {
    name: "doremi",
    needs: ["losses", "referenceLosses"],
    init: (domains) => ({
      rule: "doremi",
      domains: [...domains],
      weights: Array.from(startOf(options.start, domains)),
      updates: 0,
      memory: { excess: domains.map(() => 0) },
    }),
    update(state, signal) {
      const losses = need("doremi", state, signal, "losses");
      const reference = need("doremi", state, signal, "referenceLosses");
      const measured = measuredDomains("doremi", state, signal);
      const excess = state.memory["excess"].map((before, i) =>
        measured === null || measured[i] ? Math.max(0, losses[i] - reference[i]) : before,
      );
      const stepped = exponentiatedGradient(state.weights, excess, eta);
      return {
        ...state,
        weights: Array.from(mixUniform(stepped, eta === 0 ? 0 : smoothing)),
        updates: state.updates + 1,
        memory: { excess },
      };
    },
    memoryFault: ({ excess }) => (excess.every((e) => e >= 0) ? null : "an excess loss is negative"),
  };
}
