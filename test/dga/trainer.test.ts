/** The estimators against each other, the trainer as a state machine, and planted mixtures that DGA must find. */
import { type Backend, GradmixError, init, shutdown } from "gradmix";
import {
  createMixer,
  createTrainer,
  estimateAlignments,
  type EstimatorName,
  type RuleOptions,
  type Trainer,
  type TrainerOptions,
} from "gradmix/dga";
import { createSampler } from "gradmix/data";
import { createSchedule, type Model, type ParameterSpec, type TokenBatch } from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

/** Those that do not project. */
const exact: readonly EstimatorName[] = ["perDomain", "segmented", "forward"];

let backend: Backend;

beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 2 });
});
afterEach(shutdown);

function setup(
  options: Partial<TrainerOptions> & { rule?: RuleOptions; updateEvery?: number; updateAfter?: number } = {},
): Trainer {
  const { rule = { name: "dga", normalise: "cosine" }, updateEvery = 3, updateAfter = 0, ...rest } = options;
  return createTrainer({
    model: tiny(),
    mixer: createMixer({ domains: ["a", "b", "c"], rule, updateEvery, updateAfter }),
    domains: [1, 2, 3].map((seed) => windows("abc".charAt(seed - 1), [language(seed, 40 * seed + 300)])),
    target: windows("target", [language(1, 100), language(2, 40)]),
    batch: 5,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    seed: 3,
    ...rest,
  });
}

describe("estimators", () => {
  /** Uneven, ragged: some targets are ignored, one domain has one example. */
  const batch = (seed: number, examples: number, ignored: number): TokenBatch => {
    const tokens = language(seed, examples * (time + 1));
    const inputs = Int32Array.from({ length: examples * time }, (_, i) => tokens[i] ?? 0);
    const targets = Int32Array.from({ length: examples * time }, (_, i) =>
      i % time >= time - ((i / time) | 0) * ignored ? -1 : (tokens[i + 1] ?? 0),
    );
    const counts = Array.from(
      { length: examples },
      (_, e) => targets.subarray(e * time, (e + 1) * time).filter((t) => t >= 0).length,
    );
    return { inputs, targets, tokens: counts, time };
  };
  const target = batch(9, 4, 2);
  const domains = [batch(1, 3, 3), batch(2, 1, 0), batch(3, 5, 1)];

  test.each(["llama", "gpt2"] as const)("agree to 1e-4 on the same batch (%s)", async (preset) => {
    const model = tiny(2, preset);
    const live = backend.liveBytes;
    const [first, ...others] = await Promise.all(
      exact.map((name) => estimateAlignments(name, model, target, domains)),
    );
    if (first === undefined) return expect.unreachable();
    expect(Math.max(...first.alignments.map(Math.abs))).toBeGreaterThan(0);
    for (const other of others) {
      expectNear(other.alignments, first.alignments, 1e-4);
      expectNear(other.losses, first.losses, 1e-6);
      if (other.norms !== undefined) expectNear(other.norms, first.norms ?? [], 1e-4);
      expectNear(other.targetNorm, first.targetNorm, 1e-5);
      expectNear(other.targetLoss, first.targetLoss, 1e-6);
    }
    expect(others.map((o) => o.norms === undefined)).toEqual([false, true]);
    // One example gives no spread.
    for (const { standardErrors } of others) {
      expect(standardErrors?.[1]).toBeNull();
      expect(standardErrors?.[0]).toBeGreaterThan(0);
    }
    expect(backend.liveBytes).toBe(live);
  });

  test("give the same numbers in one pass and in pieces", async () => {
    const model = tiny(2);
    const whole = await estimateAlignments("segmented", model, target, domains);
    const pieces = await estimateAlignments("segmented", model, target, domains, { maxExamples: 4 });
    expectNear(pieces.alignments, whole.alignments, 1e-5);
    expectNear(pieces.norms, whole.norms ?? [], 1e-5);
  });

  test("refuse a target without tokens", async () => {
    const none: TokenBatch = { ...target, targets: target.targets.map(() => -1), tokens: [0, 0, 0, 0] };
    await expect(estimateAlignments("segmented", tiny(), none, domains)).rejects.toThrow(/no tokens/);
  });
});

