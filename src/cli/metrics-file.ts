/** metrics.jsonl of a run while it is written: whole lines only, also after a kill or on a full disk. */
import * as nodeFs from "node:fs";
import { GradmixError } from "../errors.ts";
import { eachLine, ioError, quietly, writeAll, type WriteFs } from "../node/files.ts";
import { isObject } from "../json.ts";
import { jsonOrUndefined } from "../schema.ts";

/** metrics.jsonl while it is written. The file contains only complete lines. */
export interface MetricsFile {
  /** Appends a line. On an error it throws `io`, keeps the line for later, and removes a partly written line if possible. */
  append(line: string): void;
  /** Flushes the file to the disk. Returns the lines that could not be written. Throws `io`. */
  sync(): readonly string[];
  close(): void;
}

/** Opens the file for appending; of an existing file, the lines up to `step` are kept. */
export function openMetrics(path: string, step: number | null, fs: WriteFs): MetricsFile {
  let file: number;
  let bytes = 0;
  try {
    if (step !== null) bytes = truncateMetrics(path, step);
    file = fs.openSync(path, "a");
  } catch (error) {
    throw ioError(path, error);
  }
  const unwritten: string[] = [];
  /** Whether a part of a line may be at the end of the file. */
  let torn = false;
  const repair = (): void => {
    if (torn) fs.ftruncateSync(file, bytes);
    torn = false;
  };
  const writeAllOf = (lines: string[]): void => {
    for (let line = lines[0]; line !== undefined; line = lines[0]) {
      const text = new TextEncoder().encode(line);
      try {
        repair();
        torn = true;
        writeAll(file, text, fs);
        torn = false;
      } catch (error) {
        // If this fails too, no line is written until it succeeds, and a resumed run removes the part.
        quietly(repair);
        throw ioError(path, error);
      }
      bytes += text.length;
      lines.shift();
    }
  };
  return {
    append(line) {
      unwritten.push(line);
      writeAllOf(unwritten);
    },
    sync() {
      // The checkpoint stores the lines that could not be written here.
      quietly(() => writeAllOf(unwritten));
      try {
        fs.fsyncSync(file);
      } catch (error) {
        throw ioError(path, error);
      }
      return unwritten;
    },
    close: () => fs.closeSync(file),
  };
}

/** Cuts metrics.jsonl after the last complete line up to `step`; later lines belong to steps that will run again. Returns the number of bytes that are left. */
export function truncateMetrics(path: string, step: number): number {
  if (!nodeFs.existsSync(path)) return 0;
  const file = nodeFs.openSync(path, "r+");
  try {
    const { bytes } = keptLines(file, step);
    nodeFs.ftruncateSync(file, bytes);
    return bytes;
  } finally {
    nodeFs.closeSync(file);
  }
}

/**
 * Throws `checkpoint` unless metrics.jsonl has the lines of all steps up to `step`, from which a run continues. Otherwise the run would have a gap that no
 * report accepts.
 */
export function checkMetrics(path: string, step: number): void {
  let last = 0;
  if (nodeFs.existsSync(path)) {
    const file = nodeFs.openSync(path, "r");
    try {
      last = keptLines(file, step).last;
    } finally {
      nodeFs.closeSync(file);
    }
  }
  if (last < step)
    throw new GradmixError(
      "checkpoint",
      `${path}: ${last === 0 ? "has no line of a step" : `its lines of steps end at step ${last}`}, but the checkpoint was made after step ${step}; put the whole file back, or train again in another folder`,
    );
}

/** The lines before the first one that is incomplete, of a later step, or does not follow: the number of their bytes, and the step of the last one. */
function keptLines(file: number, step: number): { readonly bytes: number; readonly last: number } {
  let [bytes, last] = [0, 0];
  eachLine(file, 0, (line, end) => {
    const own = stepOfLine(line);
    // Several lines may be of one step: that of the step, and those of runs that continued after it.
    if (!(own <= step) || own < last || own > last + 1) return false;
    [bytes, last] = [end, own];
    return true;
  });
  return { bytes, last };
}

/** The step that a line of metrics.jsonl is of; NaN for anything else. */
export function stepOfLine(line: string): number {
  const value = jsonOrUndefined(line);
  return isObject(value) && typeof value["step"] === "number" ? value["step"] : NaN;
}
