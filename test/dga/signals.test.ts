/** The trainer gives every rule what it asks for; bases; Gram matrices; groups of parameters. */
import { type Backend, init, shutdown } from "gradmix";
import {
  type Bases,
  combine,
  createBases,
  createMixer,
  createRule,
  createTrainer,
  estimateAlignments,
  estimateGram,
  exampleNumbers,
  lastBlocks,
  meanGradient,
  mixtureOf,
  type Rule,
  type RuleOptions,
  rules,
  type Signal,
  targetDirection,
  type Trainer,
  type TrainerOptions,
} from "gradmix/dga";
import { adamw, createGPT, createSchedule, type TokenBatch } from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { arenaLike } from "#dist/nn/parameters.js";
import { errorOf } from "../errors.ts";
import { language, time, tiny, vocabSize, windows } from "./languages.ts";
import { validOptions } from "./rule-samples.ts";
import { expectNear } from "../near.ts";

const exact = ["perDomain", "segmented", "forward"] as const;

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 2 });
});
afterEach(shutdown);

const names = ["a", "b", "c"];
const domains = [1, 2, 3].map((seed) => windows(names[seed - 1], [language(seed, 40 * seed + 300)]));
const target = windows("target", [language(1, 100), language(2, 40)]);
const other = windows("other", [language(3, 120)]);

function setup(rule: RuleOptions | Rule, options: Partial<TrainerOptions> = {}, seed = 1): Trainer {
  return createTrainer({
    model: tiny(seed),
    mixer: createMixer({ domains: options.bases?.names ?? names, rule, updateEvery: 3 }),
    domains,
    target,
    targets: new Map([
      ["first", target],
      ["second", other],
    ]),
    reference: tiny(5),
    batch: 5,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    seed: 3,
    ...options,
  });
}

/** Options of every rule. */
const optionsOf: Record<string, RuleOptions> = {
  ...validOptions,
  dga: { name: "dga", normalise: "cosine" },
  "dga, adam": { name: "dga", normalise: "adam" },
  doge: { name: "doge", eta: 0.5 },
  "doge, target": { name: "doge", towards: "target", eta: 0.5 },
  grape: { name: "grape", targets: ["first", "second"] },
};

/** The rule, and the signals that it got. */
function spied(options: RuleOptions): { rule: Rule; signals: Signal[] } {
  const mixer = createMixer({ domains: names, rule: options });
  const signals: Signal[] = [];
  const rule: Rule = {
    ...mixer.rule,
    update(state, signal) {
      signals.push(signal);
      return mixer.rule.update(state, signal);
    },
  };
  return { rule, signals };
}

describe.each(Object.entries(optionsOf))("%s", (_, options) => {
  test("trains, gets the signals that it needs, and continues from a checkpoint to the same bits", async () => {
    const { rule, signals } = spied(options);
    const whole = setup(rule);
    const losses: number[] = [];
    for (let i = 0; i < 10; i++) losses.push((await whole.step()).loss);
    expect(signals.length).toBe(rule.needs.length > 0 ? 3 : 0);
    for (const signal of signals) for (const name of rule.needs) expect(signal[name]).toBeDefined();
    const final = whole.weights().final;
    // Bandits explore at first, curves need points, and a new model is not worse than a new reference.
    if (rule.needs.length > 0 && !["odm", "ado", "doremi"].includes(options.name))
      expect([...final]).not.toEqual(rule.init(names).weights);

    const first = setup(options);
    for (let i = 0; i < 5; i++) await first.step();
    const { json, arrays } = await first.save();
    const second = setup(options, {}, 99);
    second.restore({ json: JSON.parse(JSON.stringify(json)) as Record<string, unknown>, arrays });
    for (let i = 5; i < 10; i++) expect((await second.step()).loss).toBe(losses[i]);
    expect(second.weights().final).toEqual(final);
    for (const trainer of [whole, first, second]) {
      trainer.dispose();
      trainer.model.parameters.dispose();
    }
  });
});

