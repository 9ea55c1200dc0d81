/** The histogram of a target over clusters of text, and groups of a target's own texts. */
import type { CancelSignal } from "../../cancel.ts";
import { GradmixError } from "../../errors.ts";
import { checkRange, abortSignal, checkOptions, integerIn, objectWith, required } from "../../options.ts";
import { type Embedder, embedTexts, checkTexts } from "./embeddings.ts";
import { kMeans } from "./kmeans.ts";
import { clusterShares, type ClusterShares } from "./shares.ts";
import { assignTexts, LOOKED_AT, type TextClusters } from "./text-clusters.ts";

/** A corpus in clusters, with which a target is compared. */
export interface ClusteredCorpus extends Pick<TextClusters, "embedder" | "clusters"> {
  /** The amount of text in each cluster [k], in any unit. */
  readonly sizes: ArrayLike<number>;
  /** Mean number of characters of the corpus' documents. The target is cut into examples of about this length. */
  readonly characters: number;
}

/** Smallest length of an example in characters: a few words say little about the subject. */
const LEAST_CHARACTERS = 400;

/**
 * Estimates the share of a target that each cluster has (`clusterShares`). The target's documents are assigned to their nearest centroids, as those of the corpus were; long ones
 * are first cut into pieces about as long as documents of the corpus. Needs a backend. Throws `data` for a target without text, and the errors of `clusterShares`.
 */
export async function clusterHistogram(
  texts: readonly string[],
  corpus: ClusteredCorpus,
  signal?: CancelSignal,
): Promise<ClusterShares> {
  const hasMembers = objectWith("a corpus with its clusters", "embedder", "clusters", "sizes", "characters");
  hasMembers("clusterHistogram: corpus", corpus);
  const { embedder, clusters, sizes, characters } = corpus;
  const { pieces, documents } = cutTexts(texts, characters);
  if (pieces.length === 0) throw new GradmixError("data", "clusterHistogram: the target has no text");
  const ids = await assignTexts({ embedder, clusters, labels: [] }, pieces, signal);
  return clusterShares(ids, documents, sizes, clusters.levels);
}

/** Cuts texts into pieces of about `characters` characters, but not longer than the part of a document that is embedded. Blank texts give no pieces. */
export function cutTexts(
  texts: readonly string[],
  characters: number,
): {
  /** The pieces, in the order of the texts. */
  readonly pieces: readonly string[];
  /** Index of the text of each piece. */
  readonly documents: Int32Array;
} {
  checkTexts("cutTexts: texts", texts);
  checkRange("characters", characters, { min: 0, max: Infinity, openMin: true });
  const length = Math.min(LOOKED_AT, Math.max(LEAST_CHARACTERS, characters));
  const pieces: string[] = [];
  const documents: number[] = [];
  texts.forEach((text, document) => {
    if (text.trim() === "") return;
    const count = Math.max(1, Math.round(text.length / length));
    for (let i = 0; i < count; i++) {
      const [from, to] = [i, i + 1].map((j) => Math.floor((j * text.length) / count));
      pieces.push(text.slice(from, to));
      documents.push(document);
    }
  });
  return { pieces, documents: Int32Array.from(documents) };
}

/** The group of each text [n], by k-means of their embeddings. Needs a backend. Throws `config` for more groups than texts. */
export async function groupTexts(
  texts: readonly string[],
  embedder: Embedder,
  options: { readonly groups: number; readonly seed: number; readonly signal?: CancelSignal },
): Promise<Int32Array> {
  checkTexts("groupTexts: texts", texts);
  checkOptions("groupTexts", options, {
    groups: required(integerIn(1)),
    seed: required(integerIn(0)),
    signal: abortSignal,
  });
  const { groups, seed, signal } = options;
  if (groups > texts.length)
    throw new GradmixError(
      "config",
      `groupTexts: ${texts.length} texts cannot make ${groups} groups; ask for at most ${texts.length}`,
    );
  const points = await embedTexts(
    embedder,
    texts.map((text) => text.slice(0, LOOKED_AT)),
    signal,
  );
  const { ids } = await kMeans(points, {
    clusters: groups,
    seed,
    ...(signal === undefined ? {} : { signal }),
  });
  return ids;
}
