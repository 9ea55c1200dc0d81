/** Computes histograms of targets for `gradmix histogram`: over clusters by nearest centroids, over any other domains by bigrams. */
import { clusterHistogram, groupTexts } from "../data/cluster/histogram.ts";
import type { ClusterShares } from "../data/cluster/shares.ts";
import { labelsOf } from "../data/cluster/text-clusters.ts";
import { countHistogram } from "../data/histogram.ts";
import { buildCorpus, byteTokenizer, readDocuments } from "../data/index.node.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { init } from "../host-node.ts";
import { shutdown } from "../init.ts";
import type { NamedShares } from "./bases-file.ts";
import { clustersWithText, readClusterFolder } from "./cluster-folder.ts";
import { readTextClusters } from "./cluster-model.ts";
import { meanCharacters, textsOf } from "./histogram.ts";
import { type Inputs, listInputs } from "./inputs.ts";
import { leftOutTally, type LeftOutTally } from "./left-out.ts";
import { readData } from "./read-data.ts";
import { readStart } from "./start.ts";
import type { TrainConfig } from "./train-config.ts";
import { configError } from "./values.ts";

/** The histogram of one target. */
export interface TargetHistogram extends NamedShares {
  /** Standard errors of the shares; NaN if they are unknown. */
  readonly standardErrors: Float64Array;
  /** Number of the target's examples that are individually assigned to each domain. */
  readonly counts: Float64Array;
  /** Heading of the column of counts. */
  readonly counted: string;
  /** Sentences that describe how the shares were found. */
  readonly about: readonly string[];
}

/** The result. */
export interface Histograms {
  readonly domains: readonly string[];
  readonly targets: readonly TargetHistogram[];
  readonly groups: readonly NamedShares[];
  /** Amount of text of each domain, in any unit. */
  readonly sizes: readonly number[];
}

/** Callbacks and the signal of a computation. */
export interface HistogramHooks {
  readonly onEvent: (line: string) => void;
  /** Called once the files are known, before they are read. */
  readonly onInputs: (inputs: Inputs) => void;
  readonly signal: AbortSignal;
}

/** Computes the histograms after reading all text as `gradmix train` does. Throws the same errors. */
export async function domainHistograms(
  { data, model }: TrainConfig,
  seed: number,
  hooks: HistogramHooks,
): Promise<Histograms> {
  const { initFrom, context } = model;
  const plan = { ...data, context, seed, out: null };
  const inputs = await listInputs(plan, hooks);
  hooks.onInputs(inputs);
  const read = await readData(
    plan,
    { tokenizer: initFrom === null ? null : readStart(initFrom).tokenizer, corpus: undefined },
    hooks,
    inputs,
  );
  const windows = read.domains.map(({ train }) => train);
  // If no single target was given, the first of several takes its place.
  const targets = [
    ...(data.target.length === 0 || read.target === null ? [] : [["target", read.target] as const]),
    ...read.targets,
  ];
  const domains = [...read.facts.domains.keys()];
  const found: TargetHistogram[] = [];
  for (const [name, { train }] of targets) {
    const {
      windows: n,
      standardErrors,
      ...own
    } = await countHistogram(train, windows, { standardErrors: true }, hooks.signal);
    found.push({
      name,
      ...own,
      standardErrors: standardErrors ?? new Float64Array(domains.length).fill(NaN),
      counted: "best windows",
      about: [`of ${n.toLocaleString("en")} ${n === 1 ? "window" : "windows"} of the target`],
    });
  }
  return {
    domains,
    targets: found,
    groups: [],
    sizes: domains.map((name) => read.sizes[name]!),
  };
}

export interface ClusterPlan {
  /** The folder that `gradmix cluster` wrote. */
  readonly folder: string;
  /** Seed of the choice of held-out documents. */
  readonly seed: number;
  /** Number of groups of the targets' documents; null: none. */
  readonly groups: number | null;
}

/**
 * Reads only the targets, without the documents that a run with the same options would hold out. Throws `data` for a folder to whose clusters
 * no text can be assigned.
 */
