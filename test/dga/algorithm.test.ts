/**
 * The trainer against Algorithm 1 written out: the test draws every batch with its own sampler and computes every gradient separately and every inner
 * product in doubles. The fusing, caching and streaming of the trainer must not change the result.
 */
import { init, shutdown } from "gradmix";
import { assembleBatch, createSampler, type Draw, type DrawnWindows, type Windows } from "gradmix/data";
import {
  createMixer,
  createRule,
  createTrainer,
  meanGradient,
  type RuleOptions,
  type Trainer,
} from "gradmix/dga";
import { adamw, arenaLike, createSchedule, type Model, type TokenBatch } from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

beforeEach(async () => {
  await init({ backend: "cpu", threads: 1 });
});
afterEach(shutdown);

const names = ["a", "b", "c"];
const domains = [1, 2, 3].map((seed) => windows(names[seed - 1], [language(seed, 40 * seed + 300)]));
// As many windows as the first domain: streams that are not apart would then give the same order.
const target = windows("target", [language(1, 200), language(2, 138)]);
const optimizer = { beta1: 0.8, beta2: 0.9, eps: 1e-3, weightDecay: 0.2, clip: 0.7 };
const schedule = createSchedule({ name: "cosine", lr: 0.02, warmup: 2, steps: 20 });

interface Case {
  readonly rule: RuleOptions;
  readonly from: "batch" | "step";
  readonly updateEvery: number;
  readonly updateAfter?: number;
  readonly refreshEvery: number;
  /** Default 1. */
  readonly measureEvery?: number;
  /** Default 0. */
  readonly probes?: number;
  /** The parameters that are aligned: all of them (1, the default), or the final norm and the head (0). */
  readonly blockShare?: 0 | 1;
  readonly batch: number;
  readonly seed: number;
}

interface Told {
  readonly loss: number;
  readonly weights: readonly number[];
  readonly alignments: readonly number[] | null;
  readonly norms: readonly number[] | null;
  readonly targetNorm: number | null;
}

const [domainExamples, targetExamples] = [3, 4];

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** The gradient of the batch's mean loss per token, with zeros for what is not aligned, and its summed losses. */
async function gradientOf(
  model: Model,
  batch: TokenBatch,
  { blockShare = 1 }: Pick<Case, "blockShare"> = {},
): Promise<{ g: number[]; losses: number[] }> {
  const arena = arenaLike(model.parameters);
  const losses = meanGradient(model, batch, arena);
  for (const [name, p] of model.parameters.byName)
    if (blockShare === 0 && !["norm.weight", "head.weight"].includes(name))
      arena.of(p).write(new Float32Array(p.size));
  const found = { g: Array.from(await arena.arena.data()), losses: Array.from(await losses.data()) };
  losses.dispose();
  arena.dispose();
  return found;
}

/** Row e of a batch. */
const row = (rows: DrawnWindows, e: number): TokenBatch => ({
  inputs: rows.inputs.subarray(e * time, (e + 1) * time),
  targets: rows.targets.subarray(e * time, (e + 1) * time),
  tokens: [rows.tokens[e]],
  time,
});

