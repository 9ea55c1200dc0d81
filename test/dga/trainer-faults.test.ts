/**
 * Refusals of a trainer: windows that do not fit, overlapping calls, incomplete checkpoints. A trainer for which memory runs out at any allocation holds
 * no memory.
 */
import { type Backend, GradmixError, init, shutdown } from "gradmix";
import { assembleBatch, createSampler, tokenWriter, type Windows, windowsOf } from "gradmix/data";
import {
  createBases,
  createMixer,
  createRule,
  createTrainer,
  estimateAlignments,
  type EstimateOptions,
  estimatorNames,
  mixtureOf,
  type Rule,
  type RuleOptions,
  type Trainer,
  type TrainerOptions,
  update,
} from "gradmix/dga";
import { adamw, arenaLike, createGPT, createParameters, createSchedule } from "gradmix/nn";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { language, time, tiny, vocabSize } from "./languages.ts";

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 1 });
});
afterEach(shutdown);

const names = ["a", "b", "c"];

function cut(name: string, length: number, tokens: readonly number[] = language(1, 300)): Windows {
  const writer = tokenWriter(1000, 999);
  // Without the end-of-text token, which the model of these tests does not know.
  writer.append(tokens);
  return windowsOf(name, writer.finish(), length);
}
const windows = (name: string, seed: number): Windows => cut(name, time, language(seed, 300));

type Setup = Partial<TrainerOptions> & { rule?: RuleOptions };

function setup({ rule = { name: "dga", normalise: "cosine" }, ...options }: Setup = {}): Trainer {
  return createTrainer({
    model: options.model ?? tiny(),
    mixer: createMixer({ domains: options.bases?.names ?? names, rule, updateEvery: 3 }),
    domains: [1, 2, 3].map((seed) => windows(names[seed - 1], seed)),
    target: windows("target", 1),
    batch: 4,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    alignment: { domainExamples: 2, targetExamples: 2 },
    seed: 3,
    ...options,
  });
}

describe("the targets of a rule with several", () => {
  const made = (targets: readonly string[], given: readonly string[]): Trainer =>
    setup({
      rule: { name: "grape", targets },
      target: null,
      targets: new Map(given.map((name, i) => [name, windows(name, i + 1)])),
    });

  test.each([[["t", "s"]], [["s"]], [["s", "t", "u"]], [["s", "u"]]])(
    "text of %j is refused for a rule of s and t",
    (given) => {
      expect(errorOf(() => made(["s", "t"], given))).toMatchObject({
        code: "config",
        message: `rule grape: its targets are "s", "t", but the text is of ${given.map((name) => `"${name}"`).join(", ")}; give the same names in the same order`,
      });
    },
  );

  test("a checkpoint with the same targets in another order is refused, and changes nothing", async () => {
    const one = made(["s", "t"], ["s", "t"]);
    await one.step();
    const saved = await one.save();
    const other = made(["t", "s"], ["t", "s"]);
    const before = other.mixer;
    expect(errorOf(() => other.restore(saved))).toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(/targets\.0/) as string,
    });
    expect(other.mixer).toEqual(before);
    made(["s", "t"], ["s", "t"]).restore(saved);
    // Older checkpoints do not name the targets.
    const { targets: _, ...mixer } = saved.json["mixer"] as Record<string, unknown>;
    made(["s", "t"], ["s", "t"]).restore({ ...saved, json: { ...saved.json, mixer } });
  });

  test("the state of a mixer with its targets in another order is refused by update, also inside combinators", () => {
    const mixer = (targets: readonly string[]): ReturnType<typeof createMixer> =>
      createMixer({
        domains: names,
        rule: { name: "grape", targets },
        combinators: [{ name: "ema", beta: 0.5 }],
      });
    expect(errorOf(() => update(mixer(["t", "s"]), mixer(["s", "t"]).initial, {}))).toMatchObject({
      code: "config",
      message: expect.stringMatching(/^update: the state belongs to a mixer with other targets/) as string,
    });
  });
});

