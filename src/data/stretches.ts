/** Which part of a long stream is counted. */
import type { Stretch } from "./bigram-scores.ts";

/** Number of stretches of a stream that is not counted as a whole. */
const STRETCHES = 32;

/** All of a stream of `tokens` tokens, or evenly spaced stretches of it that make up `most` tokens. No stretch is shorter than a piece of `length` pairs. */
export function stretchesOf(tokens: number, most: number, length: number): Stretch[] {
  if (tokens <= most) return [{ from: 0, to: tokens }];
  const count = Math.max(1, Math.min(STRETCHES, Math.floor(most / (length + 1))));
  const size = Math.floor(most / count);
  return Array.from({ length: count }, (_, j) => {
    const from = Math.floor((j * (tokens - size)) / Math.max(1, count - 1));
    return { from, to: from + size };
  });
}
