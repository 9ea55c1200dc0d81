/** How an alignment is scaled before a mirror step. The scales of gradients differ between models and change during training. */
import {
  measuredDomains,
  need,
  needTargetNorm,
  type RuleState,
  type Signal,
  type SignalName,
  type Step,
} from "../rule.ts";
import { sumOf } from "../simplex.ts";

/**
 * How the direction of a mirror step is computed from aᵢ = ⟨gᵢ, g⟩:
 * - `raw`: aᵢ, as in the derivation;
 * - `clipped`: every gradient clipped to norm 1 first, aᵢ·min(1, 1/‖gᵢ‖)·min(1, 1/‖g‖) (GRAPE's setting);
 * - `cosine`: aᵢ/(‖gᵢ‖·‖g‖), which is independent of the gradients' scale and in [−1, 1]; 0 for a zero gradient;
 * - `doge`: aᵢ divided by the mean of the ‖gⱼ‖, then clamped to [0, 5] (DoGE's code);
 * - `adam`: ⟨gᵢ, P g⟩/(‖gᵢ‖·‖P g‖) with P = 1/(√v̂ + ε), the cosine with the step that Adam takes for the target's gradient.
 */
export type Normalisation = "raw" | "clipped" | "cosine" | "doge" | "adam";
/** Names of all normalisations. */
export const normalisations: readonly Normalisation[] = ["raw", "clipped", "cosine", "doge", "adam"];

/** Upper end of the clamp in DoGE's code. */
const DOGE_LARGEST = 5;

/** The parts of the signal that a rule with this normalisation needs. */
export function normalisationNeeds(kind: Normalisation): readonly SignalName[] {
  switch (kind) {
    case "raw":
      return ["alignments"];
    case "doge":
      return ["alignments", "norms"];
    case "adam":
      return ["preconditionedAlignments", "norms", "preconditionedTargetNorm"];
    case "clipped":
    case "cosine":
      return ["alignments", "norms", "targetNorm"];
  }
}

/** Scales one alignment as `raw`, `clipped` or `cosine`, from the norms of the domain's and the target's gradients. */
export function scaled(
  kind: "raw" | "clipped" | "cosine",
  alignment: number,
  norm: number,
  target: number,
): number {
  if (kind === "raw") return alignment;
  if (kind === "clipped") return alignment / Math.max(1, norm) / Math.max(1, target);
  // By Cauchy–Schwarz, |cosine| ≤ 1; dots and norms of tiny gradients in single precision may violate this.
  return norm > 0 && target > 0 ? Math.max(-1, Math.min(1, alignment / norm / target)) : 0;
}

/**
 * Scores as in DoGE's code: divided by the mean norm of the domains' gradients and clamped to [0, 5]; also returns that mean. Domains that were not
 * measured are NaN and do not enter the mean.
 */
export function dogeScaled(
  scores: Float64Array,
  norms: Float64Array,
): { direction: Float64Array; mean: number } {
  const known = norms.filter((norm) => !Number.isNaN(norm));
  // A sum of huge norms would overflow.
  const mean = sumOf(known.map((norm) => norm / known.length));
  return {
    mean,
    // Math.max passes NaN through.
    direction: scores.map((score) =>
      Math.min(DOGE_LARGEST, Math.max(0, score / (mean > 0 ? mean : Infinity))),
    ),
  };
}

/** The direction of the mirror step, with the domains that take part. Throws like `need`. */
export function directionOf(
  rule: string,
  state: RuleState,
  signal: Signal,
  kind: Normalisation,
): Pick<Step, "direction" | "among"> & Required<Pick<Step, "errorOf">> {
  const among = measuredDomains(rule, state, signal);
  const adam = kind === "adam";
  const alignments = need(rule, state, signal, adam ? "preconditionedAlignments" : "alignments");
  if (kind === "raw") return { direction: alignments, among, errorOf: (_, error) => error };
  const norms = need(rule, state, signal, "norms");
  if (kind === "doge") {
    const { direction, mean } = dogeScaled(alignments, norms);
    // The clamp does not move two numbers further apart, so this is an upper bound of the error.
    return { direction, among, errorOf: (_, error) => (mean > 0 ? error / mean : null) };
  }
  const target = needTargetNorm(rule, signal, adam ? "preconditionedTargetNorm" : "targetNorm");
  const way = adam ? "cosine" : kind;
  return {
    direction: alignments.map((a, i) => (Number.isNaN(a) ? NaN : scaled(way, a, norms[i]!, target))),
    among,
    errorOf: (i, error) =>
      way === "clipped"
        ? scaled(way, error, norms[i]!, target)
        : norms[i]! > 0 && target > 0
          ? error / norms[i]! / target
          : null,
  };
}
