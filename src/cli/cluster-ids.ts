/**
 * Given clusters, or any other domains, from another tool: a folder with one .npy per file of documents, which has a whole number per document, in
 * order. WebOrganizer uses this layout (Wettig and others 2025): documents/NAME.jsonl.zst, and domains_clusters-k24/NAME.npy or
 * domains_topics/NAME__choice.npy.
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { giveTurn } from "../backends/turn.ts";
import type { CancelSignal } from "../cancel.ts";
import { embedTexts, fitEmbedder } from "../data/cluster/embeddings.ts";
import { nearestCentroids } from "../data/cluster/nearest-centroids.ts";
import { labelsOf, type TextClusters } from "../data/cluster/text-clusters.ts";
import { readDocuments, type Tokenizer } from "../data/index.node.ts";
import { decodeNpy } from "../data/npy.ts";
import { tokenDocuments } from "../data/token-documents.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { readError } from "../node/files.ts";
import type { ReadOptions } from "../data/sources.ts";
import { isClusterFolder, readDescription } from "./cluster-folder.ts";
import { configError } from "./values.ts";

/** The clusters of the documents of one file. */
export interface FileIds {
  /** Path of the .npy. */
  readonly path: string;
  readonly ids: Int32Array;
}

export interface ForeignIds {
  /** Ids per file, in the order of the files. */
  readonly ids: readonly FileIds[];
  /** Number of clusters; ids are smaller. */
  readonly clusters: number;
}

/** A file's name without its endings. */
function stemOf(path: string): string {
  return basename(path)
    .replace(/\.(gz|zst)$/i, "")
    .replace(/\.[a-z]\w*$/i, "");
}

/** The names without endings of the files' .npy, as in WebOrganizer; if files in several folders have the same name, the later ones get numbers. */
export function namesOfIds(files: readonly string[]): string[] {
  const used = new Set<string>();
  return files.map((file) => {
    const name = stemOf(file);
    let free = name;
    for (let n = 2; used.has(free); n++) free = `${name}-${n}`;
    used.add(free);
    return free;
  });
}

/**
 * Reads the ids. `clusters` is the number of clusters; null: one more than the largest id. Throws `config` and `data`, naming the file, for ids that
 * are missing, of two files, not whole numbers or out of range.
 */
export function readForeignIds(
  files: readonly string[],
  folder: string,
  clusters: number | null,
): ForeignIds {
  const names = namesIn(folder);
  const known = stemsIn(folder);
  const stems = namesOfIds(files).map((stem, i) => known.get(resolve(files[i]!)) ?? stem);
  const own = new Set(stems.map((stem) => `${stem}.npy`));
  const used = new Map<string, string>();
  const ids = files.map((file, i): FileIds => {
    const stem = stems[i]!;
    const found = names.filter(
      (name) =>
        name === `${stem}.npy` || (name.startsWith(`${stem}__`) && name.endsWith(".npy") && !own.has(name)),
    );
    const [name] = found;
    if (name === undefined)
      throw new GradmixError(
        "data",
        `--ids ${folder}: has no ${stem}.npy for the documents of ${file}${known.has(resolve(file)) || stem === stemOf(file) ? "" : `; ${stemOf(file)}.npy is for another file of that name`}`,
      );
    if (found.length > 1)
      throw new GradmixError(
        "data",
        `--ids ${folder}: has ${found.slice(0, 3).join(" and ")} for the documents of ${file}; move the right one to a folder of its own`,
      );
    const other = used.get(name);
    if (other !== undefined)
      throw new GradmixError(
        "data",
        `--ids ${folder}: ${name} fits the names of ${other} and ${file}, but has the documents of one file; rename one of them`,
      );
    used.set(name, file);
    return idsIn(join(folder, name), clusters);
  });
  const most = ids.reduce((largest, one) => one.ids.reduce((a, b) => Math.max(a, b), largest), -1);
  return { ids, clusters: clusters ?? most + 1 };
}

/** The names without endings of the .npy of each file in a folder that `gradmix cluster` wrote, by the paths of the files; empty for other folders. */
function stemsIn(folder: string): ReadonlyMap<string, string> {
  const [above, name] = [dirname(resolve(folder)), basename(resolve(folder))];
  if (name !== "ids" || !isClusterFolder(above)) return new Map();
  return new Map(readDescription(above).files.map(({ path, ids }) => [path, basename(ids, ".npy")]));
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    throw configError(`--ids: ${folder} is not a readable folder`, error);
  }
}

/** Limit on the number of clusters; a larger number is not an id. */
const MOST_CLUSTERS = 2 ** 24;

