/**
 * Dynamic Gradient Alignment (Fan, Grangier, Ablin, arXiv 2410.02498, Algorithm 1).
 *
 * α ← α ⊙ exp(+η a), normalised; then what is sampled is the moving average (1 − β)·average + β·α. The sign is +: after a step of size γ
 * on the mixture the target loss changes by −γ Σ αᵢ⟨gᵢ, g_target⟩, so a domain that aligns with the target should gain.
 *
 * A domain that the signal did not measure (its `tokens` are 0) keeps its weight in α; the step is taken among the others.
 */
import { checkOptions, checkRange, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import { initialState, type Rule, type Step } from "../rule.ts";
import { liesOnSimplex, movingAverage, projectFloor } from "../simplex.ts";
import { type ByDomain, numbersByDomain, startOf } from "./by-domain.ts";
import { directionOf, type Normalisation, normalisationNeeds, normalisations } from "./normalisation.ts";

export interface DgaOptions {
  readonly name: "dga";
  /**
   * Step size η ≥ 0 of the mirror step: an update multiplies the ratio of two weights by exp(η·(aᵢ − aⱼ)). Default 1, meant for cosines
   * and clipped dots: both lie in [−1, 1], so one update changes a ratio by at most e², and by some tens of per cent when the domains
   * differ by a few tenths; GRAPE's published multiplier for clipped dots is 1.5. It is a choice for short runs, of tens of updates: with
   * hundreds, 0.1 to 0.2 ended closer to a planted mixture and 1 kept circling it (docs/rules.md has the figures). Raw alignments carry
   * the square of the gradients' scale, which differs between models and falls during training: there η has to be found by trial.
   */
  readonly eta?: number;
  /** β of the moving average of the weights, 0 < β ≤ 1, the weight of the NEW value; 1 is no average. Default 0.1, the paper's. */
  readonly beta?: number;
  /**
   * Default `cosine`, the only one whose η carries over from model to model. Its price: it does not shrink as the target's gradient
   * vanishes, so close to an optimum, where raw steps come to rest, it keeps moving by up to η.
   */
  readonly normalise?: Normalisation;
  /** No weight falls below this, 0 ≤ floor < 1/k. Default 0. */
  readonly floor?: number;
  /** Where α starts; default uniform. A domain at 0 stays at 0, unless there is a floor. */
  readonly start?: ByDomain;
}

export const dgaDefaults: {
  readonly eta: number;
  readonly beta: number;
  readonly normalise: Normalisation;
  readonly floor: number;
} = {
  eta: 1,
  beta: 0.1,
  normalise: "cosine",
  floor: 0,
};

const checks: OptionChecks<DgaOptions> = {
  name: oneOf("dga"),
  eta: numberIn({ min: 0 }),
  beta: numberIn({ min: 0, max: 1, openMin: true }),
  normalise: oneOf(...normalisations),
  floor: numberIn({ min: 0, max: 1 }),
  start: numbersByDomain,
};

export function dga(options: DgaOptions = { name: "dga" }): Rule {
  checkOptions("dga", options, checks);
  const {
    eta = dgaDefaults.eta,
    beta = dgaDefaults.beta,
    normalise = dgaDefaults.normalise,
    floor = dgaDefaults.floor,
  } = options;
  return {
    name: "dga",
    needs: normalisationNeeds(normalise),
    stepsOn: normalise === "adam" ? "preconditionedAlignments" : "alignments",
    init(domains) {
      checkRange("dga: floor", floor, { min: 0, max: 1 / domains.length, openMax: domains.length > 1 });
      const alpha = projectFloor(startOf(options.start, domains), floor);
      return initialState("dga", domains, alpha, { alpha });
    },
    update(state, signal, change) {
      const step: Step = { eta, ...directionOf("dga", state, signal, normalise) };
      // The floor is kept among those that step, so that the others stay; what rounding leaves of it, by all.
      const stepped = mirrorStep(state.memory["alpha"], step, change, (part, total) =>
        projectFloor(part, floor / total),
      );
      const alpha = projectFloor(stepped, floor);
      // An average of floored points respects the floor; only its correction of rounding may not.
      const weights = projectFloor(movingAverage(state.weights, alpha, beta), floor);
      return {
        ...state,
        weights: Array.from(weights),
        updates: state.updates + 1,
        memory: { alpha: Array.from(alpha) },
      };
    },
    memoryFault: ({ alpha }) => (liesOnSimplex(alpha) ? null : "alpha does not lie on the simplex"),
  };
}
