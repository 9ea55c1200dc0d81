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
import { stretchesOf } from "./stretches.ts";
import { runSteps, type Steps } from "./steps.ts";
import { createKeys, createTokenNumbers, type Keys, type TokenNumbers } from "./token-numbers.ts";
import { checkStream, type StoredStream, type TokenStream } from "./tokens.ts";

/** Options of `divideByLikeness`. */
export interface LikenessOptions {
  /** Number of parts per domain (default 4). */
  readonly parts?: number;
}

export const likenessDefaults = { parts: 4 } as const;

/** Largest numbers of tokens that are counted, per domain and in all. */
const COUNTED = { domain: 2 ** 18, all: 2 ** 24 };

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
  const score = likenessTo(target, domains);
  return domains.map((stream) => {
    const { tokens, documents } = stream;
    const sizes = Float64Array.from(
      { length: documents.length - 1 },
      (_, d) => documents[d + 1]! - documents[d]!,
    );
    const scores = sizes.map((_, d) => score(tokens.subarray(documents[d]!, documents[d + 1]!)));
    const ids = partsByScore(scores, sizes, options.parts ?? likenessDefaults.parts);
    return Array.from({ length: partsIn(ids) }, (_, part) => documentsOf(stream, ids, part));
  });
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
  const pieces: (Uint16Array | Uint32Array)[] = [];
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

/** How often each token and each pair occurs in some text. */
interface Counts {
  total: number;
  readonly tokens: Float64Array;
  readonly pairs: Float64Array;
}

/** The score of a text by its tokens, in nats per token; 0 for a text without a pair. */
export type Likeness = (tokens: ArrayLike<number>) => number;

/**
 * Returns the score of texts. Of large domains, 262,144 tokens in evenly spaced stretches are counted, and of very many domains fewer.
 */
export function likenessTo(target: StoredStream, domains: readonly StoredStream[]): Likeness {
  return runSteps(likenessInSteps(target, domains));
}

/** The same, in steps. */
export function* likenessInSteps(target: StoredStream, domains: readonly StoredStream[]): Steps<Likeness> {
  const most = Math.max(1, Math.min(COUNTED.domain, Math.floor(COUNTED.all / Math.max(1, domains.length))));
  const counted = ({ tokens }: StoredStream, limit: number): (Uint16Array | Uint32Array)[] =>
    stretchesOf(tokens.length, limit, 1).map(({ from, to }) => tokens.subarray(from, to));
  const ofTarget = counted(target, COUNTED.all);
  const ofAll = domains.flatMap((domain) => counted(domain, most));
  const numbers: Numbers = { tokens: createTokenNumbers(), pairs: createKeys() };
  for (const part of [...ofTarget, ...ofAll]) {
    addNumbers(numbers, part);
    yield;
  }
  const own = yield* countsOf(numbers, ofTarget);
  const all = yield* countsOf(numbers, ofAll);
  const background = all.tokens.map((count) => FLOOR + count / Math.max(1, all.total));
  const [likely, common] = [logLikelihood(own, background), logLikelihood(all, background)];
  return (tokens) => {
    let sum = 0;
    let before = tokens.length === 0 ? -1 : numbers.tokens.get(tokens[0]!);
    for (let t = 1; t < tokens.length; t++) {
      const next = numbers.tokens.get(tokens[t]!);
      const pair = before < 0 || next < 0 ? -1 : numbers.pairs.get(before, next);
      sum += likely(before, next, pair) - common(before, next, pair);
      before = next;
    }
    return tokens.length < 2 ? 0 : sum / (tokens.length - 1);
  };
}

interface Numbers {
  readonly tokens: TokenNumbers;
  readonly pairs: Keys;
}

function addNumbers({ tokens, pairs }: Numbers, part: Uint16Array | Uint32Array): void {
  let before = -1;
  for (const id of part) {
    const next = tokens.add(id);
    if (before >= 0) pairs.add(before, next);
    before = next;
  }
}

function* countsOf({ tokens, pairs }: Numbers, parts: readonly (Uint16Array | Uint32Array)[]): Steps<Counts> {
  const counts: Counts = {
    total: 0,
    tokens: new Float64Array(tokens.size),
    pairs: new Float64Array(pairs.size),
  };
  for (const part of parts) {
    let before = -1;
    for (const id of part) {
      const next = tokens.get(id);
      counts.tokens[next]!++;
      if (before >= 0) counts.pairs[pairs.get(before, next)]!++;
      before = next;
    }
    counts.total += part.length;
    yield;
  }
  return counts;
}

/** ln p(b | a), from the numbers of a, b and ab; −1 for what was not counted. */
function logLikelihood(
  { total, tokens, pairs }: Counts,
  background: Float64Array,
): (first: number, second: number, pair: number) => number {
  const of = (counts: Float64Array, number: number): number => (number < 0 ? 0 : counts[number]!);
  return (first, second, pair) => {
    const floor = second < 0 ? FLOOR : background[second]!;
    const single = (of(tokens, second) + UNIGRAM_SMOOTHING * floor) / (total + UNIGRAM_SMOOTHING);
    return Math.log((of(pairs, pair) + BIGRAM_SMOOTHING * single) / (of(tokens, first) + BIGRAM_SMOOTHING));
  };
}
