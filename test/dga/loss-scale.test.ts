/** Loss scaling: its logic, estimators that undo it, and a trainer that finds the scale, which changes nothing else. */
import { type Backend, GradmixError, init, shutdown } from "gradmix";
import {
  createBases,
  createMixer,
  createTrainer,
  estimateAlignments,
  estimateGram,
  type EstimatorName,
  estimatorNames,
  type LossScaleOptions,
  type RuleOptions,
  type Trainer,
  type TrainerOptions,
  type TrainStep,
} from "gradmix/dga";
import { adamw, createSchedule, type TokenBatch } from "gradmix/nn";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { exampleNumbers, targetDirection } from "#dist/dga/estimators.js";
import {
  backoff,
  firstScales,
  grow,
  isScale,
  lossScaleOptions,
  type LossScale,
  lossScale,
  withinBounds,
} from "#dist/dga/loss-scale.js";
import { arenaLike } from "#dist/nn/parameters.js";
import { checkpointFault } from "#dist/nn/saved-arrays.js";
import { read } from "#dist/schema.js";
import { errorOf } from "../errors.ts";
import { language, time, tiny, windows } from "./languages.ts";

/** From JSON, as a checkpoint has it. */
const restored = (json: unknown, options: Required<LossScaleOptions>): LossScale =>
  withinBounds(read(lossScale, json, checkpointFault), options);

describe("the rule for the scale", () => {
  const exponent = fc.integer({ min: -126, max: 126 });
  const arbitrary = fc
    .tuple(exponent, exponent, exponent, fc.integer({ min: 1, max: 5 }))
    .map(([a, b, c, growthInterval]) => {
      const [min, initial, max] = [a, b, c].sort((x, y) => x - y).map((e) => 2 ** e);
      return lossScaleOptions({ min, initial, max, growthInterval });
    });

  test("it is a power of two within its bounds; it doubles after enough good steps in a row, and halves after a bad one", () => {
    fc.assert(
      fc.property(arbitrary, fc.array(fc.boolean(), { maxLength: 100 }), (options, steps) => {
        let state = { scale: options.initial, good: 0 };
        let run = 0;
        for (const good of steps) {
          const before = state;
          state = good ? grow(before, options) : backoff(before, options);
          run = good ? run + 1 : 0;
          const doubles = good && run % options.growthInterval === 0;
          expect(state.scale).toBe(
            doubles
              ? Math.min(options.max, before.scale * 2)
              : good
                ? before.scale
                : Math.max(options.min, before.scale / 2),
          );
          expect(isScale(state.scale)).toBe(true);
          expect(state.good).toBe(run % options.growthInterval);
          expect(restored(JSON.parse(JSON.stringify(state)), options)).toEqual(state);
        }
      }),
    );
  });

  test("valid scales are exactly the powers of two of f32", () => {
    fc.assert(fc.property(exponent, (e) => isScale(2 ** e)));
    fc.assert(
      fc.property(fc.double({ min: 2 ** -126, max: 2 ** 126 }), (x) => {
        // A double is a power of two when nothing is left of its 52 bits below the first.
        const bits = new BigUint64Array(new Float64Array([x]).buffer)[0];
        expect(isScale(x)).toBe((bits & ((1n << 52n) - 1n)) === 0n);
      }),
    );
    for (const x of [0, -2, NaN, Infinity, 3, 1 + 2 ** -52, 2 ** 127, 2 ** -127])
      expect(isScale(x)).toBe(false);
  });

  test("options have their defaults, and invalid ones are refused", () => {
    expect(lossScaleOptions({})).toEqual({ initial: 65536, growthInterval: 2000, max: 2 ** 24, min: 1 });
    expect(lossScaleOptions({ max: 256 }).initial).toBe(256);
    expect(lossScaleOptions({ min: 2 ** 20 }).initial).toBe(2 ** 20);
    for (const initial of [1, 2 ** 24]) expect(lossScaleOptions({ initial }).initial).toBe(initial);
    for (const end of [2 ** -126, 2 ** 126])
      expect(lossScaleOptions({ min: end, initial: end, max: end }).max).toBe(end);
    const options = lossScaleOptions({ initial: 8 });
    expect(firstScales(null)).toBeNull();
    expect(firstScales(options)).toEqual({ step: { scale: 8, good: 0 }, alignment: { scale: 8, good: 0 } });
    for (const [options, message] of [
      [{ initial: 3 }, /lossScale: initial: 3 does not fit; it must be a power of two/],
      [{ min: 0 }, /lossScale: min: 0 /],
      [{ max: Infinity }, /lossScale: max: Infinity /],
      [{ initial: 0.5 }, /^lossScale: initial is 0.5, not from min 1 to max 16777216$/],
      [{ min: 4, max: 2 }, /^lossScale: initial is 4, not from min 4 to max 2$/],
      [{ factor: 2 } as LossScaleOptions, /^lossScale: there is no option "factor"/],
      [{ initial: 2 ** 30 }, /lossScale: initial is 1073741824, not from min 1 to max 16777216/],
      [{ growthInterval: 0 }, /lossScale: growthInterval: 0 /],
      [{ growthInterval: 1.5 }, /lossScale: growthInterval: 1\.5 /],
    ] as const)
      expect(errorOf(() => lossScaleOptions(options))).toMatchObject({
        code: "config",
        message: expect.stringMatching(message),
      });
    const damaged = [
      ...[null, 5, {}, { scale: 2 }, { good: 0 }],
      ...[3, "2", 0, NaN].map((scale) => ({ scale, good: 0 })),
      ...[-1, 0.5, "1", NaN, 2 ** 53].map((good) => ({ scale: 2, good })),
    ];
    expect(restored({ scale: 2, good: 0 }, lossScaleOptions({}))).toEqual({ scale: 2, good: 0 });
    for (const json of damaged)
      expect(errorOf(() => restored(json, lossScaleOptions({})))).toMatchObject({
        code: "checkpoint",
        message: expect.stringMatching(
          /^checkpoint: ((scale|good) )?is .*(power of two|whole number|object)/,
        ),
      });
    expect(restored({ scale: 2, good: 7 }, lossScaleOptions({ min: 8 }))).toEqual({
      scale: 8,
      good: 7,
    });
    // The bounds also apply to a scale that was saved with other bounds.
    expect(restored({ scale: 2 ** 20, good: 3 }, lossScaleOptions({ max: 2 ** 18 })).scale).toBe(2 ** 18);
  });
});

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 2 });
});
afterEach(shutdown);

