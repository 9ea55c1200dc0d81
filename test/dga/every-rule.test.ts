/** Every rule of the registry keeps the invariants of gradmix/testing, and its refusals. */
import {
  combinatorNames,
  type CombinatorOptions,
  combine,
  createRule,
  type Rule,
  type RuleName,
  ruleNames,
  type RuleOptions,
} from "gradmix/dga";
import { checkRule, type CheckRuleOptions, type Knobs, names, signal } from "gradmix/testing";
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  mostRepetitionsOf,
  repetitionCapsOf,
  ruleHas,
  rulesWith,
  ruleTraits,
} from "#dist/dga/rules/index.js";
import { errorOf } from "../errors.ts";
import { promised } from "./rule-samples.ts";

/** These hold for every rule, and these for those that move. */
const always = ["stays on the simplex", "its state survives JSON", "one domain has weight 1"];
const moving = [
  "changes no state and none of its signals",
  "refuses what is not finite",
  "permuting the domains permutes the weights",
  "stays on the simplex over a long run",
  "the numbers of a domain that was not measured are ignored",
];

test("the table covers every rule", () => {
  expect(Object.keys(promised)).toEqual([...ruleNames]);
});

const cases = Object.entries(promised).flatMap(([name, settings]) =>
  settings.map((one) => [`${name} ${JSON.stringify(one.options(names(2), {}))}`, name, one] as const),
);

