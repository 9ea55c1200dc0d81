/** Options that were given and have no effect are named, whether or not the value is the default, and only if they were given. */
import { describe, expect, test } from "vitest";
import { flatten, jsonLayer, recordedLayer, resolveConfig } from "#dist/cli/config.js";
import { optionRows } from "#dist/cli/options.js";
import type { KnownRun } from "#dist/cli/options/spec.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { planTraining } from "#dist/cli/training.js";
import { unusedOptions, unusedTeller } from "#dist/cli/unused-options.js";
import { mixerFor } from "#dist/cli/mixing.js";
import { formatJson, parseJson } from "#dist/json.js";

type Known = Partial<Omit<KnownRun, "config">>;
type Json = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

interface Case {
  /** Values of the option; the first is the default, if it has a fixed one. */
  readonly values: readonly unknown[];
  /** Other options, and facts, with which it has an effect. */
  readonly used: readonly (readonly [Json, Known?])[];
  /** The same for those without, and the reason. */
  readonly unused: readonly (readonly [Json, Known, string])[];
}

const minimal = { data: { domains: { a: "a.txt", b: "b.txt" }, target: "t.txt" }, run: { out: "r" } };
const uniform = { mixing: { rule: "uniform" } };
const notUsed = "rule uniform does not use it";
const noTokens = "no domain and no target consists of files of tokens";
const fixedRule = [uniform, {}, notUsed] as const;
const guarded = { mixing: { rule: "uniform", guard: { "*": 1.1 } } };
const sets = (name: string, value: unknown) =>
  [{ mixing: { ruleOptions: { [name]: value } } }, {}, `mixing.ruleOptions sets ${name}`] as const;
const ofTokens = {
  used: [[{}, { readsTokens: true }], [{}]],
  unused: [[{}, { readsTokens: false }, noTokens]],
} as const;

const cases: Readonly<Record<string, Case>> = {
  "data.vocabSize": {
    values: [1024, 400],
    used: [[{}], [{ data: { tokenizer: "none" } }]],
    unused: ["byte", "gpt2", "t.json"].map((tokenizer) => [
      { data: { tokenizer } },
      {},
      `the tokenizer ${tokenizer} has a vocabulary of its own`,
    ]),
  },
  "data.endOfText": { values: [0, 7], ...ofTokens },
  "data.tokenType": { values: ["u16", "u32"], ...ofTokens },
  "training.minRatio": {
    values: [0.1, 0, 0.5],
    used: [[{}], [{ training: { schedule: "wsd" } }]],
    unused: [[{ training: { schedule: "constant" } }, {}, "the schedule constant keeps the learning rate"]],
  },
  "mixing.combinators": {
    values: [[{ name: "shrinkage" }]],
    used: [
      [{ mixing: { normalise: "cosine" } }],
      [{ mixing: { rule: "doge", ruleOptions: { towards: "target" } } }],
    ],
    unused: [
      [{}, {}, "rule dga already weighs alignments by their standard errors"],
      [uniform, {}, "the weights of rule uniform are fixed"],
    ],
  },
  "mixing.eta": { values: [0.1, 3], used: [[{}]], unused: [fixedRule, sets("eta", 1)] },
  "mixing.beta": {
    values: [1, 0.5],
    used: [[{}], [{ mixing: { rule: "odm" } }]],
    unused: [fixedRule, sets("beta", 1)],
  },
  "mixing.normalise": {
    values: ["tracked", "raw"],
    used: [[{}]],
    unused: [fixedRule, sets("normalise", "raw")],
  },
  "mixing.prior": {
    values: ["histogram", "uniform"],
    used: [[{}], [{ mixing: { normalise: "tracked" } }]],
    unused: [
      fixedRule,
      sets("prior", [1, 2]),
      [{ mixing: { normalise: "raw" } }, {}, "rule dga has no prior with normalise raw"],
    ],
  },
  "mixing.updateEvery": { values: [10, 3], used: [[{}], [guarded]], unused: [fixedRule] },
  "mixing.updateAfter": { values: [0, 3], used: [[{}], [guarded]], unused: [fixedRule] },
  "mixing.floor": { values: [0, 0.1], used: [[{}], [uniform]], unused: [sets("floor", 0.1)] },
  "mixing.weights": { values: [{ a: 0.5, b: 0.5 }], used: [[{}]], unused: [sets("start", [1, 1])] },
  "mixing.histogram": { values: [{ a: 1, b: 1 }], used: [[{}]], unused: [sets("prior", [1, 1])] },
  "run.deterministic": {
    values: [true],
    used: [[{}], [{}, { backend: "webgpu" }], [{ run: { backend: "webgpu" } }]],
    unused: [
      [{ run: { backend: "cpu" } }, {}, "the cpu backend times no kernels"],
      [{ run: { backend: "reference" } }, {}, "the reference backend times no kernels"],
      [{}, { backend: "cpu" }, "the cpu backend times no kernels"],
    ],
  },
};

const rows = optionRows();

function configOf(json: Json): TrainConfig {
  return resolveConfig([jsonLayer(json, "c.json"), jsonLayer(minimal, "minimal.json")]);
}

function withOption(json: Json, path: string, value: unknown): Json {
  const [section = "", key = ""] = path.split(".");
  return { ...json, [section]: { ...json[section], [key]: value } };
}

test("every option that can be without effect is tried", () => {
  expect(Object.keys(cases).sort()).toEqual(
    rows.flatMap(({ path, idle }) => (idle === undefined ? [] : [path])).sort(),
  );
});

