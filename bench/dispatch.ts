/**
 * What the host spends on the WebGPU backend: microseconds a dispatch, and dispatches, bind groups and buffers a training step in steady state.
 * Options: --backend webgpu (the only one), --dispatches N (2000), --steps N (30), --model tiny|small|124m as in `step` (default: d 64, 4 layers, T 64),
 * --layers N and --batch N in place of the model's, and --device null: Dawn's null device, which runs nothing, so that the host's share of a step can be
 * measured without a GPU, with the kernels that GPUs get. (It has 512 MiB, and binds 128.)
 */
import { GradmixError, init, shutdown, type Tensor } from "gradmix";
import { meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT, type TokenBatch } from "gradmix/nn";
import { createNullDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend, type WebgpuBackend } from "#dist/backends/webgpu/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { windowsOf } from "./_languages.js";
import { shapeOf, stepFlops } from "./_models.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["backend", "dispatches", "steps", "model", "layers", "batch", "device"],
  ]);
  read.choice("backend", ["webgpu"], "webgpu");
  const onNull = read.choice("device", ["null", "own"], "own") === "null";
  const named = read.text("model");
  const base =
    named === null ? { vocabSize: 256, dim: 64, layers: 4, heads: 4, B: 4, T: 64 } : shapeOf(named);
  const shape = {
    ...base,
    layers: read.count("layers", base.layers),
    B: read.count("batch", base.B),
  };
  const count = read.count("dispatches", 2000, 2);
  const steps = read.count("steps", 30);
  const backend = onNull
    ? createWebgpuBackend({ device: await createNullDevice(), adapter: "null" })
    : ((await init({ backend: "webgpu" })) as WebgpuBackend);
  if (onNull) setCurrentMemory(backend);
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

  const { vocabSize, dim, layers, heads, B, T: time } = shape;
  const model = createGPT({
    ...(named === null ? {} : { preset: "gpt2" as const }),
    ...{ vocabSize, dim, layers, heads, context: time },
  });
  const optimizer = adamw(model.parameters);
  const gradient = arenaLike(model.parameters);
  const batch: TokenBatch = windowsOf(0, B, { time, vocabSize });
  /** Milliseconds of the host until everything was enqueued, and with `submits` submitted too: a submit apart from the one that a step's read makes. */
  const step = async (submits = false): Promise<number> => {
    const began = performance.now();
    const losses: Tensor = meanGradient(model, batch, gradient);
    const norm = optimizer.step(gradient.arena, 1e-3);
    if (submits) backend.flush();
    const host = performance.now() - began;
    await norm.data();
    losses.dispose();
    norm.dispose();
    return host;
  };
  for (let i = 0; i < 5; i++) await step();
  const before = backend.counters;
  const began = performance.now();
  for (let i = 0; i < steps; i++) await step();
  const seconds = (performance.now() - began) / 1e3 / steps;
  const after = backend.counters;
  const hosts: number[] = [];
  for (let i = 0; i < steps; i++) hosts.push(await step(true));
  const result = {
    node: process.version,
    adapter: backend.capabilities.simd,
    hostMicrosecondsPerDispatch: median(encoding),
    readMilliseconds: median(reading),
    stepSeconds: seconds,
    hostSecondsPerStep: median(hosts) / 1e3,
    params: model.parameters.count,
    stepGflop: stepFlops(shape, model.parameters.count) / 1e9,
    perStep: {
      dispatches: (after.dispatches - before.dispatches) / steps,
      submits: (after.submits - before.submits) / steps,
      bindGroupsMade: (after.bindGroups - before.bindGroups) / steps,
      buffersMade: (after.buffers - before.buffers) / steps,
      pipelinesMade: (after.pipelines - before.pipelines) / steps,
    },
    poolBytes: after.poolBytes,
    liveBytes: backend.liveBytes,
  };
  if (onNull) await backend.dispose();
  else await shutdown();
  return result;
}
