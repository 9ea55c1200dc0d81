/** The rule of a run from its configuration: every common option reaches the rule under the rule's name for it, or becomes a combinator. */
import {
  combine,
  type CombinatorOptions,
  createRule,
  type Rule,
  type RuleOptions,
  type RuleState,
  type RunFacts,
} from "gradmix/dga";
import { names, signal } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { resolveConfig } from "#dist/cli/config.js";
import { measuredFrom } from "#dist/dga/plan.js";
import { ruleNames } from "#dist/dga/rules/index.js";
import { ruleTakes } from "#dist/cli/common-options.js";
import { mixerFor, planMixing } from "#dist/cli/mixing.js";
import { unusedOptions } from "#dist/cli/unused-options.js";
import { type MixingConfig, totalSteps, type TrainConfig } from "#dist/cli/train-config.js";

const domains = names(3);
const values = new Map<string, unknown>([
  ["data.domains", new Map(domains.map((name) => [name, [`${name}.txt`]]))],
  ["data.target", ["target.txt"]],
]);
const base = resolveConfig([{ values, label: (path) => path }]);
const none = { eta: null, beta: null, normalise: null, floor: null, weights: null, histogram: null };
const targets = ["first", "second"];
const configured = (mixing: Partial<MixingConfig>): MixingConfig => ({ ...base.mixing, ...none, ...mixing });
const ruleOf = (mixing: Partial<MixingConfig>, facts: RunFacts): Rule =>
  mixerFor(configured(mixing), targets, domains, facts as { sizes?: Record<string, number> }).rule;

/** Signals on which two rules are compared. */
const signals = fc.sample(signal(3, { mild: true }), { numRuns: 8, seed: 3 });
const path = (rule: Rule): RuleState[] => {
  const states = [rule.init(domains)];
  signals.forEach((given, t) => {
    const tokensSeen = [1, 2, 3].map((n) => n * (t + 1));
    states.push(rule.update(states[t], { ...given, tokensSeen }));
  });
  return states;
};

const shares = { domain0: 0.5, domain1: 0.3, domain2: 0.2 };
const weights = new Map(Object.entries(shares));
const histogram = new Map([["domain2", 3], ["domain0", 1]]); // prettier-ignore
const sizes = { domain0: 10, domain1: 20, domain2: 70 };
const all = { eta: 0.3, beta: 0.4, normalise: "raw", floor: 0.1, weights, histogram } as const;
const [ema, floor]: CombinatorOptions[] = [{ name: "ema", beta: 0.4 }, { name: "floor", least: 0.1 }]; // prettier-ignore

