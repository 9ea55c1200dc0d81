/** A trainer, estimators and an evaluation with any model, batch and optimizer; what does not fit is refused by name. */
import { type Backend, init, log, mul, neg, reshape, scope, shutdown, sigmoid, sum, tensor } from "gradmix";
import { type Dataset, examplesOf, rowsOf } from "gradmix/data";
import {
  createBases,
  createMixer,
  createTrainer,
  estimateAlignments,
  estimateGram,
  type EstimatorName,
  type RuleOptions,
  type Trainer,
  type TrainerOptions,
} from "gradmix/dga";
import {
  adam,
  adamw,
  arenaLike,
  createGPT,
  createSchedule,
  type Examples,
  type Model,
  type Optimizer,
  type Parameters,
  sgd,
  type TokenBatch,
} from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { run } from "#dist/backends/backend.js";
import { perceptron, table } from "../../examples/tabular.ts";
import { tied } from "../../examples/tied.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { language, time, tiny, vocabSize, windows } from "./languages.ts";

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: "cpu", threads: 1 });
});
afterEach(shutdown);

const names = ["a", "b", "c"];
const sources = [1, 2, 3].map((seed) => windows(names[seed - 1], [language(seed, 300)]));
const target = windows("target", [language(1, 200)]);

type Setup = Partial<TrainerOptions> & { rule?: RuleOptions };
function setup({ rule = { name: "dga", normalise: "cosine" }, ...options }: Setup = {}): Trainer {
  return createTrainer({
    model: options.model ?? tiny(),
    mixer: createMixer({ domains: options.bases?.names ?? names, rule, updateEvery: 3 }),
    domains: sources,
    target,
    batch: 5,
    schedule: createSchedule({ name: "constant", lr: 0.01, steps: 100 }),
    seed: 3,
    ...options,
  });
}

/** Heavy-ball momentum: u ← 0.9·u + g, θ ← θ − lr·u. */
function momentum(parameters: Parameters, state = "momentum"): Optimizer {
  const arena = arenaLike(parameters);
  const shape = [parameters.value.size];
  const add = (into: typeof parameters.value, by: typeof parameters.value): void =>
    run("binary", { kind: "add", shape, aStrides: [1], bStrides: [1] }, { a: into, b: by }, { c: into });
  return {
    name: "momentum",
    state: { [state]: arena },
    steps: 0,
    step(gradient, lr) {
      return scope(() => {
        const u = arena.arena;
        run("affine", { scale: 0.9, shift: 0 }, { x: u }, { y: u });
        add(u, gradient);
        add(parameters.value, mul(u, -lr));
        this.steps++;
        return sum(mul(gradient, gradient)).view([1]);
      });
    },
    dispose: arena.dispose,
  };
}

