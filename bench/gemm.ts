/**
 * Matrix products, f32: GFLOP/s of square NN, NT and TN; of all products of a training step's linear layers (forward NT, gradient of the inputs NN, of the weights
 * TN); and of the segmented weight gradient beside the plain one. Each figure is also given as a share of the limit, which is the speed of the micro-kernel alone on the
 * first-level cache, with as many threads, in the same turns.
 *
 * Groups of shapes: `squares`; `small` and `mixture`, the models of `step`; `vocabulary`, heads of 2,048 and 4,096 tokens; `thin`, single windows of 64 tokens in layers 96 and
 * 128 wide; `segmented`.
 *
 * Options: --groups A,B (all), --sizes 512,1024 of the squares, --simd relaxed|plain|auto, --vector-bits auto|128|256, --threads 1,2, --rounds N (9), --seconds N a case and round (0.02). With --backend
 * webgpu: the GPU, from the time of many products enqueued together, and of the segmented weight gradient; --sizes 1024,4096, --precision f32|f16; every variant's figure stands beside the chosen one's.
 */
import type { Backend, Capabilities } from "gradmix";
import { type CpuOptions, createCpuBackend, startMachine } from "#dist/backends/cpu/index.js";
import { createNodeDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend, type WebgpuBackend } from "#dist/backends/webgpu/index.js";
import { linearLayers, peakFlops, shapeOf } from "./_models.js";
import { readOptions } from "./_options.js";
import { inTurns, median, type Work } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

interface Row {
  readonly group: string;
  readonly kernel: string;
  /** Layout and m×n×k. */
  readonly shape: string;
  readonly threads: number;
  readonly microseconds: number;
  readonly gflops: number;
  readonly shareOfLimit: number;
}

const LIMIT_ROUNDS = 5000;

const groupsOf: Readonly<Record<string, (sizes: readonly number[]) => readonly Product[]>> = {
  squares: (sizes) => sizes.flatMap((n) => layouts.map((layout) => ({ layout, m: n, n, k: n, segments: 0 }))),
  small: () => stepProducts("small"),
  mixture: () => stepProducts("mixture"),
  vocabulary: () => [2048, 4096].flatMap((size) => layerProducts(2048, size, 256)),
  thin: () =>
    [96, 128].flatMap((dim) =>
      linearLayers({ dim, vocabSize: 1024 }).flatMap(([out, width]) => layerProducts(64, out, width)),
    ),
  segmented: () =>
    [0, 8, 32].map((segments) => ({ layout: "TN" as const, m: 1024, n: 256, k: 2048, segments })),
};

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["backend", "groups", "simd", "vector-bits", "threads", "sizes", "rounds", "seconds", "precision"],
  ]);
  const precision = read.choice("precision", ["f32", "f16"], "f32");
  if (read.choice("backend", ["cpu", "webgpu"], "cpu") === "webgpu")
    return onGpu(read.counts("sizes", [1024, 4096]), precision);
  const level = read.choice("simd", ["auto", "relaxed", "plain"], "auto");
  const simd: CpuOptions = {
    vectorBits: read.vectorBits(),
    ...(level === "plain" || level === "relaxed" ? { simd: level } : {}),
  };
  const turns = { rounds: read.count("rounds", 9), seconds: read.positive("seconds", 0.02) };
  const sizes = read.counts("sizes", [512, 1024]);
  const products = read
    .names("groups", Object.keys(groupsOf))
    .flatMap((group) => (groupsOf[group]?.(sizes) ?? []).map((product) => ({ group, ...product })));
  const limits: Record<string, number> = {};
  const rows: Row[] = [];
  let used: Pick<Capabilities, "simd" | "vectorBits"> = { simd: "" };
  for (const threads of read.counts("threads", [1, 2])) {
    const { machine, capabilities } = await startMachine({ threads, ...simd });
    used = capabilities;
    const tasks = 4 * threads;
    const limit: Work = {
      name: "the micro-kernel alone",
      call: () =>
        machine.launch({
          ...{ kernel: "microPeak", tasks, scratch: 1 << 16, work: Infinity },
          slots: { rounds: LIMIT_ROUNDS },
        }),
    };
    const backend = await createCpuBackend({ threads, ...simd });
    const filled = operands(backend);
    const [limitSeconds = NaN, ...seconds] = inTurns(
      [limit, ...products.map((product) => workOf(backend, filled, product))],
      turns,
    );
    const limitGflops = (tasks * LIMIT_ROUNDS * peakFlops(used)) / limitSeconds / 1e9;
    limits[`${threads}`] = limitGflops;
    products.forEach(({ group, layout, m, n, k, segments }, i) => {
      const gflops = (2 * m * n * k) / (seconds[i] ?? NaN) / 1e9;
      rows.push({
        group,
        kernel: segments === 0 ? "gemm" : `gemmSegmented, ${segments} segments`,
        shape: `${layout} ${m}x${n}x${k}`,
        threads,
        microseconds: (seconds[i] ?? NaN) * 1e6,
        gflops,
        shareOfLimit: gflops / limitGflops,
      });
    });
    await backend.dispose();
    machine.stop();
    await Promise.all(machine.workers.map((worker) => worker.stop()));
  }
  return {
    node: process.version,
    simd: used.simd,
    vectorBits: used.vectorBits,
    limitGflopsByThreads: limits,
    rows,
  };
}

