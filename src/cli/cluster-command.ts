/**
 * `gradmix cluster`: divides a corpus without labels into fine domains by the content of its documents. It writes a folder:
 *
 *     clusters.json           the clusters by name: documents, bytes, tokens, typical words; the files, and how they were read
 *     clusters.html           a page to look at them
 *     ids/NAME.npy            for each file NAME.jsonl the cluster of every document, in order (i32)
 *     centroids.npy           the centroids [clusters, dim] (f32)
 *     embedder.safetensors    the embedder that assigns texts
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Embedder, fitEmbedder } from "../data/cluster/embeddings.ts";
import type { Points } from "../data/cluster/points.ts";
import { labelsOf, type TextClusters } from "../data/cluster/text-clusters.ts";
import { assignClusters, fitClusters, leafCount } from "../data/cluster/tree.ts";
import { gptVocabularies } from "../data/gpt-vocabulary-table.ts";
import { byteTokenizer, type Tokenizer } from "../data/index.node.ts";
import { encodeNpy } from "../data/npy.ts";
import { GradmixError } from "../errors.ts";
import { init } from "../host-node.ts";
import { shutdown } from "../init.ts";
import { formatJson } from "../json.ts";
import { encodeSafetensors, openSafetensors, type StoredTensor } from "../nn/safetensors.ts";
import { writeFileAtomic } from "../node/files.ts";
import type { ClusterArguments } from "./cluster-arguments.ts";
import { isThere, moveToOut } from "./cluster-folder.ts";
import {
  beginningOf,
  builtIn,
  type DocumentEmbeddings,
  embeddingsFiles,
  embeddingsFrom,
} from "./cluster-embeddings.ts";
import {
  centroidsOf,
  documentsWithIds,
  type FileIds,
  type ForeignIds,
  namesOfIds,
  readForeignIds,
} from "./cluster-ids.ts";
import {
  clusterPage,
  createTally,
  type DescribedCluster,
  describeClusters,
  type Tally,
} from "./cluster-tally.ts";
import { openWork, READ, type Work } from "./cluster-work.ts";
import { formatEmpty } from "./left-out.ts";
import { untilInterrupted } from "./interrupt.ts";
import { searchOf } from "./inputs.ts";
import { hasChanged, stampOf } from "./prepare-plan.ts";
import type { InputFile } from "./prepared-folder.ts";
import { formatBadLines, formatCount, startProgress } from "./progress.ts";
import { readTokenizer } from "./choose-tokenizer.ts";
import { textHash } from "./text-hash.ts";
import type { Outputs } from "./train.ts";
import { unusedReading } from "./unused-reading.ts";
import { configError } from "./values.ts";
import { version } from "./version.ts";
import {
  type FileFacts,
  type Reading,
  type Sample,
  savedSample,
  saveSample,
  sampleOf,
} from "./cluster-sample.ts";

/** Number of documents that are embedded at once. */
const BLOCK = 2048;

/**
 * Runs the command and returns the exit code. Throws `config`, `data` and `io`. The folder appears once it is complete; until then the finished parts
 * are beside it, and the same command continues from there.
 */
export async function cluster(args: ClusterArguments, { out, err }: Outputs): Promise<number> {
  if (existsSync(args.out)) throw isThere(args.out);
  const progress = startProgress(err, 0);
  const print = (line: string): void => {
    if (!args.quiet) progress.line(line);
  };
  let report = "";
  const stopped = await untilInterrupted(
    { output: err, status: progress, stopped: "stopped; run the same command again to continue" },
    async (signal) => {
      report = formatResult(await clusterFiles(args, print, signal), args.out);
    },
  );
  if (stopped !== null) return stopped;
  out.write(report);
  await out.flush();
  return 0;
}

