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
  const own = domains.map((): number[] => []);
  pieces.forEach(({ domain }, piece) => {
    if (domain >= 0) own[domain].push(piece);
  });
  const counts = domains.map((domain, i) => {
    const places = placesOf(domain, index);
    for (const item of places.tokens) if (item >= 0) note(scratch.tokens, item);
    for (const item of places.pairs) if (item >= 0) note(scratch.pairs, item);
    const left = own[i].map((piece) => {
      const stretch = around(domain, pieces[piece].start, length, places.tokens.length);
      return countsWithout(piece, stretch, places, index, scratch, length);
    });
    return takeCounts(scratch, places.tokens.length, left);
  });
  const background = new Float64Array(index.tokens.size).fill(FLOOR);
  for (const { total, ids, times } of counts)
    for (let j = 0; j < ids.length; j++) background[ids[j]] += times[j] / (total * counts.length);

  const unigram = new Float32Array(domains.length * pieces.length);
  const bigram = new Float32Array(domains.length * pieces.length);
  const row = { unigram: new Float64Array(pieces.length), bigram: new Float64Array(pieces.length) };
  counts.forEach((domain, i) => {
    scoreRow(domain, index, background, scratch.tokens.counts, row, length);
    for (const left of domain.left) scoreLeft(left, index, background, row, length);
    unigram.set(row.unigram, i * pieces.length);
    bigram.set(row.bigram, i * pieces.length);
  });
  return { unigram, bigram };
}

/** Numbers for pairs of numbers below 2³¹, in the order in which they come: a hash table with open addressing. */
interface Keys {
  readonly size: number;
  /** −1: there is none. */
  get(a: number, b: number): number;
  add(a: number, b: number): number;
}

