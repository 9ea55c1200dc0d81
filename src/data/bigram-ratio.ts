/**
 * How much more likely a text is in the language of a target than in that of other text. Its score is the mean of
 *
 *     ln p_target(b | a) / p_other(b | a)
 *
 * over its pairs of neighbouring tokens ab, in nats per token (Moore and Lewis 2010). Both are bigram models, smoothed as those of the histogram are
 * (`bigram-scores.ts`).
 */
import { BIGRAM_SMOOTHING, FLOOR, UNIGRAM_SMOOTHING } from "./bigram-scores.ts";
import { createKeys, createTokenNumbers } from "./token-numbers.ts";

type Tokens = Uint16Array | Uint32Array;

/** One of the two texts. */
export type Side = "target" | "other";

/** Counts of a target and of other text, with the score that follows from them. */
export interface BigramRatio {
  /** Makes room for the tokens and pairs of a text. All text that is counted must be added first. */
  add(tokens: Tokens): void;
  /** Counts a text, `times` times; −1 takes it out again. Tokens and pairs that were not added are not counted. */
  count(side: Side, tokens: Tokens, times?: 1 | -1): void;
  /** Fixes the frequencies with which those of both sides are smoothed, those of the other text. */
  smooth(): void;
  /** The score of a text; 0 for a text without a pair. */
  score(tokens: Tokens): number;
}

interface Counts {
  total: number;
  tokens: Float64Array;
  pairs: Float64Array;
}

/** Creates empty counts: call `add` for all text, then `count` and `smooth`, then `score`. */
export function createBigramRatio(): BigramRatio {
  const [tokenNumbers, pairs] = [createTokenNumbers(), createKeys()];
  const counts: Record<Side, Counts> = { target: noCounts(), other: noCounts() };
  let background = new Float64Array(0);
  return {
    add(tokens) {
      let before = -1;
      for (const id of tokens) {
        const next = tokenNumbers.add(id);
        if (before >= 0) pairs.add(before, next);
        before = next;
      }
    },
    count(side, tokens, times = 1) {
      const own = counts[side];
      if (own.tokens.length < tokenNumbers.size) own.tokens = widened(own.tokens, tokenNumbers.size);
      if (own.pairs.length < pairs.size) own.pairs = widened(own.pairs, pairs.size);
      let before = -1;
      for (const id of tokens) {
        const next = tokenNumbers.get(id);
        if (next >= 0) own.tokens[next]! += times;
        const pair = before < 0 || next < 0 ? -1 : pairs.get(before, next);
        if (pair >= 0) own.pairs[pair]! += times;
        before = next;
      }
      own.total += times * tokens.length;
    },
    smooth() {
      const { total, tokens } = counts.other;
      background = tokens.map((times) => FLOOR + times / Math.max(1, total));
    },
    score(tokens) {
      if (tokens.length < 2) return 0;
      let sum = 0;
      let first = tokenNumbers.get(tokens[0]!);
      for (let t = 1; t < tokens.length; t++) {
        const second = tokenNumbers.get(tokens[t]!);
        const pair = first < 0 || second < 0 ? -1 : pairs.get(first, second);
        const floor = second < 0 ? FLOOR : (background[second] ?? FLOOR);
        sum += Math.log(
          likelihood(counts.target, first, second, pair, floor) /
            likelihood(counts.other, first, second, pair, floor),
        );
        first = second;
      }
      return sum / (tokens.length - 1);
    },
  };
}

const noCounts = (): Counts => ({ total: 0, tokens: new Float64Array(0), pairs: new Float64Array(0) });

function widened(counts: Float64Array, size: number): Float64Array {
  const wider = new Float64Array(size);
  wider.set(counts);
  return wider;
}

/** p(b | a), from the numbers of a, b and ab, −1 for what was not counted, and the background of b. */
function likelihood(
  { total, tokens, pairs }: Counts,
  first: number,
  second: number,
  pair: number,
  background: number,
): number {
  const times = (counts: Float64Array, item: number): number => (item < 0 ? 0 : (counts[item] ?? 0));
  const single = (times(tokens, second) + UNIGRAM_SMOOTHING * background) / (total + UNIGRAM_SMOOTHING);
  return (times(pairs, pair) + BIGRAM_SMOOTHING * single) / (times(tokens, first) + BIGRAM_SMOOTHING);
}
