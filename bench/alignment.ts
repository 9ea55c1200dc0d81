/**
 * The cost of the alignments of k domains, relative to a plain training step, and their accuracy.
 *
 * Cost, as a multiple of the time of a plain step of the same batch (so 1 means no cost), for growing k and a fixed training batch:
 * - segmented: the training step itself, which also gives the alignment and the norm of every example, for any number of domains.
 * - forward: one forward-mode pass over the training batch on top of the step.
 * - sketch: one sketching pass over the training batch on top of the step.
 * - lastBlock: one segmented pass over the training batch on top of the step, which uses only the gradients of the last block and the head.
 * - perDomain: a gradient of one window of each domain on top of the step (the method of the paper, which uses more than one window).
 * The direction (the target's gradient) is given, since every method needs it. The model is small (d 128, 4 layers, T 64), so that costs that do not shrink
 * with the model are visible.
 *
 * Accuracy: alignments from repeated draws of a few windows per domain, compared with those of all windows, in units of ‖gᵢ‖·‖g‖: the bias (root mean square
 * over domains of the mean error) and the standard deviation of a draw.
 *
 * Options: --k 4,16,64,256,1024, --batches 16,64, --threads N (2), --seconds N a case (2), --cap SECONDS (30: a way of which one run takes longer
 * is not measured, and is null), --backend cpu|webgpu (all that are here), --figure FILE, --draws N (30; 0 leaves accuracy out).
 */
import benny from "benny";
import { writeFileSync } from "node:fs";
import {
  alignSink,
  forwardDerivative,
  GradmixError,
  gradients,
  init,
  keep,
  scope,
  shutdown,
  sketchSink,
  type Tensor,
} from "gradmix";
import { estimateAlignments, lastBlocks, meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT, type TokenBatch } from "gradmix/nn";
import { drawPanels, logAxis } from "#dist/report/chart.js";
import { joined, windowsOf } from "./_languages.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

const shape = { time: 64, vocabSize: 1024 };
const ways = ["segmented", "lastBlock", "sketch", "forward", "perDomain"] as const;
type Way = (typeof ways)[number];

/** Time of each way over that of a plain step; null where a single run took longer than the cap. */
interface Row extends Record<Way, number | null> {
  k: number;
  /** Windows in the training batch. */
  batch: number;
  plainSeconds: number | null;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, [
    ...["k", "batches", "threads", "seconds", "cap", "backend", "figure", "draws"],
  ]);
  const threads = read.count("threads", 2);
  const ks = read.counts("k", [4, 16, 64, 256, 1024]);
  const batches = read.counts("batches", [16, 64]);
  const draws = read.count("draws", 30, 0);
  const figure = read.text("figure");
  const limits = { seconds: read.positive("seconds", 2), cap: read.positive("cap", 30) };
  const only = read.choice("backend", ["cpu", "webgpu", "all"], "all");
  const wanted = only === "all" ? (["cpu", "webgpu"] as const) : [only];
  const backends = [];
  for (const name of wanted) {
    try {
      const { capabilities } = await init({
        backend: name,
        vectorBits: "auto",
        ...(name === "cpu" ? { threads } : {}),
      });
      const rows: Row[] = [];
      for (const batch of batches) rows.push(...(await costs(batch, ks, limits)));
      backends.push({
        backend: name,
        simd: capabilities.simd,
        vectorBits: capabilities.vectorBits,
        threads: capabilities.threads,
        rows,
        accuracy: draws > 0 ? await accuracy(draws) : null,
      });
    } catch (error) {
      // A backend that this machine does not have is left out, unless it was asked for.
      if (!(error instanceof GradmixError) || wanted.length === 1) throw error;
      console.error(`${name}: ${error.message}`);
    } finally {
      await shutdown();
    }
  }
  const first = backends[0];
  if (figure !== null && first !== undefined) writeFileSync(figure, draw(first.rows));
  return { node: process.version, backends };
}

const model = (): ReturnType<typeof createGPT> =>
  createGPT({ vocabSize: shape.vocabSize, dim: 128, layers: 4, heads: 4, context: shape.time });

async function done(...tensors: Tensor[]): Promise<void> {
  for (const t of tensors) {
    await t.data();
    t.dispose();
  }
}

