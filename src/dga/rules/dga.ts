/**
 * Dynamic Gradient Alignment (Fan, Grangier, Ablin, arXiv 2410.02498, Algorithm 1).
 *
 * α ← α ⊙ exp(+η a), normalised; then what is sampled is the moving average (1 − β)·average + β·α. The sign is +: after a step of size γ
 * on the mixture the target loss changes by −γ Σ αᵢ⟨gᵢ, g_target⟩, so a domain that aligns with the target should gain.
 *
 * A domain that the signal did not measure (its `tokens` are 0) keeps its weight in α; the step is taken among the others. An alignment
 * of 0 in its place would read as "worse than all others" and starve, for good, just those domains that are drawn rarely.
 */
import { checkRange } from "../../options.ts";
import { checkOptionNames, measuredDomains, type Rule } from "../rule.ts";
import { exponentiatedGradient, movingAverage, projectFloor, sumOf, type Weights } from "../simplex.ts";
import { startOf } from "./by-domain.ts";
import { checkNormalisation, directionOf, type Normalisation, normalisationNeeds } from "./normalisation.ts";

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
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
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

export function dga(options: DgaOptions = { name: "dga" }): Rule {
  checkOptionNames("dga", options, ["eta", "beta", "normalise", "floor", "start"]);
  const { eta, beta, normalise, floor } = { ...dgaDefaults, ...options };
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("beta", beta, { min: 0, max: 1, openMin: true });
  checkRange("floor", floor, { min: 0, max: 1 });
  checkNormalisation(normalise);
  return {
    name: "dga",
    needs: normalisationNeeds(normalise),
    init(domains) {
      checkRange("floor", floor, { min: 0, max: 1 / domains.length, openMax: domains.length > 1 });
      const alpha = Array.from(projectFloor(startOf(options.start, domains), floor));
      return { rule: "dga", domains: [...domains], weights: alpha, updates: 0, memory: { alpha } };
    },
    update(state, signal) {
      const measured = measuredDomains("dga", state, signal);
      const direction = directionOf("dga", state, signal, normalise);
      const step = stepAmong(measured, state.memory["alpha"], direction, eta);
      const alpha = projectFloor(step, floor);
      // An average of floored points respects the floor; only its correction of rounding may not.
      const weights = projectFloor(movingAverage(state.weights, alpha, beta), floor);
      return {
        ...state,
        weights: Array.from(weights),
        updates: state.updates + 1,
        memory: { alpha: Array.from(alpha) },
      };
    },
    memoryFault({ alpha }) {
      const sums = Math.abs(sumOf(alpha) - 1) <= 1e-9;
      return sums && alpha.every((weight) => weight >= 0) ? null : "alpha does not lie on the simplex";
    },
  };
}

/** The mirror step among the measured domains, whose total stays what it was; the others keep their weights. */
function stepAmong(
  measured: readonly boolean[] | null,
  alpha: readonly number[],
  direction: Weights,
  eta: number,
): Weights {
  if (measured === null) return exponentiatedGradient(alpha, direction, eta);
  const indices = [...measured.keys()].filter((i) => measured[i] && alpha[i] > 0);
  const total = sumOf(indices.map((i) => alpha[i]));
  const out = Float64Array.from(alpha);
  // One alone has nobody to trade with.
  if (eta === 0 || indices.length < 2) return out;
  const part = exponentiatedGradient(
    indices.map((i) => alpha[i] / total),
    indices.map((i) => direction[i]),
    eta,
  );
  // A positive weight stays positive.
  indices.forEach((i, j) => (out[i] = Math.max(total * part[j], Number.MIN_VALUE)));
  return out;
}
