/**
 * The cost of the WebGPU backend on the host: microseconds per dispatch; and, for a training step in steady state, plain and aligned (with every example's alignment with a
 * given direction and its gradient's norm), the number of dispatches by kernel, of submits, bind groups and buffers.
 * Options: --backend webgpu (the only one), --dispatches N (2000), --steps N (30), --model tiny|small|124m as in `step` (default: d 64, 4 layers, T 64),
 * --layers N and --batch N instead of the model's, and --device: `null` is Dawn's null device, which runs nothing, so that the host's part of a step can be
 * measured without a GPU, with the kernels for GPUs (it has 512 MiB, and binds 128); `count` is a device without memory, which counts the dispatches of steps of any
 * size, and whose times are those of gradmix without Dawn.
 */
import { alignSink, GradmixError, gradients, init, keep, scope, shutdown } from "gradmix";
import { meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT, type TokenBatch } from "gradmix/nn";
import { createNullDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend, type WebgpuBackend, type WebgpuCounters } from "#dist/backends/webgpu/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { createCountingDevice } from "./_counting-device.js";
import { windowsOf } from "./_languages.js";
import { type Shape, shapeOf, stepFlops } from "./_models.js";
import { readOptions } from "./_options.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

const DEVICES = ["own", "null", "count"] as const;

async function backendOn(device: (typeof DEVICES)[number]): Promise<WebgpuBackend> {
  if (device === "own") return (await init({ backend: "webgpu" })) as WebgpuBackend;
  const made = device === "null" ? await createNullDevice() : createCountingDevice();
  const backend = createWebgpuBackend({ device: made, adapter: device });
  setCurrentMemory(backend);
  return backend;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["backend", "dispatches", "steps", "model", "layers", "batch", "device"],
  ]);
  read.choice("backend", ["webgpu"], "webgpu");
  const device = read.choice("device", DEVICES, "own");
  const named = read.text("model");
  const base =
    named === null ? { vocabSize: 256, dim: 64, layers: 4, heads: 4, B: 4, T: 64 } : shapeOf(named);
  const shape = {
    ...base,
    layers: read.count("layers", base.layers),
    B: read.count("batch", base.B),
  };
  const count = read.count("dispatches", 2000, 2);
  const rounds = read.count("steps", 30);
  const backend = await backendOn(device);
  const dispatch = await dispatchCosts(backend, count);
  const { params, steps } = stepsOf(backend, shape, named !== null);
  const [plain, aligned] = [
    await stepCosts(backend, steps.plain, rounds),
    await stepCosts(backend, steps.aligned, rounds),
  ];
  const result = {
    node: process.version,
    adapter: backend.capabilities.simd,
    ...dispatch,
    params,
    stepGflop: stepFlops(shape, params) / 1e9,
    plain: plain.step,
    aligned: aligned.step,
    pipelines: backend.counters.pipelines,
    poolBytes: backend.counters.poolBytes,
    liveBytes: backend.liveBytes,
    kernels: kernelTable(plain.kernels, aligned.kernels),
  };
  if (device === "own") await shutdown();
  else await backend.dispose();
  return result;
}

/** Microseconds of the host per dispatch, and milliseconds of a read of one number. */
async function dispatchCosts(
  backend: WebgpuBackend,
  count: number,
): Promise<{ hostMicrosecondsPerDispatch: number; readMilliseconds: number }> {
  const buffers = [backend.alloc(256, "f32"), backend.alloc(256, "f32")];
  const [x, y] = buffers.map((buffer) => ({ buffer, offset: 0, shape: [256], dtype: "f32" as const }));
  if (x === undefined || y === undefined) throw new GradmixError("backend", "no memory");
  backend.write(x.buffer, 0, new Float32Array(256));
  const encoding: number[] = [];
  const reading: number[] = [];
  for (let round = 0; round < 15; round++) {
    const began = performance.now();
    for (let i = 0; i < count / 2; i++) {
      backend.run("affine", { scale: 1, shift: 1 }, { x }, { y });
      backend.run("affine", { scale: 1, shift: 1 }, { x: y }, { y: x });
    }
    encoding.push(((performance.now() - began) / count) * 1e3);
    await backend.read(x.buffer, 0, 1);
    const before = performance.now();
    await backend.read(x.buffer, 0, 1);
    reading.push(performance.now() - before);
  }
  for (const buffer of buffers) backend.free(buffer);
  return { hostMicrosecondsPerDispatch: median(encoding), readMilliseconds: median(reading) };
}

