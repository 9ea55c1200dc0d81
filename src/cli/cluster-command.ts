/**
 * `gradmix cluster`: cuts a corpus without labels into fine domains by what its documents are about. The folder that it writes:
 *
 *     clusters.json           the clusters by name: documents, bytes, tokens, telling words; the files, and how they were read
 *     clusters.html           a page to look at them in
 *     ids/NAME.npy            for each file NAME.jsonl the cluster of every document, in order (i32)
 *     centroids.npy           the centroids [clusters, dim] (f32)
 *     embedder.safetensors    what embeds texts and assigns them
 */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { assignTexts, fitTextClusters, LOOKED_AT, type TextClusters } from "../data/cluster/text-clusters.ts";
import { leafCount } from "../data/cluster/tree.ts";
import { byteTokenizer, listFiles, type Tokenizer } from "../data/index.node.ts";
import { encodeNpy } from "../data/npy.ts";
import { errorCode, type GradmixError } from "../errors.ts";
import { init } from "../host-node.ts";
import { shutdown } from "../init.ts";
import { formatJson } from "../json.ts";
import { encodeSafetensors, type StoredTensor } from "../nn/safetensors.ts";
import { ioError, writeFileAtomic } from "../node/files.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import type { ClusterArguments } from "./cluster-arguments.ts";
import {
  centroidsOf,
  documentsWithIds,
  type FileIds,
  type ForeignIds,
  readForeignIds,
  stemOf,
} from "./cluster-ids.ts";
import { clusterPage, createTally, describeClusters, type Tally } from "./cluster-tally.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { formatCount, startProgress } from "./progress.ts";
import { readTokenizer } from "./read-data.ts";
import { textHash } from "./text-hash.ts";
import type { Outputs } from "./train.ts";
import { wrong } from "./values.ts";
import { version } from "./version.ts";

/** Documents that are embedded at once. */
const BLOCK = 2048;

interface FileFacts {
  /** From the root, so that the folder can be used from anywhere. */
  readonly path: string;
  readonly documents: number;
  /** Of the text, as a run's `run.json` has it. */
  readonly sha256: string;
}

/** Runs the command; gives the exit code. Throws `config`, `data` and `io`; the folder is made once the clusters are known, and goes unless it becomes whole. */
export async function cluster(args: ClusterArguments, { out, err }: Outputs): Promise<number> {
  if (existsSync(args.out)) throw isThere(args.out);
  const progress = startProgress(err, 0);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => progress.line("stopping; Ctrl-C again to stop at once"),
    atOnce: () => {},
  });
  const say = (line: string): void => {
    if (!args.quiet) progress.line(line);
  };
  let made = false;
  try {
    const files = await listFiles(args.files, { what: "FILES", skipUnreadable: args.skipBadLines });
    const foreign = args.ids === null ? null : readForeignIds(files, args.ids, args.count);
    const tokenizer = tokenizerOf(args.tokenizer);
    say(`${formatCount(files.length)} ${files.length === 1 ? "file" : "files"}; reading a sample`);
    const { texts, ids: ofSample, facts } = await sampleOf(files, foreign, args, interrupt.signal);
    const documents = facts.reduce((sum, { documents: n }) => sum + n, 0);
    const [most = 0] = args.levels;
    if (foreign === null && texts.length < most)
      throw wrong(`--clusters: ${most} of ${texts.length} documents; ask for fewer, or give more text`);
    say(`${formatCount(documents)} documents; clusters from ${formatCount(texts.length)} of them`);
    await init({ backend: "cpu", ...(args.threads === null ? {} : { threads: args.threads }) });
    const { dim, seed } = args;
    const { signal } = interrupt;
    const taken =
      foreign === null ? null : await centroidsOf(texts, ofSample, foreign.clusters, { dim, seed, signal });
    const found = taken ?? (await fitTextClusters(texts, { levels: args.levels, dim, seed, signal }));
    const k = leafCount(found.clusters);
    say(
      taken === null
        ? `${formatCount(k)} clusters; assigning all documents`
        : `${formatCount(k)} clusters, of which nearest centroids tell ${(100 * taken.agreement).toFixed(0)} % of the documents' rightly; counting`,
    );
    const tally = createTally(k, { tokenizer, seed });
    makeFolder(args.out);
    made = true;
    const idsNames = namesOfIds(files);
    for (const [i, file] of files.entries()) {
      const ids = await assignFile(file, foreign?.ids[i] ?? found, args, tally, signal);
      writeFileAtomic(join(args.out, idsNames[i]!), [encodeNpy({ shape: [ids.length], values: ids })]);
    }
    writeModel(args.out, found);
    const clusters = describeClusters(tally, found.labels);
    const description = {
      version: 1,
      gradmix: version(),
      levels: taken === null ? args.levels : [k],
      ...{ dim, seed, sample: texts.length, textField: args.textField, documents },
      ...(args.tokenizer === null ? {} : { tokenizer: args.tokenizer }),
      ...(taken === null ? {} : { from: resolve(args.ids ?? ""), agreement: taken.agreement }),
      clusters,
      files: facts.map((file, i) => ({ ...file, ids: idsNames[i] })),
    };
    writeFileAtomic(join(args.out, "clusters.html"), [
      encode(clusterPage(clusters, tally, { files: files.length, sample: texts.length })),
    ]);
    // The last file: where it is, the folder is whole.
    writeFileAtomic(join(args.out, "clusters.json"), [encode(`${formatJson(description, 2)}\n`)]);
    await err.flush();
    out.write(formatClusters(clusters, documents));
    out.write(`files    ${args.out}\n`);
    return 0;
  } catch (error) {
    if (made) rmSync(args.out, { recursive: true, force: true });
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    progress.line("stopped; nothing was written");
    return interrupt.exitCode();
  } finally {
    await shutdown();
    interrupt.stop();
    progress.end();
    await out.flush();
    await err.flush();
  }
}