test("rules that need no target train without one; for the others, the error says what is missing", async () => {
  const bare = { target: null, targets: new Map<string, never>() };
  for (const name of ["doge", "rnb", "odm", "ado", "doremi"]) {
    const trainer = setup(optionsOf[name], bare);
    for (let i = 0; i < 4; i++) await trainer.step();
    trainer.dispose();
  }
  expect(errorOf(() => setup(optionsOf["dga"], bare)).message).toMatch(/rule dga: .*give a target$/);
  expect(errorOf(() => setup(optionsOf["grape"], bare)).message).toMatch(/rule grape: .*give targets$/);
  const trainer = (options: Partial<TrainerOptions>): Trainer => {
    const { reference: _, ...rest } = {
      ...options,
      mixer: createMixer({ domains: names, rule: optionsOf["doremi"] }),
      model: tiny(),
      domains,
      target: null,
      batch: 5,
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
      seed: 3,
      reference: null,
    };
    return createTrainer(rest);
  };
  expect(errorOf(() => trainer({})).message).toMatch(/rule doremi: .*give a reference$/);
});

test("reference losses are those of the reference model on the examples of the steps", async () => {
  const { rule, signals } = spied({ name: "doremi" });
  // A reference that is the model itself, which trains along: no domain is ever in excess.
  const model = tiny(1);
  const trainer = setup(rule, {
    model,
    reference: model,
    schedule: createSchedule({ name: "constant", lr: 1e-30, steps: 100 }),
  });
  for (let i = 0; i < 3; i++) await trainer.step();
  const [{ losses = [], referenceLosses = [], tokens = [] }] = signals;
  names.forEach((_, i) => {
    if (tokens[i] > 0) expect(losses[i]).toBeGreaterThan(1);
    expectNear(referenceLosses[i], losses[i], 1e-5);
  });
});

