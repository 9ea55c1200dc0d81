/** Files of a run for display: the page, the table and TensorBoard's event files. An error in them is reported in a line and does not end the run. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { quietly } from "../node/files.ts";
import type { ReportOptions } from "../report/index.ts";
import type { EventWriter } from "../report/tensorboard.ts";
import type { MetricsLine } from "../runs/lines.ts";
import type { TrainConfig } from "./train-config.ts";

type Tell = (line: string) => void;

export interface EventFiles {
  /** Call this when the folder exists and metrics.jsonl contains only the lines that a resumed run keeps. */
  begin(): void;
  add(line: MetricsLine): void;
  close(): void;
}

/** Calls `use` with the event files of a run, and closes them when it ends. */
export async function withEventFiles<R>(
  config: TrainConfig,
  tell: Tell,
  use: (events: EventFiles) => Promise<R>,
): Promise<R> {
  const events = await eventFiles(config, tell);
  try {
    return await use(events);
  } finally {
    events.close();
  }
}

async function eventFiles({ run: { out, tensorboard } }: TrainConfig, tell: Tell): Promise<EventFiles> {
  if (!tensorboard) return { begin() {}, add() {}, close() {} };
  const { openEvents } = await import("../report/tensorboard.ts");
  let writer: EventWriter | null = null;
  const attempt = (task: () => void): void => {
    try {
      task();
    } catch (error) {
      const failed = writer;
      writer = null;
      quietly(() => failed?.close());
      tell(`${messageOf(error)}; the run continues without event files`);
    }
  };
  return {
    begin: () => attempt(() => (writer = openEvents(out))),
    add: (line) => attempt(() => writer?.add(line)),
    close() {
      const whole = writer;
      // A descriptor is closed only once, even if that fails.
      writer = null;
      attempt(() => whole?.close());
    },
  };
}

/** Writes the page of the runs and returns its path, or null if that failed. By default, `path` is report.html in the folder of the first run. */
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

/** Metrics larger than this are not written as a table after a run; `gradmix report --csv` still writes it. */
const TABLE_BYTES = 64 * 2 ** 20;

/** Writes metrics.csv of a run, unless the metrics are larger than `TABLE_BYTES`. */
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
