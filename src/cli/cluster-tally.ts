/** Counts the contents of clusters document by document: their sizes and a few of their texts, and makes the page that shows them. */
import { beginning } from "../errors.ts";
import { utf8Length } from "../data/bytes.ts";
import type { Tokenizer } from "../data/index.node.ts";
import { renderClusterPage } from "../report/cluster-page.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";

export interface Tally {
  /** Counts a document of a cluster. */
  add(cluster: number, text: string): void;
  /** Number of documents by cluster. */
  readonly documents: Float64Array;
  /** UTF-8 bytes by cluster. */
  readonly bytes: Float64Array;
  /** Tokens by cluster, including one end-of-text token per document; null if they are not counted. */
  readonly tokens: Float64Array | null;
  /** Beginnings of some of each cluster's documents, drawn with equal probability. */
  readonly examples: readonly (readonly string[])[];
}

/** Number of examples of each cluster, and of clusters with examples. */
const EXAMPLES = 3;
const MOST_WITH_EXAMPLES = 10_000;
/** Largest number of characters of a word in a name. */
const LONGEST_WORD = 24;
/** Largest number of characters of an example. */
const SHOWN = 240;

export function createTally(
  clusters: number,
  { tokenizer, seed }: { readonly tokenizer: Tokenizer | null; readonly seed: number },
): Tally {
  const documents = new Float64Array(clusters);
  const bytes = new Float64Array(clusters);
  const tokens = tokenizer === null ? null : new Float64Array(clusters);
  const examples = Array.from({ length: clusters }, (): string[] => []);
  const most = clusters > MOST_WITH_EXAMPLES ? 1 : EXAMPLES;
  const random = foldIn(key(seed), 0xe8a);
  let seen = 0;
  return {
    documents,
    bytes,
    tokens,
    examples,
    add(cluster, text) {
      // Vitter's algorithm R.
      const before = documents[cluster]!++;
      const place = before < most ? before : Math.floor(uniformAt(random, seen) * (before + 1));
      if (place < most) examples[cluster]![place] = beginningOf(text);
      seen++;
      bytes[cluster]! += utf8Length(text);
      if (tokens === null) return;
      tokenizer?.encodeBlocks(text, (ids) => (tokens[cluster]! += ids.length));
      tokens[cluster]!++;
    },
  };
}

/** The beginning of a text as one line. */
function beginningOf(text: string): string {
  const line = text
    .slice(0, 2 * SHOWN)
    .trim()
    .replaceAll(/\s+/g, " ");
  return beginning(line, SHOWN);
}

/** A cluster as in clusters.json. */
export interface DescribedCluster {
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number | null;
  readonly words: readonly string[];
}

/** Describes clusters by names that sort by number and contain typical words: `017-rust-trait-impl`. */
export function describeClusters(
  { documents, bytes, tokens }: Tally,
  labels: readonly (readonly string[])[],
): Map<string, DescribedCluster> {
  const digits = String(Math.max(0, labels.length - 1)).length;
  return new Map(
    labels.map((words, j) => [
      [String(j).padStart(digits, "0"), ...words.slice(0, 3).map(shortened)].join("-"),
      { documents: documents[j]!, bytes: bytes[j]!, tokens: tokens?.[j] ?? null, words },
    ]),
  );
}

/** Shortens words, because a number with a thousand digits is a word too. */
const shortened = (word: string): string => Array.from(word).slice(0, LONGEST_WORD).join("");

/** Contents of clusters.html; if there are very many clusters, only the largest. */
export function clusterPage(
  clusters: ReadonlyMap<string, DescribedCluster>,
  { examples }: Tally,
  facts: { readonly files: number; readonly sample: number },
): string {
  const all = Array.from(clusters, ([name, own], j) => ({ name, ...own, examples: examples[j]! }));
  const sum = (of: (own: DescribedCluster) => number): number =>
    all.reduce((total, own) => total + of(own), 0);
  const counted = all.every(({ tokens }) => tokens !== null);
  return renderClusterPage({
    ...facts,
    clusters: all.length,
    documents: sum(({ documents }) => documents),
    bytes: sum(({ bytes }) => bytes),
    tokens: counted ? sum(({ tokens }) => tokens ?? 0) : null,
    rows: all.sort((a, b) => b.documents - a.documents).slice(0, MOST_WITH_EXAMPLES),
  });
}
