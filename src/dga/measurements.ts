/**
 * What passes measure of single examples and of domains, and how the numbers of domains follow from those of examples.
 *
 * Units: the numbers of a single example are those of its summed loss ℓₑ, not divided by anything. The numbers of a domain are those of its mean loss
 * per token Lᵢ = Σ ℓₑ / Σ nₑ.
 */
import { alignmentsByDomain } from "./statistics.ts";

/** Measurements of examples, one entry per example. */
export interface ExampleMeasurements {
  /** Index of the domain of each example. */
  readonly domainOf: ArrayLike<number>;
  /** Counted tokens nₑ of each example. Examples without tokens are ignored. */
  readonly tokens: ArrayLike<number>;
  /** dₑ = ⟨∇ℓₑ, ∇L_target⟩ of each example. */
  readonly dots: ArrayLike<number>;
  /** Summed loss ℓₑ of each example. */
  readonly losses?: ArrayLike<number>;
  /** Squared gradient norm ‖∇ℓₑ‖² of each example. */
  readonly squaredNorms?: ArrayLike<number>;
}

/** Measurements of domains, or of bases, one entry each. Together with `targetNorm` they are a signal for a rule. What was not measured is left out. */
export interface Measurements {
  /** aᵢ = ⟨∇Lᵢ, ∇L_target⟩; 0 for a domain that was not measured. */
  readonly alignments: Float64Array;
  /** Standard error of each aᵢ over the domain's examples, for a fixed target batch; null if it is unknown. */
  readonly standardErrors?: readonly (number | null)[];
  /**
   * Gradient norm ‖∇Lᵢ‖. Measured from a batch, it is the norm of that batch's gradient. From the training steps it is an estimate that does not grow
   * if few examples are drawn (`domainNorms`). For bases that share a batch it is the root mean square over single examples' gradients, √(Σ
   * ω‖∇ℓₑ/nₑ‖² / Σω).
   */
  readonly norms?: Float64Array;
  /** Counted tokens that were measured of each domain; 0 for a domain that was not measured. */
  readonly tokens: Float64Array;
  /** Mean loss per token Lᵢ. */
  readonly losses?: Float64Array;
  /**
   * Effective sample size (Σω)²/Σω² (Kish) of each basis that was measured from a shared batch: how many examples of its own the batch is worth. 0 if
   * nothing was drawn.
   */
  readonly effectiveSizes?: Float64Array;
}

/** Measurements of the target. */
export interface TargetMeasurements {
  /** Gradient norm ‖∇L_target‖. */
  readonly targetNorm: number;
  /** Mean loss per token L_target. */
  readonly targetLoss: number;
}

/** Measurements of domains with those of their target. */
export interface Alignments extends Measurements, TargetMeasurements {
  readonly losses: Float64Array;
  /** Name of the parameter because of which there are no norms: a pass used it twice (tied weights), so its norm is not the sum over its uses. */
  readonly tied?: string;
}

/**
 * Computes the numbers of k domains from those of their examples. Norms do not follow from single examples alone; the caller supplies them. Throws
 * `shape` for an example with an invalid domain index.
 */
export function measurementsOf(
  examples: ExampleMeasurements & { readonly losses: ArrayLike<number> },
  k: number,
  norms?: Float64Array,
): Measurements & { readonly losses: Float64Array; readonly standardErrors: readonly (number | null)[] } {
  const measured = alignmentsByDomain(examples.dots, examples.tokens, examples.domainOf, k);
  const tokens = sumByDomain(examples.tokens, examples.domainOf, k);
  return {
    alignments: Float64Array.from(measured, ({ alignment }) => alignment),
    standardErrors: measured.map(({ standardError }) => standardError),
    ...(norms === undefined ? {} : { norms }),
    tokens,
    losses: perToken(sumByDomain(examples.losses, examples.domainOf, k), tokens),
  };
}

/** Sums the values over each domain's examples [k]. */
export function sumByDomain(values: ArrayLike<number>, domainOf: ArrayLike<number>, k: number): Float64Array {
  const out = new Float64Array(k);
  for (let e = 0; e < values.length; e++) out[domainOf[e]!]! += values[e]!;
  return out;
}

/** Divides sums over examples by their tokens; 0 where there are no tokens. */
export function perToken(sums: Float64Array, tokens: Float64Array): Float64Array {
  return sums.map((sum, i) => (tokens[i]! > 0 ? sum / tokens[i]! : 0));
}

/** ‖∇Lᵢ‖² from ‖∇ Σ ℓₑ‖² and the number of tokens (at least 1) of the examples in the sum. */
export function squarePerToken(square: number, tokens: number): number {
  return square / tokens ** 2;
}

export function total(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum;
}
