/**
 * What the alignments of k domains cost beside a plain training step on the same tokens, for growing k.
 *
 * - segmented: the training step itself, that also yields every domain's alignment and norm.
 * - forward: one forward-mode pass on top of the step.
 * - perDomain: a gradient for each domain on top of the step (the paper's way).
 *
 * The direction (the target's gradient) is given; every way needs it. The model is small (d 128, 4 layers, T 64), so that what does not shrink with the
 * model shows. Options: --k 4,16,64,256,1024, --threads N (2), --seconds N a case (2), --svg FILE to draw the figure.
 */
import benny from "benny";
import { writeFileSync } from "node:fs";
import {
  alignSink,
  forwardDerivative,
  gradients,
  init,
  keep,
  scope,
  shutdown,
  type Tensor,
  tensor,
} from "gradmix";
import { type Batch, meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT } from "gradmix/nn";
import type { BenchOptions } from "./main.ts";

const vocabSize = 1024;
const time = 64;
const least = 64;

interface Row {
  k: number;
  examples: number;
  plainSeconds: number;
  /** Seconds over the plain step's, all with the step. */
  segmented: number;
  forward: number;
  perDomain: number;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const threads = Number(options["threads"] ?? 2);
  const seconds = Number(options["seconds"] ?? 2);
  const ks = typeof options["k"] === "string" ? options["k"].split(",").map(Number) : [4, 16, 64, 256, 1024];
  const backend = await init({ backend: "cpu", threads });
  const model = createGPT({ vocabSize, dim: 128, layers: 4, heads: 4, context: time });
  const { parameters } = model;
  const optimizer = adamw(parameters);
  const [gradient, direction, other] = [arenaLike(parameters), arenaLike(parameters), arenaLike(parameters)];
  const done = async (...tensors: Tensor[]): Promise<void> => {
    for (const t of tensors) {
      await t.data();
      t.dispose();
    }
  };
  const update = (): Promise<void> => done(optimizer.step(gradient.arena, 1e-4));

  const rows: Row[] = [];
  for (const k of ks) {
    const examples = Math.max(k, least);
    const batch = batchOf(examples);
    const segments = Array.from({ length: k + 1 }, (_, i) => Math.round((i * examples) / k));
    await done(meanGradient(model, batchOf(8), direction));
    const plain = async (): Promise<void> => {
      await done(meanGradient(model, batch, gradient));
      await update();
    };
    const ways = {
      plain,
      segmented: async () => {
        const sink = alignSink({
          examples,
          segments,
          direction: { given: (p) => direction.of(p) },
          total: { gradientOf: (p) => gradient.of(p) },
        });
        const losses = keep(
          scope(() => {
            const weights = new Float64Array(examples).fill(1 / (examples * time));
            return gradients(() => model.losses(...upload(batch)), {
              parameters: parameters.list,
              sink,
              weights,
            });
          }),
        );
        await sink.result();
        sink.dispose();
        await done(losses);
        await update();
      },
      forward: async () => {
        await plain();
        const tangents = new Map(parameters.list.map((p) => [p, direction.of(p)]));
        const { losses, derivatives } = scope(() =>
          forwardDerivative(() => model.losses(...upload(batch)), tangents),
        );
        await done(keep(losses), keep(derivatives));
      },
      perDomain: async () => {
        await plain();
        for (let i = 0; i < k; i++) {
          const [first = 0, last = 0] = segments.slice(i, i + 2);
          await done(meanGradient(model, part(batch, first, last), other));
        }
      },
    };
    const { log } = console;
    console.log = console.error;
    const summary = await benny.suite(
      `k = ${k}`,
      ...Object.entries(ways).map(([name, way]) => benny.add(name, way, { maxTime: seconds, minSamples: 3 })),
    );
    console.log = log;
    const median = (name: string): number =>
      summary.results.find((r) => r.name === name)?.details.median ?? NaN;
    const plainSeconds = median("plain");
    rows.push({
      k,
      examples,
      plainSeconds,
      segmented: median("segmented") / plainSeconds,
      forward: median("forward") / plainSeconds,
      perDomain: median("perDomain") / plainSeconds,
    });
  }
  const result = {
    node: process.version,
    threads,
    simd: backend.capabilities.simd,
    params: parameters.count,
    rows,
  };
  await shutdown();
  if (typeof options["svg"] === "string") writeFileSync(options["svg"], draw(rows));
  return result;
}

function upload(batch: Batch): [Tensor, Tensor] {
  const shape = [batch.inputs.length / batch.time, batch.time];
  return [tensor(batch.inputs, shape, "i32"), tensor(batch.targets, shape, "i32")];
}

function batchOf(examples: number): Batch {
  let state = 7;
  const next = (): number => (state = (state * 48271) % 2147483647) % vocabSize;
  return {
    inputs: Int32Array.from({ length: examples * time }, next),
    targets: Int32Array.from({ length: examples * time }, next),
    tokens: new Int32Array(examples).fill(time),
    time,
  };
}

function part(batch: Batch, first: number, last: number): Batch {
  return {
    inputs: batch.inputs.subarray(first * time, last * time),
    targets: batch.targets.subarray(first * time, last * time),
    tokens: Array.from(batch.tokens).slice(first, last),
    time,
  };
}

/** Cost over a plain step against k, both on logarithmic axes. */
function draw(rows: readonly Row[]): string {
  const [left, top, width, height] = [60, 46, 430, 230];
  const most = Math.max(4, ...rows.map((row) => row.perDomain));
  const highest = 2 ** Math.ceil(Math.log2(most));
  const x = (k: number): number => left + (Math.log2(k / 4) / 8) * width;
  const y = (cost: number): number => top + (1 - Math.log2(Math.max(1, cost)) / Math.log2(highest)) * height;
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 330" width="620" height="330" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="620" height="330" fill="#ffffff"/>`,
    `<text x="${left}" y="22" font-weight="600" font-size="14">Alignments of k domains with the training step</text>`,
    `<text x="${left}" y="38" fill="#666">time over a plain step</text>`,
  ];
  for (let cost = 1; cost <= highest; cost *= 2)
    out.push(
      `<line x1="${left}" x2="${left + width}" y1="${y(cost).toFixed(1)}" y2="${y(cost).toFixed(1)}" stroke="#e5e5e5"/>`,
      `<text x="${left - 6}" y="${(y(cost) + 4).toFixed(1)}" text-anchor="end" fill="#666">${cost}×</text>`,
    );
  for (const { k } of rows)
    out.push(`<text x="${x(k)}" y="${top + height + 18}" text-anchor="middle" fill="#666">${k}</text>`);
  out.push(
    `<text x="${left + width / 2}" y="${top + height + 36}" text-anchor="middle" fill="#666">domains k</text>`,
  );
  const series = [
    ["perDomain", "#ff725c"],
    ["forward", "#efb118"],
    ["segmented", "#4269d0"],
  ] as const;
  for (const [name, colour] of series) {
    const points = rows.map((row) => `${x(row.k).toFixed(1)},${y(row[name]).toFixed(1)}`);
    const end = rows.at(-1)?.[name] ?? 1;
    out.push(
      `<polyline points="${points.join(" ")}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      `<text x="${left + width + 8}" y="${(y(end) + 4).toFixed(1)}" fill="${colour}" font-weight="600">${name} ${end.toFixed(end < 10 ? 2 : 0)}×</text>`,
    );
  }
  out.push("</svg>", "");
  return out.join("\n");
}
