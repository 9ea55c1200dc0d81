/** A run while it goes on: reads what its files have gained since the last look. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { type MetricsPosition, readRunHead, readWeights, scanMetrics } from "../runs/record.ts";
import { addLine, gather, type Gathered } from "./collect.ts";
import { makePageData } from "./make-page-data.ts";
import type { PageData } from "./page-data.ts";

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
      const data = makePageData([{ gathered, weights, running, exports: [] }], { live: true });
      return { data, version: `"${position.lines}-${position.bytes}-${data.runs[0].state}"` };
    },
  };
}

function readAnew(folder: string): Reading {
  const begun = changedAt(join(folder, "run.json"));
  const gathered = gather(readRunHead(folder));
  const position = scanMetrics(folder, (line) => void addLine(gathered, line));
  return { gathered, begun, position };
}

/** null when the run went back to an earlier step, or began anew. */
function readOn(folder: string, { gathered, begun, position }: Reading): Reading | null {
  const size = statSync(join(folder, "metrics.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  if (size < position.bytes || changedAt(join(folder, "run.json")) !== begun) return null;
  let follows = true;
  const next = scanMetrics(folder, (line) => void (follows = follows && addLine(gathered, line)), position);
  return follows ? { gathered, begun, position: next } : null;
}

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? NaN;
}
