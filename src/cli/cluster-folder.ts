/** The folder of `gradmix cluster` as domains: the domain of each document is its cluster. */
import { existsSync, readFileSync, renameSync } from "node:fs";
import { join, resolve } from "node:path";
import { decodeNpy } from "../data/npy.ts";
import type { Document } from "../data/sources.ts";
import { GradmixError } from "../errors.ts";
import { ioError, readError } from "../node/files.ts";
import { textHash } from "./text-hash.ts";
import {
  count,
  list,
  map,
  number,
  object,
  orNull,
  parseOrdered,
  type Schema,
  string,
  version,
} from "../schema.ts";
import { configError } from "./values.ts";

/** The clusters of one file. */
export interface ClusteredFile {
  readonly path: string;
  /** SHA-256 of its text, document by document. */
  readonly sha256: string;
  /** The cluster of each document. */
  readonly ids: Int32Array;
}

/** Amount of text in a cluster. */
export interface ClusterSize {
  readonly documents: number;
  /** UTF-8 bytes. */
  readonly bytes: number;
  /** Tokens by the tokenizer of `gradmix cluster`; null if it had none. */
  readonly tokens: number | null;
}

export interface ClusterFolder {
  readonly folder: string;
  /** Names of the clusters, by number. */
  readonly names: readonly string[];
  /** Seed of the embedder. */
  readonly seed: number;
  /** Size of each cluster, in the order of the names. */
  readonly clusters: readonly ClusterSize[];
  readonly files: readonly ClusteredFile[];
}

const DESCRIPTION = "clusters.json";

export function isClusterFolder(path: string): boolean {
  return existsSync(join(path, DESCRIPTION));
}

/** The error for a folder that a command should make, and that exists. */
export function isThere(folder: string): GradmixError {
  return configError(`--out ${folder}: already exists; choose another folder`);
}

/**
 * Moves a complete folder to `out`, which is in an existing folder. If several commands do this at once, only the first one succeeds, because a folder cannot be renamed to one that has
 * files. Throws `config` if `out` exists, and `io`.
 */
export function moveToOut(made: string, out: string): void {
  const place = resolve(out);
  try {
    renameSync(made, place);
  } catch (error) {
    throw existsSync(place) ? isThere(out) : ioError(out, error);
  }
}

/** What is read of clusters.json. */
interface Description {
  readonly version: 1;
  readonly seed: number;
  readonly clusters: ReadonlyMap<string, ClusterSize>;
  readonly files: readonly {
    readonly path: string;
    readonly documents: number;
    readonly sha256: string;
    /** The file of their clusters. */
    readonly ids: string;
  }[];
}

export const clustersDescription: Schema<Description> = object<Description>({
  version: version(1, "cluster the text again"),
  seed: number,
  clusters: map(object<ClusterSize>({ documents: count, bytes: count, tokens: orNull(count) })),
  files: list(
    object<Description["files"][number]>({ path: string, documents: count, sha256: string, ids: string }),
  ),
});

/** Reads clusters.json. Throws `data` for a folder that `gradmix cluster` did not write. */
export function readDescription(folder: string): Description {
  const at = join(folder, DESCRIPTION);
  return parseOrdered(clustersDescription, new TextDecoder().decode(bytesOf(at)), {
    source: at,
    code: "data",
  });
}

/** Reads the folder. Throws `data` for a folder that `gradmix cluster` did not write. */
export function readClusterFolder(folder: string): ClusterFolder {
  const described = readDescription(folder);
  const { seed, clusters } = described;
  const names = [...clusters.keys()];
  const files = described.files.map(({ path, documents, sha256, ids: name }) => {
    const { shape, values } = decodeNpy(bytesOf(join(folder, name)), join(folder, name));
    if (!(values instanceof Int32Array) || shape.length !== 1 || values.length !== documents)
      throw new GradmixError(
        "data",
        `${join(folder, name)}: does not have one cluster for each of ${documents} documents; cluster the text again`,
      );
    const bad = values.find((id) => id < 0 || id >= names.length);
    if (bad !== undefined)
      throw new GradmixError(
        "data",
        `${join(folder, name)}: cluster ${bad} does not exist; there are ${names.length}, counted from 0`,
      );
    return { path, sha256, ids: values };
  });
  return { folder, names, seed, clusters: [...clusters.values()], files };
}

/** The clusters with documents, which become domains. */
export function clustersWithText({ names, clusters }: ClusterFolder): string[] {
  return names.filter((_, j) => clusters[j]!.documents > 0);
}

function bytesOf(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw readError(path, error);
  }
}

/** The documents of a clustered file, each with its domain. Throws `data` if they are not those that were clustered. */
export async function* clusteredDocuments(
  { folder, names }: ClusterFolder,
  { path, sha256, ids }: ClusteredFile,
  documents: AsyncIterable<Document>,
): AsyncGenerator<Document, void, undefined> {
  const changed = (what: string): GradmixError =>
    new GradmixError(
      "data",
      `${path}: ${what}; cluster the text again, or use the same --text-field and --skip-bad-lines as for ${folder}`,
    );
  const hash = textHash();
  let at = 0;
  for await (const document of documents) {
    if (at === ids.length) throw changed(`it has more documents than the ${ids.length} that were clustered`);
    hash.add(document.text);
    yield { ...document, domain: names[ids[at]!]! };
    at++;
  }
  if (at < ids.length) throw changed(`it has ${at} documents, but ${ids.length} were clustered`);
  if (hash.digest() !== sha256) throw changed("its text has changed since it was clustered");
}
