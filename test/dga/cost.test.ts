/** The predicted cost of a run's alignments, against counts by hand and against the examples that a trainer passes through its model. */
import { init, shutdown } from "gradmix";
import {
  type AlignmentOptions,
  type Bases,
  createBases,
  createMixer,
  createTrainer,
  type RuleOptions,
} from "gradmix/dga";
import { exampleCount } from "#dist/nn/examples.js";
import { type CostFacts, measuringPasses, updatesWithin } from "#dist/dga/cost.js";
import { nextUpdate } from "#dist/dga/mixer.js";
import { measuredSteps, targetRefreshes } from "#dist/dga/plan.js";
import { alignmentDefaults } from "#dist/dga/alignment-options.js";
import type { Model } from "gradmix/nn";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

const named = (k: number): string[] => Array.from({ length: k }, (_, i) => `d${i}`);

interface Setup {
  k?: number;
  rule?: RuleOptions;
  alignment?: AlignmentOptions;
  bases?: Bases;
  targets?: number;
  steps?: number;
  batch?: number;
  every?: number;
  after?: number;
}

/** Of what the backward pass goes through, a tenth is in the head, and four tenths in the last block. */
const specs: CostFacts["specs"] = [
  { name: "embedding", shape: [50, 10] },
  { name: "first", shape: [5, 10], block: 0 },
  { name: "last", shape: [4, 10], block: 1 },
  { name: "head", shape: [10, 1], block: "after" },
].map((spec) => ({ init: { kind: "constant", value: 0 }, decay: false, ...spec }) as CostFacts["specs"][0]);

function facts(setup: Setup): CostFacts {
  const { k = 3, rule = { name: "dga" }, alignment = {}, bases, targets = 0 } = setup;
  const { steps = 12, batch = 5, every = 4, after = 0 } = setup;
  return {
    mixer: createMixer({
      domains: bases?.names ?? named(k),
      rule,
      updateEvery: every,
      updateAfter: after,
    }),
    alignment: { ...alignmentDefaults, ...alignment },
    bases: bases ?? null,
    specs,
    targets,
    steps,
    batch,
    time: 100,
  };
}

const sizes = { domainExamples: 4, targetExamples: 16 } as const;
const batch = (more: AlignmentOptions = {}): AlignmentOptions => ({ from: "batch", ...sizes, ...more });
const grape = (targets: number): RuleOptions => ({ name: "grape", targets: named(targets) });