describe("a custom optimizer", () => {
  test("takes the steps; its state is saved by name and continues to the same bits", async () => {
    const options = { optimizer: momentum, alignment: { from: "step" } } as const;
    const whole = setup(options);
    const steps = [];
    for (let i = 0; i < 9; i++) steps.push(await whole.step());
    expect(steps[8].loss).toBeLessThan(steps[0].loss);
    expect(steps[8].loss).not.toBe(setup().loss);
    const first = setup(options);
    for (let i = 0; i < 4; i++) await first.step();
    const saved = await first.save();
    expect(Object.keys(saved.arrays)).toEqual(["value", "momentum", "direction"]);
    expect(saved.json).toMatchObject({ optimizer: "momentum", optimizerSteps: 4 });
    const second = setup({ ...options, model: tiny(9) });
    second.restore(saved);
    for (let i = 4; i < 9; i++) expect(await second.step()).toEqual(steps[i]);
  });

  test("refuses a checkpoint of another optimizer by name, and changes nothing", async () => {
    const [own, other] = [setup({ optimizer: momentum }), setup()];
    for (const trainer of [own, other]) await trainer.step();
    const [ofOwn, ofOther] = [await own.save(), await other.save()];
    expect(errorOf(() => own.restore(ofOther))).toMatchObject({
      code: "checkpoint",
      message: 'checkpoint: it was made with the optimizer "adamw", not "momentum"',
    });
    expect(errorOf(() => other.restore(ofOwn)).message).toMatch(/the optimizer "momentum", not "adamw"$/);
    expect(await own.save()).toEqual(ofOwn);
    // Older checkpoints do not name the optimizer.
    const { optimizer: _, ...json } = ofOther.json;
    other.restore({ ...ofOther, json });
    expect(errorOf(() => own.restore({ ...ofOwn, json })).message).toMatch(/"adamw", not "momentum"$/);
  });

  test("is refused if it is invalid or lacks the moments that the rule needs, and holds no memory then", () => {
    const model = tiny();
    let live = backend.liveBytes;
    const refused = (options: Setup): string => {
      const error = errorOf(() => setup({ model, ...options }));
      expect(error.code).toBe("config");
      expect(backend.liveBytes).toBe(live);
      return error.message;
    };
    expect(refused({ optimizer: momentum, rule: { name: "dga", normalise: "adam" } })).toMatch(
      /^rule dga: it asks for alignments preconditioned by second moments, and optimizer momentum has none; use one that has them, such as adamw,/,
    );
    expect(refused({ optimizer: (parameters) => momentum(parameters, "value") })).toMatch(
      /^optimizer momentum: its state cannot be called "value"/,
    );
    const { step: _, ...stepless } = { ...momentum(model.parameters) };
    stepless.dispose();
    expect(refused({ optimizer: () => ({ ...stepless, dispose() {} }) as unknown as Optimizer })).toMatch(
      /^createTrainer: optimizer: it has no step/,
    );
    for (const none of [undefined, null, 3])
      expect(refused({ optimizer: () => none as unknown as Optimizer })).toMatch(
        /^createTrainer: optimizer: .* does not fit; it must be an optimizer, such as adamw makes/,
      );
    // Of the same layout, so that the gradient would fit: the model would never learn.
    const others = tiny().parameters;
    live = backend.liveBytes;
    for (const make of [sgd, adam, adamw])
      expect(refused({ optimizer: () => make(others) })).toMatch(
        /^createTrainer: optimizer: the function made an (sgd|adamw?) of other parameters than the model's; make it with those that the function is given/,
      );
    expect(refused({ model: { ...model, parameters: model.parameters.list } as never })).toMatch(
      /^createTrainer: model: parameters: it has no list; it must be parameters, such as createParameters makes/,
    );
    expect(refused({ optimizer: {} as unknown as typeof momentum })).toMatch(
      /^createTrainer: optimizer: an object does not fit; it must be a function from parameters to an optimizer/,
    );
  });
});

test("an optimizer that does not return the squared norm of the gradient is named", async () => {
  for (const [returned, what] of [
    [undefined, "undefined"],
    [3, "3"],
    [tensor([1, 2]), "a tensor [2]"],
  ] as const)
    for (const lossScale of [null, {}]) {
      const trainer = setup({
        lossScale,
        optimizer: (parameters) => ({ ...momentum(parameters), step: () => returned as never }),
      });
      await expect(trainer.step()).rejects.toMatchObject({
        code: "config",
        message: `optimizer momentum: step returned ${what}; it must return the squared norm of the gradient, a tensor [1]`,
      });
    }
});

test("a state of the optimizer that could not be restored is not saved", async () => {
  let arena: ReturnType<typeof arenaLike> | null = null;
  const trainer = setup({
    optimizer: (parameters) => {
      const optimizer = momentum(parameters);
      arena = optimizer.state["momentum"];
      return optimizer;
    },
  });
  await trainer.step();
  (arena as ReturnType<typeof arenaLike> | null)?.arena.view([1], 3).write([Infinity]);
  await expect(trainer.save()).rejects.toMatchObject({
    code: "numeric",
    message: 'the numbers of "momentum" are no longer finite after step 1; lower the learning rate',
  });
});

test("measurements of steps are restored from an older checkpoint whose squared norms were of means per token", async () => {
  const options = { alignment: { from: "step" } } as const;
  const trainer = setup(options);
  for (let i = 0; i < 4; i++) await trainer.step();
  const saved = await trainer.save();
  const { version, ...gathered } = saved.json["gathered"] as Record<string, number[]>;
  expect(version).toBe(2);
  expect(gathered["squaredNorms"].length).toBe(5);
  const squaredNorms = gathered["squaredNorms"].map((square, e) => square / gathered["tokens"][e] ** 2);
  const [old, next] = [setup(options), setup(options)];
  old.restore({ ...saved, json: { ...saved.json, gathered: { ...gathered, squaredNorms } } });
  for (let i = 0; i < 2; i++) {
    const [wanted, found] = [await trainer.step(), await old.step()];
    expect(found.loss).toBe(wanted.loss);
    expectNear(found.alignments?.norms ?? [], wanted.alignments?.norms ?? [], 1e-12);
    expect(found.alignments === null).toBe(i === 0);
  }
  const later = { ...saved, json: { ...saved.json, gathered: { ...gathered, version: 3 } } };
  expect(errorOf(() => next.restore(later)).message).toMatch(/gathered: version is 3, not 2$/);
});

