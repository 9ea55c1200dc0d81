/** Every rule of the registry against the invariants of gradmix/testing, and what each refuses. */
import { createRule, type Rule, ruleNames, type RuleName, type RuleOptions } from "gradmix/dga";
import { checkRule, type CheckRuleOptions, type Knobs, names, signal, targetNames } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "./arbitraries.ts";

/** Numbers that belong to names, so that they follow them through any order. */
const byName = (domains: readonly string[]): Record<string, number> =>
  Object.fromEntries(domains.map((name) => [name, Number(name.replace("domain", "")) + 1]));

function shares(domains: readonly string[]): Record<string, number> {
  const values = byName(domains);
  const sum = Object.values(values).reduce((a, b) => a + b, 0);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value / sum]));
}

interface Checked {
  readonly options: (domains: readonly string[], knobs: Knobs) => RuleOptions;
  readonly check: CheckRuleOptions;
  /** Invariants that must have run, beside those that run for every rule. */
  readonly ran: readonly string[];
}

const eta = "η = 0 changes nothing";
const beta = "β weights the new value, and β = 1 is no average";
const splits = "splitting the domains into equal halves keeps their totals";
const monotone = "monotone: raising a domain's number never lowers its weight";
const support = "keeps the support";

/** A line a rule, some with several settings. */
const rules: { readonly [K in RuleName]: readonly Checked[] } = {
  uniform: [{ options: () => ({ name: "uniform" }), check: {}, ran: [] }],
  static: [
    {
      options: (domains) => ({ name: "static", weights: shares(domains) }),
      check: { promises: { splits: false } },
      ran: [],
    },
  ],
  temperature: [
    {
      options: (domains) => ({ name: "temperature", sizes: byName(domains) }),
      check: { promises: { splits: false } },
      ran: [],
    },
  ],
  importanceSampling: [
    {
      options: (domains) => ({ name: "importanceSampling", histogram: byName(domains) }),
      check: { promises: { splits: false } },
      ran: [],
    },
  ],
  dga: (["raw", "clipped", "cosine", "doge", "adam"] as const).map((normalise) => ({
    options: (_, knobs) => ({ name: "dga", normalise, ...knobs }),
    // The scale of "doge" is a mean over the domains, which splitting one of them moves.
    check: {
      knobs: ["eta", "beta", "start"],
      promises: { mirror: normalise === "raw", splitsOne: normalise !== "doge" },
    },
    ran: [eta, beta, splits, monotone, support],
  })),
  doge: [
    {
      options: (_, knobs) => ({ name: "doge", ...knobs }),
      // Twice as many domains make the sum of the gradients twice as long.
      check: { knobs: ["eta", "start"], promises: { splits: false } },
      ran: [eta, support],
    },
    {
      options: (_, knobs) => ({ name: "doge", towards: "target", eta: 0.5, ...knobs }),
      check: { knobs: ["eta", "start"], promises: { splitsOne: false } },
      ran: [eta, support, monotone, splits],
    },
  ],
  grape: [
    {
      options: (_, knobs) => ({ name: "grape", targets: [...targetNames], ...knobs }),
      // A domain that helps one target turns the targets' weights, so its own need not gain.
      check: { knobs: ["eta", "beta", "start"] },
      ran: [eta, beta, splits, support],
    },
    {
      options: (_, knobs) => ({ name: "grape", targets: [...targetNames], normalise: "raw", ...knobs }),
      check: { knobs: ["eta", "beta", "start"] },
      ran: [eta, beta, splits, support],
    },
  ],
  rnb: [
    {
      options: () => ({ name: "rnb", lambda: 3 }),
      // The norm of G q grows with the number of domains.
      check: { promises: { splits: false } },
      ran: [support],
    },
  ],
  doremi: [
    {
      options: (_, knobs) => ({ name: "doremi", ...knobs }),
      check: { knobs: ["eta"], promises: { monotone: ["losses"], unmeasured: "remembers" } },
      ran: [eta, monotone, splits, support],
    },
  ],
  odm: [
    {
      options: () => ({ name: "odm" }),
      // A reward is divided by its weight, which half a domain has half of.
      check: { promises: { monotone: ["losses"], splits: false, unmeasured: "remembers" } },
      ran: [monotone, support],
    },
  ],
  ado: [
    {
      options: () => ({ name: "ado" }),
      // Its floor is a number, not a share of the domain; and every update fits k curves.
      check: { promises: { floor: 0.01, splits: false, unmeasured: "remembers" }, longRun: 300, numRuns: 30 },
      ran: [support],
    },
    {
      options: () => ({ name: "ado", floor: 0, minPoints: 3, policyRate: 1 }),
      // With all of the policy on what falls, a domain that does not fall gets nothing.
      check: {
        promises: { splits: false, keepsSupport: false, unmeasured: "remembers" },
        longRun: 100,
        numRuns: 60,
      },
      ran: [],
    },
  ],
};

/** These hold for every rule, and these for those that move. */
const always = ["stays on the simplex", "its state survives JSON", "one domain has weight 1"];
const moving = [
  "changes no state and none of its signals",
  "refuses what is not finite",
  "permuting the domains permutes the weights",
  "stays on the simplex over a long run",
];

test("the table covers every rule", () => {
  expect(Object.keys(rules)).toEqual([...ruleNames]);
});

const cases = Object.entries(rules).flatMap(([name, settings]) =>
  settings.map((one) => [`${name} ${JSON.stringify(one.options(names(2), {}))}`, name, one] as const),
);

describe.each(cases)("%s", (_, name, { options, check, ran }) => {
  const make = (domains: readonly string[], knobs: Knobs = {}): Rule => createRule(options(domains, knobs));

  test("keeps every invariant that applies", () => {
    const done = checkRule(make, check);
    const moves = make(names(2)).needs.length > 0;
    expect(done).toEqual(expect.arrayContaining([...always, ...(moves ? moving : []), ...ran]));
  });

  test("is called by its name, and refuses an option that it does not have", () => {
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

  test("refuses a signal of another number of domains", () => {
    const rule = make(names(3));
    const state = rule.init(names(3));
    const [given] = fc.sample(signal(4), { numRuns: 1, seed: 5 });
    if (rule.needs.length > 0) expect(errorOf(() => rule.update(state, given)).code).toBe("config");
  });
});