export async function clusterHistograms(
  config: TrainConfig,
  { folder: path, seed, groups }: ClusterPlan,
  hooks: HistogramHooks,
): Promise<Histograms> {
  const folder = readClusterFolder(path);
  const model = readTextClusters(folder);
  if (model === null)
    throw new GradmixError(
      "data",
      `${path}: has no embedder of gradmix cluster; its histogram is counted with bigrams`,
    );
  const inputs = await listInputs({ ...config.data, domains: new Map(), domainsFrom: [], out: null }, hooks);
  hooks.onInputs(inputs);
  const { target, targets } = inputs;
  const sizes = folder.clusters.map(({ bytes }) => bytes);
  const corpus = { ...model, sizes, characters: meanCharacters(folder) };
  const domains = clustersWithText(folder);
  const kept = folder.names.flatMap((_, j) => (folder.clusters[j]!.documents > 0 ? [j] : []));
  const pick = (values: Float64Array): Float64Array => Float64Array.from(kept, (j) => values[j]!);
  await init({ backend: "cpu", vectorBits: "auto" });
  try {
    const found: TargetHistogram[] = [];
    const all: string[] = [];
    const leftOut = leftOutTally();
    for (const [name, files] of [...(target.length === 0 ? [] : [["target", target] as const]), ...targets]) {
      const texts = await targetTexts(name, files, config, seed, leftOut, hooks);
      all.push(...texts);
      const own = await clusterHistogram(texts, corpus, hooks.signal);
      found.push({
        name,
        shares: pick(own.shares),
        standardErrors: pick(own.standardErrors),
        counts: pick(own.counts),
        counted: "nearest pieces",
        about: aboutShares(own, texts.length),
      });
    }
    for (const line of leftOut.lines()) hooks.onEvent(line);
    const grouped: NamedShares[] = [];
    if (groups !== null) {
      if (groups > all.length)
        throw configError(
          `--groups: ${all.length} ${all.length === 1 ? "document" : "documents"} of the target cannot make ${groups} groups; use fewer groups, or more documents`,
        );
      const ids = await groupTexts(all, model.embedder, { groups, seed, signal: hooks.signal });
      const words = labelsOf(all, ids, groups);
      for (let g = 0; g < groups; g++) {
        const own = all.filter((_, i) => ids[i] === g);
        if (own.length === 0) continue;
        const { shares } = await clusterHistogram(own, corpus, hooks.signal);
        grouped.push({ name: [`group-${g + 1}`, ...words[g]!.slice(0, 3)].join("-"), shares: pick(shares) });
      }
    }
    return { domains, targets: found, groups: grouped, sizes: kept.map((j) => sizes[j]!) };
  } finally {
    await shutdown();
  }
}

/** The texts of a target that are not held out. */
async function targetTexts(
  name: string,
  files: readonly string[],
  { data: { textField, skipBadLines, heldOut } }: TrainConfig,
  seed: number,
  leftOut: LeftOutTally,
  { signal }: HistogramHooks,
): Promise<string[]> {
  const tokens = files.find(isTokenFile);
  if (tokens !== undefined)
    throw new GradmixError(
      "data",
      `${tokens}: holds tokens, but only text can be assigned to clusters; give the text of the target`,
    );
  signal.throwIfAborted();
  // The documents alone determine what is held out, whatever the tokenizer.
  const tokenizer = byteTokenizer();
  const { onSkip, onEmpty } = leftOut;
  const documents = readDocuments(files, { textField, skipBadLines, onSkip, onEmpty });
  const { train } = await buildCorpus(name, documents, tokenizer, { heldOut, seed });
  return textsOf(train, tokenizer);
}

function aboutShares({ examples, effective, own }: ClusterShares, documents: number): string[] {
  const n = (value: number): string => Math.round(value).toLocaleString("en");
  const worth =
    documents > 1 && effective < 0.95 * examples ? `, worth ${n(effective)} independent ones` : "";
  return [
    `of ${n(examples)} ${examples === 1 ? "piece" : "pieces"} of ${n(documents)} ${documents === 1 ? "document" : "documents"} of the target${worth}; ${(100 * own).toFixed(0)} % of the shares come from the pieces, the rest from the corpus`,
  ];
}
