/**
 * Divides domains into parts by how much their documents resemble a target. The score of a document is the mean of
 *
 *     ln p_target(b | a) / p_all(b | a)
 *
 * over its pairs of neighbouring tokens ab, in nats per token: how much more likely it is in the language of the target than in that of all
 * domains (Moore and Lewis 2010). Both are bigram models, smoothed as those of the histogram are (`bigram-scores.ts`).
 */
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, list } from "../options.ts";
import { BIGRAM_SMOOTHING, FLOOR, UNIGRAM_SMOOTHING } from "./bigram-scores.ts";
import { runSteps, type Steps } from "./steps.ts";
import { createKeys, createTokenNumbers, type Keys, type TokenNumbers } from "./token-numbers.ts";
import { checkStream, type StoredStream, type TokenStream } from "./tokens.ts";

/** Options of `divideByLikeness`. */
export interface LikenessOptions {
  /** Number of parts per domain (default 4). */
  readonly parts?: number;
}

export const likenessDefaults = { parts: 4 } as const;

/**
 * Divides the documents of each domain into parts of about equal numbers of tokens, by how much they resemble the target. The first part of a
 * domain resembles it most. A domain with fewer documents than parts, or with a document that fills several, has fewer parts. The documents of a
 * part keep their order. Parts are domains that fit a target better than the whole: a histogram over them (`bigramHistogram`), and the rules,
 * can then choose text within a domain.
 *
 * All text must come from one tokenizer. Returns the parts of each domain, as copies in memory. Throws `config` for invalid options, and for
 * streams without tokens.
 */
export function divideByLikeness(
  target: StoredStream,
  domains: readonly StoredStream[],
  options: LikenessOptions = {},
): TokenStream[][] {
  checkOptions<LikenessOptions>("divideByLikeness", options, { parts: integerIn(1) });
  list("divideByLikeness: domains", domains);
  for (const [what, stream] of [["target", target] as const, ...domains.entries()]) {
    const name = `divideByLikeness: ${typeof what === "number" ? `domains: ${what}` : what}`;
    checkStream(name, stream);
    if (stream.tokens.length === 0) throw new GradmixError("config", `${name}: it has no tokens`);
  }
  const scores = runSteps(likenessInSteps(target, domains));
  return domains.map((stream, i) => {
    const ids = partsByScore(scores[i]!, documentSizes(stream), options.parts ?? likenessDefaults.parts);
    return Array.from({ length: partsIn(ids) }, (_, part) => documentsOf(stream, ids, part));
  });
}

/** Number of tokens of each document. */
export function documentSizes({ documents }: StoredStream): Float64Array {
  return Float64Array.from({ length: documents.length - 1 }, (_, d) => documents[d + 1]! - documents[d]!);
}

/** The number of parts that are numbered in `ids`. */
export function partsIn(ids: Int32Array): number {
  return ids.reduce((most, id) => Math.max(most, id), -1) + 1;
}

/**
 * Assigns documents to parts of about equal `sizes`, those with the highest scores to part 0. Documents with equal scores keep their order. The
 * numbers of the parts have no gaps. Returns the part of each document.
 */
export function partsByScore(scores: ArrayLike<number>, sizes: ArrayLike<number>, parts: number): Int32Array {
  const order = Int32Array.from({ length: scores.length }, (_, d) => d).sort(
    (a, b) => scores[b]! - scores[a]! || a - b,
  );
  const total = order.reduce((sum, d) => sum + sizes[d]!, 0);
  const ids = new Int32Array(scores.length);
  let [before, last, id] = [0, -1, -1];
  for (const d of order) {
    // The part in which the middle of the document lies.
    const part = Math.min(parts - 1, Math.floor(((before + sizes[d]! / 2) / Math.max(1, total)) * parts));
    if (part !== last) id++;
    [ids[d], last] = [id, part];
    before += sizes[d]!;
  }
  return ids;
}

