/**
 * Finds where large files can be cut, so that their parts can be read in parallel: files of lines after a line, and plain text where its documents
 * end anyway (sources.ts). Archives and tables, whose rows may contain line ends, are one part.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { GradmixError } from "../errors.ts";
import { kindOfFile, packingOf } from "./contents.ts";
import { type FilePart, PART } from "./sources.ts";

/** The parts of a file of `size` bytes, in order, of about 16 MiB if it can be cut. Throws `data` if it cannot be read. */
export function partsOf(path: string, size: number): FilePart[] {
  const singlePart = [{ path, from: 0, to: null }];
  const isTable = /\.(parquet|csv|tsv)(\.gz|\.zst)?$/i.test(path);
  if (size <= PART || isTable || packingOf(path, kindOfFile(path)) !== null) return singlePart;
  const isLines = /\.(jsonl|ndjson)$/i.test(path);
  const file = openFile(path);
  try {
    const starts = [0];
    for (let at = 0; size - at > PART;) {
      at = isLines ? nextLine(file, at + PART - 1, size) : endOfPart(file, at);
      if (at < size) starts.push(at);
    }
    return starts.map((from, i) => ({ path, from, to: starts[i + 1] ?? null }));
  } finally {
    closeSync(file);
  }
}

/** Number of lines that end before byte `end`. */
export function linesBefore(path: string, end: number): number {
  const file = openFile(path);
  try {
    let lines = 0;
    for (let at = 0; at < end; at += BLOCK) {
      const bytes = bytesAt(file, at, Math.min(BLOCK, end - at));
      for (let i = bytes.indexOf(NEWLINE); i >= 0; i = bytes.indexOf(NEWLINE, i + 1)) lines++;
    }
    return lines;
  } finally {
    closeSync(file);
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new GradmixError("data", `${path}: it cannot be read any more`, { cause });
  }
}

const BLOCK = 1 << 16;
const NEWLINE = 10;

function bytesAt(file: number, at: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  return bytes.subarray(0, readSync(file, bytes, 0, count, at));
}

/** The first byte after the first line end at or after `at`, or the end of the file. */
function nextLine(file: number, at: number, size: number): number {
  for (let from = at; from < size; from += BLOCK) {
    const found = bytesAt(file, from, BLOCK).indexOf(NEWLINE);
    if (found >= 0) return from + found + 1;
  }
  return size;
}

/** The end of the plain-text document that starts at `start` and is not the last one, as in sources.ts. */
function endOfPart(file: number, start: number): number {
  const least = start + PART / 2;
  for (let to = start + PART; to >= least; to -= BLOCK) {
    const found = bytesAt(file, to - BLOCK, BLOCK).lastIndexOf(NEWLINE);
    const end = to - BLOCK + found + 1;
    if (found >= 0 && end >= least) return end;
  }
  const near = bytesAt(file, start + PART - 4, 5);
  let end = PART;
  while (end > PART - 4 && (near[end - PART + 4]! & 0xc0) === 0x80) end--;
  return start + end;
}
