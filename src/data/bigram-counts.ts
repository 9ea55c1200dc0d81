/** Counts tokens, and pairs of neighbouring tokens, by their numbers (`token-numbers.ts`). `bigram-scores.ts` and `bigram-ratio.ts` make models of them. */
import type { Keys, TokenNumbers } from "./token-numbers.ts";
import type { Tokens } from "./tokens.ts";

/** A text as numbers; −1 for tokens and pairs without one. */
export interface Places {
  readonly tokens: Int32Array;
  /** The pair that ends at each position. */
  readonly pairs: Int32Array;
}

export const createPlaces = (length: number): Places => ({
  tokens: new Int32Array(length),
  pairs: new Int32Array(length),
});

/** Writes the numbers of a text to `places` from position `at` on. No pair ends at its first token. */
export function writePlaces(
  { tokens, pairs }: Places,
  at: number,
  text: Tokens,
  numbers: TokenNumbers,
  keys: Keys,
): void {
  let before = -1;
  for (let t = 0; t < text.length; t++) {
    const token = numbers.get(text[t]!);
    tokens[at + t] = token;
    pairs[at + t] = before < 0 || token < 0 ? -1 : keys.get(before, token);
    before = token;
  }
}

/** How often each token and each pair occurs, by their numbers. */
export interface BigramCounts {
  /** Number of all tokens, also of those without a number. */
  total: number;
  tokens: Int32Array;
  pairs: Int32Array;
}

export const createCounts = (tokens: number, pairs: number): BigramCounts => ({
  total: 0,
  tokens: new Int32Array(tokens),
  pairs: new Int32Array(pairs),
});

/** Adds `by` for each token from position `from` (included) to `to` (excluded), and for each pair that ends there. */
export function addPlaces(
  counts: BigramCounts,
  { tokens, pairs }: Places,
  { from, to }: { readonly from: number; readonly to: number },
  by: 1 | -1,
): void {
  const { tokens: ofTokens, pairs: ofPairs } = counts;
  for (let at = from; at < to; at++) {
    if (tokens[at]! >= 0) ofTokens[tokens[at]!]! += by;
    if (pairs[at]! >= 0) ofPairs[pairs[at]!]! += by;
  }
  counts.total += by * (to - from);
}
