/**
 * The folder of one run:
 *
 *     config.json                    the resolved configuration
 *     run.json                       what the run found and used (runs/facts.ts)
 *     metrics.jsonl                  a line per step, and one before the first
 *     weights.json                   the domain weights, final and averaged
 *     report.html                    all of that to look at (report/index.ts)
 *     metrics.csv                    the metrics as a table
 *     tensorboard/                   event files, where asked for
 *     model/                         the trained model
 *     best/                          with --keep-best: the model and the weights of the best step, and which that is
 *     checkpoints/step-00000100.safetensors   the last two
 *     lock                           the process that writes here, while it runs
 *
 * A kill at any moment leaves whole files, except for the last line of metrics.jsonl, which a resumed run removes.
 */
import * as nodeFs from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { RunStore } from "./run-events.ts";
import type { ResumeLine, StartLine, StepMetrics } from "../runs/lines.ts";
import type { TrainConfig } from "./train-config.ts";
import { errorCode, GradmixError } from "../errors.ts";
import {
  type CheckpointFile,
  readCheckpoint,
  verifyCheckpoint,
  writeCheckpoint,
} from "../node/checkpoint-file.ts";
import { checkSameConfig, fileLayer, flatten, jsonLayer, recordedLayer, resolveConfig } from "./config.ts";
import {
  ioError,
  quietly,
  temporaryName,
  reading,
  recoverFolder,
  writeFileAtomic,
  writeFolderAtomic,
  type WriteFs,
} from "../node/files.ts";
import { makeFolders } from "../folders-node.ts";
import { type Lock, lockFolder, removeLockRemains } from "./lock.ts";
import { formatJson } from "../json.ts";
import { reason } from "../node/system-errors.ts";
import {
  anything,
  integerFrom,
  faultOf,
  list,
  map,
  object,
  optional,
  parseOrdered,
  plainObject,
  read,
  type Schema,
  string,
  withDefault,
} from "../schema.ts";
import { shellWord } from "../shell-word.ts";
import {
  bestFolder,
  checkpointPath,
  keptCheckpoints,
  listCheckpoints,
  modelFolder,
  otherThanRun,
  readFolder,
} from "./run-places.ts";
import { isRun } from "./run-names.ts";
import { configError } from "./values.ts";
import { checkMetrics, type MetricsFile, openMetrics, stepOfLine } from "./metrics-file.ts";
import { traces } from "./run-names.ts";

export interface RunFolder extends RunStore {
  /** Appends a line to metrics.jsonl. */
  appendMetrics(metrics: StartLine | StepMetrics | ResumeLine): void;
  /** Closes the metrics file and releases the lock. */
  close(): void;
}

/** Throws `config` if `folder` cannot hold a new run, because it already holds one or is not a folder. */
export function checkFree(folder: string): void {
  let entries: string[];
  try {
    entries = nodeFs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw configError(`--out ${folder}: cannot be used (${reason(error)})`, error);
  }
  const trace = traces.find((name) => entries.includes(name));
  if (trace !== undefined)
    throw configError(
      `--out ${folder}: already holds a run (${trace}); choose another folder, or continue it with --resume ${shellWord(folder)}`,
    );
}

/** What `--resume` continues: a run folder, or one of its checkpoints. */
export interface ResumeFrom {
  folder: string;
  config: TrainConfig;
  /** The given checkpoint; null: the newest one. */
  file: string | null;
}

/** Finds the run that `--resume path` names. Throws `checkpoint`. */
export function findRun(path: string): ResumeFrom {
  if (path === "") throw new GradmixError("checkpoint", "--resume: is empty; name the folder of a run");
  const isFile = nodeFs.statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  const folder = isFile ? dirname(dirname(path)) : path;
  const file = join(folder, "config.json");
  if (!isRun(folder)) {
    const model = nodeFs.existsSync(join(path, "model.safetensors"));
    const other = otherThanRun(path);
    const what =
      other === null
        ? isFile
          ? "is not a checkpoint in the folder of a run; name the folder of a run"
          : `holds no run (there is no ${join(folder, nodeFs.existsSync(file) ? "checkpoints" : "config.json")})`
        : `${other}${model ? `, or start a new run from this model with --init-from ${shellWord(path)}` : ""}`;
    throw new GradmixError("checkpoint", `--resume ${path}: ${what}`);
  }
  const config = recordedConfig(folder);
  return { folder, config: { ...config, run: { ...config.run, out: folder } }, file: isFile ? path : null };
}

/** The configuration in the folder of a run, with the folder (`run.out`) in which it was written. Throws `config`. */
export function recordedConfig(folder: string): TrainConfig {
  return resolveConfig([recordedLayer(fileLayer(join(folder, "config.json")))]);
}

