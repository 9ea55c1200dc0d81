/** A model knows in which of its passes it trains: dropout acts there alone, and a resumed run drops the same elements. */
import { crossEntropy, dropout, init, linear, scope, shutdown, tensor } from "gradmix";
import { type RowBatch, rowsOf } from "gradmix/data";
import { createMixer, createTrainer, estimateAlignments, type RuleOptions, type Trainer } from "gradmix/dga";
import { adamw, createParameters, createSchedule, type Model, type TrainingPass } from "gradmix/nn";
import { afterAll, beforeAll, expect, test } from "vitest";

beforeAll(async () => void (await init({ backend: "cpu", threads: 1 })));
afterAll(shutdown);

const width = 8;
const table = (name: string, sign: number) => {
  const inputs = Float32Array.from({ length: 40 * width }, (_, i) => Math.sin(i * i));
  const targets = Int32Array.from({ length: 40 }, (_, i) => (inputs[i * width] * sign > 0 ? 1 : 0));
  return rowsOf(name, { inputs, width, targets });
};
const [right, wrong] = [table("right", 1), table("wrong", -1)];

/** A linear classifier with dropout before it, and the passes in which it trained, by the number of examples. */
function dropping(rate: number) {
  const normal = { kind: "normal", deviation: 0.1 } as const;
  const parameters = createParameters([{ name: "weight", shape: [2, width], init: normal, decay: false }], 1);
  const [weight] = parameters.list;
  const passes: (TrainingPass | undefined)[] = [];
  const model: Model<RowBatch> = {
    parameters,
    losses({ inputs, targets, tokens: { length } }, training) {
      passes.push(training);
      return scope(() => {
        const x = tensor(inputs, [length, width]);
        const kept = training === undefined ? x : dropout(x, rate, { seed: training.seed });
        return crossEntropy(linear(kept, weight), tensor(targets, [length], "i32"));
      });
    },
  };
  return { model, passes };
}

function trainerOf(model: Model<RowBatch>, rule: RuleOptions, seed = 5): Trainer<RowBatch> {
  return createTrainer({
    model,
    mixer: createMixer({ domains: ["right", "wrong"], rule, updateEvery: 2 }),
    domains: [right, wrong],
    target: rule.name === "uniform" ? null : right,
    batch: 6,
    optimizer: (parameters) => adamw(parameters, { weightDecay: 0 }),
    schedule: createSchedule({ name: "constant", lr: 0.05, steps: 20 }),
    seed,
  });
}

const bits = async (model: Model<RowBatch>): Promise<number[]> => [...(await model.parameters.value.data())];

test("training passes, and no others, have the number of the step and a seed of their own", async () => {
  for (const rule of [{ name: "dga" }, { name: "uniform" }] as const) {
    const { model, passes } = dropping(0.5);
    const trainer = trainerOf(model, rule);
    for (let step = 0; step < 4; step++) await trainer.step();
    const trained = passes.flatMap((pass) => (pass === undefined ? [] : [pass]));
    expect(trained.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
    expect(new Set(trained.map(({ seed }) => seed)).size).toBe(4);
    expect(trained.every(({ seed }) => Number.isSafeInteger(seed) && seed >= 0)).toBe(true);
    // The gradients of the target.
    expect(passes.length > trained.length).toBe(rule.name === "dga");

    passes.length = 0;
    await trainer.evaluate(right, 40);
    const [own, other] = [right, wrong].map((rows) => rows.batchOf([0, 1, 2]));
    await estimateAlignments("segmented", model, own, [own, other]);
    expect(passes.length).toBeGreaterThan(1);
    expect(passes.every((pass) => pass === undefined)).toBe(true);
    trainer.dispose();
    model.parameters.dispose();
  }
});

test("dropout acts on training, and a resumed run drops the same elements", async () => {
  const run = async (rate: number, seed: number, stop: number | null): Promise<number[]> => {
    const first = dropping(rate);
    let [model, trainer] = [first.model, trainerOf(first.model, { name: "dga" }, seed)];
    for (let step = 0; step < 8; step++) {
      if (step === stop) {
        const saved = await trainer.save();
        trainer.dispose();
        model = dropping(rate).model;
        trainer = trainerOf(model, { name: "dga" }, seed);
        trainer.restore(saved);
      }
      await trainer.step();
    }
    trainer.dispose();
    return bits(model);
  };
  const whole = await run(0.5, 5, null);
  expect(await run(0.5, 5, 3)).toEqual(whole);
  expect(await run(0, 5, null)).not.toEqual(whole);
  expect(await run(0.5, 6, null)).not.toEqual(whole);
});