describe("bases", () => {
  const identity = createBases({ x: [1, 0, 0], y: [0, 1, 0], z: [0, 0, 1] }, names);
  const mixed = createBases({ left: [0.8, 0.2, 0], right: [0, 0.3, 0.7], all: [0.4, 0.3, 0.3] }, names);

  test.each([
    ["batch", {}],
    ["batch, direct", { bases: "direct" }],
    ["batch, one pass a domain", { estimator: "perDomain" }],
    ["step", { from: "step", refreshEvery: 2 }],
  ] as const)("P = I equals Algorithm 1, bit for bit (%s)", async (_, alignment) => {
    const plain = setup(optionsOf["dga"], { alignment });
    const based = setup(optionsOf["dga"], { alignment, bases: identity });
    for (let i = 0; i < 13; i++) {
      const [wanted, found] = [await plain.step(), await based.step()];
      expect(found.loss).toBe(wanted.loss);
      expect(found.gradNorm).toBe(wanted.gradNorm);
      expect(found.weights).toEqual(wanted.weights);
      expect(found.domainWeights).toEqual(wanted.weights);
      expect(found.alignments?.alignments).toEqual(wanted.alignments?.alignments);
    }
    const [a, b] = [await plain.save(), await based.save()];
    expect(b.arrays).toEqual(a.arrays);
  });

  const variants: [string, Bases, TrainerOptions["alignment"]][] = [
    ["shared", mixed, { from: "batch" }],
    ["direct", mixed, { bases: "direct" }],
    ["from the steps", mixed, { from: "step" }],
  ];
  test.each(variants)(
    "domains are drawn with Σ wⱼ pⱼ, and a resumed run continues to the same bits (%s)",
    async (_, bases, alignment) => {
      const whole = setup(optionsOf["dga"], { bases, ...(alignment === undefined ? {} : { alignment }) });
      const steps = [];
      for (let i = 0; i < 9; i++) {
        const step = await whole.step();
        expect(step.domainWeights).toEqual(mixtureOf(bases, step.weights));
        if (step.alignments !== null) {
          expect(step.alignments.alignments.length).toBe(3);
          expect(step.alignments.effectiveSizes === undefined).toBe(alignment?.bases === "direct");
        }
        steps.push(step);
      }
      const { final, domains: own } = whole.weights();
      expect(own.final).toEqual(mixtureOf(bases, final));
      expect([...final]).not.toEqual([1 / 3, 1 / 3, 1 / 3]);
      const first = setup(optionsOf["dga"], { bases, ...(alignment === undefined ? {} : { alignment }) });
      for (let i = 0; i < 4; i++) await first.step();
      const saved = await first.save();
      const second = setup(optionsOf["dga"], { bases, ...(alignment === undefined ? {} : { alignment }) }, 9);
      second.restore(saved);
      for (let i = 4; i < 9; i++) expect(await second.step()).toEqual(steps[i]);
      // Other bases of the same names are another run.
      const others = createBases({ left: [1, 0, 0], right: [0, 0.3, 0.7], all: [0.4, 0.3, 0.3] }, names);
      expect(errorOf(() => setup(optionsOf["dga"], { bases: others }).restore(saved)).message).toMatch(
        /other bases/,
      );
    },
  );

  test("both ways of measuring agree within their standard errors", async () => {
    const frozen = { schedule: createSchedule({ name: "constant", lr: 1e-30, steps: 100 }) };
    const found = [];
    for (const bases of ["shared", "direct"] as const) {
      const trainer = setup(
        { name: "dga", normalise: "raw" },
        { ...frozen, bases: mixed, alignment: { bases, domainExamples: 200, targetExamples: 4 } },
      );
      let last = null;
      for (let i = 0; i < 3; i++) last = (await trainer.step()).alignments ?? last;
      found.push(last);
    }
    const [shared, direct] = found;
    for (let j = 0; j < 3; j++) {
      const error = Math.hypot(shared?.standardErrors?.[j] ?? NaN, direct?.standardErrors?.[j] ?? NaN);
      const difference = Math.abs((shared?.alignments[j] ?? NaN) - (direct?.alignments[j] ?? NaN));
      expect(difference).toBeLessThan(4 * error);
    }
  });

  test("options that do not fit are refused in one line", () => {
    const refused = (rule: RuleOptions | Rule, options: Partial<TrainerOptions>): string =>
      errorOf(() => setup(rule, options)).message;
    for (const rule of ["rnb", "grape"])
      expect(refused(optionsOf[rule], { alignment: { from: "step" } })).toMatch(
        /which the training steps do not measure; leave out from, or use "batch"$/,
      );
    for (const estimator of ["perDomain", "forward", "sketch"] as const) {
      const raw: RuleOptions = { name: "dga", normalise: "raw" };
      expect(refused(raw, { bases: mixed, alignment: { estimator } })).toBe(
        `estimator ${estimator}: a shared batch of bases takes segmented; use segmented, or bases = direct`,
      );
      setup(raw, { bases: mixed, alignment: { estimator, bases: "direct" } }).dispose();
    }
    expect(
      refused(combine(createRule(optionsOf["dga"]), [{ name: "shrinkage" }]), {
        alignment: { estimator: "perDomain" },
      }),
    ).toMatch(/^estimator perDomain: it gives no standard errors, which rule .* asks for/);

    expect(errorOf(() => setup(optionsOf["rnb"], { bases: mixed })).message).toMatch(/rule rnb: with bases/);
    expect(
      errorOf(() =>
        setup(optionsOf["dga"], {
          bases: mixed,
          mixer: createMixer({ domains: names, rule: rules.uniform() }),
        }),
      ).message,
    ).toMatch(/^bases: the mixer must have their 3 names/);
    expect(errorOf(() => setup(optionsOf["dga"], { bases: mixed, domains: domains.slice(1) })).message).toBe(
      "createTrainer: domains: 2 sources of examples for bases over 3 domains",
    );
  });
});