describe("estimators", () => {
  const batch = (seed: number, examples: number): TokenBatch => {
    const tokens = language(seed, examples * time + 1);
    const counts = Array.from({ length: examples }, (_, e) => time - e);
    return {
      inputs: Int32Array.from({ length: examples * time }, (_, i) => tokens[i]),
      targets: Int32Array.from({ length: examples * time }, (_, i) =>
        i % time < counts[Math.floor(i / time)] ? tokens[i + 1] : -1,
      ),
      tokens: counts,
      time,
    };
  };
  const target = batch(9, 4);
  const domains = [batch(1, 3), batch(2, 1), batch(3, 5)];

  test.each(estimatorNames)("%s gives the same bits with a loss scale", async (name) => {
    const model = tiny(2);
    const precondition =
      name === "sketch" ? {} : { precondition: { v: arenaLike(model.parameters), bias: 0.5, eps: 0.01 } };
    for (const options of [
      {},
      { maxExamples: 4 },
      precondition,
      { parameters: (p: string) => p.includes("blocks") },
    ]) {
      const plain = await estimateAlignments(name, model, target, domains, options);
      expect(plain.targetNorm).toBeGreaterThan(0);
      for (const lossScale of [1, 2 ** -5, 2 ** 16, 2 ** 24])
        expect(await estimateAlignments(name, model, target, domains, { ...options, lossScale })).toEqual(
          plain,
        );
    }
  });

  test("Gram matrices and numbers of single examples also have the same bits; the direction contains the scale", async () => {
    const model = tiny(2);
    const gram = await estimateGram(model, domains, { held: 2 });
    expect(await estimateGram(model, domains, { held: 2, lossScale: 2 ** 16 })).toEqual(gram);
    const found = [];
    for (const options of [{}, { lossScale: 2 ** 16 }]) {
      const direction = arenaLike(model.parameters);
      const ofTarget = await targetDirection(model, target, direction, options);
      found.push({
        ofTarget,
        numbers: await exampleNumbers(model, domains[2], direction, { ...options, maxExamples: 2 }),
        direction: (await direction.arena.data()).map((x) => x / (options.lossScale ?? 1)),
      });
    }
    expect(found[1]).toEqual(found[0]);
  });

  test("scales that are not powers of two are refused", async () => {
    for (const lossScale of [0, 3, NaN])
      for (const name of estimatorNames)
        await expect(estimateAlignments(name, tiny(), target, domains, { lossScale })).rejects.toThrow(
          /lossScale: .* must be a power of two/,
        );
  });
});

