/** Every rule of the registry against the invariants of gradmix/testing, and what each refuses. */
import {
  combinatorNames,
  type CombinatorOptions,
  combine,
  createRule,
  type Normalisation,
  normalisations,
  type Rule,
  ruleNames,
  type RuleName,
  type RuleOptions,
  type Signal,
} from "gradmix/dga";
import { checkRule, type CheckRuleOptions, type Knobs, names, signal, targetNames } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";

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
const keeps = "a domain that was not measured keeps its weight";
const schedule = "a schedule of η is a smaller η";
const shrinks = "shrinkage with errors of 0 changes nothing, and with huge errors the rule rests";
const mirror = [
  "mirror descent: the update is the argmin of −η⟨a, α⟩ + KL(α‖old)",
  "closed form: after any updates in any order the weights are α₀ ⊙ exp(η·Σa), normalised",
  "telescoping: the potentials of the steps add up to the potential of their sum",
  "regret: Σ⟨αₜ, aₜ⟩ ≥ Σ aₜᵢ − ln(1/α₀ᵢ)/η − (η/8)·Σ rangeₜ² for every domain i",
];

/** DoGE's scores: over the mean norm, between 0 and 5. */
const clamped = (scores: readonly number[], norms: readonly number[]): number[] => {
  const mean = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
  return scores.map((score) => (mean === 0 ? 0 : Math.min(5, Math.max(0, score / mean))));
};

const cosines = (alignments: readonly number[], norms: readonly number[], target: number): number[] =>
  alignments.map((a, i) =>
    norms[i] === 0 || target === 0 ? 0 : Math.min(1, Math.max(-1, a / (norms[i] * target))),
  );

const of = (values: ArrayLike<number> = []): number[] => Array.from(values);

/** The directions by their definitions, written out. */
const directions: { readonly [K in Normalisation]: (given: Signal) => number[] } = {
  raw: ({ alignments }) => of(alignments),
  clipped: ({ alignments, norms = [], targetNorm = 0 }) =>
    of(alignments).map((a, i) => a * Math.min(1, 1 / norms[i]) * Math.min(1, 1 / targetNorm)),
  cosine: ({ alignments, norms, targetNorm = 0 }) => cosines(of(alignments), of(norms), targetNorm),
  doge: ({ alignments, norms }) => clamped(of(alignments), of(norms)),
  adam: ({ preconditionedAlignments, norms, preconditionedTargetNorm = 0 }) =>
    cosines(of(preconditionedAlignments), of(norms), preconditionedTargetNorm),
};

/**
 * What a tracked dga cannot promise, since its unit is the spread of all domains beyond their errors, with one degree of freedom less than domains: one domain's rise
 * makes the unit larger, and may leave it behind another; half domains are more domains; and no step is a mirror step on the signal alone. A shift of all alignments changes nothing
 * up to rounding relative to the shift, which makes a difference of differences that are smaller still (tracking.test.ts).
 */
const trackedPromises = {
  monotone: [],
  splits: false,
  splitsOne: false,
  shiftInvariant: false,
  unmeasured: "remembers",
} as const;

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
  dga: [
    ...normalisations.map((normalise): Checked => ({
      options: (_, knobs) => ({ name: "dga", normalise, ...knobs }),
      // The scale of "doge" is a mean over the domains, which splitting one of them moves.
      check: {
        knobs: ["eta", "beta", "start"],
        promises: { mirror: true, splitsOne: normalise !== "doge" },
        direction: directions[normalise],
      },
      ran: [eta, beta, splits, monotone, support, keeps, ...mirror, schedule, shrinks],
    })),
    {
      options: (_, knobs) => ({ name: "dga", normalise: "tracked", ...knobs }),
      check: { knobs: ["eta", "beta", "start"], promises: trackedPromises },
      ran: [eta, beta, support, keeps, schedule, shrinks],
    },
    {
      options: (domains, knobs) => ({ name: "dga", prior: byName(domains), ...knobs }),
      // With η = 0 weights still go from where they start to the prior.
      check: { knobs: ["eta", "beta"], promises: trackedPromises },
      ran: [eta, beta, support, keeps, schedule, shrinks],
    },
  ],
  doge: [
    {
      options: (_, knobs) => ({ name: "doge", ...knobs }),
      // Twice as many domains make the sum of the gradients twice as long.
      check: {
        knobs: ["eta", "start"],
        promises: { splits: false, mirror: true },
        direction: ({ gram = [] }) => {
          const k = Math.sqrt(gram.length);
          const of = (i: number, j: number): number => gram[i * k + j];
          const all = [...Array(k).keys()];
          const norms = all.map((i) => Math.sqrt(of(i, i)));
          return clamped(
            all.map((i) => all.reduce((sum, j) => sum + of(i, j), 0)),
            norms,
          );
        },
      },
      ran: [eta, support, keeps, ...mirror, schedule],
    },
    {
      options: (_, knobs) => ({ name: "doge", towards: "target", eta: 0.5, ...knobs }),
      check: {
        knobs: ["eta", "start"],
        promises: { splitsOne: false, mirror: true },
        direction: directions.doge,
      },
      ran: [eta, support, monotone, splits, keeps, ...mirror, schedule, shrinks],
    },
  ],
  grape: [
    {
      options: (_, knobs) => ({ name: "grape", targets: [...targetNames], ...knobs }),
      // A domain that helps one target turns the targets' weights, so its own need not gain.
      check: { knobs: ["eta", "beta", "start"] },
      ran: [eta, beta, splits, support, keeps, schedule],
    },
    {
      options: (_, knobs) => ({ name: "grape", targets: [...targetNames], normalise: "raw", ...knobs }),
      check: { knobs: ["eta", "beta", "start"] },
      ran: [eta, beta, splits, support, keeps, schedule],
    },
  ],
  rnb: [
    {
      options: () => ({ name: "rnb", lambda: 3 }),
      // The norm of G q grows with the number of domains.
      check: { promises: { splits: false } },
      ran: [support, keeps],
    },
  ],
  doremi: [
    {
      options: (_, knobs) => ({ name: "doremi", ...knobs }),
      check: { knobs: ["eta"], promises: { monotone: ["losses"], unmeasured: "remembers" } },
      ran: [eta, monotone, splits, support, keeps, schedule],
    },
  ],
  odm: [
    {
      options: () => ({ name: "odm" }),
      // A reward is divided by its weight, which half a domain has half of.
      check: { promises: { monotone: ["losses"], splits: false, unmeasured: "remembers" } },
      ran: [monotone, support, keeps],
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
      ran: [keeps],
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
  "what stands in the place of a domain that was not measured changes nothing",
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
    // What is shrunk towards the mean of all depends on all: one domain's rise moves the others.
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

/** What is around a rule's average of its weights leaves it an average. */
const changesSteps: ReadonlySet<string> = new Set(["warmup", "etaSchedule", "shrinkage"]);

test.each(pairs)("%s around %s", (name, _, { options, check }, { options: around, promises, refused }) => {
  const inner = (domains: readonly string[], knobs: Knobs = {}): Rule => createRule(options(domains, knobs));
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
});
