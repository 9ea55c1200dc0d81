/**
 * Alignments tracked over updates: discounted means with their errors, and the spread of the domains beyond these errors. Pure functions.
 *
 * An update measures only a few examples of each domain, and none of some domains. A discounted mean uses all updates. Before a step, it is
 * standardised by the spread of the domains beyond their errors (random effects; Paule & Mandel 1982). The result is independent of the gradients'
 * scale and of the number of domains, and 0 if domains differ by no more than their errors.
 */
import { sumOf } from "./simplex.ts";

/** Tracked alignments, per domain [k] unless stated otherwise. A domain with 0 `tokens` was never measured. */
export interface Tracked {
  /** Discounted mean of the alignments, weighted by tokens. */
  readonly means: Float64Array;
  /** Discounted tokens behind each mean, Σ ρ^age·n. */
  readonly tokens: Float64Array;
  /** The variance of each mean divided by σ²: Σ ρ^(2·age)·n / tokens². It stays constant while a domain is not measured, although its tokens vanish. */
  readonly variances: Float64Array;
  /** σ, the standard error of the alignment of one token, pooled over the domains, and the discounted tokens behind it. */
  readonly noise: readonly [sigma: number, tokens: number];
}

/** The measurements of one update. */
export interface Observed {
  /** Alignments; NaN for domains that were not measured. */
  readonly alignments: ArrayLike<number>;
  /** Standard errors of the alignments; null if they are unknown or the domain was not measured. If all are null, they are estimated from earlier updates. */
  readonly errors: readonly (number | null)[];
  /** Counted tokens; 0 for domains that were not measured. */
  readonly tokens: ArrayLike<number>;
}

/**
 * Largest deviation of an observation from the common mean, in standard deviations; larger ones are clipped to it (Huber), against single windows
 * with huge gradients.
 */
const FARTHEST = 4;
/** The largest ratio of the error of one observation to the pooled error; larger ones are clipped. */
const FARTHEST_ERROR = 3;
/** σ is common to all domains and changes slowly, so its memory is at least this long. */
const NOISE_MEMORY = 0.9;

/** Smallest number of tokens whose inverse is still finite. */
const LEAST_TOKENS = 1e-300;

export function nothingTracked(k: number): Tracked {
  return {
    means: new Float64Array(k),
    tokens: new Float64Array(k),
    variances: new Float64Array(k),
    noise: [0, 0],
  };
}

/**
 * The mean of the domains' alignments, their spread beyond their errors, and the error of each domain's mean (Infinity for a domain that was never
 * measured).
 */
export interface Spread {
  readonly mean: number;
  /** The spread τ. */
  readonly spread: number;
  readonly errors: Float64Array;
}

/** Adds one observation; everything known before is multiplied by `memory` (ρ, 0 ≤ ρ < 1). */
export function track(before: Tracked, { alignments, errors, tokens }: Observed, memory: number): Tracked {
  const known = before.tokens.some((n) => n > 0) ? spreadOf(before) : null;
  const [sigma, tokensBehind] = before.noise;
  // If there were neither errors nor differences so far, nothing is clipped.
  const farthest = (n: number): number =>
    known === null || tokensBehind === 0
      ? Infinity
      : FARTHEST * Math.hypot(sigma / Math.sqrt(n), known.spread) || Infinity;
  const means = before.means.slice();
  // The tokens of a domain decay, but never to 0 by rounding.
  const counted = before.tokens.map((n) =>
    memory > 0 && n > 0 ? Math.max(memory * n, Number.MIN_VALUE) : 0,
  );
  const variances = before.variances.slice();
  for (let i = 0; i < means.length; i++) {
    if (!(tokens[i]! > 0)) continue;
    const n = Math.max(tokens[i]!, LEAST_TOKENS);
    const centre = known?.mean ?? 0;
    const limit = farthest(n);
    const value = Math.max(centre - limit, Math.min(centre + limit, alignments[i]!));
    const total = counted[i]! + n;
    const [kept, added] = [counted[i]! / total, n / total];
    means[i] = means[i]! * kept + value * added;
    variances[i] = variances[i]! * kept ** 2 + added ** 2 / n;
    counted[i] = total;
  }
  const hasErrors = errors.some((error, i) => error !== null && tokens[i]! > 0);
  const seen = hasErrors ? errors : innovationErrors(before, { alignments, errors, tokens });
  return { means, tokens: counted, variances, noise: pooledNoise(before.noise, seen, tokens, memory) };
}

/**
 * Standard errors for an update that has none, for example if each domain is represented by one example: computed from the difference of each
 * alignment to the domain's mean so far. Its expected square is σ²·(1/n + v), with v from `variances`; a drift of the domain counts as noise. null
 * for domains that were never measured.
 */
function innovationErrors(before: Tracked, { alignments, tokens }: Observed): (number | null)[] {
  return Array.from(before.means, (mean, i) => {
    const n = tokens[i]!;
    if (!(n > 0 && before.tokens[i]! > 0)) return null;
    return Math.abs(alignments[i]! - mean) / Math.sqrt(1 + n * before.variances[i]!);
  });
}

