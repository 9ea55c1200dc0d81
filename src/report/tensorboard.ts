/** Writes a run for TensorBoard and other readers of its files: the lines of metrics.jsonl as records of an event file. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { basename, join, resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { ioError, quietly, writeAll, writeFileAtomic } from "../node/files.ts";
import { makeFolders } from "../folders-node.ts";
import type { MetricsLine, StepMetrics } from "../runs/lines.ts";
import { scanMetrics } from "../runs/record.ts";
import { type Scalar, scalarsRecord, versionRecord } from "./tfevents.ts";

/** The weights that were written last; they are written again when they have changed. */
interface Written {
  weights: ReadonlyMap<string, number> | null;
}

/** The scalars of a line; `written` is updated. A loss that is not a number is left out. */
function scalarsOf(line: MetricsLine, written: Written): Scalar[] {
  if ("event" in line) return line.event === "start" ? evaluationScalars(line.evaluation) : [];
  const moved =
    written.weights === null ||
    [...line.weights].some(([name, weight]) => written.weights?.get(name) !== weight);
  if (moved) written.weights = line.weights;
  const named = (group: string, values: Iterable<readonly [string, number]>): Scalar[] =>
    Array.from(values, ([name, value]) => ({ tag: `${group}/${name}`, value }));
  return [
    { tag: "training/loss", value: line.loss },
    { tag: "training/learning_rate", value: line.lr },
    ...(line.gradNorm === null ? [] : [{ tag: "training/gradient_norm", value: line.gradNorm }]),
    { tag: "training/tokens", value: line.tokens },
    ...(moved ? named("weights", line.weights) : []),
    ...named(
      "alignments",
      Array.from(line.alignments ?? [], ([name, { value }]) => [name, value] as const),
    ),
    ...(line.evaluation === undefined ? [] : [...evaluationScalars(line.evaluation), ...epochScalars(line)]),
  ].filter(({ value }) => Number.isFinite(value));
}

function evaluationScalars({ target, domains }: NonNullable<StepMetrics["evaluation"]>): Scalar[] {
  return [
    ...(target === null ? [] : [{ tag: "held_out/target", value: target }]),
    ...Array.from(domains, ([name, value]) => ({ tag: `held_out_domains/${name}`, value })),
  ];
}

function epochScalars({ domains }: StepMetrics): Scalar[] {
  return Array.from(domains, ([name, { epochs }]) => ({ tag: `epochs/${name}`, value: epochs }));
}

/** `events.out.tfevents.<seconds>.<host>.<run>`: TensorBoard finds and orders the files by the first part, and the last one names the run's folder. */
function eventFileName(seconds: number, folder: string): string {
  const host = hostname().replaceAll(/[^\w.-]/g, "_") || "localhost";
  return `${EVENTS}${Math.floor(seconds)}.${host}${endingOf(folder)}`;
}

const EVENTS = "events.out.tfevents.";

/** The end of the names of a run's event files, a hash of the path of its folder. */
function endingOf(folder: string): string {
  return `.gradmix-${createHash("sha256").update(realpathSync(folder)).digest("hex").slice(0, 12)}`;
}

/** The lines of a run as records. metrics.jsonl stores durations, so times are counted backwards from its end. */
function recordsOf(folder: string, end: number, written: Written): { began: number; records: Uint8Array[] } {
  const steps: { readonly step: number; readonly seconds: number; readonly scalars: readonly Scalar[] }[] =
    [];
  let seconds = 0;
  scanMetrics(folder, (line) => {
    if ("seconds" in line) seconds += line.seconds;
    const scalars = scalarsOf(line, written);
    if (scalars.length > 0) steps.push({ step: line.step, seconds, scalars });
  });
  const began = end - seconds;
  const records = steps.map(({ step, seconds, scalars }) => scalarsRecord(began + seconds, step, scalars));
  return { began, records: [versionRecord(began), ...records] };
}

/** Throws `config` if `writeEvents` would write beside event files of something else, with which TensorBoard would show the run as one. */
export function checkEvents(folder: string, place: string, name: string): void {
  const own = join(place, name);
  const foreign = eventsIn(own).find((file) => !file.endsWith(endingOf(folder)));
  if (foreign !== undefined)
    throw new GradmixError(
      "config",
      `${own}: has event files of something else than ${folder} (${foreign}); choose another folder, or remove them`,
    );
}

const eventsIn = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder).filter((file) => file.startsWith(EVENTS)) : [];

/**
 * Writes the run in `folder` as an event file, into the folder `name` of `place`, and returns its path. TensorBoard shows this name. Earlier event files of
 * the run there are removed. The run is assumed to have ended when its metrics.jsonl was last changed. Throws like `scanMetrics`, and `io`.
 */
export function writeEvents(folder: string, place: string, name: string = basename(resolve(folder))): string {
  const end = statSync(join(folder, "metrics.jsonl")).mtimeMs / 1000;
  const { began, records } = recordsOf(folder, end, { weights: null });
  const own = join(place, name);
  const path = join(own, eventFileName(began, folder));
  writeFileAtomic(path, records);
  for (const file of eventsIn(own))
    if (file.endsWith(endingOf(folder)) && join(own, file) !== path) rmSync(join(own, file));
  return path;
}

/** An event file that grows during a run. */
export interface EventWriter {
  /** Appends a line. Throws `io`. */
  add(line: MetricsLine): void;
  close(): void;
}

/** Starts the event file of a run in its folder `tensorboard/`; that of a resumed run begins with the lines that it keeps. Throws `io`. */
export function openEvents(folder: string): EventWriter {
  const place = join(folder, "tensorboard");
  const written: Written = { weights: null };
  const path = join(place, eventFileName(Date.now() / 1000, folder));
  let file: number | null = null;
  try {
    makeFolders(place);
    const open = openSync(path, "w");
    file = open;
    const write = (bytes: Uint8Array): void => {
      try {
        writeAll(open, bytes);
      } catch (error) {
        throw ioError(path, error);
      }
    };
    for (const bytes of recordsOf(folder, Date.now() / 1000, written).records) write(bytes);
    // The folder belongs to the run, which may have been moved.
    for (const name of eventsIn(place)) if (join(place, name) !== path) rmSync(join(place, name));
    return {
      add(line) {
        const scalars = scalarsOf(line, written);
        if (scalars.length > 0) write(scalarsRecord(Date.now() / 1000, line.step, scalars));
      },
      close: () => closeSync(open),
    };
  } catch (error) {
    const opened = file;
    if (opened !== null) quietly(() => closeSync(opened));
    throw ioError(path, error);
  }
}
