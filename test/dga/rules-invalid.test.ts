/**
 * For any value of an option or of a part of a signal, a rule accepts it and stays on the simplex, or refuses it with one GradmixError that names it and
 * leaves the state as it was. Named values do not depend on the order of the names.
 */
import {
  combinatorNames,
  combinators,
  type CombinatorOptions,
  combine,
  createMixer,
  createRule,
  type Rule,
  type RuleName,
  ruleNames,
  type RuleOptions,
  rules,
  type RuleState,
  type Signal,
  sumOf,
} from "gradmix/dga";
import { GradmixError } from "gradmix";
import { histogram, names, signal, simplexPoint, targetNames } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { validOptions } from "./rule-samples.ts";

const K = 3;
const entries: {
  readonly [N in CombinatorOptions["name"]]: Required<Extract<CombinatorOptions, { name: N }>>;
} = {
  ema: { name: "ema", beta: 0.5 },
  floor: { name: "floor", least: 0.1 },
  ceiling: { name: "ceiling", most: 0.8 },
  tokenBudget: { name: "tokenBudget", budgets: [50, 50, 50], tokens: 100 },
  repetitionCap: { name: "repetitionCap", repetitions: 4, sizes: [20, 20, 20], tokens: 100 },
  warmup: { name: "warmup", updates: 2 },
  etaSchedule: { name: "etaSchedule", decay: "linear", updates: 4, final: 0.5 },
  shrinkage: { name: "shrinkage" },
  guard: {
    name: "guard",
    limits: { "*": 1.02, domain1: 1.1 },
    references: [1, 2, 3],
    caps: [1, 1, 0.5],
    most: 0.5,
    rate: 10,
  },
};

/** Anything: what no one would type, and what a file or a slip brings. */
const anything: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    NaN,
    Infinity,
    -Infinity,
    -1,
    0,
    0.5,
    1e308,
    "",
    "1",
    "raw",
    true,
    [],
    {},
    [NaN, 1, 1],
    [null, 1, 0],
    ["1", 0, 0],
    [1, 0],
    [0, 0, 0],
    [1, 1, 1, 1],
    [-1, 1, 1],
    { domain0: 1 },
    { domain0: null, domain1: 1 },
    { domain9: 1 },
    { length: 3 },
    new Map([["domain0", 1]]),
    () => 1,
    1n,
    [1n, 0, 0],
    new Float64Array([1, NaN, 0]),
    new Float64Array(3),
    new DataView(new ArrayBuffer(24)),
  ),
  fc.anything({ withBigInt: true, withTypedArray: true, withNullPrototype: true }),
);

function onSimplex(state: RuleState): void {
  expect(state.weights.length).toBe(K);
  expect(state.weights.every((w) => w >= 0)).toBe(true);
  expect(Math.abs(sumOf(state.weights) - 1)).toBeLessThanOrEqual(1e-12);
  // Nothing that JSON cannot hold.
  expect(JSON.parse(JSON.stringify(state))).toEqual(state);
}

/** Runs it; a GradmixError of one of these codes counts as an answer, and is given back. */
function answer(run: () => void): GradmixError | null {
  try {
    run();
    return null;
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    expect(["config", "numeric"]).toContain(error.code);
    expect(error.message).not.toContain("\n");
    return error;
  }
}

const replacing = (valid: object): fc.Arbitrary<{ options: Record<string, unknown>; name: string }> =>
  fc.record({ name: fc.constantFrom(...Object.keys(valid)), value: anything }).map(({ name, value }) => ({
    name,
    options: { ...valid, [name]: value },
  }));

