/**
 * How much more likely a text is in the language of a target than in that of other text. Its score is the mean of
 *
 *     ln p_target(b | a) / p_other(b | a)
 *
 * over its pairs of neighbouring tokens ab, in nats per token (Moore and Lewis 2010). Both are bigram models, smoothed as those of the histogram are
 * (`bigram-scores.ts`), with the frequencies of the other text.
 */
import {
  addPlaces,
  type BigramCounts,
  createCounts,
  createPlaces,
  type Places,
  writePlaces,
} from "./bigram-counts.ts";
import { BIGRAM_SMOOTHING, FLOOR, UNIGRAM_SMOOTHING } from "./bigram-scores.ts";
import { createKeys, createTokenNumbers, type Keys, type TokenNumbers } from "./token-numbers.ts";
import type { Tokens } from "./tokens.ts";

/** One of the two texts. */
export type Side = "target" | "other";

/** Counts of a target and of other text, and the scores that follow from them. */
export interface BigramRatio {
  /** Counts a text. */
  count(side: Side, tokens: Tokens): void;
  /** Computes what scores look up, once all text has been counted. */
  finish(): void;
  /** The score of a text; 0 for a text without a pair. */
  score(tokens: Tokens): number;
  /** The same for a text that was counted, without its own occurrences on one side. */
  scoreWithout(side: Side, tokens: Tokens): number;
  /** Takes a text that was counted out of one side while `use` runs. What both sides are smoothed with stays the same. */
  without<R>(side: Side, tokens: Tokens, use: () => R): R;
}

type Both = Readonly<Record<Side, BigramCounts>>;

/**
 * The logarithm of a pair's ratio is the sum of two terms: that of the first token, and that of the pair or, for a pair that was not counted, of
 * the second token.
 */
interface Terms {
  readonly first: Float64Array;
  readonly second: Float64Array;
  readonly pair: Float64Array;
}

/** With up to this many tokens, the ratios of all pairs are in one table (13 MB), which is faster than looking up pairs. */
const MOST_IN_TABLE = 1280;

/** The counts, and what follows from them. */
interface State {
  readonly numbers: TokenNumbers;
  readonly pairs: Keys;
  /** The second token of each pair. */
  readonly followers: number[];
  /** The arrays grow while text is counted. */
  readonly counts: Both;
  background: Float64Array;
  /** null until all text has been counted, and while a text is taken out of the counts. */
  terms: Terms | null;
  /** The logarithm of the ratio of each pair [tokens, tokens]; null if there are too many tokens. */
  table: Float64Array | null;
  /** Room for the places of a text. */
  places: Places;
}

/** Creates empty counts. Call `count` for all text, then `finish`, then the others. */
export function createBigramRatio(): BigramRatio {
  const state: State = {
    numbers: createTokenNumbers(),
    pairs: createKeys(),
    followers: [],
    counts: { target: createCounts(0, 0), other: createCounts(0, 0) },
    background: new Float64Array(0),
    terms: null,
    table: null,
    places: createPlaces(0),
  };
  return {
    count: (side, tokens) => count(state, side, tokens),
    finish: () => finish(state),
    score: (tokens) => (tokens.length < 2 ? 0 : sumOfRatios(state, tokens) / (tokens.length - 1)),
    scoreWithout(side, tokens) {
      if (tokens.length < 2) return 0;
      const own = change(state, side, tokens, -1);
      const sum = sumAtPlaces(state, own, tokens.length);
      addPlaces(state.counts[side], own, { from: 0, to: tokens.length }, 1);
      return sum / (tokens.length - 1);
    },
    without(side, tokens, use) {
      const kept = state.terms;
      state.terms = null;
      change(state, side, tokens, -1);
      try {
        return use();
      } finally {
        change(state, side, tokens, 1);
        state.terms = kept;
      }
    },
  };
}

function count({ numbers, pairs, followers, counts }: State, side: Side, tokens: Tokens): void {
  const own = counts[side];
  let before = -1;
  for (const id of tokens) {
    const next = numbers.add(id);
    if (next >= own.tokens.length) own.tokens = resized(own.tokens, 2 * next + 1024);
    own.tokens[next]! += 1;
    if (before >= 0) {
      const pair = pairs.add(before, next);
      if (pair === followers.length) followers.push(next);
      if (pair >= own.pairs.length) own.pairs = resized(own.pairs, 2 * pair + 1024);
      own.pairs[pair]! += 1;
    }
    before = next;
  }
  own.total += tokens.length;
}