describe("windows of one length, that fit the model", () => {
  const twoOf = fc
    .tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), fc.nat(5), fc.nat(5))
    .filter(([s, t]) => s !== t);

  test("all sources of a batch or sampler need windows of one length; the error names two sources", () => {
    fc.assert(
      fc.property(twoOf, ([s, t, before, between]) => {
        const sources = [
          ...Array.from({ length: before }, (_, i) => cut(`first ${i}`, s)),
          cut("short", s),
          ...Array.from({ length: between }, (_, i) => cut(`second ${i}`, s)),
          cut("long", t),
        ];
        const told = `"${sources[0].name}" has windows of ${s} tokens, "long" of ${t}; a batch takes one length, so cut them alike`;
        const draws = sources.map((_, domain) => ({ domain, window: 0, epoch: 0 }));
        for (const refused of [
          () => assembleBatch(draws, sources),
          () => createSampler({ domains: sources, seed: 1 }),
        ])
          expect(errorOf(refused)).toMatchObject({ code: "data", message: told });
        // Those of one length go into a batch whatever else there is, with their own length.
        const alike = draws.slice(0, -1);
        expect(assembleBatch(alike, sources).time).toBe(s);
        const [last] = draws.slice(-1);
        const { inputs, targets } = assembleBatch([last, last], sources);
        expect([...inputs]).toEqual([...language(1, t), ...language(1, t)]);
        expect([...targets]).toEqual([...language(1, t + 1).slice(1), ...language(1, t + 1).slice(1)]);
      }),
      { numRuns: 50 },
    );
  });

  test("draws from unknown sources are refused", () => {
    const sources = [windows("a", 1)];
    for (const draw of [
      { domain: 1, window: 0 },
      { domain: -1, window: 0 },
      { domain: NaN, window: 0 },
      { domain: 0, window: -1 },
      { domain: 0, window: 0.5 },
      { domain: 0, window: sources[0].count },
    ])
      expect(errorOf(() => assembleBatch([{ ...draw, epoch: 0 }], sources)).code).toBe("config");
    const sampler = createSampler({ domains: sources, seed: 1 });
    for (const [domain, n] of [
      [1, 1],
      [-1, 1],
      [0.5, 1],
      [0, -1],
      [0, 1.5],
    ])
      expect(errorOf(() => sampler.drawFrom(domain, n)).code).toBe("config");
    expect(errorOf(() => sampler.draw([1], NaN)).code).toBe("config");
  });

  test("a trainer refuses other windows before it takes memory, and names the domain", () => {
    const model = tiny();
    const live = backend.liveBytes;
    const refused = (options: Setup): string => {
      const error = errorOf(() => setup({ model, ...options }));
      expect(error.code).toBe("data");
      expect(backend.liveBytes).toBe(live);
      return error.message;
    };
    const good = [windows("a", 1), windows("b", 2), windows("c", 3)];
    const long = cut("wide", 2 * time);
    expect(refused({ domains: [good[0], cut("short", time / 2), good[2]] })).toBe(
      `"a" has windows of ${time} tokens, "short" of ${time / 2}; a batch takes one length, so cut them alike`,
    );
    const tooLong = `"wide": windows of ${2 * time} tokens are longer than the model's context of ${time}`;
    expect(refused({ domains: [long, long, long] })).toBe(tooLong);
    expect(refused({ target: long })).toBe(tooLong);
    expect(
      refused({
        rule: { name: "grape", targets: ["first"] },
        target: null,
        targets: new Map([["first", long]]),
      }),
    ).toBe(tooLong);
    // The last token of all, which is only ever a target, counts too.
    for (const at of [0, 17, 299]) {
      const tokens = language(1, 300);
      tokens[at] = vocabSize;
      const strange = cut("strange", time, tokens);
      const told = `"strange": token ${vocabSize}, number ${at} of its stream, is not in the model's vocabulary of ${vocabSize}; use the tokenizer that the model was made for`;
      expect(refused({ domains: [good[0], good[1], strange] })).toBe(told);
      expect(refused({ target: strange })).toBe(told);
    }
    expect(() => cut("none", 0)).toThrow(GradmixError);
  });

  test("a target may have shorter windows than the domains", async () => {
    const trainer = setup({ target: cut("target", 5) });
    for (let i = 0; i < 3; i++) await trainer.step();
    expect(trainer.weights().final).not.toEqual(trainer.weights().averaged);
  });

  test("an evaluation refuses invalid tokens among those that it reads", async () => {
    const trainer = setup();
    const tokens = language(1, 300);
    tokens[100] = vocabSize;
    const strange = cut("strange", time, tokens);
    expect(await trainer.evaluate(strange, 90)).toBeGreaterThan(0);
    await expect(trainer.evaluate(strange, 100)).rejects.toThrow(/"strange": token 24, number 100 of/);
    // The target of the last position is the first token of the next window.
    const edge = language(1, 300);
    edge[6 * time] = vocabSize;
    expect(await trainer.evaluate(cut("edge", time, edge), 5 * time)).toBeGreaterThan(0);
    await expect(trainer.evaluate(cut("edge", time, edge), 6 * time)).rejects.toThrow(/"edge": token 24/);
    await expect(trainer.evaluate(cut("wide", 2 * time), 1)).rejects.toThrow(/longer than the model's/);
    for (const count of [0, -1, NaN])
      await expect(trainer.evaluate(strange, count)).rejects.toThrow(/tokens: .* does not fit/);
  });

  test("a token outside the vocabulary cannot be written", () => {
    for (const id of [-1, 10, 70_000, NaN])
      expect(errorOf(() => tokenWriter(10, 9).document([1, id])).code).toBe("data");
  });
});

