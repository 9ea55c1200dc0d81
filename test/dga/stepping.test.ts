/** Steps in special cases: examples without tokens, losses and gradients that are no longer finite, rules that align nothing. */
import { add, init, linear, mean, mul, reshape, scope, shutdown, square, sub, tensor } from "gradmix";
import { type Dataset, examplesOf, type RowBatch, rowsOf } from "gradmix/data";
import { createMixer, createTrainer, type RuleOptions, type Trainer, type TrainerOptions } from "gradmix/dga";
import { createParameters, type Model, type Optimizer, type Parameters, type TokenBatch } from "gradmix/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTraining, directionOf } from "#dist/dga/training.js";
import { tied } from "../../examples/tied.ts";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

beforeAll(() => init({ backend: "cpu", threads: 1 }));
afterAll(shutdown);

const names = ["a", "b"];
const text = (seed: number): Dataset<TokenBatch> => windows(`text ${seed}`, [language(seed, 200)]);
/** Windows of which nothing counts. */
const silent = ((): Dataset<TokenBatch> => {
  const { inputs, targets } = text(2).batchOf([0, 1, 2]);
  return examplesOf("silent", { inputs, targets: targets.map(() => -1), tokens: [0, 0, 0], time });
})();

function setup(
  domains: readonly Dataset<TokenBatch>[],
  more: Partial<TrainerOptions> = {},
  rule: RuleOptions = { name: "dga", normalise: "cosine" },
): TrainerOptions {
  return {
    model: tiny(1),
    mixer: createMixer({ domains: names, rule, updateEvery: 4 }),
    domains,
    target: text(1),
    batch: 6,
    schedule: () => 0.01,
    seed: 1,
    ...more,
  };
}

describe.each(["batch", "step"] as const)("alignments from a %s", (from) => {
  test("a domain whose examples have no tokens has no loss, and the others have theirs", async () => {
    const trainer = createTrainer(setup([text(1), silent], { alignment: { from } }));
    const seen = new Set<number>();
    for (let i = 0; i < 4; i++) {
      const { loss, trained, weights } = await trainer.step();
      for (const { domain, loss: own, tokens } of trained) {
        seen.add(domain);
        if (domain === 0) expectNear(own, loss, 1e-12);
        else expect([own, tokens]).toEqual([0, 0]);
      }
      expect(loss).toBeGreaterThan(1);
      expect(weights.every(Number.isFinite)).toBe(true);
    }
    expect(seen).toEqual(new Set([0, 1]));
  });

  test("a batch without tokens is refused with its step", async () => {
    const mute = createTrainer(setup([silent, silent], { alignment: { from } }));
    await expect(mute.step()).rejects.toMatchObject({
      code: "data",
      message:
        "none of the examples drawn for step 1 has a token to learn from; use a larger batch, or leave out examples without tokens",
    });
    await expect(mute.step()).rejects.toMatchObject({ code: "data" });
    // One is enough.
    const { inputs, targets } = text(1).batchOf([0]);
    const one = examplesOf("one", {
      inputs,
      targets: targets.map((id, i) => (i > 0 ? -1 : id)),
      tokens: [1],
      time,
    });
    const trainer = createTrainer(setup([one, one], { batch: 1, alignment: { from } }));
    expect((await trainer.step()).loss).toBeGreaterThan(0);
    expect(trainer.tokens).toBe(1);
  });
});

