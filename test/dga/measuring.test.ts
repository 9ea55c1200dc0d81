/** The signal of a rule, against separate estimates on batches from a separate drawing. */
import { init, shutdown } from "gradmix";
import {
  createBases,
  createMixer,
  createTrainer,
  estimateAlignments,
  estimateGram,
  estimatorNames,
  exampleNumbers,
  lastBlocks,
  type Rule,
  type RuleOptions,
  type Signal,
  targetDirection,
  type TrainerOptions,
} from "gradmix/dga";
import { arenaLike, type GPT, type Model, type TokenBatch } from "gradmix/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tokenCount } from "#dist/nn/examples.js";
import { createDrawing, type Drawing } from "#dist/dga/drawing.js";
import { basisAlignments, proposal } from "#dist/dga/reweighting.js";
import { expectNear } from "../near.ts";
import { language, tiny, windows } from "./languages.ts";

let model: GPT;
let reference: GPT;
/** The number of examples of each pass of a trainer. */
let passes: number[] = [];
let watched: Model;
beforeAll(async () => {
  await init({ backend: "cpu", threads: 1 });
  model = tiny(1);
  reference = tiny(2);
  watched = {
    parameters: model.parameters,
    losses(of) {
      passes.push(of.tokens.length);
      return model.losses(of);
    },
  };
});
afterAll(shutdown);

const names = ["a", "b", "c"];
const domains = names.map((name, i) => windows(name, [language(i + 1, 300)]));
const [target, first, second] = [5, 6, 7].map((seed) => windows(`t${seed}`, [language(seed, 150)]));
const targets = new Map([
  ["first", first],
  ["second", second],
]);

/** Two steps that change nothing, the rule's signal after them, and a drawing that is as far as the trainer's. */
async function toldTo(
  rule: RuleOptions,
  more: Partial<TrainerOptions> = {},
): Promise<{ signal: Signal; drawing: Drawing<TokenBatch>; drawn: TokenBatch[]; domainOf: number[][] }> {
  const called = more.bases?.names ?? names;
  const own = createMixer({ domains: called, rule }).rule;
  const signals: Signal[] = [];
  const spy: Rule = {
    ...own,
    update(state, signal) {
      signals.push(signal);
      return own.update(state, signal);
    },
  };
  const options: TrainerOptions = {
    model: watched,
    mixer: createMixer({ domains: called, rule: spy, updateEvery: 2 }),
    domains,
    target,
    batch: 5,
    schedule: () => 0,
    seed: 3,
    ...more,
  };
  const trainer = createTrainer(options);
  const drawing = createDrawing(options);
  const mixture = drawing.prepare(trainer.weights().final);
  const steps = [drawing.training(mixture), drawing.training(mixture)];
  await trainer.step();
  passes = [];
  await trainer.step();
  trainer.dispose();
  expect(signals.length).toBe(1);
  expect(signals[0].tokensSeen).toEqual(drawing.tokens());
  return {
    signal: signals[0],
    drawing,
    drawn: steps.map(({ batch }) => batch),
    domainOf: steps.map(({ domainOf }) => [...domainOf]),
  };
}
const alignment = { domainExamples: 3, targetExamples: 4 };

describe.each(estimatorNames)("alignments by %s", (estimator) => {
  const rule: RuleOptions = { name: "dga", normalise: estimator === "forward" ? "raw" : "cosine" };
  test.each(["all", "some"])("cover %s parameters", async (which) => {
    const looked = which === "some" ? { parameters: lastBlocks(model, 0) } : {};
    const { signal, drawing } = await toldTo(rule, { alignment: { ...alignment, estimator, ...looked } });
    const found = await estimateAlignments(estimator, model, drawing.target(0), drawing.alignment(), {
      maxExamples: 5,
      ...looked,
    });
    expect(signal).toStrictEqual({ ...found, targetExamples: target.count, tokensSeen: drawing.tokens() });
    // The step, the target, and the domains in passes of no more than a batch.
    if (estimator === "segmented" || estimator === "forward") expect(passes).toEqual([5, 4, 3, 3, 3]);
  });
});

test("a pass has at most as many examples as a batch or a single domain", async () => {
  await toldTo({ name: "dga", normalise: "cosine" }, { alignment: { domainExamples: 2, targetExamples: 3 } });
  expect(passes).toEqual([5, 3, 4, 2]);
  await toldTo({ name: "dga", normalise: "cosine" }, { alignment: { domainExamples: 7, targetExamples: 3 } });
  expect(passes).toEqual([5, 3, 7, 7, 7]);
});

