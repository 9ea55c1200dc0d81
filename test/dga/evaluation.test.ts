/** The loss on held-out examples, against the model's losses of these examples one by one. */
import { type CancelSignal, init, shutdown, zeros } from "gradmix";
import { type Dataset, examplesOf } from "gradmix/data";
import { createMixer, createTrainer, type Trainer } from "gradmix/dga";
import type { Model, TokenBatch } from "gradmix/nn";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

const counts = [3, 0, 5, 1, 16, 0, 2, 7];
/** Windows of which only the first so many tokens count. */
const held: Dataset<TokenBatch> = (() => {
  const { inputs, targets } = windows("text", [language(4, counts.length * time + 1)]).batchOf(
    counts.map((_, i) => i),
  );
  return examplesOf("held out", {
    inputs,
    targets: targets.map((id, i) => (i % time < counts[Math.floor(i / time)] ? id : -1)),
    tokens: counts,
    time,
  });
})();

let model: Model;
let losses: Float32Array | Int32Array;
beforeAll(async () => {
  await init({ backend: "cpu", threads: 1 });
  model = tiny(3);
  losses = await model.losses(held.batchOf(counts.map((_, i) => i))).data();
});
afterAll(shutdown);

/** The batches that the model is given. */
function evaluated(batch: number): { trainer: Trainer; seen: number[]; asked: (number | undefined)[][] } {
  const seen: number[] = [];
  const asked: (number | undefined)[][] = [];
  const watched: Model = {
    parameters: model.parameters,
    check: (_, ...range) => asked.push(range),
    losses(of) {
      seen.push(of.tokens.length);
      return model.losses(of);
    },
  };
  const trainer = createTrainer({
    model: watched,
    mixer: createMixer({ domains: ["a"], rule: { name: "uniform" } }),
    domains: [windows("a", [language(1, 100)])],
    target: null,
    batch,
    schedule: () => 0.01,
    seed: 1,
  });
  return { trainer, seen, asked };
}
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

test.each([1, 2, 3, 8, 9])(
  "is the mean over the first examples that hold the requested tokens, %i per batch",
  async (batch) => {
    const { trainer, seen, asked } = evaluated(batch);
    for (const tokens of [1, 3, 3.5, 4, 8, 9, 34, 35, Infinity]) {
      let end = 0;
      while (end < counts.length && sum(counts.slice(0, end)) < tokens) end++;
      seen.length = 0;
      expectNear(
        await trainer.evaluate(held, tokens),
        sum(losses.slice(0, end)) / sum(counts.slice(0, end)),
        1e-6,
      );
      // Only examples that count are read, and the model checks them before.
      expect(asked.at(-1)).toEqual([0, end]);
      expect(sum(seen)).toBe(end);
      expect(seen.length).toBe(Math.ceil(end / batch));
      expect(Math.max(...seen)).toBe(Math.min(batch, end));
    }
    trainer.dispose();
  },
);

test("a source without tokens is refused, and so is an invalid number of tokens", async () => {
  const { trainer, seen } = evaluated(2);
  const { inputs, targets } = held.batchOf([0, 1]);
  const empty = examplesOf<TokenBatch>("empty", { inputs, targets: targets.fill(-1), tokens: [0, 0], time });
  await expect(trainer.evaluate(empty, 5)).rejects.toMatchObject({
    code: "data",
    message: '"empty" has no tokens to evaluate a model on',
  });
  for (const tokens of [0, 0.5, -1, NaN, "9" as unknown as number])
    await expect(trainer.evaluate(held, tokens)).rejects.toMatchObject({
      code: "config",
      message: expect.stringMatching(/^evaluate: tokens: .* does not fit/),
    });
  expect(seen).toEqual([]);
});

test("a model that does not return one loss per example is refused", async () => {
  for (const [losses, code, message] of [
    [() => undefined, "autograd", /^model.losses: the function returned nothing/],
    [() => Promise.resolve(1), "autograd", /^model.losses: the function returned a promise/],
    [() => zeros([]), "shape", /^model.losses: it returned \[\] for 2 examples/],
    [() => zeros([1]), "shape", /^model.losses: it returned \[1\] for 2 examples/],
    [() => zeros([2, 1]), "shape", /^model.losses: it returned \[2, 1\] for 2 examples/],
  ] as const) {
    const trainer = createTrainer({
      model: { ...model, losses: losses as unknown as typeof model.losses },
      mixer: createMixer({ domains: ["a"], rule: { name: "uniform" } }),
      domains: [windows("a", [language(1, 100)])],
      target: null,
      batch: 2,
      schedule: () => 0.01,
      seed: 1,
    });
    await expect(trainer.evaluate(held, 8)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    trainer.dispose();
  }
});

test("ends before the next batch after its signal is aborted, and throws the reason", async () => {
  for (const after of [0, 1, 2]) {
    const { trainer, seen } = evaluated(3);
    const stop = new Error("enough");
    const signal: CancelSignal = {
      aborted: false,
      throwIfAborted() {
        if (seen.length >= after) throw stop;
      },
    };
    await expect(trainer.evaluate(held, Infinity, signal)).rejects.toBe(stop);
    expect(seen.length).toBe(after);
  }
});
