/** What a run writes to be looked at: its page, and event files where they are asked for. What goes wrong with them is told in a line, and never ends a run. */
import { statSync } from "node:fs";
import { join } from "node:path";
import type { ReportOptions } from "../report/index.ts";
import type { EventWriter } from "../report/tensorboard.ts";
import type { MetricsLine } from "../runs/lines.ts";
import type { TrainConfig } from "./train-config.ts";

type Tell = (line: string) => void;

export interface EventFiles {
  /** Once the folder is there, and metrics.jsonl holds the lines that a resumed run keeps. */
  begin(): void;
  add(line: MetricsLine): void;
  close(): void;
}

export async function eventFiles(
  { run: { out, tensorboard } }: TrainConfig,
  tell: Tell,
): Promise<EventFiles> {
  if (!tensorboard) return { begin() {}, add() {}, close() {} };
  const { openEvents } = await import("../report/tensorboard.ts");
  let writer: EventWriter | null = null;
  const attempt = (task: () => void): void => {
    try {
      task();
    } catch (error) {
      writer = null;
      tell(`${messageOf(error)}; the run continues without event files`);
    }
  };
  return {
    begin: () => attempt(() => (writer = openEvents(out))),
    add: (line) => attempt(() => writer?.add(line)),
    close: () => attempt(() => writer?.close()),
  };
}

/** Writes the page of runs, and gives its path; null where that failed. Default: report.html, of one run in its folder. */
export async function writePage(
  folders: readonly string[],
  tell: Tell,
  path: string = join(folders[0]!, "report.html"),
  options: ReportOptions = {},
): Promise<string | null> {
  try {
    const [{ writeReport }, { pageExports }] = await Promise.all([
      import("../report/index.ts"),
      import("./page-exports.ts"),
    ]);
    writeReport(folders, path, { exportsOf: pageExports(folders.length), ...options });
    return path;
  } catch (error) {
    tell(`${path} was not written: ${messageOf(error)}`);
    return null;
  }
}

/** Of larger metrics no table is written that nobody asked for: `gradmix report --csv` makes it. */
const TABLE_BYTES = 64 * 2 ** 20;

/** Writes metrics.csv of a run, unless it would be large. */
export async function writeTable(folder: string, tell: Tell): Promise<void> {
  try {
    if (statSync(join(folder, "metrics.jsonl")).size > TABLE_BYTES) return;
    const { writeCsv } = await import("../report/index.ts");
    writeCsv(folder);
  } catch (error) {
    tell(`${join(folder, "metrics.csv")} was not written: ${messageOf(error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
