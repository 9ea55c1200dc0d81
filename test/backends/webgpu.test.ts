/** The WebGPU backend beyond its kernels: training, leaks, limits, large grids, and the end of the process. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { add, type Backend, GradmixError, init, ones, scope, shutdown, tensor } from "gradmix";
import { createMixer, createTrainer, type LossScaleOptions, type TrainStep } from "gradmix/dga";
import { createGPT, createSchedule } from "gradmix/nn";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, test } from "vitest";
import type { KernelName } from "#dist/backends/kernels/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { createNodeDevice, createNullDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend, type WebgpuBackend, type WebgpuOptions } from "#dist/backends/webgpu/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { sharedDevice } from "./device.ts";
import { type Case, difference, f, i, integers, out, runCase, sumScale, values } from "./harness.ts";
import { language, time, vocabSize, windows } from "../dga/languages.ts";

const off = process.env["GRADMIX_WEBGPU"] === "off";
const open: Backend[] = [];
const start = async (options: Partial<WebgpuOptions> = {}): Promise<WebgpuBackend> => {
  const { device, adapter, software } = await sharedDevice();
  const backend = createWebgpuBackend({ device, adapter, software, ...options });
  open.push(backend);
  return backend;
};
afterEach(async () => {
  setCurrentMemory(null);
  for (const backend of open.splice(0)) await backend.dispose();
});

test("an adapter runs, or the reason why none runs is given", async ({ skip }) => {
  if (off) skip(process.env["GRADMIX_WEBGPU_REASON"] ?? "no reason was given");
  const { adapter, software } = await createNodeDevice({ software: true });
  console.log(`webgpu adapter: ${adapter}${software ? " (software)" : ""}`);
  expect(adapter).not.toBe("");
});

/** Memory of this process after a garbage collection. */
function residentBytes(): number {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect === "function") collect();
  return process.memoryUsage.rss();
}

/** A short run of DGA; the aligned step too. */
async function train(
  preset: "llama" | "gpt2",
  from: "batch" | "step",
  steps: number,
  lossScale: LossScaleOptions | null = null,
): Promise<TrainStep[]> {
  const names = ["a", "b"];
  const trainer = createTrainer({
    model: createGPT({ preset, vocabSize, dim: 16, layers: 1, heads: 2, context: time }, { seed: 1 }),
    mixer: createMixer({ domains: names, rule: { name: "dga" }, updateEvery: 4 }),
    domains: names.map((name, i) => windows(name, [language(i + 1, 400)])),
    target: windows("target", [language(1, 200)]),
    batch: 4,
    alignment: { from, domainExamples: 2, targetExamples: 4 },
    schedule: createSchedule({ name: "constant", lr: 0.01, steps }),
    lossScale,
    seed: 3,
  });
  const out: TrainStep[] = [];
  for (let i = 0; i < steps; i++) out.push(await trainer.step());
  trainer.dispose();
  trainer.model.parameters.dispose();
  return out;
}

/** Losses within `tolerance`, norms and alignments (as cosines) within ten times that. */
function expectAlike(found: readonly TrainStep[], wanted: readonly TrainStep[], tolerance: number): void {
  found.forEach((step, i) => {
    expect(Math.abs(step.loss / wanted[i].loss - 1)).toBeLessThan(tolerance);
    expect(Math.abs(step.gradNorm / wanted[i].gradNorm - 1)).toBeLessThan(10 * tolerance);
    step.alignments?.alignments.forEach((a, d) => {
      const scale = (wanted[i].alignments?.norms?.[d] ?? 0) * (wanted[i].alignments?.targetNorm ?? 0);
      expect(Math.abs(a - (wanted[i].alignments?.alignments[d] ?? NaN))).toBeLessThan(10 * tolerance * scale);
    });
  });
}

