/**
 * Weights made ready to draw from: a uniform number in [0, 1) in, an index out. Made once for weights, used for any number of draws.
 *
 * `aliasTable` is O(1) a draw after O(k) (A. J. Walker's alias method, as M. D. Vose makes its table: "A linear algorithm for generating
 * random numbers with a given distribution", IEEE TSE 17(9), 1991). `cumulativeTable` is O(log k) a draw and monotone in the uniform
 * number, which systematic sampling needs.
 */
import { GradmixError } from "../errors.ts";

/** A table to draw indices from; `aliasTable` and `cumulativeTable` make one. */
export interface Choice {
  /** How many can be drawn, k. */
  readonly size: number;
  /** The index that u ∈ [0, 1) falls on, with u uniform: index i with probability weight i. Never one of weight 0. */
  at(u: number): number;
}

/** From how many domains on an alias table is used. Below it the cumulative one is as fast. */
export const ALIAS_FROM = 4096;

/** How far the sum of weights may be from 1. */
const SUM_TOLERANCE = 1e-6;

/**
 * Throws `config`, naming the first that does not fit, unless the weights are finite, not negative and sum to 1 (to 1e-6); otherwise their
 * sum.
 */
function checked(weights: ArrayLike<number>, nameOf: (i: number) => string): number {
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

/** The first index whose cumulative weight passes u. 8 bytes an entry. */
export function cumulativeTable(weights: ArrayLike<number>, nameOf: (i: number) => string = String): Choice {
  checked(weights, nameOf);
  const cumulative = new Float64Array(weights.length);
  let sum = 0;
  let last = -1;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i]! > 0) last = i;
    cumulative[i] = sum += weights[i]!;
  }
  // So that every u < 1 falls on one with weight.
  cumulative.fill(Infinity, last);
  return {
    size: weights.length,
    at(u) {
      let low = 0;
      let high = cumulative.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (cumulative[middle]! > u) high = middle;
        else low = middle + 1;
      }
      return low;
    },
  };
}

/**
 * k columns of equal width, each shared by at most two indices: u picks a column and, by where it falls in it, one of the two. 12 bytes an
 * entry. The same weights give the same table.
 */
export function aliasTable(weights: ArrayLike<number>, nameOf: (i: number) => string = String): Choice {
  const scale = weights.length / checked(weights, nameOf);
  const k = weights.length;
  // The share of column i that is i's own; the rest is `other[i]`'s.
  const own = new Float64Array(k);
  const other = new Int32Array(k);
  // One array, two stacks: indices that fill less than a column from the front, the others from the back.
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
  // What is left fills its column, but for rounding; only an index without weight must not be drawn because of it.
  for (const i of stack.subarray(0, small)) other[i] = heaviest;
  return {
    size: k,
    at(u) {
      const place = u * k;
      // Less than k for every double below 1: the product rounds down.
      const i = Math.floor(place);
      return place - i < own[i]! ? i : other[i]!;
    },
  };
}
