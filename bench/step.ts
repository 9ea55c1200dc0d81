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
import {
  alignSink,
  type Backend,
  forwardDerivative,
  gradients,
  init,
  keep,
  scope,
  shutdown,
  type Tensor,
} from "gradmix";
import { meanGradient } from "gradmix/dga";
import { adamw, type Arena, arenaLike, createGPT, type GPT, type TokenBatch } from "gradmix/nn";
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
  const { variants, hosts } = await variantsOf(backend, model, shape);
  const times = await timed(variants, rounds);
  const flops = stepFlops(shape, model.parameters.count);
  const { peakBytes, capabilities } = backend;
  await shutdown();
  const after = peer(peerCommand);
  const medianOf = (variant: string): number => median(times.get(variant) ?? []);
  return {
    backend: chosen,
    model: name,
    precision,
    ...(chosen === "cpu" ? { threads } : {}),
    simd: capabilities.simd,
    node: process.version,
    params: model.parameters.count,
    tokens: B * T,
    plainStepSeconds: medianOf("plain"),
    alignedStepSeconds: medianOf("aligned"),
    alignedOverPlain: pairedMedian(times.get("aligned") ?? [], times.get("plain") ?? []),
    domainStepSeconds: medianOf("domains"),
    domains: DOMAINS,
    perDomainSeconds: medianOf("perDomain"),
    forwardModeSeconds: medianOf("forwardMode"),
    hostSeconds: median(hosts),
    plainStepGflops: flops / medianOf("plain") / 1e9,
    peakBytes,
    ...(before === null ? {} : { peer: { before, after } }),
  };
}

type Variants = Readonly<Record<string, () => Promise<void>>>;

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

/** The median of one variant's times over another's of the same round. */
const pairedMedian = (times: readonly number[], others: readonly number[]): number =>
  median(times.map((time, i) => time / (others[i] ?? NaN)));

/** Seconds of each variant, in turns; a round before the first is not counted. */
async function timed(variants: Variants, rounds: number): Promise<ReadonlyMap<string, readonly number[]>> {
  const times = new Map<string, number[]>(Object.keys(variants).map((name) => [name, []]));
  for (let round = -1; round < rounds; round++)
    for (const [name, variant] of Object.entries(variants)) {
      if (name === "perDomain" && round >= 3) continue;
      const start = performance.now();
      await variant();
      if (round >= 0) times.get(name)?.push((performance.now() - start) / 1000);
    }
  return times;
}

async function done(t: Tensor): Promise<void> {
  await t.data();
  t.dispose();
}

/** The kinds of step, and `hosts`: the seconds of the plain step until everything was submitted, all of it on the cpu backend, the host's share on a GPU. */
async function variantsOf(
  backend: Backend,
  model: GPT,
  { B, T, vocabSize }: ReturnType<typeof shapeOf>,
): Promise<{ variants: Variants; hosts: readonly number[] }> {
  const { parameters } = model;
  const optimizer = adamw(parameters);
  const [gradient, direction, other] = [arenaLike(parameters), arenaLike(parameters), arenaLike(parameters)];
  const whole = batchOf(B, T, vocabSize);
  const domains = batchOf(DOMAINS, T / 2, vocabSize);
  const single = batchOf(1, T, vocabSize);
  const hosts: number[] = [];
  const aligned = async (batch: TokenBatch): Promise<void> => {
    await alignedPass(model, batch, direction, gradient);
    await done(optimizer.step(gradient.arena, 1e-3));
  };
  await done(meanGradient(model, whole, direction));
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
      for (let i = 0; i < DOMAINS; i++) await done(meanGradient(model, single, other));
    },
    forwardMode: async () => {
      const tangents = new Map(parameters.list.map((p) => [p, direction.of(p)]));
      const { losses, derivatives } = scope(() => forwardDerivative(() => model.losses(whole), tangents));
      keep(losses);
      keep(derivatives);
      await done(losses);
      await done(derivatives);
    },
  };
  return { variants, hosts };
}

/** The training gradient and the alignments of all examples with the direction. */
async function alignedPass(model: GPT, batch: TokenBatch, direction: Arena, gradient: Arena): Promise<void> {
  const examples = batch.inputs.length / batch.time;
  const sink = alignSink({
    examples,
    direction: { given: (p) => direction.of(p) },
    total: { gradientOf: (p) => gradient.of(p) },
  });
  const weights = new Float64Array(examples).fill(1 / (examples * batch.time));
  const losses = keep(
    scope(() => gradients(() => model.losses(batch), { parameters: model.parameters.list, sink, weights })),
  );
  await sink.result();
  await done(losses);
  sink.dispose();
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
