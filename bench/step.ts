/**
 * One training step, with and without gradient alignment: by default a GPT with d 256, 6 layers, 8 heads, T 256, B 8, vocabulary 1024 (LayerNorm, biases,
 * learned positions, GELU, untied head, AdamW).
 *
 * The variants take turns in every round, so that drift of the machine affects all of them equally; figures are medians in seconds. A turn repeats short steps.
 *
 * - plain: gradient of the mean loss and AdamW.
 * - aligned: the same, with every example's alignment with a given direction and its gradient's norm.
 * - head: the same for the parameters after the blocks only, as in a run of the default around a histogram.
 * - domains: an aligned step over as many tokens with 16 examples of 16 domains (T 128), which gives 16 domain alignments.
 * - perDomain: a target gradient and 16 domain gradients one after another, without the step (the method of the paper).
 * - forwardMode: one jvp over the batch in a given direction.
 *
 * - torch: PyTorch's plain step (fused AdamW), if --python names a Python with PyTorch; `overPeer` is the median of the ratio of plain to torch in the same round.
 *
 * Options: --backend cpu|webgpu, --model small|mixture|124m|tiny (d 256; d 96, 3 layers, T 64, B 16, vocabulary 1,024, the size at which mixtures are found; d 768, 12 layers,
 * T 1,024, vocabulary 50,304; or d 32), --threads N (2), --simd relaxed|plain|auto, --vector-bits auto|128|256, --precision f32|f16 (webgpu), --rounds N (7), --variants plain,aligned,… (all), --python
 * PYTHON, --peer COMMAND (its JSON output is included, run before and after), and --profile (cpu): in place of all this, where the plain step's time goes, kernel by kernel, beside what the machine can do (--aligned: an aligned step's).
 */
import { execSync } from "node:child_process";
import {
  alignSink,
  type Backend,
  forwardDerivative,
  GradmixError,
  gradients,
  init,
  keep,
  scope,
  shutdown,
  sumSink,
  type Tensor,
} from "gradmix";
import { lastBlocks, meanGradient } from "gradmix/dga";
import { adamw, type Arena, arenaLike, type GPT, type TokenBatch } from "gradmix/nn";
import { splitSink } from "#dist/autograd/sinks/split.js";
import { selectedParameters } from "#dist/dga/selection.js";
import { type Shape, shapeOf, stepFlops } from "./_models.js";
import { readOptions } from "./_options.js";
import { type Peer, pythonOf, startPeer } from "./_peer.js";
import { startProfiled } from "./_profile.js";
import { gptOf, windowsFor } from "./_step.js";
import { median, pairedMedian } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

const DOMAINS = 16;

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...[
      "backend",
      "model",
      "threads",
      "simd",
      "vector-bits",
      "precision",
      "rounds",
      "variants",
      "python",
      "peer",
      "profile",
      "aligned",
    ],
  ]);
  const threads = read.count("threads", 2);
  const rounds = read.count("rounds", 7);
  const simd = read.choice("simd", ["auto", "relaxed", "plain"], "auto");
  const vectorBits = read.vectorBits();
  const name = read.text("model") ?? "small";
  const python = read.text("python");
  const shape = shapeOf(name);
  if (read.flag("profile")) {
    const { backend, profile } = await startProfiled({
      threads,
      vectorBits,
      ...(simd === "auto" ? {} : { simd }),
    });
    const { variants } = await variantsOf(backend, gptOf(shape), shape);
    const { kernels, ...whole } = await profile(
      read.flag("aligned") ? variants.aligned : variants.plain,
      rounds,
    );
    await backend.dispose();
    const { simd: used, vectorBits: width } = backend.capabilities;
    return { model: name, threads, simd: used, vectorBits: width, ...whole, kernels };
  }
  const chosen = read.choice("backend", ["cpu", "webgpu"], "cpu");
  const precision = read.choice("precision", ["f32", "f16"], "f32");
  const backend = await init({
    backend: chosen,
    precision,
    ...(chosen === "cpu" ? { threads, simd, vectorBits } : { log: console.error }),
  });
  const model = gptOf(shape);
  const { variants, hosts } = await variantsOf(backend, model, shape);
  const asked = read.text("variants")?.split(",") ?? Object.keys(variants);
  const wanted = Object.fromEntries(Object.entries(variants).filter(([variant]) => asked.includes(variant)));
  const peerCommand = read.text("peer");
  const before = peerOf(peerCommand);
  const torch = python === null ? null : await startTorch(python, shape, threads);
  const times = await timed(wanted, torch, rounds);
  torch?.end();
  const flops = stepFlops(shape, model.parameters.count);
  const { peakBytes, capabilities } = backend;
  await shutdown();
  const after = peerOf(peerCommand);
  const medianOf = (variant: string): number => median(times.get(variant) ?? []);
  const ratio = (variant: string, to: string): number =>
    pairedMedian(times.get(variant) ?? [], times.get(to) ?? []);
  return {
    backend: chosen,
    model: name,
    precision,
    ...(chosen === "cpu" ? { threads } : {}),
    simd: capabilities.simd,
    vectorBits: capabilities.vectorBits,
    node: process.version,
    params: model.parameters.count,
    tokens: shape.B * shape.T,
    plainStepSeconds: medianOf("plain"),
    alignedStepSeconds: medianOf("aligned"),
    alignedOverPlain: ratio("aligned", "plain"),
    headStepSeconds: medianOf("head"),
    headOverPlain: ratio("head", "plain"),
    domainStepSeconds: medianOf("domains"),
    domains: DOMAINS,
    perDomainSeconds: medianOf("perDomain"),
    forwardModeSeconds: medianOf("forwardMode"),
    hostSeconds: median(hosts),
    plainStepGflops: flops / medianOf("plain") / 1e9,
    peakBytes,
    ...(before === null ? {} : { peer: { before, after } }),
    ...(torch === null ? {} : { torchStepSeconds: medianOf("torch"), overPeer: ratio("plain", "torch") }),
  };
}

