/** Held-out losses for rules that need them: when they are measured, their values, exact resume, a guard that acts on a model, and refusals. */
import { init, shutdown } from "gradmix";
import {
  combinators,
  createMixer,
  createTrainer,
  type HeldOutOptions,
  type Rule,
  rules,
  type Trainer,
  type TrainerOptions,
} from "gradmix/dga";
import { afterEach, beforeEach, expect, test } from "vitest";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { language, tiny, windows } from "./languages.ts";

beforeEach(async () => {
  await init({ backend: "cpu", threads: 1 });
});
afterEach(shutdown);

const text = (seed: number, tokens: number) => windows("abc".charAt(seed - 1), [language(seed, tokens)]);
/** Other walks of the same languages: language(seed, …) is one walk, of which the first part is trained on. */
const split = (seed: number) => {
  const tokens = language(seed, 1400);
  return {
    train: windows("abc".charAt(seed - 1), [tokens.slice(0, 900)]),
    held: windows("held", [tokens.slice(900)]),
  };
};
const splits = [1, 2, 3].map(split);
const heldOut: HeldOutOptions = {
  sets: splits.map(({ held }, i) => (i === 2 ? null : held)),
  tokens: 160,
  every: 2,
};
const guard = (rule: Rule, limit = 1.02): Rule => combinators.guard(rule, { limits: { "*": limit } });

function trainer(rule: Rule, options: Partial<TrainerOptions> = {}): Trainer {
  return createTrainer({
    model: tiny(),
    mixer: createMixer({ domains: ["a", "b", "c"], rule, updateEvery: 3 }),
    domains: splits.map(({ train }) => train),
    target: splits[0].held,
    batch: 6,
    schedule: () => 0.01,
    seed: 1,
    heldOut,
    ...options,
  });
}

test("are measured at every so many-th update, on the same examples as before the first step, and paired", async () => {
  const run = trainer(guard(rules.uniform()));
  const [a, b] = splits;
  const evaluated = async (): Promise<number[]> => [
    await run.evaluate(a.held, 160),
    await run.evaluate(b.held, 160),
  ];
  const before = await evaluated();
  const one = async (): Promise<number[]> => {
    const losses = [];
    const { model } = run;
    for (let e = 0; e < 10; e++) losses.push((await model.losses(a.held.batchOf([e])).data())[0]);
    return losses;
  };
  const first = await one();
  const measured: number[] = [];
  for (let step = 1; step <= 12; step++) {
    const { heldOut: found } = await run.step();
    if (found === null) continue;
    measured.push(step);
    const [of, now, alone] = [(await run.heldOut()) ?? found, await evaluated(), await one()];
    // Updates move weights, not parameters.
    expect(of).toEqual(found);
    expect(found.losses[2]).toBeNull();
    expectNear(found.losses.slice(0, 2).map(Number), now, 1e-6);
    expectNear(found.references.slice(0, 2).map(Number), before, 1e-6);
    const rises = alone.map((loss, e) => (loss - first[e]) / 16);
    const mean = rises.reduce((sum, rise) => sum + rise) / 10;
    const spread = rises.reduce((sum, rise) => sum + (rise - mean) ** 2, 0) / 9;
    expectNear(Number(found.standardErrors[0]), Math.sqrt(spread / 10), 1e-5);
  }
  expect(measured).toEqual([6, 12]);
  run.dispose();
});

test("are compared with those of a reference model if there is one", async () => {
  const reference = tiny(7);
  const run = trainer(guard(rules.uniform()), { reference });
  const losses = await (async () => {
    const watched = trainer(rules.uniform(), { model: reference });
    return [await watched.evaluate(splits[0].held, 160), await watched.evaluate(splits[1].held, 160)];
  })();
  const found = await run.heldOut();
  expectNear(found?.references.slice(0, 2).map(Number) ?? [], losses, 1e-6);
  expect(found?.losses[0]).not.toBe(found?.references[0]);
  run.dispose();
});