describe("the rule of a run", () => {
  test.each<[Partial<MixingConfig>, RuleOptions, CombinatorOptions[]]>([
    [{ ...all, rule: "uniform" }, { name: "uniform" }, [floor]],
    [{ ...all, rule: "static" }, { name: "static", weights: shares }, [floor]],
    [{ ...all, rule: "temperature" }, { name: "temperature", sizes }, [floor]],
    [{ ...all, rule: "importanceSampling" }, { name: "importanceSampling", histogram: [1, 0, 3] }, [floor]],
    [
      { ...all, rule: "dga" },
      { name: "dga", eta: 0.3, beta: 0.4, normalise: "raw", floor: 0.1, start: shares },
      [],
    ],
    [{ ...all, rule: "doge" }, { name: "doge", eta: 0.3, start: shares }, [ema, floor]],
    [
      { ...all, rule: "grape" },
      { name: "grape", targets, eta: 0.3, beta: 0.4, normalise: "raw", start: shares },
      [floor],
    ],
    [{ ...all, rule: "rnb" }, { name: "rnb" }, [ema, floor]],
    [{ ...all, rule: "doremi" }, { name: "doremi", eta: 0.3, start: shares }, [ema, floor]],
    [{ ...all, rule: "odm" }, { name: "odm" }, [ema, floor]],
    [{ ...all, rule: "ado" }, { name: "ado", floor: 0.1, start: shares, sizes }, [ema]],
    // Options that are not given have the rule's own defaults.
    [{ rule: "uniform" }, { name: "uniform" }, []],
    [{ rule: "dga" }, { name: "dga" }, []],
    // Only a tracked dga receives the prior and the limits on repetitions.
    [{ rule: "dga", histogram }, { name: "dga", prior: [1, 0, 3], sizes, tokens: 90 }, []],
    [
      { rule: "dga", ruleOptions: { repetitions: 1 } },
      { name: "dga", repetitions: 1, sizes, tokens: 90 },
      [],
    ],
    [
      { rule: "dga", ruleOptions: { repetitions: 1, tokens: 200 } },
      { name: "dga", repetitions: 1, sizes, tokens: 200 },
      [],
    ],
    [
      { rule: "dga", ruleOptions: { repetitions: 1, normalise: "raw" } },
      { name: "dga", normalise: "raw", repetitions: 1, sizes, tokens: 90 },
      [],
    ],
    [{ rule: "doge" }, { name: "doge" }, []],
    [{ rule: "grape" }, { name: "grape", targets }, []],
    [{ rule: "odm" }, { name: "odm" }, []],
    [{ rule: "ado" }, { name: "ado", sizes }, []],
    // A floor of 0 is no floor, but a small one is.
    [{ rule: "doge", floor: 0 }, { name: "doge" }, []],
    [{ rule: "doge", floor: 1e-3 }, { name: "doge" }, [{ name: "floor", least: 1e-3 }]],
    // Options of the rule override the common ones; combinators go around the rule.
    [
      { ...all, rule: "doge", ruleOptions: { eta: 2, towards: "target" } },
      { name: "doge", eta: 2, towards: "target", start: shares },
      [ema, floor],
    ],
    [
      { rule: "temperature", ruleOptions: { exponent: 1, sizes: [1, 1, 2] } },
      { name: "temperature", exponent: 1, sizes: [1, 1, 2] },
      [],
    ],
    [
      {
        ...all,
        rule: "rnb",
        combinators: [
          { name: "ceiling", most: 0.5 },
          { name: "warmup", updates: 2 },
        ],
      },
      { name: "rnb" },
      [ema, floor, { name: "ceiling", most: 0.5 }, { name: "warmup", updates: 2 }],
    ],
    [
      { rule: "dga", combinators: [{ name: "repetitionCap", repetitions: 4 }] },
      { name: "dga" },
      [{ name: "repetitionCap", repetitions: 4, sizes, tokens: 90 }],
    ],
  ])("%j", (mixing, options, around) => {
    const [found, wanted] = [ruleOf(mixing, { sizes, tokens: 90 }), combine(createRule(options), around)];
    expect(found.name).toBe(wanted.name);
    expect(found.needs).toEqual(wanted.needs);
    expect(path(found)).toEqual(path(wanted));
  });
  test("unknown sizes are not passed to the rule", () => {
    expect(path(ruleOf({ rule: "ado" }, {}))).toEqual(path(createRule({ name: "ado" })));
    expect(() => ruleOf({ rule: "temperature" }, {})).toThrow("temperature: sizes is missing");
  });
});

describe("a rule would limit a run of another length differently", () => {
  const limited = (mixing: Partial<MixingConfig>, tokens: number, other: number): string | null =>
    planMixing({ ...base, mixing: configured(mixing) }, tokens).limitedOtherwise(other, sizes);
  test("if it is dga and, now or before, 4 repetitions of a domain are fewer tokens than the run has; the first such domain is named", () => {
    expect(limited({}, 40, 40)).toBe(null);
    expect(limited({}, 40, 20)).toBe(null);
    expect(limited({}, 40, 41)).toBe("domain0");
    expect(limited({}, 41, 40)).toBe("domain0");
    expect(limited({}, 200, 41)).toBe("domain0");
    expect(limited({ ruleOptions: { repetitions: 9 } }, 80, 90)).toBe(null);
    expect(limited({ ruleOptions: { repetitions: 9 } }, 80, 91)).toBe("domain0");
    const large = { sizes: { domain0: 1000, domain1: 20, domain2: 70 } };
    expect(limited({ ruleOptions: large }, 80, 81)).toBe("domain1");
  });
  test("but not without a limit or with tokens of its own, and not if it is another rule", () => {
    expect(limited({ normalise: "raw" }, 80, 8000)).toBe(null);
    expect(limited({ preset: "paper" }, 80, 8000)).toBe(null);
    expect(limited({ ruleOptions: { tokens: 500 } }, 80, 8000)).toBe(null);
    expect(limited({ rule: "uniform" }, 80, 8000)).toBe(null);
  });
  test("if it has a combinator that uses the number of tokens, which is known without the sizes", () => {
    const counts = (mixing: Partial<MixingConfig>): boolean =>
      planMixing({ ...base, mixing: configured(mixing) }, 80).countsTokens;
    expect(counts({})).toBe(false);
    expect(counts({ combinators: [{ name: "repetitionCap", repetitions: 4 }] })).toBe(true);
    expect(counts({ combinators: [{ name: "repetitionCap", repetitions: 4, tokens: 9 }] })).toBe(false);
  });
});

