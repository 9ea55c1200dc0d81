/** Computes the share of the target that resembles each domain, for rules that start from it and for `gradmix histogram`. */
import type { Tokenizer } from "../data/byte-level.ts";
import { clusterHistogram } from "../data/cluster/histogram.ts";
import { countHistogram, type Histogram } from "../data/histogram.ts";
import type { StoredStream } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import type { ClusterFolder } from "./cluster-folder.ts";
import { readTextClusters } from "./cluster-model.ts";
import type { MixedFiles } from "./inputs.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks } from "./run-events.ts";

/** Measures the histogram on the training text. Throws `config` if there is no target. */
function measureHistogram(
  { domains, target }: Pick<Data, "domains" | "target">,
  signal: AbortSignal,
): Promise<Histogram> {
  if (target === null) throw new GradmixError("config", "--target: a histogram needs a target; add one");
  return countHistogram(
    target.train,
    domains.map(({ train }) => train),
    {},
    signal,
  );
}

/**
 * The share of the target that resembles each domain, in the order of the domains: by nearest centroids if the domains are clusters (`clusterHistogram`),
 * otherwise by bigrams. Throws `config` if there is no target.
 */
export async function histogramOf(
  data: Data,
  names: readonly string[],
  mixed: MixedFiles | null,
  { onEvent, signal }: Pick<RunHooks, "onEvent" | "signal">,
): Promise<ReadonlyMap<string, number>> {
  const shares =
    (await centroidShares(data, names, mixed, { onEvent, signal })) ??
    (await measureHistogram(data, signal)).shares;
  return new Map(names.map((name, i) => [name, shares[i]!]));
}

/** The shares by centroids; null if not all domains are clusters to which texts can be assigned. */
async function centroidShares(
  { target, tokenizer }: Data,
  names: readonly string[],
  mixed: MixedFiles | null,
  { onEvent, signal }: Pick<RunHooks, "onEvent" | "signal">,
): Promise<Float64Array | null> {
  const clusters = mixed?.clusters ?? null;
  if (mixed === null || clusters === null || target === null || tokenizer === null) return null;
  // There may be other domains beside the clusters.
  if (mixed.domainOf.size !== names.length) return null;
  const model = readTextClusters(clusters);
  if (model === null) {
    onEvent(
      `${clusters.folder} has no embedder of gradmix cluster, so the histogram is counted with bigrams`,
    );
    return null;
  }
  const domain = clusters.names.map((name) => mixed.domainOf.get(name));
  const { shares } = await clusterHistogram(
    textsOf(target.train.stream, tokenizer),
    {
      ...model,
      // Those of the folder, so that `gradmix histogram`, which reads only the target, counts the same shares.
      sizes: domain.map((name, j) => (name === undefined ? 0 : clusters.clusters[j]!.bytes)),
      characters: meanCharacters(clusters),
    },
    signal,
  );
  const byName = new Map(domain.map((name, j) => [name, shares[j]]));
  return Float64Array.from(names, (name) => byName.get(name) ?? 0);
}

/** The texts of the documents in a stream; for a target, of those that are not held out. */
export function textsOf({ tokens, documents }: StoredStream, { decode, endOfText }: Tokenizer): string[] {
  return Array.from({ length: documents.length - 1 }, (_, i) => {
    const ids = tokens.subarray(documents[i]!, documents[i + 1]!);
    return decode(ids.at(-1) === endOfText ? ids.subarray(0, -1) : ids);
  });
}

/** Mean length of the corpus' documents; a character is counted as one byte. */
export function meanCharacters({ clusters }: ClusterFolder): number {
  let [bytes, documents] = [0, 0];
  for (const own of clusters) {
    bytes += own.bytes;
    documents += own.documents;
  }
  return Math.max(1, bytes / Math.max(1, documents));
}

/** Formats a histogram: `histogram of the target: state-of-the-union 0.80, essays 0.07, … and 21 more`. */
export function histogramLine(histogram: ReadonlyMap<string, number>): string {
  const shown = [...histogram].sort(([, a], [, b]) => b - a).slice(0, 6);
  const rest = histogram.size - shown.length;
  return `histogram of the target: ${shown.map(([name, share]) => `${name} ${share.toFixed(2)}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