async function startTorch(python: string, shape: Shape, threads: number): Promise<Peer> {
  const { dim, layers, heads, T, B, vocabSize } = shape;
  const args = [dim, layers, heads, T, B, vocabSize, threads].map(String);
  const peer = await startPeer(pythonOf(python), "step.py", args);
  if (peer === null) throw new GradmixError("config", `--python: ${python} has no PyTorch`);
  return peer;
}

type Variant = () => Promise<void>;

/** Length of a turn; short steps are repeated within it. */
const TURN_SECONDS = 0.25;

/** Seconds of each variant, medians of turns, in turns; a round before the first is not counted. */
async function timed(
  variants: Readonly<Record<string, Variant>>,
  torch: Peer | null,
  rounds: number,
): Promise<ReadonlyMap<string, readonly number[]>> {
  const times = new Map<string, number[]>([...Object.keys(variants), "torch"].map((name) => [name, []]));
  const [first] = Object.values(variants);
  if (first === undefined) throw new GradmixError("config", "--variants: names none that there is");
  const short = await secondsOf(first, 3);
  const steps = Math.max(1, Math.round(TURN_SECONDS / (short.at(-1) ?? NaN)));
  for (let round = -1; round < rounds; round++) {
    for (const [name, variant] of Object.entries(variants)) {
      if (name === "perDomain" && round >= 3) continue;
      const seconds = await secondsOf(variant, name === "perDomain" ? 1 : steps);
      if (round >= 0) times.get(name)?.push(median(seconds));
    }
    if (torch === null) continue;
    const { seconds } = await torch.ask(String(steps));
    if (round >= 0 && Array.isArray(seconds)) times.get("torch")?.push(median(seconds.map(Number)));
  }
  return times;
}

async function secondsOf(variant: Variant, repetitions: number): Promise<number[]> {
  const seconds: number[] = [];
  for (let i = 0; i < repetitions; i++) {
    const start = performance.now();
    await variant();
    seconds.push((performance.now() - start) / 1000);
  }
  return seconds;
}

async function done(t: Tensor): Promise<void> {
  await t.data();
  t.dispose();
}

/** The kinds of step, and `hosts`: the seconds of the plain step until everything was submitted, all of it on the cpu backend, the host's share on a GPU. */
async function variantsOf(
  backend: Backend,
  model: GPT,
  shape: Shape,
): Promise<{ variants: Readonly<Record<"plain" | "aligned", Variant>>; hosts: readonly number[] }> {
  const { parameters } = model;
  const optimizer = adamw(parameters);
  const [gradient, direction, other] = [arenaLike(parameters), arenaLike(parameters), arenaLike(parameters)];
  const whole = windowsFor(shape, shape.B);
  const domains = windowsFor({ ...shape, T: shape.T / 2 }, DOMAINS);
  const single = windowsFor(shape, 1);
  const hosts: number[] = [];
  const every = new Set(parameters.list);
  const head = new Set(selectedParameters(model, { parameters: lastBlocks(model, 0) }));
  const aligned = async (batch: TokenBatch, chosen: ReadonlySet<Tensor> = every): Promise<void> => {
    await alignedPass(model, batch, chosen, direction, gradient);
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
    head: () => aligned(whole, head),
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

/** The training gradient, and the alignments of all examples with the direction in the chosen parameters. */
async function alignedPass(
  model: GPT,
  batch: TokenBatch,
  chosen: ReadonlySet<Tensor>,
  direction: Arena,
  gradient: Arena,
): Promise<void> {
  const examples = batch.inputs.length / batch.time;
  const gradientOf = (p: Tensor): Tensor => gradient.of(p);
  const measuring = alignSink({
    examples,
    direction: { given: (p) => direction.of(p) },
    total: { gradientOf },
  });
  const summing = sumSink({ gradientOf });
  const sink = splitSink(chosen, measuring, summing);
  const weights = new Float64Array(examples).fill(1 / (examples * batch.time));
  const losses = keep(
    scope(() => gradients(() => model.losses(batch), { parameters: model.parameters.list, sink, weights })),
  );
  await measuring.result();
  await done(losses);
  measuring.dispose();
  summing.dispose();
}

function peerOf(command: string | null): unknown {
  if (command === null) return null;
  return JSON.parse(execSync(command, { encoding: "utf8" })) as unknown;
}