describe("by hand, in forward passes of a window", () => {
  test.each<[string, Setup, number]>([
    // Three updates; a gradient costs three forward passes, and one that also measures its examples 4 % more.
    ["a batch of 24 domains", { k: 24, alignment: batch() }, 3 * 3 * (16 + 96 * 1.04)],
    ["by a gradient each", { k: 24, alignment: batch({ estimator: "perDomain" }) }, 3 * 3 * (16 + 24 * 4.25)],
    [
      "by one forward mode pass",
      { k: 24, rule: { name: "dga", normalise: "raw" }, alignment: batch({ estimator: "forward" }) },
      3 * 3 * (16 + 96),
    ],
    ["by sketches", { k: 24, alignment: batch({ estimator: "sketch" }) }, 3 * 3 * (16 + 96) * 0.75],
    // Steps 1, 5 and 9 begin with a gradient of the target.
    [
      "from the steps",
      { k: 24, alignment: { ...sizes, from: "step", refreshEvery: 4, measureEvery: 1 } },
      3 * 3 * 16 + 12 * 3 * 5 * 0.04,
    ],
    [
      "from every second step",
      { k: 24, alignment: { ...sizes, from: "step", refreshEvery: 4 } },
      3 * 3 * 16 + 6 * 3 * 5 * 0.04,
    ],
    [
      "from the steps, of which the first eight are no one's",
      { k: 24, after: 12, alignment: { ...sizes, from: "step", refreshEvery: 4, measureEvery: 1 } },
      1 * 3 * 16 + 4 * 3 * 5 * 0.04,
    ],
    [
      "from the steps, where an update comes sooner than a refresh, and makes one",
      { steps: 25, alignment: { ...sizes, from: "step", refreshEvery: 10, measureEvery: 1 } },
      7 * 3 * 16 + 25 * 3 * 5 * 0.04,
    ],
    // Of ten examples per update, less than one is expected of each domain.
    [
      "from the steps, with one example of up to 7 more domains at each update",
      { k: 24, alignment: { ...sizes, from: "step", refreshEvery: 4, probes: 7 } },
      3 * 3 * 16 + 6 * 3 * 5 * 0.04 + 3 * 3 * (7 * 1.04 + 0.25),
    ],
    [
      "from the steps, with one example of the only domain that they hardly draw",
      {
        k: 3,
        rule: { name: "dga", start: [0.85, 0.1, 0.05] },
        alignment: { ...sizes, from: "step", refreshEvery: 4, probes: 7 },
      },
      3 * 3 * 16 + 6 * 3 * 5 * 0.04 + 3 * 3 * (1 * 1.04 + 0.25),
    ],
    ["from the steps, in a run that ends within its warm-up", { after: 13, alignment: { from: "step" } }, 0],
    [
      "from the steps, with an update after each",
      { every: 1, alignment: { ...sizes, from: "step", refreshEvery: 4 } },
      12 * 3 * 16 + 12 * 3 * 5 * 0.04,
    ],
    // A forward pass, and a tenth or a half of a backward pass, which costs two.
    [
      "from the steps, of the head",
      { k: 24, alignment: { ...sizes, from: "step", refreshEvery: 4, blockShare: 0, probes: 7 } },
      3 * 1.2 * 16 + 6 * 3 * 5 * 0.004 + 3 * (7 * (1.2 + 0.012) + 1.2 * 0.25),
    ],
    [
      "from batches, of the last block and the head",
      { k: 24, alignment: batch({ blockShare: 0.5 }) },
      3 * (2 * 16 + 96 * (2 + 0.06)),
    ],
    [
      "by a gradient each, of the head",
      {
        k: 24,
        alignment: batch({
          estimator: "perDomain",
          parameters: (name) => name === "head",
        }),
      },
      3 * 1.2 * (16 + 24 * 4.25),
    ],
    [
      "a Gram matrix of 3, of the head",
      { k: 3, rule: { name: "rnb" }, alignment: batch({ blockShare: 0 }) },
      3 * 1.2 * 3 * 4 * 1.25,
    ],
    ["two targets", { k: 3, rule: grape(2), targets: 2, alignment: batch() }, 3 * 2 * 3 * (16 + 12 * 1.04)],
    ["a Gram matrix of 3", { k: 3, rule: { name: "rnb" }, alignment: batch() }, 3 * 3 * 3 * 4 * 1.25],
    // 70 gradients for the first 32 rows, 38 for the next, 6 for the last.
    ["a Gram matrix of 70", { k: 70, rule: { name: "rnb" }, alignment: batch() }, 3 * 3 * 114 * 4 * 1.25],
    ["reference losses", { k: 3, rule: { name: "doremi" } }, 12 * 5],
    ["losses of the steps", { k: 3, rule: { name: "odm" } }, 0],
    ["fixed weights", { k: 3, rule: { name: "uniform" } }, 0],
    ["a run that ends before its first update", { k: 3, steps: 3, alignment: batch() }, 0],
  ])("%s", (_, setup, passes) => expectNear(measuringPasses(facts(setup)), passes, 1e-9));

  test("a batch that all bases share costs the same for any number of bases; a batch per basis does not", () => {
    const basesOf = (n: number): Bases =>
      createBases(new Map(named(n).map((name, j) => [name, j % 2 === 0 ? [0.5, 0.5, 0] : [0, 0.5, 0.5]])), named(3)); // prettier-ignore
    const cost = (n: number, more: AlignmentOptions): number =>
      measuringPasses(facts({ bases: basesOf(n), alignment: batch(more) }));
    for (const n of [2, 9]) {
      expectNear(cost(n, { bases: "shared" }), 3 * 3 * (16 + 64 * 1.04), 1e-9);
      expectNear(cost(n, { bases: "direct" }), 3 * 3 * (16 + n * 4 * 1.04), 1e-9);
    }
    // Bases that are domains have nothing to share.
    const alone = createBases({ a: [1, 0, 0], b: [0, 0, 1] }, named(3));
    expectNear(
      measuringPasses(facts({ bases: alone, alignment: batch() })),
      3 * 3 * (16 + 2 * 4 * 1.04),
      1e-9,
    );
  });
});

test("measurements of steps cost less if examples are longer, and never more than half a pass", () => {
  const own = facts({
    ...{ steps: 10, every: 100 },
    after: 10,
    alignment: { ...sizes, from: "step", refreshEvery: 100, measureEvery: 1 },
  });
  const share = (tokens: number): number =>
    (measuringPasses({ ...own, time: tokens }) - 3 * 16) / (10 * 3 * 5);
  for (const [tokens, want] of [
    [1, 0.5],
    [8, 0.5],
    [16, 0.25],
    [64, 0.0625],
    [1024, 1 / 256],
  ])
    // prettier-ignore
    expectNear(share(tokens), want, 1e-9);
});

test("the number of updates is that of the mixer", () => {
  const cases = fc.record({
    every: fc.integer({ min: 1, max: 9 }),
    after: fc.oneof(fc.constant(0), fc.nat(30)),
    steps: fc.nat(60),
    rule: fc.constantFrom<RuleOptions>({ name: "dga" }, { name: "uniform" }),
  });
  fc.assert(
    fc.property(cases, ({ every, after, steps, rule }) => {
      const { mixer } = facts({ every, after, rule });
      let updates = 0;
      for (let at = nextUpdate(mixer, 0); at <= steps; at = nextUpdate(mixer, at)) updates++;
      expect(updatesWithin(mixer, steps)).toBe(updates);
    }),
  );
});