describe.each(Object.entries(validOptions))("%s", (name, options) => {
  const rule = createRule(options as RuleOptions);

  test("any value in place of an option gives weights, or an error that names the option", () => {
    fc.assert(
      fc.property(replacing(options), signal(K), ({ options: given, name: changed }, one) => {
        const error = answer(() => {
          const made = createRule(given as unknown as RuleOptions);
          const state = made.init(names(K));
          onSimplex(state);
          onSimplex(made.update(state, one));
        });
        if (error?.code === "config") expect(error.message).toContain(changed === "name" ? "rule" : changed);
      }),
      { numRuns: 150 },
    );
    expect(createRule(options as RuleOptions).name).toBe(name);
  });

  test("any value in place of a part of the signal gives weights, or an error that names the part", () => {
    if (rule.needs.length === 0) return;
    const told = name === "dga" ? (["targetExamples"] as const) : [];
    const parts = fc.constantFrom(...rule.needs, "tokens" as const, ...told);
    fc.assert(
      fc.property(
        signal(K),
        parts,
        anything,
        fc.nat(K - 1),
        fc.constantFrom("whole", "entry"),
        (given, part, value, at, what) => {
          const state = rule.init(names(K));
          const before = JSON.stringify(state);
          const whole = part === "tokens" ? [1, 1, 1] : part === "targetExamples" ? 100 : given[part];
          const bad =
            what === "entry" && Array.isArray(whole)
              ? (whole as unknown[]).with(at % whole.length, value)
              : value;
          const error = answer(() => onSimplex(rule.update(state, { ...given, [part]: bad })));
          expect(JSON.stringify(state)).toBe(before);
          if (error !== null)
            expect(error.message).toMatch(
              new RegExp(part === "gram" ? "gram|Gram" : part === "targets" ? "target" : part),
            );
        },
      ),
      { numRuns: 300 },
    );
  });

  test("a missing signal is refused", () => {
    if (rule.needs.length === 0) return;
    const state = rule.init(names(K));
    for (const none of [{}, Object.fromEntries(rule.needs.map((part) => [part, null]))])
      expect(errorOf(() => rule.update(state, none as Signal)).code).toBe("config");
  });

  test("invalid domains are refused", () => {
    for (const domains of [[], ["a", "a"], ["a", "b", "a"]])
      expect(errorOf(() => rule.init(domains)).code).toBe("config");
  });
});

describe.each(Object.entries(entries))("the combinator %s", (_, options) => {
  test("any value in place of an option gives weights, or an error that names the option", () => {
    fc.assert(
      fc.property(replacing(options), signal(K), ({ options: given, name: changed }, one) => {
        const error = answer(() => {
          const rule = combine(rules.dga(), [given as unknown as CombinatorOptions]);
          const state = rule.init(names(K));
          onSimplex(state);
          onSimplex(rule.update(state, one));
        });
        if (error?.code === "config")
          expect(error.message).toMatch(
            changed === "name" ? /combinator/ : new RegExp(`${changed}|floor|ceiling|caps`),
          );
      }),
      { numRuns: 150 },
    );
  });
});

/** A copy with copies of the lists and objects in it. */
const copyOf = <T extends object>(options: T): T => structuredClone(options);

/** Changes all numbers in the lists and objects among the options. */
function spoil(options: object): void {
  for (const name of Object.keys(options)) {
    const value: unknown = Reflect.get(options, name);
    if (typeof value === "object" && value !== null)
      for (const key of Object.keys(value)) Reflect.set(value, key, 123);
  }
}

test("options may be changed after the rule was made", () => {
  const given = fc.sample(signal(K), { numRuns: 3, seed: 1 });
  const run = (make: (change: boolean) => Rule, change: boolean): RuleState => {
    const rule = make(change);
    return given.reduce((state, one) => rule.update(state, one), rule.init(names(K)));
  };
  const makers: Readonly<Record<string, (change: boolean) => Rule>> = {
    ...Object.fromEntries(
      Object.entries(validOptions).map(([name, options]) => [
        name,
        (change: boolean) => {
          const own = copyOf<RuleOptions>(options);
          const rule = createRule(own);
          if (change) spoil(own);
          return rule;
        },
      ]),
    ),
    ...Object.fromEntries(
      [
        ...Object.values<CombinatorOptions>(entries),
        { name: "floor", least: [0.1, 0.2, 0.1] } as const,
        { name: "ceiling", most: { domain1: 0.4 } } as const,
      ].map((options) => [
        JSON.stringify(options),
        (change: boolean) => {
          const own = copyOf(options);
          const rule = combine(rules.dga(), [own]);
          if (change) spoil(own);
          return rule;
        },
      ]),
    ),
  };
  for (const [name, make] of Object.entries(makers)) expect(run(make, true), name).toEqual(run(make, false));
});

