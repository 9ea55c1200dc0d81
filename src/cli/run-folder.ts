/**
 * The folder of one run:
 *
 *     config.json                    the resolved configuration
 *     metrics.jsonl                  a line a step
 *     weights.json                   the domain weights, final and averaged
 *     model/                         the trained model
 *     checkpoints/step-00000100.safetensors   the last two
 *     lock                           the process that writes here, while it runs
 *
 * A kill at any moment leaves whole files, except for the last line of metrics.jsonl, which a resumed run removes.
 */
import * as nodeFs from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import type { Checkpoint, ResumeLine, RunStore, StepMetrics, TrainConfig } from "../dga/config.ts";
import { GradmixError } from "../errors.ts";
import { decodeCheckpoint, encodeCheckpoint } from "./checkpoint-file.ts";
import { checkSameConfig, fileLayer, flatten, jsonLayer, resolveConfig } from "./config.ts";
import { ioError, readWhole, temporaryName, writeAll, writeFileAtomic, type WriteFs } from "./files.ts";
import { formatJson, parseJson } from "../json.ts";
import { errorCode, isObject, membersOf, reason, wrong } from "./values.ts";

/** Checkpoints that are kept: the newest, and one to fall back to. */
const keptCheckpoints = 2;

/** What marks a folder as holding a run. */
const traces = ["config.json", "metrics.jsonl", "weights.json", "checkpoints", "model"];

/**
 * Of the names in a folder, those that a run wrote there. A folder is a run's when it has all that a run makes before its first step; `own` says that it is
 * the folder of the run that asks.
 */
export function runNames(names: ReadonlySet<string>, own: boolean): ReadonlySet<string> {
  const isRun = own || ["config.json", "metrics.jsonl", "checkpoints"].every((name) => names.has(name));
  return new Set(isRun ? [...traces, "lock"].filter((name) => names.has(name)) : []);
}

export interface RunFolder extends RunStore {
  /** Adds a line to metrics.jsonl. */
  appendMetrics(metrics: StepMetrics | ResumeLine): void;
  /** Gives the folder back: closes the metrics file, removes the lock. */
  close(): void;
}

/** Throws `config` when `folder` cannot take a new run: it holds one, or it is not a folder. */
export function checkFree(folder: string): void {
  let entries: string[];
  try {
    entries = nodeFs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw wrong(`--out ${folder}: cannot be used (${reason(error)})`, error);
  }
  const trace = traces.find((name) => entries.includes(name));
  if (trace !== undefined)
    throw wrong(
      `--out ${folder}: already holds a run (${trace}); choose another folder, or go on with it by --resume ${folder}`,
    );
}

/** `--resume` takes the folder of a run, or one of its checkpoints. */
export interface ResumeFrom {
  folder: string;
  config: TrainConfig;
  /** A certain checkpoint; null: the newest. */
  file: string | null;
}

/** Finds the run that `--resume path` means. Throws `checkpoint`. */
export function findRun(path: string): ResumeFrom {
  if (path === "") throw new GradmixError("checkpoint", "--resume: is empty; name the folder of a run");
  const isFile = nodeFs.statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  const folder = isFile ? dirname(dirname(path)) : path;
  const file = join(folder, "config.json");
  if (!nodeFs.existsSync(file))
    throw new GradmixError("checkpoint", `--resume ${path}: holds no run (there is no ${file})`);
  const config = resolveConfig([fileLayer(file)]);
  return { folder, config: { ...config, run: { ...config.run, out: folder } }, file: isFile ? path : null };
}

/**
 * Opens a folder for a run; nothing is written before `begin`. With `resume`, `load` gives the newest checkpoint, or
 * the one asked for.
 */