/** Finds the files, clusters them, and moves the result to its place. */
async function clusterFiles(
  args: ClusterArguments,
  print: (line: string) => void,
  signal: AbortSignal,
): Promise<ClusteringResult> {
  let work: Work | null = null;
  try {
    const search = searchOf({ out: null, skipBadLines: args.skipBadLines }, print, signal);
    const files = (await search.find("FILES", args.files, new Set())).map(({ path }) => path);
    checkEffect(files, search.unreadable(), args);
    const foreign = args.ids === null ? null : readForeignIds(files, args.ids, args.count);
    const tokenizer = tokenizerOf(args.tokenizer);
    // Checked before the text is read.
    const read = filesRead(args, foreign).map(stampOf);
    work = openWork(args.out, planOf(args, files, read), () => print("continuing where it was stopped"));
    const result = await makeClusters(work, files, { args, foreign, tokenizer, print, signal });
    const changed = read.find((file) => hasChanged(file));
    if (changed !== undefined)
      throw new GradmixError("data", `${changed.path}: it changed during clustering; cluster the text again`);
    moveToOut(result.folder, args.out);
    work.end(true);
    return result;
  } catch (error) {
    // If the arguments or the text must change, the finished parts cannot be used, so they are removed.
    work?.end(error instanceof GradmixError && (error.code === "config" || error.code === "data"));
    throw error;
  } finally {
    await shutdown();
  }
}

/** Throws `config` for an option that has no effect on these files. */
function checkEffect(
  files: readonly string[],
  unreadable: number,
  { textFieldGiven: textField, skipBadLines }: ClusterArguments,
): void {
  const flags = { textField: "--text-field", skipBadLines: "--skip-bad-lines" } as const;
  const [unused] = unusedReading(files, unreadable, { textField, skipBadLines });
  if (unused !== undefined)
    throw configError(`${flags[unused.key]}: has no effect, because ${unused.why}; leave it out`);
}

/** The files beside the text on which the output depends: those of the tokenizer, of the embeddings and of given clusters. Throws `config`. */
function filesRead({ tokenizer, embeddings }: ClusterArguments, foreign: ForeignIds | null): string[] {
  const ofTokenizer = tokenizer === null || tokenizer === "byte" || gptVocabularies.includes(tokenizer);
  return [
    ...(ofTokenizer ? [] : [tokenizer]),
    ...(embeddings === null ? [] : embeddingsFiles(embeddings)),
    ...(foreign?.ids.map(({ path }) => path) ?? []),
  ];
}

/** Everything that determines the output. The text itself is compared by its hash. */
function planOf(
  args: ClusterArguments,
  files: readonly string[],
  read: readonly InputFile[],
): Record<string, unknown> {
  const { levels, dim, sample, seed, textField, skipBadLines, embeddings, balance, ids, count, tokenizer } =
    args;
  return {
    version: version(),
    files: files.map((path) => resolve(path)),
    ...{ levels, dim, sample, seed, textField, skipBadLines, embeddings, balance, ids, count, tokenizer },
    [READ]: Object.fromEntries(read.map(({ path, size, modified }) => [resolve(path), [size, modified]])),
  };
}

interface Making {
  readonly args: ClusterArguments;
  readonly foreign: ForeignIds | null;
  readonly tokenizer: Tokenizer | null;
  readonly print: (line: string) => void;
  readonly signal: AbortSignal;
}

interface ClusteringResult {
  /** The folder of the files, which are then moved to their place. */
  readonly folder: string;
  readonly clusters: ReadonlyMap<string, DescribedCluster>;
  readonly documents: number;
  /** Number of lines that were skipped. */
  readonly skipped: number;
  /** A line about documents without text; null if there are none. */
  readonly emptyLine: string | null;
  /** The largest cluster in the sample as a multiple of the mean size, if a balance was requested. */
  readonly largest: number | null;
}

