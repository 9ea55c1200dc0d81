/**
 * Tables for drawing indices by weights: a uniform number in [0, 1) is mapped to an index. A table is made once for its weights and used for any
 * number of draws.
 *
 * `aliasTable` takes O(1) per draw after O(k) (A. J. Walker's alias method with M. D. Vose's construction: "A linear algorithm for generating random
 * numbers with a given distribution", IEEE TSE 17(9), 1991). `cumulativeTable` takes O(log k) per draw and is monotone in the uniform number, which
 * systematic sampling needs.
 */
import { GradmixError } from "../errors.ts";
import { numberList } from "../options.ts";
import { firstAbove } from "./sorted.ts";

/** A table for drawing indices by weights, made by `aliasTable` or `cumulativeTable`. */
export interface Choice {
  /** Number of indices, k. */
  readonly size: number;
  /** The index for a uniform number u ∈ [0, 1): index i has probability weight i, and an index with weight 0 is never returned. */
  at(u: number): number;
}

/** Number of domains from which an alias table is used. For fewer, the cumulative table is as fast. */
export const ALIAS_FROM = 4096;

/** Largest difference of the sum of the weights from 1. */
const SUM_TOLERANCE = 1e-6;

/** Returns the sum of the weights. Throws `config`, naming the first invalid one, unless they are finite, not negative and sum to 1 to within 1e-6. */
function checked(weights: ArrayLike<number>, nameOf: (i: number) => string): number {
  numberList("weights", weights);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i]!;
    if (!Number.isFinite(weight) || weight < 0)
      throw new GradmixError("config", `weights: ${nameOf(i)} has ${weight}; weights are finite and ≥ 0`);
    sum += weight;
  }
  if (Math.abs(sum - 1) > SUM_TOLERANCE)
    throw new GradmixError("config", `weights: they sum to ${sum}, not to 1`);
  return sum;
}

/** Makes a table that returns the first index whose cumulative weight exceeds u. It takes 8 bytes per entry. Throws `config` for invalid weights. */
export function cumulativeTable(weights: ArrayLike<number>, nameOf: (i: number) => string = String): Choice {
  checked(weights, nameOf);
  const cumulative = new Float64Array(weights.length);
  let sum = 0;
  let last = -1;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i]! > 0) last = i;
    cumulative[i] = sum += weights[i]!;
  }
  // Every u < 1 then gives an index with positive weight.
  cumulative.fill(Infinity, last);
  return {
    size: weights.length,
    at: (u) => firstAbove(cumulative, u),
  };
}

/**
 * Makes a table of k columns of equal width, each shared by at most two indices: u selects a column and, by its position within it, one of the two
 * indices. It takes 12 bytes per entry. The same weights give the same table. Throws `config` for invalid weights.
 */
export function aliasTable(weights: ArrayLike<number>, nameOf: (i: number) => string = String): Choice {
  const sum = checked(weights, nameOf);
  const scale = weights.length / sum;
  const k = weights.length;
  // The share of column i that belongs to i itself; the rest belongs to `other[i]`.
  const own = new Float64Array(k);
  const other = new Int32Array(k);
  // One array holds two stacks: indices that fill less than a column at the front, the others at the back.
  const stack = new Int32Array(k);
  let small = 0;
  let large = k;
  let heaviest = 0;
  for (let i = 0; i < k; i++) {
    own[i] = weights[i]! * scale;
    if (weights[i]! > weights[heaviest]!) heaviest = i;
    if (own[i]! < 1) stack[small++] = i;
    else stack[--large] = i;
  }
  while (small > 0 && large < k) {
    const less = stack[--small]!;
    const more = stack[large]!;
    other[less] = more;
    own[more]! -= 1 - own[less]!;
    if (own[more]! < 1) {
      large++;
      stack[small++] = more;
    }
  }
  // The remaining indices fill their columns up to rounding; only an index without weight must not be drawn because of it.
  for (const i of stack.subarray(0, small)) other[i] = heaviest;
  return {
    size: k,
    at(u) {
      const place = u * k;
      // Less than k for every double below 1, because the product rounds down.
      const i = Math.floor(place);
      return place - i < own[i]! ? i : other[i]!;
    },
  };
}