test("measured steps and refreshes of the target are those that follow one by one", () => {
  const upTo = fc.integer({ min: 1, max: 12 });
  fc.assert(
    fc.property(fc.nat(40), upTo, upTo, (steps, measureEvery, refreshEvery) => {
      let [measured, refreshes, due] = [0, 0, 0];
      for (let step = 0; step < steps; step += measureEvery) {
        measured++;
        if (step < due) continue;
        refreshes++;
        due = (Math.floor(step / refreshEvery) + 1) * refreshEvery;
      }
      const alignment = { measureEvery, refreshEvery };
      expect(measuredSteps(steps, alignment)).toBe(measured);
      expect(targetRefreshes(steps, alignment)).toBe(refreshes);
    }),
  );
});

test("a longer run costs at least as much, and no run less than nothing", () => {
  fc.assert(
    fc.property(
      fc.nat(30),
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 20 }),
      (steps, every, measureEvery, refreshEvery) => {
        const alignment: AlignmentOptions = { from: "step", measureEvery, refreshEvery };
        const of = (n: number): number => measuringPasses(facts({ every, alignment, steps: n }));
        expect(of(steps)).toBeGreaterThanOrEqual(0);
        expect(of(steps + 1)).toBeGreaterThanOrEqual(of(steps));
      },
    ),
  );
});

describe("the number of examples that pass through the models is the counted one", () => {
  beforeAll(async () => void (await init({ backend: "cpu", threads: 1 })));
  afterAll(shutdown);

  /** A model that counts the examples it is given. */
  function counting(seed: number): { model: Model; examples: () => number } {
    const inner = tiny(seed);
    let examples = 0;
    return {
      model: {
        parameters: inner.parameters,
        losses(given) {
          examples += exampleCount(given);
          return inner.losses(given);
        },
      },
      examples: () => examples,
    };
  }

  const raw: RuleOptions = { name: "dga", normalise: "raw" };
  const small = { domainExamples: 2, targetExamples: 3 } as const;
  const observedShare = (steps: number): number => steps * 3 * 5 * 0.25;
  test.each<[string, Setup, (passes: number) => number]>([
    ["a batch", { rule: raw, alignment: { ...small, from: "batch", estimator: "forward" } }, (p) => p / 3],
    [
      "a batch, after a warm-up",
      { rule: raw, after: 7, alignment: { ...small, from: "batch", estimator: "forward" } },
      (p) => p / 3,
    ],
    [
      "several targets",
      {
        rule: { ...grape(2), normalise: "raw" } as RuleOptions,
        targets: 2,
        alignment: { ...small, from: "batch", estimator: "forward" },
      },
      (p) => p / 3,
    ],
    ["a Gram matrix", { rule: { name: "rnb" }, alignment: { ...small, from: "batch" } }, (p) => p / 3 / 1.25],
    ["the steps", { alignment: { ...small, from: "step", refreshEvery: 2 } }, (p) => (p - observedShare(7)) / 3], // prettier-ignore
    [
      "the steps, with a domain that they hardly draw",
      {
        rule: { ...raw, eta: 0, start: [0.96, 0.02, 0.02] },
        alignment: { ...small, from: "step", refreshEvery: 10, probes: 1 },
      },
      // A pass of its own costs a quarter of an example more.
      (p) => (p - observedShare(7)) / 3 - 4 * (0.25 + 0.25),
    ],
    [
      "every step, the target at updates only",
      { alignment: { ...small, from: "step", refreshEvery: 10, measureEvery: 1 } },
      (p) => (p - observedShare(14)) / 3,
    ],
    [
      "the steps, with the target's gradient at some of the measured ones",
      { alignment: { ...small, from: "step", refreshEvery: 1, measureEvery: 3 } },
      (p) => (p - observedShare(7)) / 3,
    ],
    [
      "the steps, after a warm-up",
      { after: 7, alignment: { ...small, from: "step", refreshEvery: 4 } },
      (p) => (p - observedShare(5)) / 3,
    ],
    ["reference losses", { rule: { name: "doremi" } }, (p) => p],
  ])("%s", async (_, setup, examplesOf) => {
    const steps = 14;
    const { mixer, bases: __, ...own } = { ...facts({ ...setup, steps }), time };
    const [model, reference] = [counting(1), counting(2)];
    const sources = [1, 2, 3].map((seed) => windows(named(3)[seed - 1], [language(seed, 300)]));
    const target = windows("target", [language(1, 200)]);
    const trainer = createTrainer({
      model: model.model,
      mixer,
      domains: sources,
      target: own.targets === 0 ? target : null,
      targets: new Map(named(own.targets).map((name) => [name, target])),
      reference: reference.model,
      alignment: own.alignment,
      batch: own.batch,
      schedule: () => 0.01,
      seed: 1,
    });
    for (let i = 0; i < steps; i++) await trainer.step();
    const beside = model.examples() + reference.examples() - steps * own.batch;
    expect(beside).toBeGreaterThan(0);
    expectNear(examplesOf(measuringPasses({ mixer, bases: null, ...own })), beside, 1e-9);
  });
});
