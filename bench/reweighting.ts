/**
 * Distribution reweighting at full size: the cost of an update of N bases over k domains on the host, and the cost of drawing a domain as k
 * grows.
 *
 * An update is all that happens between two batches: the alignments of all bases from the numbers of the examples, the step of the rule, the proposal and
 * the new domain weights, and the tables for drawing from both. Options: --k N (262144), --bases N (1000), --nonzeros N (300 per basis), --examples N
 * (4096), --seconds N per case (2).
 */
import benny from "benny";
import { createSampler } from "gradmix/data";
import {
  basisAlignments,
  createBases,
  createMixer,
  currentWeights,
  mixtureOf,
  proposal,
  update,
} from "gradmix/dga";
import { random } from "./_languages.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["k", "bases", "nonzeros", "examples", "seconds"]);
  const number = read.count;
  const [k, n, nonzeros, count] = [
    number("k", 2 ** 18),
    number("bases", 1000),
    number("nonzeros", 300),
    number("examples", 4096),
  ];
  const seconds = read.positive("seconds", 2);
  const next = random(3);
  const domains = Array.from({ length: k }, (_, i) => `d${i}`);
  const histograms = new Map<string, Map<string, number>>();
  for (let j = 0; j < n; j++)
    histograms.set(
      `basis ${j}`,
      new Map(
        Array.from({ length: nonzeros }, () => [
          domains[Math.floor(next() * k)] ?? "",
          1 + Math.floor(next() * 50),
        ]),
      ),
    );
  const before = process.memoryUsage().arrayBuffers;
  const bases = createBases(histograms, domains, { counts: true });
  const makingBytes = process.memoryUsage().arrayBuffers - before;
  const bytes = [bases.offsets, bases.columns, bases.values].reduce((sum, held) => sum + held.byteLength, 0);

  const mixer = createMixer({ domains: bases.names, rule: { name: "dga", normalise: "cosine" } });
  const sampler = samplerOf(domains);
  let state = mixer.initial;
  const alpha = new Float64Array(k);
  const q = new Float64Array(k);
  proposal(bases, currentWeights(state), { out: q });
  const drawn = sampler.draw(q, count).map(({ domain }) => domain);
  const examples = {
    domainOf: Int32Array.from(drawn),
    tokens: new Float64Array(count).fill(512),
    dots: Float64Array.from(drawn, () => 512 * (next() - 0.4)),
    squaredNorms: Float64Array.from(drawn, () => 1 + next()),
    losses: Float64Array.from(drawn, () => 512 * (3 + next())),
  };
  const once = (): void => {
    const measured = basisAlignments(bases, q, examples);
    const { effectiveSizes: _, ...signal } = measured;
    state = update(mixer, state, { ...signal, targetNorm: 1 });
    const weights = currentWeights(state);
    mixtureOf(bases, weights, alpha);
    sampler.prepare(alpha);
    proposal(bases, weights, { out: q });
    sampler.prepare(q);
  };
  const ready = sampler.prepare(q);
  const draws = 100_000;
  const drawing = sizes.map((size) => {
    const weights = Float64Array.from({ length: size }, () => 0.1 + next());
    const sum = weights.reduce((a, b) => a + b, 0);
    const choice = samplerOf(domains.slice(0, size)).prepare(weights.map((w) => w / sum));
    return { size, choice };
  });
  let sink = 0;
  const drawFrom = (choice: { at(u: number): number }) => (): void => {
    for (let i = 0; i < draws; i++) sink += choice.at((i * 0.6180339887498949) % 1);
  };
  const { log } = console;
  console.log = console.error;
  const settings = { maxTime: seconds, minSamples: 5 };
  const summary = await benny.suite(
    `k = ${k}, N = ${n}`,
    benny.add("update", once, settings),
    benny.add("draw", drawFrom(ready), settings),
    ...drawing.map(({ size, choice }) => benny.add(`draw ${size}`, drawFrom(choice), settings)),
  );
  console.log = log;
  const median = (name: string): number =>
    summary.results.find((r) => r.name === name)?.details.median ?? NaN;
  return {
    node: process.version,
    k,
    bases: n,
    nonzeros: bases.values.length,
    examples: count,
    updateMilliseconds: 1e3 * median("update"),
    makingBytes,
    bytes,
    bytesPerNonzero: bytes / bases.values.length,
    drawNanoseconds: (1e9 * median("draw")) / draws,
    draws: drawing.map(({ size }) => ({ k: size, nanoseconds: (1e9 * median(`draw ${size}`)) / draws })),
    checked: Number.isFinite(sink),
  };
}

const sizes = [2 ** 10, 2 ** 12, 2 ** 14, 2 ** 16, 2 ** 18];

function samplerOf(names: readonly string[]): ReturnType<typeof createSampler> {
  return createSampler({
    domains: names.map((name) => ({ name, count: 100, tokensOf: () => 512 })),
    seed: 1,
  });
}