describe("a model checks the data that it will get", () => {
  test("it checks domains, targets and evaluations, and the reference model checks the domains", async () => {
    const asked: unknown[] = [];
    const watching = (who: string, seed: number): Model => {
      const { parameters, losses } = tiny(seed);
      const check: Model["check"] = ({ name }, ...range) => asked.push([who, name, ...range]);
      return { parameters, losses, check };
    };
    const trainer = setup({
      model: watching("model", 1),
      reference: watching("reference", 2),
      targets: new Map([["one", windows("other", [language(2, 60)])]]),
    });
    expect(asked).toEqual([
      ...["a", "b", "c", "target", "other"].map((name) => ["model", name]),
      ...names.map((name) => ["reference", name]),
    ]);
    await trainer.evaluate(target, 3 * time);
    expect(asked.at(-1)).toEqual(["model", "target", 0, 3]);
  });

  test("a reference with a smaller vocabulary or a shorter context is refused, and the domain is named", () => {
    const gpt = { dim: 8, layers: 1, heads: 1, vocabSize, context: time };
    for (const [config, message] of [
      [
        { ...gpt, vocabSize: 20 },
        /^reference: "a": token \d+, number \d+ of its stream, is not in the model's/,
      ],
      [
        { ...gpt, context: 8 },
        /^reference: "a": windows of 16 tokens are longer than the model's context of 8$/,
      ],
    ] as const)
      expect(errorOf(() => setup({ reference: createGPT(config) }))).toMatchObject({
        code: "data",
        message: expect.stringMatching(message),
      });
  });

  test("a source that does not show its tokens is checked in each batch", async () => {
    const shown = sources[0].batchOf([0, 1, 2]);
    const inputs = Int32Array.from(shown.inputs);
    inputs[17] = vocabSize;
    const hidden = examplesOf<TokenBatch>("hidden", { ...shown, inputs });
    await expect(setup().evaluate(hidden, 1000)).rejects.toMatchObject({
      code: "data",
      message: `gpt: inputs hold token ${vocabSize}, at 17, which is not in the model's vocabulary of ${vocabSize}`,
    });
    expect(await setup().evaluate(hidden, 1)).toBe(await setup().evaluate(sources[0], 1));
  });

  test("domains that cannot be joined in one batch are refused by name", () => {
    const rows = (name: string, width: number): Dataset<ReturnType<typeof batchOf>> =>
      rowsOf(name, { inputs: new Float32Array(12), width, targets: new Int32Array(12 / width) });
    const { batchOf } = rowsOf("any", { inputs: new Float32Array(1), width: 1, targets: new Int32Array(1) });
    const refused = errorOf(() =>
      createTrainer({
        model: perceptron(2, 4, 2, 1),
        mixer: createMixer({ domains: ["x", "y"], rule: { name: "uniform" } }),
        domains: [rows("x", 2), rows("y", 3)],
        target: null,
        batch: 1,
        schedule: () => 0.1,
        seed: 1,
      }),
    );
    expect(refused).toMatchObject({
      code: "data",
      message:
        '"x" and "y" cannot be drawn into one batch: batches 0 and 1 do not go together: inputs is 2 numbers per example in the one and 3 in the other',
    });
  });
});

