/**
 * What passes measure, of single examples and of domains, and the one way from the former to the latter.
 *
 * Units: of a single example everything is of its summed loss ℓₑ, divided by nothing. Of a domain everything is of its mean loss per token
 * Lᵢ = Σ ℓₑ / Σ nₑ.
 */
import { alignmentsByDomain } from "./statistics.ts";

/** Numbers of examples, one entry per example. */
export interface ExampleMeasurements {
  /** Domain of each. */
  readonly domainOf: ArrayLike<number>;
  /** Counted tokens of each, nₑ. Examples without tokens say nothing and do not count. */
  readonly tokens: ArrayLike<number>;
  /** dₑ = ⟨∇ℓₑ, ∇L_target⟩. */
  readonly dots: ArrayLike<number>;
  /** ℓₑ. */
  readonly losses?: ArrayLike<number>;
  /** ‖∇ℓₑ‖². */
  readonly squaredNorms?: ArrayLike<number>;
}

/** Numbers of domains, or of bases, one entry each, and with `targetNorm` beside them a signal for a rule. What was not measured is left out. */
export interface Measurements {
  /** aᵢ = ⟨∇Lᵢ, ∇L_target⟩; 0 for a domain of which nothing was measured. */
  readonly alignments: Float64Array;
  /** Of each aᵢ over the domain's examples, the target batch taken as given; null where it is not known. */
  readonly standardErrors?: readonly (number | null)[];
  /**
   * ‖∇Lᵢ‖. From a batch it is the norm of that batch's gradient; from the training steps an estimate that does not grow when few examples are drawn
   * (`domainNorms`); of bases that share a batch the root mean square of single examples' gradients, √(Σ ω‖∇ℓₑ/nₑ‖² / Σω).
   */
  readonly norms?: Float64Array;
  /** Counted tokens that were measured of each; 0 for one of which nothing was. */
  readonly tokens: Float64Array;
  /** Lᵢ. */
  readonly losses?: Float64Array;
  /** Of bases measured from one batch: (Σω)²/Σω² (Kish), how many examples of a basis's own that batch is worth; 0 where nothing was drawn. */
  readonly effectiveSizes?: Float64Array;
}

/** Of the target: ‖∇L_target‖ and L_target. */
export interface TargetMeasurements {
  /** ‖∇L_target‖. */
  readonly targetNorm: number;
  /** L_target, the mean loss per token. */
  readonly targetLoss: number;
}

/** Domains measured against a target. */
export interface Alignments extends Measurements, TargetMeasurements {
  readonly losses: Float64Array;
  /** The parameter because of which there are no norms: a pass used it twice (tied weights), and a norm cannot be added up use by use. */
  readonly tied?: string;
}

/**
 * The domains' numbers from those of their examples, k domains. Norms cannot be had from single examples alone, and are given by who measured them.
 * Throws `shape` for an example that is of none of the domains.
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

/** Sums over each domain's examples [k]. */
export function sumByDomain(values: ArrayLike<number>, domainOf: ArrayLike<number>, k: number): Float64Array {
  const out = new Float64Array(k);
  for (let e = 0; e < values.length; e++) out[domainOf[e]!]! += values[e]!;
  return out;
}

/** Sums over examples as means per token; 0 where there are no tokens. */
export function perToken(sums: Float64Array, tokens: Float64Array): Float64Array {
  return sums.map((sum, i) => (tokens[i]! > 0 ? sum / tokens[i]! : 0));
}

/** ‖∇Lᵢ‖² from ‖∇ Σ ℓₑ‖² and the tokens that the sum is over, one or more. */
export function squarePerToken(square: number, tokens: number): number {
  return square / tokens ** 2;
}

export function total(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum;
}
