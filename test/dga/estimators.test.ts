/** Estimators against gradients that are computed one by one: any sizes, domains without tokens, reused directions, and the memory that they hold. */
import { type Backend, crossEntropy, init, linear, scope, shutdown, tensor } from "gradmix";
import { type RowBatch, rowsOf } from "gradmix/data";
import {
  estimateAlignments,
  type EstimateOptions,
  estimateGram,
  type EstimatorName,
  estimatorNames,
  exampleNumbers,
  meanGradient,
  targetDirection,
} from "gradmix/dga";
import { arenaLike, createParameters, type Model, type TokenBatch } from "gradmix/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readAndDispose } from "#dist/dga/passes.js";
import { expectNear } from "../near.ts";
import { language, time, tiny, windows } from "./languages.ts";

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await init({ backend: "cpu", threads: 1 });
  model = tiny(2);
});
afterAll(shutdown);

/** The first `count` examples of a text, of which the last few tokens do not count, more of them the later the example. */
function batch(seed: number, count: number, counted: (e: number) => number = (e) => time - e): TokenBatch {
  const text = windows("text", [language(seed, count * time + 1)]);
  const { inputs, targets } = text.batchOf(Array.from({ length: count }, (_, e) => e));
  return {
    inputs,
    targets: targets.map((id, i) => (i % time < counted(Math.floor(i / time)) ? id : -1)),
    tokens: Array.from({ length: count }, (_, e) => counted(e)),
    time,
  };
}
const silent = (seed: number, count: number): TokenBatch => batch(seed, count, () => 0);
/** Sizes that fill no piece evenly; the second domain has no token, the fourth one example. */
const domains = [batch(1, 3), silent(2, 2), batch(3, 5), batch(4, 1), batch(5, 2)];
const target = batch(6, 4);

interface Own {
  readonly gradient: Float64Array;
  readonly loss: number;
}
async function ownOf(of: TokenBatch, chosen: EstimateOptions["parameters"] = () => true): Promise<Own> {
  const arena = arenaLike(model.parameters);
  const tokens = Array.from(of.tokens).reduce((a, b) => a + b);
  const losses = await readAndDispose(meanGradient(model, of, arena));
  const gradient = new Float64Array(model.parameters.value.size);
  const values = await arena.arena.data();
  for (const [name, { offset, size }] of model.parameters.byName)
    if (chosen(name)) {
      const at = offset - model.parameters.value.offset;
      gradient.set(values.subarray(at, at + size), at);
    }
  arena.dispose();
  return { gradient, loss: losses.reduce((a, b) => a + b) / Math.max(1, tokens) };
}
const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i], 0);
const norm = (a: Float64Array): number => Math.sqrt(dot(a, a));

const exact = ["perDomain", "segmented", "forward"] as const;
const lastOnes = (name: string): boolean => !name.startsWith("embedding") && !name.startsWith("blocks");

