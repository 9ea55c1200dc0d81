/**
 * DoReMi (Xie et al., arXiv 2305.10429, Algorithm 1): group DRO on the excess loss over a reference model.
 *
 *     λᵢ = max(ℓᵢ − ℓᵢ^ref, 0),  α ← normalise(α ⊙ exp(η·λ)),  α ← (1 − c)·α + c/k.
 *
 * Both losses are means per token of the same text. The paper and its public code clip at 0 token by token, which cannot be computed from means per
 * domain (by Jensen's inequality, their excess is never smaller). DoGE's code of the same rule clips the domain's mean, as here. A domain without
 * text in this signal keeps its last excess, as in the public code. Before its first text it takes no part in the step and keeps its weight (in the
 * public code its excess is log |V|, so that it gains until it is seen). The paper trains the final model with the mean of the weights over the
 * steps: the averaged weights of a run.
 */
import { checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import {
  checkDomains,
  initialState,
  measuredDomains,
  need,
  remembered,
  type Rule,
  type Step,
} from "../rule.ts";
import { mixUniform } from "../simplex.ts";
import { type ByDomain, numbersByDomain, startOf, ownOptions } from "./by-domain.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `doremi`. */
export interface DoremiOptions {
  /** Selects this rule. */
  readonly name: "doremi";
  /** Step size η ≥ 0. Default 1, as in the paper. */
  readonly eta?: number;
  /** Share c of uniform weights that is mixed in after a step, 0 ≤ c < 1. Default 1e-3, as in the paper; its public code has 1e-4. */
  readonly smoothing?: number;
  /** Initial weights. Default uniform. */
  readonly start?: ByDomain;
}

/** Marks the excess of a domain that was never measured. */
const NEVER = -1;

export const doremiTraits: RuleTraits = { referenceModel: true };

export const doremiChecks: OptionChecks<DoremiOptions> = {
  name: oneOf("doremi"),
  eta: numberIn({ min: 0 }),
  smoothing: numberIn({ min: 0, max: 1, openMax: true }),
  start: numbersByDomain,
};

/**
 * Makes the rule DoReMi: a mirror step along the excess losses over those of a reference model. Xie et al., arXiv:2305.10429. Throws `config` for
 * invalid options.
 */
export function doremi(options: DoremiOptions = { name: "doremi" }): Rule {
  checkOptions("doremi", options, doremiChecks);
  options = ownOptions(options);
  const { eta = 1, smoothing = 1e-3 } = options;
  return {
    name: "doremi",
    needs: ["losses", "referenceLosses"],
    stepsOn: "losses",
    init(domains) {
      checkDomains(domains);
      const excess = domains.map(() => NEVER);
      return initialState("doremi", domains, startOf(options.start, domains), { excess });
    },
    update(state, signal, change) {
      const losses = need("doremi", state, signal, "losses");
      const reference = need("doremi", state, signal, "referenceLosses");
      const measured = measuredDomains("doremi", state, signal);
      const excess = remembered("doremi", state.memory, "excess").map((before, i) =>
        measured === null || measured[i] ? Math.max(0, losses[i]! - reference[i]!) : before,
      );
      const step: Step = {
        eta,
        direction: Float64Array.from(excess, (e) => (e === NEVER ? NaN : e)),
        among: excess.map((e) => e !== NEVER),
      };
      const weights = mirrorStep(state.weights, step, change, (part) => mixUniform(part, smoothing));
      return { ...state, weights: Array.from(weights), updates: state.updates + 1, memory: { excess } };
    },
    memoryFault: (memory) =>
      remembered("doremi", memory, "excess").every((e) => e >= 0 || e === NEVER)
        ? null
        : "an excess loss is negative",
  };
}
