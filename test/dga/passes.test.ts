/** One backward pass, its weights and its pieces: the parts of every estimator. */
import { type Backend, init, mul, scope, shutdown } from "gradmix";
import { type EstimateOptions, meanGradient } from "gradmix/dga";
import { arenaLike, type Model, type TokenBatch } from "gradmix/nn";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkEstimate, chunks, exampleWeight, lossesOf, readAndDispose } from "#dist/dga/passes.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await init({ backend: "cpu", threads: 1 });
  model = tiny(2);
});
afterAll(shutdown);

const batch = windows("text", [language(1, 6 * time + 1)]).batchOf([0, 1, 2]);
const other = windows("text", [language(2, 6 * time + 1)]).batchOf([3, 1]);
const silent: TokenBatch = { ...batch, targets: batch.targets.map(() => -1), tokens: [0, 0, 0] };

describe("the gradient of the mean loss per token", () => {
  test("is written to the given arena or added to it, times the loss scale; the losses are the examples' sums", async () => {
    const arena = arenaLike(model.parameters);
    const into = async (of: TokenBatch, ...more: [boolean?, undefined?, number?]): Promise<number[]> => {
      const losses = await readAndDispose(meanGradient(model, of, arena, ...more));
      expectNear(losses, await lossesOf(model, of), 1e-6);
      return [...(await arena.arena.data())];
    };
    const first = await into(batch);
    const second = await into(other);
    const largest = Math.max(...first.map(Math.abs));
    expect(largest).toBeGreaterThan(0);
    expect(await into(batch)).toEqual(first);
    expectNear(
      await into(other, true),
      first.map((x, i) => x + second[i]),
      1e-6,
    );
    expect(await into(other, false, undefined, 8)).toEqual(second.map((x) => 8 * x));
    // That of two batches at once is the mean over all tokens.
    const whole = await into(windows("text", [language(1, 6 * time + 1)]).batchOf([0, 1, 2, 3]));
    const last = await into(windows("text", [language(1, 6 * time + 1)]).batchOf([3]));
    expectNear(
      whole,
      first.map((x, i) => (3 * x + last[i]) / 4),
      1e-5,
    );
    // Without tokens there is nothing to learn.
    expect(Math.max(...(await into(silent)).map(Math.abs))).toBe(0);
    const masking: Model = { parameters: model.parameters, losses: () => mul(model.losses(batch), 0) };
    meanGradient(masking, silent, arena).dispose();
    expect(Math.max(...(await arena.arena.data()).map(Math.abs))).toBe(0);
    arena.dispose();
  });

  test("refuses an invalid batch before any work, and holds no memory after a pass that failed", () => {
    const arena = arenaLike(model.parameters);
    const live = backend.liveBytes;
    let passes = 0;
    const counting: Model = {
      parameters: model.parameters,
      losses(of) {
        passes++;
        model.losses(of).dispose();
        throw new Error("in the middle");
      },
    };
    expect(codeOf(() => meanGradient(counting, { ...batch, inputs: batch.inputs.subarray(1) }, arena))).toBe(
      `shape: meanGradient: ${3 * time - 1} inputs cannot be divided evenly among the 3 examples in tokens`,
    );
    expect(codeOf(() => meanGradient(counting, { ...batch, tokens: [1, NaN, 1] }, arena))).toMatch(
      /^data: meanGradient: tokens of example 1 are NaN;/,
    );
    expect(passes).toBe(0);
    expect(codeOf(() => meanGradient(counting, batch, arena))).toBe("Error: in the middle");
    expect(passes).toBe(1);
    expect(backend.liveBytes).toBe(live);
    arena.dispose();
  });

  test("the pass leaves only the losses in memory", async () => {
    for (const preset of ["llama", "gpt2"] as const) {
      const own = tiny(1, preset);
      const arena = arenaLike(own.parameters);
      const live = backend.liveBytes;
      await readAndDispose(meanGradient(own, batch, arena));
      expect(backend.liveBytes).toBe(live);
      arena.dispose();
      own.dispose();
    }
  });

  test("tensors whose numbers were read are disposed", async () => {
    const live = backend.liveBytes;
    await readAndDispose(model.losses(batch));
    await lossesOf(model, batch);
    expect(backend.liveBytes).toBe(live);
    // Also those that a scope made which ends before they are there.
    let numbers: Promise<Float64Array> | undefined;
    scope(() => void (numbers = readAndDispose(model.losses(batch))));
    expect(await numbers).toEqual(await lossesOf(model, batch));
    expect(backend.liveBytes).toBe(live);
  });
});

