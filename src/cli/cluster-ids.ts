/**
 * Clusters, or any other domains, that someone else found: a folder with a .npy for each file of documents, which has a whole number for each document, in order. So WebOrganizer has
 * them (Wettig and others 2025): documents/NAME.jsonl.zst, and domains_clusters-k24/NAME.npy or domains_topics/NAME__choice.npy.
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { giveTurn } from "../backends/turn.ts";
import type { CancelSignal } from "../cancel.ts";
import { embedTexts, fitEmbedder } from "../data/cluster/embeddings.ts";
import { nearestCentroids } from "../data/cluster/kmeans.ts";
import { labelsOf, type TextClusters } from "../data/cluster/text-clusters.ts";
import { readDocuments, type Tokenizer } from "../data/index.node.ts";
import { decodeNpy } from "../data/npy.ts";
import { tokenDocuments } from "../data/token-documents.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { ioError } from "../node/files.ts";
import type { ReadOptions } from "../data/sources.ts";
import { wrong } from "./values.ts";

/** The clusters of the documents of one file. */
export interface FileIds {
  /** Of the .npy. */
  readonly path: string;
  readonly ids: Int32Array;
}

export interface ForeignIds {
  /** In the order of the files. */
  readonly ids: readonly FileIds[];
  /** Their numbers are below. */
  readonly clusters: number;
}

/** A file's name without its endings. */
export function stemOf(path: string): string {
  return basename(path)
    .replace(/\.(gz|zst)$/i, "")
    .replace(/\.[a-z]\w*$/i, "");
}

/** `clusters`: how many there are; null: one more than the largest number. Throws `config` and `data`, naming the file, for ids that are missing, no whole numbers or out of range. */
export function readForeignIds(
  files: readonly string[],
  folder: string,
  clusters: number | null,
): ForeignIds {
  const names = namesIn(folder);
  const ids = files.map((file): FileIds => {
    const stem = stemOf(file);
    const found = names.filter(
      (name) => name === `${stem}.npy` || (name.startsWith(`${stem}__`) && name.endsWith(".npy")),
    );
    const [name] = found;
    if (name === undefined)
      throw new GradmixError("data", `--ids ${folder}: has no ${stem}.npy for the documents of ${file}`);
    if (found.length > 1)
      throw new GradmixError(
        "data",
        `--ids ${folder}: has ${found.slice(0, 3).join(" and ")} for the documents of ${file}; leave the one that is meant in a folder of its own`,
      );
    return idsIn(join(folder, name), clusters);
  });
  const most = ids.reduce((largest, one) => one.ids.reduce((a, b) => Math.max(a, b), largest), -1);
  return { ids, clusters: clusters ?? most + 1 };
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    throw wrong(`--ids: ${folder} is no folder that can be read`, error);
  }
}

/** More clusters than anyone's; a larger number is no id. */
const MOST_CLUSTERS = 2 ** 24;

function idsIn(path: string, clusters: number | null): FileIds {
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(readFileSync(path));
  } catch (error) {
    throw ioError(path, error);
  }
  const { shape, values } = decodeNpy(bytes, path);
  if (!(values instanceof Int32Array) || shape.length !== 1)
    throw new GradmixError(
      "data",
      `${path}: holds ${values instanceof Int32Array ? "whole numbers" : "numbers with fractions"} of the shape (${shape.join(", ")}); a whole number for each document is wanted`,
    );
  const below = clusters ?? MOST_CLUSTERS;
  const bad = values.findIndex((id) => id < 0 || id >= below);
  if (bad >= 0)
    throw new GradmixError(
      "data",
      `${path}: document ${bad} is in cluster ${values[bad]}, and clusters are 0 to ${below - 1}`,
    );
  return { path, ids: values };
}

export interface ReadingDocuments extends Required<Pick<ReadOptions, "textField" | "skipBadLines">> {
  /** Decodes the documents of files of tokens. */
  readonly tokenizer: Tokenizer | null;
}

/** The documents of a file of tokens that have text. */
async function* decoded(
  file: string,
  tokenizer: Tokenizer | null,
  onEmpty: () => void,
): AsyncGenerator<{ readonly text: string }, void, undefined> {
  if (tokenizer === null)
    throw wrong(`FILES: ${file} holds tokens; name the tokenizer that wrote it with --tokenizer`);
  for (const text of tokenDocuments(file, tokenizer)) {
    if (text === "") onEmpty();
    else yield { text };
    // Files are read at once: signals are heard between documents.
    await giveTurn();
  }
}

/** The documents of a file with their clusters, −1 without `given`. Ids count documents without text and those that are skipped, of which `onPass` is told. Throws `data` for other numbers of ids than documents. */
export async function* documentsWithIds(
  file: string,
  given: FileIds | null,
  { tokenizer, textField, skipBadLines }: ReadingDocuments,
  onPass: () => void = () => {},
): AsyncGenerator<{ readonly text: string; readonly id: number }, void, undefined> {
  let at = 0;
  const pass = (): void => {
    at++;
    onPass();
  };
  const documents = isTokenFile(file)
    ? decoded(file, tokenizer, pass)
    : readDocuments([file], { textField, skipBadLines, onSkip: pass, onEmpty: pass });
  for await (const { text } of documents) {
    yield { text, id: given === null ? -1 : (given.ids[at] ?? -1) };
    at++;
  }
  if (given !== null && at !== given.ids.length)
    throw new GradmixError(
      "data",
      `${given.path}: has ${given.ids.length} ids, and ${file} has ${at} documents`,
    );
}

/** Where no embedding is: that of a cluster that the sample has nothing of. */
const FAR = 1000;

/** Of given clusters. */
export interface TakenClusters extends TextClusters {
  /** Share of the sample whose nearest centroid is that of its cluster. */
  readonly agreement: number;
}

/** An embedder fitted to the sample, the means of its clusters, and their labels. Needs a backend. Throws as `fitEmbedder`. */
export async function centroidsOf(
  texts: readonly string[],
  ids: Int32Array,
  clusters: number,
  options: { readonly dim: number; readonly seed: number; readonly signal: CancelSignal },
): Promise<TakenClusters> {
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
