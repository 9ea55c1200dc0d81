/** Clusters texts: an embedder, the clusters and their labels are fitted to a sample; then any text can be assigned. */
import type { CancelSignal } from "../../cancel.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, objectWith } from "../../options.ts";
import { dimCheck, type Embedder, embedTexts, fitEmbedder, wordsOf, checkTexts } from "./embeddings.ts";
import {
  assignClusters,
  clusterChecks,
  type ClusterOptions,
  type Clusters,
  fitClusters,
  leafCount,
} from "./tree.ts";

/** Options of `fitTextClusters`. */
export interface TextClusterOptions extends ClusterOptions {
  /** Numbers per text. Default 128. */
  readonly dim?: number;
}

/** Assigns texts to clusters: plain JSON except for the arrays. */
export interface TextClusters {
  /** Turns a text into a point. */
  readonly embedder: Embedder;
  /** Assigns points to clusters. */
  readonly clusters: Clusters;
  /** The most typical words of each leaf, the most typical first; empty if the sample has none. */
  readonly labels: readonly (readonly string[])[];
}

/** Number of words in a label. */
const LABEL = 5;
/** Number of UTF-16 units of a long text that are used; more would change little. */
export const LOOKED_AT = 20_000;

/** Fits an embedder and clusters to a sample of texts. Needs a backend (`init`). Throws like `fitEmbedder` and `fitClusters`. */
export async function fitTextClusters(
  sample: readonly string[],
  given: TextClusterOptions,
): Promise<TextClusters> {
  checkOptions("fitTextClusters", given, { ...clusterChecks, dim: dimCheck });
  const { dim, ...options } = given;
  checkTexts("fitTextClusters: sample", sample);
  const texts = sample.map((text) => text.slice(0, LOOKED_AT));
  const { seed, signal } = options;
  const embedder = await fitEmbedder(texts, {
    ...(dim === undefined ? {} : { dim }),
    ...(seed === undefined ? {} : { seed }),
    ...(signal === undefined ? {} : { signal }),
  });
  const points = await embedTexts(embedder, texts, signal);
  const { clusters, ids } = await fitClusters(points, options);
  return { embedder, clusters, labels: labelsOf(texts, ids, leafCount(clusters)) };
}

/** The leaf of each text [texts]. Needs a backend (`init`). */
export async function assignTexts(
  textClusters: TextClusters,
  texts: readonly string[],
  signal?: CancelSignal,
): Promise<Int32Array> {
  objectWith(
    "clusters of fitTextClusters",
    "embedder",
    "clusters",
  )("assignTexts: textClusters", textClusters);
  checkTexts("assignTexts: texts", texts);
  const { embedder, clusters } = textClusters;
  const points = await embedTexts(
    embedder,
    texts.map((text) => text.slice(0, LOOKED_AT)),
    signal,
  );
  return assignClusters(clusters, points, signal);
}

/**
 * Labels of clusters: the words that are most over-represented in a cluster's texts, by n·ln(p(w | cluster)/p(w)) over texts that contain the word,
 * with half a text added, so that a word of a single text is not typical.
 */
export function labelsOf(texts: readonly string[], ids: Int32Array, clusters: number): string[][] {
  if (texts.length !== ids.length)
    throw new GradmixError("shape", `labelsOf: ${texts.length} texts and ${ids.length} clusters`);
  const all = new Map<string, number>();
  const own = Array.from({ length: clusters }, () => new Map<string, number>());
  const sizes = new Int32Array(clusters);
  texts.forEach((text, i) => {
    const counts = own[ids[i]!]!;
    sizes[ids[i]!]!++;
    for (const word of new Set(wordsOf(text))) {
      all.set(word, (all.get(word) ?? 0) + 1);
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  });
  return own.map((counts, j) => {
    const scored = Array.from(counts, ([word, n]) => {
      const share = (n + 0.5) / (sizes[j]! + 1);
      const common = ((all.get(word) ?? 0) + 0.5) / (texts.length + 1);
      return { word, score: n < 2 ? 0 : n * Math.log(share / common) };
    });
    return scored
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score || (a.word < b.word ? -1 : 1))
      .slice(0, LABEL)
      .map(({ word }) => word);
  });
}