type Setup = Partial<TrainerOptions> & { rule?: RuleOptions; updateEvery?: number };

const names = ["a", "b", "c"];
function setup(options: Setup = {}): Trainer {
  const { rule = { name: "dga", normalise: "cosine" }, updateEvery = 3, ...rest } = options;
  return createTrainer({
    model: tiny(),
    mixer: createMixer({ domains: rest.bases?.names ?? names, rule, updateEvery }),
    domains: [1, 2, 3].map((seed) => windows(names[seed - 1], [language(seed, 40 * seed + 300)])),
    target: windows("target", [language(1, 100), language(2, 40)]),
    batch: 5,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    seed: 3,
    ...rest,
  });
}

async function train(trainer: Trainer, steps: number): Promise<TrainStep[]> {
  const out = [];
  for (let i = 0; i < steps; i++) out.push(await trainer.step());
  return out;
}

const parametersOf = async (trainer: Trainer): Promise<number[]> => [
  ...(await trainer.model.parameters.value.data()),
];

/** As from a file. */
async function saveOf(trainer: Trainer): ReturnType<Trainer["save"]> {
  const { json, arrays } = await trainer.save();
  return { json: JSON.parse(JSON.stringify(json)) as Record<string, unknown>, arrays };
}

const estimator = (name: EstimatorName): Setup => ({ alignment: { estimator: name } });
const mixed = createBases({ left: [0.8, 0.2, 0], right: [0, 0.3, 0.7], all: [0.4, 0.3, 0.3] }, names);
const other = windows("other", [language(3, 150)]);
const variants: [string, Setup][] = [
  ["segmented", estimator("segmented")],
  ["perDomain", estimator("perDomain")],
  ["forward", { ...estimator("forward"), rule: { name: "dga", normalise: "raw" } }],
  ["sketch", estimator("sketch")],
  ["step", { alignment: { from: "step", refreshEvery: 2 }, updateEvery: 5 }],
  [
    "step, with a domain that is hardly drawn",
    {
      alignment: { from: "step", refreshEvery: 2, probes: 1 },
      updateEvery: 5,
      rule: { name: "dga", normalise: "cosine", eta: 0.1, start: [0.96, 0.02, 0.02] },
    },
  ],
  ["preconditioned", { rule: { name: "dga", normalise: "adam" } }],
  ["not clipped", { optimizer: (parameters) => adamw(parameters, { clip: 0 }) }],
  ["shared bases", { bases: mixed }],
  ["bases from the steps", { bases: mixed, alignment: { from: "step" } }],
  ["a Gram matrix", { rule: { name: "rnb" } }],
  ["several targets", { rule: { name: "grape", targets: ["other"] }, targets: new Map([["other", other]]) }],
  ["losses alone", { rule: { name: "odm" } }],
  ["nothing", { rule: { name: "uniform" } }],
];

/** f32 overflows with it until it has halved some sixty times. */
const overflowing: LossScaleOptions = { initial: 2 ** 120, max: 2 ** 120 };