function finish(state: State): void {
  const { numbers, pairs, followers, counts } = state;
  for (const side of Object.values(counts)) {
    side.tokens = resized(side.tokens, numbers.size);
    side.pairs = resized(side.pairs, pairs.size);
  }
  const { tokens, total } = counts.other;
  const background = Float64Array.from(tokens, (times) => FLOOR + times / Math.max(1, total));
  const terms: Terms = {
    first: background.map((_, a) => firstTerm(counts, a)),
    second: background.map((floor, b) => secondTerm(counts, b, -1, floor)),
    pair: Float64Array.from(followers, (b, ab) => secondTerm(counts, b, ab, background[b]!)),
  };
  state.background = background;
  state.terms = terms;
  if (numbers.size <= MOST_IN_TABLE) state.table = tableOf(terms, pairs);
}

/** The sum of the logarithms of the ratios of a text's pairs. */
function sumOfRatios({ numbers, pairs, counts, background, terms, table }: State, tokens: Tokens): number {
  const width = numbers.size;
  let sum = 0;
  let a = numbers.get(tokens[0]!);
  for (let t = 1; t < tokens.length; t++) {
    const b = numbers.get(tokens[t]!);
    if (terms === null || a < 0 || b < 0) {
      const ab = a < 0 || b < 0 ? -1 : pairs.get(a, b);
      sum += firstTerm(counts, a) + secondTerm(counts, b, ab, b < 0 ? FLOOR : background[b]!);
    } else if (table !== null) sum += table[a * width + b]!;
    else {
      const ab = pairs.get(a, b);
      sum += terms.first[a]! + (ab < 0 ? terms.second[b]! : terms.pair[ab]!);
    }
    a = b;
  }
  return sum;
}

/** The same for a text that was counted, from the counts as they are now. */
function sumAtPlaces({ counts, background }: State, own: Places, length: number): number {
  let sum = 0;
  for (let t = 1; t < length; t++) {
    const [a, b] = [own.tokens[t - 1]!, own.tokens[t]!];
    sum += firstTerm(counts, a) + secondTerm(counts, b, own.pairs[t]!, background[b]!);
  }
  return sum;
}

/** Adds a text that was counted, or takes it out. Returns its places, until the next call. */
function change(state: State, side: Side, tokens: Tokens, by: 1 | -1): Places {
  if (state.places.tokens.length < tokens.length) state.places = createPlaces(2 * tokens.length);
  const { places, numbers, pairs, counts } = state;
  writePlaces(places, 0, tokens, numbers, pairs);
  addPlaces(counts[side], places, { from: 0, to: tokens.length }, by);
  return places;
}

/** The logarithm of the ratio of each pair of tokens [tokens, tokens]. */
function tableOf({ first, second, pair }: Terms, pairs: Keys): Float64Array {
  const ratios = new Float64Array(first.length * second.length);
  first.forEach((term, a) => {
    const row = a * second.length;
    second.forEach((other, b) => (ratios[row + b] = term + other));
  });
  pairs.forEach((a, b, ab) => (ratios[a * second.length + b] = first[a]! + pair[ab]!));
  return ratios;
}

/** The first values of an array, followed by zeros. */
function resized(values: Int32Array, length: number): Int32Array {
  const found = new Int32Array(length);
  found.set(values.subarray(0, length));
  return found;
}

const timesOf = (counts: Int32Array, item: number): number => (item < 0 ? 0 : counts[item]!);

/** The term of a first token: of the ratio, what divides p(b | a). */
function firstTerm({ target, other }: Both, a: number): number {
  return Math.log(
    (timesOf(other.tokens, a) + BIGRAM_SMOOTHING) / (timesOf(target.tokens, a) + BIGRAM_SMOOTHING),
  );
}

/** The term of a pair ab, −1 if it was not counted, from the background of b. */
function secondTerm({ target, other }: Both, b: number, ab: number, background: number): number {
  return Math.log(undivided(target, b, ab, background) / undivided(other, b, ab, background));
}

/** The numerator of p(b | a). */
function undivided(
  { total, tokens, pairs }: BigramCounts,
  b: number,
  ab: number,
  background: number,
): number {
  const single = (timesOf(tokens, b) + UNIGRAM_SMOOTHING * background) / (total + UNIGRAM_SMOOTHING);
  return timesOf(pairs, ab) + BIGRAM_SMOOTHING * single;
}