describe("the trainer", () => {
  const variants: [string, Parameters<typeof setup>[0]][] = [
    ["batch", {}],
    ["step", { alignment: { from: "step", refreshEvery: 2 }, updateEvery: 5 }],
    [
      "step, with a domain that is hardly drawn",
      {
        alignment: { from: "step", refreshEvery: 2, probes: 1 },
        updateEvery: 5,
        rule: { name: "dga", normalise: "cosine", eta: 0.1, start: [0.96, 0.02, 0.02] },
      },
    ],
    ["perDomain", { alignment: { estimator: "perDomain" } }],
    ["forward", { alignment: { estimator: "forward" }, rule: { name: "dga", normalise: "raw" } }],
    ["sketch", { alignment: { estimator: "sketch" } }],
    ["systematic", { sampling: "systematic" }],
  ];
  test.each(variants)(
    "continues to the same bits if it was saved at any step and restored (%s)",
    async (_, options) => {
      const steps = 11;
      const whole = setup(options);
      const expected = [];
      for (let i = 0; i < steps; i++) expected.push(await whole.step());
      const final = await whole.save();
      for (const cut of [0, 4, 6]) {
        const first = setup(options);
        for (let i = 0; i < cut; i++) await first.step();
        const { json, arrays } = await first.save();
        const second = setup({ ...options, model: tiny(99) });
        second.restore({ json: JSON.parse(JSON.stringify(json)) as Record<string, unknown>, arrays });
        for (let i = cut; i < steps; i++) expect(await second.step()).toEqual(expected[i]);
        expect(await second.save()).toEqual(final);
        for (const trainer of [first, second]) {
          trainer.dispose();
          trainer.model.parameters.dispose();
        }
      }
    },
  );

  test.each(variants)(
    "continues to the same bits if it was restored after other steps (%s)",
    async (_, options) => {
      const whole = setup(options);
      for (let i = 0; i < 6; i++) await whole.step();
      const saved = await whole.save();
      const other = setup({ ...options, model: tiny(99) });
      // Its weights are others by now, and ready to be drawn with.
      for (let i = 0; i < 4; i++) await other.step();
      expect(other.weights().final).not.toEqual(whole.weights().final);
      other.restore(saved);
      for (let i = 0; i < 6; i++) expect(await other.step()).toEqual(await whole.step());
      expect(await other.save()).toEqual(await whole.save());
    },
  );

  test("saves the target's gradient only if later steps use it", async () => {
    for (const [options, wanted] of [
      [{ alignment: { from: "step" } }, ["value", "m", "v", "direction"]],
      [{ alignment: { from: "batch" } }, ["value", "m", "v"]],
      [{ rule: { name: "odm" }, alignment: { from: "step" } }, ["value", "m", "v"]],
    ] as const)
      expect(Object.keys((await setup(options).save()).arrays)).toEqual(wanted);
  });

  test("measures only the steps that the next update covers, so a warm-up takes no memory", async () => {
    const examples = async (trainer: Trainer): Promise<number> =>
      ((await trainer.save()).json["gathered"] as { domainOf: number[] }).domainOf.length;
    for (const rule of [{ name: "dga", normalise: "cosine" }, { name: "odm" }] as const) {
      const trainer = setup({
        rule,
        alignment: { from: "step", measureEvery: 1 },
        updateAfter: 11,
        updateEvery: 4,
        batch: 5,
      });
      const counts = [];
      for (let i = 0; i < 17; i++) {
        await trainer.step();
        counts.push(await examples(trainer));
      }
      expect(counts).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 5, 10, 15, 0, 5, 10, 15, 0, 5]);
    }
  });

  test("domains that the steps hardly draw are measured by turns, and the training stays the same", async () => {
    const steps = 12;
    const run = async (probes: number): Promise<{ measured: number[][]; told: unknown[] }> => {
      const trainer = setup({
        rule: { name: "dga", prior: [1, 0, 0], eta: 0, pull: 0 },
        alignment: { probes },
        updateEvery: 2,
      });
      const measured: number[][] = [];
      const told = [];
      for (let i = 0; i < steps; i++) {
        const { alignments, ...rest } = await trainer.step();
        told.push(rest, [...(await trainer.model.parameters.value.data())]);
        const { tokens = [] } = alignments ?? {};
        if (alignments !== null) measured.push(Array.from(tokens).flatMap((n, d) => (n > 0 ? [d] : [])));
      }
      return { measured, told };
    };
    const [none, one, most] = [await run(0), await run(1), await run(5)];
    expect(none.measured).toEqual(Array.from({ length: 6 }, () => [0]));
    expect(one.measured).toEqual([[0, 1], [0, 2], [0, 1], [0, 2], [0, 1], [0, 2]]); // prettier-ignore
    expect(most.measured).toEqual(Array.from({ length: 6 }, () => [0, 1, 2]));
    expect(one.told).toEqual(none.told);
    expect(most.told).toEqual(none.told);
  });

  test("around a prior the steps align the head, or all parameters where there is none of its own", async () => {
    const rule = { name: "dga", prior: [2, 1, 1] } as const;
    /** A model whose specs say something else about the blocks. */
    const saying = (blockOf: (spec: ParameterSpec) => ParameterSpec["block"]): Model => {
      const model = tiny();
      const specs = model.parameters.specs.map((spec) => {
        const { block: _, ...rest } = spec;
        const block = blockOf(spec);
        return { ...rest, ...(block === undefined ? {} : { block }) };
      });
      return { parameters: { ...model.parameters, specs }, losses: (given) => model.losses(given) };
    };
    const models: Record<string, () => Model> = {
      whole: () => tiny(),
      "without blocks": () => saying(() => undefined),
      "with a tied head": () => saying(({ name, block }) => (name === "head.weight" ? undefined : block)),
    };
    const found = async (model: Model, alignment?: TrainerOptions["alignment"]): Promise<number[]> => {
      const trainer = setup({ rule, model, ...(alignment === undefined ? {} : { alignment }) });
      for (;;) {
        const { alignments } = await trainer.step();
        if (alignments !== null) return Array.from(alignments.alignments);
      }
    };
    const all = await found(tiny(), { blockShare: 1 });
    const head = await found(tiny(), { parameters: (name) => ["norm.weight", "head.weight"].includes(name) });
    expect(head).not.toEqual(all);
    for (const [name, make] of Object.entries(models)) {
      expect(await found(make()), name).toEqual(name === "whole" ? head : all);
      expect(await found(make(), { blockShare: 1 }), name).toEqual(all);
    }
    const refusal = (name: string, blockShare: number): string =>
      codeOf(() => setup({ rule, model: models[name](), alignment: { blockShare } }));
    const refused = (share: number, why: string): string =>
      `config: createTrainer: alignment: blockShare: ${share} selects no matrix of this model, whose ${why}; leave it out, or select by name with parameters`;
    expect(refusal("whole", 0)).toBe("no error");
    for (const share of [0, 0.5])
      expect(refusal("without blocks", share)).toBe(refused(share, "parameters are in no blocks"));
    expect(refusal("with a tied head", 0)).toBe(refused(0, "head is tied to the embedding or missing"));
    expect(refusal("with a tied head", 0.5)).toBe("no error");
  });

  test("both sources of alignments find the same domains similar to the target", async () => {
    for (const from of ["batch", "step"] as const) {
      const trainer = setup({ alignment: { from }, updateEvery: 5, batch: 12 });
      let last = null;
      for (let i = 0; i < 15; i++) last = (await trainer.step()).alignments ?? last;
      const [a = NaN, , c = NaN] = last?.alignments ?? [];
      expect(a).toBeGreaterThan(c);
    }
  });

  test("a step reports the domains in its batch: their losses give the step's loss, and their tokens add up", async () => {
    const domains = [1, 2, 3].map((seed) =>
      windows("abc".charAt(seed - 1), [language(seed, 40 * seed + 300)]),
    );
    const trainer = setup({ batch: 3, domains });
    // The draws, from a sampler of the test.
    const sampler = createSampler({ domains, seed: 3 });
    const before = [0, 0, 0];
    let few = 0;
    for (let i = 0; i < 12; i++) {
      const draws = sampler.draw(trainer.weights().final, 3);
      const { loss, tokens, trained } = await trainer.step();
      const counts = [0, 0, 0];
      for (const { domain, window } of draws) counts[domain] += domains[domain].tokensOf(window);
      expect(trained.map(({ domain }) => domain)).toEqual(
        [...new Set(trained.map(({ domain }) => domain))].sort((a, b) => a - b),
      );
      let sum = 0;
      let counted = 0;
      for (const one of trained) {
        const own = counts[one.domain];
        expect(own).toBeGreaterThan(0);
        before[one.domain] += own;
        expect(one.tokens).toBe(before[one.domain]);
        expect(one.epochs).toBe(sampler.epochs()[one.domain]);
        sum += own * one.loss;
        counted += own;
      }
      expectNear(sum / counted, loss, 1e-10);
      expect(counted).toBe(counts.reduce((a, b) => a + b));
      expect([0, 1, 2].map((d) => trainer.seen(d))).toEqual(
        before.map((tokens, d) => ({ tokens, epochs: sampler.epochs()[d] })),
      );
      expect(tokens).toBe(before.reduce((a, b) => a + b));
      if (trained.length < 3) few++;
    }
    // So that the test sees domains that are left out.
    expect(few).toBeGreaterThan(0);
  });

  test("fixed rules measure nothing", async () => {
    const trainer = setup({ rule: { name: "static", weights: [0.2, 0.3, 0.5] }, target: null });
    for (let i = 0; i < 7; i++) {
      const step = await trainer.step();
      expect(step.alignments).toBeNull();
      expect([...step.weights]).toEqual([0.2, 0.3, 0.5]);
    }
    expectNear(trainer.weights().averaged, [0.2, 0.3, 0.5], 1e-14);
  });

  test("updates the rule after every step, even with a single example", async () => {
    const trainer = setup({ alignment: { from: "step" }, batch: 1, updateEvery: 1 });
    for (let i = 0; i < 6; i++) expect((await trainer.step()).alignments).not.toBeNull();
  });

  test("uses no more memory in step 200 than in step 20", async () => {
    const trainer = setup({ alignment: { from: "step" } });
    const sizes: number[] = [];
    const rss: number[] = [];
    for (let i = 0; i < 200; i++) {
      await trainer.step();
      sizes.push(backend.liveBytes);
      rss.push(process.memoryUsage().rss);
    }
    expect(new Set(sizes.slice(1)).size).toBe(1);
    const early = Math.max(...rss.slice(20, 60));
    const late = Math.min(...rss.slice(160));
    expect(late - early).toBeLessThan(24 << 20);
    const held = backend.liveBytes;
    trainer.dispose();
    trainer.model.parameters.dispose();
    expect(backend.liveBytes).toBeLessThan(held);
    expect(backend.liveBytes).toBe(0);
  });

  test("refuses options that do not fit together, and states of other runs", async () => {
    const wrong = (options: Parameters<typeof setup>[0], message: RegExp): void => {
      expect(() => setup(options)).toThrow(message);
      expect(() => setup(options)).toThrow(GradmixError);
    };
    wrong({ target: null }, /rule dga: .*with a target; give a target/);
    wrong({ alignment: { estimator: "forward" } }, /estimator forward: it gives no gradient norms/);
    wrong({ domains: [windows("a", [language(1, 100)])] }, /1 sources of examples for a mixer of 3 domains/);
    const trainer = setup();
    await trainer.step();
    const good = await trainer.save();
    const other = setup({ seed: 4 });
    expect(() => other.restore(good)).toThrow(/sampler state: seed is 3, not 4/);
    expect(() => setup({ rule: { name: "uniform" } }).restore(good)).toThrow(
      /is "dga": the state belongs to that rule, not to "uniform"/,
    );
    const short = { ...good, arrays: { ...good.arrays, m: new Float32Array(3) } };
    expect(() => setup().restore(short)).toThrow(/m has 3 values, the model has \d+/);
  });

  test("a checkpoint that is damaged anywhere, or belongs to another run, leaves the trainer unchanged", async () => {
    const options = { alignment: { from: "step" } } as const;
    const plain = setup(options);
    const tried = setup(options);
    for (let i = 0; i < 5; i++) {
      await plain.step();
      await tried.step();
    }
    const ahead = setup(options);
    for (let i = 0; i < 7; i++) await ahead.step();
    const good = await ahead.save();
    const gathered = good.json["gathered"] as Record<string, number[]>;
    const damages: [Record<string, unknown>, RegExp][] = [
      [{ mixer: { ...(good.json["mixer"] as object), version: 2 } }, /mixer state: version is 2, not 1/],
      [{ sampler: null }, /sampler state: is null, not an object/],
      [
        { alignmentSampler: { ...(good.json["alignmentSampler"] as object), taken: [1] } },
        /taken has 1 items, not/,
      ],
      [{ targetSampler: { ...(good.json["targetSampler"] as object), draws: -1 } }, /draws is -1/],
      [{ optimizerSteps: 1.5 }, /optimizerSteps is 1.5/],
      [{ tokens: "many" }, /tokens is "many"/],
      [{ gathered: null }, /gathered: is null, not an object/],
      [{ gathered: { ...gathered, domainOf: undefined } }, /gathered: domainOf is missing/],
      [{ gathered: { ...gathered, losses: [NaN] } }, /losses\.0 is NaN, not a finite number/],
      [{ gathered: { ...gathered, dots: [1] } }, /1 dots for \d+ examples/],
      [
        { gathered: { ...gathered, domainOf: gathered["domainOf"].map(() => 3) } },
        /domainOf\.0 is 3, but there are 3 domains/,
      ],
    ];
    for (const [damage, message] of damages)
      expect(() => tried.restore({ ...good, json: { ...good.json, ...damage } })).toThrow(message);
    const { direction, ...arrays } = good.arrays;
    expect(direction).toBeDefined();
    expect(() => tried.restore({ ...good, arrays })).toThrow(/it has no direction, which takes \d+ values/);
    for (let i = 0; i < 6; i++) expect(await tried.step()).toEqual(await plain.step());
  });

  test("a loss that is not finite is an error with its step, and cannot be saved", async () => {
    const trainer = setup();
    await trainer.step();
    trainer.model.parameters.list[0]?.write(
      new Float32Array(trainer.model.parameters.list[0].size).fill(NaN),
    );
    await expect(trainer.save()).rejects.toThrow(/parameters are no longer finite after step 1/);
    await expect(trainer.step()).rejects.toThrow(/the (loss|gradient) became NaN at step 2/);
  });
});