describe("numbers by domain in something else than a list or a plain object", () => {
  const domains = names(K);
  const [given] = fc.sample(signal(K, { mild: true }), { numRuns: 1, seed: 1 });
  const wrong: readonly (readonly [string, unknown])[] = [
    ["a Float64Array", Float64Array.of(0.5, 0.3, 0.2)],
    ["a Map", new Map(domains.map((name) => [name, 1 / K]))],
    ["a Map", new Map()],
    ["a Set", new Set([0.5, 0.3, 0.2])],
    ["a Promise", Promise.resolve([0.5, 0.3, 0.2])],
    ["a Date", new Date(0)],
  ];
  const perDomain = (options: object): string[] =>
    Object.entries(options).flatMap(([option, value]) =>
      typeof value === "object" && value !== null && option !== "targets" ? [option] : [],
    );
  const ofRules = Object.values(validOptions).flatMap((options) =>
    perDomain(options).map((option): [string, string, (value: unknown) => Rule] => [
      options.name,
      option,
      (value) => createRule({ ...options, [option]: value }),
    ]),
  );
  const ofCombinators = [
    ...Object.values<CombinatorOptions>(entries),
    { name: "floor", least: [0.1, 0.1, 0.1] } as const,
    { name: "ceiling", most: { domain1: 0.4 } } as const,
  ].flatMap((options) =>
    perDomain(options).map((option): [string, string, (value: unknown) => Rule] => [
      options.name,
      option,
      (value) => combine(createRule({ name: "dga" }), [{ ...options, [option]: value }]),
    ]),
  );

  test.each([...ofRules, ...ofCombinators])("are refused by %s: %s", (_, option, make) => {
    for (const [kind, value] of wrong) {
      const error = errorOf(() => {
        const rule = make(value);
        // Some options are read at the first update.
        rule.update(rule.init(domains), given);
      });
      expect(error.code).toBe("config");
      // The limits of a guard are by name only.
      expect(error.message).toContain(option === "limits" ? "limits: " : `${option}: ${kind} does not fit`);
    }
  });

  test("are refused as facts of a run", () => {
    for (const fact of ["sizes", "histogram"])
      for (const [kind, value] of wrong)
        expect(
          errorOf(() => createMixer({ domains, rule: { name: "uniform" }, tokens: 3, [fact]: value }))
            .message,
        ).toContain(`${fact}: ${kind} does not fit`);
  });
});

test("the tables cover every rule and every combinator", () => {
  expect(Object.keys(validOptions)).toEqual([...ruleNames]);
  expect(Object.keys(entries)).toEqual([...combinatorNames]);
});

test("every rule and every combinator is exported under its name", () => {
  expect(Object.keys(rules).sort()).toEqual([...ruleNames].sort());
  expect(Object.keys(combinators).sort()).toEqual([...combinatorNames].sort());
  for (const [name, make] of Object.entries<(options: never) => Rule>(rules))
    expect(make(validOptions[name as RuleName] as never).name).toBe(name);
});

test("invalid lists of combinators and invalid options of a rule are refused", () => {
  for (const none of [null, undefined, "dga", 3, []])
    expect(errorOf(() => createRule(none as unknown as RuleOptions)).code).toBe("config");
  for (const none of [null, "ema", { name: "ema", beta: 0.5 }])
    expect(errorOf(() => combine(rules.dga(), none as unknown as CombinatorOptions[])).code).toBe("config");
  expect(errorOf(() => rules.dga({ name: "doge" } as unknown as { name: "dga" })).message).toContain(
    "dga: name",
  );
});

test("a mixer refuses domains that are not a list of different names", () => {
  for (const domains of [[], ["a", "a"], ["a", 1], "abc", null, { length: 3 }])
    expect(errorOf(() => createMixer({ domains: domains as string[], rule: rules.dga() })).message).toMatch(
      /^(createMixer: )?domains: /,
    );
});