function idsIn(path: string, clusters: number | null): FileIds {
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(readFileSync(path));
  } catch (error) {
    throw readError(path, error);
  }
  const { shape, values } = decodeNpy(bytes, path);
  if (!(values instanceof Int32Array) || shape.length !== 1)
    throw new GradmixError(
      "data",
      `${path}: holds ${values instanceof Int32Array ? "whole numbers" : "numbers with fractions"} of the shape (${shape.join(", ")}); it must have one whole number per document`,
    );
  const limit = clusters ?? MOST_CLUSTERS;
  const bad = values.findIndex((id) => id < 0 || id >= limit);
  if (bad >= 0)
    throw new GradmixError(
      "data",
      `${path}: document ${bad} is in cluster ${values[bad]}, but clusters go from 0 to ${limit - 1}`,
    );
  return { path, ids: values };
}

export interface ReadingDocuments extends Required<Pick<ReadOptions, "textField" | "skipBadLines">> {
  /** Decodes the documents of token files. */
  readonly tokenizer: Tokenizer | null;
}

/** Why a document is left out: it has no text, or it is a bad line that is skipped. */
export type Passed = "empty" | "bad";

/** The documents of a token file that have text. */
async function* decoded(
  file: string,
  tokenizer: Tokenizer | null,
  onEmpty: (source: string) => void,
): AsyncGenerator<{ readonly text: string }, void, undefined> {
  if (tokenizer === null)
    throw configError(`FILES: ${file} contains tokens; give the tokenizer that wrote it with --tokenizer`);
  let number = 0;
  for (const text of tokenDocuments(file, tokenizer)) {
    number++;
    if (text === "") onEmpty(`${file}, document ${number}`);
    else yield { text };
    // Files are read synchronously, so signals are handled between documents.
    await giveTurn();
  }
}

/**
 * The documents of a file with their clusters, −1 without `given`. Ids count documents without text and skipped ones, for which `onPass` is called with
 * the reason.
 * Throws `data` if the numbers of ids and documents differ.
 */
export async function* documentsWithIds(
  file: string,
  given: FileIds | null,
  { tokenizer, textField, skipBadLines }: ReadingDocuments,
  onPass: (why: Passed, source: string) => void = () => {},
): AsyncGenerator<{ readonly text: string; readonly id: number }, void, undefined> {
  let at = 0;
  const pass =
    (why: Passed) =>
    (source: string): void => {
      at++;
      onPass(why, source);
    };
  const onEmpty = pass("empty");
  const documents = isTokenFile(file)
    ? decoded(file, tokenizer, onEmpty)
    : readDocuments([file], { textField, skipBadLines, onSkip: pass("bad"), onEmpty });
  for await (const { text } of documents) {
    yield { text, id: given === null ? -1 : (given.ids[at] ?? -1) };
    at++;
  }
  if (given !== null && at !== given.ids.length)
    throw new GradmixError(
      "data",
      `${given.path}: has ${given.ids.length} ids, but ${file} has ${at} documents`,
    );
}

/** A position far from all embeddings, for a cluster without documents in the sample. */
const FAR = 1000;

/** An embedder with given clusters. */
export interface GivenClusters extends TextClusters {
  /** Share of the sample whose nearest centroid is that of its cluster. */
  readonly agreement: number;
}

/** Fits an embedder to the sample, and computes the means of its clusters and their labels. Needs a backend. Throws like `fitEmbedder`. */
export async function centroidsOf(
  texts: readonly string[],
  ids: Int32Array,
  clusters: number,
  options: { readonly dim: number; readonly seed: number; readonly signal: CancelSignal },
): Promise<GivenClusters> {
  const embedder = await fitEmbedder(texts, options);
  const points = await embedTexts(embedder, texts, options.signal);
  const { dim, values } = points;
  const sums = new Float64Array(clusters * dim);
  const sizes = new Float64Array(clusters);
  ids.forEach((id, i) => {
    sizes[id]!++;
    for (let d = 0; d < dim; d++) sums[id * dim + d]! += values[i * dim + d]!;
  });
  const centroids = Float32Array.from(sums, (sum, at) => {
    const size = sizes[Math.floor(at / dim)]!;
    return size === 0 ? FAR : sum / size;
  });
  const { ids: nearest } = await nearestCentroids(points, { values: centroids, dim }, options.signal);
  const agreeing = nearest.reduce((sum, id, i) => sum + (id === ids[i] ? 1 : 0), 0);
  return {
    embedder,
    clusters: { dim, levels: [{ centroids, starts: Int32Array.of(0, clusters) }] },
    labels: labelsOf(texts, ids, clusters),
    agreement: agreeing / texts.length,
  };
}