describe("a planted mixture", () => {
  const languages = [1, 2, 3, 4];
  const domains = languages.map((seed) => windows(`language ${seed}`, [language(seed, 6000)]));
  const mixture = [0.7, 0.3, 0, 0];
  const target = windows(
    "target",
    // Documents of one window each, in the planted shares; of the same languages, but later text.
    mixture.flatMap((share, i) => {
      const text = language(languages[i] ?? 0, 12_000).slice(8000);
      return Array.from({ length: Math.round(share * 40) }, (_, d) =>
        text.slice(d * time, (d + 1) * time - 1),
      );
    }),
  );

  test.each([
    ["batch", 1],
    ["batch", 2],
    ["step", 1],
  ] as const)("is found (alignments from a %s, seed %i)", async (from, seed) => {
    const trainer = createTrainer({
      model: tiny(seed),
      mixer: createMixer({
        domains: domains.map((d) => d.name),
        rule: { name: "dga", eta: 1.5, normalise: "cosine", beta: 0.2 },
        updateEvery: 4,
      }),
      domains,
      target,
      batch: 16,
      alignment: { from, domainExamples: 8, targetExamples: 24, measureEvery: 1 },
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 160 }),
      seed,
    });
    for (let i = 0; i < 160; i++) await trainer.step();
    const { final } = trainer.weights();
    // Uniform would be a distance of 1; a vertex, 0.6.
    const distance = mixture.reduce((sum, share, i) => sum + Math.abs(share - (final[i] ?? NaN)), 0);
    expect(distance).toBeLessThan(0.45);
    expect(final[0]).toBeGreaterThan(final[1] ?? NaN);
    expect(final[1]).toBeGreaterThan(Math.max(final[2] ?? NaN, final[3] ?? NaN));
  });
});
