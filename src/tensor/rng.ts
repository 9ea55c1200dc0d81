/**
 * Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the generator
 * of JAX. A key and a counter determine the numbers, so nothing is stored and any element can be computed separately.
 */

import { GradmixError } from "../errors.ts";
import { integerIn, show } from "../options.ts";

/** A key of the random-number generator: two 32-bit words. */
export type Key = readonly [number, number];

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/** The second word of the block that `firstWord` computed last: a pair would be an allocation for each block. */
let secondWord = 0;

/** The first word of a block, as in `threefry2x32`. */
export function firstWord(key0: number, key1: number, counter0: number, counter1: number): number {
  // The key words that are added next; they take turns.
  let [a, b, c] = [key0 | 0, key1 | 0, key0 ^ key1 ^ 0x1bd11bda];
  let x0 = (counter0 + a) | 0;
  let x1 = (counter1 + b) | 0;
  for (let group = 0; group < 5; group++) {
    const base = (group & 1) * 4;
    for (let r = 0; r < 4; r++) {
      const rotation = ROTATIONS[base + r]!;
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    }
    x0 = (x0 + b) | 0;
    x1 = (x1 + c + group + 1) | 0;
    const first = a;
    a = b;
    b = c;
    c = first;
  }
  secondWord = x1 >>> 0;
  return x0 >>> 0;
}

/** Computes one block: two 32-bit words (unsigned) from a key and a two-word counter. */
export function threefry2x32(
  key0: number,
  key1: number,
  counter0: number,
  counter1: number,
): [number, number] {
  const first = firstWord(key0, key1, counter0, counter1);
  return [first, secondWord];
}

/** The key of a seed: its high and low 32 bits (JAX's PRNGKey). Seeds are integers 0 ≤ seed < 2⁵³; others throw `config`. */
export function key(seed: number): Key {
  integerIn(0)("key: seed", seed);
  return [Math.floor(seed / 2 ** 32) >>> 0, seed >>> 0];
}

/** Throws `shape` unless the value is a key. */
export function checkKey(where: string, value: unknown): asserts value is Key {
  const words: readonly unknown[] = Array.isArray(value) ? value : [];
  if (words.length !== 2 || !words.every((word) => typeof word === "number" && word === word >>> 0))
    throw new GradmixError("shape", `${where}: ${show(value)} is not a key; make one with key(seed)`);
}

const checkStream = integerIn(0);

/**
 * An independent key for the stream number `data` (JAX's fold_in). Throws `shape` unless `k` is a key, and `config` unless `data` is an integer from 0
 * to 2⁵³ − 1.
 */
export function foldIn(k: Key, data: number): Key {
  checkKey("foldIn", k);
  checkStream("foldIn: the stream", data);
  return threefry2x32(k[0], k[1], Math.floor(data / 2 ** 32) >>> 0, data >>> 0);
}

/** A random number, uniform in [0, 1) with 53 bits, for the counter `index`. */
export function uniformAt(k: Key, index: number): number {
  const [a, b] = threefry2x32(k[0], k[1], Math.floor(index / 2 ** 32) >>> 0, index >>> 0);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}
