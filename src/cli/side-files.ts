/** What a run writes to be looked at: its page, and event files where they are asked for. What goes wrong with them is told in a line, and never ends a run. */
import { join } from "node:path";
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
      tell(`${messageOf(error)}; the run goes on without event files`);
    }
  };
  return {
    begin: () => attempt(() => (writer = openEvents(out))),
    add: (line) => attempt(() => writer?.add(line)),
    close: () => attempt(() => writer?.close()),
  };
}

/** Writes report.html into the folder of a run, and gives its path; null where that failed. */
export async function writePage(folder: string, tell: Tell): Promise<string | null> {
  const path = join(folder, "report.html");
  try {
    const { writeReport } = await import("../report/index.ts");
    writeReport([folder], path);
    return path;
  } catch (error) {
    tell(`there is no report of the run: ${messageOf(error)}`);
    return null;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
