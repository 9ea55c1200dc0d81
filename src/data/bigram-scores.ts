/**
 * Log-likelihoods of short pieces of text under the bigram models of many domains. Only what occurs in the pieces is counted, and a domain costs what it
 * has of that, so that thousands of domains cost about as much as one with all their text.
 *
 * Of domain i with N tokens, c(a) times the token a and c(ab) times the token b after a (hierarchical Dirichlet smoothing, MacKay and Peto 1995):
 *
 *     p(b | a) = (c(ab) + s·p(b)) / (c(a) + s),   p(b) = (c(b) + u·q(b)) / (N + u),
 *
 * with q the mean of all domains' relative frequencies, a floor added, so that a large domain does not say what is common.
 */
import type { TokenStream } from "./tokens.ts";

/** s: how many times a token must have occurred until what followed it weighs as much as the domain's own frequencies. */
const BIGRAM_SMOOTHING = 20;
/** u: with how many tokens a domain's frequencies weigh as much as those of all domains. */
const UNIGRAM_SMOOTHING = 1500;
/** Added to q, for tokens that no domain has. */
const FLOOR = 5e-6;
/** Tokens that are left out on either side of a domain's own piece, at most, as far as its document goes. */
const LEFT_OUT = 8192;

/** Some tokens of a stream, and their followers: pairs (start + t, start + t + 1). */
export interface Piece {
  readonly stream: TokenStream;
  readonly start: number;
  /** The domain that it is part of, which is then scored without the piece and the text around it; −1: of none. */
  readonly domain: number;
}

/** From token `from` up to, and not with, token `to`. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** The text of a domain that is counted. */
export interface CountedDomain {
  readonly stream: TokenStream;
  /** In order, apart from each other. */
  readonly stretches: readonly Stretch[];
}

/**
 * For each domain the scores of all pieces, [domains · pieces]: the log-likelihood is the sum of the two and of what is the same for all domains.
 * In nats, summed over a piece's tokens.
 */
export interface BigramScores {
  /** Σ ln p(b) / q(b). */
  readonly unigram: Float32Array;
  /** Σ ln p(b | a) / p(b). */
  readonly bigram: Float32Array;
}

/** `length`: pairs in a piece. A piece of a domain lies in one of its stretches. */
export function scorePieces(
  pieces: readonly Piece[],
  domains: readonly CountedDomain[],
  length: number,
): BigramScores {
  const index = indexPieces(pieces, length);
  const scratch = scratchOf(index);
  const counts = domains.map((domain) => {
    for (const stretch of domain.stretches) countStretch(domain.stream, stretch, index, scratch);
    return takeCounts(scratch);
  });
  const background = new Float64Array(index.tokens.size).fill(FLOOR);
  for (const { total, ids, times } of counts)
    for (let j = 0; j < ids.length; j++) background[ids[j]] += times[j] / (total * counts.length);

  const unigram = new Float32Array(domains.length * pieces.length);
  const bigram = new Float32Array(domains.length * pieces.length);
  const owned = new Map<number, number[]>();
  pieces.forEach(({ domain }, piece) => {
    if (domain >= 0) owned.set(domain, [...(owned.get(domain) ?? []), piece]);
  });
  const row = { unigram: new Float64Array(pieces.length), bigram: new Float64Array(pieces.length) };
  domains.forEach((domain, i) => {
    scoreRow(counts[i], index, background, scratch, row, length);
    for (const piece of owned.get(i) ?? [])
      scoreOwn(piece, pieces[piece], domain, counts[i], index, background, scratch, row, length);
    unigram.set(row.unigram, i * pieces.length);
    bigram.set(row.bigram, i * pieces.length);
  });
  return { unigram, bigram };
}

/** Numbers for pairs of 32-bit numbers, in the order in which they come: a hash table with open addressing. */
interface Keys {
  readonly size: number;
  /** −1: there is none. */
  get(a: number, b: number): number;
  add(a: number, b: number): number;
}