function isThere(folder: string): GradmixError {
  const whole = existsSync(join(folder, "clusters.json")) || !existsSync(join(folder, "ids"));
  return wrong(
    `--out ${folder}: is there already${whole ? "" : " (clusters that were not completed)"}; choose another folder${whole ? "" : ", or delete this one"}`,
  );
}

/** Makes the folder, which nobody else has made since, so that it may be taken away again. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(dirname(resolve(folder)), { recursive: true });
    mkdirSync(resolve(folder));
    mkdirSync(resolve(folder, "ids"));
  } catch (error) {
    throw errorCode(error) === "EEXIST" ? isThere(folder) : ioError(folder, error);
  }
}

/** `ids/NAME.npy`, as WebOrganizer has it; of files of one name in several folders the later ones get numbers. */
function namesOfIds(files: readonly string[]): string[] {
  const taken = new Set<string>();
  return files.map((file) => {
    const name = stemOf(file);
    let free = name;
    for (let n = 2; taken.has(free); n++) free = `${name}-${n}`;
    taken.add(free);
    return `ids/${free}.npy`;
  });
}

function tokenizerOf(path: string | null): Tokenizer | null {
  if (path === null) return null;
  return path === "byte" ? byteTokenizer() : readTokenizer(path);
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

type Reading = Pick<ClusterArguments, "textField" | "skipBadLines" | "sample" | "seed">;

/** Each document has the same chance to be among the texts (Vitter's algorithm R), of which the beginnings are kept; with the clusters that they are said to be in. */
async function sampleOf(
  files: readonly string[],
  foreign: ForeignIds | null,
  { textField, skipBadLines, sample, seed }: Reading,
  signal: AbortSignal,
): Promise<{ texts: string[]; ids: Int32Array; facts: FileFacts[] }> {
  const random = foldIn(key(seed), 0x5a3);
  const texts: string[] = [];
  const ids: number[] = [];
  const facts: FileFacts[] = [];
  let seen = 0;
  for (const [i, path] of files.entries()) {
    const hash = textHash();
    const given = foreign?.ids[i] ?? null;
    let documents = 0;
    for await (const { text, id } of documentsWithIds(path, given, { textField, skipBadLines })) {
      signal.throwIfAborted();
      hash.add(text);
      const place = seen < sample ? seen : Math.floor(uniformAt(random, seen) * (seen + 1));
      if (place < sample) {
        texts[place] = text.slice(0, LOOKED_AT);
        ids[place] = id;
      }
      seen++;
      documents++;
    }
    facts.push({ path: resolve(path), documents, sha256: hash.digest() });
  }
  return { texts, ids: Int32Array.from(ids), facts };
}

/** The cluster of each document of a file, in order: as given, or the nearest. Adds to the tally. */
async function assignFile(
  file: string,
  from: FileIds | TextClusters,
  { textField, skipBadLines }: Reading,
  tally: Tally,
  signal: AbortSignal,
): Promise<Int32Array> {
  const parts: Int32Array[] = [];
  let texts: string[] = [];
  let given: number[] = [];
  const assign = async (): Promise<void> => {
    const ids =
      "path" in from
        ? Int32Array.from(given)
        : await assignTexts(
            from,
            texts.map((text) => text.slice(0, LOOKED_AT)),
            signal,
          );
    ids.forEach((id, i) => tally.add(id, texts[i]!));
    parts.push(ids);
    [texts, given] = [[], []];
  };
  for await (const { text, id } of documentsWithIds(file, "path" in from ? from : null, {
    textField,
    skipBadLines,
  })) {
    signal.throwIfAborted();
    texts.push(text);
    given.push(id);
    if (texts.length === BLOCK) await assign();
  }
  if (texts.length > 0) await assign();
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return ids;
}

function writeModel(folder: string, { embedder, clusters }: TextClusters): void {
  const { dim, idf, directions, seed } = embedder;
  const width = directions.length / dim;
  const tensors = new Map<string, StoredTensor>([
    ["idf", { shape: [idf.length], data: idf }],
    ["directions", { shape: [dim, width], data: directions }],
  ]);
  clusters.levels.forEach(({ centroids, starts }, level) => {
    tensors.set(`levels.${level}.centroids`, { shape: [centroids.length / dim, dim], data: centroids });
    // Whole numbers below 2^24 are exact in f32.
    tensors.set(`levels.${level}.starts`, { shape: [starts.length], data: Float32Array.from(starts) });
  });
  writeFileAtomic(join(folder, "embedder.safetensors"), [encodeSafetensors(tensors, { seed: String(seed) })]);
  const leaves = clusters.levels.at(-1)?.centroids ?? new Float32Array(0);
  writeFileAtomic(join(folder, "centroids.npy"), [
    encodeNpy({ shape: [leaves.length / dim, dim], values: leaves }),
  ]);
}

/** Lines of the largest clusters. */
const SHOWN = 20;

/** A line for each of the largest clusters: its share of the documents and its words. */
function formatClusters(
  clusters: ReadonlyMap<string, { readonly documents: number; readonly words: readonly string[] }>,
  documents: number,
): string {
  const order = [...clusters].sort(([, a], [, b]) => b.documents - a.documents).slice(0, SHOWN);
  const width = Math.max(...order.map(([name]) => name.length));
  const lines = order.map(
    ([name, own]) =>
      `${name.padEnd(width)}  ${((100 * own.documents) / documents).toFixed(1).padStart(5)} %  ${own.words.join(" ")}\n`,
  );
  const rest = clusters.size - order.length;
  return lines.join("") + (rest > 0 ? `and ${rest} more clusters\n` : "");
}
