/**
 * The corpora as tokens. A folder holds `domains/NAME.jsonl.gz` and `targets/NAME.jsonl.gz`, with one document per line, `{"text": "…"}`. The tokens and clusters are
 * kept in `.cache/experiments`, under a hash of the files, so that they are computed once.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import v8 from "node:v8";
import { GradmixError } from "gradmix";
import { buildCorpus, readDocuments, type TokenStream, trainBpe } from "gradmix/data";
import { randomOf } from "./random.ts";
import { clusterTree, type Idf, type Node, tfidf } from "./clusters.ts";

/** Held-out shares, and the seed that decides which documents are held out; the same in all runs. */
const split = { domains: 0.1, targets: 0.3, seed: 1 };
/** Characters on which the tokenizer is trained, the same number from each domain. */
const LEARNT = 8e6;
const TREE_DEPTH = 4;

export interface Split {
  readonly train: TokenStream;
  readonly heldOut: TokenStream;
}

export interface Text {
  /** Number of tokens in the vocabulary, including the end of text. */
  readonly vocabulary: number;
  readonly domains: Readonly<Record<string, Split>>;
  readonly targets: Readonly<Record<string, Split>>;
}

/** Clusters of the windows of some domains' training text, one domain after another. */
export interface Clustering {
  readonly idf: Idf;
  readonly root: Node;
}

export interface Corpora {
  readonly folder: string;
  /** A hash of the files. */
  readonly hash: string;
  readonly domains: readonly string[];
  readonly targets: readonly string[];
}

const ENDING = ".jsonl.gz";
const CACHE = ".cache/experiments";

/** Lists the contents of a folder. Throws `data` if it has no corpora. */
export function findCorpora(folder: string): Corpora {
  const hash = createHash("sha256");
  const namesIn = (kind: "domains" | "targets"): string[] => {
    const found = existsSync(join(folder, kind))
      ? readdirSync(join(folder, kind)).filter((file) => file.endsWith(ENDING))
      : [];
    if (found.length === 0)
      throw new GradmixError(
        "data",
        `${folder}: it has no ${kind}/*${ENDING}; name a folder of corpora with --corpora or GRADMIX_CORPORA`,
      );
    const names = found.map((file) => file.slice(0, -ENDING.length)).sort();
    for (const name of names)
      hash.update(`${kind}/${name}\n`).update(readFileSync(fileOf(folder, kind, name)));
    return names;
  };
  const [domains, targets] = [namesIn("domains"), namesIn("targets")];
  return { folder, domains, targets, hash: hash.digest("hex").slice(0, 16) };
}

const fileOf = (folder: string, kind: "domains" | "targets", name: string): string =>
  join(folder, kind, name + ENDING);

/** Returns the tokens; the first time, trains the tokenizer and encodes the text. */
export async function textOf(corpora: Corpora, vocabulary: number): Promise<Text> {
  return cached(`tokens-${vocabulary}-${corpora.hash}`, () => encode(corpora, vocabulary));
}

async function encode({ folder, ...names }: Corpora, vocabulary: number): Promise<Text> {
  async function* sample(): AsyncGenerator<string> {
    for (const name of names.domains) {
      let left = LEARNT / names.domains.length;
      for await (const { text } of readDocuments([fileOf(folder, "domains", name)])) {
        if (left <= 0) break;
        yield text.slice(0, left);
        left -= text.length;
      }
    }
  }
  const tokenizer = await trainBpe(sample(), { vocabSize: vocabulary });
  const streams = async (kind: "domains" | "targets"): Promise<Record<string, Split>> => {
    const out: Record<string, Split> = {};
    for (const name of names[kind]) {
      const file = fileOf(folder, kind, name);
      const options = { heldOut: split[kind], seed: split.seed };
      const { train, heldOut } = await buildCorpus(name, readDocuments([file]), tokenizer, options);
      if (heldOut === null)
        throw new GradmixError("data", `${file}: no text was held out; give a file with more text`);
      out[name] = { train, heldOut };
    }
    return out;
  };
  return {
    vocabulary: tokenizer.vocabSize,
    domains: await streams("domains"),
    targets: await streams("targets"),
  };
}

/** Returns the clusters of the windows; `key` is a name for these windows. */
export async function clusteringOf(
  key: string,
  windows: () => readonly ArrayLike<number>[],
): Promise<Clustering> {
  return cached(`clusters-${key}`, () => {
    const { rows, idf } = tfidf(windows());
    return { idf, root: clusterTree(rows, TREE_DEPTH, split.seed) };
  });
}

/** Returns the result of `make`, from the cache if it is there. It is written to another file and renamed, so that it is complete or absent. */
async function cached<T>(name: string, make: () => T | Promise<T>): Promise<T> {
  const file = join(CACHE, `${name}.bin`);
  if (existsSync(file)) return v8.deserialize(readFileSync(file)) as T;
  const made = await make();
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(`${file}.${process.pid}`, v8.serialize(made));
  renameSync(`${file}.${process.pid}`, file);
  return made;
}

/** Returns the first `most` tokens of a stream. */
export function firstTokens(stream: TokenStream, most: number | null): TokenStream {
  const { tokens, documents } = stream;
  if (most === null || most >= tokens.length) return stream;
  return {
    tokens: tokens.slice(0, most),
    documents: Float64Array.from([...documents.filter((start) => start < most), most]),
  };
}

/** Draws as many whole windows of `time` tokens as fit into `most` tokens, without repetition, and joins them in the order of the text. The last token that a window predicts is the first token of the next one. */
export function drawnWindows(
  stream: TokenStream,
  { most, time, seed }: { readonly most: number; readonly time: number; readonly seed: number },
): TokenStream {
  const windows = Math.floor(stream.tokens.length / time);
  const wanted = Math.min(windows, Math.floor(most / time));
  const random = randomOf(seed);
  const left = Array.from({ length: windows }, (_, w) => w);
  const drawn = Array.from({ length: wanted }, () => left.splice(Math.floor(random() * left.length), 1)[0]);
  return joinStreams(
    drawn
      .sort((a, b) => a - b)
      .map((w) => ({
        tokens: stream.tokens.subarray(w * time, (w + 1) * time),
        documents: Float64Array.of(0, time),
      })),
  );
}

/** Joins streams into one. */
export function joinStreams(streams: readonly TokenStream[]): TokenStream {
  const tokens = new Uint16Array(streams.reduce((sum, stream) => sum + stream.tokens.length, 0));
  const documents: number[] = [0];
  let at = 0;
  for (const stream of streams) {
    tokens.set(stream.tokens, at);
    for (const start of stream.documents.slice(1)) documents.push(at + start);
    at += stream.tokens.length;
  }
  return { tokens, documents: Float64Array.from(documents) };
}
