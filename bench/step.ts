/**
 * One training step, with and without gradient alignment: by default a GPT with d 256, 6 layers, 8 heads, T 256, B 8, vocabulary 1024 (LayerNorm, biases,
 * learned positions, GELU, untied head, AdamW).
 *
 * Variants run in turn, round after round, so that drift of the machine falls on all of them; figures are medians in seconds.
 *
 * - plain: gradient of the mean loss and AdamW.
 * - aligned: the same, and every example's alignment with a given direction and its gradient's norm.
 * - domains: an aligned step over as many tokens with 16 examples of 16 domains (T 128): 16 domain alignments.
 * - perDomain: a target gradient and 16 domain gradients one after another, without the step (the paper's way).
 * - forwardMode: one jvp over the batch in a given direction.
 *
 * Options: --backend cpu|webgpu, --model small|124m|tiny (d 256; d 768, 12 layers, T 1,024, vocabulary 50,304; or d 32, to see that it runs), --threads N (2),
 * --simd relaxed|plain|auto, --precision f32|f16 (webgpu), --rounds N (7), --peer COMMAND (its JSON output is included, run before and after).
 */
import { execSync } from "node:child_process";
import { alignSink, forwardDerivative, gradients, init, keep, scope, shutdown, type Tensor } from "gradmix";
import { meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT, type TokenBatch } from "gradmix/nn";
import { shapeOf, stepFlops } from "./_models.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

const DOMAINS = 16;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["backend", "model", "threads", "simd", "precision", "rounds", "peer"],
  ]);
  const threads = read.count("threads", 2);
  const rounds = read.count("rounds", 7);
  const simd = read.choice("simd", ["auto", "relaxed", "plain"], "auto");
  const name = read.text("model") ?? "small";
  const peerCommand = read.text("peer");
  const shape = shapeOf(name);
  const { vocabSize, dim, layers, heads, B, T } = shape;
  const before = peer(peerCommand);
  const chosen = read.choice("backend", ["cpu", "webgpu"], "cpu");
  const precision = read.choice("precision", ["f32", "f16"], "f32");
  const backend = await init({
    backend: chosen,
    precision,
    ...(chosen === "cpu" ? { threads, simd } : { log: console.error }),
  });
  const model = createGPT({ preset: "gpt2", vocabSize, dim, layers, heads, context: T });
  const { parameters } = model;
  const optimizer = adamw(parameters);
  const gradient = arenaLike(parameters);
  const direction = arenaLike(parameters);
  const other = arenaLike(parameters);
  const whole = batchOf(B, T, vocabSize);
  const domains = batchOf(DOMAINS, T / 2, vocabSize);
  const single = batchOf(1, T, vocabSize);

  const done = async (t: Tensor): Promise<void> => {
    await t.data();
    t.dispose();
  };
  const optimise = async (): Promise<void> => done(optimizer.step(gradient.arena, 1e-3));
  const aligned = async (batch: TokenBatch): Promise<void> => {
    const examples = batch.inputs.length / batch.time;
    const sink = alignSink({
      examples,
      direction: { given: (p) => direction.of(p) },
      total: { gradientOf: (p) => gradient.of(p) },
    });
    const losses = keep(
      scope(() => {
        return gradients(() => model.losses(batch), {
          parameters: parameters.list,
          sink,
          weights: new Float64Array(examples).fill(1 / (examples * batch.time)),
        });
      }),
    );
    await sink.result();
    await done(losses);
    sink.dispose();
    await optimise();
  };
  /** Until everything was submitted: all of the step on the cpu backend, the host's share of it on a GPU. */
  const hosts: number[] = [];
  const variants = {
    plain: async () => {
      const start = performance.now();
      const losses = meanGradient(model, whole, gradient);
      const norm = optimizer.step(gradient.arena, 1e-3);
      backend.flush();
      hosts.push((performance.now() - start) / 1000);
      await done(losses);
      await done(norm);
    },
    aligned: () => aligned(whole),
    domains: () => aligned(domains),
    perDomain: async () => {
      await done(meanGradient(model, whole, direction));
      for (let i = 0; i < DOMAINS; i++) {
        await done(meanGradient(model, single, other));
      }
    },
    forwardMode: async () => {
      const tangents = new Map(parameters.list.map((p) => [p, direction.of(p)]));
      const { losses, derivatives } = scope(() => {
        return forwardDerivative(() => model.losses(whole), tangents);
      });
      keep(losses);
      keep(derivatives);
      await done(losses);
      await done(derivatives);
    },
  };
  const times = new Map<string, number[]>(Object.keys(variants).map((name) => [name, []]));
  await done(meanGradient(model, whole, direction));
  for (let round = -1; round < rounds; round++)
    for (const [name, variant] of Object.entries(variants)) {
      if (name === "perDomain" && round >= 3) continue;
      const start = performance.now();
      await variant();
      if (round >= 0) times.get(name)?.push((performance.now() - start) / 1000);
    }
  const median = (name: string): number => {
    const sorted = [...(times.get(name) ?? [])].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? NaN;
  };
  const paired = (a: string, b: string): number => {
    const ratios = (times.get(a) ?? [])
      .map((time, i) => time / (times.get(b)?.[i] ?? NaN))
      .sort((x, y) => x - y);
    return ratios[ratios.length >> 1] ?? NaN;
  };
  const tokens = B * T;
  const flops = stepFlops(shape, parameters.count);
  const peakBytes = backend.peakBytes;
  const { simd: level } = backend.capabilities;
  await shutdown();
  const after = peer(peerCommand);
  return {
    backend: chosen,
    model: name,
    precision,
    ...(chosen === "cpu" ? { threads } : {}),
    simd: level,
    node: process.version,
    params: parameters.count,
    tokens,
    plainStepSeconds: median("plain"),
    alignedStepSeconds: median("aligned"),
    alignedOverPlain: paired("aligned", "plain"),
    domainStepSeconds: median("domains"),
    domains: DOMAINS,
    perDomainSeconds: median("perDomain"),
    forwardModeSeconds: median("forwardMode"),
    hostSeconds: hosts.sort((a, b) => a - b)[hosts.length >> 1],
    plainStepGflops: flops / median("plain") / 1e9,
    peakBytes,
    ...(before === null ? {} : { peer: { before, after } }),
  };
}

function batchOf(examples: number, time: number, vocabSize: number): TokenBatch {
  let state = 1;
  const draw = (): number => (state = (state * 48271) % 2147483647) % vocabSize;
  return {
    inputs: Int32Array.from({ length: examples * time }, draw),
    targets: Int32Array.from({ length: examples * time }, draw),
    tokens: new Int32Array(examples).fill(time),
    time,
  };
}

function peer(command: string | null): unknown {
  if (command === null) return null;
  return JSON.parse(execSync(command, { encoding: "utf8" })) as unknown;
}
