/** Files of a run for display: an error in them does not end the run, and leaves nothing open. */
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { eventFiles } from "#dist/cli/side-files.js";
import type { StepMetrics } from "#dist/runs/lines.js";
import { makeRun } from "../report/made-runs.ts";

const root = mkdtempSync(join(tmpdir(), "gradmix-side-files-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The event files that this process has open. */
function openEventFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    try {
      const path = readlinkSync(join("/proc/self/fd", name));
      return path.includes("tfevents") ? [path] : [];
    } catch {
      // The descriptor by which the folder itself was read.
      return [];
    }
  });
}

test.runIf(process.platform === "linux")(
  "an event file that cannot be written is closed, said in one line, and the run goes on without it",
  async () => {
    const out = makeRun(join(root, "run"), { steps: 2 });
    const told: string[] = [];
    const config = { run: { out, tensorboard: true } } as TrainConfig;
    const events = await eventFiles(config, (line) => told.push(line));
    events.begin();
    expect([openEventFiles().length, told]).toEqual([1, []]);
    const line: StepMetrics = {
      ...{ step: 3, tokens: 3, loss: 1, gradNorm: 1, lr: 1, seconds: 0, domains: new Map() },
      get weights(): never {
        throw new Error("the disk is full");
      },
    };
    events.add(line);
    expect(openEventFiles()).toEqual([]);
    events.add(line);
    events.close();
    expect(told).toEqual(["the disk is full; the run continues without event files"]);
  },
);