/** `seconds`: how long a case is measured; `cap`: how long one run of it may take. */
async function costs(
  examples: number,
  ks: readonly number[],
  { seconds, cap }: { seconds: number; cap: number },
): Promise<Row[]> {
  const gpt = model();
  const last = [...gpt.parameters.byName].filter(([name]) => lastBlocks(gpt, 1)(name)).map(([, p]) => p);
  const { parameters } = gpt;
  const optimizer = adamw(parameters);
  const [gradient, direction, other] = [arenaLike(parameters), arenaLike(parameters), arenaLike(parameters)];
  await done(meanGradient(gpt, windowsOf(0, 8, shape), direction));
  const rows: Row[] = [];
  for (const k of ks) {
    const batch = joined(
      Array.from({ length: examples }, (_, e) => windowsOf(e % k, 1, { ...shape, seed: e })),
    );
    const own = Array.from({ length: k }, (_, i) => windowsOf(i, 1, shape));
    const update = (): Promise<void> => done(optimizer.step(gradient.arena, 1e-4));
    const plain = async (): Promise<void> => {
      await done(meanGradient(gpt, batch, gradient));
      await update();
    };
    const segments = Array.from({ length: examples + 1 }, (_, e) => e);
    let deadline = Infinity;
    const cases: Record<Way | "plain", () => Promise<void>> = {
      plain,
      segmented: async () => {
        const sink = alignSink({
          examples,
          direction: { given: (p) => direction.of(p) },
          total: { gradientOf: (p) => gradient.of(p) },
        });
        const weights = new Float64Array(examples).fill(1 / (examples * shape.time));
        const losses = keep(
          scope(() => gradients(() => gpt.losses(batch), { parameters: parameters.list, sink, weights })),
        );
        await sink.result();
        sink.dispose();
        await done(losses);
        await update();
      },
      forward: async () => {
        await plain();
        const tangents = new Map(parameters.list.map((p) => [p, direction.of(p)]));
        const { losses, derivatives } = scope(() => forwardDerivative(() => gpt.losses(batch), tangents));
        await done(keep(losses), keep(derivatives));
      },
      sketch: async () => {
        await plain();
        const sink = sketchSink({ segments, parameters: parameters.list });
        const losses = keep(
          scope(() => gradients(() => gpt.losses(batch), { parameters: parameters.list, sink })),
        );
        await sink.result();
        sink.dispose();
        await done(losses);
      },
      lastBlock: async () => {
        await plain();
        const sink = alignSink({ examples, direction: { given: (p) => direction.of(p) } });
        const losses = keep(scope(() => gradients(() => gpt.losses(batch), { parameters: last, sink })));
        await sink.result();
        sink.dispose();
        await done(losses);
      },
      perDomain: async () => {
        await plain();
        for (const one of own) {
          if (performance.now() > deadline) return;
          await done(meanGradient(gpt, one, other));
        }
      },
    };
    // Each once, so that all are warm, and to see which keep below the cap.
    const within: [string, () => Promise<void>][] = [];
    for (const [name, way] of Object.entries(cases)) {
      deadline = performance.now() + 1e3 * cap;
      await way();
      if (performance.now() <= deadline) within.push([name, way]);
    }
    deadline = Infinity;
    const { log } = console;
    console.log = console.error;
    const measured = within.map(([name, way]) => benny.add(name, way, { maxTime: seconds, minSamples: 3 }));
    const summary =
      measured.length === 0 ? null : await benny.suite(`k = ${k}, ${examples} windows`, ...measured);
    console.log = log;
    const median = (name: string): number | null =>
      summary?.results.find((r) => r.name === name)?.details.median ?? null;
    const plainSeconds = median("plain");
    const over = (way: Way): number | null => {
      const own = median(way);
      return own === null || plainSeconds === null ? null : own / plainSeconds;
    };
    rows.push({
      ...{ k, batch: examples, plainSeconds, segmented: over("segmented"), forward: over("forward") },
      ...{ sketch: over("sketch"), lastBlock: over("lastBlock"), perDomain: over("perDomain") },
    });
  }
  for (const it of [gradient, direction, other, optimizer, gpt]) it.dispose();
  return rows;
}

interface Accuracy {
  estimator: string;
  windowsPerDomain: number;
  /** Shares of ‖gᵢ‖·‖g‖. */
  bias: number;
  /** The expected bias of an unbiased estimate: deviation/√draws. */
  biasNoise: number;
  deviation: number;
}