const layouts = ["NN", "NT", "TN"] as const;

interface Product {
  readonly layout: (typeof layouts)[number];
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** 0: `gemm`; otherwise `gemmSegmented` with k rows in so many segments. */
  readonly segments: number;
}

/** Forward, gradient of the inputs and of the weight of a layer [out, width] on so many rows. */
function layerProducts(rows: number, out: number, width: number): Product[] {
  return [
    { layout: "NT", m: rows, n: out, k: width, segments: 0 },
    { layout: "NN", m: rows, n: width, k: out, segments: 0 },
    { layout: "TN", m: out, n: width, k: rows, segments: 0 },
  ];
}

function stepProducts(model: string): Product[] {
  const shape = shapeOf(model);
  return linearLayers(shape).flatMap(([out, width]) => layerProducts(shape.B * shape.T, out, width));
}

type Filled = (slot: string, shape: readonly number[]) => Operand;
type Operand = { buffer: number; offset: number; shape: readonly number[]; dtype: "f32" };

/** Operands of one slot share a buffer, which is as large as the largest of them. */
function operands(backend: Backend): Filled {
  const buffers = new Map<string, { buffer: number; count: number }>();
  return (slot, shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    let held = buffers.get(slot);
    if (held === undefined || held.count < count) {
      held = { buffer: backend.alloc(count, "f32"), count };
      backend.write(
        held.buffer,
        0,
        Float32Array.from({ length: count }, (_, i) => Math.sin(i)),
      );
      buffers.set(slot, held);
    }
    return { buffer: held.buffer, offset: 0, shape, dtype: "f32" };
  };
}

function workOf(backend: Backend, filled: Filled, { layout, m, n, k, segments }: Product): Work {
  const [transA, transB] = [layout === "TN", layout === "NT"];
  const name = `${layout} ${m}x${n}x${k}`;
  if (segments === 0) {
    const a = filled("a", transA ? [k, m] : [m, k]);
    const b = filled("b", transB ? [n, k] : [k, n]);
    const c = filled("c", [m, n]);
    const params = { m, n, k, transA, transB, batch: 1, strideA: 0, strideB: 0, strideC: 0 };
    return {
      name,
      call: () =>
        backend.run("gemm", { ...params, alpha: 1, accumulate: false, activation: "none" }, { a, b }, { c }),
    };
  }
  const offsets = backend.alloc(segments + 1, "i32");
  backend.write(
    offsets,
    0,
    Int32Array.from({ length: segments + 1 }, (_, i) => (i * k) / segments),
  );
  const inputs = {
    a: filled("a", [k, m]),
    b: filled("b", [k, n]),
    segments: { buffer: offsets, offset: 0, shape: [segments + 1], dtype: "i32" as const },
    v: filled("v", [m, n]),
  };
  const outputs = {
    total: filled("c", [m, n]),
    dots: filled("dots", [segments]),
    sumsq: filled("sumsq", [segments]),
    vSumsq: filled("vSumsq", [1]),
  };
  const params = { rows: k, m, n, segmentCount: segments, groupCount: 0, targetSegments: 0 };
  return {
    name,
    call: () =>
      backend.run("gemmSegmented", { ...params, firstAccumulated: 0, accumulate: false }, inputs, outputs),
  };
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
  const rows: object[] = [];
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
      const gflops = await rateOnGpu(backend, c.buffer, 2 * size ** 3, once);
      const layout = `${transA ? "T" : "N"}${transB ? "T" : "N"}`;
      const bucket = `gemm ${layout} 1x${size}x${size}x${size}${precision === "f16" && !software ? " f16" : ""}`;
      rows.push({
        kernel: "gemm",
        shape: `${layout} ${size}x${size}x${size}`,
        gflops,
        variant: backend.chosen.get(bucket),
        // There are timings of variants only for sizes that are powers of two.
        ...(timings[bucket] === undefined ? {} : { gflopsByVariant: gflopsOf(timings[bucket], size) }),
      });
      for (const { buffer } of [a, b, c]) backend.free(buffer);
    }
  for (const size of sizes) rows.push(await segmentedOnGpu(backend, size, timings));
  await backend.dispose();
  return { node: process.version, backend: "webgpu", adapter, precision, rows };
}

