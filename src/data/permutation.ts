/**
 * A keyed pseudo-random permutation of 0 … n−1 that needs no memory: a four-round Feistel network over the next even power of two,
 * walked until it lands inside (cycle walking; Black & Rogaway 2002).
 */
import { type Key, threefry2x32 } from "../tensor/rng.ts";

export function permute(key: Key, n: number, index: number): number {
  if (n <= 1) return 0;
  const half = Math.max(1, Math.ceil(Math.log2(n) / 2));
  const mask = 2 ** half - 1;
  let value = index;
  do {
    let left = Math.floor(value / 2 ** half);
    let right = value % 2 ** half;
    for (let round = 0; round < 4; round++) {
      const [word] = threefry2x32(key[0], key[1], round, right);
      const next = (left ^ (word & mask)) >>> 0;
      left = right;
      right = next;
    }
    value = left * 2 ** half + right;
  } while (value >= n);
  return value;
}
