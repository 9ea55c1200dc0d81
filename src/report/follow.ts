/** A run while it goes on: reads what its files have gained since the last look. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "../errors.ts";
import { type MetricsPosition, readWeights, scanMetrics } from "../runs/record.ts";
import { addLine, type Gathered } from "./collect.ts";
import { makePageData } from "./make-page-data.ts";
import type { PageData } from "./page-data.ts";
import { gatherFolder } from "./read.ts";

export interface Follower {
  /** What the page shows now, and a text that is another one whenever that is. Throws as `readRunRecord`. */
  look(): { readonly data: PageData; readonly version: string };
}

/** Where the reading of a run has got to. */
interface Reading {
  readonly gathered: Gathered;
  /** When run.json was written: a run writes it when it begins and when it is resumed. */
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
      const weights = running ? null : readWeights(folder);
      const data = makePageData([{ gathered, weights, running, label: null, exports: [] }], { live: true });
      return { data, version: `"${position.lines}-${position.bytes}-${data.runs[0]!.state}"` };
    },
  };
}

function readAnew(folder: string): Reading {
  const begun = changedAt(join(folder, "run.json"));
  return { ...gatherFolder(folder), begun };
}

/** null when the run went back to an earlier step, or began anew. */
function readOn(folder: string, { gathered, begun, position }: Reading): Reading | null {
  const size = statSync(join(folder, "metrics.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  if (size < position.bytes || changedAt(join(folder, "run.json")) !== begun) return null;
  let follows = true;
  try {
    const next = scanMetrics(folder, (line) => void (follows = follows && addLine(gathered, line)), position);
    return follows ? { gathered, begun, position: next } : null;
  } catch (error) {
    // What was written over is read anew; what no run writes is refused then.
    if (error instanceof GradmixError && error.code === "data") return null;
    throw error;
  }
}

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? NaN;
}
