/** Results in files: NAME.jsonl has a line a finished cell, in the order in which they finished. */
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

/** The result of a cell, where there is one. */
export type Lookup = (cell: Cell) => Result | undefined;

/**
 * The lines of a file, and how many bytes they take. A last line that is not whole is what a stopped command leaves, and does not count. Throws `data`, with file
 * and line, for others that are no lines of results.
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
        // Said below.
      }
      throw new GradmixError("data", `${file}, line ${i + 1}: it is no result; take the line out`);
    }),
  };
}

/** All lines of a folder: one cell may serve several experiments. */
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

/** Results of a folder, of which new ones go to NAME.jsonl. Throws `data` when some are of other text. */
export function openStore(folder: string, name: string, text: string): Store {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.jsonl`);
  if (existsSync(file)) truncateSync(file, readLines(file).bytes);
  const lines = readResults(folder);
  if (lines.some((line) => line.text !== text))
    throw new GradmixError(
      "data",
      `${folder}: its results are of other text than these corpora; give --corpora with the same files, or --out with another folder`,
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
