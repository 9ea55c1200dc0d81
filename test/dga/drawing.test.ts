/** The batches that a trainer draws, against separate samplers. */
import { init, shutdown } from "gradmix";
import { createSampler, type Draw, type Windows } from "gradmix/data";
import { type AlignmentOptions, createBases, createMixer, mixtureOf, type TrainerOptions } from "gradmix/dga";
import type { GPT } from "gradmix/nn";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { assemble } from "#dist/data/dataset.js";
import { createDrawing, type DrawingState } from "#dist/dga/drawing.js";
import { codeOf } from "../errors.ts";
import { language, tiny, windows } from "./languages.ts";

const names = ["a", "b", "c"];
const domains = names.map((name, i) => windows(name, [language(i + 1, 300)]));
const [target, first, second] = ["t", "t1", "t2"].map((name, i) => windows(name, [language(i + 5, 120)]));

let model: GPT;
beforeAll(async () => {
  await init({ backend: "reference" });
  model = tiny();
});
afterAll(shutdown);

const options = (more: Partial<TrainerOptions> = {}): TrainerOptions => ({
  model,
  mixer: createMixer({ domains: names, rule: { name: "uniform" } }),
  domains,
  target,
  batch: 9,
  schedule: () => 0.1,
  seed: 3,
  ...more,
});
const weights = Float64Array.of(0.2, 0.5, 0.3);
const alignment: AlignmentOptions = { domainExamples: 3, targetExamples: 5 };
const batchOf = (draws: readonly Draw[], sources: readonly Windows[] = domains): unknown =>
  assemble(draws, sources);

const [ALIGNMENT, TARGET] = [1_000_003, 2_000_003];

test("every seed gives three streams of its own", () => {
  const max = Number.MAX_SAFE_INTEGER;
  const edges = [
    0,
    1,
    max,
    max - 1,
    ...[ALIGNMENT, TARGET].flatMap((n) => [max - n - 1, max - n, max - n + 1]),
  ];
  fc.assert(
    fc.property(fc.oneof(fc.maxSafeNat(), fc.constantFrom(...edges)), (seed) => {
      const { sampler, alignmentSampler, targetSampler } = createDrawing(options({ seed })).state();
      const other = (stream: number): number => Number((BigInt(seed) + BigInt(stream)) % (1n << 53n));
      expect([sampler.seed, alignmentSampler.seed, targetSampler.seed]).toEqual([
        seed,
        other(ALIGNMENT),
        other(TARGET),
      ]);
    }),
    { examples: edges.map((seed): [number] => [seed]) },
  );
});

test.each([undefined, "multinomial", "systematic"] as const)(
  "training batches are the draws of the sampler, sorted by domain (%s)",
  (sampling) => {
    const drawing = createDrawing(options(sampling === undefined ? {} : { sampling }));
    const sampler = createSampler({ domains, seed: 3, mode: sampling ?? "multinomial" });
    const mixture = drawing.prepare(weights);
    expect(mixture).toMatchObject({ weights, domainWeights: weights });
    for (let i = 0; i < 5; i++) {
      const draws = [...sampler.draw(weights, 9)].sort((a, b) => a.domain - b.domain);
      const { batch, domainOf } = drawing.training(mixture);
      expect(batch).toEqual(batchOf(draws));
      expect([...domainOf]).toEqual(draws.map(({ domain }) => domain));
    }
    expect(drawing.tokens()).toEqual(sampler.tokens());
    for (const i of [0, 1, 2]) expect(drawing.seen(i)).toEqual(sampler.seen(i));
  },
);

test("alignments get their examples from each domain or each basis; a shared batch has 16 times as many", () => {
  const bases = createBases({ x: [0, 0, 1], y: [0.5, 0.5, 0], z: [1, 0, 0] }, names);
  const rows = [weights.map((_, i) => [0, 0, 1][i]), Float64Array.of(0.5, 0.5, 0), Float64Array.of(1, 0, 0)];
  const mixer = createMixer({ domains: bases.names, rule: { name: "uniform" } });
  const plain = createDrawing(options({ alignment }));
  const based = createDrawing(options({ alignment, bases, mixer }));
  const [sampler, ofBases] = [0, 1].map(() => createSampler({ domains, seed: 3 + ALIGNMENT }));
  for (let i = 0; i < 3; i++) {
    expect(plain.alignment()).toEqual(names.map((_, d) => batchOf(sampler.drawFrom(d, 3))));
    expect(based.alignment()).toEqual([
      batchOf(ofBases.drawFrom(2, 3)),
      batchOf(ofBases.draw(rows[1], 3)),
      batchOf(ofBases.drawFrom(0, 3)),
    ]);
    const draws = ofBases.draw(weights, 48);
    const { batch, domainOf } = based.shared(weights);
    expect(batch).toEqual(batchOf(draws));
    expect([...domainOf]).toEqual(draws.map(({ domain }) => domain));
  }
  const { domainWeights } = based.prepare(weights);
  expect(domainWeights).toEqual(mixtureOf(bases, weights));
});

test("target 0 is the single target if there is one; the others follow", () => {
  const targets = new Map([
    ["one", first],
    ["two", second],
  ]);
  for (const [more, sources] of [
    [{}, [target]],
    [{ targets }, [target, first, second]],
    [{ target: null, targets }, [first, second]],
  ] as const) {
    const drawing = createDrawing(options({ alignment, ...more }));
    const sampler = createSampler({ domains: sources, seed: 3 + TARGET });
    for (const t of [...sources.keys(), 0])
      expect(drawing.target(t)).toEqual(batchOf(sampler.drawFrom(t, 5), sources));
  }
});

test("is restored completely or not at all", () => {
  const make = () => createDrawing(options({ alignment }));
  const [ahead, tried] = [make(), make()];
  const use = (drawing: ReturnType<typeof make>): unknown => [
    drawing.training(drawing.prepare(weights)),
    drawing.alignment(),
    drawing.target(0),
  ];
  use(ahead);
  const state = ahead.state();
  const before = tried.state();
  for (const part of Object.keys(state) as (keyof DrawingState)[]) {
    expect(codeOf(() => tried.restore({ ...state, [part]: null }))).toMatch(/^checkpoint: /);
    expect(tried.state()).toEqual(before);
  }
  tried.restore(JSON.parse(JSON.stringify(state)) as DrawingState);
  expect(tried.state()).toEqual(state);
  expect(use(tried)).toEqual(use(ahead));
});
