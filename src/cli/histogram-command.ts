/** `gradmix histogram`: shows the share of each target that each domain has, and writes it for rules that use a histogram, or as bases. */
import { formatJson } from "../json.ts";
import { isTokenFile } from "../data/token-files.ts";
import { type FileParts, writeFilesAtomic } from "../node/files.ts";
import { ALL_TEXT, basesText, domainBasis, type NamedShares } from "./bases-file.ts";
import { namesTargets } from "./config.ts";
import { isClusterFolder, readClusterFolder } from "./cluster-folder.ts";
import { readTextClusters } from "./cluster-model.ts";
import type { TargetHistogram } from "./histograms.ts";
import type { Inputs } from "./inputs.ts";
import { untilInterrupted } from "./interrupt.ts";
import type { OptionRow } from "./options.ts";
import { checkOutputs, filesAmong, filesOf } from "./outputs.ts";
import { preparedLayer } from "./prepared-options.ts";
import { displayWidth, startProgress } from "./progress.ts";
import { noRule, takenLayers } from "./taken-options.ts";
import { configOf, type Outputs } from "./train.ts";
import { dataSeed, type TrainConfig } from "./train-config.ts";
import { unusedOptions } from "./unused-options.ts";
import { type Raw, configError } from "./values.ts";

export interface HistogramArguments {
  /** Path of a config file; its other options are ignored. */
  readonly config: string | null;
  /** Flags that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  /** The rows of the table that the command accepts. */
  readonly rows: readonly OptionRow[];
  /** Path of the file for the shares; null: none. */
  readonly out: string | null;
  /** Path of the file for the bases (.json or .csv); null: none. */
  readonly bases: string | null;
  /** Number of groups of the targets' documents that become bases too; null: none. */
  readonly groups: number | null;
  /** Mixtures of targets that become bases too: the shares of the targets, by name of the mixture. */
  readonly mixtures: ReadonlyMap<string, ReadonlyMap<string, number>>;
}