/** Against the alignments of all windows, with the target's gradient of all of its windows. */
async function accuracy(draws: number): Promise<Accuracy[]> {
  const [k, all] = [8, 64];
  const gpt = model();
  const optimizer = adamw(gpt.parameters);
  const gradient = arenaLike(gpt.parameters);
  const whole = Array.from({ length: k }, (_, i) => windowsOf(i, all, { ...shape, seed: 5 }));
  const take = (i: number, windows: readonly number[]): TokenBatch =>
    joined(
      windows.map((w) => ({
        inputs: whole[i]?.inputs.subarray(w * shape.time, (w + 1) * shape.time) ?? new Int32Array(),
        targets: whole[i]?.targets.subarray(w * shape.time, (w + 1) * shape.time) ?? new Int32Array(),
        tokens: [shape.time],
        time: shape.time,
      })),
    );
  // A model that has learnt a little, so that the domains differ.
  for (let step = 0; step < 30; step++) {
    await done(
      meanGradient(
        gpt,
        joined(whole.map((_, i) => take(i, [(step * 5) % all, (step * 11 + 3) % all]))),
        gradient,
      ),
    );
    await done(optimizer.step(gradient.arena, 2e-3));
  }
  const target = joined([0, 1].map((i) => windowsOf(i, 32, { ...shape, seed: 9 })));
  const truth = await estimateAlignments("segmented", gpt, target, whole, { maxExamples: 128 });
  const out: Accuracy[] = [];
  for (const count of [1, 4])
    for (const estimator of ["perDomain", "segmented", "forward", "sketch"] as const) {
      const errors = Array.from({ length: k }, (): number[] => []);
      for (let d = 0; d < draws; d++) {
        const drawn = whole.map((_, i) =>
          take(
            i,
            Array.from({ length: count }, (__, n) => (37 * d + 13 * i + 29 * n) % all),
          ),
        );
        const found = await estimateAlignments(estimator, gpt, target, drawn, { sketch: { seed: d + 1 } });
        found.alignments.forEach((a, i) => {
          const scale = (truth.norms?.[i] ?? NaN) * truth.targetNorm;
          errors[i]?.push((a - (truth.alignments[i] ?? NaN)) / scale);
        });
      }
      const means = errors.map((own) => own.reduce((sum, e) => sum + e, 0) / draws);
      const variances = errors.map(
        (own, i) => own.reduce((sum, e) => sum + (e - (means[i] ?? 0)) ** 2, 0) / Math.max(1, draws - 1),
      );
      const rms = (values: readonly number[]): number =>
        Math.sqrt(values.reduce((sum, v) => sum + v, 0) / values.length);
      out.push({
        estimator,
        windowsPerDomain: count,
        bias: rms(means.map((m) => m * m)),
        biasNoise: rms(variances) / Math.sqrt(draws),
        deviation: rms(variances),
      });
    }
  for (const it of [gradient, optimizer, gpt]) it.dispose();
  return out;
}

const colours: Record<Way, string> = {
  perDomain: "#ff725c",
  sketch: "#6cc5b0",
  forward: "#efb118",
  lastBlock: "#a463f2",
  segmented: "#4269d0",
};

/** Cost over a plain step against k, both on logarithmic axes: a panel for every size of the training batch. */
function draw(rows: readonly Row[]): string {
  const ks = [...new Set(rows.map((row) => row.k))].sort((a, b) => a - b);
  const highest = Math.ceil(Math.log2(Math.max(4, ...rows.map((row) => row.perDomain ?? 1))));
  const powers = Array.from({ length: highest + 1 }, (_, i) => 2 ** i);
  const panels = [...new Set(rows.map((row) => row.batch))].map((batch) => ({
    title: `The alignments of k domains, beside ${batch} windows`,
    ...{ x: logAxis(ks), xLabel: "domains k" },
    ...{ y: logAxis(powers, (cost) => `${cost}×`), yLabel: "time over a plain step" },
    series: ways.map((way) => {
      const points = rows.flatMap(({ batch: own, k, [way]: cost }) =>
        own !== batch || cost === null ? [] : [{ x: k, y: cost }],
      );
      const end = points.at(-1)?.y ?? 1;
      return { name: `${way} ${end.toFixed(end < 10 ? 2 : 0)}×`, colour: colours[way], points };
    }),
  }));
  return drawPanels(panels);
}