test("a guard around weights that are all on one domain gives another domain enough weight to keep its loss down", async () => {
  const onOne = (): Rule => rules.static({ name: "static", weights: [1, 0, 0] });
  const risen = async (rule: Rule): Promise<{ ratio: number; weight: number }> => {
    const model = tiny();
    const first = trainer(rules.uniform(), { model });
    for (let step = 0; step < 60; step++) await first.step();
    first.dispose();
    const run = trainer(rule, { model, heldOut: { ...heldOut, tokens: 320, every: 1 } });
    const before = await run.evaluate(splits[1].held, 320);
    let weight = 0;
    for (let step = 0; step < 60; step++) weight = Math.max(weight, (await run.step()).weights[1]);
    const ratio = (await run.evaluate(splits[1].held, 320)) / before;
    run.dispose();
    model.dispose();
    return { ratio, weight };
  };
  const free = await risen(onOne());
  const held = await risen(guard(onOne()));
  expect(free.weight).toBe(0);
  expect(free.ratio).toBeGreaterThan(1.2);
  expect(held.weight).toBeGreaterThan(0.05);
  expect(held.ratio).toBeLessThan(1.06);
  // Far from its limit it changes nothing.
  expect(await risen(guard(onOne(), 50))).toEqual(free);
});

test("a restored trainer continues to the same bits, if it was saved before the first measurement or between two", async () => {
  const rule = (): Rule => guard(rules.dga({ name: "dga", normalise: "raw", eta: 0.2 }), 1);
  for (const at of [0, 4, 6]) {
    const [run, other] = [trainer(rule()), trainer(rule(), { model: tiny(5) })];
    for (let step = 0; step < at; step++) await run.step();
    const saved = await run.save();
    other.restore({
      json: JSON.parse(JSON.stringify(saved.json)) as typeof saved.json,
      arrays: saved.arrays,
    });
    for (let step = at; step < 13; step++) expect(await other.step()).toEqual(await run.step());
    run.dispose();
    other.dispose();
  }
});

test("a checkpoint without the losses to compare with, or with those of other examples, is refused", async () => {
  const run = trainer(guard(rules.uniform()));
  await run.step();
  const { json, arrays } = await run.save();
  const { heldOut: losses, ...rest } = json;
  const sets = losses as number[][];
  const refused = (heldOut: unknown): string =>
    codeOf(() => run.restore({ json: heldOut === undefined ? rest : { ...rest, heldOut }, arrays }));
  expect(refused(losses)).toBe("no error");
  for (const none of [undefined, 3, sets.slice(1)])
    expect(refused(none)).toBe(
      "checkpoint: checkpoint: it has no losses of the held-out examples that the rule compares with",
    );
  for (const other of [
    sets.with(0, sets[0].slice(1)),
    sets.with(0, sets[0].with(3, NaN)),
    sets.with(2, sets[0]),
  ])
    expect(refused(other)).toMatch(
      /^checkpoint: checkpoint: its losses of held-out examples of domain "[ac]"/,
    );
  run.dispose();
});

test("options that do not fit are refused; a rule that does not need them has none", async () => {
  const rule = guard(rules.uniform());
  const { sets } = heldOut;
  const made = (options: Partial<TrainerOptions>) => codeOf(() => trainer(rule, options).dispose());
  expect(made({ heldOut: { sets: sets.slice(1) } })).toBe(
    "config: createTrainer: heldOut: 2 sets for 3 domains",
  );
  expect(made({ heldOut: { sets: [1] } as never })).toMatch(/^config: createTrainer: heldOut: sets: a list/);
  for (const name of ["tokens", "every"])
    expect(made({ heldOut: { sets, [name]: 0 } })).toMatch(`config: createTrainer: heldOut: ${name}: 0 `);
  const { heldOut: _none, ...without } = { heldOut, ...{ model: tiny() } };
  expect(
    codeOf(() =>
      createTrainer({
        mixer: createMixer({ domains: ["a"], rule }),
        domains: [text(1, 100)],
        target: null,
        batch: 1,
        schedule: () => 0.1,
        seed: 1,
        ...without,
      }),
    ),
  ).toBe("config: rule guard(uniform): it needs losses on held-out text; give heldOut");
  const plain = trainer(rules.uniform());
  expect((await plain.step()).heldOut).toBeNull();
  expect(await plain.heldOut()).toBeNull();
  expect((await plain.save()).json).not.toHaveProperty("heldOut");
  plain.dispose();
});