describe("GPT.losses", () => {
  const batch = sources[0].batchOf([3, 1]);

  test("gives the same for arrays and for tensors", async () => {
    const model = tiny();
    const shape = [2, time];
    const tensors = {
      inputs: tensor(batch.inputs, shape, "i32"),
      targets: tensor(batch.targets, shape, "i32"),
    };
    expect(await model.losses(batch).data()).toEqual(await model.losses(tensors).data());
  });

  test("refuses arrays that do not form a batch, and invalid ids", () => {
    const model = tiny();
    const live = backend.liveBytes;
    const at = (field: "inputs" | "targets", id: number): TokenBatch => {
      const ids = Int32Array.from(batch[field]);
      ids[ids.length - 1] = id;
      return { ...batch, [field]: ids };
    };
    const cases: [TokenBatch, string, RegExp][] = [
      [{ ...batch, time: 5 }, "shape", /^gpt: 32 inputs are not windows of 5$/],
      [{ ...batch, time: 0 }, "shape", /^gpt: 32 inputs are not windows of 0$/],
      [{ ...batch, tokens: [1] }, "shape", /^gpt: 32 targets and 1 counts of tokens for 2 windows of 16$/],
      [{ ...batch, targets: new Int32Array(31) }, "shape", /^gpt: 31 targets and 2 counts/],
      [at("inputs", -1), "data", /^gpt: inputs hold token -1, at 31,/],
      [at("inputs", vocabSize), "data", /^gpt: inputs hold token 24, at 31,/],
      [at("targets", vocabSize), "data", /^gpt: targets hold token 24, at 31,/],
    ];
    for (const [wrong, code, message] of cases)
      expect(errorOf(() => model.losses(wrong))).toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    model.losses(at("targets", -7)).dispose();
    expect(backend.liveBytes).toBe(live);
  });
});

/** Two sequences per example, the first of which is to be the likelier one: −log σ(log p(chosen) − log p(rejected)). */
interface Pair extends Examples {
  /** [examples · 2 · time]. */
  readonly inputs: Int32Array;
  readonly targets: Int32Array;
  readonly time: number;
}
function preferring(): Model<Pair> {
  const gpt = tiny(4);
  return {
    parameters: gpt.parameters,
    losses: ({ inputs, targets, time, tokens: { length } }) =>
      scope(() => {
        const rows = (ids: Int32Array) => tensor(ids, [2 * length, time], "i32");
        const both = reshape(gpt.losses({ inputs: rows(inputs), targets: rows(targets) }), [length, 2]);
        return neg(log(sigmoid(sum(mul(both, tensor([-1, 1], [2])), [1]))));
      }),
  };
}
const pairs = (name: string, seed: number, count: number): Dataset<Pair> => {
  const { inputs, targets } = windows("text", [language(seed, 2 * count * time + 1)]).batchOf(
    Array.from({ length: 2 * count }, (_, i) => i),
  );
  return examplesOf(name, { inputs, targets, time, tokens: new Float64Array(count).fill(1) });
};
const first = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe.each(["pairs of sequences", "rows of tables"] as const)("%s", (what) => {
  const made = (): {
    model: Model<never>;
    agree: (name: EstimatorName) => ReturnType<typeof estimateAlignments>;
    gram: () => ReturnType<typeof estimateGram>;
  } => {
    const of = <B extends Examples>(model: Model<B>, source: (i: number, count: number) => Dataset<B>) => {
      const batches = [4, 1, 6].map((count, i) => source(i, count).batchOf(first(count)));
      const goal = source(7, 5).batchOf(first(5));
      return {
        model,
        agree: (name: EstimatorName) => estimateAlignments(name, model, goal, batches, { maxExamples: 5 }),
        gram: () => estimateGram(model, [...batches, goal]),
      };
    };
    return what === "pairs of sequences"
      ? of(preferring(), (i, count) => pairs(`p${i}`, i + 1, count))
      : of(perceptron(2, 5, 4, 1), (i, count) => table(`t${i}`, [0.5, 0.5], count, i));
  };

  test("the estimators agree with each other and with the Gram matrix", async () => {
    const { agree, gram } = made();
    const wanted = await gram();
    const norm = Math.sqrt(wanted.gram[15]);
    for (const name of ["perDomain", "segmented", "forward"] as const) {
      const found = await agree(name);
      expectNear(found.targetNorm, norm, 1e-4);
      expectNear(found.losses, wanted.losses.subarray(0, 3), 1e-5);
      for (let i = 0; i < 3; i++) {
        const own = Math.sqrt(wanted.gram[5 * i]);
        expectNear(found.alignments[i], wanted.gram[4 * i + 3], 1e-4, norm * own);
        if (name !== "forward") expectNear(found.norms?.[i], own, 1e-4);
      }
    }
  });
});