/** Milliseconds of the host until everything was enqueued, and with `submits` submitted too: a submit apart from the one that a step's read makes. */
type Step = (submits: boolean) => Promise<number>;

function stepsOf(
  backend: WebgpuBackend,
  { vocabSize, dim, layers, heads, B, T: time }: Shape,
  gpt2: boolean,
): { params: number; steps: { plain: Step; aligned: Step } } {
  const model = createGPT({
    ...(gpt2 ? { preset: "gpt2" as const } : {}),
    ...{ vocabSize, dim, layers, heads, context: time },
  });
  const { parameters } = model;
  const optimizer = adamw(parameters);
  const [gradient, direction] = [arenaLike(parameters), arenaLike(parameters)];
  const batch: TokenBatch = windowsOf(0, B, { time, vocabSize });
  const plain: Step = async (submits) => {
    const began = performance.now();
    const losses = meanGradient(model, batch, gradient);
    const norm = optimizer.step(gradient.arena, 1e-3);
    if (submits) backend.flush();
    const host = performance.now() - began;
    await Promise.all([losses.data(), norm.data()]);
    losses.dispose();
    norm.dispose();
    return host;
  };
  const aligned: Step = async (submits) => {
    const began = performance.now();
    const sink = alignSink({
      examples: B,
      direction: { given: (p) => direction.of(p) },
      total: { gradientOf: (p) => gradient.of(p) },
    });
    const weights = new Float64Array(B).fill(1 / (B * time));
    const losses = keep(
      scope(() => gradients(() => model.losses(batch), { parameters: parameters.list, sink, weights })),
    );
    const norm = optimizer.step(gradient.arena, 1e-3);
    if (submits) backend.flush();
    const host = performance.now() - began;
    await Promise.all([losses.data(), sink.result(), norm.data()]);
    for (const each of [losses, norm, sink]) each.dispose();
    return host;
  };
  return { params: parameters.count, steps: { plain, aligned } };
}

interface StepCosts {
  readonly step: Readonly<Record<string, number>>;
  /** Dispatches per step, by kernel. */
  readonly kernels: ReadonlyMap<string, number>;
}

/** A step in steady state. */
async function stepCosts(backend: WebgpuBackend, step: Step, rounds: number): Promise<StepCosts> {
  for (let i = 0; i < 5; i++) await step(false);
  const before = backend.counters;
  const began = performance.now();
  for (let i = 0; i < rounds; i++) await step(false);
  const seconds = (performance.now() - began) / 1e3 / rounds;
  const after = backend.counters;
  const hosts: number[] = [];
  for (let i = 0; i < rounds; i++) hosts.push(await step(true));
  const each = (of: (counters: WebgpuCounters) => number): number => (of(after) - of(before)) / rounds;
  const kernels = new Map<string, number>();
  for (const key of after.dispatchesOf.keys()) {
    const kernel = kernelOf(key);
    const count = each(({ dispatchesOf }) => dispatchesOf.get(key) ?? 0);
    if (count > 0) kernels.set(kernel, (kernels.get(kernel) ?? 0) + count);
  }
  return {
    kernels,
    step: {
      seconds,
      hostSeconds: median(hosts) / 1e3,
      dispatches: each((counters) => counters.dispatches),
      submits: each((counters) => counters.submits),
      bindGroupsMade: each((counters) => counters.bindGroups),
      buffersMade: each((counters) => counters.buffers),
      pipelinesMade: each((counters) => counters.pipelines),
    },
  };
}

/** A shader's key without what is baked in, which follows the words. */
const kernelOf = (key: string): string => /^[a-zA-Z]+(?: [a-zA-Z]+(?= |$))*/.exec(key)?.[0] ?? key;

function kernelTable(
  plain: ReadonlyMap<string, number>,
  aligned: ReadonlyMap<string, number>,
): { kernel: string; plain: number; aligned: number }[] {
  return [...new Set([...plain.keys(), ...aligned.keys()])]
    .map((kernel) => ({ kernel, plain: plain.get(kernel) ?? 0, aligned: aligned.get(kernel) ?? 0 }))
    .sort((a, b) => b.aligned - a.aligned);
}