test("a trainer keeps its own options: what the caller does to the object afterwards changes nothing", async () => {
  const made = (): TrainerOptions & { domains: Windows[] } => ({
    model: tiny(),
    mixer: createMixer({ domains: names, rule: { name: "dga", normalise: "cosine" }, updateEvery: 2 }),
    domains: [1, 2, 3].map((seed) => windows(names[seed - 1], seed)),
    target: windows("target", 1),
    batch: 4,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    alignment: { measureEvery: 1 },
    seed: 3,
  });
  const [plain, options] = [createTrainer(made()), made()];
  const trainer = createTrainer(options);
  Object.assign(options, {
    mixer: createMixer({ domains: names, rule: { name: "uniform" } }),
    model: null,
    batch: 1,
    schedule: null,
    target: null,
  });
  options.domains.reverse().pop();
  Object.assign(options.alignment ?? {}, { measureEvery: 2 });
  for (let i = 0; i < 5; i++) expect(await trainer.step()).toEqual(await plain.step());
  expect(trainer.weights()).toEqual(plain.weights());
});

describe("one call at a time", () => {
  const calls: Record<string, (trainer: Trainer) => unknown> = {
    step: (trainer) => trainer.step(),
    evaluate: (trainer) => trainer.evaluate(windows("held out", 4), 100),
    save: (trainer) => trainer.save(),
    restore: (trainer) => trainer.restore({ json: {}, arrays: {} }),
    dispose: (trainer) => trainer.dispose(),
  };
  const codeOf = async (call: () => unknown): Promise<string> => {
    try {
      await call();
    } catch (error) {
      expect(error).toBeInstanceOf(GradmixError);
      return (error as GradmixError).code;
    }
    return "none";
  };
  const waiting = ["step", "evaluate", "save"];
  const pairs = waiting.flatMap((first) => Object.keys(calls).map((second) => [first, second]));

  test.each(pairs)("during %s, a call of %s is refused, and has no effect", async (first, second) => {
    const [alone, both] = [setup(), setup()];
    for (let i = 0; i < 2; i++) for (const trainer of [alone, both]) await trainer.step();
    const wanted = await calls[first](alone);
    const pending = calls[first](both);
    expect(await codeOf(() => calls[second](both))).toBe("busy");
    expect(await pending).toEqual(wanted);
    for (let i = 0; i < 4; i++) expect(await both.step()).toEqual(await alone.step());
    expect(await both.save()).toEqual(await alone.save());
  });

  test.each(pairs)(
    "during %s, a call of %s of another trainer of the model is refused",
    async (first, second) => {
      const model = tiny();
      const [alone, one, two] = [setup(), setup({ model }), setup({ model })];
      const wanted = await calls[first](alone);
      const pending = calls[first](one);
      expect(await codeOf(() => calls[second](two))).toBe(second === "dispose" ? "none" : "busy");
      expect(await pending).toEqual(wanted);
      for (let i = 0; i < 4; i++) expect(await one.step()).toEqual(await alone.step());
    },
  );

  test("trainers of one model take turns: one that leaves the parameters as they are does not change the other", async () => {
    const model = tiny();
    const still = createSchedule({ name: "constant", lr: 0, steps: 100 });
    const [alone, one, two] = [setup(), setup({ model }), setup({ model, schedule: still })];
    for (let i = 0; i < 4; i++) {
      expect(await one.step()).toEqual(await alone.step());
      await two.step();
    }
    expect(await one.save()).toEqual(await alone.save());
  });

  test("after dispose every call is refused; a second dispose has no effect", async () => {
    const model = tiny();
    const live = backend.liveBytes;
    const trainer = setup({ model });
    await trainer.step();
    trainer.dispose();
    expect(backend.liveBytes).toBe(live);
    for (const name of ["step", "evaluate", "save", "restore"])
      expect(await codeOf(() => calls[name](trainer))).toBe("disposed");
    expect(await codeOf(() => trainer.dispose())).toBe("none");
    expect(backend.liveBytes).toBe(live);
  });

  test("the trainer continues after a refused call", async () => {
    const trainer = setup();
    const steps = await Promise.allSettled([trainer.step(), trainer.step(), trainer.step()]);
    expect(steps.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected"]);
    expect((await trainer.step()).step).toBe(2);
  });
});

describe("a checkpoint is restored completely or not at all", () => {
  const options: Setup = { alignment: { from: "step", targetExamples: 2 } };

  test("arrays of another type, length or with NaN are refused, and so is anything that is not a checkpoint", async () => {
    const ahead = setup(options);
    for (let i = 0; i < 5; i++) await ahead.step();
    const good = await ahead.save();
    const [plain, tried] = [setup(options), setup(options)];
    for (const trainer of [plain, tried]) await trainer.step();
    const size = good.arrays["m"].length;
    const nan = Float32Array.from(good.arrays["m"] as Float32Array);
    nan[size - 1] = NaN;
    const refusals: [unknown, RegExp][] = [
      [null, /^checkpoint: is null, not an object/],
      [{ arrays: good.arrays }, /^checkpoint: json is missing; it must be an object/],
      [{ json: good.json }, /^checkpoint: arrays is missing; it must be an object/],
      ...["low", NaN, Infinity, true].map((loss): [unknown, RegExp] => [
        { ...good, json: { ...good.json, loss } },
        new RegExp(`^checkpoint: loss is "?${loss}"?, not a finite number$`),
      ]),
      ...["tokens", "optimizerSteps"].flatMap((name) =>
        [-1, 0.5, NaN, null, undefined].map((count): [unknown, RegExp] => [
          { ...good, json: { ...good.json, [name]: count } },
          new RegExp(
            `^checkpoint: ${name} is ${count === undefined ? "missing; it must be" : `${count}, not`} a whole number of at least 0$`,
          ),
        ]),
      ),
      ...[0, 3, -2, "2"].map((directionScale): [unknown, RegExp] => [
        { ...good, json: { ...good.json, directionScale } },
        /^checkpoint: directionScale is /,
      ]),
      [{ ...good, json: { ...good.json, optimizerSteps: 9 } }, /^checkpoint: optimizerSteps is 9, more than/],
      [{ ...good, json: { ...good.json, bases: "0011" } }, /^checkpoint: it was made with other bases/],
    ];
    for (const name of ["value", "m", "v", "direction"]) {
      const with_ = (array: unknown): unknown => ({ ...good, arrays: { ...good.arrays, [name]: array } });
      refusals.push(
        [with_(undefined), new RegExp(`^checkpoint: it has no ${name}`)],
        [
          with_(new Float64Array(size)),
          new RegExp(`^checkpoint: ${name} is Float64Array, not a Float32Array`),
        ],
        [with_(new Int32Array(size)), new RegExp(`^checkpoint: ${name} is Int32Array`)],
        [with_(new Array(size).fill(0)), new RegExp(`^checkpoint: ${name} is a list`)],
        [with_(new Float32Array(size + 1)), new RegExp(`^checkpoint: ${name} has ${size + 1} values`)],
        [with_(nan), new RegExp(`^checkpoint: ${name} has NaN at ${size - 1}`)],
        // The first of several.
        [with_(nan.with(2, -Infinity)), new RegExp(`^checkpoint: ${name} has -Infinity at 2`)],
      );
    }
    for (const [checkpoint, message] of refusals) {
      const error = errorOf(() => tried.restore(checkpoint as Awaited<ReturnType<Trainer["save"]>>));
      expect(error).toMatchObject({ code: "checkpoint", message: expect.stringMatching(message) });
    }
    expect(await tried.save()).toEqual(await plain.save());
    for (let i = 0; i < 5; i++) expect(await tried.step()).toEqual(await plain.step());
    tried.restore(good);
    expect(await tried.save()).toEqual(good);
  });

  test("a checkpoint is refused by a trainer that aligns other parameters, whose measurements would be mixed with its own", async () => {
    const all = { ...options.alignment, blockShare: 1 };
    const head = { ...options.alignment, blockShare: 0 };
    const own = { ...options.alignment, parameters: (name: string) => name.startsWith("head") };
    for (const [before, after, message] of [
      [
        all,
        head,
        /aligning all parameters, and this trainer aligns [23] of the parameters; give the alignment\.blockShare, or the alignment\.parameters, of that trainer \(blockShare 1\)$/,
      ],
      [
        head,
        all,
        /aligning [23] of the parameters, and this trainer aligns all parameters; .* of that trainer$/,
      ],
      [own, head, /aligning 1 of the parameters, and this trainer aligns [23] of the parameters/],
    ] as const) {
      const ahead = setup({ alignment: before });
      for (let i = 0; i < 4; i++) await ahead.step();
      const saved = await ahead.save();
      const error = errorOf(() => setup({ alignment: after }).restore(saved));
      expect(error).toMatchObject({ code: "checkpoint", message: expect.stringMatching(message) as unknown });
      const again = setup({ alignment: before });
      again.restore(saved);
      expect(await again.step()).toEqual(await ahead.step());
      // A separate batch is measured at once, so nothing is mixed.
      const batch = setup({ alignment: { from: "batch" }, rule: { name: "dga", normalise: "cosine" } });
      await batch.step();
      setup({ alignment: { from: "batch", blockShare: 0 } }).restore(await batch.save());
    }
  });

  test("saved data is not changed by later steps", async () => {
    const trainer = setup(options);
    for (let i = 0; i < 4; i++) await trainer.step();
    const saved = await trainer.save();
    const text = JSON.stringify(saved.json);
    await trainer.step();
    expect(JSON.stringify(saved.json)).toBe(text);
  });

  test("a trainer that failed in the middle of a step continues only after a restore", async () => {
    const [alone, broken] = [setup(), setup()];
    for (const trainer of [alone, broken]) await trainer.step();
    const saved = await broken.save();
    const parameter = broken.model.parameters.list[0];
    parameter.write(new Float32Array(parameter.size).fill(NaN));
    await expect(broken.step()).rejects.toThrow(/became NaN at step 2/);
    for (const call of [() => broken.step(), () => broken.save()])
      await expect(call()).rejects.toThrow(/cannot go on after an error .*; restore a checkpoint$/);
    broken.restore(saved);
    for (let i = 0; i < 4; i++) expect(await broken.step()).toEqual(await alone.step());
  });

  test("a trainer whose rule failed does so too: the step is done, but not the update", async () => {
    const rule = createRule({ name: "dga", normalise: "cosine" });
    const thrown: unknown[] = [new RangeError("no update"), "a word", new GradmixError("memory", "no more")];
    for (const fault of thrown) {
      let failing = true;
      const failed: Rule = {
        ...rule,
        update(state, signal) {
          if (failing) throw fault;
          return rule.update(state, signal);
        },
      };
      const [alone, broken] = [rule, failed].map((one) =>
        setup({ mixer: createMixer({ domains: names, rule: one, updateEvery: 2 }) }),
      );
      for (const trainer of [alone, broken]) await trainer.step();
      const saved = await broken.save();
      await expect(broken.step()).rejects.toBe(fault);
      const told = fault instanceof Error ? fault.message : '"a word"';
      for (const call of [() => broken.step(), () => broken.save()])
        await expect(call()).rejects.toMatchObject({
          code: fault instanceof GradmixError ? "memory" : "numeric",
          message: `the trainer cannot go on after an error (${told}); restore a checkpoint`,
          cause: fault,
        });
      failing = false;
      broken.restore(saved);
      for (let i = 0; i < 4; i++) expect(await broken.step()).toEqual(await alone.step());
    }
  });

  test("a signal that is not finite ends a run with its step", async () => {
    const rule: Rule = {
      ...createRule({ name: "dga", normalise: "cosine" }),
      update() {
        throw new GradmixError("numeric", "alignments[0] is NaN");
      },
    };
    const trainer = setup({ mixer: createMixer({ domains: names, rule, updateEvery: 2 }) });
    await trainer.step();
    await expect(trainer.step()).rejects.toMatchObject({
      code: "numeric",
      message: "alignments[0] is NaN, at step 2; lower the learning rate",
      cause: { message: "alignments[0] is NaN" },
    });
  });

  test("the weights are those of the mixer; with bases, those of the domains are given too", async () => {
    const bases = createBases({ left: [0.5, 0.5, 0], right: [0, 0.25, 0.75] }, names);
    const [plain, based] = [setup(), setup({ bases })];
    for (let i = 0; i < 7; i++) for (const trainer of [plain, based]) await trainer.step();
    const { domains, ...own } = plain.weights();
    expect(domains).toEqual(own);
    expect(own.final).not.toEqual(own.averaged);
    const found = based.weights();
    for (const name of ["final", "averaged"] as const)
      expect(found.domains[name]).toEqual(mixtureOf(bases, found[name]));
    expect(found.final).not.toEqual(found.averaged);
    expect(found.final.length).toBe(2);
  });

  test("a schedule that gives no rate is refused before the step", async () => {
    let rate = NaN;
    const [alone, tried] = [setup(), setup({ schedule: () => rate })];
    for (rate of [NaN, -1, Infinity]) await expect(tried.step()).rejects.toThrow(/^schedule\(0\): /);
    rate = 0.01;
    expect(await tried.step()).toEqual(await alone.step());
  });
});

describe("if memory runs out at any allocation", () => {
  /** Calls `task` with the n-th allocation refused, for n = 1, 2, … until none is; `left` holds after each. */
  async function starve(task: () => unknown, left: () => number): Promise<number> {
    const whole = backend.alloc.bind(backend);
    const before = left();
    for (let n = 1; ; n++) {
      let count = 0;
      let refused = false;
      Object.assign(backend, {
        alloc(...args: Parameters<Backend["alloc"]>): number {
          if (++count === n) {
            refused = true;
            throw new GradmixError("memory", "no more");
          }
          return whole(...args);
        },
      });
      try {
        await task();
        if (!refused) return n - 1;
        expect.fail(`allocation ${n} was refused, and nobody said so`);
      } catch (error) {
        expect(error).toMatchObject({ code: "memory" });
      } finally {
        Object.assign(backend, { alloc: whole });
      }
      expect(left(), `after allocation ${n} was refused`).toBe(before);
    }
  }
  const live = (): number => backend.liveBytes;

  test("a constructor that fails holds no memory, and dispose frees everything", async () => {
    const spec = { name: "w", shape: [3, 4], init: { kind: "normal", deviation: 1 }, decay: true } as const;
    expect(
      await starve(() => createParameters([spec, { ...spec, name: "v" }], 0).dispose(), live),
    ).toBeGreaterThan(2);
    expect(await starve(() => tiny().dispose(), live)).toBeGreaterThan(2);
    const model = tiny();
    expect(await starve(() => arenaLike(model.parameters).dispose(), live)).toBe(1);
    expect(await starve(() => adamw(model.parameters).dispose(), live)).toBe(2);
    const make = (): void => setup({ model }).dispose();
    expect(await starve(make, live)).toBe(4);
  });

  const variants: [string, Setup][] = [
    ["segmented", {}],
    ["from the steps", { alignment: { from: "step", targetExamples: 2 } }],
    ["one pass per domain", { alignment: { estimator: "perDomain", domainExamples: 1, targetExamples: 2 } }],
    [
      "forward",
      { rule: { name: "dga", normalise: "raw" }, alignment: { estimator: "forward", domainExamples: 1 } },
    ],
    ["sketched", { alignment: { estimator: "sketch", domainExamples: 1, targetExamples: 2 } }],
    ["preconditioned", { rule: { name: "dga", normalise: "adam" }, alignment: { domainExamples: 1 } }],
    ["a Gram matrix", { rule: { name: "rnb" }, alignment: { domainExamples: 1 } }],
    ["scaled losses", { lossScale: {} }],
    [
      "shared bases",
      {
        bases: createBases({ left: [0.5, 0.5, 0], right: [0, 0.5, 0.5] }, names),
        alignment: { domainExamples: 1, targetExamples: 2 },
      },
    ],
  ];
  test.each(variants)(
    "a step that fails leaves only what the trainer already held (%s)",
    async (_, options) => {
      const model = tiny();
      const mixer = createMixer({
        domains: options.bases?.names ?? names,
        rule: options.rule ?? { name: "dga", normalise: "cosine" },
        updateEvery: 1,
      });
      const trainer = setup({ ...options, model, mixer });
      await trainer.step();
      const saved = await trainer.save();
      // After a failed step the trainer must be restored.
      const step = async (): Promise<void> => {
        trainer.restore(saved);
        await trainer.step();
      };
      const allocations = await starve(step, live);
      expect(allocations).toBeGreaterThan(20);
      trainer.dispose();
      model.dispose();
      expect(backend.liveBytes).toBe(0);
    },
  );

  test.each(estimatorNames)("an estimate that fails holds no memory (%s)", async (name) => {
    const model = createGPT({ vocabSize, dim: 8, layers: 1, heads: 2, context: time, preset: "gpt2" });
    const batch = (seed: number) => assembleBatch([{ domain: 0, window: 0, epoch: 0 }], [windows("x", seed)]);
    const options: EstimateOptions = name === "sketch" ? { sketch: { rank: 2 } } : {};
    const estimate = (): unknown => estimateAlignments(name, model, batch(1), [batch(2), batch(3)], options);
    expect(await starve(estimate, live)).toBeGreaterThan(20);
  });
});