describe.each(exact)("%s", (name) => {
  const variants: [string, EstimateOptions][] = [
    ["at once", {}],
    ["in pieces of 4", { maxExamples: 4 }],
    ["one example at a time", { maxExamples: 1 }],
    ["scaled", { lossScale: 64, maxExamples: 6 }],
    ["of some parameters", { parameters: lastOnes, maxExamples: 5 }],
  ];
  test.each(variants)("equals ⟨∇Lᵢ, ∇L⟩ for every domain (%s)", async (_, options) => {
    const live = backend.liveBytes;
    const goal = await ownOf(target, options.parameters);
    const own = await Promise.all(domains.map((domain) => ownOf(domain, options.parameters)));
    const found = await estimateAlignments(name, model, target, domains, options);
    const scale = norm(goal.gradient) * Math.max(...own.map(({ gradient }) => norm(gradient)));
    expect(scale).toBeGreaterThan(0);
    expectNear(
      found.alignments,
      own.map(({ gradient }) => dot(gradient, goal.gradient)),
      1e-5,
      scale,
    );
    expectNear(
      found.losses,
      own.map(({ loss }) => loss),
      1e-6,
    );
    expect(found.losses[1]).toBe(0);
    expect([...found.tokens]).toEqual(
      domains.map(({ tokens }) => Array.from(tokens).reduce((a, b) => a + b)),
    );
    expectNear(found.targetNorm, norm(goal.gradient), 1e-5);
    expectNear(found.targetLoss, goal.loss, 1e-6);
    if (name === "forward") expect(found).not.toHaveProperty("norms");
    else
      expectNear(
        found.norms,
        own.map(({ gradient }) => norm(gradient)),
        1e-5,
      );
    expect(found).not.toHaveProperty("tied");
    expect(backend.liveBytes).toBe(live);
  });

  test("overwrites a given direction, which still belongs to the caller", async () => {
    const direction = arenaLike(model.parameters);
    direction.arena.write(new Float32Array(direction.arena.size).fill(7));
    const live = backend.liveBytes;
    const options = { parameters: lastOnes };
    const fresh = await estimateAlignments(name, model, target, domains, options);
    const found = await estimateAlignments(name, model, target, domains, { ...options, direction });
    expect(found).toEqual(fresh);
    expectNear(await direction.arena.data(), (await ownOf(target, lastOnes)).gradient, 1e-6);
    expect(backend.liveBytes).toBe(live);
    direction.dispose();
  });
});

