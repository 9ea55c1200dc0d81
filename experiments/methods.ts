/** The methods that are compared, by the names that they have in tables. */
import type { Method } from "./cell.ts";

/** Raised when the library's default changes. */
const revision = 8;
/** The revision of the rule itself, without the selection of windows. */
const ruleRevision = 7;
/** Raised when the default without a histogram changes. */
const revisionWithoutPrior = 6;
/** Raised when the combinator `repetitionCap` changes. */
const capRevision = 1;

/** The default's rule on all text of the domains (`--select 1`): the default before revision 8. */
export const ALL_TEXT: Method = {
  rule: { name: "dga", prior: "histogram", sizes: "sizes", tokens: "tokens" },
  revision: ruleRevision,
};

/** The library's default. Raise `revision` when it changes, so that results of the former default are not used for it. */
export const DEFAULT: Method = { ...ALL_TEXT, select: true, revision };

/** The default on all text, with the gradients of all parameters aligned, not only those of the head: the default before revision 7. */
export const ALL_ALIGNED: Method = { ...ALL_TEXT, alignment: { blockShare: 1 } };

/** The paper's algorithm as it is printed there: raw inner products, a batch of every domain, an average with β = 0.1, from uniform weights. Of the values of η that were tried ("sensitivity"), 10 and 30 are the best. */
const paper = { eta: 10, beta: 0.1, updateEvery: 10 };

/** Returns the paper's algorithm with other constants. */
export function paperWith(constants: Partial<typeof paper>): Method {
  const { eta, beta, updateEvery } = { ...paper, ...constants };
  return {
    rule: { name: "dga", normalise: "raw", eta, beta },
    alignment: { from: "batch", targetExamples: 16 },
    updateEvery,
  };
}

/** Returns the default on all text with other options of its rule, or with another `updateEvery`. */
export function defaultWith({ updateEvery, ...own }: Readonly<Record<string, number>>): Method {
  return {
    ...ALL_TEXT,
    rule: { ...ALL_TEXT.rule, ...own },
    // As many examples of the target as by default, however often it updates.
    ...(updateEvery === undefined ? {} : { updateEvery, alignment: { targetExamples: 8 } }),
  };
}

/** The default on all text without probes: domains that the steps hardly draw are hardly measured. */
export const WITHOUT_PROBES: Method = { ...ALL_TEXT, alignment: { probes: 0 } };

/** The default without a histogram (`--prior uniform`). */
export const WITHOUT_PRIOR: Method = {
  select: true,
  rule: { name: "dga", sizes: "sizes", tokens: "tokens" },
  revision: revisionWithoutPrior,
};

/** The default before revision 2: cosines of batches of every domain, from uniform weights. */
export const FORMER: Method = {
  rule: { name: "dga", normalise: "cosine", eta: 1, beta: 0.1 },
  alignment: { from: "batch", targetExamples: 16 },
};

/** Importance sampling with a histogram that counts: each window of the target counts for the domain whose smoothed bigram model gives it the highest likelihood. */
export const COUNTED: Method = { rule: { name: "importanceSampling", histogram: "counts" } };

const importanceSampling: Method = { rule: { name: "importanceSampling", histogram: "histogram" } };

export const methods = {
  uniform: { rule: { name: "uniform" } },
  proportional: { rule: { name: "temperature", exponent: 1, sizes: "sizes" } },
  "importance sampling": importanceSampling,
  "importance sampling, limit 8": {
    ...importanceSampling,
    combinators: [{ name: "repetitionCap", repetitions: 8 }],
    revision: capRevision,
  },
  "importance sampling, default limit": {
    ...importanceSampling,
    usualCap: true,
    revision: capRevision,
  },
  "importance sampling, selected text": {
    ...importanceSampling,
    usualCap: true,
    select: true,
    revision: capRevision,
  },
  "DGA, all text": ALL_TEXT,
  "DGA (default)": DEFAULT,
  "DGA (paper)": paperWith({}),
  "DGA (paper), no average": paperWith({ beta: 1 }),
  // The authors' η of 0.01 is for an update in every step. With an update every 10 steps, an η ten times as large moves the weights as far.
  DoGE: { rule: { name: "doge", towards: "target", eta: 0.1 }, updateEvery: 10 },
  "GRAPE, one target": { rule: { name: "grape", targets: ["target"] }, updateEvery: 10 },
  "R&B": { rule: { name: "rnb", target: "histogram" }, updateEvery: 10 },
  ODM: { rule: { name: "odm" }, updateEvery: 10 },
} satisfies Record<string, Method>;

export type MethodName = keyof typeof methods;