function createKeys(): Keys {
  let mask = 1023;
  let first = new Uint32Array(mask + 1);
  let second = new Uint32Array(mask + 1);
  let value = new Int32Array(mask + 1).fill(-1);
  let size = 0;
  const slotOf = (a: number, b: number): number => {
    let hash = Math.imul(a, 0x9e3779b1) ^ Math.imul(b ^ (b >>> 15), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
    let slot = (hash ^ (hash >>> 13)) & mask;
    while (value[slot] >= 0 && (first[slot] !== a || second[slot] !== b)) slot = (slot + 1) & mask;
    return slot;
  };
  const put = (a: number, b: number, number: number): void => {
    const slot = slotOf(a, b);
    [first[slot], second[slot], value[slot]] = [a, b, number];
  };
  const grow = (): void => {
    const before = [first, second, value] as const;
    mask = 2 * mask + 1;
    first = new Uint32Array(mask + 1);
    second = new Uint32Array(mask + 1);
    value = new Int32Array(mask + 1).fill(-1);
    before[2].forEach((number, slot) => {
      if (number >= 0) put(before[0][slot], before[1][slot], number);
    });
  };
  return {
    get size() {
      return size;
    },
    get: (a, b) => value[slotOf(a, b)],
    add(a, b) {
      const known = value[slotOf(a, b)];
      if (known >= 0) return known;
      if (2 * size > mask) grow();
      put(a, b, size);
      return size++;
    },
  };
}

/** Where the tokens and the pairs of the pieces occur. */
interface PieceIndex {
  readonly tokens: Keys;
  /** Of numbers of tokens. */
  readonly pairs: Keys;
  /** The second token of each pair. */
  readonly followers: Int32Array;
  /** Of each piece, place by place [pieces · length]: the first token, its follower, and the pair. */
  readonly first: Int32Array;
  readonly second: Int32Array;
  readonly pair: Int32Array;
  readonly asFirst: Postings;
  readonly asSecond: Postings;
  readonly asPair: Postings;
}

/** Of item j the pieces `piece[offsets[j] … offsets[j + 1])`, as often as it occurs in them. */
interface Postings {
  readonly offsets: Int32Array;
  readonly piece: Int32Array;
}

function indexPieces(pieces: readonly Piece[], length: number): PieceIndex {
  const [tokens, pairs] = [createKeys(), createKeys()];
  const [first, second, pair] = [0, 0, 0].map(() => new Int32Array(pieces.length * length));
  pieces.forEach(({ stream, start }, row) => {
    let before = tokens.add(stream.tokens[start], 0);
    for (let t = 0; t < length; t++) {
      const next = tokens.add(stream.tokens[start + t + 1], 0);
      const at = row * length + t;
      first[at] = before;
      second[at] = next;
      pair[at] = pairs.add(before, next);
      before = next;
    }
  });
  const followers = new Int32Array(pairs.size);
  pair.forEach((number, at) => (followers[number] = second[at]));
  return {
    ...{ tokens, pairs, followers, first, second, pair },
    asFirst: postingsOf(first, tokens.size, length),
    asSecond: postingsOf(second, tokens.size, length),
    asPair: postingsOf(pair, pairs.size, length),
  };
}

function postingsOf(items: Int32Array, size: number, length: number): Postings {
  const offsets = new Int32Array(size + 1);
  for (const item of items) offsets[item + 1]++;
  for (let j = 0; j < size; j++) offsets[j + 1] += offsets[j];
  const next = offsets.slice();
  const piece = new Int32Array(items.length);
  items.forEach((item, at) => (piece[next[item]++] = Math.floor(at / length)));
  return { offsets, piece };
}

/** Counts of tokens and pairs, 0 where nothing was counted, and the list of what was. */
interface Tally {
  readonly counts: Float64Array;
  readonly seen: Int32Array;
  used: number;
}

interface Scratch {
  readonly tokens: Tally;
  readonly pairs: Tally;
  total: number;
}

function scratchOf({ tokens, pairs }: PieceIndex): Scratch {
  const tally = (size: number): Tally => ({
    counts: new Float64Array(size),
    seen: new Int32Array(size),
    used: 0,
  });
  return { tokens: tally(tokens.size), pairs: tally(pairs.size), total: 0 };
}

function note(tally: Tally, item: number, times: number): void {
  if (tally.counts[item] === 0) tally.seen[tally.used++] = item;
  tally.counts[item] += times;
}

function clear(tally: Tally): void {
  for (let j = 0; j < tally.used; j++) tally.counts[tally.seen[j]] = 0;
  tally.used = 0;
}

function countStretch(
  { tokens }: TokenStream,
  { from, to }: Stretch,
  index: PieceIndex,
  scratch: Scratch,
): void {
  let before = -1;
  for (let t = from; t < to; t++) {
    const token = index.tokens.get(tokens[t], 0);
    if (token >= 0) {
      note(scratch.tokens, token, 1);
      const pair = before < 0 ? -1 : index.pairs.get(before, token);
      if (pair >= 0) note(scratch.pairs, pair, 1);
    }
    before = token;
  }
  scratch.total += to - from;
}

/** What a domain has of the tokens and the pairs in the pieces. */
interface Counts {
  /** All its tokens that were counted. */
  readonly total: number;
  readonly ids: Int32Array;
  readonly times: Float64Array;
  readonly pairIds: Int32Array;
  readonly pairTimes: Float64Array;
}

function takeCounts(scratch: Scratch): Counts {
  const { tokens, pairs, total } = scratch;
  const idsOf = ({ seen, used }: Tally): Int32Array => seen.slice(0, used);
  const timesOf = ({ counts, seen, used }: Tally): Float64Array =>
    Float64Array.from(seen.subarray(0, used), (item) => counts[item]);
  const taken = {
    ...{ total, ids: idsOf(tokens), times: timesOf(tokens) },
    ...{ pairIds: idsOf(pairs), pairTimes: timesOf(pairs) },
  };
  clear(tokens);
  clear(pairs);
  scratch.total = 0;
  return taken;
}

interface Row {
  readonly unigram: Float64Array;
  readonly bigram: Float64Array;
}

/** One domain's scores of all pieces. Only what it has of them costs anything. */
function scoreRow(
  { total, ids, times, pairIds, pairTimes }: Counts,
  { followers, asFirst, asSecond, asPair }: PieceIndex,
  background: Float64Array,
  scratch: Scratch,
  row: Row,
  length: number,
): void {
  const { counts } = scratch.tokens;
  row.unigram.fill(-length * Math.log1p(total / UNIGRAM_SMOOTHING));
  row.bigram.fill(0);
  for (let j = 0; j < ids.length; j++) {
    const [id, count] = [ids[j], times[j]];
    counts[id] = count;
    add(row.unigram, asSecond, id, Math.log1p(count / (UNIGRAM_SMOOTHING * background[id])));
    add(row.bigram, asFirst, id, -Math.log1p(count / BIGRAM_SMOOTHING));
  }
  for (let j = 0; j < pairIds.length; j++) {
    const b = followers[pairIds[j]];
    const p = (counts[b] + UNIGRAM_SMOOTHING * background[b]) / (total + UNIGRAM_SMOOTHING);
    add(row.bigram, asPair, pairIds[j], Math.log1p(pairTimes[j] / (BIGRAM_SMOOTHING * p)));
  }
  for (const id of ids) counts[id] = 0;
}

function add(row: Float64Array, { offsets, piece }: Postings, item: number, value: number): void {
  for (let at = offsets[item]; at < offsets[item + 1]; at++) row[piece[at]] += value;
}

/** The score of a domain's own piece, as if the piece and the rest of its document around it were not in the domain. */
function scoreOwn(
  piece: number,
  { start }: Piece,
  { stream, stretches }: CountedDomain,
  { total, ids, times, pairIds, pairTimes }: Counts,
  index: PieceIndex,
  background: Float64Array,
  scratch: Scratch,
  row: Row,
  length: number,
): void {
  const { tokens, pairs } = scratch;
  for (let j = 0; j < ids.length; j++) note(tokens, ids[j], times[j]);
  for (let j = 0; j < pairIds.length; j++) note(pairs, pairIds[j], pairTimes[j]);
  const left = around(stream, stretches, start, length, total);
  uncountStretch(stream, left, index, scratch);
  const rest = total - (left.to - left.from);
  const { first, second, pair } = index;
  let [one, two] = [0, 0];
  for (let at = piece * length; at < (piece + 1) * length; at++) {
    const [a, b, ab] = [tokens.counts[first[at]], tokens.counts[second[at]], pairs.counts[pair[at]]];
    const q = background[second[at]];
    const p = (b + UNIGRAM_SMOOTHING * q) / (rest + UNIGRAM_SMOOTHING);
    one += Math.log(p / q);
    two += Math.log((ab / p + BIGRAM_SMOOTHING) / (a + BIGRAM_SMOOTHING));
  }
  row.unigram[piece] = one;
  row.bigram[piece] = two;
  clear(tokens);
  clear(pairs);
}

/** Counts that were noted before go down; the items stay noted. */
function uncountStretch(
  { tokens }: TokenStream,
  { from, to }: Stretch,
  index: PieceIndex,
  scratch: Scratch,
): void {
  let before = -1;
  for (let t = from; t < to; t++) {
    const token = index.tokens.get(tokens[t], 0);
    if (token >= 0) {
      scratch.tokens.counts[token]--;
      const pair = before < 0 ? -1 : index.pairs.get(before, token);
      if (pair >= 0) scratch.pairs.counts[pair]--;
    }
    before = token;
  }
}

/** The piece and the text around it in its document, no more on either side than an eighth of what was counted. */
function around(
  { documents }: TokenStream,
  stretches: readonly Stretch[],
  start: number,
  length: number,
  total: number,
): Stretch {
  const end = start + length + 1;
  const reach = Math.min(LEFT_OUT, Math.floor(total / 8));
  let [from, to] = [Math.max(0, start - reach), end + reach];
  for (const stretch of stretches)
    if (stretch.from <= start && end <= stretch.to)
      [from, to] = [Math.max(from, stretch.from), Math.min(to, stretch.to)];
  // The document in which the piece begins, and the one in which it ends.
  const next = upperBound(documents, start);
  if (next > 0) from = Math.max(from, documents[next - 1]);
  const after = upperBound(documents, end - 1);
  if (after < documents.length) to = Math.min(to, documents[after]);
  return { from, to };
}

/** The first index whose value is above `value`; the length where there is none. */
function upperBound(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