async function makeClusters(work: Work, files: readonly string[], making: Making): Promise<ClusteringResult> {
  const { args, foreign, tokenizer, print, signal } = making;
  print(`${formatCount(files.length)} ${files.length === 1 ? "file" : "files"}; reading a sample`);
  const sample = savedSample(work) ?? (await sampleOf(files, foreign, { ...args, tokenizer }, signal));
  saveSample(work, sample);
  const { texts, facts } = sample;
  const documents = facts.reduce((sum, { documents: n }) => sum + n, 0);
  const { skipped, empty = 0, firstEmpty = "" } = sample;
  const [most = 0] = args.levels;
  if (foreign === null && texts.length < most) throw tooFew(texts.length, documents, most, args);
  print(`${formatCount(documents)} documents; clusters from ${formatCount(texts.length)} of them`);
  await init({
    backend: "cpu",
    vectorBits: "auto",
    ...(args.threads === null ? {} : { threads: args.threads }),
  });
  const { dim, seed } = args;
  const given =
    foreign === null ? null : await centroidsOf(texts, sample.ids, foreign.clusters, { dim, seed, signal });
  const found: FoundClusters = given ?? (await findClusters(work, sample, args, signal));
  try {
    const k = leafCount(found.clusters);
    print(
      given === null
        ? `${formatCount(k)} clusters; assigning all documents`
        : `${formatCount(k)} clusters, with the nearest centroid in the right cluster for ${(100 * given.agreement).toFixed(0)} % of the documents; counting`,
    );
    const tally = createTally(k, { tokenizer, seed });
    const folder = join(work.folder, "whole");
    const idsNames = namesOfIds(files).map((name) => `ids/${name}.npy`);
    let before = 0;
    for (const [i, file] of files.entries()) {
      const from: Assigning = {
        work,
        found,
        foreign: foreign?.ids[i] ?? null,
        index: i,
        before,
        facts: facts[i]!,
      };
      const ids = await assignFile(file, from, { ...args, tokenizer }, tally, signal);
      writeFileAtomic(join(folder, idsNames[i]!), [encodeNpy({ shape: [ids.length], values: ids })]);
      before += sample.rows[i]!;
    }
    writeModel(folder, found);
    const clusters = describeClusters(tally, found.labels);
    const { largest = null } = found;
    const description = {
      version: 1,
      gradmix: version(),
      levels: given === null ? args.levels : [k],
      ...{
        dim: found.clusters.dim,
        seed,
        sample: texts.length,
        textField: args.textField,
        documents,
        skipped,
        ...(empty === 0 ? {} : { empty }),
      },
      ...(args.tokenizer === null ? {} : { tokenizer: args.tokenizer }),
      ...(args.embeddings === null ? {} : { embeddings: resolve(args.embeddings) }),
      ...(largest === null ? {} : { balance: args.balance, largest }),
      ...(given === null ? {} : { from: resolve(args.ids ?? ""), agreement: given.agreement }),
      clusters,
      files: facts.map((file, i) => ({ ...file, ids: idsNames[i] })),
    };
    writeFileAtomic(join(folder, "clusters.html"), [
      encode(clusterPage(clusters, tally, { files: files.length, sample: texts.length })),
    ]);
    writeFileAtomic(join(folder, "clusters.json"), [encode(`${formatJson(description, 2)}\n`)]);
    const emptyLine = empty === 0 ? null : formatEmpty(empty, firstEmpty);
    return { folder, clusters, documents, skipped, emptyLine, largest };
  } finally {
    found.embeddings?.close();
  }
}

/** The error for a sample that is smaller than the number of clusters. */
function tooFew(
  texts: number,
  documents: number,
  clusters: number,
  { sample, levelsFlag }: ClusterArguments,
): GradmixError {
  const of = (n: number): string =>
    `${n} ${n === 1 ? "document" : "documents"} cannot make ${clusters} clusters`;
  return configError(
    documents < clusters
      ? `${levelsFlag}: ${of(texts)}; use fewer clusters, or more text`
      : `--sample ${sample}: ${of(texts)} (${levelsFlag}); use a sample of at least ${clusters}, or fewer clusters`,
  );
}