test("a guard among the combinators requires that its domains are evaluated", () => {
  const plan = (guard: Record<string, number> | null, limits: Record<string, number>): unknown =>
    planMixing(
      {
        ...base,
        mixing: configured({
          guard: guard === null ? null : new Map(Object.entries(guard)),
          combinators: [
            { name: "floor", least: 0.1 },
            { name: "guard", limits },
          ],
        }),
      },
      80,
    );
  for (const [guard, limits] of [
    [null, { domain1: 1.1 }],
    [{ domain0: 1.1 }, { "*": 1.1 }],
  ] as const)
    expect(() => plan(guard, limits)).toThrow(
      'mixing.combinators[1]: its guard needs evaluations of "domain1", and a run evaluates only domains that --guard names; add --guard "domain1<=X"',
    );
  plan({ "*": 1.2 }, { domain1: 1.1 });
  plan({ domain1: 1.2 }, { domain1: 1.1 });
});

test("the limit of a run follows from its tokens and the sizes, and the smallest one holds", () => {
  const limit = (mixing: Partial<MixingConfig>, tokens: number): number | null =>
    planMixing({ ...base, mixing: configured(mixing) }, tokens).repetitions(sizes);
  expect(limit({}, 90)).toBe(4);
  expect(limit({}, 250)).toBe(5.5);
  expect(limit({ repetitionCap: 3 }, 250)).toBe(3);
  expect(limit({ combinators: [{ name: "repetitionCap", repetitions: 7 }] }, 90)).toBe(4);
  expect(limit({ combinators: [{ name: "repetitionCap", repetitions: 7 }] }, 500)).toBe(7);
  expect(limit({ rule: "uniform" }, 90)).toBe(null);
  expect(limit({ normalise: "raw" }, 90)).toBe(null);
});

test("the limit on repetitions is reported as ineffective if there is too little text", () => {
  const often = (mixing: Partial<MixingConfig>, tokens: number): number | null =>
    planMixing({ ...base, mixing: configured(mixing) }, tokens).repeatsAnyway(sizes);
  const all = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  // The usual limit leaves room, however little text there is.
  expect(often({}, 16 * all)).toBe(null);
  expect(often({ ruleOptions: { repetitions: 8 } }, 8 * all)).toBe(null);
  expect(often({ ruleOptions: { repetitions: 8 } }, 16 * all)).toBe(16);
  expect(often({ ruleOptions: { repetitions: 17 } }, 16 * all)).toBe(null);
  expect(often({ preset: "paper" }, 16 * all)).toBe(null);
  expect(often({ rule: "uniform" }, 16 * all)).toBe(null);
});

/** The options that are named as without effect, by key. */
const unusedKeys = (mixing: Partial<MixingConfig>): string[] =>
  unusedOptions({ ...base, mixing: configured(mixing) }).map(
    (line) => /^mixing\.(\S+) /.exec(line)?.[1] ?? line,
  );

test("options that have no effect are reported", () => {
  // Weights and a histogram that the rule does not use are refused earlier.
  const unused = (rule: MixingConfig["rule"], given: Partial<MixingConfig>): string[] =>
    unusedKeys({ rule, ...given }).filter((key) => !["weights", "histogram"].includes(key));
  const wanted = {
    ...{ uniform: "eta beta normalise", static: "eta beta normalise", temperature: "eta beta normalise" },
    ...{ importanceSampling: "eta beta normalise", dga: "", doge: "normalise", grape: "" },
    ...{ rnb: "eta normalise", doremi: "normalise", odm: "eta normalise", ado: "eta normalise" },
  };
  for (const [rule, words] of Object.entries(wanted)) {
    const name = rule as MixingConfig["rule"];
    expect(unused(name, all).join(" "), rule).toBe(words);
    expect(unused(name, {})).toEqual([]);
    expect(unused(name, { prior: "uniform" })).toEqual(rule === "dga" ? [] : ["prior"]);
    expect(ruleTakes(name, "eta")).toBe(!words.includes("eta "));
  }
});

test("a plan names alignment options without effect", () => {
  const lines = (alignment: Partial<TrainConfig["alignment"]>): readonly string[] =>
    planMixing({ ...base, alignment: { ...base.alignment, ...alignment } }, 1000).unused;
  expect(lines({})).toEqual([]);
  expect(lines({ measureEvery: 1, probes: 2 })).toEqual([]);
  expect(lines({ from: "batch", measureEvery: 1 })).toEqual([
    "alignment.measureEvery has no effect: rule dga measures a separate batch here",
  ]);
});