const SEGMENTS = 8;

/** GFLOP/s of the weight gradient of a square weight over as many rows, in eight segments. */
async function segmentedOnGpu(
  backend: WebgpuBackend,
  size: number,
  timings: Readonly<Record<string, Readonly<Record<string, number>>>>,
): Promise<object> {
  const bucket = `gemmSegmented ${SEGMENTS}x${size}x${size}x${size}`;
  const place = (shape: number[], dtype: "f32" | "i32", data: ArrayLike<number>) => {
    const buffer = backend.alloc(data.length, dtype);
    backend.write(buffer, 0, data);
    return { buffer, offset: 0, shape, dtype };
  };
  const matrix = Float32Array.from({ length: size * size }, (_, i) => (i % 7) - 3);
  const offsets = Int32Array.from({ length: SEGMENTS + 1 }, (_, s) => Math.floor((s * size) / SEGMENTS));
  const [a, b] = [place([size, size], "f32", matrix), place([size, size], "f32", matrix)];
  const [v, total] = [place([size, size], "f32", matrix), place([size, size], "f32", matrix)];
  const [dots, sumsq] = [
    place([SEGMENTS], "f32", new Float32Array(SEGMENTS)),
    place([SEGMENTS], "f32", new Float32Array(SEGMENTS)),
  ];
  const [segments, vSumsq] = [place([SEGMENTS + 1], "i32", offsets), place([1], "f32", [0])];
  const params = { rows: size, m: size, n: size, segmentCount: SEGMENTS, groupCount: 0 };
  const gflops = await rateOnGpu(backend, vSumsq.buffer, 2 * size ** 3, () =>
    backend.run(
      "gemmSegmented",
      { ...params, targetSegments: 0, firstAccumulated: 0, accumulate: false },
      { a, b, segments, v },
      { total, dots, sumsq, vSumsq },
    ),
  );
  for (const { buffer } of [a, b, v, total, dots, sumsq, segments, vSumsq]) backend.free(buffer);
  return {
    kernel: "gemmSegmented",
    shape: `${SEGMENTS} segments ${size}x${size}x${size}`,
    gflops,
    variant: backend.chosen.get(bucket),
    ...(timings[bucket] === undefined ? {} : { gflopsByVariant: gflopsOf(timings[bucket], size) }),
  };
}

/** GFLOP/s of a call: the median of rounds of several. */
async function rateOnGpu(
  backend: WebgpuBackend,
  result: number,
  work: number,
  call: () => void,
): Promise<number> {
  const time = async (count: number): Promise<number> => {
    const began = performance.now();
    for (let i = 0; i < count; i++) call();
    await backend.read(result, 0, 1);
    return (performance.now() - began) / 1000 / count;
  };
  // The variants are timed within the first.
  await time(1);
  const count = Math.max(1, Math.min(200, Math.round(0.1 / (await time(1)))));
  const seconds: number[] = [];
  for (let round = 0; round < 5; round++) seconds.push(await time(count));
  return work / median(seconds) / 1e9;
}

const gflopsOf = (milliseconds: Readonly<Record<string, number>>, size: number): Record<string, number> =>
  Object.fromEntries(
    Object.entries(milliseconds).map(([variant, time]) => [variant, (2 * size ** 3) / time / 1e6]),
  );