export function openRunFolder(
  config: TrainConfig,
  resume: ResumeFrom | null = null,
  fs: WriteFs = nodeFs,
): RunFolder {
  const folder = config.run.out;
  let begun = false;
  let metricsFile: number | null = null;
  let resumedStep: number | null = resume === null ? 0 : null;

  const load: RunStore["load"] = () => {
    if (resume === null) return null;
    const file = resume.file ?? listCheckpoints(folder).at(-1)?.path ?? null;
    resumedStep = 0;
    if (file === null) return null;
    const { step, config: before, state, arrays } = readRun(file);
    checkSameConfig(before, flatten(config), file);
    resumedStep = step;
    return { step, checkpoint: { json: state, arrays }, config: before };
  };

  const begin = (): void => {
    if (begun) return;
    if (resume === null) checkFree(folder);
    if (resumedStep === null) load();
    const from = resumedStep ?? 0;
    try {
      fs.mkdirSync(resolve(folder, "checkpoints"), { recursive: true });
    } catch (error) {
      throw ioError(folder, error);
    }
    takeLock(folder, fs);
    begun = true;
    removeTemporaries(folder);
    writeJson(join(folder, "config.json"), config, fs);
    // What lies after the point that the run goes on from will be written again.
    for (const { path, step } of listCheckpoints(folder)) if (step > from) fs.rmSync(path, { force: true });
    const metrics = join(folder, "metrics.jsonl");
    try {
      if (resume !== null) truncateMetrics(metrics, from);
      metricsFile = fs.openSync(metrics, "a");
    } catch (error) {
      throw ioError(metrics, error);
    }
  };

  return {
    load,
    begin,
    appendMetrics(metrics) {
      begin();
      const path = join(folder, "metrics.jsonl");
      try {
        if (metricsFile !== null) writeAll(metricsFile, encode(`${formatJson(metrics)}\n`), fs);
      } catch (error) {
        throw ioError(path, error);
      }
    },
    saveCheckpoint(step, { json, arrays }) {
      begin();
      if (metricsFile !== null) fs.fsyncSync(metricsFile);
      writeCheckpoint(
        join(folder, "checkpoints"),
        step,
        { json: { config: formatJson(config), state: json }, arrays },
        fs,
      );
      for (const { path } of listCheckpoints(folder).slice(0, -keptCheckpoints))
        fs.rmSync(path, { force: true });
    },
    saveFile(name, contents) {
      begin();
      writeFileAtomic(join(folder, name), [typeof contents === "string" ? encode(contents) : contents], fs);
    },
    close() {
      if (!begun) return;
      if (metricsFile !== null) fs.closeSync(metricsFile);
      metricsFile = null;
      begun = false;
      fs.rmSync(join(folder, "lock"), { force: true });
    },
  };
}

/** Writes `folder`/step-N.safetensors whole or not at all. Throws `io`. */
export function writeCheckpoint(
  folder: string,
  step: number,
  checkpoint: Checkpoint,
  fs: WriteFs = nodeFs,
): string {
  const path = join(folder, `step-${String(step).padStart(8, "0")}.safetensors`);
  writeFileAtomic(path, encodeCheckpoint(step, checkpoint), fs);
  return path;
}

/** Reads one file and checks it. Throws `checkpoint` when it is broken, `io` when it cannot be read. */
export function readCheckpoint(path: string): { step: number; checkpoint: Checkpoint } {
  let file: Uint8Array;
  try {
    file = readWhole(path);
  } catch (error) {
    throw new GradmixError("io", `${path}: cannot be read (${reason(error)})`, { cause: error });
  }
  return decodeCheckpoint(file, path);
}

/** What a checkpoint of a run holds: the configuration, the state of the trainer and of the run. Throws as `readCheckpoint`. */
export function readRun(file: string): {
  step: number;
  config: TrainConfig;
  state: Checkpoint["json"];
  arrays: Checkpoint["arrays"];
} {
  const { step, checkpoint } = readCheckpointOrOffer(file);
  const { config: saved, state } = checkpoint.json;
  // As text, which keeps the order of the domains; an object in checkpoints of before.
  const config = typeof saved === "string" ? parseJson(saved, { source: file, code: "checkpoint" }) : saved;
  if (membersOf(config) === null || !isObject(state))
    throw new GradmixError("checkpoint", `${file}: was not written by a training run`);
  return { step, config: resolveConfig([jsonLayer(config, file)]), state, arrays: checkpoint.arrays };
}

