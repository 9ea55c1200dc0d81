/** What share of the target each domain has, for rules that begin with it and for `gradmix histogram`. */
import type { Tokenizer } from "../data/byte-level.ts";
import { clusterHistogram } from "../data/cluster/histogram.ts";
import { countHistogram, type Histogram } from "../data/histogram.ts";
import type { StoredStream } from "../data/tokens.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { GradmixError } from "../errors.ts";
import type { ClusterFolder } from "./cluster-folder.ts";
import { readTextClusters } from "./cluster-model.ts";
import type { MixedFiles } from "./inputs.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks } from "./run-events.ts";

/** Of the training text. Throws `config` where there is no target. */
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
 * Share of the target by domain, in the order of the domains: by nearest centroids where the domains are clusters (`clusterHistogram`), by bigrams otherwise. Throws `config` where
 * there is no target.
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

/** null where the domains are not all clusters that texts can be assigned to. */
async function centroidShares(
  { target, tokenizer, sizes }: Data,
  names: readonly string[],
  mixed: MixedFiles | null,
  { onEvent, signal }: Pick<RunHooks, "onEvent" | "signal">,
): Promise<Float64Array | null> {
  const clusters = mixed?.clusters ?? null;
  if (mixed === null || clusters === null || target === null || tokenizer === null) return null;
  // Other domains may stand beside the clusters.
  if (mixed.domainOf.size !== names.length) return null;
  const model = readTextClusters(clusters);
  if (model === null) {
    onEvent(
      `${clusters.folder} cannot assign text to its clusters, so the histogram is counted with bigrams`,
    );
    return null;
  }
  const domain = clusters.names.map((name) => mixed.domainOf.get(name));
  const { shares } = await clusterHistogram(
    textsOf(target.train.stream, tokenizer),
    {
      ...model,
      sizes: domain.map((name) => (name === undefined ? 0 : sizes[name]!)),
      characters: meanCharacters(clusters),
    },
    signal,
  );
  const byName = new Map(domain.map((name, j) => [name, shares[j]]));
  return Float64Array.from(names, (name) => byName.get(name) ?? 0);
}

/** The texts of a stream's documents: of a target, those that it is not evaluated on. */
export function textsOf({ tokens, documents }: StoredStream, { decode, endOfText }: Tokenizer): string[] {
  return Array.from({ length: documents.length - 1 }, (_, i) => {
    const ids = tokens.subarray(documents[i]!, documents[i + 1]!);
    return decode(ids.at(-1) === endOfText ? ids.subarray(0, -1) : ids);
  });
}

/** Of the documents of the corpus, in the mean; a character is about a byte. */
export function meanCharacters({ clusters }: ClusterFolder): number {
  let [bytes, documents] = [0, 0];
  for (const own of clusters) {
    bytes += own.bytes;
    documents += own.documents;
  }
  return Math.max(1, bytes / Math.max(1, documents));
}

/** What a checkpoint has, so that a resumed run goes on with the same bits wherever it goes on; null where it has none. */
export function savedHistogram(
  json: Checkpoint["json"] | undefined,
  names: readonly string[],
): ReadonlyMap<string, number> | null {
  // The checkpoint's checksum says that it is what was written, and its configuration has the same domains.
  const saved = json?.["histogram"];
  if (!Array.isArray(saved) || saved.length !== names.length) return null;
  return new Map(names.map((name, i) => [name, Number(saved[i])]));
}

/** `histogram of the target: state-of-the-union 0.80, essays 0.07, … and 21 more` */
export function histogramLine(histogram: ReadonlyMap<string, number>): string {
  const shown = [...histogram].sort(([, a], [, b]) => b - a).slice(0, 6);
  const rest = histogram.size - shown.length;
  return `histogram of the target: ${shown.map(([name, share]) => `${name} ${share.toFixed(2)}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