test("bases over several domains share a batch, which is drawn and weighted by importance", async () => {
  const bases = createBases({ left: [0.8, 0.2, 0], right: [0, 0.3, 0.7] }, names);
  const { signal, drawing } = await toldTo(
    { name: "dga", normalise: "cosine" },
    { bases, alignment: { ...alignment, domainExamples: 1 } },
  );
  const q = proposal(bases, Float64Array.of(0.5, 0.5));
  const { batch, domainOf } = drawing.shared(q);
  const direction = arenaLike(model.parameters);
  const ofTarget = await targetDirection(model, drawing.target(0), direction);
  const numbers = await exampleNumbers(model, batch, direction, { maxExamples: 5 });
  direction.dispose();
  const { effectiveSizes, ...found } = basisAlignments(bases, q, { ...numbers, domainOf });
  expect(effectiveSizes?.length).toBe(2);
  expect(signal).toStrictEqual({
    ...found,
    ...ofTarget,
    targetExamples: target.count,
    tokensSeen: drawing.tokens(),
  });
  expect(passes).toEqual([5, 4, 5, 5, 5, 1]);
});

test("each basis gets a batch of its own on request, or if each is a domain", async () => {
  for (const [bases, more] of [
    [createBases({ left: [0.8, 0.2, 0], right: [0, 0.3, 0.7] }, names), { bases: "direct" }],
    [createBases({ left: [0, 0, 1], right: [0, 1, 0] }, names), {}],
  ] as const) {
    const { signal, drawing } = await toldTo(
      { name: "dga", normalise: "cosine" },
      { bases, alignment: { ...alignment, ...more } },
    );
    const found = await estimateAlignments("segmented", model, drawing.target(0), drawing.alignment(), {
      maxExamples: 5,
    });
    expect(signal).toStrictEqual({ ...found, targetExamples: target.count, tokensSeen: drawing.tokens() });
  }
});

test("a Gram matrix is measured from one batch per domain", async () => {
  for (const looked of [{}, { parameters: lastBlocks(model, 0) }]) {
    const { signal, drawing } = await toldTo({ name: "rnb" }, { alignment: { ...alignment, ...looked } });
    const batches = drawing.alignment();
    const found = await estimateGram(model, batches, looked);
    const tokens = Float64Array.from(batches, tokenCount);
    expect(signal).toStrictEqual({ ...found, tokens, tokensSeen: drawing.tokens() });
  }
});

test.each([
  ["beside a target", target, "cosine"],
  ["alone", null, "raw"],
] as const)(
  "alignments with several targets are given by name, in the order of the rule, %s",
  async (_, one, normalise) => {
    const rule: RuleOptions = { name: "grape", targets: ["first", "second"], normalise };
    for (const estimator of ["segmented", "perDomain"] as const) {
      const { signal, drawing } = await toldTo(rule, {
        target: one,
        targets,
        alignment: { ...alignment, estimator },
      });
      const batches = drawing.alignment();
      const found = [];
      for (const t of [0, 1])
        found.push(
          await estimateAlignments(estimator, model, drawing.target(one === null ? t : t + 1), batches, {
            maxExamples: 5,
          }),
        );
      expect(signal).toStrictEqual({
        targets: found.map(({ alignments, targetNorm, targetLoss }, t) => ({
          name: ["first", "second"][t],
          alignments,
          norm: targetNorm,
          loss: targetLoss,
        })),
        losses: found[0].losses,
        tokens: Float64Array.from(batches, tokenCount),
        norms: found[0].norms,
        tokensSeen: drawing.tokens(),
      });
    }
  },
);

test.each(["odm", "doremi"] as const)(
  "losses are those of the examples in the training steps (%s)",
  async (name) => {
    const { signal, drawing, drawn, domainOf } = await toldTo({ name }, { reference, target: null });
    const { losses = [], tokens = [], referenceLosses, ...rest } = signal;
    expect(rest).toStrictEqual({ tokensSeen: drawing.tokens() });
    const perDomain = async (of: Model): Promise<number[]> => {
      const sums = [0, 0, 0];
      for (const [i, batch] of drawn.entries())
        (await of.losses(batch).data()).forEach((loss, e) => (sums[domainOf[i][e]] += loss));
      return sums.map((sum, d) => (tokens[d] > 0 ? sum / tokens[d] : 0));
    };
    expect([...Array.from(tokens)]).toEqual([...drawing.tokens()]);
    expectNear(losses, await perDomain(model), 1e-6);
    if (name === "odm") expect(signal).not.toHaveProperty("referenceLosses");
    else expectNear(referenceLosses, await perDomain(reference), 1e-6);
  },
);
