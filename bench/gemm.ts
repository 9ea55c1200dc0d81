/**
 * Matrix products, f32: GFLOP/s of square NN, NT and TN on one thread and on two, and of the segmented weight gradient beside the plain
 * one. Beside each figure stands its share of what the micro-kernel alone reaches on one core's first-level cache, times the threads.
 *
 * Options: --simd relaxed|plain|auto, --threads 1,2, --sizes 512,1024, --seconds N a case (1). With --backend webgpu: the GPU, from the time of many
 * products enqueued together; --sizes 1024,4096, --precision f32|f16; every variant's figure stands beside the chosen one's.
 */
import benny from "benny";
import { type CpuOptions, createCpuBackend, startMachine } from "#dist/backends/cpu/index.js";
import { createNodeDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend } from "#dist/backends/webgpu/index.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

interface Row {
  kernel: string;
  shape: string;
  threads: number;
  gflops: number;
  shareOfPeak: number;
}

/** Multiply-adds of one round of the micro-kernel that measures the peak. */
const PEAK_FLOPS = 2 * 4 * 8 * 128;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["backend", "simd", "threads", "sizes", "seconds", "precision"]);
  const precision = read.choice("precision", ["f32", "f16"], "f32");
  if (read.choice("backend", ["cpu", "webgpu"], "cpu") === "webgpu")
    return onGpu(read.counts("sizes", [1024, 4096]), precision);
  const level = read.choice("simd", ["auto", "relaxed", "plain"], "auto");
  const simd: CpuOptions = level === "plain" || level === "relaxed" ? { simd: level } : {};
  const seconds = read.positive("seconds", 1);
  const sizes = read.counts("sizes", [512, 1024]);
  const threadCounts = read.counts("threads", [1, 2]);
  const { machine, capabilities } = await startMachine({ threads: 1, ...simd });
  const rounds = 20_000;
  const [peak = NaN] = await medians("peak of the micro-kernel", seconds, [
    {
      name: "micro-kernel",
      work: rounds * PEAK_FLOPS,
      call: () =>
        machine.launch({ kernel: "microPeak", tasks: 1, slots: { rounds }, scratch: 1 << 16, work: 0 }),
    },
  ]);

  const rows: Row[] = [];
  for (const threads of threadCounts) {
    const backend = await createCpuBackend({ threads, ...simd });
    const filled = (
      shape: number[],
      dtype: "f32" | "i32" = "f32",
      value = (i: number): number => Math.sin(i),
    ) => {
      const count = shape.reduce((a, b) => a * b, 1);
      const buffer = backend.alloc(count, dtype);
      backend.write(
        buffer,
        0,
        Float64Array.from({ length: count }, (_, i) => value(i)),
      );
      return { buffer, offset: 0, shape, dtype };
    };
    const product = (m: number, n: number, k: number, transA: boolean, transB: boolean): Case => {
      const [a, b, c] = [filled([m, k]), filled([k, n]), filled([m, n])];
      const params = { m, n, k, transA, transB, batch: 1, strideA: 0, strideB: 0, strideC: 0 };
      const call = (): void =>
        backend.run("gemm", { ...params, alpha: 1, accumulate: false, activation: "none" }, { a, b }, { c });
      return {
        name: `gemm ${transA ? "T" : "N"}${transB ? "T" : "N"} ${m}x${n}x${k}`,
        work: 2 * m * n * k,
        call,
      };
    };
    const segmented = (m: number, n: number, rows: number, segmentCount: number): Case => {
      const [a, b, v, total] = [filled([rows, m]), filled([rows, n]), filled([m, n]), filled([m, n])];
      const [dots, squares, one] = [filled([segmentCount]), filled([segmentCount]), filled([1])];
      const segments = filled([segmentCount + 1], "i32", (i) => (i * rows) / segmentCount);
      const params = { rows, m, n, segmentCount, groupCount: 0, targetSegments: 0, firstAccumulated: 0 };
      const call = (): void =>
        backend.run(
          "gemmSegmented",
          { ...params, accumulate: false },
          { a, b, segments, v },
          { total, dots, sumsq: squares, vSumsq: one },
        );
      return {
        name: `gemmSegmented ${segmentCount} segments ${m}x${n}x${rows}`,
        work: 2 * m * n * rows,
        call,
      };
    };
    const cases = sizes.flatMap((size) => [
      product(size, size, size, false, false),
      product(size, size, size, false, true),
      product(size, size, size, true, false),
    ]);
    cases.push(
      product(1024, 256, 2048, true, false),
      segmented(1024, 256, 2048, 8),
      segmented(1024, 256, 2048, 32),
    );
    const figures = await medians(`${threads} thread(s)`, seconds, cases);
    cases.forEach(({ name }, i) => {
      const [kernel = "", ...rest] = name.split(" ");
      const gflops = figures[i] ?? NaN;
      rows.push({ kernel, shape: rest.join(" "), threads, gflops, shareOfPeak: gflops / (peak * threads) });
    });
    await backend.dispose();
  }
  return { node: process.version, simd: capabilities.simd, peakGflopsOneCore: peak, rows };
}