describe("the trainer", () => {
  test.each(variants)("has the same bits with and without a loss scale (%s)", async (_, options) => {
    const plain = setup(options);
    const scaled = setup({ ...options, lossScale: { growthInterval: 4 } });
    const wanted = await train(plain, 11);
    const found = await train(scaled, 11);
    expect(wanted.every(({ lossScale, skipped }) => lossScale === null && !skipped)).toBe(true);
    expect(found.map(({ lossScale }) => Math.log2(lossScale ?? NaN))).toEqual(
      found.map((_, i) => 16 + Math.floor(i / 4)),
    );
    expect(found.map((step) => ({ ...step, lossScale: null }))).toEqual(wanted);
    expect(await parametersOf(scaled)).toEqual(await parametersOf(plain));
    const [{ json }, { json: plainJson }] = [await scaled.save(), await plain.save()];
    expect(json).toMatchObject(plainJson);
    expect(plainJson).not.toHaveProperty("lossScale");
    expect(plainJson).not.toHaveProperty("directionScale");
  });

  test.each(variants)("skips steps after an overflow, and no state is spoiled (%s)", async (_, options) => {
    const trainer = setup({ ...options, lossScale: overflowing });
    const start = await parametersOf(trainer);
    const live = backend.liveBytes;
    let [steps, tokens] = [0, 0];
    let step = await trainer.step();
    for (let scale = 2 ** 120; step.skipped; scale /= 2) {
      expect(step).toMatchObject({ step: ++steps, lossScale: scale });
      expect(step.tokens).toBeGreaterThan(tokens);
      ({ tokens } = step);
      expect(Number.isFinite(step.gradNorm)).toBe(false);
      expect(Number.isFinite(step.loss)).toBe(true);
      for (const numbers of [step.weights, step.alignments?.alignments ?? [], step.alignments?.norms ?? []])
        expect([...numbers].every(Number.isFinite)).toBe(true);
      expect(await parametersOf(trainer)).toEqual(start);
      step = await trainer.step();
    }
    expect(steps).toBeGreaterThan(20);
    expect(steps).toBeLessThan(100);
    expect((await trainer.save()).json["optimizerSteps"]).toBe(1);
    expect(await parametersOf(trainer)).not.toEqual(start);
    const after = await train(trainer, 12);
    // A scale at the very edge may still be too large for a longer gradient.
    expect(after.filter(({ skipped }) => skipped).length).toBeLessThan(3);
    for (const { alignments } of after)
      for (const numbers of [alignments?.alignments ?? [], alignments?.norms ?? []])
        expect([...numbers].every(Number.isFinite)).toBe(true);
    const { gathered } = (await trainer.save()).json as { gathered: Record<string, number[]> };
    expect(Object.values(gathered).flat().every(Number.isFinite)).toBe(true);
    expect(backend.liveBytes).toBe(live);
  });

  test("after the scale is found, trains like an unscaled trainer from the same state", async () => {
    const scaled = setup({ rule: { name: "uniform" }, lossScale: overflowing });
    while ((await scaled.step()).skipped);
    const plain = setup({ rule: { name: "uniform" }, model: tiny(99) });
    plain.restore(await scaled.save());
    const wanted = await train(plain, 5);
    expect((await train(scaled, 5)).map((step) => ({ ...step, lossScale: null }))).toEqual(wanted);
    expect(await parametersOf(scaled)).toEqual(await parametersOf(plain));
  });

  test("measures alignments that overflow again, with the same batches, and keeps their scale", async () => {
    // With a scale of 2^60 the gradient is finite; preconditioned, which makes it much longer, it is not.
    const options: Setup = {
      updateEvery: 1,
      rule: { name: "dga", normalise: "adam" },
      alignment: { from: "batch" },
    };
    const plain = await train(setup(options), 3);
    const trainer = setup({ ...options, lossScale: { initial: 2 ** 60, max: 2 ** 60 } });
    const found = await train(trainer, 3);
    expect(found.some(({ skipped }) => skipped)).toBe(false);
    expect(found.map((step) => ({ ...step, lossScale: null }))).toEqual(plain);
    expect(found[2].lossScale).toBe(2 ** 60);
    const { lossScale } = (await trainer.save()).json as {
      lossScale: Record<"step" | "alignment", { scale: number; good: number }>;
    };
    expect(lossScale.step).toEqual({ scale: 2 ** 60, good: 3 });
    expect(lossScale.alignment.scale).toBeLessThan(2 ** 60);
    expect(lossScale.alignment.good).toBe(3);
  });

  test("does not repeat the measurement of losses that are not finite", async () => {
    let passes = 0;
    const model = tiny();
    const broken: typeof model = Object.assign(Object.create(model) as typeof model, {
      losses: (...given: Parameters<typeof model.losses>) => {
        passes++;
        return model.losses(...given);
      },
    });
    const trainer = setup({ model: broken, updateEvery: 1, lossScale: {} });
    await trainer.step();
    const usual = passes;
    model.parameters.list[0].write(new Float32Array(model.parameters.list[0].size).fill(NaN));
    await expect(trainer.step()).rejects.toThrow(/the loss became NaN at step 2/);
    expect(passes - usual).toBeLessThanOrEqual(usual);
  });

  test.each(variants)(
    "continues after a resume to the same bits, including overflows (%s)",
    async (_, options) => {
      // A growth after every good step overflows again and again.
      const scaling = { lossScale: { initial: 2 ** 64, max: 2 ** 80, growthInterval: 1 } };
      const whole = setup({ ...options, ...scaling });
      const expected = await train(whole, 14);
      expect(expected.filter(({ skipped }) => skipped).length).toBeGreaterThan(3);
      expect(expected.filter(({ skipped }) => !skipped).length).toBeGreaterThan(3);
      const final = await whole.save();
      for (const cut of [0, 5, 8]) {
        const first = setup({ ...options, ...scaling });
        await train(first, cut);
        const saved = await saveOf(first);
        const second = setup({ ...options, ...scaling, model: tiny(99) });
        second.restore(saved);
        expect(await train(second, 14 - cut)).toEqual(expected.slice(cut));
        expect(await second.save()).toEqual(final);
      }
    },
  );

  test("may be resumed with scaling after a run without it, and vice versa", async () => {
    const options: Setup = { alignment: { from: "step", refreshEvery: 4 }, updateEvery: 5 };
    const plain = setup(options);
    const before = await train(plain, 6);
    expect(before.length).toBe(6);
    const saved = await saveOf(plain);
    const wanted = await train(plain, 8);
    const scaled = setup({ ...options, lossScale: { initial: 2 ** 10 } });
    scaled.restore(saved);
    const first = await train(scaled, 4);
    expect(first[0].lossScale).toBe(2 ** 10);
    // The direction that is saved here holds a scale.
    const held = await saveOf(scaled);
    expect(held.json["directionScale"]).toBe(2 ** 10);
    const off = setup(options);
    off.restore(held);
    const rest = await train(off, 4);
    expect([...first, ...rest].map((step) => ({ ...step, lossScale: null }))).toEqual(wanted);
  });

  test("refuses a damaged scale in a checkpoint", async () => {
    const trainer = setup({ lossScale: {} });
    await trainer.step();
    const good = await trainer.save();
    for (const [damage, message] of [
      [
        { lossScale: { step: { scale: 3, good: 0 }, alignment: { scale: 2, good: 0 } } },
        /lossScale\.step\.scale is 3/,
      ],
      [{ lossScale: { step: { scale: 2, good: 0 } } }, /lossScale\.alignment is missing/],
      [{ lossScale: 7 }, /lossScale is 7/],
      [{ lossScale: null }, /lossScale is null/],
      [{ directionScale: 0 }, /directionScale is 0/],
    ] as const) {
      const error = errorOf(() =>
        setup({ lossScale: {} }).restore({ ...good, json: { ...good.json, ...damage } }),
      );
      expect(error).toMatchObject({ code: "checkpoint", message: expect.stringMatching(message) });
    }
  });

  test("reports an overflow at the smallest scale as an error, and leaves the parameters unchanged", async () => {
    const trainer = setup({
      lossScale: { initial: 2 ** 120, min: 2 ** 118, max: 2 ** 120 },
      rule: { name: "uniform" },
    });
    const start = await parametersOf(trainer);
    expect((await train(trainer, 2)).map(({ skipped }) => skipped)).toEqual([true, true]);
    const error = await trainer.step().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(GradmixError);
    expect(error).toMatchObject({
      code: "numeric",
      message: expect.stringMatching(/the gradient became .* at step 3/),
    });
    expect(await parametersOf(trainer)).toEqual(start);
  });

  test("refuses wrong options", () => {
    expect(errorOf(() => setup({ lossScale: { initial: 5 } })).code).toBe("config");
  });
});

test("f16 is refused by backends that do not have it", async () => {
  for (const name of ["cpu", "reference"] as const)
    await expect(init({ backend: name, precision: "f16" })).rejects.toThrow(
      new GradmixError("config", `precision: "f16" needs the backend "webgpu", not "${name}"`),
    );
  await (await init({ backend: "cpu", threads: 1, precision: "f32", deterministic: true })).dispose();
});
