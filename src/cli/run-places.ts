/** Where a run has its checkpoints, and what a path is that lies in a run. Reads names only. */
import * as nodeFs from "node:fs";
import { basename, join } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { reason } from "../node/system-errors.ts";
import { isRun } from "./run-names.ts";

/** Folder of a run that holds the model after the last step, in the format of Hugging Face. */
export const modelFolder = "model";

/** Folder of a run that holds the model of the best step (`--keep-best`). */
export const bestFolder = "best";

/** Number of checkpoints to keep: the newest, and one to fall back to. */
export const keptCheckpoints = 2;

/** The run that a path lies in; null if it lies in none. */
function runAround(path: string): string | null {
  return [join(path, ".."), join(path, "..", "..")].find(isRun) ?? null;
}

/**
 * Says what a path is that is neither a run nor a checkpoint, if it has to do with a run: a checkpoint that is not there, the folder of checkpoints, or
 * something else in the folder of a run; null for any other path. The text continues the path in an error.
 */
export function otherThanRun(path: string): string | null {
  const stats = nodeFs.statSync(path, { throwIfNoEntry: false });
  const run = runAround(path);
  if (stats === undefined) {
    if (run === null || checkpointStep(basename(path)) === null) return null;
    const there = listCheckpoints(run).map((one) => one.path);
    return `is not there; ${there.length === 0 ? `the run ${run} has no checkpoint` : `a run keeps its last ${keptCheckpoints} checkpoints, here ${there.join(" and ")}; name one of them, or the run ${run} for the last one`}`;
  }
  const inside = stats.isDirectory()
    ? nodeFs.readdirSync(path).filter((name) => checkpointStep(name) !== null)
    : [];
  const last = inside.sort().at(-1);
  if (last !== undefined)
    return `holds the checkpoints of a run; name ${run === null ? "" : `the run ${run}, or `}one of them, such as ${join(path, last)}`;
  return run === null ? null : `is part of the run ${run}; name that`;
}

/** Path of the checkpoint after a step. */
export function checkpointPath(folder: string, step: number): string {
  return join(folder, "checkpoints", `step-${String(step).padStart(8, "0")}.safetensors`);
}

/** The step in the name of a checkpoint; null for other names. */
function checkpointStep(name: string): number | null {
  const [, step] = /^step-(\d+)\.safetensors$/.exec(name) ?? [];
  return step === undefined ? null : Number(step);
}

/** The checkpoints of a run in ascending order of steps. */
export function listCheckpoints(folder: string): { step: number; path: string }[] {
  const place = join(folder, "checkpoints");
  return readFolder(place)
    .map((name) => ({ step: checkpointStep(name) ?? -1, path: join(place, name) }))
    .filter(({ step }) => step >= 0)
    .sort((a, b) => a.step - b.step);
}

/** The names in a folder; none if it does not exist. Throws `io`. */
export function readFolder(folder: string): string[] {
  try {
    return nodeFs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw new GradmixError("io", `${folder}: cannot be read (${reason(error)})`, { cause: error });
  }
}