/** GFLOP/s on the GPU: enough products in a row for about half a second, then one read. */
async function onGpu(sizes: readonly number[], precision: "f32" | "f16"): Promise<Record<string, unknown>> {
  const timings: Record<string, Readonly<Record<string, number>>> = {};
  const found = await createNodeDevice({
    software: process.env["GRADMIX_WEBGPU"] === "software",
    tensorCores: precision === "f16",
  });
  const { device, adapter, software, tensorCores } = found;
  const tuning = {
    known: {},
    learn: (bucket: string, _: string, milliseconds: Readonly<Record<string, number>>) => {
      timings[bucket] = milliseconds;
    },
  };
  const backend = createWebgpuBackend({ ...{ device, adapter, software, tensorCores, precision, tuning } });
  const rows = [];
  for (const size of sizes)
    for (const [transA, transB] of [
      [false, false],
      [false, true],
      [true, false],
    ] as const) {
      const [a, b, c] = [0, 1, 2].map(() => {
        const buffer = backend.alloc(size * size, "f32");
        backend.write(
          buffer,
          0,
          Float32Array.from({ length: size * size }, (_, i) => (i % 7) - 3),
        );
        return { buffer, offset: 0, shape: [size, size], dtype: "f32" as const };
      });
      if (a === undefined || b === undefined || c === undefined) continue;
      const once = (): void =>
        backend.run(
          "gemm",
          {
            ...{ m: size, n: size, k: size, transA, transB, batch: 1, strideA: 0, strideB: 0, strideC: 0 },
            ...{ alpha: 1, accumulate: false, activation: "none" },
          },
          { a, b },
          { c },
        );
      const time = async (count: number): Promise<number> => {
        const began = performance.now();
        for (let i = 0; i < count; i++) once();
        await backend.read(c.buffer, 0, 1);
        return (performance.now() - began) / 1000 / count;
      };
      // The variants are timed within the first.
      await time(1);
      const count = Math.max(1, Math.min(200, Math.round(0.1 / (await time(1)))));
      const seconds: number[] = [];
      for (let round = 0; round < 5; round++) seconds.push(await time(count));
      const median = seconds.sort((x, y) => x - y)[2] ?? NaN;
      const layout = `${transA ? "T" : "N"}${transB ? "T" : "N"}`;
      const bucket = `gemm ${layout} 1x${size}x${size}x${size}${precision === "f16" && !software ? " f16" : ""}`;
      rows.push({
        kernel: "gemm",
        shape: `${layout} ${size}x${size}x${size}`,
        gflops: (2 * size ** 3) / median / 1e9,
        variant: backend.chosen.get(bucket),
        // Of sizes that are powers of two.
        ...(timings[bucket] === undefined ? {} : { gflopsByVariant: gflopsOf(timings[bucket], size) }),
      });
      for (const { buffer } of [a, b, c]) backend.free(buffer);
    }
  await backend.dispose();
  return { node: process.version, backend: "webgpu", adapter, precision, rows };
}

const gflopsOf = (milliseconds: Readonly<Record<string, number>>, size: number): Record<string, number> =>
  Object.fromEntries(
    Object.entries(milliseconds).map(([variant, time]) => [variant, (2 * size ** 3) / time / 1e6]),
  );

interface Case {
  name: string;
  /** Floating-point operations of a call. */
  work: number;
  call(): void;
}

/** GFLOP/s of each case, from the median time of a call. */
async function medians(title: string, seconds: number, cases: readonly Case[]): Promise<number[]> {
  for (const { call } of cases) call();
  // benny prints its progress to standard output, which belongs to the result.
  const { log } = console;
  console.log = console.error;
  const summary = await benny.suite(
    title,
    ...cases.map(({ name, call }) => benny.add(name, call, { maxTime: seconds, minSamples: 10 })),
  );
  console.log = log;
  return cases.map(({ work }, i) => work / (summary.results[i]?.details.median ?? NaN) / 1e9);
}