describe("a parameter that an op without a rule for single examples uses", () => {
  const B = 4;
  /** A linear model whose outputs are multiplied by a gate, and to which the batch's mean of another layer is added. */
  const gated = (): Model<RowBatch> => {
    const parameters = createParameters(
      ["weight", "gate", "mixed"].map((name) => ({
        name,
        shape: name === "gate" ? [1] : [1, 2],
        init: { kind: "normal", deviation: 0.5 } as const,
        decay: false,
      })),
      3,
    );
    const [weight, gate, mixed] = parameters.list;
    return {
      parameters,
      losses: ({ inputs, targets, tokens: { length } }) =>
        scope(() => {
          const x = tensor(inputs, [length, 2]);
          const y = add(mul(linear(x, weight), gate), mean(linear(x, mixed)));
          return square(sub(reshape(y, [length]), tensor(Float32Array.from(targets), [length])));
        }),
    };
  };
  const table = (name: string, seed: number): Dataset<RowBatch> =>
    rowsOf(name, {
      inputs: Float32Array.from({ length: 40 }, (_, i) => Math.sin(seed * 7 + i * 1.3)),
      width: 2,
      targets: Float32Array.from({ length: 20 }, (_, i) => Math.cos(seed + i)),
    });
  const trainerOf = (parameters?: (name: string) => boolean): Trainer<RowBatch> =>
    createTrainer<RowBatch>({
      model: gated(),
      mixer: createMixer({ domains: names, rule: { name: "dga" }, updateEvery: 2 }),
      domains: [table("a", 1), table("b", 2)],
      target: table("t", 1),
      batch: B,
      schedule: () => 0.01,
      seed: 1,
      alignment: { from: "step", ...(parameters === undefined ? {} : { parameters }) },
    });

  test("can be left out of the alignment, and is trained all the same", async () => {
    const trainer = trainerOf((name) => name === "weight");
    const steps = [];
    for (let i = 0; i < 4; i++) steps.push(await trainer.step());
    expect(steps.every(({ loss, gradNorm }) => Number.isFinite(loss) && gradNorm > 0)).toBe(true);
    // The same losses as where nothing is aligned.
    const plain = createTrainer<RowBatch>({
      model: gated(),
      mixer: createMixer({ domains: names, rule: { name: "uniform" }, updateEvery: 2 }),
      domains: [table("a", 1), table("b", 2)],
      target: null,
      batch: B,
      schedule: () => 0.01,
      seed: 1,
    });
    expectNear((await plain.step()).gradNorm, steps[0].gradNorm, 1e-6);
  });

  test("is refused if it is aligned, with the remedy", async () => {
    for (const parameters of [undefined, (name: string) => name !== "mixed"])
      await expect(trainerOf(parameters).step()).rejects.toMatchObject({
        code: "autograd",
        message: expect.stringMatching(/gate is used by .*alignment\.parameters|mixes the examples/),
      });
  });
});

test("memory for the target's gradient exists only if a rule aligns", () => {
  const training = createTraining(setup([text(1), text(2)]));
  expect(directionOf(training)).toBe(training.device.direction);
  const still = createTraining(setup([text(1), text(2)], {}, { name: "uniform" }));
  expect(still.device.direction).toBeNull();
  expect(codeOf(() => directionOf(still))).toBe("config: rule uniform: it computes no alignments");
  for (const { device } of [training, still]) device.dispose();
});

test("the target's gradient is computed at the first step after an update, and again every refreshEvery steps", async () => {
  const run = (updateEvery: number, refreshEvery: number): Trainer =>
    createTrainer(
      setup([text(1), text(2)], {
        mixer: createMixer({ domains: names, rule: { name: "dga", normalise: "cosine" }, updateEvery }),
        alignment: { from: "step", refreshEvery, measureEvery: 1 },
      }),
    );
  const noted = async (trainer: Trainer): Promise<number> => {
    const { gathered } = (await trainer.save()).json as { gathered: Record<string, number[]> };
    expect(gathered["targetLosses"].length).toBe(gathered["targetNorms"].length);
    return gathered["targetNorms"].length;
  };
  const trainer = run(5, 2);
  const counts = [];
  for (let i = 0; i < 8; i++) {
    await trainer.step();
    counts.push(await noted(trainer));
  }
  expect(counts).toEqual([1, 1, 2, 2, 0, 1, 1, 2]);
  // With another interval, a run continues in the middle of an interval without measurements.
  const first = run(4, 10);
  for (let i = 0; i < 4; i++) await first.step();
  const second = run(3, 10);
  second.restore(await first.save());
  await second.step();
  expect(await noted(second)).toBe(1);
  expect((await second.step()).alignments?.targetNorm).toBeGreaterThan(0);
});