/** As `readCheckpoint`, and the error for a broken one names the newest good one before it. */
function readCheckpointOrOffer(path: string): { step: number; checkpoint: Checkpoint } {
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
        : `the one of step ${good.step} is good: --resume ${good.path}`;
    throw new GradmixError("checkpoint", `${error.message}; ${offer}`, { cause: error });
  }
}

function isWhole(path: string): boolean {
  try {
    readCheckpoint(path);
    return true;
  } catch {
    return false;
  }
}

/** The checkpoints of a run, oldest first. */
export function listCheckpoints(folder: string): { step: number; path: string }[] {
  const place = join(folder, "checkpoints");
  return readFolder(place)
    .map((name) => ({
      step: Number(/^step-(\d+)\.safetensors$/.exec(name)?.[1] ?? -1),
      path: join(place, name),
    }))
    .filter(({ step }) => step >= 0)
    .sort((a, b) => a.step - b.step);
}

/** Keeps the lines of whole steps up to `step`; what follows was written by a run that did not get further. */
export function truncateMetrics(path: string, step: number): void {
  if (!nodeFs.existsSync(path)) return;
  const file = nodeFs.openSync(path, "r+");
  try {
    nodeFs.ftruncateSync(file, wholeLines(file, step));
  } finally {
    nodeFs.closeSync(file);
  }
}

/** Bytes of the lines up to the first that is not whole, or of a later step. */
function wholeLines(file: number, step: number): number {
  const chunk = Buffer.alloc(2 ** 20);
  let rest = Buffer.alloc(0);
  let keep = 0;
  for (let at = 0; ;) {
    const count = nodeFs.readSync(file, chunk, 0, chunk.length, at);
    if (count === 0) return keep;
    at += count;
    const bytes = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      if (!(stepOfLine(bytes.toString("utf8", start, end)) <= step)) return keep;
      keep += end + 1 - start;
      start = end + 1;
    }
    rest = bytes.subarray(start);
  }
}

function stepOfLine(line: string): number {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) && typeof value["step"] === "number" ? value["step"] : NaN;
  } catch {
    return NaN;
  }
}

function takeLock(folder: string, fs: WriteFs): void {
  const path = join(folder, "lock");
  for (let attempt = 0; ; attempt++) {
    try {
      const file = fs.openSync(path, "wx");
      try {
        writeAll(file, encode(`${process.pid} ${hostname()} ${startOf(process.pid)}\n`), fs);
      } finally {
        fs.closeSync(file);
      }
      return;
    } catch (error) {
      if (errorCode(error) !== "EEXIST" || attempt > 0) throw ioError(path, error);
      const [pid = "", host = "", start = ""] = nodeFs.readFileSync(path, "utf8").trim().split(" ");
      // A killed run leaves its lock behind. On another machine nobody can tell.
      if (host === hostname() && isAlive(Number(pid)) && start === startOf(Number(pid)))
        throw wrong(`${folder}: is being written by process ${pid}; wait for it, or choose another folder`);
      if (host !== hostname() && host !== "")
        throw wrong(
          `${folder}: is being written by process ${pid} on ${host}; if that has ended, delete ${path}`,
        );
      fs.rmSync(path, { force: true });
    }
  }
}

/** When a process began, in the system's own units: ids are used again, in containers at once. "" where it is not told. */
function startOf(pid: number): string {
  try {
    // The 22nd field of proc(5) stat; the second, in brackets, may hold spaces.
    const stat = nodeFs.readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}

function removeTemporaries(folder: string): void {
  for (const place of [folder, join(folder, "checkpoints"), join(folder, "model")])
    for (const name of readFolder(place))
      if (temporaryName.test(name)) nodeFs.rmSync(join(place, name), { force: true });
}

function readFolder(folder: string): string[] {
  try {
    return nodeFs.readdirSync(folder);
  } catch {
    return [];
  }
}

function writeJson(path: string, value: unknown, fs: WriteFs): void {
  writeFileAtomic(path, [encode(`${formatJson(value, 2)}\n`)], fs);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
