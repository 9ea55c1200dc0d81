/** A trainer's checkpoint in a file: training continues to the same bits, and the file contains exactly what was saved. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { combine, createMixer, createRule, createTrainer, type Trainer } from "gradmix/dga";
import { createSchedule } from "gradmix/nn";
import { readCheckpoint, writeCheckpoint } from "gradmix/node";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { language, tiny, windows } from "../dga/languages.ts";

const domains = [1, 2].map((seed) => windows(`language ${seed}`, [language(seed, 600)]));
const target = windows("target", [language(2, 400)]);

let root = "";
beforeEach(() => {
  setCurrentMemory(createReferenceBackend());
  root = mkdtempSync(join(tmpdir(), "gradmix-checkpoint-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function trainerOf(from: "batch" | "step", seed: number): Trainer {
  return createTrainer({
    model: tiny(seed),
    mixer: createMixer({
      domains: domains.map(({ name }) => name),
      rule: combine(createRule({ name: "dga", eta: 0.5 }), [{ name: "ema", beta: 0.5 }]),
      updateEvery: 3,
    }),
    domains,
    target,
    batch: 4,
    alignment: { from, domainExamples: 2, targetExamples: 2 },
    lossScale: { initial: 4 },
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 20 }),
    seed: 5,
  });
}

// At step 4 the next update is half gathered.
it.each(["batch", "step"] as const)(
  "with alignments from a %s, training continues to the same bits",
  async (from) => {
    const path = join(root, "run", "latest.safetensors");
    const whole = trainerOf(from, 1);
    for (let i = 0; i < 4; i++) await whole.step();
    const saved = await whole.save();
    writeCheckpoint(path, saved);
    expect(readCheckpoint(path)).toEqual(saved);

    const other = trainerOf(from, 2);
    other.restore(readCheckpoint(path));
    for (let i = 0; i < 4; i++) expect(await other.step()).toEqual(await whole.step());
    expect(await other.save()).toEqual(await whole.save());
  },
);
