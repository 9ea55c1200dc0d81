/**
 * Log-likelihoods of short pieces of text under bigram models of many domains. Only the tokens and pairs that occur in the pieces are counted.
 *
 * For domain i with N tokens, c(a) occurrences of the token a and c(ab) of the token b after a (hierarchical Dirichlet smoothing, MacKay and Peto
 * 1995):
 *
 *     p(b | a) = (c(ab) + s·p(b)) / (c(a) + s),   p(b) = (c(b) + u·q(b)) / (N + u),
 *
 * where q is the mean of all domains' relative frequencies plus a floor, so that large domains do not determine what is common.
 */
import {
  addPlaces,
  type BigramCounts,
  createCounts,
  createPlaces,
  type Places,
  writePlaces,
} from "./bigram-counts.ts";
import { runSteps, type Steps } from "./steps.ts";
import { createKeys, createTokenNumbers, type Keys, type TokenNumbers } from "./token-numbers.ts";
import type { StoredStream, Tokens } from "./tokens.ts";

/** s: the number of occurrences of a token from which its followers weigh as much as the domain's own frequencies. */
export const BIGRAM_SMOOTHING = 20;
/** u: the number of tokens with which a domain's frequencies weigh as much as those of all domains. */
export const UNIGRAM_SMOOTHING = 1500;
/** Added to q, for tokens that no domain contains. */
export const FLOOR = 5e-6;
/** Most tokens of the domains that are kept in memory while they are counted (64 MB). */
const MOST_KEPT = 2 ** 24;

/** Tokens of a stream with their followers: the pairs (start + t, start + t + 1). */
export interface Piece {
  readonly stream: StoredStream;
  readonly start: number;
}

/** The tokens from `from` (included) to `to` (excluded). */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** The text of a domain that is counted. */
export interface CountedDomain {
  readonly stream: StoredStream;
  /** In ascending order, without overlaps. */
  readonly stretches: readonly Stretch[];
}

/** Pieces that are scored while a part of each domain is left out. */
export interface PieceGroup {
  readonly pieces: readonly Piece[];
  /** For each domain, the part of one of its stretches that is not counted; null if all is counted. */
  readonly holes: readonly (Stretch | null)[];
}

/**
 * The scores of all pieces of a group for each domain [domains · pieces]. The log-likelihood is the sum of both scores and a term that is the same
 * for all domains. In nats, summed over a piece's tokens.
 */
export interface BigramScores {
  /** Σ ln p(b) / q(b). */
  readonly unigram: Float32Array;
  /** Σ ln p(b | a) / p(b). */
  readonly bigram: Float32Array;
}

/** Computes the scores of each group. `length` is the number of pairs in a piece. */
export function scoreGroups(
  groups: readonly PieceGroup[],
  domains: readonly CountedDomain[],
  length: number,
): BigramScores[] {
  return runSteps(scoreGroupsInSteps(groups, domains, length));
}

/** The same, in a step for each domain. */
export function* scoreGroupsInSteps(
  groups: readonly PieceGroup[],
  domains: readonly CountedDomain[],
  length: number,
): Steps<BigramScores[]> {
  const [tokens, pairs] = [createTokenNumbers(), createKeys()];
  const indices = groups.map(({ pieces }) => indexPieces(pieces, length, tokens, pairs));
  const textOf = textReader(domains);
  const background = backgroundOf(domains, textOf, tokens);
  const counts = createCounts(tokens.size, pairs.size);
  const scores = groups.map(({ pieces }) => ({
    unigram: new Float32Array(domains.length * pieces.length),
    bigram: new Float32Array(domains.length * pieces.length),
  }));
  for (const [i, domain] of domains.entries()) {
    yield;
    const places = placesOf(textOf(i), totalOf(domain.stretches), tokens, pairs);
    counts.total = 0;
    counts.tokens.fill(0);
    counts.pairs.fill(0);
    addPlaces(counts, places, { from: 0, to: places.tokens.length }, 1);
    groups.forEach(({ pieces, holes }, g) => {
      const given = holes[i] ?? null;
      const hole = given === null ? emptyStretch : within(domain.stretches, given);
      addPlaces(counts, places, hole, -1);
      const { unigram, bigram } = scoreRow(counts, indices[g]!, background, pieces.length, length);
      scores[g]!.unigram.set(unigram, i * pieces.length);
      scores[g]!.bigram.set(bigram, i * pieces.length);
      addPlaces(counts, places, hole, 1);
    });
  }
  return scores;
}

const emptyStretch: Stretch = { from: 0, to: 0 };

/** The tokens and pairs that occur in the pieces of a group, and their positions. */
interface PieceIndex {
  readonly asFirst: Postings;
  readonly asSecond: Postings;
  readonly asPair: Postings;
  /** The second token of each pair of `asPair`. */
  readonly followers: Int32Array;
}

/** Item `items[j]` occurs in the pieces `piece[offsets[j] … offsets[j + 1])`, which list a piece once per occurrence. */
interface Postings {
  readonly items: Int32Array;
  readonly offsets: Int32Array;
  readonly piece: Int32Array;
}

