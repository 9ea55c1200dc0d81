/** Results in files: NAME.jsonl has one line per finished cell, in the order in which they finished. */
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "gradmix";
import { type Cell, keyOf, type Result } from "./cell.ts";

export interface Line {
  readonly key: string;
  /** The hash of the corpora. */
  readonly text: string;
  readonly cell: Cell;
  readonly result: Result;
}

/** Returns the result of a cell; undefined if there is none. */
export type Lookup = (cell: Cell) => Result | undefined;

/**
 * Returns the lines of a file, and how many bytes they take. It ignores an incomplete last line, which a stopped command can leave. Throws `data`, with file
 * and line, for any other line that is not a result.
 */
export function readLines(file: string): { lines: Line[]; bytes: number } {
  const all = readFileSync(file);
  const bytes = all.lastIndexOf("\n") + 1;
  const rows = all.subarray(0, bytes).toString("utf8").split("\n").slice(0, -1);
  return {
    bytes,
    lines: rows.map((row, i) => {
      try {
        const line = JSON.parse(row) as Line;
        if (line.key === keyOf(line.cell)) return line;
      } catch {
        // The error below covers this case too.
      }
      throw new GradmixError(
        "data",
        `${file}, line ${i + 1}: this is not a result of an experiment; remove the line`,
      );
    }),
  };
}

/** Returns the lines of all files of a folder, because several experiments may share a cell. */
export function readResults(folder: string): Line[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith(".jsonl"))
    .sort()
    .flatMap((file) => readLines(join(folder, file)).lines);
}

export function lookupIn(lines: readonly Line[]): Lookup {
  const found = new Map(lines.map(({ key, result }) => [key, result]));
  return (cell) => found.get(keyOf(cell));
}

export interface Store {
  readonly lookup: Lookup;
  add(cell: Cell, result: Result): void;
}

/** Opens the results of a folder; new ones go to NAME.jsonl. Throws `data` if some results are from other text. */
export function openStore(folder: string, name: string, text: string): Store {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.jsonl`);
  if (existsSync(file)) truncateSync(file, readLines(file).bytes);
  const lines = readResults(folder);
  if (lines.some((line) => line.text !== text))
    throw new GradmixError(
      "data",
      `${folder}: its results are from other text than these corpora; give the same files with --corpora, or another folder with --out`,
    );
  const found = new Map(lines.map(({ key, result }) => [key, result]));
  return {
    lookup: (cell) => found.get(keyOf(cell)),
    add(cell, result) {
      const key = keyOf(cell);
      found.set(key, result);
      appendFileSync(file, `${JSON.stringify({ key, text, cell, result })}\n`);
    },
  };
}