/** A stream of the documents of one part, in their order. */
function documentsOf({ tokens, documents }: StoredStream, ids: Int32Array, part: number): TokenStream {
  const starts = [0];
  const pieces: Tokens[] = [];
  let length = 0;
  for (const [d, id] of ids.entries()) {
    if (id !== part) continue;
    const piece = tokens.subarray(documents[d]!, documents[d + 1]!);
    pieces.push(piece);
    length += piece.length;
    starts.push(length);
  }
  const wide = pieces.some((piece) => piece instanceof Uint32Array);
  const joined = wide ? new Uint32Array(length) : new Uint16Array(length);
  for (const [j, piece] of pieces.entries()) joined.set(piece, starts[j]);
  return { tokens: joined, documents: Float64Array.from(starts) };
}

type Tokens = Uint16Array | Uint32Array;

/**
 * The scores of the documents of each domain, in nats per token; 0 for a document without a pair. All text of the domains is counted, since a
 * document that is counted itself has a lower score than one that is not.
 */
export function* likenessInSteps(
  target: StoredStream,
  domains: readonly StoredStream[],
): Steps<Float64Array[]> {
  const numbers: Numbers = { tokens: createTokenNumbers(), pairs: createKeys() };
  const documentsIn = function* ({ tokens, documents }: StoredStream): Generator<Tokens, void, undefined> {
    for (let d = 0; d + 1 < documents.length; d++) yield tokens.subarray(documents[d]!, documents[d + 1]!);
  };
  for (const stream of [target, ...domains])
    for (const document of documentsIn(stream)) {
      addNumbers(numbers, document);
      yield;
    }
  const [own, all] = [emptyCounts(numbers), emptyCounts(numbers)];
  for (const document of documentsIn(target)) {
    count(own, numbers, document);
    yield;
  }
  for (const domain of domains)
    for (const document of documentsIn(domain)) {
      count(all, numbers, document);
      yield;
    }
  const background = all.tokens.map((times) => FLOOR + times / Math.max(1, all.total));
  const found: Float64Array[] = [];
  for (const domain of domains) {
    const scores = new Float64Array(domain.documents.length - 1);
    let d = 0;
    for (const document of documentsIn(domain)) {
      scores[d++] = scoreOf(document, numbers, [own, all], background);
      yield;
    }
    found.push(scores);
  }
  return found;
}

interface Numbers {
  readonly tokens: TokenNumbers;
  readonly pairs: Keys;
}

function addNumbers({ tokens, pairs }: Numbers, document: Tokens): void {
  let before = -1;
  for (const id of document) {
    const next = tokens.add(id);
    if (before >= 0) pairs.add(before, next);
    before = next;
  }
}

/** How often each token and each pair occurs in some text. */
interface Counts {
  total: number;
  readonly tokens: Float64Array;
  readonly pairs: Float64Array;
}

function emptyCounts({ tokens, pairs }: Numbers): Counts {
  return { total: 0, tokens: new Float64Array(tokens.size), pairs: new Float64Array(pairs.size) };
}

/** Counts each token and each pair of a document. */
function count(counts: Counts, { tokens, pairs }: Numbers, document: Tokens): void {
  let before = -1;
  for (const id of document) {
    const next = tokens.get(id);
    counts.tokens[next]!++;
    if (before >= 0) counts.pairs[pairs.get(before, next)]!++;
    before = next;
  }
  counts.total += document.length;
}

/** The mean of ln p_target(b | a) / p_all(b | a) over the pairs of a document. */
function scoreOf(
  document: Tokens,
  { tokens, pairs }: Numbers,
  [own, all]: readonly [Counts, Counts],
  background: Float64Array,
): number {
  if (document.length < 2) return 0;
  let sum = 0;
  let first = tokens.get(document[0]!);
  for (let t = 1; t < document.length; t++) {
    const second = tokens.get(document[t]!);
    const pair = pairs.get(first, second);
    const floor = background[second]!;
    sum += Math.log(
      likelihood(own, first, second, pair, floor) / likelihood(all, first, second, pair, floor),
    );
    first = second;
  }
  return sum / (document.length - 1);
}

/** p(b | a), from the numbers of a, b and ab, and the background of b. */
function likelihood(
  { total, tokens, pairs }: Counts,
  first: number,
  second: number,
  pair: number,
  background: number,
): number {
  const single = (tokens[second]! + UNIGRAM_SMOOTHING * background) / (total + UNIGRAM_SMOOTHING);
  return (pairs[pair]! + BIGRAM_SMOOTHING * single) / (tokens[first]! + BIGRAM_SMOOTHING);
}