function indexPieces(
  pieces: readonly Piece[],
  length: number,
  tokens: TokenNumbers,
  pairs: Keys,
): PieceIndex {
  const empty = (): Int32Array => new Int32Array(pieces.length * length);
  const [first, second, pair] = [empty(), empty(), empty()];
  pieces.forEach(({ stream, start }, row) => {
    const ids = stream.tokens.subarray(start, start + length + 1);
    let before = tokens.add(ids[0]!);
    for (let t = 0; t < length; t++) {
      const next = tokens.add(ids[t + 1]!);
      const at = row * length + t;
      first[at] = before;
      second[at] = next;
      pair[at] = pairs.add(before, next);
      before = next;
    }
  });
  const asPair = postingsOf(pair, length);
  const followerOf = new Int32Array(pairs.size);
  pair.forEach((item, at) => (followerOf[item] = second[at]!));
  return {
    asFirst: postingsOf(first, length),
    asSecond: postingsOf(second, length),
    asPair,
    followers: asPair.items.map((item) => followerOf[item]!),
  };
}

/** The postings of the items at each position of the pieces. */
function postingsOf(placed: Int32Array, length: number): Postings {
  const most = placed.reduce((a, b) => Math.max(a, b), -1);
  const times = new Int32Array(most + 1);
  for (const item of placed) times[item]!++;
  const items = Int32Array.from(times.keys()).filter((item) => times[item]! > 0);
  const offsets = new Int32Array(items.length + 1);
  items.forEach((item, j) => (offsets[j + 1] = offsets[j]! + times[item]!));
  // Position for the next piece of each item.
  const next = times;
  items.forEach((item, j) => (next[item] = offsets[j]!));
  const piece = new Int32Array(placed.length);
  placed.forEach((item, at) => (piece[next[item]!++] = Math.floor(at / length)));
  return { items, offsets, piece };
}

/** Reads the counted text of domain i, stretch after stretch. It is needed twice, and kept unless there is too much of it. */
function textReader(domains: readonly CountedDomain[]): (i: number) => readonly Tokens[] {
  const read = ({ stream, stretches }: CountedDomain): Tokens[] =>
    stretches.map(({ from, to }) => stream.tokens.subarray(from, to));
  if (domains.reduce((sum, { stretches }) => sum + totalOf(stretches), 0) > MOST_KEPT)
    return (i) => read(domains[i]!);
  const kept = domains.map(read);
  return (i) => kept[i]!;
}

/** q, indexed by the numbers of the tokens. */
function backgroundOf(
  domains: readonly CountedDomain[],
  textOf: (i: number) => readonly Tokens[],
  tokens: TokenNumbers,
): Float64Array {
  const background = new Float64Array(tokens.size).fill(FLOOR);
  for (const [i, { stretches }] of domains.entries()) {
    const share = 1 / (totalOf(stretches) * domains.length);
    for (const ids of textOf(i))
      for (let t = 0; t < ids.length; t++) {
        const token = tokens.get(ids[t]!);
        if (token >= 0) background[token]! += share;
      }
  }
  return background;
}

function totalOf(stretches: readonly Stretch[]): number {
  return stretches.reduce((sum, { from, to }) => sum + to - from, 0);
}

/** A domain's text, stretch after stretch. */
function placesOf(text: readonly Tokens[], total: number, tokens: TokenNumbers, pairs: Keys): Places {
  const places = createPlaces(total);
  let at = 0;
  for (const ids of text) {
    writePlaces(places, at, ids, tokens, pairs);
    at += ids.length;
  }
  return places;
}

/** The position of a part of one stretch when all stretches are concatenated. */
function within(stretches: readonly Stretch[], { from, to }: Stretch): Stretch {
  let before = 0;
  for (const stretch of stretches) {
    if (stretch.from <= from && to <= stretch.to)
      return { from: before + from - stretch.from, to: before + to - stretch.from };
    before += stretch.to - stretch.from;
  }
  return emptyStretch;
}

/** One domain's scores of all pieces of a group. */
function scoreRow(
  { total, tokens, pairs }: BigramCounts,
  { asFirst, asSecond, asPair, followers }: PieceIndex,
  background: Float64Array,
  pieces: number,
  length: number,
): { readonly unigram: Float64Array; readonly bigram: Float64Array } {
  const unigram = new Float64Array(pieces).fill(-length * Math.log1p(total / UNIGRAM_SMOOTHING));
  const bigram = new Float64Array(pieces);
  for (let j = 0; j < asSecond.items.length; j++) {
    const b = asSecond.items[j]!;
    if (tokens[b]! > 0)
      add(unigram, asSecond, j, Math.log1p(tokens[b]! / (UNIGRAM_SMOOTHING * background[b]!)));
  }
  for (let j = 0; j < asFirst.items.length; j++) {
    const a = asFirst.items[j]!;
    if (tokens[a]! > 0) add(bigram, asFirst, j, -Math.log1p(tokens[a]! / BIGRAM_SMOOTHING));
  }
  for (let j = 0; j < asPair.items.length; j++) {
    const times = pairs[asPair.items[j]!]!;
    if (times === 0) continue;
    const b = followers[j]!;
    const p = (tokens[b]! + UNIGRAM_SMOOTHING * background[b]!) / (total + UNIGRAM_SMOOTHING);
    add(bigram, asPair, j, Math.log1p(times / (BIGRAM_SMOOTHING * p)));
  }
  return { unigram, bigram };
}

/** Adds a value to the pieces that contain the j-th item, once per occurrence. */
function add(row: Float64Array, { offsets, piece }: Postings, j: number, value: number): void {
  for (let at = offsets[j]!; at < offsets[j + 1]!; at++) row[piece[at]!]! += value;
}
