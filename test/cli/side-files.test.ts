/** Files of a run for display: an error in them does not end the run, and leaves nothing open. */
import { appendFileSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { withEventFiles } from "#dist/cli/side-files.js";
import { openEvents } from "#dist/report/tensorboard.js";
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
    const line: StepMetrics = {
      ...{ step: 3, tokens: 3, loss: 1, gradNorm: 1, lr: 1, seconds: 0, domains: new Map() },
      get weights(): never {
        throw new Error("the disk is full");
      },
    };
    await withEventFiles(
      config,
      (text) => told.push(text),
      async (events) => {
        events.begin();
        expect([openEventFiles().length, told]).toEqual([1, []]);
        events.add(line);
        expect(openEventFiles()).toEqual([]);
        events.add(line);
      },
    );
    expect(told).toEqual(["the disk is full; the run continues without event files"]);
  },
);

test.runIf(process.platform === "linux")(
  "the event file is closed however the run ends, also if its first lines cannot be read",
  async () => {
    const out = makeRun(join(root, "ended"), { steps: 2 });
    const config = { run: { out, tensorboard: true } } as TrainConfig;
    const failed = withEventFiles(
      config,
      () => {},
      async (events) => {
        events.begin();
        expect(openEventFiles().length).toBe(1);
        throw new Error("the loss is not a number");
      },
    );
    await expect(failed).rejects.toThrow("the loss is not a number");
    expect(openEventFiles()).toEqual([]);

    appendFileSync(join(out, "metrics.jsonl"), "no JSON\n");
    expect(() => openEvents(out)).toThrow(/metrics\.jsonl/);
    expect(openEventFiles()).toEqual([]);
  },
);