test("every option that can be without effect, and every one with a fixed value for null, is null, false or empty unless it is given", () => {
  for (const { path, default: fixed, idle, otherwise } of rows) {
    if (idle === undefined && otherwise === undefined) continue;
    expect(fixed === null || fixed === false || (Array.isArray(fixed) && fixed.length === 0), path).toBe(
      true,
    );
  }
});

describe.each(Object.entries(cases))("%s", (path, { values, used, unused }) => {
  test("is named where it has no effect, for every value, and not where it has one", () => {
    for (const value of values) {
      for (const [json, known = {}] of used)
        expect(unusedOptions(configOf(withOption(json, path, value)), known)).toEqual([]);
      for (const [json, known, why] of unused) {
        const config = configOf(withOption(json, path, value));
        const member = path === "mixing.combinators" ? "[0]" : "";
        const lines = [`${path}${member} has no effect: ${why}`];
        expect(unusedOptions(config, known)).toEqual(lines);
        // The configuration that a run records says the same.
        const again = resolveConfig([
          jsonLayer(parseJson(formatJson(config), { source: "c" }), "config.json"),
        ]);
        expect(unusedOptions(again, known)).toEqual(lines);
      }
    }
  });

  test("is not named if it was not given", () => {
    for (const [json, known = {}] of [...used, ...unused]) {
      // Without a tokenizer, the size of the vocabulary has to be given.
      if (path === "data.vocabSize" && json["data"]?.["tokenizer"] === "none") continue;
      expect(unusedOptions(configOf(json), known)).toEqual([]);
      const recorded = configOf(parseJson(formatJson(configOf(json)), { source: "c" }) as unknown as Json);
      expect(unusedOptions(recorded, known)).toEqual([]);
    }
  });
});

test("an option without effect changes nothing: the schedule, the text and the weights are the same", () => {
  const constant = { training: { schedule: "constant" } };
  const rates = (json: Json): number[] => {
    const { schedule, steps } = planTraining(configOf(json));
    return Array.from({ length: steps }, (_, step) => schedule(step));
  };
  expect(rates(withOption(constant, "training.minRatio", 0.5))).toEqual(rates(constant));
  expect(rates({ training: { minRatio: 0.5 } })).not.toEqual(rates({}));
  const domains = ["a", "b"];
  const signal = {
    alignments: [1, 3],
    standardErrors: [0.5, 2],
    norms: [1, 2],
    targetNorm: 2,
    losses: [1, 1],
  };
  const weights = (json: Json): readonly number[] => {
    const { rule } = mixerFor(configOf(json).mixing, [], domains, {});
    let state = rule.init(domains);
    for (let i = 0; i < 5; i++) state = rule.update(state, signal);
    return state.weights;
  };
  const shrinkage = (mixing: object): Json => ({
    mixing: { ...mixing, combinators: [{ name: "shrinkage" }] },
  });
  expect(weights(shrinkage({}))).toEqual(weights({}));
  const cosine = { mixing: { normalise: "cosine" } };
  expect(weights(shrinkage(cosine.mixing))).not.toEqual(weights(cosine));
});

test("combinators around fixed weights are named, unless a guard inside them moves the weights", () => {
  const named = (rule: string, ...combinators: object[]): number[] =>
    unusedOptions(
      configOf({
        mixing: { rule, combinators, ...(rule === "static" ? { weights: { a: 0.5, b: 0.5 } } : {}) },
      }),
    ).map((line) =>
      Number(
        /^mixing\.combinators\[(\d+)\] has no effect: the weights of rule .* are fixed$/.exec(line)?.[1],
      ),
    );
  const ema = { name: "ema", beta: 0.5 };
  const moves = [ema, { name: "warmup", updates: 2 }, { name: "etaSchedule", decay: "linear", updates: 3 }];
  const bounds = [
    { name: "floor", least: 0.1 },
    { name: "ceiling", most: 0.8 },
  ];
  const guard = { name: "guard", limits: { "*": 1.1 } };
  for (const rule of ["uniform", "static", "temperature", "importanceSampling"]) {
    expect(named(rule, ...moves, ...bounds)).toEqual([0, 1, 2]);
    expect(named(rule, ema, guard, ema)).toEqual([0]);
  }
  expect(named("dga", ...moves, ...bounds, guard)).toEqual([]);
});

test("lines are told once, as soon as they are known", () => {
  const told: string[] = [];
  const tell = unusedTeller(
    configOf({ data: { endOfText: 1, tokenizer: "byte", vocabSize: 9 }, run: { deterministic: true } }),
    (line) => told.push(line.split(" ")[0]),
  );
  tell();
  expect(told).toEqual(["data.vocabSize"]);
  tell({ backend: "cpu" });
  tell({ backend: "cpu" });
  expect(told).toEqual(["data.vocabSize", "run.deterministic"]);
  tell({ backend: "cpu", readsTokens: false });
  expect(told).toEqual(["data.vocabSize", "run.deterministic", "data.endOfText"]);
});

test("a value that a run of an earlier version recorded by default counts as not given, and means the same", () => {
  const fixed = rows.filter(({ otherwise }) => otherwise !== undefined);
  expect(fixed.length).toBeGreaterThan(4);
  const before: Record<string, Record<string, unknown>> = {};
  for (const { section, key, otherwise } of fixed) (before[section] ??= {})[key] = otherwise;
  const resolved = resolveConfig([
    recordedLayer(jsonLayer(before, "old.json")),
    jsonLayer(minimal, "minimal.json"),
  ]);
  expect(flatten(resolved)).toEqual(flatten(configOf({})));
});
