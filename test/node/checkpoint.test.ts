/** A trainer's checkpoint in a file: training continues to the same bits, and the file contains exactly what was saved. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
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

/** Names that objects have of their own are names of arrays and members like any other. */
const name = fc.oneof(
  fc.string({ maxLength: 6 }),
  fc.constantFrom("__proto__", "constructor", "toString", "é", "0"),
);
const array = fc.oneof(
  fc.float32Array({ maxLength: 3 }),
  fc.float64Array({ maxLength: 3 }),
  fc.int32Array({ maxLength: 3 }),
  fc.uint32Array({ maxLength: 3 }),
  fc.uint8Array({ maxLength: 3 }),
  fc.bigInt64Array({ maxLength: 3 }),
);
const entriesOf = (value: object): [string, unknown][] => Object.entries(value);

it("a file gives back what was written, whatever the names, or nothing is written", () => {
  const path = join(root, "any.safetensors");
  fc.assert(
    fc.property(
      fc.oneof(fc.jsonValue(), fc.anything({ withSparseArray: true, withMap: true, withDate: true })),
      fc.array(fc.tuple(name, array), { maxLength: 4 }),
      (value, list) => {
        const arrays = Object.fromEntries(list);
        const checkpoint = { json: { value }, arrays };
        rmSync(path, { force: true });
        try {
          writeCheckpoint(path, checkpoint);
        } catch (error) {
          expect(error).toMatchObject({ code: "checkpoint" });
          expect(String(error)).not.toContain("\n");
          expect(existsSync(path)).toBe(false);
          return;
        }
        const read = readCheckpoint(path);
        // JSON has no negative zero, and a member that is undefined counts as absent.
        expect(JSON.stringify(read.json)).toBe(JSON.stringify(checkpoint.json));
        expect(entriesOf(read.arrays)).toEqual(entriesOf(arrays));
      },
    ),
    { numRuns: 300 },
  );
});

it("a state that contains itself, or lists with holes, is refused", () => {
  const inList: unknown[] = [];
  inList.push({ inList });
  const inObject: Record<string, unknown> = {};
  inObject["self"] = [inObject];
  for (const value of [inList, inObject])
    expect(() => writeCheckpoint(join(root, "c"), { json: { value }, arrays: {} })).toThrow(
      /^checkpoint: json\.value.* is nested more than 100 deep, or contains itself/,
    );
  const value = Object.assign(new Array<number>(3), { 0: 1, 2: 3 });
  expect(() => writeCheckpoint(join(root, "c"), { json: { value }, arrays: {} })).toThrow(
    /^checkpoint: json\.value\[1\] is undefined, which is not JSON/,
  );
});