test("pairs of sequences are trained on, evaluated and resumed", async () => {
  const train = () =>
    createTrainer({
      model: preferring(),
      mixer: createMixer({ domains: ["p", "q"], rule: { name: "dga", normalise: "cosine" }, updateEvery: 2 }),
      domains: [pairs("p", 1, 9), pairs("q", 2, 7)],
      target: pairs("t", 1, 6),
      batch: 4,
      alignment: { from: "step" },
      schedule: () => 0.01,
      seed: 2,
    });
  const [trainer, resumed] = [train(), train()];
  const before = await trainer.evaluate(pairs("p", 1, 9), 9);
  for (let i = 0; i < 10; i++) await trainer.step();
  expect(await trainer.evaluate(pairs("p", 1, 9), 9)).toBeLessThan(before / 2);
  resumed.restore(await trainer.save());
  for (let i = 0; i < 3; i++) expect(await resumed.step()).toEqual(await trainer.step());
});

describe("tied weights", () => {
  test("whole gradients have norms, gradients of single examples have none; inner products are the same", async () => {
    const model = tied(2);
    const batches = [1, 2].map((seed) => windows("w", [language(seed, 4 * time + 1)]).batchOf(first(4)));
    const goal = windows("w", [language(3, 3 * time + 1)]).batchOf(first(3));
    const whole = await estimateAlignments("perDomain", model, goal, batches);
    expect(whole.norms?.every((norm) => norm > 0)).toBe(true);
    expect(whole).not.toHaveProperty("tied");
    const rows = await estimateAlignments("segmented", model, goal, batches);
    expect(rows).toMatchObject({ tied: "embedding" });
    expect(rows).not.toHaveProperty("norms");
    const scale = whole.targetNorm * Math.max(...(whole.norms ?? []));
    for (const found of [rows, await estimateAlignments("forward", model, goal, batches)])
      expectNear(found.alignments, whole.alignments, 1e-5, scale);
    // A norm is the root of the Gram matrix's diagonal, which is of whole gradients too.
    const { gram } = await estimateGram(model, batches);
    expectNear(whole.norms, [Math.sqrt(gram[0]), Math.sqrt(gram[3])], 1e-5);
    // If the parameter is not selected, nothing is refused.
    const parameters = (name: string): boolean => name !== "embedding";
    const rest = await estimateAlignments("segmented", model, goal, batches, { parameters });
    expectNear(
      rest.norms,
      (await estimateAlignments("perDomain", model, goal, batches, { parameters })).norms ?? [],
      1e-5,
    );
  });

  const mixed = createBases({ left: [0.8, 0.2, 0], right: [0, 0.3, 0.7] }, names);
  const raw: RuleOptions = { name: "dga", normalise: "raw" };
  const targets = new Map([["other", target]]);
  const ways: [string, Setup, RuleOptions, RuleOptions][] = [
    [
      "a shared batch of bases",
      { bases: mixed, alignment: { from: "batch" } },
      raw,
      { name: "dga", normalise: "cosine" },
    ],
    [
      "bases from the steps",
      { bases: mixed, alignment: { from: "step" } },
      raw,
      { name: "dga", normalise: "cosine" },
    ],
    [
      "several targets",
      { targets },
      { name: "grape", targets: ["other"], normalise: "raw" },
      { name: "grape", targets: ["other"], normalise: "cosine" },
    ],
  ];
  test.each(ways)(
    "a rule that needs no norms trains; one that needs them is refused by name (%s)",
    async (_, options, plain, normed) => {
      const trainer = setup({ ...options, model: tied(1), rule: plain });
      for (let i = 0; i < 3; i++) await trainer.step();
      expect([...trainer.weights().final]).not.toEqual([...trainer.mixer.weightSums.map((sum) => sum / 3)]);
      const refused = setup({ ...options, model: tied(1), rule: normed });
      const early = options.alignment?.from === "step";
      const steps = async (): Promise<void> => {
        for (let i = 0; i < 3; i++) await refused.step();
      };
      await expect(steps()).rejects.toMatchObject({
        code: "config",
        message: expect.stringMatching(
          /^rule \w+: it needs the norms .* parameter embedding is used twice in one pass/,
        ),
      });
      // The steps find it at once, a batch only when an update is due.
      expect(refused.steps).toBe(early ? 0 : 3);
    },
  );
});
