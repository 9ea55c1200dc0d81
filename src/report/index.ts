/** Reports of runs: one HTML file that opens offline. Reads the folders of runs (runs/record.ts). */
import { writeFileAtomic } from "../node/files.ts";
import { readRunHead, readWeights, scanMetrics } from "../runs/record.ts";
import { addLine, gather } from "./collect.ts";
import { makePageData } from "./make-page-data.ts";
import type { ExportedText, PageData } from "./page-data.ts";
import { readAssets } from "./page-script.ts";
import { renderPage } from "./render.ts";
import type { RunView } from "./run-data.ts";

export interface ReportOptions {
  /** Whether a process still writes to a run's folder. Default: none does. */
  readonly isRunning?: (folder: string) => boolean;
  /** The mixture of the run in a folder as files of trainers. Default: none. */
  readonly exportsOf?: (folder: string) => readonly ExportedText[];
}

/** A run that is not whole is read as far as it is. Throws as `readRunRecord`. */
export function readRunView(folder: string, options: ReportOptions = {}): RunView {
  const gathered = gather(readRunHead(folder));
  scanMetrics(folder, (line) => void addLine(gathered, line));
  return {
    gathered,
    weights: readWeights(folder),
    running: options.isRunning?.(folder) ?? false,
    exports: options.exportsOf?.(folder) ?? [],
  };
}

/** What the page of these runs shows. Throws `data` for what is no run, for one in which nothing was measured yet, and for runs of different targets. */
export function readPageData(folders: readonly string[], options: ReportOptions = {}): PageData {
  return makePageData(folders.map((folder) => readRunView(folder, options)));
}

/** Writes the page of these runs to `file`, whole or not at all. Throws as `readPageData`, and `io`. */
export function writeReport(folders: readonly string[], file: string, options: ReportOptions = {}): void {
  const page = renderPage(readPageData(folders, options), readAssets(), { live: false });
  writeFileAtomic(file, [new TextEncoder().encode(page)]);
}