async function algorithm1(options: Case, steps: number): Promise<Told[]> {
  const { from, updateEvery, refreshEvery, measureEvery = 1, probes = 0 } = options;
  const { batch, seed, updateAfter = 0 } = options;
  const rule = createRule(options.rule);
  const model = tiny();
  const adam = adamw(model.parameters, optimizer);
  const step = arenaLike(model.parameters);
  const training = createSampler({ domains, seed });
  const alignment = createSampler({ domains, seed: seed + 1_000_003 });
  const targets = createSampler({ domains: [target], seed: seed + 2_000_003 });
  const nextTarget = (): DrawnWindows => assembleBatch(targets.drawFrom(0, targetExamples), [target]);
  let state = rule.init(names);
  let v: number[] = [];
  let targetNorms: number[] = [];
  /** For every example since the last update: its step, its domain, its tokens, the gradient of its summed loss, and the product of that gradient with V. */
  let examples: { step: number; domain: number; tokens: number; g: number[]; dot: number }[] = [];
  const told: Told[] = [];
  for (let t = 0; t < steps; t++) {
    const weights = [...state.weights];
    const updates = (step: number): boolean => step % updateEvery === 0 && step >= updateAfter;
    // The steps that lead to an update are those since the one before, or the last T_r of a warm-up.
    const since = t % updateEvery;
    const leads =
      from === "step" &&
      since % measureEvery === 0 &&
      updates(updateEvery * (Math.floor(t / updateEvery) + 1));
    // The target is looked at anew at the first of them, and at the first one on or behind every refresh.
    const passed = Array.from({ length: measureEvery }, (_, back) => since - back);
    if (leads && passed.some((step) => step >= 0 && step % refreshEvery === 0)) {
      ({ g: v } = await gradientOf(model, nextTarget(), options));
      targetNorms.push(Math.sqrt(dot(v, v)));
    }
    // Then domains that the steps hardly draw, by turns, one example each.
    if (leads && since === 0) {
      const measured = Array.from({ length: updateEvery }, (_, s) => s).filter((s) => s % measureEvery === 0);
      const rare = [...names.keys()].filter(
        (i) => weights[i] > 0 && weights[i] * batch * measured.length < 1,
      );
      const chosen = new Set(
        Array.from({ length: rare.length === 0 ? 0 : probes }, (_, j) =>
          rare.at((state.updates * probes + j) % rare.length),
        ),
      );
      for (const i of rare.filter((i) => chosen.has(i))) {
        const one = assembleBatch(alignment.drawFrom(i, 1), domains);
        const { g } = await gradientOf(model, one, options);
        const summed = g.map((x) => x * one.tokens[0]);
        examples.push({ step: -t, domain: i, tokens: one.tokens[0], g: summed, dot: dot(summed, v) });
      }
    }
    const drawn = training.draw(weights, batch).sort((a, b) => a.domain - b.domain);
    const rows = assembleBatch(drawn, domains);
    if (leads)
      for (let e = 0; e < batch; e++) {
        const { g } = await gradientOf(model, row(rows, e), options);
        const tokens = rows.tokens[e];
        const summed = g.map((x) => x * tokens);
        examples.push({ step: t, domain: rows.domainOf[e], tokens, g: summed, dot: dot(summed, v) });
      }
    const losses = meanGradient(model, rows, step);
    adam.step(step.arena, schedule(t)).dispose();
    const tokens = rows.tokens.reduce((a, b) => a + b, 0);
    const loss = Array.from(await losses.data()).reduce((a, b) => a + b, 0) / tokens;
    losses.dispose();
    let found: { alignments: number[]; norms: number[]; targetNorm: number; tokens?: number[] } | null = null;
    const adamLike = rule.needs.includes("preconditionedAlignments");
    if (updates(t + 1) && from === "batch") {
      let { g: direction } = await gradientOf(model, nextTarget(), options);
      if (adamLike) {
        const second = Array.from(await adam.v.arena.data());
        const bias = 1 - optimizer.beta2 ** (t + 1);
        direction = direction.map((x, p) => x / (Math.sqrt(second[p] / bias) + optimizer.eps));
      }
      const gradients = [];
      for (const i of domains.keys()) {
        const draws: Draw[] = alignment.drawFrom(i, domainExamples);
        gradients.push((await gradientOf(model, assembleBatch(draws, domains), options)).g);
      }
      found = {
        alignments: gradients.map((g) => dot(g, direction)),
        norms: gradients.map((g) => Math.sqrt(dot(g, g))),
        targetNorm: Math.sqrt(dot(direction, direction)),
      };
    }
    if (updates(t + 1) && from === "step") {
      const sum = (i: number, of: "tokens" | "dot"): number =>
        examples.filter(({ domain }) => domain === i).reduce((s, e) => s + e[of], 0);
      found = {
        alignments: names.map((_, i) => sum(i, "dot") / Math.max(1, sum(i, "tokens"))),
        norms: normsOf(examples),
        targetNorm: mean(targetNorms),
        tokens: names.map((_, i) => sum(i, "tokens")),
      };
      examples = [];
      targetNorms = [];
    }
    told.push({
      loss,
      weights,
      alignments: found?.alignments ?? null,
      norms: found?.norms ?? null,
      targetNorm: found?.targetNorm ?? null,
    });
    if (found !== null) {
      const { alignments, norms, targetNorm, tokens: measured } = found;
      state = rule.update(state, {
        ...(adamLike
          ? { preconditionedAlignments: alignments, preconditionedTargetNorm: targetNorm }
          : { alignments, targetNorm }),
        norms,
        ...(measured === undefined ? {} : { tokens: measured }),
      });
    }
  }
  for (const it of [adam, step, model]) it.dispose();
  return told;
}

/** ‖gᵢ‖: the mean product of two examples of a step, or what noise alone would make of it. */
function normsOf(
  examples: readonly { step: number; domain: number; tokens: number; g: readonly number[] }[],
): number[] {
  const parts = names.map((_, i) => {
    const own = examples.filter(({ domain }) => domain === i);
    let [dots, tokens] = [0, 0];
    for (const a of own)
      for (const b of own)
        if (a !== b && a.step === b.step) {
          dots += dot(a.g, b.g);
          tokens += a.tokens * b.tokens;
        }
    const single = own.length === 0 ? 0 : mean(own.map(({ g, tokens: n }) => dot(g, g) / n ** 2));
    return { count: own.length, pairs: tokens > 0 ? dots / tokens : null, single };
  });
  const paired = parts.filter(({ pairs }) => pairs !== null);
  const total = (of: (part: (typeof parts)[number]) => number): number =>
    paired.reduce((sum, part) => sum + part.count * of(part), 0);
  const coherence =
    paired.length === 0 ? 1 : total(({ pairs }) => pairs ?? NaN) / total(({ single }) => single);
  return parts.map(({ count, pairs, single }) =>
    Math.sqrt(Math.max(pairs ?? coherence * single, single / Math.max(1, count))),
  );
}

