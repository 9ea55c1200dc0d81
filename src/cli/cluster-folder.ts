/** The folder of `gradmix cluster` as domains: each document of its files is of the domain that its cluster is. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeNpy } from "../data/npy.ts";
import type { Document } from "../data/sources.ts";
import { GradmixError } from "../errors.ts";
import { ioError } from "../node/files.ts";
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

/** The clusters of one file. */
export interface ClusteredFile {
  readonly path: string;
  /** Of its text, document by document. */
  readonly sha256: string;
  /** The cluster of each document. */
  readonly ids: Int32Array;
}

/** How much text a cluster has. */
export interface ClusterSize {
  readonly documents: number;
  /** UTF-8. */
  readonly bytes: number;
  /** By the tokenizer that `gradmix cluster` was given; null: by none. */
  readonly tokens: number | null;
}

export interface ClusterFolder {
  readonly folder: string;
  /** Names of the clusters, by number. */
  readonly names: readonly string[];
  /** Of the embedder. */
  readonly seed: number;
  /** What each has, in the order of the names. */
  readonly clusters: readonly ClusterSize[];
  readonly files: readonly ClusteredFile[];
}

const DESCRIPTION = "clusters.json";

export function isClusterFolder(path: string): boolean {
  return existsSync(join(path, DESCRIPTION));
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

/** Throws `data` for a folder that is not what `gradmix cluster` writes. */
export function readClusterFolder(folder: string): ClusterFolder {
  const at = join(folder, DESCRIPTION);
  const described = parseOrdered(clustersDescription, new TextDecoder().decode(bytesOf(at)), {
    source: at,
    code: "data",
  });
  const { seed, clusters } = described;
  const names = [...clusters.keys()];
  const files = described.files.map(({ path, documents, sha256, ids: name }) => {
    const { shape, values } = decodeNpy(bytesOf(join(folder, name)), join(folder, name));
    if (!(values instanceof Int32Array) || shape.length !== 1 || values.length !== documents)
      throw new GradmixError(
        "data",
        `${join(folder, name)}: does not hold the clusters of ${documents} documents; cluster the text again`,
      );
    const bad = values.find((id) => id < 0 || id >= names.length);
    if (bad !== undefined)
      throw new GradmixError("data", `${join(folder, name)}: there is no cluster ${bad} of ${names.length}`);
    return { path, sha256, ids: values };
  });
  return { folder, names, seed, clusters: [...clusters.values()], files };
}

/** The clusters that have documents, which are domains. */
export function clustersWithText({ names, clusters }: ClusterFolder): string[] {
  return names.filter((_, j) => clusters[j]!.documents > 0);
}

function bytesOf(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw ioError(path, error);
  }
}

/** The documents of a clustered file, each with its domain. Throws `data` where they are not those that were clustered. */
export async function* clusteredDocuments(
  { folder, names }: ClusterFolder,
  { path, sha256, ids }: ClusteredFile,
  documents: AsyncIterable<Document>,
): AsyncGenerator<Document, void, undefined> {
  const changed = (what: string): GradmixError =>
    new GradmixError(
      "data",
      `${path}: ${what} since ${folder} was made of it; cluster the text again, with the same --text-field and --skip-bad-lines`,
    );
  const hash = textHash();
  let at = 0;
  for await (const document of documents) {
    if (at === ids.length) throw changed(`it has more than its ${ids.length} documents`);
    hash.add(document.text);
    yield { ...document, domain: names[ids[at]!]! };
    at++;
  }
  if (at < ids.length) throw changed(`it has ${at} documents in place of ${ids.length}`);
  if (hash.digest() !== sha256) throw changed("its text has changed");
}