test.each(estimatorNames)("%s refuses what it cannot measure, and holds no memory then", async (name) => {
  const live = backend.liveBytes;
  const refused = async (
    of: TokenBatch,
    all: readonly TokenBatch[],
    options: EstimateOptions,
    code: string,
    message: RegExp,
    of_: EstimatorName = name,
  ): Promise<void> => {
    await expect(estimateAlignments(of_, model, of, all, options)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(backend.liveBytes).toBe(live);
  };
  await refused(silent(1, 2), domains, {}, "data", /^the target batch has no tokens to learn from$/);
  await refused(target, [], {}, "config", /^estimateAlignments: at least one domain's batch is needed$/);
  await refused(target, domains, { maxExamples: 0 }, "config", /^estimateAlignments: maxExamples: 0 /);
  const misspelt = `${name}s` as EstimatorName;
  await refused(
    target,
    domains,
    {},
    "config",
    /^estimateAlignments: name: ".*" is not known; did you/,
    misspelt,
  );
  const precondition = { v: arenaLike(model.parameters), bias: 0.5, eps: 1 };
  const asked = estimateAlignments(name, model, target, domains, { precondition });
  if (name === "sketch") await expect(asked).rejects.toThrow(/^estimator sketch: it cannot precondition;/);
  else await asked;
  precondition.v.dispose();
  // A target of a single token, and a single domain, are enough.
  const one = batch(8, 1, () => 1);
  expect((await estimateAlignments(name, model, one, [one])).targetLoss).toBeGreaterThan(0);
  expect(backend.liveBytes).toBe(live);
});

test("a preconditioned direction is the target's gradient over √(v/bias) + ε", async () => {
  const [v, direction] = [arenaLike(model.parameters), arenaLike(model.parameters)];
  const moments = Float32Array.from({ length: v.arena.size }, (_, i) => (i % 7) / 100);
  v.arena.write(moments);
  const { gradient, loss } = await ownOf(target);
  for (const [bias, eps] of [
    [0.1, 0.05],
    [1, 2],
  ]) {
    const wanted = gradient.map((g, i) => g / (Math.sqrt(moments[i] / bias) + eps));
    const found = await targetDirection(model, target, direction, { precondition: { v, bias, eps } });
    expectNear(await direction.arena.data(), wanted, 1e-5);
    expectNear(found.targetNorm, norm(wanted), 1e-5);
    expectNear(found.targetLoss, loss, 1e-6);
  }
  expect([...(await v.arena.data())]).toEqual([...moments]);
  for (const arena of [v, direction]) arena.dispose();
});

test("a sketch uses the same options for domains and target", async () => {
  const [wide, narrow] = [
    { rank: 4, seed: 1 },
    { rank: 2, seed: 5 },
  ];
  const found = await Promise.all(
    [wide, narrow, narrow].map((sketch) => estimateAlignments("sketch", model, target, domains, { sketch })),
  );
  expect(found[1]).toEqual(found[2]);
  expect(found[1].alignments).not.toEqual(found[0].alignments);
});

describe("the numbers of single examples", () => {
  test.each([undefined, 1, 2, 3, 4, 5, 9])(
    "equal those of the examples' own gradients (%s at a time)",
    async (maxExamples) => {
      const live = backend.liveBytes;
      const direction = arenaLike(model.parameters);
      await targetDirection(model, target, direction);
      const goal = Float64Array.from(await direction.arena.data());
      const rows = batch(3, 5, (e) => [16, 3, 0, 1, 9][e]);
      const found = await exampleNumbers(
        model,
        rows,
        direction,
        maxExamples === undefined ? {} : { maxExamples },
      );
      expect(found.tokens).toBe(rows.tokens);
      expect(found).not.toHaveProperty("tied");
      for (let e = 0; e < 5; e++) {
        const tokens = rows.tokens[e];
        const { gradient, loss } = await ownOf({
          inputs: rows.inputs.slice(e * time, (e + 1) * time),
          targets: rows.targets.slice(e * time, (e + 1) * time),
          tokens: [tokens],
          time,
        });
        expectNear(found.dots[e], tokens * dot(gradient, goal), 1e-5, 16 * norm(goal) * (1 + norm(gradient)));
        expectNear(found.losses[e], tokens * loss, 1e-6);
        expectNear(found.squaredNorms?.[e], tokens ** 2 * dot(gradient, gradient), 1e-5);
      }
      direction.dispose();
      expect(backend.liveBytes).toBe(live);
    },
  );

  test("are empty for an empty batch; values that are not batches are refused", async () => {
    const direction = arenaLike(model.parameters);
    const none = { inputs: new Int32Array(0), targets: new Int32Array(0), tokens: [], time };
    for (const options of [{}, { maxExamples: 2 }])
      expect(await exampleNumbers(model, none, direction, options)).toMatchObject({
        dots: new Float64Array(0),
        losses: new Float64Array(0),
      });
    const wrong = { ...target, inputs: target.inputs.subarray(1) };
    await expect(exampleNumbers(model, wrong, direction, { maxExamples: 2 })).rejects.toThrow(
      /^exampleNumbers: \d+ inputs cannot be divided evenly among the 4 examples/,
    );
    for (const [call, where] of [
      [exampleNumbers(model, target, direction, { maxExamples: 0 }), "exampleNumbers"],
      [targetDirection(model, target, direction, { maxExamples: 0 }), "targetDirection"],
      [estimateGram(model, [target], { maxExamples: 0 }), "estimateGram"],
    ] as const)
      await expect(call).rejects.toThrow(`${where}: maxExamples: 0 `);
    for (const held of [0, 1.5])
      await expect(estimateGram(model, [target], { held })).rejects.toThrow(`estimateGram: held: ${held} `);
    await expect(targetDirection(model, silent(1, 1), direction)).rejects.toMatchObject({
      code: "data",
      message: "the target batch has no tokens to learn from",
    });
    direction.dispose();
  });

  test("if any piece uses a parameter twice, it is named, and there are no norms", async () => {
    const spec = { name: "w", shape: [2, 2], init: { kind: "normal", deviation: 1 }, decay: true } as const;
    const parameters = createParameters([spec], 1);
    const [w] = parameters.list;
    const some: Model<RowBatch> = {
      parameters,
      losses: ({ inputs, targets, tokens: { length } }) =>
        scope(() => {
          const once = linear(tensor(inputs, [length, 2]), w);
          // Twice where the piece begins with more than 0.
          return crossEntropy(inputs[0] > 0 ? linear(once, w) : once, tensor(targets, [length], "i32"));
        }),
    };
    const rows = (...inputs: number[]): RowBatch =>
      rowsOf("rows", {
        inputs: Float32Array.from(inputs),
        width: 2,
        targets: new Int32Array(inputs.length / 2),
      }).batchOf(Array.from({ length: inputs.length / 2 }, (_, e) => e));
    const direction = arenaLike(parameters);
    const [once, twice] = [
      [-1, 2, -3, 1],
      [1, 2, 3, 1],
    ];
    for (const [first, last, where] of [
      [once, once, undefined],
      [once, twice, "w"],
      [twice, once, "w"],
    ] as const) {
      const options = { maxExamples: 2 };
      const found = await exampleNumbers(some, rows(...first, ...last), direction, options);
      const aligned = await estimateAlignments(
        "segmented",
        some,
        rows(1, 1),
        [rows(...first), rows(...last)],
        options,
      );
      expect([found.tied, aligned.tied]).toEqual([where, where]);
      expect([found.squaredNorms === undefined, aligned.norms === undefined]).toEqual([
        where !== undefined,
        where !== undefined,
      ]);
    }
    direction.dispose();
    parameters.dispose();
  });
});

describe("a Gram matrix", () => {
  test.each([
    [5, 1],
    [5, 2],
    [5, 4],
    [5, 5],
    [5, 9],
    [1, 1],
    [34, undefined],
    [33, undefined],
    [32, undefined],
  ])("of %i domains, with %s in memory, takes k + k²/2held passes and no more memory", async (k, held) => {
    const most = held ?? 32;
    const all = Array.from({ length: k }, (_, i) => domains.at(i) ?? batch(i, 1, () => 1 + (i % 5)));
    const own = await Promise.all(all.map((of) => ownOf(of)));
    let passes = 0;
    const counting: Model = {
      parameters: model.parameters,
      losses(of) {
        passes++;
        return model.losses(of);
      },
    };
    const size = model.parameters.value.size;
    const alloc = backend.alloc.bind(backend);
    let arenas = 0;
    Object.assign(backend, {
      alloc(...args: Parameters<Backend["alloc"]>): number {
        if (args[0] === size) arenas++;
        return alloc(...args);
      },
    });
    const live = backend.liveBytes;
    const { gram, losses } = await estimateGram(counting, all, held === undefined ? {} : { held }).finally(
      () => Object.assign(backend, { alloc }),
    );
    expect(backend.liveBytes).toBe(live);
    const scale = Math.max(...own.map(({ gradient }) => dot(gradient, gradient)));
    expectNear(
      gram,
      own.flatMap((a) => own.map((b) => dot(a.gradient, b.gradient))),
      1e-5,
      scale,
    );
    expectNear(
      losses,
      own.map(({ loss }) => loss),
      1e-6,
    );
    // Each block of `held` gradients is combined with itself and with all later ones.
    let wanted = 0;
    for (let first = 0; first < k; first += most) wanted += k - first;
    expect(passes).toBe(wanted);
    expect(arenas).toBe(Math.min(k, most + 1));
  });

  test("covers the selected parameters, with or without a loss scale", async () => {
    const options = { parameters: lastOnes, held: 2 };
    const own = await Promise.all(domains.map((of) => ownOf(of, lastOnes)));
    const { gram } = await estimateGram(model, domains, options);
    const scale = Math.max(...own.map(({ gradient }) => dot(gradient, gradient)));
    expectNear(
      gram,
      own.flatMap((a) => own.map((b) => dot(a.gradient, b.gradient))),
      1e-5,
      scale,
    );
    expect((await estimateGram(model, domains, { ...options, lossScale: 32 })).gram).toEqual(gram);
  });
});