function trainerOf(options: Case): Trainer {
  const { rule, from, updateEvery, refreshEvery, measureEvery = 1, probes = 0, blockShare = 1 } = options;
  const { batch, seed, updateAfter = 0 } = options;
  return createTrainer({
    model: tiny(),
    mixer: createMixer({ domains: names, rule, updateEvery, updateAfter }),
    domains,
    target,
    batch,
    optimizer: (parameters) => adamw(parameters, optimizer),
    schedule,
    alignment: { from, refreshEvery, measureEvery, probes, blockShare, domainExamples, targetExamples },
    seed,
  });
}

const raw: RuleOptions = { name: "dga", normalise: "raw", eta: 3 };
const cases: [string, Case][] = [
  [
    "cosines from batches",
    {
      rule: { name: "dga", eta: 1, normalise: "cosine" },
      from: "batch",
      updateEvery: 3,
      refreshEvery: 10,
      batch: 4,
      seed: 5,
    },
  ],
  [
    "preconditioned, from batches",
    {
      rule: { name: "dga", normalise: "adam", eta: 1 },
      from: "batch",
      updateEvery: 2,
      refreshEvery: 10,
      batch: 3,
      seed: 6,
    },
  ],
  [
    "from steps, the target refreshed every 2",
    { rule: raw, from: "step", updateEvery: 5, refreshEvery: 2, batch: 6, seed: 7 },
  ],
  [
    "cosines from steps",
    {
      rule: { name: "dga", eta: 1, normalise: "cosine" },
      from: "step",
      updateEvery: 3,
      refreshEvery: 10,
      batch: 7,
      seed: 13,
    },
  ],
  [
    "from steps, the target refreshed every 3",
    { rule: raw, from: "step", updateEvery: 4, refreshEvery: 3, batch: 6, seed: 8 },
  ],
  [
    "from steps, the target refreshed at updates only",
    { rule: raw, from: "step", updateEvery: 3, refreshEvery: 10, batch: 6, seed: 9 },
  ],
  [
    "from every second step, the target refreshed every 3",
    { rule: raw, from: "step", updateEvery: 7, refreshEvery: 3, measureEvery: 2, batch: 6, seed: 14 },
  ],
  [
    "from every second step, with one domain that is hardly drawn by turns",
    {
      rule: { ...raw, eta: 0.1, start: [0.98, 0.01, 0.01] },
      from: "step",
      updateEvery: 3,
      refreshEvery: 2,
      measureEvery: 2,
      probes: 1,
      batch: 6,
      seed: 15,
    },
  ],
  [
    "from every second step, with domains of which more than one measured example is expected, and less",
    {
      rule: { ...raw, eta: 0, start: [0.84, 0.09, 0.07] },
      from: "step",
      updateEvery: 5,
      refreshEvery: 10,
      measureEvery: 2,
      probes: 1,
      batch: 4,
      seed: 17,
    },
  ],
  [
    "from steps, with more domains that may be hardly drawn than there are, and one of weight 0",
    {
      rule: { ...raw, eta: 1, start: [0.95, 0.05, 0] },
      from: "step",
      updateEvery: 2,
      refreshEvery: 10,
      probes: 5,
      batch: 6,
      seed: 16,
    },
  ],
  [
    "cosines of the head's gradients from every second step, with domains that are hardly drawn",
    {
      rule: { name: "dga", eta: 1, normalise: "cosine", start: [0.9, 0.05, 0.05] },
      from: "step",
      updateEvery: 4,
      refreshEvery: 2,
      measureEvery: 2,
      probes: 1,
      blockShare: 0,
      batch: 6,
      seed: 18,
    },
  ],
  [
    "cosines of the head's gradients from batches",
    {
      rule: { name: "dga", eta: 1, normalise: "cosine" },
      from: "batch",
      updateEvery: 3,
      refreshEvery: 10,
      blockShare: 0,
      batch: 4,
      seed: 19,
    },
  ],
  [
    "from batches, after a warm-up",
    { rule: raw, from: "batch", updateEvery: 2, updateAfter: 5, refreshEvery: 10, batch: 3, seed: 10 },
  ],
  [
    "from steps, after a warm-up that ends between updates",
    { rule: raw, from: "step", updateEvery: 3, updateAfter: 5, refreshEvery: 2, batch: 6, seed: 11 },
  ],
  [
    "from steps, after a warm-up that ends at an update",
    { rule: raw, from: "step", updateEvery: 2, updateAfter: 4, refreshEvery: 10, batch: 6, seed: 12 },
  ],
];