test("the scale of examples is that of the mean per token, rounded down to a power of two", () => {
  const weightOf = (tokens: readonly number[], options: EstimateOptions): number =>
    exampleWeight({ tokens }, options);
  fc.assert(
    fc.property(
      fc.array(fc.nat(3000), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: -20, max: 24 }),
      (tokens, e) => {
        expect(weightOf(tokens, {})).toBe(1);
        const scale = 2 ** e;
        const weight = weightOf(tokens, { lossScale: scale });
        const mean =
          scale /
          Math.max(
            1,
            tokens.reduce((a, b) => a + b),
          );
        expect(Number.isInteger(Math.log2(weight))).toBe(true);
        expect(weight).toBeLessThanOrEqual(mean);
        expect(2 * weight).toBeGreaterThan(mean);
      },
    ),
    {
      examples: [
        [[0], 3],
        [[1], 3],
        [[2], 3],
        [[1024], 0],
        [[1023], 0],
        [[1025], 0],
      ],
    },
  );
});

test("pieces consist of whole domains in order, and are as full as possible", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(6), { maxLength: 9 }), fc.integer({ min: 1, max: 10 }), (sizes, most) => {
      const domains = sizes.map((size) => ({ tokens: new Array<number>(size).fill(1) }));
      const ranges = chunks(domains, most);
      expect(ranges.flatMap(([first, end]) => sizes.slice(first, end))).toEqual(sizes);
      ranges.forEach(([first, end], i) => {
        expect(end).toBeGreaterThan(first);
        const held = sizes.slice(first, end).reduce((a, b) => a + b, 0);
        expect(held <= most || end - first === 1).toBe(true);
        // The next domain would have been too much.
        if (i + 1 < ranges.length) expect(held + sizes[end]).toBeGreaterThan(most);
      });
      expect(chunks(domains, Infinity)).toEqual(sizes.length > 0 ? [[0, sizes.length]] : []);
    }),
  );
});

test("the options of an estimate are checked by name, even those that only one function has", () => {
  const v = { arena: {}, of: () => ({}) };
  const told = (options: object, more?: Parameters<typeof checkEstimate>[2]): string =>
    codeOf(() => checkEstimate("here", options, more));
  const fine: object[] = [
    {},
    { maxExamples: 1, direction: v, parameters: () => true, sketch: {}, lossScale: 0.5 },
    { sketch: { rank: 1, seed: 0 } },
    { precondition: { v, bias: 1, eps: 5 } },
    { precondition: { v, bias: 1e-300, eps: 1e-300 } },
  ];
  for (const options of fine) expect(told(options), JSON.stringify(options)).toBe("no error");
  const refused: [object, string][] = [
    [{ maxExamples: 0 }, "here: maxExamples: 0 "],
    [{ direction: 5 }, "here: direction: 5 "],
    [{ direction: {} }, "here: direction: it has no arena"],
    [{ precondition: { v: {}, bias: 1, eps: 1 } }, "here: precondition: v: it has no arena"],
    [{ parameters: "w" }, 'here: parameters: "w" '],
    [{ sketch: 8 }, "here: sketch: 8 "],
    [{ precondition: null }, "here: precondition: null "],
    [{ lossScale: 3 }, "here: lossScale: 3 "],
    [{ sketch: { rank: 0 } }, "here: sketch: rank: 0 "],
    [{ sketch: { seed: -1 } }, "here: sketch: seed: -1 "],
    [{ sketch: { rnak: 8 } }, 'here: sketch: there is no option "rnak"'],
    [{ precondition: { bias: 1, eps: 1 } }, "here: precondition: v is missing"],
    [{ precondition: { v, eps: 1 } }, "here: precondition: bias is missing"],
    [{ precondition: { v, bias: 1 } }, "here: precondition: eps is missing"],
    [{ precondition: { v: 1, bias: 1, eps: 1 } }, "here: precondition: v: 1 "],
    ...[0, -1, 1.001, NaN].map((bias): [object, string] => [
      { precondition: { v, bias, eps: 1 } },
      `here: precondition: bias: ${bias} `,
    ]),
    ...[0, -1, Infinity, NaN].map((eps): [object, string] => [
      { precondition: { v, bias: 1, eps } },
      `here: precondition: eps: ${eps} `,
    ]),
    [{ held: 2 }, 'here: there is no option "held"'],
  ];
  for (const [options, start] of refused) expect(told(options).slice(8, 8 + start.length)).toBe(start);
  const more = { held: () => expect.unreachable() };
  expect(codeOf(() => checkEstimate<{ held?: number }>("here", { maxExamples: 2 }, more))).toBe("no error");
});
