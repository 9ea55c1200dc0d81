/** Divides domains into parts by how much their documents resemble a target (`bigram-ratio.ts`). */
import { likenessDefaults } from "./defaults.ts";
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, list } from "../options.ts";
import { createBigramRatio } from "./bigram-ratio.ts";
import { runSteps, type Steps } from "./steps.ts";
import { checkStream, type StoredStream, type TokenStream, type Tokens } from "./tokens.ts";

/** Options of `divideByLikeness`. */
export interface LikenessOptions {
  /** Number of parts per domain (default 4). */
  readonly parts?: number;
}

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

/**
 * The scores of the documents of each domain, in nats per token; 0 for a document without a pair. All text of the domains is counted, since a
 * document that is counted itself has a lower score than one that is not.
 */
export function* likenessInSteps(
  target: StoredStream,
  domains: readonly StoredStream[],
): Steps<Float64Array[]> {
  const ratio = createBigramRatio();
  const documentsIn = function* ({ tokens, documents }: StoredStream): Generator<Tokens, void, undefined> {
    for (let d = 0; d + 1 < documents.length; d++) yield tokens.subarray(documents[d]!, documents[d + 1]!);
  };
  for (const [side, streams] of [["target", [target]] as const, ["other", domains] as const])
    for (const stream of streams)
      for (const document of documentsIn(stream)) {
        ratio.count(side, document);
        yield;
      }
  ratio.finish();
  const found: Float64Array[] = [];
  for (const domain of domains) {
    const scores = new Float64Array(domain.documents.length - 1);
    let d = 0;
    for (const document of documentsIn(domain)) {
      scores[d++] = ratio.score(document);
      yield;
    }
    found.push(scores);
  }
  return found;
}