test("the reference model computes only examples of steps that an update covers", async () => {
  let passes = 0;
  const model = tiny(2);
  const reference: Model = {
    parameters: model.parameters,
    losses(of) {
      passes++;
      return model.losses(of);
    },
  };
  const mixer = createMixer({ domains: names, rule: { name: "doremi" }, updateEvery: 3, updateAfter: 6 });
  const trainer = createTrainer(setup([text(1), text(2)], { reference, mixer }));
  const counts = [];
  for (let i = 0; i < 7; i++) {
    await trainer.step();
    counts.push(passes);
  }
  expect(counts).toEqual([0, 0, 0, 1, 2, 3, 4]);
});

test("with tied weights, the steps record inner products but no norms", async () => {
  const raw: RuleOptions = { name: "dga", normalise: "raw" };
  const trainer = createTrainer(
    setup(
      [text(1), text(2)],
      { model: tied(1), batch: 1, alignment: { from: "step", measureEvery: 1 } },
      raw,
    ),
  );
  for (let i = 0; i < 3; i++) await trainer.step();
  expect((await trainer.save()).json["gathered"]).toMatchObject({
    dots: [expect.any(Number), expect.any(Number), expect.any(Number)],
    squaredNorms: [],
    pairDomains: [],
  });
  expect((await trainer.step()).alignments).not.toHaveProperty("norms");
});

test("the needs of a rule decide what the steps record, and whether there is memory for a target's gradient", () => {
  const step = { alignment: { from: "step" } } as const;
  const targets = new Map([["one", text(1)]]);
  const several: RuleOptions = { name: "grape", targets: ["one"] };
  const cases: [
    RuleOptions,
    Partial<TrainerOptions>,
    { gathers: boolean; recordsLosses?: boolean; directed: boolean },
  ][] = [
    [{ name: "uniform" }, {}, { gathers: false, recordsLosses: false, directed: false }],
    [{ name: "uniform" }, step, { gathers: false, recordsLosses: false, directed: false }],
    [{ name: "dga" }, {}, { gathers: true, recordsLosses: true, directed: true }],
    [
      { name: "dga" },
      { alignment: { from: "batch" } },
      { gathers: false, recordsLosses: false, directed: true },
    ],
    [
      { name: "dga" },
      { alignment: { domainExamples: 4 } },
      { gathers: false, recordsLosses: false, directed: true },
    ],
    [{ name: "dga", normalise: "cosine" }, step, { gathers: true, recordsLosses: true, directed: true }],
    [{ name: "odm" }, {}, { gathers: false, recordsLosses: true, directed: false }],
    [{ name: "odm" }, step, { gathers: false, recordsLosses: true, directed: false }],
    [{ name: "rnb" }, {}, { gathers: false, directed: false }],
    [several, { targets }, { gathers: false, directed: true }],
  ];
  for (const [rule, more, { directed, ...wanted }] of cases) {
    const training = createTraining(setup([text(1), text(2)], more, rule));
    expect(training, JSON.stringify([rule, more])).toMatchObject(wanted);
    expect(training.device.direction !== null).toBe(directed);
    expect(training.state).toMatchObject({ tokens: 0, loss: null, scales: null, directionScale: 1 });
    training.device.dispose();
  }
});