/** σ² as the mean of (error²·tokens), weighted by tokens. Square roots are added by `hypot`, so that no square overflows. */
function pooledNoise(
  [sigma, tokensBehind]: Tracked["noise"],
  errors: readonly (number | null)[],
  tokens: ArrayLike<number>,
  memory: number,
): Tracked["noise"] {
  const kept = Math.max(memory, NOISE_MEMORY) * tokensBehind;
  const most = sigma === 0 ? Infinity : FARTHEST_ERROR * sigma;
  const parts = errors.flatMap((error, i) =>
    error === null ? [] : [{ n: tokens[i]!, sigma: Math.min(most, error * Math.sqrt(tokens[i]!)) }],
  );
  const total = kept + sumOf(parts.map(({ n }) => n));
  if (total === 0) return [sigma, 0];
  const shares = parts.map((part) => part.sigma * Math.sqrt(part.n / total));
  return [Math.hypot(sigma * Math.sqrt(kept / total), ...shares), total];
}

/** Halvings of an interval, enough for double precision. */
const HALVINGS = 60;
/** Means that differ by less than this, relative to the largest of them and of their errors, are equal up to rounding. */
const ROUNDING = 1e-12;

/**
 * Finds τ and the mean for which Σ (xᵢ − mean)²/(τ² + sᵢ²) has its expected value, the number of measured domains minus one; τ = 0 if the sum is
 * smaller even without a spread. The mean weighs domains with 1/(τ² + sᵢ²).
 */
export function spreadOf({ means, tokens, variances, noise }: Tracked): Spread {
  const errors = means.map((_, i) => (tokens[i]! > 0 ? noise[0] * Math.sqrt(variances[i]!) : Infinity));
  const known = [...means.keys()].filter((i) => tokens[i]! > 0);
  // Relative to the largest number, so that no square overflows or vanishes, and around a centre, so that a large common part does not hide
  // differences.
  const largest = known.reduce((most, i) => Math.max(most, Math.abs(means[i]!), errors[i]!), 0);
  if (largest === 0) return { mean: 0, spread: 0, errors };
  const centre = sumOf(known.map((i) => means[i]! / largest)) / known.length;
  const away = known.map((i) => means[i]! / largest - centre);
  const farthest = away.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  if (farthest <= ROUNDING) return { mean: centre * largest, spread: 0, errors };
  const scale = known.reduce((most, i) => Math.max(most, errors[i]! / largest), farthest);
  const x = away.map((value) => value / scale);
  const squaredErrors = known.map((i) => (errors[i]! / largest / scale) ** 2);
  const around = (square: number): { mean: number; q: number } => {
    const weights = squaredErrors.map((error) => 1 / (square + error));
    const total = sumOf(weights);
    // Without errors, only a spread explains the differences.
    if (total === Infinity) return { mean: 0, q: Infinity };
    const mean = sumOf(x.map((value, j) => (weights[j]! / total) * value));
    return { mean, q: sumOf(x.map((value, j) => weights[j]! * (value - mean) ** 2)) };
  };
  const expected = known.length - 1;
  let low = 0;
  // With this τ the sum is always smaller than expected: |xᵢ − mean| ≤ 2, and 4k/8 ≤ k − 1.
  let high = 8;
  if (around(0).q > expected)
    for (let n = 0; n < HALVINGS; n++) {
      const middle = (low + high) / 2;
      if (around(middle).q > expected) low = middle;
      else high = middle;
    }
  else high = 0;
  return {
    mean: (centre + around(high).mean * scale) * largest,
    spread: Math.sqrt(high) * scale * largest,
    errors,
  };
}

/**
 * How many spreads each domain is above the mean, shrunk by its error: (xᵢ − mean)·τ/(τ² + sᵢ²), the posterior mean of a normal xᵢ divided by τ. NaN
 * for domains that were never measured. 0 for all if τ is 0, and as long as no errors are known, because noise cannot then be told from a spread.
 */
export function standardised(tracked: Tracked): Float64Array {
  if (tracked.noise[1] === 0) return tracked.tokens.map((n) => (n > 0 ? 0 : NaN));
  const { mean, spread, errors } = spreadOf(tracked);
  return tracked.means.map((value, i) => {
    if (!(tracked.tokens[i]! > 0)) return NaN;
    if (spread === 0) return 0;
    const noise = errors[i]! / spread;
    return (value / spread - mean / spread) / (1 + noise * noise);
  });
}

/**
 * Σ αᵢdᵢ over the measured domains, whose weights are scaled to a sum of 1: how many spreads the mixture α is above the domains' mean. Below 0, the
 * mixture helps less than the domains do on average. 0 if the measured domains have no weight.
 */
export function standing(direction: ArrayLike<number>, weights: ArrayLike<number>): number {
  const known = Array.from(weights).flatMap((weight, i) =>
    Number.isNaN(direction[i]!) ? [] : [{ weight, d: direction[i]! }],
  );
  const total = sumOf(known.map(({ weight }) => weight));
  return total === 0 ? 0 : sumOf(known.map(({ weight, d }) => (weight / total) * d));
}
