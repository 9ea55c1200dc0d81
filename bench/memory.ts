/**
 * Memory of a training step on the CPU, in MB: the backend's peak beside the necessary memory (parameters, gradient, AdamW's two moments), with and without
 * recomputing blocks in the backward pass, and the seconds of a step of each, in turns. `activations` is the peak minus those four; `savedByFormula` counts the numbers of the
 * forward pass that the backward pass of a gpt2 block reads, 16 d per token and layer, and the logits.
 *
 * Options: --model small|mixture|tiny (small), --threads N (2), --rounds N (7).
 */
import { init, shutdown } from "gradmix";
import { shapeOf } from "./_models.js";
import { readOptions } from "./_options.js";
import { gptOf, plainStep } from "./_step.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

/** Numbers per token and layer, in units of d: the inputs of both norms and of the four linear layers (1 + 1 + 1 + 1 + 1 + 4), query, key and value (3), the MLP before its activation (4). */
const SAVED = 16;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["model", "threads", "rounds"]);
  const name = read.text("model") ?? "small";
  const [threads, rounds] = [read.count("threads", 2), read.count("rounds", 7)];
  const shape = shapeOf(name);
  const { dim, layers, vocabSize, B, T } = shape;
  const rows = [];
  for (const checkpoint of [false, true]) {
    const backend = await init({ backend: "cpu", threads, vectorBits: "auto" });
    const model = gptOf(shape, checkpoint);
    const step = plainStep(shape, model);
    await step();
    const times: number[] = [];
    for (let i = 0; i < rounds; i++) {
      const began = performance.now();
      await step();
      times.push((performance.now() - began) / 1000);
    }
    const arenas = 4 * 4 * model.parameters.count;
    rows.push({
      checkpoint,
      peak: backend.peakBytes / 1e6,
      arenas: arenas / 1e6,
      activations: (backend.peakBytes - arenas) / 1e6,
      savedByFormula: checkpoint
        ? (4 * B * T * (layers * dim + SAVED * dim + vocabSize)) / 1e6
        : (4 * B * T * (SAVED * layers * dim + vocabSize)) / 1e6,
      stepSeconds: median(times),
    });
    await shutdown();
  }
  return { node: process.version, model: name, threads, tokens: B * T, megabytes: rows };
}