test("a plan names bounds that fixed weights keep anyway, and no others", () => {
  const idle = (given: Partial<MixingConfig>): string[] =>
    planMixing({ ...base, mixing: configured(given) }, 1000, ["a", "b"]).unused.map(
      (line) => line.split(" ")[0],
    );
  const of = (a: number, b: number) => new Map([["a", a], ["b", b]]); // prettier-ignore
  expect(planMixing({ ...base, mixing: configured({ rule: "uniform", floor: 0.1 }) }, 1000).unused).toEqual([
    "mixing.floor has no effect: the weights of rule uniform are fixed, and already keep it",
  ]);
  const both = ["mixing.floor", "mixing.ceiling"];
  expect(idle({ rule: "uniform", floor: 0.1, ceiling: 0.6 })).toEqual(both);
  expect(idle({ rule: "static", weights: of(0.4, 0.6), floor: new Map([["a", 0.3]]), ceiling: 0.7 })).toEqual(
    both,
  );
  expect(idle({ rule: "static", weights: of(0.4, 0.6), floor: 0.45 })).toEqual([]);
  expect(idle({ rule: "static", weights: of(0.4, 0.6), ceiling: 0.55, floor: 0.1 })).toEqual([
    "mixing.floor",
  ]);
  expect(idle({ rule: "uniform", floor: new Map([["a", 0.7]]) })).toEqual([]);
  // These weights move, or are known only when the text has been read.
  for (const more of [
    { rule: "dga" },
    { rule: "temperature" },
    { rule: "importanceSampling", histogram: of(1, 1) },
    { rule: "uniform", guard: new Map([["a", 1.1]]) },
    { rule: "uniform", repetitionCap: 4 },
  ] as const)
    expect(idle({ ...more, floor: 0.1, ceiling: 0.6 })).toEqual([]);
});

test("options that the rule options set otherwise are named", () => {
  const lines = (given: Partial<MixingConfig>): string[] =>
    unusedOptions({ ...base, mixing: configured({ rule: "dga", eta: 1, floor: 0.01, ...given }) });
  expect(lines({ ruleOptions: { pull: 0 } })).toEqual([]);
  expect(lines({ ruleOptions: { eta: 5, floor: 0.1 } })).toEqual([
    "mixing.eta has no effect: mixing.ruleOptions sets eta",
    "mixing.floor has no effect: mixing.ruleOptions sets floor",
  ]);
  // These floors are around the rule, whatever its own one is.
  for (const around of [{ floor: new Map([["a", 0.1]]) }, { guard: new Map([["a", 1.1]]) }])
    expect(lines({ ruleOptions: { floor: 0.1 }, ...around })).toEqual([]);
  expect(
    lines({
      ruleOptions: { start: [1, 1] },
      weights: new Map([
        ["a", 0.5],
        ["b", 0.5],
      ]),
    }),
  ).toEqual(["mixing.weights has no effect: mixing.ruleOptions sets start"]);
});

test("when to update is reported as unused by rules with fixed weights, and by no other rule", () => {
  for (const rule of ruleNames)
    for (const given of [{ updateEvery: 3 }, { updateAfter: 7 }, { updateEvery: 3, updateAfter: 7 }]) {
      const fixed = ["uniform", "static", "temperature", "importanceSampling"].includes(rule);
      expect(unusedKeys({ rule, ...given })).toEqual(fixed ? Object.keys(given) : []);
      expect(unusedKeys({ rule })).toEqual([]);
      // A guard moves the weights at updates, whatever the rule.
      expect(unusedKeys({ rule, ...given, guard: new Map([["*", 1.1]]) })).toEqual([]);
    }
});

test("the steps are those given, or enough for the tokens", () => {
  const steps = (training: Partial<TrainConfig["training"]>): number =>
    totalSteps({
      ...base,
      model: { ...base.model, context: 8 },
      training: { ...base.training, batch: 4, ...training },
    });
  expect(steps({ steps: 7, tokens: null })).toBe(7);
  expect(steps({ steps: null, tokens: 64 })).toBe(2);
  expect(steps({ steps: null, tokens: 65 })).toBe(3);
  expect(steps({ steps: null, tokens: null })).toBe(0);
});

test("by default, alignments come from training steps; an option that only batches have selects batches", () => {
  const from = (alignment: Partial<TrainConfig["alignment"]>): string => {
    const plan = planMixing({ ...base, alignment: { ...base.alignment, ...alignment } }, 1000);
    return measuredFrom(plan.alignment, { gram: false, targets: false });
  };
  expect(from({})).toBe("step");
  const batches = [{ estimator: "segmented" }, { domainExamples: 4 }, { bases: "shared" }] as const;
  for (const alignment of [...batches, { from: "batch" } as const]) expect(from(alignment)).toBe("batch");
  expect(from({ from: "step", domainExamples: 4 })).toBe("step");
});