describe.each(cases)("%s", (_, name, { options, check, ran }) => {
  const make = (domains: readonly string[], knobs: Knobs = {}): Rule => createRule(options(domains, knobs));

  test("keeps every invariant that applies", () => {
    const done = checkRule(make, check);
    const moves = make(names(2)).needs.length > 0;
    expect(done).toEqual(expect.arrayContaining([...always, ...(moves ? moving : []), ...ran]));
  });

  test("has its own name, and refuses unknown options", () => {
    expect(make(names(3)).name).toBe(name);
    const bad = { ...options(names(3), {}), ["zzzzzz"]: 1 } as unknown as RuleOptions;
    const error = errorOf(() => createRule(bad));
    expect(error.code).toBe("config");
    expect(error.message).toContain(`${name}: there is no option "zzzzzz"`);
  });

  test("refuses a signal without what it needs", () => {
    fc.assert(
      fc.property(signal(3), (given) => {
        const rule = make(names(3));
        const state = rule.init(names(3));
        for (const missing of rule.needs) {
          const { [missing as keyof typeof given]: _left, ...rest } = given;
          const error = errorOf(() => rule.update(state, rest));
          expect(error.code).toBe("config");
          expect(error.message).toContain(missing);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("refuses a signal with another number of domains", () => {
    const rule = make(names(3));
    const state = rule.init(names(3));
    const [given] = fc.sample(signal(4), { numRuns: 1, seed: 5 });
    if (rule.needs.length > 0) expect(errorOf(() => rule.update(state, given)).code).toBe("config");
  });
});

/** Every combinator by its options, and what it takes from the promises of the rule inside. */
const combinators: {
  readonly [K in CombinatorOptions["name"]]: {
    readonly options: (domains: readonly string[]) => CombinatorOptions;
    readonly promises: NonNullable<CheckRuleOptions["promises"]>;
    /** Is it refused around this rule? */
    readonly refused?: (rule: Rule) => boolean;
  };
} = {
  ema: { options: () => ({ name: "ema", beta: 0.5 }), promises: { unmeasured: "remembers", mirror: false } },
  floor: { options: () => ({ name: "floor", least: 0.05 }), promises: { floor: 0.05, mirror: false } },
  ceiling: { options: () => ({ name: "ceiling", most: 0.8 }), promises: { ceiling: 0.8, mirror: false } },
  tokenBudget: {
    options: (domains) => ({
      name: "tokenBudget",
      budgets: Object.fromEntries(domains.map((name) => [name, 80])),
      tokens: 100,
    }),
    promises: { ceiling: 0.8, mirror: false },
  },
  repetitionCap: {
    options: (domains) => ({
      name: "repetitionCap",
      sizes: Object.fromEntries(domains.map((name) => [name, 20])),
      repetitions: 4,
      tokens: 100,
    }),
    promises: { ceiling: 0.8, mirror: false },
  },
  warmup: { options: () => ({ name: "warmup", updates: 2 }), promises: { mirror: false } },
  etaSchedule: {
    options: () => ({ name: "etaSchedule", decay: "cosine", updates: 4, final: 0.1 }),
    promises: { mirror: false },
    refused: ({ needs, stepsOn }) => needs.length > 0 && stepsOn === undefined,
  },
  shrinkage: {
    options: () => ({ name: "shrinkage" }),
    // Alignments that are shrunk towards their mean depend on all domains, so a rise of one changes the others.
    promises: { mirror: false, monotone: [], shiftInvariant: false, splits: false, splitsOne: false },
    refused: ({ needs, stepsOn }) =>
      needs.length > 0 && stepsOn !== "alignments" && stepsOn !== "preconditionedAlignments",
  },
  guard: {
    options: () => ({ name: "guard", limits: { "*": 1.02 } }),
    // A domain in danger gets weight whatever the rule makes of its other numbers.
    promises: { mirror: false, keepsSupport: false, monotone: [], unmeasured: "moves" },
  },
};

test("the table covers every combinator", () => {
  expect(Object.keys(combinators)).toEqual([...combinatorNames]);
});

const pairs = cases.flatMap(([what, , rule]) =>
  Object.entries(combinators).map(([name, combinator]) => [name, what, rule, combinator] as const),
);

/** Combinators around which the weights of a rule are still its moving average, so that β has its effect. The others change the weights. */
const changesSteps: ReadonlySet<string> = new Set(["warmup", "etaSchedule", "shrinkage"]);

test.each(pairs)(
  "%s around %s keeps every invariant",
  (name, _, { options, check }, { options: around, promises, refused }) => {
    const inner = (domains: readonly string[], knobs: Knobs = {}): Rule =>
      createRule(options(domains, knobs));
    const make = (domains: readonly string[], knobs: Knobs = {}): Rule =>
      combine(inner(domains, knobs), [around(domains)]);
    if (refused?.(inner(names(2))) === true) {
      expect(errorOf(() => make(names(2))).code).toBe("config");
      return;
    }
    const done = checkRule(make, {
      ...check,
      promises: { ...check.promises, equivariant: false, splits: false, splitsOne: false, ...promises },
      domains: { least: 2, most: 4 },
      knobs: (check.knobs ?? []).filter(
        (knob) => (knob === "eta" && name !== "guard") || (knob === "beta" && changesSteps.has(name)),
      ),
      numRuns: 15,
      longRun: 30,
    });
    expect(done).toContain("stays on the simplex");
  },
);

describe("traits", () => {
  const made = (name: RuleName): Rule => createRule(promised[name][0].options(names(2), {}));

  test.each(ruleNames)("declared for %s are those of the rule that is made", (name) => {
    const traits = ruleTraits(name);
    const { needs } = made(name);
    expect(traits.fixed === true).toBe(needs.length === 0);
    expect(traits.severalTargets === true).toBe(needs.includes("targets"));
    expect(traits.referenceModel === true).toBe(needs.includes("referenceLosses"));
    // A required option has no default, and the error names it.
    const alone = { name } as RuleOptions;
    for (const [option, needed] of [
      ["weights", traits.needsWeights === true],
      ["histogram", traits.histogram === "needed"],
      ["targets", traits.severalTargets === true],
    ] as const)
      if (needed) expect(errorOf(() => createRule(alone)).message).toMatch(`${name}: ${option} is missing`);
    if (traits.published !== undefined)
      expect(() => createRule({ ...alone, ...traits.published?.() } as RuleOptions)).not.toThrow();
    expect(rulesWith("fixed").includes(name)).toBe(needs.length === 0);
  });

  test("a rule that limits repetitions declares the limit, and the others declare none", () => {
    for (const name of ruleNames) {
      const options = ruleHas(name, "repetitions") ? { sizes: [1, 2, 3], tokens: 60 } : {};
      const limits = promised[name].map((one) =>
        mostRepetitionsOf({ ...one.options(names(3), {}), ...options }, names(3)),
      );
      expect(limits.some(Number.isFinite)).toBe(ruleHas(name, "repetitions"));
    }
    const sizes = { a: 10, b: 30 };
    const caps = repetitionCapsOf({ name: "dga", sizes, tokens: 80, repetitions: 3 }, ["a", "b"]);
    // 3·10/80; the other may be more than all.
    expect(caps?.[0]).toBe(0.375);
    expect(repetitionCapsOf({ name: "uniform" }, ["a", "b"])).toBeNull();
  });

  test("no file outside of the rules compares with the name of a rule", () => {
    const special = ruleNames.filter((name) => name !== "uniform").join("|");
    const compares = new RegExp(`[=!]== "(?:${special})"|(?:includes|case).{0,3}"(?:${special})"`);
    const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter(
      (file) => file.endsWith(".ts") && !file.startsWith("dga/rules"),
    );
    expect(files.length).toBeGreaterThan(100);
    expect(files.filter((file) => compares.test(readFileSync(`src/${file}`, "utf8")))).toEqual([]);
  });
});
