/** Training as a whole: it learns a batch by heart, with the same bits every time and constant memory; a step that runs out of memory changes nothing. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { gradients, GradmixError, scope, sumSink, type Tensor } from "gradmix";
import { adamw, type AdamW, type Arena, arenaLike, createGPT, type GPT, type GPTConfig } from "gradmix/nn";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { batchOf, configs, ids, numbers, type TokenBatch } from "./models.ts";

interface Training {
  readonly model: GPT;
  readonly gradient: Arena;
  readonly optimizer: AdamW;
}

function begin(config: GPTConfig, checkpoint = false): Training {
  const model = createGPT(config, { seed: 2, checkpoint });
  return {
    model,
    gradient: arenaLike(model.parameters),
    optimizer: adamw(model.parameters, { weightDecay: 0 }),
  };
}

/** One step on the mean loss per counted token. The results belong to the caller. */
function step({ model, gradient, optimizer }: Training, batch: TokenBatch, lr: number): Tensor[] {
  return scope(() => {
    const counted = batch.targets.flat().filter((id) => id >= 0).length;
    const losses = gradients(() => model.losses({ inputs: ids(batch.tokens), targets: ids(batch.targets) }), {
      parameters: model.parameters.list,
      sink: sumSink({ gradientOf: gradient.of }),
      weights: batch.tokens.map(() => 1 / counted),
    });
    return [losses, optimizer.step(gradient.arena, lr)];
  });
}

/**
 * Every prefix is distinct, also without absolute positions: no two examples begin alike, none with a repeated token (to
 * attention with rotary positions, "a a" looks like "a").
 */
function learnable(config: GPTConfig): TokenBatch {
  const tokens = [0, 1, 2].map((b) =>
    Array.from({ length: 6 }, (_, t) => (3 * b + (b + 1) * t) % config.vocabSize),
  );
  return { tokens, targets: batchOf(config, 3, 6).targets };
}

/** Steps of which two runs must have the same bits. */
const COMPARED = 50;

describe.each(backends)("on $name", ({ create }) => {
  it.each(configs)("$preset: learns a batch by heart, with the same bits every time", async (config) => {
    const backend = await create();
    setCurrentMemory(backend);
    const batch = learnable(config);
    const counted = batch.targets.flat().filter((id) => id >= 0).length;
    const runs = [];
    // The second run recomputes its blocks; bits that differ do so from the first steps on.
    for (const checkpoint of [false, true]) {
      const training = begin(config, checkpoint);
      const curve: number[] = [];
      const live = new Set<number>();
      let parameters: number[] = [];
      for (let n = 0; n < (checkpoint ? COMPARED : 150); n++) {
        const [losses, norm] = step(training, batch, 0.02);
        curve.push((await numbers(losses)).reduce((a, b) => a + b, 0) / counted);
        losses.dispose();
        norm.dispose();
        live.add(backend.liveBytes);
        if (curve.length === COMPARED) parameters = await numbers(training.model.parameters.value);
      }
      expect(curve[0]).toBeGreaterThan(0.9 * Math.log(config.vocabSize));
      if (!checkpoint) expect(curve.at(-1)).toBeLessThan(0.03);
      expect(live.size).toBe(1);
      runs.push({ curve: curve.slice(0, COMPARED), parameters });
      for (const part of [training.model, training.gradient, training.optimizer]) part.dispose();
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(backend.liveBytes).toBe(0);
    await backend.dispose();
  });
});

interface Report {
  readonly live: readonly number[];
  readonly losses: readonly number[];
  readonly before: { readonly rss: number; readonly heapUsed: number };
  readonly after: { readonly rss: number; readonly heapUsed: number };
  readonly peaks: readonly [number, number];
}

it("200 steps take no more memory than the first ones: in the backend, the process, and JavaScript", async () => {
  // A small young generation: what V8 keeps for itself would hide what leaks.
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--expose-gc",
    "--max-semi-space-size=1",
    fileURLToPath(new URL("train-steps.mjs", import.meta.url)),
    "100",
    "200",
  ]);
  const { live, losses, before, after, peaks } = JSON.parse(stdout) as Report;
  expect(live.length).toBe(300);
  expect(new Set(live).size).toBe(1);
  expect(peaks[1]).toBe(peaks[0]);
  // A step's own memory is 1.5 MB, its smallest activation 32 KB. Two or three MiB of growth are compiled code.
  expect((after.rss - before.rss) / 2 ** 20).toBeLessThan(12);
  expect((after.heapUsed - before.heapUsed) / 2 ** 20).toBeLessThan(1);
  expect(losses.at(-1)).toBeLessThan(losses[0]);
});

describe("without enough memory", () => {
  const config: GPTConfig = { ...configs[0], dim: 64, context: 64, hiddenDim: 64, vocabSize: 300 };
  const big = batchOf(config, 64, 64);
  const small = batchOf(config, 2, 64);

  it.each([
    ...backends.slice(0, 2),
    {
      name: "cpu, 2 threads",
      create: (options: { memoryLimit?: number } = {}) => createCpuBackend({ ...options, threads: 2 }),
    },
  ])(
    "on $name a step reports the missing bytes, changes nothing, and the next step works",
    async ({ create }) => {
      const memoryLimit = 2 ** 23;
      const backend = await create({ memoryLimit });
      setCurrentMemory(backend);
      const training = begin(config);
      const { value } = training.model.parameters;
      const first = step(training, small, 1e-3);
      for (const t of first) t.dispose();
      const state = async (): Promise<unknown> =>
        Promise.all([value, training.optimizer.m.arena, training.optimizer.v.arena].map(numbers));
      const before = await state();
      const live = backend.liveBytes;

      let error: unknown;
      try {
        step(training, big, 1e-3);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(GradmixError);
      const { code, message } = error as GradmixError;
      expect(code).toBe("memory");
      expect(message).toMatch(/^\w+: .*\b\d{4,} bytes\b[^\n]*\b8388608\b[^\n]*$/);
      expect(await state()).toEqual(before);
      expect(training.optimizer.steps).toBe(1);
      expect(backend.liveBytes).toBe(live);

      const [losses] = step(training, small, 1e-3);
      expect((await numbers(losses)).every(Number.isFinite)).toBe(true);
      expect(await state()).not.toEqual(before);
      await backend.dispose();
    },
  );

  it("wherever memory runs out in a step, the parameters are unchanged or the step is complete", async () => {
    const batch = batchOf(configs[0], 2, 6);
    const states = new Set<string>();
    let failures = 0;
    // From too little for anything to enough, in steps smaller than any activation.
    for (let spare = 0; spare <= 40_000 && states.size < 2; spare += 52) {
      const probe = createReferenceBackend();
      setCurrentMemory(probe);
      begin(configs[0]);
      const backend = createReferenceBackend({ memoryLimit: probe.liveBytes + spare });
      setCurrentMemory(backend);
      let training: Training;
      try {
        training = begin(configs[0]);
      } catch {
        continue;
      }
      try {
        step(training, batch, 0.1);
      } catch (error) {
        failures++;
        expect((error as GradmixError).code).toBe("memory");
        expect(backend.liveBytes).toBe(probe.liveBytes);
      }
      states.add(JSON.stringify(await numbers(training.model.parameters.value)));
    }
    expect(failures).toBeGreaterThan(20);
    expect(states.size).toBe(2);
  });
});
