/**
 * `gradmix cluster`: cuts a corpus without labels into fine domains by what its documents are about. The folder that it writes:
 *
 *     clusters.json           the clusters by name: documents, bytes, telling words; the files, and how they were read
 *     ids/00000.npy           for each file the cluster of every document, in order (i32)
 *     centroids.npy           the centroids [clusters, dim] (f32)
 *     embedder.safetensors    what embeds texts and assigns them
 */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { assignTexts, fitTextClusters, LOOKED_AT, type TextClusters } from "../data/cluster/text-clusters.ts";
import { leafCount } from "../data/cluster/tree.ts";
import { utf8Length } from "../data/bytes.ts";
import { listFiles, readDocuments } from "../data/index.node.ts";
import { encodeNpy } from "../data/npy.ts";
import { errorCode, type GradmixError } from "../errors.ts";
import { init } from "../host-node.ts";
import { shutdown } from "../init.ts";
import { formatJson } from "../json.ts";
import { encodeSafetensors, type StoredTensor } from "../nn/safetensors.ts";
import { ioError, writeFileAtomic } from "../node/files.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import type { ClusterArguments } from "./cluster-arguments.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { formatCount, startProgress } from "./progress.ts";
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
    say(`${formatCount(files.length)} ${files.length === 1 ? "file" : "files"}; reading a sample`);
    const { texts, facts } = await sampleOf(files, args, interrupt.signal);
    const documents = facts.reduce((sum, { documents: n }) => sum + n, 0);
    const [most = 0] = args.levels;
    if (texts.length < most)
      throw wrong(`--clusters: ${most} of ${texts.length} documents; ask for fewer, or give more text`);
    say(`${formatCount(documents)} documents; clusters from ${formatCount(texts.length)} of them`);
    await init({ backend: "cpu", ...(args.threads === null ? {} : { threads: args.threads }) });
    const { levels, dim, seed } = args;
    const found = await fitTextClusters(texts, { levels, dim, seed, signal: interrupt.signal });
    const k = leafCount(found.clusters);
    say(`${formatCount(k)} clusters; assigning all documents`);
    const tally = { documents: new Float64Array(k), bytes: new Float64Array(k) };
    makeFolder(args.out);
    made = true;
    for (const [i, file] of files.entries()) {
      const ids = await assignFile(file, found, args, tally, interrupt.signal);
      writeFileAtomic(join(args.out, idsName(i)), [encodeNpy({ shape: [ids.length], values: ids })]);
    }
    writeModel(args.out, found);
    const names = namesOf(found.labels);
    const clusters = new Map(
      names.map((name, j) => [
        name,
        { documents: tally.documents[j]!, bytes: tally.bytes[j]!, words: found.labels[j]! },
      ]),
    );
    const description = {
      version: 1,
      gradmix: version(),
      ...{ levels, dim, seed, sample: texts.length, textField: args.textField, documents },
      clusters,
      files: facts.map((file, i) => ({ ...file, ids: idsName(i) })),
    };
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

const idsName = (i: number): string => `ids/${String(i).padStart(5, "0")}.npy`;
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

type Reading = Pick<ClusterArguments, "textField" | "skipBadLines" | "sample" | "seed">;

/** Each document has the same chance to be among the texts (Vitter's algorithm R). Of each its beginning is kept. */
async function sampleOf(
  files: readonly string[],
  { textField, skipBadLines, sample, seed }: Reading,
  signal: AbortSignal,
): Promise<{ texts: string[]; facts: FileFacts[] }> {
  const random = foldIn(key(seed), 0x5a3);
  const texts: string[] = [];
  const facts: FileFacts[] = [];
  let seen = 0;
  for (const path of files) {
    const hash = textHash();
    let documents = 0;
    for await (const { text } of readDocuments([path], { textField, skipBadLines })) {
      signal.throwIfAborted();
      hash.add(text);
      const place = seen < sample ? seen : Math.floor(uniformAt(random, seen) * (seen + 1));
      if (place < sample) texts[place] = text.slice(0, LOOKED_AT);
      seen++;
      documents++;
    }
    facts.push({ path: resolve(path), documents, sha256: hash.digest() });
  }
  return { texts, facts };
}

/** The cluster of each document of a file, in order; adds to the tally. */
async function assignFile(
  file: string,
  found: TextClusters,
  { textField, skipBadLines }: Reading,
  tally: { readonly documents: Float64Array; readonly bytes: Float64Array },
  signal: AbortSignal,
): Promise<Int32Array> {
  const parts: Int32Array[] = [];
  let texts: string[] = [];
  let bytes: number[] = [];
  const assign = async (): Promise<void> => {
    const ids = await assignTexts(found, texts, signal);
    ids.forEach((id, i) => {
      tally.documents[id]!++;
      tally.bytes[id]! += bytes[i]!;
    });
    parts.push(ids);
    [texts, bytes] = [[], []];
  };
  for await (const { text } of readDocuments([file], { textField, skipBadLines })) {
    signal.throwIfAborted();
    texts.push(text.slice(0, LOOKED_AT));
    bytes.push(utf8Length(text));
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

/** Names that sort by number and say what a cluster is about: `017-rust-trait-impl`. */
function namesOf(labels: readonly (readonly string[])[]): string[] {
  const digits = String(Math.max(0, labels.length - 1)).length;
  return labels.map((words, j) => [String(j).padStart(digits, "0"), ...words.slice(0, 3)].join("-"));
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
