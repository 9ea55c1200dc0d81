/**
 * Dynamic Gradient Alignment (Fan, Grangier, Ablin, arXiv 2410.02498, Algorithm 1).
 *
 * α ← α ⊙ exp(+η a), normalised; then what is sampled is the moving average (1 − β)·average + β·α. The sign is +: after a step of size γ
 * on the mixture the target loss changes by −γ Σ αᵢ⟨gᵢ, g_target⟩, so a domain that aligns with the target should gain.
 */
import { checkRange, need, type Rule, type RuleState, type Signal } from "../rule.ts";
import { checkSimplex, exponentiatedGradient, movingAverage, projectFloor, uniformWeights } from "../simplex.ts";
import { byDomain } from "./by-domain.ts";

/**
 * What goes into the exponent for aᵢ = ⟨gᵢ, g⟩:
 * - `raw`: aᵢ (the paper's);
 * - `clipped`: every gradient clipped to norm 1 first, aᵢ·min(1, 1/‖gᵢ‖)·min(1, 1/‖g‖) (GRAPE's setting);
 * - `cosine`: aᵢ/(‖gᵢ‖·‖g‖), free of the gradients' scale; 0 for a zero gradient.
 */
export type Normalisation = "raw" | "clipped" | "cosine";
export const normalisations: readonly Normalisation[] = ["raw", "clipped", "cosine"];

export interface DgaOptions {
  readonly name: "dga";
  /**
   * Step size η ≥ 0 of the mirror step. Default 1: with cosines, whose differences between domains are a few tenths, one update then moves
   * the ratio of two weights by some tens of per cent. Raw alignments carry the gradients' scale; there η has to be found by trial.
   */
  readonly eta?: number;
  /** β of the moving average of the weights, 0 < β ≤ 1, the weight of the NEW value; 1 is no average. Default 0.1, the paper's. */
  readonly beta?: number;
  /** Default `cosine`, the only one that needs no tuning of η from model to model. */
  readonly normalise?: Normalisation;
  /** No weight falls below this, 0 ≤ floor < 1/k. Default 0. */
  readonly floor?: number;
  /** Where α starts; default uniform. A domain at 0 stays at 0. */
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
}

export const dgaDefaults: { readonly eta: number; readonly beta: number; readonly normalise: Normalisation; readonly floor: number } = {
  eta: 1,
  beta: 0.1,
  normalise: "cosine",
  floor: 0,
};

export function dga(options: DgaOptions = { name: "dga" }): Rule {
  const { eta, beta, normalise, floor } = { ...dgaDefaults, ...options };
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("beta", beta, { min: 0, max: 1, openMin: true });
  return {
    name: "dga",
    needs: normalise === "raw" ? ["alignments"] : ["alignments", "norms", "targetNorm"],
    init(domains) {
      checkRange("floor", floor, { min: 0, max: 1 / domains.length, openMax: domains.length > 1 });
      const start =
        options.start === undefined
          ? uniformWeights(domains.length)
          : checkSimplex(byDomain(options.start, domains, "start"), domains, "start");
      const alpha = Array.from(projectFloor(start, floor));
      return { rule: "dga", domains: [...domains], weights: alpha, updates: 0, memory: { alpha } };
    },
    update(state, signal) {
      const direction = normalised(state, signal, normalise);
      const alpha = projectFloor(exponentiatedGradient(state.memory["alpha"], direction, eta), floor);
      // The floored set is convex, so the average of two floored points needs no second projection.
      const weights = movingAverage(state.weights, alpha, beta);
      return { ...state, weights: Array.from(weights), updates: state.updates + 1, memory: { alpha: Array.from(alpha) } };
    },
  };
}

function normalised(state: RuleState, signal: Signal, kind: Normalisation): Float64Array {
  const alignments = need("dga", state, signal, "alignments");
  if (kind === "raw") return alignments;
  const norms = need("dga", state, signal, "norms");
  const target = signal.targetNorm ?? NaN;
  checkRange("dga: targetNorm", target, { min: 0, max: Infinity, openMax: true });
  const factor = (norm: number): number => (kind === "clipped" ? Math.min(1, 1 / norm) : norm > 0 ? 1 / norm : 0);
  return alignments.map((a, i) => (a === 0 ? 0 : a * factor(norms[i]) * factor(target)));
}
