/** Follows a run in progress: reads what was added to its files since the last call. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "../errors.ts";
import { type MetricsPosition, readOwnWeights, scanMetrics } from "../runs/record.ts";
import { addLine, type Gathered } from "./collect.ts";
import { makePageData } from "./make-page-data.ts";
import type { PageData } from "./page-data.ts";
import { gatherFolder } from "./read.ts";

export interface Follower {
  /** Reads the current content of the page, and a version string that changes whenever the content does. Throws like `readRunRecord`. */
  look(): { readonly data: PageData; readonly version: string };
}

/** How far a run has been read. */
interface Reading {
  readonly gathered: Gathered;
  /** Time at which run.json was written: a run writes it when it starts and when it is resumed. */
  readonly begun: number;
  readonly position: MetricsPosition;
}

export function followRun(folder: string, isRunning: (folder: string) => boolean): Follower {
  let reading: Reading | null = null;
  return {
    look() {
      const running = isRunning(folder);
      reading = (reading === null ? null : readOn(folder, reading)) ?? readAnew(folder);
      const { gathered, position } = reading;
      const weights = running ? null : readOwnWeights(gathered.head);
      const data = makePageData([{ gathered, weights, running, label: null, exports: [] }], { live: true });
      // A run writes its weights after its last line, and its state is the same then.
      const state = `${data.runs[0]!.state}${weights === null ? "" : "-weights"}`;
      return { data, version: `"${position.lines}-${position.bytes}-${state}"` };
    },
  };
}

function readAnew(folder: string): Reading {
  const begun = changedAt(join(folder, "run.json"));
  return { ...gatherFolder(folder), begun };
}

/** Continues reading; null if the run went back to an earlier step or started again. */
function readOn(folder: string, { gathered, begun, position }: Reading): Reading | null {
  const size = statSync(join(folder, "metrics.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  if (size < position.bytes || changedAt(join(folder, "run.json")) !== begun) return null;
  let follows = true;
  try {
    const next = scanMetrics(folder, (line) => void (follows = follows && addLine(gathered, line)), position);
    return follows ? { gathered, begun, position: next } : null;
  } catch (error) {
    // Overwritten lines are read again from the start; lines that no run writes are refused then.
    if (error instanceof GradmixError && error.code === "data") return null;
    throw error;
  }
}

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? NaN;
}