describe.skipIf(off)("webgpu", () => {
  test.each([
    ["llama", "batch"],
    ["gpt2", "step"],
  ] as const)(
    "trains like the CPU backend, and twice to the same bits (%s, alignments from a %s)",
    async (preset, from) => {
      await init({ backend: "cpu", threads: 1 });
      const wanted = await train(preset, from, 12);
      await shutdown();
      setCurrentMemory(await start());
      const found = await train(preset, from, 12);
      const again = await train(preset, from, 12);
      expect(again).toEqual(found);
      expectAlike(found, wanted, 1e-3);
    },
  );

  // Compiling their shaders for a CPU takes most of the time.
  test.each([
    ["f32", {}, 1e-3],
    ["f16, emulated tensor cores", { precision: "f16", tensorCores: { subgroup: 32, emulated: true } }, 1e-2],
  ] as const)(
    "with the variants for GPUs, it trains like the CPU backend (%s)",
    async (_, options, tolerance) => {
      await init({ backend: "cpu", threads: 1 });
      const wanted = await train("gpt2", "step", 4, {});
      await shutdown();
      setCurrentMemory(await start({ ...options, software: false }));
      const found = await train("gpt2", "step", 4, {});
      expect(found.some(({ alignments }) => alignments !== null)).toBe(true);
      expectAlike(found, wanted, tolerance);
    },
  );

  test.each([
    ["llama", "batch"],
    ["gpt2", "step"],
  ] as const)("a loss scale changes nothing in f32 (%s, from a %s)", async (preset, from) => {
    setCurrentMemory(await start());
    const wanted = await train(preset, from, 6);
    const found = await train(preset, from, 6, {});
    expect(found.every(({ lossScale, skipped }) => lossScale === 2 ** 16 && !skipped)).toBe(true);
    expect(found.map((step) => ({ ...step, lossScale: null }))).toEqual(wanted);
    // f32 overflows with it: steps are skipped until it does not.
    const overflowed = await train(preset, from, 70, { initial: 2 ** 120, max: 2 ** 120 });
    expect(overflowed[0].skipped).toBe(true);
    expect(overflowed[69].skipped).toBe(false);
  });

  test("in mixed precision with a loss scale, it trains like in f32", async () => {
    const run = async (precision: "f32" | "f16"): Promise<TrainStep[]> => {
      setCurrentMemory(await start({ precision }));
      return train("llama", "batch", 40, precision === "f16" ? {} : null);
    };
    const [exact, mixed] = [await run("f32"), await run("f16")];
    expect(mixed.map((step) => step.loss)).not.toEqual(exact.map((step) => step.loss));
    mixed.forEach((step, i) => {
      expect(step.skipped).toBe(false);
      expect(Math.abs(step.loss / exact[i].loss - 1)).toBeLessThan(0.01);
      step.alignments?.alignments.forEach((a, d) => {
        const scale = (exact[i].alignments?.norms?.[d] ?? 0) * (exact[i].alignments?.targetNorm ?? 0);
        expect(Math.abs(a - (exact[i].alignments?.alignments[d] ?? NaN))).toBeLessThan(0.05 * scale);
      });
    });
    // They have learnt something.
    expect(mixed[39].loss).toBeLessThan(0.8 * mixed[0].loss);
  });

  test("a training that has started creates no more buffers or bind groups, and no memory leaks", async () => {
    const backend = await start();
    setCurrentMemory(backend);
    const names = ["a", "b"];
    const trainer = createTrainer({
      model: createGPT({ vocabSize, dim: 16, layers: 1, heads: 2, context: time }, { seed: 1 }),
      mixer: createMixer({ domains: names, rule: { name: "dga" }, updateEvery: 4 }),
      domains: names.map((name, i) => windows(name, [language(i + 1, 400)])),
      target: windows("target", [language(1, 200)]),
      batch: 4,
      alignment: { domainExamples: 2, targetExamples: 4 },
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 200 }),
      seed: 3,
    });
    const live: number[] = [];
    let early = backend.counters;
    let resident = 0;
    for (let i = 0; i < 200; i++) {
      await trainer.step();
      live.push(backend.liveBytes);
      if (i === 40) early = backend.counters;
      if (i === 100) resident = residentBytes();
    }
    // Allocators keep some freed memory; one leaked buffer per dispatch would be hundreds of megabytes.
    expect(residentBytes() - resident).toBeLessThan(40e6);
    expect(new Set(live.slice(1)).size).toBe(1);
    const { dispatches, buffers, bindGroups, pipelines, poolBytes } = backend.counters;
    expect(dispatches).toBeGreaterThan(early.dispatches);
    expect({ buffers, bindGroups, pipelines, poolBytes }).toEqual({
      buffers: early.buffers,
      bindGroups: early.bindGroups,
      pipelines: early.pipelines,
      poolBytes: early.poolBytes,
    });
    trainer.dispose();
    trainer.model.parameters.dispose();
    expect(backend.liveBytes).toBe(0);
  });

  test("with almost no pool: free buffers that an open encoder still uses are not destroyed", async () => {
    setCurrentMemory(await start());
    const wanted = await train("llama", "batch", 6);
    setCurrentMemory(await start({ poolFloor: 0 }));
    expect(await train("llama", "batch", 6)).toEqual(wanted);
    const backend = await start({ poolFloor: 0 });
    const count = 2 ** 16;
    for (let round = 0; round < 4; round++) {
      const views = [0, 1, 2, 3].map(() => ({
        buffer: backend.alloc(count * (round + 1), "f32"),
        ...{ offset: 0, shape: [count * (round + 1)], dtype: "f32" as const },
      }));
      for (const view of views) backend.run("fill", { value: round }, {}, { out: view });
      for (const { buffer } of views) backend.free(buffer);
    }
    const last = backend.alloc(4, "f32");
    backend.write(last, 0, [1, 2, 3, 4]);
    expect([...(await backend.read(last, 0, 4))]).toEqual([1, 2, 3, 4]);
    // As much as was live at one time, and the last.
    expect(backend.counters.poolBytes).toBeLessThanOrEqual(2 ** 22 + 256);
  });

  test("sequences of many lengths share shaders and tables", async () => {
    const backend = await start();
    setCurrentMemory(backend);
    const model = createGPT({ vocabSize, dim: 16, layers: 1, heads: 2, context: 64 }, { seed: 1 });
    const made: number[] = [];
    for (const length of [17, 23, 32, 29]) {
      const ids = tensor(
        Int32Array.from({ length }, (_, i) => i % vocabSize),
        [1, length],
        "i32",
      );
      await scope(() => model.logits(ids)).data();
      made.push(backend.counters.pipelines);
      ids.dispose();
    }
    expect(new Set(made).size).toBe(1);
    model.dispose();
  });

  test("if timing the variants runs out of memory, the caller is not affected", async () => {
    // Dawn's null device, which has 512 MiB: 384 are in use, and a product's operands do not fit a second time.
    const backend = createWebgpuBackend({
      device: await createNullDevice(),
      tuning: {
        known: {},
        learn: () => {
          throw new Error("there is no room to time it");
        },
      },
    });
    open.push(backend);
    const size = 4096;
    const place = () => ({
      buffer: backend.alloc(size * size, "f32"),
      ...{ offset: 0, shape: [size, size], dtype: "f32" as const },
    });
    const [a, b, c, d, e, g] = [place(), place(), place(), place(), place(), place()];
    const params = {
      ...{ m: size, n: size, k: size, transA: false, transB: false, batch: 1 },
      ...{ strideA: 0, strideB: 0, strideC: 0, alpha: 1, accumulate: false, activation: "none" as const },
    };
    const made: unknown[] = [];
    for (let step = 0; step < 4; step++) {
      backend.run("gemm", params, { a, b }, { c });
      const reading = backend.read(c.buffer, 0, 1);
      await new Promise((resume) => setTimeout(resume, 1));
      // Enqueued while the variants are timed.
      for (const view of [d, e, g]) backend.run("fill", { value: step }, {}, { out: view });
      await reading;
      await backend.read(d.buffer, 0, 1);
      const { buffers, bindGroups } = backend.counters;
      made.push({ buffers, bindGroups });
    }
    expect(made[3]).toEqual(made[1]);
    expect(backend.chosen.size).toBe(0);
  });

  test("a buffer that outlives its backend can be freed; other calls say that the backend was disposed", async () => {
    const backend = await start();
    const buffer = backend.alloc(4, "f32");
    await backend.dispose();
    expect(() => backend.free(buffer)).not.toThrow();
    await expect(backend.read(buffer, 0, 4)).rejects.toThrow("webgpu: the backend was disposed");
    expect(() => backend.alloc(4, "f32")).toThrow("webgpu: the backend was disposed");
  });

  test("a request that is too large is refused with the sizes, and the device continues", async () => {
    const backend = await start({ memoryLimit: 1 << 20 });
    const message = (elements: number): string => {
      try {
        backend.alloc(elements, "f32");
      } catch (error) {
        if (error instanceof GradmixError && error.code === "memory") return error.message;
        throw error;
      }
      return "";
    };
    expect(message(2 ** 34)).toMatch(
      /a tensor of 68719476736 bytes was asked for; this device binds at most \d+/,
    );
    expect(message(2 ** 19)).toMatch(/2097152 bytes were requested while 0 are live; the limit is 1048576/);
    const buffer = backend.alloc(3, "f32");
    backend.write(buffer, 0, [1, 2, 3]);
    expect([...(await backend.read(buffer, 0, 3))]).toEqual([1, 2, 3]);
  });

  test("a request for which the device has no memory is refused with the sizes, and the device continues", async () => {
    // Dawn's null device, which has 512 MiB.
    const backend = createWebgpuBackend({ device: await createNullDevice() });
    const count = 2 ** 24;
    const filled = () => {
      const view = { buffer: backend.alloc(count, "f32"), offset: 0, shape: [count], dtype: "f32" as const };
      backend.run("fill", { value: 1 }, {}, { out: view });
      return view.buffer;
    };
    const message = /^webgpu: the device refused 67108864 bytes while 469762048 are live; lower the batch$/;
    for (const how of ["read", "flush"]) {
      const buffers = Array.from({ length: 10 }, filled);
      if (how === "read") await expect(backend.read(buffers[9] ?? -1, 0, 1)).rejects.toThrow(message);
      else {
        backend.flush();
        await new Promise((resume) => setTimeout(resume, 50));
        expect(filled).toThrow(message);
      }
      for (const buffer of buffers) backend.free(buffer);
      expect(backend.liveBytes).toBe(0);
      const again = Array.from({ length: 6 }, filled);
      await backend.read(again[5] ?? -1, 0, 1);
      for (const buffer of again) backend.free(buffer);
    }
    // Commands that are encoded but not submitted must not reach the device later.
    const buffers = Array.from({ length: 10 }, filled);
    await new Promise((resume) => setTimeout(resume, 50));
    expect(filled).toThrow(message);
    for (const buffer of buffers) backend.free(buffer);
    const last = filled();
    await backend.read(last, 0, 1);
    await backend.dispose();
  });

  test("more workgroups than fit in one dimension", async () => {
    const backend = await start();
    const count = 65_535 * 64 + 1000;
    const buffer = backend.alloc(count, "f32");
    const view = { buffer, offset: 0, shape: [count], dtype: "f32" as const };
    backend.run("fill", { value: 7 }, {}, { out: view });
    backend.run("affine", { scale: 2, shift: 1 }, { x: view }, { y: view });
    for (const at of [0, 65_535 * 64 - 1, 65_535 * 64, count - 1])
      expect([...(await backend.read(buffer, at, 1))]).toEqual([15]);
  });

  describe("large shapes, against the reference", () => {
    const oracle = createReferenceBackend({ precision: "f64" });
    const cases: { [K in KernelName]?: [string, Case<K>][] } = {
      crossEntropy: [
        [
          "a vocabulary of 50,304",
          {
            name: "large",
            params: { rows: 3, cols: 50_304 },
            inputs: { logits: f(values(3 * 50_304, 1, -4, 4)), targets: i([7, 50_303, -1]) },
            outputs: { losses: out(3), lse: out(3) },
          },
        ],
      ],
      scatterAdd: [
        [
          "a table of 50,304 rows",
          {
            name: "large",
            params: { rows: 300, width: 8, tableRows: 50_304, accumulate: false },
            inputs: { x: f(values(2400, 2)), ids: i(integers(300, 3, 0, 40)) },
            outputs: { out: out(50_304 * 8) },
          },
        ],
      ],
      attention: [
        [
          "a context of 2,048",
          {
            name: "large",
            params: { batch: 1, time: 2048, heads: 1, kvHeads: 1, headDim: 8, scale: 0.35 },
            inputs: { qkv: f(values(2048 * 24, 4)) },
            outputs: { o: out(2048 * 8), lse: out(2048) },
            scale: 4,
          },
        ],
      ],
      gemmSegmented: [
        [
          "1,024 segments",
          {
            name: "large",
            params: {
              ...{ rows: 2048, m: 9, n: 13, segmentCount: 1024, groupCount: 32 },
              ...{ targetSegments: 0, firstAccumulated: 0, accumulate: false },
            },
            inputs: {
              a: f(values(2048 * 9, 5)),
              b: f(values(2048 * 13, 6)),
              segments: i(Array.from({ length: 1025 }, (_, s) => 2 * s)),
              groups: i(Array.from({ length: 33 }, (_, g) => 32 * g)),
              v: f(values(9 * 13, 7)),
            },
            outputs: {
              total: out(9 * 13),
              dots: out(1024),
              sumsq: out(1024),
              groupSumsq: out(32),
              vSumsq: out(1),
            },
            scale: sumScale(2048),
          },
        ],
      ],
    };
    const list = Object.entries(cases).flatMap(([kernel, own]) =>
      own.map(([name, one]) => [kernel as KernelName, name, one as Case<KernelName>] as const),
    );
    test.each([true, false])("both variants (software %s)", async (software) => {
      const { device } = await createNodeDevice({ software: true });
      const backend = createWebgpuBackend({ device, software });
      open.push(backend);
      for (const [kernel, name, one] of list) {
        const wanted = await runCase(oracle, kernel, one, 0);
        expect({
          name,
          problem: difference(kernel, one, await runCase(backend, kernel, one, 0), wanted),
        }).toEqual({
          name,
          problem: null,
        });
      }
    });
  });

  test("a kernel that does not compile fails its own call; all other calls work", async () => {
    const backend = await start();
    const place = (data: number[]) => {
      const buffer = backend.alloc(data.length, "f32");
      backend.write(buffer, 0, data);
      return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
    };
    const [x, y, z] = [place([1, 2, 3]), place([7, 7, 7]), place([8, 8, 8])];
    const broken = (): void =>
      // The table would refuse this activation.
      backend.run(
        "gemm",
        {
          ...{ m: 3, n: 1, k: 1, transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0 },
          ...{ alpha: 1, accumulate: false, activation: "tanh" as "gelu" },
        },
        { a: x, b: z },
        { c: y },
      );
    backend.run("affine", { scale: 2, shift: 0 }, { x }, { y: z });
    broken();
    backend.run("affine", { scale: 1, shift: 1 }, { x: z }, { y: z });
    await expect(backend.read(z.buffer, 0, 3)).rejects.toThrow(
      /^webgpu: the kernel "gemm .*tanh.*" does not compile: /,
    );
    // The dispatches before and after it in the same submit have run, and its outputs are unchanged.
    expect([...(await backend.read(z.buffer, 0, 3))]).toEqual([3, 5, 7]);
    expect([...(await backend.read(y.buffer, 0, 3))]).toEqual([7, 7, 7]);
    expect(broken).toThrow(/"gemm .*tanh.*" does not compile/);
    backend.run("affine", { scale: 3, shift: 0 }, { x }, { y });
    expect([...(await backend.read(y.buffer, 0, 3))]).toEqual([3, 6, 9]);
  });

  test("after the device is lost, every call fails and says so", async () => {
    const { device } = await createNodeDevice({ software: true });
    const backend = createWebgpuBackend({ device, software: true });
    const buffer = backend.alloc(4, "f32");
    backend.write(buffer, 0, [1, 2, 3, 4]);
    await backend.read(buffer, 0, 4);
    (device as { destroy(): void }).destroy();
    await new Promise((next) => setTimeout(next, 50));
    await expect(backend.read(buffer, 0, 4)).rejects.toThrow(/webgpu: the device was lost/);
    expect(() => backend.alloc(4, "f32")).toThrow(/webgpu: the device was lost/);
    await backend.dispose();
  });

  test("a write waits for the work that was enqueued before it", async () => {
    const backend = await start();
    const [a, b] = [0, 1].map((): number => backend.alloc(4, "f32"));
    const view = (buffer: number) => ({ buffer, offset: 0, shape: [4], dtype: "f32" as const });
    backend.write(a, 0, [1, 2, 3, 4]);
    backend.run("affine", { scale: 10, shift: 0 }, { x: view(a) }, { y: view(b) });
    backend.write(a, 0, [9, 9, 9, 9]);
    expect([...(await backend.read(b, 0, 4))]).toEqual([10, 20, 30, 40]);
    expect([...(await backend.read(a, 1, 2))]).toEqual([9, 9]);
  });

  test("the command trains on WebGPU with the same options", () => {
    const folder = mkdtempSync(join(tmpdir(), "gradmix-webgpu-"));
    try {
      const text = (words: string): string =>
        Array.from({ length: 60 }, (_, n) => `${words} ${n}.`).join(" ");
      writeFileSync(join(folder, "a.txt"), text("the dog sleeps while the fox jumps"));
      writeFileSync(join(folder, "b.txt"), text("for (let i = 0; i < n; i++) sum += x[i]"));
      writeFileSync(join(folder, "target.txt"), text("while (j < n) total += x[j++]"));
      const runs = ["cpu", "webgpu", "webgpu --precision f16 --deterministic"];
      const losses = runs.map((backend) => {
        const args =
          "train --domain a=a.txt --domain b=b.txt --target target.txt --tokenizer byte --dim 16 --layers 1 --heads 2 --context 16 --batch 4 --steps 8 --update-every 4 --align-domain-examples 2 --align-target-examples 2 --eval-every 0 --eval-tokens 64";
        const { status, stderr } = spawnSync(
          process.execPath,
          [
            resolve(import.meta.dirname, "../../dist/cli/main.js"),
            ...args.split(" "),
            "--backend",
            ...backend.split(" "),
            "--out",
            backend,
          ],
          { cwd: folder, encoding: "utf8", timeout: 60_000 },
        );
        expect({ backend, status, stderr: status === 0 ? "" : stderr }).toEqual({
          backend,
          status: 0,
          stderr: "",
        });
        return readFileSync(join(folder, backend, "metrics.jsonl"), "utf8")
          .trim()
          .split("\n")
          .map((line) => {
            const { loss, lossScale } = JSON.parse(line) as { loss: number; lossScale?: number };
            expect(lossScale).toBe(backend.includes("f16") ? 2 ** 16 : undefined);
            return loss;
          });
      });
      losses.slice(1).forEach((found, run) => {
        expect(found.length).toBe(8);
        found.forEach((loss, n) => expect(Math.abs(loss / losses[0][n] - 1)).toBeLessThan([1e-3, 1e-2][run]));
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("if the device is lost while the command runs, the last checkpoint is kept, and the resumed run continues", () => {
    const folder = mkdtempSync(join(tmpdir(), "gradmix-lost-"));
    try {
      for (const name of ["a", "b", "target"])
        writeFileSync(
          join(folder, `${name}.txt`),
          Array.from({ length: 200 }, (_, n) => `${name} ${n}.`).join(" "),
        );
      const dist = (file: string): string => JSON.stringify(resolve(import.meta.dirname, "../../dist", file));
      const args =
        "train --domain a=a.txt --domain b=b.txt --target target.txt --tokenizer byte --dim 16 --layers 1 --heads 2 --context 16 --batch 4 --steps 60 --update-every 4 --align-domain-examples 2 --align-target-examples 2 --eval-every 0 --eval-tokens 64 --checkpoint-every 5 --backend webgpu --out run";
      // The device that the command gets is destroyed when it has written a checkpoint.
      const script = `
        import { existsSync, readdirSync } from "node:fs";
        const { createNodeDevice } = await import(${dist("backends/webgpu/host-node.js")});
        (await createNodeDevice({ software: true })).device.destroy();
        const [gpu] = globalThis.gradmixDawn.values();
        const requestAdapter = gpu.requestAdapter.bind(gpu);
        gpu.requestAdapter = async (options) => {
          const adapter = await requestAdapter(options);
          const requestDevice = adapter.requestDevice.bind(adapter);
          adapter.requestDevice = async (descriptor) => {
            const device = await requestDevice(descriptor);
            const timer = setInterval(() => {
              if (!existsSync("run/checkpoints") || readdirSync("run/checkpoints").length === 0) return;
              clearInterval(timer);
              device.destroy();
            }, 2);
            return device;
          };
          return adapter;
        };
        process.argv = [process.execPath, "gradmix", ...${JSON.stringify(args.split(" "))}];
        await import(${dist("cli/main.js")});
      `;
      const options = { cwd: folder, encoding: "utf8", timeout: 60_000 } as const;
      const lost = spawnSync(process.execPath, ["--input-type=module", "-e", script], options);
      expect({ status: lost.status, signal: lost.signal }).toEqual({ status: 2, signal: null });
      const message =
        /gradmix: webgpu: the device was lost .* The run ends after step (\d+); the checkpoint of step (\d+) is kept; to continue from it, run gradmix train --resume run/;
      const [, ended, kept] = message.exec(lost.stderr) ?? expect.fail(lost.stderr);
      expect(Number(kept) % 5).toBe(0);
      expect(Number(ended)).toBeGreaterThanOrEqual(Number(kept));
      const resumed = spawnSync(
        process.execPath,
        [resolve(import.meta.dirname, "../../dist/cli/main.js"), "train", "--resume", "run"],
        options,
      );
      expect(resumed.stderr).toContain(`continuing from step ${kept}`);
      expect(resumed.status).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("init uses a given device, as in a browser; a device that computes wrongly is refused", async () => {
    const { device, adapter } = await createNodeDevice({ software: true });
    const backend = await init({ device });
    expect([backend.name, backend.capabilities.simd]).toEqual(["webgpu", adapter]);
    expect([...(await add(ones([3]), 1).data())]).toEqual([2, 2, 2]);
    await shutdown();
    // The null device runs nothing.
    await expect(init({ device: await createNullDevice() })).rejects.toThrow(
      /^webgpu: null-backend computed small products wrongly; update its driver, or use the backend "cpu"$/,
    );
    await expect(init({ device, backend: "cpu" })).rejects.toThrow(
      /^device: a GPUDevice needs the backend "webgpu", not "cpu"$/,
    );
  });

  test.each([
    ["that used the GPU", "await t.data();"],
    ["with a read under way", "void t.data();"],
    ["that never gave its backend back, and throws", "await t.data(); throw new Error('on purpose');"],
  ])("a process %s ends", (_, rest) => {
    const script = `
      const { init, ones, add } = await import(${JSON.stringify(resolve(import.meta.dirname, "../../dist/index.node.js"))});
      await init({ backend: "webgpu" });
      const t = add(ones([4]), 1);
      ${rest}
    `;
    const { status, signal } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
      timeout: 20_000,
    });
    expect(signal).toBeNull();
    expect(status).toBe(rest.includes("throw") ? 1 : 0);
  });
});