test("an optimizer must have all its parts, and its state must not use names of the trainer's arrays", () => {
  const own = { name: "own", state: {}, steps: 0, step() {}, dispose() {} };
  const refused = (optimizer: object): string =>
    codeOf(() => createTraining(setup([text(1), text(2)], { optimizer: () => optimizer as Optimizer })));
  for (const name of ["name", "state", "steps", "step"] as const) {
    const parts = Object.entries(own).filter(([key]) => key !== name);
    expect(refused(Object.fromEntries(parts))).toBe(
      `config: createTrainer: optimizer: it has no ${name}; it must be an optimizer, such as adamw makes`,
    );
  }
  for (const names of [["value"], ["direction"], ["m", "direction"], ["value", "direction"]])
    expect(
      refused({ ...own, state: Object.fromEntries(names.map((name) => [name, { arena: {}, of() {} }])) }),
    ).toContain(`config: optimizer own: its state cannot be called "${names.find((name) => name !== "m")}"`);
});

describe("numbers that are not finite", () => {
  /** The loss of a row x is (factor of the step)·⟨w, x⟩, and its gradient that factor times x. */
  function steep(
    factors: readonly number[],
    more: Partial<TrainerOptions<RowBatch>> = {},
  ): { trainer: Trainer<RowBatch>; parameters: Parameters } {
    const spec = { name: "w", shape: [1, 2], init: { kind: "constant", value: 1 }, decay: false } as const;
    const parameters = createParameters([spec], 1);
    const [w] = parameters.list;
    let pass = 0;
    const model: Model<RowBatch> = {
      parameters,
      losses: ({ inputs, tokens: { length } }) =>
        scope(() => reshape(mul(linear(tensor(inputs, [length, 2]), w), factors[pass++] ?? 1), [length])),
    };
    const rows = rowsOf("rows", {
      inputs: new Float32Array(8).fill(1),
      width: 2,
      targets: new Int32Array(4),
    });
    const trainer = createTrainer<RowBatch>({
      model,
      mixer: createMixer({ domains: ["a"], rule: { name: "uniform" } }),
      domains: [rows],
      target: null,
      batch: 2,
      schedule: () => 0.01,
      seed: 1,
      ...more,
    });
    return { trainer, parameters };
  }
  const [big, huge] = [1e20, 3e38];

  test.each([
    [huge, {}, "loss became Infinity"],
    [-huge, {}, "loss became -Infinity"],
    [huge, { lossScale: {} }, "loss became Infinity"],
    [NaN, {}, "loss became NaN"],
    [NaN, { lossScale: {} }, "loss became NaN"],
    // The square of the gradient's norm is more than f32 holds.
    [big, {}, "gradient became Infinity"],
    [big, { lossScale: { min: 4, initial: 4 } }, "gradient became Infinity"],
  ] as const)("end a run with its step (%d, %j)", async (factor, more, what) => {
    const { trainer, parameters } = steep([1, factor], more);
    await trainer.step();
    const before = [...(await parameters.value.data())];
    await expect(trainer.step()).rejects.toMatchObject({
      code: "numeric",
      message: `the ${what} at step 2; lower the learning rate`,
    });
    if ("lossScale" in more && factor === big) expect([...(await parameters.value.data())]).toEqual(before);
    expect([trainer.steps, trainer.loss]).toEqual([1, 2]);
  });

  test("skip the step if a smaller scale is left; its loss is returned, and the scale is halved", async () => {
    const { trainer, parameters } = steep([1, big, 1], { lossScale: { initial: 64 } });
    await trainer.step();
    const before = [...(await parameters.value.data())];
    const skipped = await trainer.step();
    expect(skipped).toMatchObject({ step: 2, skipped: true, lossScale: 64, gradNorm: Infinity });
    expectNear(skipped.loss, big * (before[0] + before[1]), 1e-6);
    expect([...(await parameters.value.data())]).toEqual(before);
    const next = await trainer.step();
    expect(next).toMatchObject({ step: 3, skipped: false, lossScale: 32 });
    expectNear(next.gradNorm, Math.SQRT2, 1e-6);
    expect([...(await parameters.value.data())]).not.toEqual(before);
  });
});
