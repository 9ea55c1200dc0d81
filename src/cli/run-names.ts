/**
 * What counts as a run, by the names in a folder. The questions differ, because each is asked for another reason:
 *
 *     isRun            can it be continued? It has what a run makes before its first step.
 *     hasFactsOfRun    are its metrics those of a run? It has any of the files that describe one, so that a missing one is noticed.
 *     writtenNames     which names are no text, but what a command wrote?
 *     protectedNames   which names must no output replace? Also those of a run whose checkpoints were deleted, and of clusters.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { isClusterFolder } from "./cluster-folder.ts";
import { preparedNames } from "./prepared-folder.ts";

/** Whether a folder has what a run makes before its first step, so that the run can be continued. */
export function isRun(folder: string): boolean {
  const has = (name: string): boolean => existsSync(join(folder, name));
  return has("config.json") && (has("checkpoints") || has("metrics.jsonl"));
}

/** Files and folders that mark a folder as a run. */
export const traces: readonly string[] = [
  "config.json",
  "run.json",
  "metrics.jsonl",
  "weights.json",
  "histogram.json",
  "report.html",
  "metrics.csv",
  "tensorboard",
  "checkpoints",
  "model",
  "best",
];

/** The files that `gradmix compare` writes to its folder, beside the folders of the runs. */
export const comparisonFiles = {
  plan: "compare-plan.json",
  tokenizer: "tokenizer.json",
  result: "compare.json",
  page: "report.html",
  lock: "lock",
} as const;

/**
 * The names among those in a folder that a run or `gradmix prepare` wrote. A folder counts as a run if it has everything that a run makes before its
 * first step, or if `own` says that it is the caller's own run folder.
 */
export function writtenNames(names: ReadonlySet<string>, own: boolean): ReadonlySet<string> {
  const prepared = preparedNames(names);
  if (prepared.size > 0) return prepared;
  // These are the files of `gradmix compare`.
  if (names.has(comparisonFiles.plan))
    return new Set([
      ...Object.values(comparisonFiles).filter((name) => names.has(name)),
      ...[...names].filter((name) => /^report-.*\.html$/.test(name)),
    ]);
  const isWhole = own || ["config.json", "metrics.jsonl", "checkpoints"].every((name) => names.has(name));
  return new Set(isWhole ? [...traces, "lock"].filter((name) => names.has(name)) : []);
}

/** Whether a folder has any file that describes a run. Also true for a folder from which a file of the run is missing, which is then refused: without its facts, the lines would give other weights. */
export function hasFactsOfRun(folder: string): boolean {
  return ["run.json", "config.json"].some((name) => existsSync(join(folder, name)));
}

/** The parts of a folder of `gradmix cluster` without which it cannot be used. */
const ofClusters: ReadonlySet<string> = new Set([
  "clusters.json",
  "ids",
  "centroids.npy",
  "embedder.safetensors",
]);

/** The names in a folder that no output may replace, because a run, a comparison, prepared text or clusters need them. */
export function protectedNames(folder: string): ReadonlySet<string> {
  if (isClusterFolder(folder)) return ofClusters;
  try {
    const names = new Set(readdirSync(folder));
    // A run whose checkpoints were deleted is still a run here.
    return writtenNames(names, names.has("run.json") && names.has("metrics.jsonl"));
  } catch {
    // There is no such folder yet, or it cannot be read; the error of the write says so.
    return new Set();
  }
}