/** Opens a folder for a run. Nothing is written before `begin`. With `resume`, `load` returns the given checkpoint, or the newest one. */
export function openRunFolder(
  config: TrainConfig,
  resume: ResumeFrom | null = null,
  fs: WriteFs = nodeFs,
): RunFolder {
  const folder = config.run.out;
  let held: Held | null = null;
  /** The point from which the run continues; null before it is known. */
  let from: Point | null = resume === null ? beginning : null;

  const load: RunStore["load"] = () => {
    if (resume === null) return null;
    const found = loadPoint(config, resume);
    from = found.from;
    return found.loaded;
  };

  const begin = (): Held => {
    if (held !== null) return held;
    if (resume === null) checkFree(folder);
    if (from === null) load();
    held = beginRun(config, from ?? beginning, resume === null, fs);
    return held;
  };

  /** Begins the run if needed. Throws `io` if the folder was moved or deleted since, because new files would not belong to any run. */
  const present = (): Held => {
    const begun = begin();
    if (!nodeFs.existsSync(join(folder, "config.json")))
      throw new GradmixError("io", `${folder}: was moved or deleted during the run; put it back to continue`);
    return begun;
  };

  return {
    load,
    begin: () => void begin(),
    appendMetrics(metrics) {
      begin().metrics.append(`${formatJson(metrics)}\n`);
    },
    saveCheckpoint(step, checkpoint, lines = step) {
      const unwritten = present().metrics.sync();
      const json = {
        config: formatJson(config),
        state: checkpoint.json,
        ...(lines === step ? {} : { lines }),
        ...(unwritten.length === 0 ? {} : { unwritten }),
      };
      writeCheckpoint(checkpointPath(folder, step), { step, json, arrays: checkpoint.arrays }, fs);
      for (const { path } of listCheckpoints(folder).slice(0, -keptCheckpoints)) remove(path, fs);
    },
    saveFile(name, contents) {
      present();
      writeFileAtomic(join(folder, name), [bytesOf(contents)], fs);
    },
    saveFolder(name, files) {
      present();
      const encoded = [...files].map(([file, contents]) => [file, bytesOf(contents)] as const);
      writeFolderAtomic(join(folder, name), new Map(encoded), fs);
    },
    removeFolder(name) {
      present();
      const path = join(folder, name);
      try {
        fs.rmSync(path, { recursive: true, force: true });
      } catch (error) {
        throw ioError(path, error);
      }
    },
    close() {
      const ended = held;
      if (ended === null) return;
      held = null;
      quietly(ended.metrics.close);
      quietly(ended.lock.release);
    },
  };
}

/** What a run holds from its beginning to its end. */
interface Held {
  readonly lock: Lock;
  readonly metrics: MetricsFile;
}

/** Loads the checkpoint from which a resumed run continues. Throws `checkpoint`. */
function loadPoint(
  config: TrainConfig,
  resume: ResumeFrom,
): { readonly from: Point; readonly loaded: ReturnType<RunStore["load"]> } {
  const folder = config.run.out;
  const seen = stateOf(folder);
  const file = resume.file ?? listCheckpoints(folder).at(-1)?.path ?? null;
  if (file === null) return { from: { ...beginning, seen }, loaded: null };
  const { step, config: before, state: json, arrays, lines, unwritten } = readRun(file);
  checkSameConfig(before, flatten(config), file);
  checkMetrics(join(folder, "metrics.jsonl"), Math.min(lines, ...unwritten.map(stepBefore)));
  return {
    from: { lines, step, unwritten, seen },
    loaded: { step, checkpoint: { json, arrays }, config: before },
  };
}

/** The step up to which metrics.jsonl goes if this line of it could not be written. */
const stepBefore = (line: string): number => stepOfLine(line) - 1;

/** Locks the folder and makes the files that a run has before its first step. If this fails for a new run, everything that it made is removed. */
function beginRun(config: TrainConfig, from: Point, isNew: boolean, fs: WriteFs): Held {
  const folder = config.run.out;
  const lock = lockFolder(folder, fs);
  // A folder without config.json does not count as a run, so a failed start must remove it again.
  const undo: (() => void)[] = [];
  try {
    // Another process may have changed the folder before this one got the lock.
    if (isNew) checkFree(folder);
    else if (stateOf(folder) !== from.seen)
      throw new GradmixError(
        "checkpoint",
        `--resume: another process has just continued ${folder}; try again`,
      );
    return { lock, metrics: makeFiles(config, from, isNew, { fs, undo }) };
  } catch (error) {
    if (isNew) for (const undone of undo.reverse()) quietly(undone);
    quietly(lock.release);
    throw error;
  }
}