test("a Gram matrix that is not symmetric, or of targets in another order, is refused", () => {
  const rnb = createRule({ name: "rnb" });
  const message = (gram: number[]): string =>
    errorOf(() => rnb.update(rnb.init(["a", "b"]), { gram })).message;
  expect(message([1, 0.5, -0.5, 1])).toMatch(
    /^rnb: gram of domains "a" and "b" is 0.5 and in the transposed entry -0.5;/,
  );
  expect(message([1, NaN, NaN, 1])).toContain('"a" and "b" is NaN');
  // Rounding in single precision is no other matrix.
  expect(() => rnb.update(rnb.init(["a", "b"]), { gram: [1, 0.5, 0.5 + 1e-6, 1] })).not.toThrow();
  const grape = createRule({ name: "grape", targets: [...targetNames], normalise: "raw" });
  const [given] = fc.sample(signal(K, { mild: true }), { numRuns: 1, seed: 1 });
  expect(
    errorOf(() => grape.update(grape.init(names(K)), { targets: given.targets.toReversed() })).message,
  ).toBe('grape: target 1 is "second", not "first"');
});

describe("numbers by name", () => {
  /** Names of every kind: numbers, which objects put first, and those that objects have of their own. */
  const domains = fc
    .uniqueArray(
      fc.oneof(
        fc.nat(200).map(String),
        fc.constantFrom("__proto__", "constructor", "toString", "length", "01", "-1", "web", "हिन्दी", "café"),
        fc.string({ minLength: 1, maxLength: 8 }),
      ),
      { minLength: 2, maxLength: 6 },
    )
    .chain((all) =>
      fc.record({
        all: fc.constant(all),
        order: fc.shuffledSubarray([...all.keys()], { minLength: all.length, maxLength: all.length }),
        weights: simplexPoint(all.length).map((point) => Array.from(point)),
        counts: histogram(all.length),
      }),
    );

  test("give the same as a list in the order of the domains, in any order of the names", () => {
    fc.assert(
      fc.property(domains, ({ all, order, weights, counts }) => {
        const record = (values: readonly number[]): Record<string, number> =>
          Object.fromEntries(order.map((i) => [all[i], values[i]]));
        const sizes = counts.map((count) => count + 1);
        const both = (
          of: (give: (values: readonly number[]) => readonly number[] | Record<string, number>) => Rule,
        ): void => {
          const [byName, inOrder] = [of(record), of((values) => values)].map((rule) => rule.init(all));
          expect(byName).toEqual(inOrder);
          expect(byName.domains).toEqual(all);
        };
        both((give) => createRule({ name: "static", weights: give(weights) }));
        both((give) => createRule({ name: "importanceSampling", histogram: give(counts) }));
        both((give) => createRule({ name: "temperature", sizes: give(sizes) }));
        both((give) => createRule({ name: "ado", sizes: give(sizes) }));
        for (const name of ["dga", "doge", "doremi", "ado"] as const)
          both((give) => createRule({ name, start: give(weights) }));
        both((give) => createRule({ name: "grape", targets: [...targetNames], start: give(weights) }));
        both((give) => createRule({ name: "grape", targets: all, targetWeights: give(weights) }));
        both((give) =>
          combine(createRule({ name: "uniform" }), [
            { name: "repetitionCap", repetitions: 1, sizes: give(sizes), tokens: Math.min(...sizes) },
          ]),
        );
        both((give) =>
          combine(createRule({ name: "uniform" }), [
            { name: "tokenBudget", budgets: give(sizes), tokens: Math.min(...sizes) },
          ]),
        );
        const gram = all.flatMap((_, i) => all.map((__, j) => (i === j ? i + 1 : 0)));
        const [byName, inOrder] = [record(weights), weights].map((target) => {
          const rule = createRule({ name: "rnb", target });
          return rule.update(rule.init(all), { gram }).weights;
        });
        expect(byName).toEqual(inOrder);
      }),
      { numRuns: 100 },
    );
  });

  test("must include every domain, so that none is capped at 0 by mistake", () => {
    const rule = combine(createRule({ name: "uniform" }), [
      { name: "tokenBudget", budgets: { a: 50, b: 60 }, tokens: 100 },
    ]);
    expect(errorOf(() => rule.init(["a", "b", "c"])).message).toBe(
      'tokenBudget: budgets: there is no number for domain "c"; every domain needs one',
    );
  });
});
