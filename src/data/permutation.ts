/**
 * A keyed pseudo-random permutation of 0 … n−1 without memory: the swap-or-not shuffle (Hoang, Morris & Rogaway, CRYPTO 2012).
 *
 * Each round pairs every position x with K − x (mod n), with a K of its own, and one random bit per pair decides whether the two swap. It works for
 * any n; a Feistel network, the usual choice, visibly prefers some orders of five or ten elements, however many rounds it has.
 */
import { firstWord, type Key, uniformAt } from "../tensor/rng.ts";

const ROUNDS = 48;

/** The sums K of all rounds, for `permute`: whoever asks for many images under one key computes them once. */
export function permutationSums(key: Key, n: number): Float64Array {
  const sums = new Float64Array(ROUNDS);
  for (let round = 0; round < ROUNDS; round++) sums[round] = Math.floor(uniformAt(key, round) * n);
  return sums;
}

/** The image of `index`, for 0 ≤ index < n ≤ 2³². */
export function permute(
  key: Key,
  n: number,
  index: number,
  sums: Float64Array = permutationSums(key, n),
): number {
  let place = index;
  for (let round = 0; round < ROUNDS; round++) {
    const sum = sums[round]!;
    const partner = sum >= place ? sum - place : sum - place + n;
    // Counters start at 2³², since those below are used for the rounds' sums.
    const bits = firstWord(key[0], key[1], round + 1, Math.max(place, partner));
    if ((bits & 1) === 1) place = partner;
  }
  return place;
}