interface FoundClusters extends Pick<TextClusters, "clusters" | "labels"> {
  /** The built-in embedder; null if embeddings come from elsewhere. */
  readonly embedder: Embedder | null;
  /** Embeddings of the documents to assign; left out if their clusters are given. */
  readonly embeddings?: DocumentEmbeddings;
  /** The largest cluster in the sample as a multiple of the mean size, if a balance was requested. */
  readonly largest?: number | null;
}

async function findClusters(
  work: Work,
  sample: Sample,
  { levels, dim, seed, balance, embeddings: given }: ClusterArguments,
  signal: AbortSignal,
): Promise<FoundClusters> {
  const { texts, numbers } = sample;
  const embedder = given === null ? await builtInEmbedder(work, texts, { dim, seed, signal }) : null;
  const embeddings = embedder === null ? await embeddingsFrom(given ?? "", signal) : builtIn(embedder);
  try {
    const rows = sample.rows.reduce((sum, own) => sum + own, 0);
    if (embeddings.count !== null && embeddings.count !== rows)
      throw configError(
        `--embeddings ${given}: has ${embeddings.count} rows, but there are ${rows} documents; it must have one row per document, in the same order`,
      );
    const points = await embeddedSample(work, embeddings, { texts, numbers }, signal);
    const { clusters, ids } = await fitClusters(points, {
      ...{ levels, seed, signal, memory: work.memory },
      ...(balance === null ? {} : { balance }),
    });
    const k = leafCount(clusters);
    const sizes = new Float64Array(k);
    for (const id of ids) sizes[id]!++;
    const largest = balance === null ? null : (k * sizes.reduce((a, b) => Math.max(a, b), 0)) / ids.length;
    return { embedder, embeddings, clusters, labels: labelsOf(texts, ids, k), largest };
  } catch (error) {
    embeddings.close();
    throw error;
  }
}

async function builtInEmbedder(
  work: Work,
  texts: readonly string[],
  options: { readonly dim: number; readonly seed: number; readonly signal: AbortSignal },
): Promise<Embedder> {
  const { dim, seed } = options;
  const bytes = work.read("embedder.safetensors");
  if (bytes !== null) {
    const { read } = openSafetensors(bytes, "embedder.safetensors");
    return { dim, seed, idf: read("idf").data, directions: read("directions").data };
  }
  const embedder = await fitEmbedder(texts, options);
  work.write("embedder.safetensors", [encodeSafetensors(embedderTensors(embedder), { seed: String(seed) })]);
  return embedder;
}