describe("estimates", () => {
  const batch = (seed: number, examples: number): TokenBatch => {
    const tokens = language(seed, examples * time + 1);
    return {
      inputs: Int32Array.from({ length: examples * time }, (_, i) => tokens[i]),
      targets: Int32Array.from({ length: examples * time }, (_, i) => tokens[i + 1]),
      tokens: new Array<number>(examples).fill(time),
      time,
    };
  };
  const batches = [batch(1, 2), batch(2, 3), batch(3, 1), batch(4, 2), batch(5, 2)];

  test.each([32, 2, 1])("the Gram matrix is that of the gradients (%i in memory at a time)", async (held) => {
    const model = tiny(2);
    const live = backend.liveBytes;
    const gradients: Float32Array[] = [];
    for (const one of batches) {
      const arena = arenaLike(model.parameters);
      meanGradient(model, one, arena).dispose();
      gradients.push(Float32Array.from(await arena.arena.data()));
      arena.dispose();
    }
    const { gram, losses } = await estimateGram(model, batches, { held });
    expect(losses.every((loss) => loss > 1)).toBe(true);
    gradients.forEach((g, i) =>
      gradients.forEach((h, j) => {
        const wanted = g.reduce((sum, x, p) => sum + x * h[p], 0);
        const scale = Math.sqrt(gram[i * 6] * gram[j * 6]);
        expect(Math.abs(gram[5 * i + j] - wanted) / scale).toBeLessThan(1e-5);
      }),
    );
    expect(backend.liveBytes).toBe(live);
  });

  test.each(["the last block", "the head", "an embedding"])(
    "every estimator can be limited to some parameters: %s",
    async (part) => {
      const model = createGPT(
        { preset: "llama", vocabSize, dim: 16, layers: 2, heads: 2, context: time },
        { seed: 2 },
      );
      const chosen =
        part === "the last block"
          ? lastBlocks(model, 1)
          : part === "the head"
            ? lastBlocks(model, 0)
            : (name: string): boolean => name === "embedding.weight";
      const gradientOf = async (of: TokenBatch): Promise<number[]> => {
        const arena = arenaLike(model.parameters);
        meanGradient(model, of, arena).dispose();
        const values: number[] = [];
        for (const [name, parameter] of model.parameters.byName)
          if (chosen(name)) values.push(...(await arena.of(parameter).data()));
        arena.dispose();
        return values;
      };
      const goal = await gradientOf(batches[4]);
      expect(goal.length).toBeGreaterThan(0);
      for (const estimator of exact) {
        const found = await estimateAlignments(estimator, model, batches[4], batches.slice(0, 4), {
          parameters: chosen,
        });
        const norm = Math.hypot(...goal);
        expectNear(found.targetNorm / norm, 1, 1e-4);
        for (let i = 0; i < 4; i++) {
          const own = await gradientOf(batches[i]);
          const wanted = own.reduce((sum, x, p) => sum + x * goal[p], 0);
          expect(Math.abs(found.alignments[i] - wanted)).toBeLessThan(1e-4 * norm * Math.hypot(...own));
          if (found.norms !== undefined) expectNear(found.norms[i] / Math.hypot(...own), 1, 1e-4);
        }
      }
      const counted = [...model.parameters.byName.keys()].filter(lastBlocks(model, 1));
      expect(counted.length).toBe(8);
      expect(errorOf(() => lastBlocks(model, 3)).message).toContain("from 0 to 2");
      await expect(
        estimateAlignments("segmented", model, batches[4], batches, { parameters: () => false }),
      ).rejects.toThrow(/the selection contains none of the model's parameters/);
    },
  );

  test.each(exact)("estimates can be preconditioned by Adam's second moments (%s)", async (estimator) => {
    const model = tiny(2);
    const optimizer = adamw(model.parameters, { beta2: 0.9 });
    const arena = arenaLike(model.parameters);
    for (const one of batches) {
      meanGradient(model, one, arena).dispose();
      optimizer.step(arena.arena, 1e-3).dispose();
    }
    const bias = 1 - 0.9 ** optimizer.steps;
    const found = await estimateAlignments(estimator, model, batches[4], batches.slice(0, 3), {
      precondition: { v: optimizer.v, bias, eps: 1e-6 },
    });
    const v = await optimizer.v.arena.data();
    const data = async (of: TokenBatch): Promise<Float64Array> => {
      meanGradient(model, of, arena).dispose();
      return Float64Array.from(await arena.arena.data());
    };
    const goal = (await data(batches[4])).map((g, p) => g / (Math.sqrt(v[p] / bias) + 1e-6));
    const norm = Math.sqrt(goal.reduce((sum, x) => sum + x * x, 0));
    expectNear(found.targetNorm / norm, 1, 1e-4);
    for (let i = 0; i < 3; i++) {
      const own = await data(batches[i]);
      const wanted = own.reduce((sum, x, p) => sum + x * goal[p], 0);
      const scale = norm * Math.sqrt(own.reduce((sum, x) => sum + x * x, 0));
      expect(Math.abs(found.alignments[i] - wanted)).toBeLessThan(1e-4 * scale);
    }
  });

  test("numbers of single examples are the same in one pass and in pieces", async () => {
    const model = tiny(2);
    const direction = arenaLike(model.parameters);
    await targetDirection(model, batches[4], direction);
    const [whole, pieces] = [
      await exampleNumbers(model, batches[1], direction),
      await exampleNumbers(model, batches[1], direction, { maxExamples: 2 }),
    ];
    expectNear(pieces.dots, whole.dots, 1e-5);
    expectNear(pieces.squaredNorms ?? [], whole.squaredNorms ?? [NaN], 1e-5);
    expectNear(pieces.losses, whole.losses, 1e-6);
  });
});