function createKeys(): Keys {
  let mask = 1023;
  // A slot is a, b and the number, and one that is left free: 16 bytes lie in one line of the cache.
  let slots = new Int32Array(4 * (mask + 1)).fill(-1);
  let size = 0;
  const slotOf = (a: number, b: number): number => {
    let hash = Math.imul(a, 0x9e3779b1) ^ Math.imul(b ^ (b >>> 15), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
    let slot = (hash ^ (hash >>> 13)) & mask;
    while (slots[4 * slot + 2] >= 0 && (slots[4 * slot] !== a || slots[4 * slot + 1] !== b))
      slot = (slot + 1) & mask;
    return 4 * slot;
  };
  const put = (a: number, b: number, number: number): void => {
    const slot = slotOf(a, b);
    slots[slot] = a;
    slots[slot + 1] = b;
    slots[slot + 2] = number;
  };
  const grow = (): void => {
    const before = slots;
    mask = 2 * mask + 1;
    slots = new Int32Array(4 * (mask + 1)).fill(-1);
    for (let at = 0; at < before.length; at += 4)
      if (before[at + 2] >= 0) put(before[at], before[at + 1], before[at + 2]);
  };
  return {
    get size() {
      return size;
    },
    get: (a, b) => slots[slotOf(a, b) + 2],
    add(a, b) {
      const known = slots[slotOf(a, b) + 2];
      if (known >= 0) return known;
      if (2 * size > mask) grow();
      put(a, b, size);
      return size++;
    },
  };
}

/** Numbers for tokens, in the order in which they come. */
interface TokenNumbers {
  readonly size: number;
  /** −1: there is none. */
  get(token: number): number;
  add(token: number): number;
}

/** Tokens above it, which hardly a tokenizer has, are looked up more slowly. */
const MOST_DIRECT = 2 ** 20;

function createTokenNumbers(): TokenNumbers {
  const direct = new Int32Array(MOST_DIRECT).fill(-1);
  const others = new Map<number, number>();
  let size = 0;
  const get = (token: number): number => (token < MOST_DIRECT ? direct[token] : (others.get(token) ?? -1));
  return {
    get size() {
      return size;
    },
    get,
    add(token) {
      const known = get(token);
      if (known >= 0) return known;
      if (token < MOST_DIRECT) direct[token] = size;
      else others.set(token, size);
      return size++;
    },
  };
}

/** Where the tokens and the pairs of the pieces occur. */
interface PieceIndex {
  readonly tokens: TokenNumbers;
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
  const [tokens, pairs] = [createTokenNumbers(), createKeys()];
  const [first, second, pair] = [0, 0, 0].map(() => new Int32Array(pieces.length * length));
  pieces.forEach(({ stream, start }, row) => {
    let before = tokens.add(stream.tokens[start]);
    for (let t = 0; t < length; t++) {
      const next = tokens.add(stream.tokens[start + t + 1]);
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
}

function scratchOf({ tokens, pairs }: PieceIndex): Scratch {
  const tally = (size: number): Tally => ({
    counts: new Float64Array(size),
    seen: new Int32Array(size),
    used: 0,
  });
  return { tokens: tally(tokens.size), pairs: tally(pairs.size) };
}

function note(tally: Tally, item: number): void {
  if (tally.counts[item]++ === 0) tally.seen[tally.used++] = item;
}

/** A domain's text, stretch after stretch, by numbers of the index; −1 for what is not in it. */
interface Places {
  readonly tokens: Int32Array;
  /** The pair that ends here. */
  readonly pairs: Int32Array;
  readonly stretches: readonly Stretch[];
}

function placesOf({ stream, stretches }: CountedDomain, { tokens, pairs }: PieceIndex): Places {
  const total = stretches.reduce((sum, { from, to }) => sum + to - from, 0);
  const places = { tokens: new Int32Array(total), pairs: new Int32Array(total), stretches };
  let at = 0;
  for (const { from, to } of stretches) {
    let before = -1;
    for (let t = from; t < to; t++, at++) {
      const token = tokens.get(stream.tokens[t]);
      places.tokens[at] = token;
      places.pairs[at] = before < 0 || token < 0 ? -1 : pairs.get(before, token);
      before = token;
    }
  }
  return places;
}

/** What a domain has of the tokens and the pairs in the pieces. */
interface Counts {
  /** All its tokens that were counted. */
  readonly total: number;
  readonly ids: Int32Array;
  readonly times: Float64Array;
  readonly pairIds: Int32Array;
  readonly pairTimes: Float64Array;
  readonly left: readonly CountsLeft[];
}

/** What is left of a domain without one of its pieces and the text around it: the counts of what stands at each place of the piece [length]. */
interface CountsLeft {
  readonly piece: number;
  readonly total: number;
  readonly first: Float64Array;
  readonly second: Float64Array;
  readonly pair: Float64Array;
}

function countsWithout(
  piece: number,
  stretch: Stretch,
  places: Places,
  { first, second, pair }: PieceIndex,
  { tokens, pairs }: Scratch,
  length: number,
): CountsLeft {
  const { from, to } = within(places.stretches, stretch);
  const change = (by: number): void => {
    for (let at = from; at < to; at++) if (places.tokens[at] >= 0) tokens.counts[places.tokens[at]] += by;
    // The pair that ends at the first token begins before it.
    for (let at = from + 1; at < to; at++) if (places.pairs[at] >= 0) pairs.counts[places.pairs[at]] += by;
  };
  change(-1);
  const countsOf = (items: Int32Array, { counts }: Tally): Float64Array =>
    Float64Array.from(items.subarray(piece * length, (piece + 1) * length), (item) => counts[item]);
  const left = {
    piece,
    total: places.tokens.length - (to - from),
    first: countsOf(first, tokens),
    second: countsOf(second, tokens),
    pair: countsOf(pair, pairs),
  };
  change(1);
  return left;
}

/** Where a part of one of the stretches lies, when they are put one after another. */
function within(stretches: readonly Stretch[], { from, to }: Stretch): Stretch {
  let before = 0;
  for (const stretch of stretches) {
    if (stretch.from <= from && to <= stretch.to)
      return { from: before + from - stretch.from, to: before + to - stretch.from };
    before += stretch.to - stretch.from;
  }
  return { from: 0, to: 0 };
}

/** The counts so far, which are 0 then. */
function takeCounts({ tokens, pairs }: Scratch, total: number, left: readonly CountsLeft[]): Counts {
  const [ids, pairIds] = [tokens.seen.slice(0, tokens.used), pairs.seen.slice(0, pairs.used)];
  const counts: Counts = {
    ...{ total, ids, pairIds, left },
    times: Float64Array.from(ids, (id) => tokens.counts[id]),
    pairTimes: Float64Array.from(pairIds, (id) => pairs.counts[id]),
  };
  for (const id of ids) tokens.counts[id] = 0;
  for (const id of pairIds) pairs.counts[id] = 0;
  [tokens.used, pairs.used] = [0, 0];
  return counts;
}

interface Row {
  readonly unigram: Float64Array;
  readonly bigram: Float64Array;
}

/** One domain's scores of all pieces. Only what it has of them costs anything. `of`: zeros, by token. */
function scoreRow(
  { total, ids, times, pairIds, pairTimes }: Counts,
  { followers, asFirst, asSecond, asPair }: PieceIndex,
  background: Float64Array,
  of: Float64Array,
  row: Row,
  length: number,
): void {
  row.unigram.fill(-length * Math.log1p(total / UNIGRAM_SMOOTHING));
  row.bigram.fill(0);
  for (let j = 0; j < ids.length; j++) {
    const [id, count] = [ids[j], times[j]];
    of[id] = count;
    add(row.unigram, asSecond, id, Math.log1p(count / (UNIGRAM_SMOOTHING * background[id])));
    add(row.bigram, asFirst, id, -Math.log1p(count / BIGRAM_SMOOTHING));
  }
  for (let j = 0; j < pairIds.length; j++) {
    const b = followers[pairIds[j]];
    const p = (of[b] + UNIGRAM_SMOOTHING * background[b]) / (total + UNIGRAM_SMOOTHING);
    add(row.bigram, asPair, pairIds[j], Math.log1p(pairTimes[j] / (BIGRAM_SMOOTHING * p)));
  }
  for (const id of ids) of[id] = 0;
}

function add(row: Float64Array, { offsets, piece }: Postings, item: number, value: number): void {
  for (let at = offsets[item]; at < offsets[item + 1]; at++) row[piece[at]] += value;
}

/** One domain's score of a piece of its own. */
function scoreLeft(
  { piece, total, first, second: times, pair }: CountsLeft,
  { second }: PieceIndex,
  background: Float64Array,
  row: Row,
  length: number,
): void {
  let [one, two] = [0, 0];
  for (let t = 0; t < length; t++) {
    const q = background[second[piece * length + t]];
    const p = (times[t] + UNIGRAM_SMOOTHING * q) / (total + UNIGRAM_SMOOTHING);
    one += Math.log(p / q);
    two += Math.log((pair[t] / p + BIGRAM_SMOOTHING) / (first[t] + BIGRAM_SMOOTHING));
  }
  row.unigram[piece] = one;
  row.bigram[piece] = two;
}

/** The piece and the text around it in its document, no more on either side than a sixth of what was counted. */
function around(
  { stream: { documents }, stretches }: CountedDomain,
  start: number,
  length: number,
  total: number,
): Stretch {
  const end = start + length + 1;
  const reach = Math.min(LEFT_OUT, Math.floor(total / 6));
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