/** The points of the sample, block by block, continuing from the last finished one. */
async function embeddedSample(
  work: Work,
  embeddings: DocumentEmbeddings,
  { texts, numbers }: Pick<Sample, "texts" | "numbers">,
  signal: AbortSignal,
): Promise<Points> {
  const { dim } = embeddings;
  const values = new Float32Array(texts.length * dim);
  const file = work.grow("points.f32", BLOCK * dim * 4);
  values.set(new Float32Array(file.bytes.slice().buffer));
  for (let from = file.bytes.length / dim / 4; from < texts.length; from += BLOCK) {
    signal.throwIfAborted();
    const to = Math.min(texts.length, from + BLOCK);
    const points = await embeddings.embed(texts.slice(from, to), numbers.slice(from, to), signal);
    values.set(points.values, from * dim);
    file.append(bytesOf(points.values));
  }
  file.close();
  return { values, dim };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

function tokenizerOf(path: string | null): Tokenizer | null {
  if (path === null) return null;
  return path === "byte" ? byteTokenizer() : readTokenizer(path);
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

interface Assigning {
  readonly work: Work;
  readonly found: FoundClusters;
  /** The clusters of the documents, if they are given. */
  readonly foreign: FileIds | null;
  /** Index of the file, and the number of documents before it, including those that are left out. */
  readonly index: number;
  readonly before: number;
  /** Facts about the file from the sampling pass. */
  readonly facts: FileFacts;
}

/**
 * Finds the cluster of each document of a file, in order: the given one, the one found earlier, or the nearest. Adds to the tally. Throws `data` if
 * the text has changed since the sampling pass.
 */
async function assignFile(
  file: string,
  { work, found, foreign, index, before, facts }: Assigning,
  reading: Reading,
  tally: Tally,
  signal: AbortSignal,
): Promise<Int32Array> {
  const saved = work.grow(`assigned/${index}.i32`, BLOCK * 4);
  const ids = new Int32Array(facts.documents);
  ids.set(new Int32Array(saved.bytes.slice().buffer).subarray(0, facts.documents));
  const done = Math.min(facts.documents, saved.bytes.length / 4);
  const hash = textHash();
  let at = 0;
  let passed = 0;
  let texts: string[] = [];
  let numbers: number[] = [];
  const changed = (): GradmixError =>
    new GradmixError("data", `${file}: its text changed during clustering; cluster it again`);
  const assign = async (): Promise<void> => {
    const from = at - texts.length;
    const points = await found.embeddings?.embed(texts.map(beginningOf), numbers, signal);
    if (points !== undefined) ids.set(await assignClusters(found.clusters, points, signal), from);
    saved.append(bytesOf(ids.subarray(from, at)));
    texts.forEach((text, i) => tally.add(ids[from + i]!, text));
    [texts, numbers] = [[], []];
  };
  for await (const { text, id } of documentsWithIds(file, foreign, reading, () => passed++)) {
    signal.throwIfAborted();
    if (at === facts.documents) throw changed();
    hash.add(text);
    if (at < done) tally.add(ids[at]!, text);
    else {
      if (foreign !== null) ids[at] = id;
      texts.push(text);
      numbers.push(before + at + passed);
    }
    at++;
    if (texts.length === BLOCK) await assign();
  }
  if (texts.length > 0) await assign();
  if (at < facts.documents || hash.digest() !== facts.sha256) throw changed();
  saved.close();
  return ids;
}

function embedderTensors({ dim, idf, directions }: Embedder): Map<string, StoredTensor> {
  return new Map([
    ["idf", { shape: [idf.length], data: idf }],
    ["directions", { shape: [dim, directions.length / dim], data: directions }],
  ]);
}

function writeModel(folder: string, { embedder, clusters }: FoundClusters): void {
  const { dim } = clusters;
  const tensors = embedder === null ? new Map<string, StoredTensor>() : embedderTensors(embedder);
  clusters.levels.forEach(({ centroids, starts, prices }, level) => {
    tensors.set(`levels.${level}.centroids`, { shape: [centroids.length / dim, dim], data: centroids });
    // Whole numbers below 2^24 are exact in f32.
    tensors.set(`levels.${level}.starts`, { shape: [starts.length], data: Float32Array.from(starts) });
    if (prices !== undefined) tensors.set(`levels.${level}.prices`, { shape: [prices.length], data: prices });
  });
  const metadata = embedder === null ? {} : { seed: String(embedder.seed) };
  writeFileAtomic(join(folder, "embedder.safetensors"), [encodeSafetensors(tensors, metadata)]);
  const leaves = clusters.levels.at(-1)?.centroids ?? new Float32Array(0);
  writeFileAtomic(join(folder, "centroids.npy"), [
    encodeNpy({ shape: [leaves.length / dim, dim], values: leaves }),
  ]);
}

/** Number of clusters that are printed. */
const SHOWN = 20;

function formatResult(
  { clusters, documents, largest, skipped, emptyLine }: ClusteringResult,
  out: string,
): string {
  return [
    formatClusters(clusters, documents),
    ...(largest === null ? [] : [`largest  ${largest.toFixed(2)} times the mean of the sample's clusters\n`]),
    ...(skipped === 0 ? [] : [`skipped  ${formatBadLines(skipped)}\n`]),
    ...(emptyLine === null ? [] : [`empty    ${emptyLine}\n`]),
    `files    ${out}\n`,
  ].join("");
}

/** Prints one line for each of the largest clusters: its share of the documents and its words. */
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