describe("the trainer is Algorithm 1", () => {
  test.each(cases)("%s", async (_, options) => {
    const steps = 10;
    const wanted = await algorithm1(options, steps);
    const trainer = trainerOf(options);
    let updates = 0;
    for (const { loss, weights, alignments, norms, targetNorm } of wanted) {
      const found = await trainer.step();
      expectNear(found.loss, loss, 1e-5);
      expectNear(found.weights, weights, 1e-4);
      expect(found.alignments === null).toBe(alignments === null);
      if (found.alignments === null || alignments === null || norms === null || targetNorm === null) continue;
      updates++;
      expectNear(found.alignments.alignments, alignments, 1e-4);
      expectNear(found.alignments.norms, norms, 1e-3);
      expectNear(found.alignments.targetNorm, targetNorm, 1e-4);
    }
    const { updateEvery, updateAfter = 0 } = options;
    expect(updates).toBe(
      Array.from({ length: steps }, (_, t) => t + 1).filter((t) => t % updateEvery === 0 && t >= updateAfter)
        .length,
    );
  });
});

test("cosines from the steps are those of the domains' gradients, rather than of single examples'", async () => {
  const model = tiny();
  const large = names.map((name, i) => windows(name, [language(i + 1, 12_000)]));
  // Every refresh takes all of the target.
  const trainer = createTrainer({
    model,
    mixer: createMixer({ domains: names, rule: { name: "dga", normalise: "cosine" }, updateEvery: 150 }),
    domains: large,
    target,
    batch: 12,
    schedule: createSchedule({ name: "constant", lr: 0.02, steps: 150 }),
    alignment: { from: "batch", targetExamples: target.count },
    seed: 4,
  });
  // Not where it begins, where all domains have much the same gradient.
  for (let i = 0; i < 60; i++) await trainer.step();
  const { value } = model.parameters;
  const start = Float32Array.from(await value.data());
  const whole = (source: Windows): Promise<{ g: number[] }> =>
    gradientOf(
      model,
      assembleBatch(
        Array.from({ length: source.count }, (_, window) => ({ domain: 0, window, epoch: 0 })),
        [source],
      ),
    );
  const { g: v } = await whole(target);
  const exact = [];
  for (const source of large) {
    const { g } = await whole(source);
    exact.push(dot(g, v) / Math.sqrt(dot(g, g) * dot(v, v)));
  }
  const frozen = createTrainer({
    model,
    mixer: createMixer({ domains: names, rule: { name: "dga", normalise: "cosine" }, updateEvery: 150 }),
    domains: large,
    target,
    batch: 12,
    optimizer: (parameters) => adamw(parameters, { weightDecay: 0 }),
    schedule: createSchedule({ name: "constant", lr: 0, steps: 150 }),
    alignment: { from: "step", targetExamples: target.count, refreshEvery: 1000 },
    seed: 5,
  });
  let found = null;
  for (let i = 0; i < 150; i++) found = (await frozen.step()).alignments ?? found;
  expect(Float32Array.from(await value.data())).toEqual(start);
  const cosines = Array.from(
    found?.alignments ?? [],
    (a, i) => a / (found?.norms?.[i] ?? NaN) / (found?.targetNorm ?? NaN),
  );
  // Divided by the root mean square of single examples' norms they would be a third of it.
  expectNear(cosines, exact, 0.1);
});

describe("evaluate", () => {
  test.each([1, 4])(
    "is the mean over the first windows that hold the tokens (%i per batch)",
    async (batch) => {
      const trainer = trainerOf({ ...cases[0][1], batch });
      const { model } = trainer;
      const sums: number[] = [];
      for (let w = 0; w < target.count; w++) {
        const rows = assembleBatch([{ domain: 0, window: w, epoch: 0 }], [target]);
        sums.push((await gradientOf(model, rows)).losses[0]);
      }
      const expected = (windows: Windows, tokens: number): number => {
        let [sum, counted] = [0, 0];
        for (let w = 0; w < windows.count && counted < tokens; w++) {
          sum += sums[w];
          counted += windows.tokensOf(w);
        }
        return sum / counted;
      };
      // The last window is a short one.
      expect(target.tokensOf(target.count - 1)).toBeLessThan(time);
      const all = target.stream.tokens.length - 1;
      for (const tokens of [
        1,
        time - 1,
        time,
        time + 1,
        4 * time,
        4 * time + 1,
        6 * time,
        all - 1,
        all,
        10 * all,
      ])
        expectNear(await trainer.evaluate(target, tokens), expected(target, tokens), 1e-6);
    },
  );
});
