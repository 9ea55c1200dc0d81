/** metrics.jsonl of a run while it is written: whole lines only, also after a kill or on a full disk. */
import * as nodeFs from "node:fs";
import { ioError, quietly, writeAll, type WriteFs } from "../node/files.ts";
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
    const kept = wholeLines(file, step);
    nodeFs.ftruncateSync(file, kept);
    return kept;
  } finally {
    nodeFs.closeSync(file);
  }
}

/** Number of bytes before the first line that is incomplete or of a later step. */
function wholeLines(file: number, step: number): number {
  const chunk = Buffer.alloc(2 ** 20);
  let rest = Buffer.alloc(0);
  let kept = 0;
  for (let at = 0; ;) {
    const count = nodeFs.readSync(file, chunk, 0, chunk.length, at);
    if (count === 0) return kept;
    at += count;
    const bytes = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      if (!(stepOfLine(bytes.toString("utf8", start, end)) <= step)) return kept;
      kept += end + 1 - start;
      start = end + 1;
    }
    rest = bytes.subarray(start);
  }
}

function stepOfLine(line: string): number {
  const value = jsonOrUndefined(line);
  return isObject(value) && typeof value["step"] === "number" ? value["step"] : NaN;
}
