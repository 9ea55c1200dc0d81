/** Writes reports of runs: one HTML file that opens offline. Reads the folders of runs (runs/record.ts). */
import { join, resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { writeFileAtomic } from "../node/files.ts";
import { readOwnWeights, readRunHead, scanMetrics } from "../runs/record.ts";
import { csvHeader, csvRows } from "./csv.ts";
import { figuresOf } from "./figures.ts";
import { makePageData } from "./make-page-data.ts";
import type { ExportedText, PageData } from "./page-data.ts";
import { readAssets } from "./page-script.ts";
import { gatherFolder } from "./read.ts";
import { renderPage } from "./render.ts";
import type { RunView } from "./run-data.ts";

export interface ReportOptions {
  /** Whether a process still writes to a run's folder. Default: never. */
  readonly isRunning?: (folder: string) => boolean;
  /** Label for the configuration of the run in a folder. Default: what distinguishes it from the others. */
  readonly labelOf?: (folder: string) => string;
  /** The mixture of the run in a folder, in the formats of trainers. Default: none. */
  readonly exportsOf?: (folder: string) => readonly ExportedText[];
}

/** Reads a run; an incomplete one is read as far as it goes. Throws like `readRunRecord`. */
function readRunView(folder: string, options: ReportOptions = {}): RunView {
  const weights = readOwnWeights(readRunHead(folder));
  return {
    gathered: gatherFolder(folder).gathered,
    weights,
    running: options.isRunning?.(folder) ?? false,
    label: options.labelOf?.(folder) ?? null,
    exports: options.exportsOf?.(folder) ?? [],
  };
}

/**
 * The contents of the page of these runs. Throws `data` for folders that are not runs, for a run without any measurements yet, and for runs with
 * different targets.
 */
export function readPageData(folders: readonly string[], options: ReportOptions = {}): PageData {
  const paths = folders.map((folder) => resolve(folder));
  const duplicate = folders.find((_, i) => paths.indexOf(paths[i]!) < i);
  if (duplicate !== undefined)
    throw new GradmixError("data", `${duplicate}: is listed twice; list each run once`);
  return makePageData(folders.map((folder) => readRunView(folder, options)));
}

/** Writes the page of these runs to `file` atomically. Throws like `readPageData`, and `io`. */
export function writeReport(folders: readonly string[], file: string, options: ReportOptions = {}): PageData {
  const data = readPageData(folders, options);
  writeText(file, renderPage(data, readAssets(), { live: false }));
  return data;
}

/** Writes metrics.csv beside the metrics.jsonl of a run and returns its path. Throws like `readRunRecord`, and `io`. */
export function writeCsv(folder: string): string {
  const withBases = readRunHead(folder).facts.bases !== null;
  const parts = [csvHeader];
  scanMetrics(folder, (line) => void parts.push(csvRows(line, withBases)));
  const path = join(folder, "metrics.csv");
  const encoder = new TextEncoder();
  writeFileAtomic(
    path,
    parts.map((part) => encoder.encode(part)),
  );
  return path;
}

/** Writes the figures of a page as SVG files into a folder and returns their paths. Throws `io`. */
export function writeFigures(data: PageData, folder: string): string[] {
  return Array.from(figuresOf(data), ([name, text]) => {
    const path = join(folder, name);
    writeText(path, text);
    return path;
  });
}

function writeText(path: string, text: string): void {
  writeFileAtomic(path, [new TextEncoder().encode(text)]);
}