/** Runs the command and returns the exit code. Throws `config`, `data` and `io`. */
export async function showHistogram(
  { config: file, given, rows, ...args }: HistogramArguments,
  { out, err }: Outputs,
): Promise<number> {
  const config = await readConfig(file, given, rows);
  checkTogether(config, args);
  const outputs = [
    ...(args.out === null ? [] : [["--out", args.out] as const]),
    ...(args.bases === null ? [] : [["--bases", args.bases] as const]),
  ];
  const others = filesAmong([file, config.data.tokenizer, config.model.initFrom, ...given.values()]);
  checkOutputs(outputs, others);
  const progress = startProgress(err, 0);
  let table = "";
  const stopped = await untilInterrupted(
    { output: err, status: progress, stopped: "stopped; nothing was written" },
    async (signal) => {
      // Loaded here, because `--help` and errors in the arguments do not need this code.
      const { clusterHistograms, domainHistograms } = await import("./histograms.ts");
      const hooks = {
        onEvent(line: string) {
          if (!config.run.quiet) progress.line(line);
        },
        onInputs(inputs: Inputs) {
          checkOutputs(outputs, [...others, ...filesOf(inputs)]);
          for (const line of unusedOptions(config, { readsTokens: filesOf(inputs).some(isTokenFile) }))
            hooks.onEvent(line);
        },
        signal,
      };
      const clusters = centroidsIn(config, args.groups);
      const found =
        clusters === null
          ? await domainHistograms(config, dataSeed(config), hooks)
          : await clusterHistograms(
              config,
              { folder: clusters, seed: dataSeed(config), groups: args.groups },
              hooks,
            );
      const { domains, targets, groups, sizes } = found;
      const files: FileParts[] = [];
      if (args.out !== null) {
        // There is exactly one target.
        const { shares } = targets[0]!;
        const named = new Map(domains.map((name, i) => [name, shares[i]!]));
        files.push({ path: args.out, parts: [encode(`${formatJson(named, 2)}\n`)] });
      }
      if (args.bases !== null) {
        const bases = [...targets, ...groups, ...mixed(targets, args.mixtures), domainBasis(sizes)];
        files.push({ path: args.bases, parts: [encode(basesText(args.bases, domains, bases))] });
      }
      // Together, so that either both are written or neither is.
      writeFilesAtomic(files);
      for (const target of targets) {
        if (targets.length > 1) table += `${target.name}\n`;
        table += formatTable(domains, target, clusters === null ? Infinity : SHOWN);
      }
      for (const { path } of files) table += `written to ${path}\n`;
    },
  );
  if (stopped !== null) return stopped;
  await out.deliver(table);
  return 0;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Number of clusters shown, the largest shares first. */
const SHOWN = 20;

async function readConfig(
  file: string | null,
  given: ReadonlyMap<string, Raw>,
  rows: readonly OptionRow[],
): Promise<TrainConfig> {
  const layers = takenLayers(given, file, rows);
  // The several targets may be given or prepared; only a rule that accepts them takes those that are prepared.
  const several = [...layers, preparedLayer([noRule(true), ...layers])].some(namesTargets);
  return configOf([noRule(several), ...layers]);
}

function checkTogether(
  { data }: TrainConfig,
  { out, bases, groups, mixtures }: Pick<HistogramArguments, "out" | "bases" | "groups" | "mixtures">,
): void {
  const names = [...(data.target.length === 0 ? [] : ["target"]), ...data.targets.keys()];
  if (names.length === 0)
    throw configError(
      "gradmix histogram needs a target: add --target GLOB, or --targets NAME=GLOB for each of several",
    );
  if (out !== null && names.length > 1)
    throw configError(
      `--out: holds the shares of one target, but there are ${names.length}; write all of them with --bases FILE`,
    );
  if (bases !== null && !/\.(json|csv)$/i.test(bases))
    throw configError(`--bases: ${bases} ends in neither .json nor .csv`);
  if (bases !== null && names.includes(ALL_TEXT))
    throw configError(`--targets: "${ALL_TEXT}" is the name of the basis of all text; choose another`);
  if (data.dropContaminated && data.domainsFrom.some(isClusterFolder))
    throw configError(
      "--drop-contaminated: the histogram over clusters reads the target only; leave the option out",
    );
  if (groups !== null && bases === null)
    throw configError("--groups: the groups become bases; name the file with --bases FILE");
  if (groups !== null && !data.domainsFrom.some(isClusterFolder))
    throw configError(
      "--groups: grouping needs the embeddings of clusters; name a folder of gradmix cluster with --domains",
    );
  const taken = [...mixtures.keys()].find((name) => names.includes(name));
  if (taken !== undefined) throw configError(`--mixture: a target is called "${taken}"; choose another name`);
  for (const [mixture, parts] of mixtures) {
    if (bases === null)
      throw configError("--mixture: the mixture becomes a basis; name the file with --bases FILE");
    const unknown = [...parts.keys()].find((name) => !names.includes(name));
    if (unknown !== undefined)
      throw configError(
        `--mixture: ${mixture}: there is no target "${unknown}"; the targets are ${names.join(", ")}`,
      );
  }
}

/**
 * The folder of clusters to whose centroids texts can be assigned, if the domains are those; null if they are others, whose histogram bigrams
 * count. Throws `config` for groups of documents without centroids.
 */
function centroidsIn({ data: { domains, domainsFrom } }: TrainConfig, groups: number | null): string | null {
  const folder = domainsFrom.find(isClusterFolder);
  if (folder === undefined) return null;
  const other = domainsFrom.find((one) => one !== folder) ?? domains.keys().next().value;
  if (other !== undefined)
    throw configError(
      `--domains ${folder}: a folder of clusters cannot be combined with other domains; leave out ${other}`,
    );
  if (readTextClusters(readClusterFolder(folder)) !== null) return folder;
  if (groups !== null)
    throw configError(
      `--groups: grouping needs the embedder of gradmix cluster, which ${folder} does not have; leave the option out`,
    );
  return null;
}

/** The mixtures of the targets' shares. */
function mixed(
  targets: readonly NamedShares[],
  mixtures: ReadonlyMap<string, ReadonlyMap<string, number>>,
): NamedShares[] {
  return Array.from(mixtures, ([name, parts]) => {
    const sum = [...parts.values()].reduce((a, b) => a + b, 0);
    const shares = new Float64Array(targets[0]!.shares.length);
    for (const target of targets) {
      const part = (parts.get(target.name) ?? 0) / sum;
      if (part > 0) target.shares.forEach((share, i) => (shares[i]! += part * share));
    }
    return { name, shares };
  });
}

/**
 * One line per domain for the `most` largest shares: the name, the share with its standard error, and the number of the target's examples that
 * are individually assigned to the domain.
 */
export function formatTable(
  names: readonly string[],
  { shares, standardErrors, counts, counted, about }: Omit<TargetHistogram, "name">,
  most: number = Infinity,
): string {
  const order = [...names.keys()].sort((i, j) => shares[j]! - shares[i]! || i - j).slice(0, most);
  const width = Math.max("domain".length, ...order.map((i) => displayWidth(names[i]!)));
  const line = (name: string, share: string, error: string, count: string): string =>
    `${name}${" ".repeat(width - displayWidth(name))}  ${share.padStart(6)}  ${error.padStart(7)}  ${count.padStart(Math.max(12, counted.length))}\n`;
  const rest = names.length - order.length;
  const left = order.reduce((sum, i) => sum - shares[i]!, 1);
  const errorOf = (i: number): string =>
    Number.isFinite(standardErrors[i]) ? `± ${standardErrors[i]!.toFixed(3)}` : "–";
  return (
    line("domain", "share", "error", counted) +
    order.map((i) => line(names[i]!, shares[i]!.toFixed(4), errorOf(i), String(counts[i]))).join("") +
    (rest > 0
      ? `and ${rest.toLocaleString("en")} more with ${Math.max(0, left).toFixed(4)} together\n`
      : "") +
    about.map((sentence) => `${sentence}\n`).join("")
  );
}
