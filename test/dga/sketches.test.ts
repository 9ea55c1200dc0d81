/** Sketches are unbiased, have the documented error, do not depend on how batches are divided, and work for several targets. */
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
  test("inner products are unbiased, and their spread is below the bound and decreases like 1/√r", async () => {
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

  test("norms are close to those of the gradients", async () => {
    const model = tiny(2, preset);
    const exact = await estimateAlignments("segmented", model, target, domains);
    const { norms } = await sketchGradients(model, domains, { sketch: { rank: 32 } });
    norms.forEach((norm, i) => expect(Math.abs(norm / (exact.norms?.[i] ?? NaN) - 1)).toBeLessThan(0.4));
  });
});

test("a sketch does not depend on the other batches of the call", async () => {
  const model = tiny(2);
  const together = await sketchGradients(model, domains);
  const rows: number[] = [];
  const counting: typeof model = Object.create(model, {
    losses: {
      value: (...batch: Parameters<typeof model.losses>) => {
        const losses = model.losses(...batch);
        rows.push(losses.shape[0]);
        return losses;
      },
    },
  });
  const pieces = await sketchGradients(counting, domains, { maxExamples: 3 });
  expect(rows).toEqual([3, 3]);
  expectNear(pieces.losses, together.losses, 1e-5);
  expectNear(pieces.norms, together.norms, 1e-4);
  expect(await sketchGradients(counting, domains)).toEqual(together);
  expect(rows).toEqual([3, 3, 6]);
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

test("a sketch is linear: that of a ragged batch is the mean over its examples, weighted by tokens", async () => {
  const model = tiny(2);
  const all = batch(4, 3);
  const counts = [time, 3, 0];
  const targets = all.targets.map((id, i) => (i % time < counts[Math.floor(i / time)] ? id : -1));
  const ragged: TokenBatch = { ...all, targets, tokens: counts };
  const rows = (from: number, to: number): TokenBatch => ({
    inputs: ragged.inputs.slice(from * time, to * time),
    targets: ragged.targets.slice(from * time, to * time),
    tokens: counts.slice(from, to),
    time,
  });
  const live = backend.liveBytes;
  const singles = await sketchGradients(model, [rows(0, 1), rows(1, 2), rows(2, 3)], {
    sketch: { rank: 4, seed: 9 },
  });
  const { rank, seed, size, values, norms, losses, tokens } = await sketchGradients(
    model,
    [rows(1, 3), ragged],
    { sketch: { rank: 4, seed: 9 }, maxExamples: 3 },
  );
  expect(backend.liveBytes).toBe(live);
  expect([rank, seed, [...tokens], [...singles.tokens]]).toEqual([4, 9, [3, time + 3], counts]);
  expect(values.length).toBe(2 * size);
  const row = (of: Float64Array, i: number): number[] => [...of.subarray(i * size, (i + 1) * size)];
  const [first, second, none] = [0, 1, 2].map((i) => row(singles.values, i));
  const mean = (a: number, b: number): number => (time * a + 3 * b) / (time + 3);
  expectNear(row(values, 0), second, 1e-5);
  expectNear(
    row(values, 1),
    first.map((a, n) => mean(a, second[n])),
    1e-5,
  );
  expectNear(losses, [singles.losses[1], mean(singles.losses[0], singles.losses[1])], 1e-5);
  [0, 1].forEach((i) => expectNear(norms[i], Math.hypot(...row(values, i)), 1e-14));
  // Without tokens there is no loss, and no gradient.
  expect([singles.losses[2], singles.norms[2], ...none].every((value) => value === 0)).toBe(true);
});

test("the defaults are 16 numbers per side and the seed 1; without batches there is no sketch", async () => {
  const model = tiny(2);
  const plain = await sketchGradients(model, domains);
  expect([plain.rank, plain.seed]).toEqual([16, 1]);
  expect(await sketchGradients(model, domains, { sketch: { rank: 16, seed: 1 } })).toEqual(plain);
  expect(await sketchGradients(model, domains, { sketch: { seed: 2 } })).not.toEqual({ ...plain, seed: 2 });
  const nothing = { values: new Float64Array(), norms: new Float64Array(), losses: new Float64Array() };
  expect(await sketchGradients(model, [])).toEqual({
    rank: 16,
    seed: 1,
    size: 0,
    parameters: plain.parameters,
    tokens: new Float64Array(),
    ...nothing,
  });
});

test("alignments of sketches are inner products with the target's first sketch", () => {
  const common = {
    ...{ rank: 4, seed: 1, size: 3, parameters: ["w[3]"] },
    ...{ losses: Float64Array.of(2, 3), tokens: Float64Array.of(5, 0) },
  };
  const first = { ...common, values: Float64Array.of(1, 2, 3, 0, -1, 0.5), norms: Float64Array.of(7, 0.5) };
  const second = { ...common, values: Float64Array.of(2, 0, -1, 9, 9, 9), norms: Float64Array.of(6, 8) };
  const found = alignSketches(first, second);
  expect(found).toEqual({
    alignments: Float64Array.of(-1, -0.5),
    standardErrors: found.standardErrors,
    norms: first.norms,
    tokens: common.tokens,
    losses: common.losses,
    targetNorm: 6,
    targetLoss: 2,
  });
  // The result is the caller's.
  for (const name of ["norms", "tokens", "losses"] as const) expect(found[name]).not.toBe(first[name]);
  const [measured, without] = found.standardErrors ?? [];
  expectNear([measured as number], [6 * 7 * Math.sqrt(1.25)], 1e-15);
  // The second has no tokens, so it was not measured.
  expect(without).toBeNull();
  for (const other of [{ rank: 8 }, { seed: 2 }, { size: 4 }]) {
    const [name, value] = Object.entries(other)[0];
    expect(errorOf(() => alignSketches(first, { ...second, ...other }))).toMatchObject({
      code: "config",
      message: `sketches: those of the domains have ${name} ${first[name as "rank"]}, but the target's has ${value}; all sketches must be made in the same way`,
    });
  }
});

test("sketches of other parameters are refused, also where these have as many numbers", async () => {
  const model = tiny(2);
  const names = model.parameters.list.map(({ name }) => name ?? "");
  const sketched = await Promise.all(
    names.map((name) => sketchGradients(model, [target], { parameters: (one) => one === name })),
  );
  let same = 0;
  for (const [i, first] of sketched.entries())
    for (const [j, second] of sketched.entries())
      if (i === j) expect(alignSketches(first, second).alignments.length).toBe(1);
      else {
        if (first.size === second.size) same++;
        expect(errorOf(() => alignSketches(first, second)).message).toMatch(
          /^sketches: those of the domains (have size|are of other parameters)/,
        );
      }
  expect(same).toBeGreaterThan(0);
  const none = await sketchGradients(model, []);
  expect(errorOf(() => alignSketches(none, none)).message).toMatch(/those of the target are of no batch/);
});

test("stored sketches can be aligned with several targets, but only with sketches of the same options", async () => {
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
  expect(() => alignSketches(restored, coarse)).toThrow(
    /those of the domains have rank 16, but the target's has 4/,
  );
  await expect(sketchGradients(model, domains, { sketch: { rank: 0.5 } })).rejects.toThrow(
    /sketch: rank: 0\.5/,
  );
});

test("sketches of some parameters are shorter, and unbiased for the alignments of these parameters", async () => {
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

test("sketches cannot be preconditioned; a run that would need it is refused before it starts", async () => {
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
