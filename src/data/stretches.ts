/** Samples that are evenly spread over a text. */
import type { Stretch } from "./bigram-scores.ts";
import type { StoredStream } from "./tokens.ts";

/** Number of stretches of a text that is not counted as a whole. */
const STRETCHES = 32;

/** Up to `most` of the numbers 0, 1, …, count − 1, evenly spaced. */
export function evenly(count: number, most: number): number[] {
  const taken = Math.min(count, most);
  return Array.from({ length: taken }, (_, j) => Math.floor(((j + 0.5) * count) / taken));
}

/**
 * All of a stream, or stretches of it that make up about `most` tokens. Each stretch has at least a piece of `length` tokens and the token after it.
 * They are spread evenly from the beginning to the end; a single one is in the middle.
 */
export function stretchesOf({ tokens }: StoredStream, most: number, length: number): Stretch[] {
  const n = tokens.length;
  if (n <= most) return [{ from: 0, to: n }];
  const count = Math.max(1, Math.min(STRETCHES, Math.floor(most / (length + 1))));
  const size = Math.floor(most / count);
  return Array.from({ length: count }, (_, j) => {
    const from = Math.floor(count === 1 ? (n - size) / 2 : (j * (n - size)) / (count - 1));
    return { from, to: from + size };
  });
}
