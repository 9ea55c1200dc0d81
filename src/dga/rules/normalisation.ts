/** What an alignment becomes before a mirror step: the scales of gradients differ between models and change during training. */
import { GradmixError } from "../../errors.ts";
import { need, needTargetNorm, type RuleState, type Signal, type SignalName } from "../rule.ts";
import { show } from "../../options.ts";
import { sumOf, type Weights } from "../simplex.ts";

/**
 * What goes into the exponent for aᵢ = ⟨gᵢ, g⟩:
 * - `raw`: aᵢ, as in the derivation;
 * - `clipped`: every gradient clipped to norm 1 first, aᵢ·min(1, 1/‖gᵢ‖)·min(1, 1/‖g‖) (GRAPE's setting);
 * - `cosine`: aᵢ/(‖gᵢ‖·‖g‖), free of the gradients' scale and in [−1, 1]; 0 for a zero gradient;
 * - `doge`: aᵢ divided by the mean of the ‖gⱼ‖, then clamped to [0, 5] (DoGE's code);
 * - `adam`: ⟨gᵢ, P g⟩/(‖gᵢ‖·‖P g‖) with P = 1/(√v̂ + ε), the cosine with the step that Adam takes for the target's gradient.
 */
export type Normalisation = "raw" | "clipped" | "cosine" | "doge" | "adam";
export const normalisations: readonly Normalisation[] = ["raw", "clipped", "cosine", "doge", "adam"];

/** The clamp of DoGE's code. */
const DOGE_LARGEST = 5;

/** Throws `config` unless `kind` is one of the names. */
export function checkNormalisation(kind: unknown, known: readonly Normalisation[] = normalisations): void {
  if (!known.some((name) => name === kind))
    throw new GradmixError(
      "config",
      `normalise: there is no ${show(kind)}; it is one of ${known.join(", ")}`,
    );
}

/** What a rule must ask for. */
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

/** One domain's alignment, its gradient's norm and the target's, as `raw`, `clipped` or `cosine`. */
export function scaled(
  kind: "raw" | "clipped" | "cosine",
  alignment: number,
  norm: number,
  target: number,
): number {
  if (kind === "raw") return alignment;
  if (kind === "clipped") return alignment / Math.max(1, norm) / Math.max(1, target);
  // By Cauchy–Schwarz |cosine| ≤ 1; the dots and norms of tiny gradients in single precision need not know.
  return norm > 0 && target > 0 ? Math.max(-1, Math.min(1, alignment / norm / target)) : 0;
}

/** Scores by DoGE's code: divided by the mean norm of the domains' gradients, clamped to [0, 5]. */
export function dogeScaled(scores: Float64Array, norms: ArrayLike<number>): Weights {
  const mean = sumOf(norms) / norms.length;
  return scores.map((score) => (mean > 0 ? Math.min(DOGE_LARGEST, Math.max(0, score / mean)) : 0));
}

/** The direction of the mirror step. Throws like `need`. */
export function directionOf(rule: string, state: RuleState, signal: Signal, kind: Normalisation): Weights {
  if (kind === "raw") return need(rule, state, signal, "alignments");
  const norms = need(rule, state, signal, "norms");
  if (kind === "doge") return dogeScaled(need(rule, state, signal, "alignments"), norms);
  const adam = kind === "adam";
  const alignments = need(rule, state, signal, adam ? "preconditionedAlignments" : "alignments");
  const target = needTargetNorm(rule, signal, adam ? "preconditionedTargetNorm" : "targetNorm");
  return alignments.map((a, i) => scaled(adam ? "cosine" : kind, a, norms[i], target));
}
