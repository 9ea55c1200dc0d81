/** Sketches: unbiased, with the documented error, the same however batches are cut, and of use for several targets. */
import { type Backend, init, shutdown } from "gradmix";
import {
  alignSketches,
  createMixer,
  createTrainer,
  estimateAlignments,
  lastBlocks,
  sketchGradients,
} from "gradmix/dga";
import { adamw, createSchedule, type TokenBatch } from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { language, time, tiny, windows } from "./languages.ts";
import { expectNear } from "../near.ts";

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 2 });
});
afterEach(shutdown);

const batch = (seed: number, examples: number): TokenBatch => {
  const tokens = language(seed, examples * time + 1);
  return {
    inputs: Int32Array.from({ length: examples * time }, (_, i) => tokens[i]),
    targets: Int32Array.from({ length: examples * time }, (_, i) => tokens[i + 1]),
    tokens: new Array<number>(examples).fill(time),
    time,
  };
};
const domains = [batch(1, 3), batch(2, 1), batch(3, 2)];
const target = batch(1, 5);

describe.each(["llama", "gpt2"] as const)("%s", (preset) => {
  test("inner products are unbiased, and their spread is below the bound and falls like 1/√r", async () => {
    const model = tiny(2, preset);
    const live = backend.liveBytes;
    const exact = await estimateAlignments("segmented", model, target, domains);
    const spread: number[] = [];
    const seeds = 60;
    for (const rank of [4, 16]) {
      const errors = domains.map((): number[] => []);
      for (let seed = 1; seed <= seeds; seed++) {
        const found = await estimateAlignments("sketch", model, target, domains, { sketch: { rank, seed } });
        expectNear(found.targetLoss, exact.targetLoss, 1e-5);
        expectNear(found.losses, exact.losses, 1e-5);
        found.alignments.forEach((a, i) => errors[i].push(a - exact.alignments[i]));
      }
      const all: number[] = [];
      errors.forEach((own, i) => {
        const scale = (exact.norms?.[i] ?? NaN) * exact.targetNorm;
        const mean = own.reduce((sum, e) => sum + e, 0) / seeds;
        const deviation = Math.sqrt(own.reduce((sum, e) => sum + e * e, 0) / seeds);
        // Sixty draws: the mean within four of its own errors.
        expect(Math.abs(mean)).toBeLessThan((4 * deviation) / Math.sqrt(seeds));
        expect(deviation).toBeLessThan(Math.sqrt(4 / rank + 4 / rank ** 2) * scale);
        all.push(deviation / scale);
      });
      spread.push(Math.hypot(...all));
    }
    const [coarse, fine] = spread;
    expect(coarse / fine).toBeGreaterThan(1.4);
    expect(coarse / fine).toBeLessThan(3.5);
    expect(backend.liveBytes).toBe(live);
  });

  test("norms are near the gradients' own", async () => {
    const model = tiny(2, preset);
    const exact = await estimateAlignments("segmented", model, target, domains);
    const { norms } = await sketchGradients(model, domains, { sketch: { rank: 32 } });
    norms.forEach((norm, i) => expect(Math.abs(norm / (exact.norms?.[i] ?? NaN) - 1)).toBeLessThan(0.4));
  });
});

test("a sketch does not depend on what it is made together with", async () => {
  const model = tiny(2);
  const together = await sketchGradients(model, domains);
  const pieces = await sketchGradients(model, domains, { maxExamples: 3 });
  const even = await sketchGradients(model, [domains[0], batch(5, 3)]);
  const scale = together.norms[0];
  for (let n = 0; n < together.size; n++) {
    for (let i = 0; i < 3; i++)
      expect(
        Math.abs(pieces.values[i * together.size + n] - together.values[i * together.size + n]),
      ).toBeLessThan(1e-5 * scale);
    expect(Math.abs(even.values[n] - together.values[n])).toBeLessThan(1e-5 * scale);
  }
});

test("kept sketches are aligned with several targets; only with those made alike", async () => {
  const model = tiny(2);
  const kept = JSON.parse(JSON.stringify(await sketchGradients(model, domains))) as typeof made;
  const made = await sketchGradients(model, [target]);
  const [first, second] = [made, await sketchGradients(model, [batch(3, 4)])];
  const restored = {
    ...kept,
    values: Float64Array.from(Object.values(kept.values)),
    norms: Float64Array.from(Object.values(kept.norms)),
    losses: Float64Array.from(Object.values(kept.losses)),
    tokens: Float64Array.from(Object.values(kept.tokens)),
  };
  const direct = await estimateAlignments("sketch", model, target, domains);
  expect(alignSketches(restored, first)).toEqual(direct);
  const other = await estimateAlignments("sketch", model, batch(3, 4), domains);
  expect(alignSketches(restored, second)).toEqual(other);
  const coarse = await sketchGradients(model, [target], { sketch: { rank: 4 } });
  expect(() => alignSketches(restored, coarse)).toThrow(/those of the domains have rank 16, the target's 4/);
  await expect(sketchGradients(model, domains, { sketch: { rank: 0.5 } })).rejects.toThrow(
    /sketch: rank: 0\.5/,
  );
});

test("of some parameters only: sketches are shorter, and unbiased for the alignments of those", async () => {
  const model = tiny(2);
  const parameters = lastBlocks(model, 0);
  const exact = await estimateAlignments("segmented", model, target, domains, { parameters });
  const whole = await sketchGradients(model, domains, { sketch: { rank: 8 } });
  const part = await sketchGradients(model, domains, { parameters, sketch: { rank: 8 } });
  // The head's matrix and the final gain, which is kept as it is.
  expect(part.size).toBe(8 * 8 + 16);
  expect(part.size).toBeLessThan(whole.size);
  const seeds = 60;
  const errors = domains.map((): number[] => []);
  for (let seed = 1; seed <= seeds; seed++) {
    const options = { parameters, sketch: { rank: 8, seed } };
    const found = await estimateAlignments("sketch", model, target, domains, options);
    found.alignments.forEach((a, i) => errors[i].push(a - exact.alignments[i]));
  }
  errors.forEach((own, i) => {
    const mean = own.reduce((sum, e) => sum + e, 0) / seeds;
    const deviation = Math.sqrt(own.reduce((sum, e) => sum + e * e, 0) / seeds);
    expect(Math.abs(mean)).toBeLessThan((4 * deviation) / Math.sqrt(seeds));
    expect(deviation).toBeLessThan(Math.sqrt(4 / 8 + 4 / 64) * (exact.norms?.[i] ?? NaN) * exact.targetNorm);
  });
});

test("they cannot be preconditioned: said when asked, and before a run that would ask", async () => {
  const model = tiny(2);
  const optimizer = adamw(model.parameters);
  const precondition = { v: optimizer.v, bias: 0.1, eps: 1e-8 };
  await expect(estimateAlignments("sketch", model, target, domains, { precondition })).rejects.toThrow(
    /^estimator sketch: it cannot precondition; use segmented, perDomain or forward$/,
  );
  const run = (): void => {
    createTrainer({
      model,
      mixer: createMixer({ domains: ["a"], rule: { name: "dga", normalise: "adam" } }),
      domains: [windows("a", [language(1, 300)])],
      target: windows("target", [language(2, 100)]),
      batch: 2,
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 10 }),
      seed: 1,
      alignment: { estimator: "sketch" },
    });
  };
  expect(errorOf(run).message).toMatch(/^estimator sketch: it cannot precondition, which rule dga asks for/);
});
