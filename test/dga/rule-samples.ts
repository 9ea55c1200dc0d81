/** Valid options of every rule, and what the rule guarantees. Tests over all rules use them. */
import {
  type Normalisation,
  normalisations,
  type RuleName,
  type RuleOptions,
  type Signal,
} from "gradmix/dga";
import { type CheckRuleOptions, type Knobs, targetNames } from "gradmix/testing";

const ofThree = [0.5, 0.3, 0.2];

/** Valid options of each rule for three domains, with every option that it has. */
export const validOptions: { readonly [N in RuleName]: Required<Extract<RuleOptions, { name: N }>> } = {
  uniform: { name: "uniform" },
  static: { name: "static", weights: ofThree },
  temperature: { name: "temperature", sizes: [1, 2, 3], exponent: 0.5 },
  importanceSampling: { name: "importanceSampling", histogram: [1, 0, 3] },
  dga: {
    ...{ name: "dga", eta: 1, beta: 0.5, normalise: "tracked", floor: 0.01, start: ofThree },
    ...{ pull: 0.1, prior: [1, 0, 3], correction: 3, uniformShare: 0.1, memory: 0.8 },
    ...{ repetitions: 4, sizes: [20, 20, 20], tokens: 100 },
  },
  doge: { name: "doge", towards: "target", own: false, eta: 0.5, smoothing: 0.1, start: ofThree },
  grape: {
    name: "grape",
    targets: targetNames,
    eta: 1,
    mu: 1,
    smoothing: 0.01,
    beta: 0.5,
    normalise: "cosine",
    targetWeights: [0.5, 0.5],
    start: ofThree,
  },
  rnb: { name: "rnb", target: ofThree, lambda: 2 },
  doremi: { name: "doremi", eta: 1, smoothing: 0.1, start: ofThree },
  odm: { name: "odm", decay: 0.5 },
  ado: {
    name: "ado",
    sizes: [1, 2, 3],
    start: ofThree,
    creditRate: 0.1,
    policyRate: 0.1,
    creditExponent: 0.5,
    floor: 0.01,
    minPoints: 3,
  },
};

/** Numbers by name, so that they follow the names through any order. */
const byName = (domains: readonly string[]): Record<string, number> =>
  Object.fromEntries(domains.map((name) => [name, Number(name.replace("domain", "")) + 1]));

function shares(domains: readonly string[]): Record<string, number> {
  const values = byName(domains);
  const sum = Object.values(values).reduce((a, b) => a + b, 0);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value / sum]));
}

export interface Checked {
  readonly options: (domains: readonly string[], knobs: Knobs) => RuleOptions;
  readonly check: CheckRuleOptions;
  /** Invariants that must run for this rule in addition to those that run for every rule. */
  readonly ran: readonly string[];
}

const eta = "η = 0 changes nothing";
const beta = "β weights the new value, and β = 1 is no average";
const splits = "splitting the domains into equal halves keeps their totals";
const monotone = "monotone: raising a domain's number never lowers its weight";
const support = "keeps the support";
const keeps = "a domain that was not measured keeps its weight";
const schedule = "a schedule of η is a smaller η";
const shrinks = "shrinkage with errors of 0 changes nothing, and with huge errors the weights stay";
const mirror = [
  "mirror descent: the update is the argmin of −η⟨a, α⟩ + KL(α‖old)",
  "closed form: after any updates in any order the weights are α₀ ⊙ exp(η·Σa), normalised",
  "telescoping: the potentials of the steps add up to the potential of their sum",
  "regret: Σ⟨αₜ, aₜ⟩ ≥ Σ aₜᵢ − ln(1/α₀ᵢ)/η − (η/8)·Σ rangeₜ² for every domain i",
];

/** DoGE's scores: alignments divided by the mean norm, clamped to [0, 5]. */
const clamped = (scores: readonly number[], norms: readonly number[]): number[] => {
  const mean = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
  return scores.map((score) => (mean === 0 ? 0 : Math.min(5, Math.max(0, score / mean))));
};

const cosines = (alignments: readonly number[], norms: readonly number[], target: number): number[] =>
  alignments.map((a, i) =>
    norms[i] === 0 || target === 0 ? 0 : Math.min(1, Math.max(-1, a / (norms[i] * target))),
  );

const of = (values: ArrayLike<number> = []): number[] => Array.from(values);

/** The directions of the rules by their definitions. */
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
 * Guarantees that a tracked dga cannot give. Its unit is the spread of all domains beyond their errors, with one degree of freedom less than there are domains. So a
 * rise of one domain's alignment makes the unit larger, and may lower its weight relative to another; splitting domains changes their number; and no step is a mirror
 * step on the signal alone. A shift of all alignments changes nothing except rounding relative to the shift, which matters if the differences are smaller (tracking.test.ts).
 */
const trackedPromises = {
  monotone: [],
  splits: false,
  splitsOne: false,
  shiftInvariant: false,
  unmeasured: "remembers",
} as const;

/** The guarantees of each rule, for some rules with several settings. */
export const promised: { readonly [K in RuleName]: readonly Checked[] } = {
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
      // The scale of "doge" is a mean over the domains, so splitting one of them changes it.
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
      // With η = 0 the weights still move from their start to the prior.
      check: { knobs: ["eta", "beta"], promises: trackedPromises },
      ran: [eta, beta, support, keeps, schedule, shrinks],
    },
  ],
  doge: [
    {
      options: (_, knobs) => ({ name: "doge", ...knobs }),
      // With twice as many domains, the sum of the gradients is twice as long.
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
      // A domain that helps one target changes the weights of the targets, so its own weight need not rise.
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
      // A reward is divided by the weight of its domain, and half a domain has half the weight.
      check: { promises: { monotone: ["losses"], splits: false, unmeasured: "remembers" } },
      ran: [monotone, support, keeps],
    },
  ],
  ado: [
    {
      options: () => ({ name: "ado" }),
      // The floor is a number, not a share of the domain; and every update fits k curves.
      check: { promises: { floor: 0.01, splits: false, unmeasured: "remembers" }, longRun: 300, numRuns: 30 },
      ran: [support],
    },
    {
      options: () => ({ name: "ado", floor: 0, minPoints: 3, policyRate: 1 }),
      // If the policy depends only on falling losses, a domain whose loss does not fall gets nothing.
      check: {
        promises: { splits: false, keepsSupport: false, unmeasured: "remembers" },
        longRun: 100,
        numRuns: 60,
      },
      ran: [keeps],
    },
  ],
};