/** Makes the files of a run before its first step, in a locked folder. `undo` receives the functions that remove them. Returns the open metrics file. */
function makeFiles(
  config: TrainConfig,
  { step, lines, unwritten }: Point,
  isNew: boolean,
  { fs, undo }: { readonly fs: WriteFs; readonly undo: (() => void)[] },
): MetricsFile {
  const folder = config.run.out;
  removeLockRemains(folder, fs);
  removeTemporaries(folder);
  for (const name of [bestFolder, modelFolder]) recoverFolder(join(folder, name), fs);
  const place = (name: string): string => {
    const path = join(folder, name);
    undo.push(() => fs.rmSync(path, { force: true, recursive: true }));
    return path;
  };
  writeJson(place("config.json"), config, fs);
  const checkpoints = place("checkpoints");
  try {
    makeFolders(checkpoints, fs);
  } catch (error) {
    throw ioError(checkpoints, error);
  }
  // Later checkpoints will be written again.
  for (const { path, step: other } of listCheckpoints(folder)) if (other > step) remove(path, fs);
  const metrics = openMetrics(place("metrics.jsonl"), isNew ? null : lines, fs);
  try {
    for (const line of unwritten) metrics.append(line);
    // These belong to the step at which the run stopped. If the run is killed before it writes the next ones, it has none until it continues.
    for (const name of ["weights.json", modelFolder]) remove(join(folder, name), fs);
    return metrics;
  } catch (error) {
    quietly(metrics.close);
    throw error;
  }
}

/** The point from which a run continues. */
interface Point {
  readonly step: number;
  /** Lines of metrics.jsonl up to this step are kept. */
  readonly lines: number;
  /** Lines that follow them, which could not be written before. */
  readonly unwritten: readonly string[];
  /** The state of the folder when the point was read. */
  readonly seen: string;
}

/** The beginning of a run. Its lines start at −1, because a run that starts again also writes the line before the first step again. */
const beginning: Point = { step: 0, lines: -1, unwritten: [], seen: "" };

/** A text that changes if another process writes to the folder. */
function stateOf(folder: string): string {
  return JSON.stringify(
    listCheckpoints(folder).map(({ path }) => {
      const file = nodeFs.statSync(path, { throwIfNoEntry: false });
      return [path, file?.ino, file?.mtimeMs, file?.size];
    }),
  );
}

function remove(path: string, fs: WriteFs): void {
  try {
    fs.rmSync(path, { force: true, recursive: true });
  } catch (error) {
    throw ioError(path, error);
  }
}

/** Reads the configuration and the states of the trainer and the run from a checkpoint. Throws like `readCheckpoint`. */
export function readRun(file: string): {
  step: number;
  config: TrainConfig;
  state: Checkpoint["json"];
  arrays: Checkpoint["arrays"];
  /** metrics.jsonl is complete up to this step, except for `unwritten`. */
  lines: number;
  /** Lines that could not be written to metrics.jsonl. */
  unwritten: readonly string[];
} {
  const { step, json, arrays } = readCheckpointOrOffer(file);
  const source = {
    source: file,
    code: "checkpoint",
    advice: "it was not written by a training run",
  } as const;
  if (step === undefined) throw faultOf(source)("", "has no step");
  const { config: saved, state, lines, unwritten } = read(savedRun, json, faultOf(source));
  const config = typeof saved === "string" ? parseOrdered(map(anything), saved, source) : saved;
  return {
    ...{ step, state, arrays, unwritten },
    config: resolveConfig([recordedLayer(jsonLayer(config, file))]),
    lines: lines ?? step,
  };
}

interface SavedRun {
  /** JSON text, which keeps the order of the domains; an object in earlier versions. */
  readonly config: unknown;
  readonly state: Checkpoint["json"];
  /** metrics.jsonl is complete up to this step; −1: even the line before the first step is missing. */
  readonly lines?: number;
  readonly unwritten: readonly string[];
}

/** Schema of the JSON that a checkpoint contains beside the state of the trainer. */
export const savedRun: Schema<SavedRun> = object<SavedRun>({
  config: (value, at) => (typeof value === "string" ? value : plainObject(value, at)),
  state: plainObject,
  lines: optional(integerFrom(-1)),
  unwritten: withDefault(list(string), []),
});

/** Like `readCheckpoint`. The error for a damaged file names the newest intact checkpoint. */
function readCheckpointOrOffer(path: string): CheckpointFile {
  try {
    return readCheckpoint(path);
  } catch (error) {
    if (!(error instanceof GradmixError) || error.code !== "checkpoint") throw error;
    const others = listCheckpoints(dirname(dirname(path))).filter(
      (other) => basename(other.path) !== basename(path),
    );
    const good = others.reverse().find((other) => isWhole(other.path));
    const offer =
      good === undefined
        ? "there is no other one"
        : `the checkpoint of step ${good.step} is intact: --resume ${shellWord(good.path)}`;
    throw new GradmixError("checkpoint", `${error.message}; ${offer}`, { cause: error });
  }
}

function isWhole(path: string): boolean {
  try {
    reading(path, (source) => verifyCheckpoint(source, path));
    return true;
  } catch {
    return false;
  }
}

function removeTemporaries(folder: string): void {
  for (const place of [folder, join(folder, "checkpoints")])
    for (const name of readFolder(place))
      if (temporaryName.test(name)) nodeFs.rmSync(join(place, name), { force: true });
}

function writeJson(path: string, value: unknown, fs: WriteFs): void {
  writeFileAtomic(path, [encode(`${formatJson(value, 2)}\n`)], fs);
}

function bytesOf(contents: string | Uint8Array): Uint8Array {
  return typeof contents === "string" ? encode(contents) : contents;
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
