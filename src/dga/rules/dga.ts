/**
 * Dynamic Gradient Alignment (Fan, Grangier, Ablin, arXiv 2410.02498, Algorithm 1), and our own form of it, the default.
 *
 * The paper's: α ← α ⊙ exp(+η a), normalised; then what is sampled is the moving average (1 − β)·average + β·α. The sign is +: after a step of size γ
 * on the mixture the target loss changes by −γ Σ αᵢ⟨gᵢ, g_target⟩, so a domain that aligns with the target should gain. `paper()` gives its options.
 *
 * Ours is a mirror step around a prior α₀, such as the histogram of the target: α ← argmax over the simplex of η⟨d, α⟩ − (1 − γ)·KL(α‖α_old) − γ·KL(α‖α₀), in closed form
 * α ∝ α_old^(1−γ) ⊙ α₀^γ ⊙ exp(η d). d are the alignments tracked over updates, in units of the domains' spread beyond their errors (tracking.ts). A domain
 * that stays d spreads above the others ends at α₀·exp(η d/γ) before normalising: the prior decides how far the weights can go, and noise moves nothing. Where sizes
 * are known, no domain is sampled more than `repetitions` times over in expectation.
 */
import { GradmixError } from "../../errors.ts";
import {
  checkOptions,
  checkRange,
  numberIn,
  oneOf,
  type OptionChecks,
  show,
  withDefaults,
} from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import {
  initialState,
  measuredDomains,
  need,
  needErrors,
  remembered,
  type Rule,
  type RuleState,
  type Signal,
  type Step,
} from "../rule.ts";
import {
  exponentiatedGradient,
  liesOnSimplex,
  mixUniform,
  movingAverage,
  projectFloor,
  spreadExcess,
  uniformWeights,
  type Weights,
  within,
} from "../simplex.ts";
import { nothingTracked, standardised, track, type Tracked } from "../tracking.ts";
import { type ByDomain, numbersByDomain, sharesOf, sizesOf, startOf } from "./by-domain.ts";
import { directionOf, type Normalisation, normalisationNeeds, normalisations } from "./normalisation.ts";

/** What d of dga's step is made of. */
export type DgaNormalisation = Normalisation | "tracked";
/** All names that `normalise` of the rule `dga` takes. */
export const dgaNormalisations: readonly DgaNormalisation[] = ["tracked", ...normalisations];

/** Options of the rule `dga`. */
export interface DgaOptions {
  /** Selects this rule. */
  readonly name: "dga";
  /**
   * Step size η ≥ 0 of the mirror step: an update multiplies the ratio of two weights by exp(η·(dᵢ − dⱼ)). Default: `dgaDefaults`. With those that are not tracked it is 1, which is meant for cosines and
   * clipped dots, which lie in [−1, 1], and for tens of updates (docs/rules.md has figures). Raw alignments carry the square of the gradients' scale, which differs
   * between models and falls during training: there η has to be found by trial.
   */
  readonly eta?: number;
  /** β of the moving average of the weights, 0 < β ≤ 1, the weight of the NEW value; 1 is no average. Default 1 with "tracked", which averages before the step; 0.1, the paper's, with the others. */
  readonly beta?: number;
  /** Default "tracked": alignments over many updates, in units of their spread. The others are of the last update alone. */
  readonly normalise?: DgaNormalisation;
  /** γ, 0 ≤ γ ≤ 1: how far an update pulls the logarithms of the weights back to those of the prior. Default: `dgaDefaults`. */
  readonly pull?: number;
  /** α₀: shares or counts, one per domain or by name, such as the histogram of the target. Default: `start`, else uniform. */
  readonly prior?: ByDomain;
  /** Share of the uniform weights that is mixed into the prior, so that every domain can gain, 0 ≤ share ≤ 1. Default 0.01 with a `prior`; without one nothing is mixed in. */
  readonly uniformShare?: number;
  /** ρ with "tracked", 0 ≤ ρ < 1: what earlier updates count, relative to the next. Default: `dgaDefaults`. */
  readonly memory?: number;
  /** How many times the run may go through a domain, in expectation, where `sizes` and `tokens` are known. Default 8 with "tracked", no limit with the others. */
  readonly repetitions?: number;
  /** Tokens of each domain. */
  readonly sizes?: ByDomain;
  /** Training tokens of the whole run. */
  readonly tokens?: number;
  /** No weight falls below this, 0 ≤ floor < 1/k. Default 0. */
  readonly floor?: number;
  /** Where α starts; default the prior. A domain at 0 stays at 0, unless there is a floor. */
  readonly start?: ByDomain;
}

/**
 * What `dga` takes where nothing is said: tracked around a `prior`, which is mostly right and is left slowly; tracked without one, where the weights have to find the target in
 * some tens of steps; and untracked, as in the paper. Meant for an update every 10 steps.
 */
export const dgaDefaults: {
  /** Default of `normalise`. */
  readonly normalise: DgaNormalisation;
  /** Default of `floor`. */
  readonly floor: number;
  /** Share of uniform weights that is mixed into the prior. */
  readonly uniformShare: number;
} & {
  readonly [K in "aroundPrior" | "withoutPrior" | "untracked"]: Readonly<
    Record<"eta" | "beta" | "pull" | "memory" | "repetitions", number>
  >;
} = {
  normalise: "tracked",
  floor: 0,
  uniformShare: 0.01,
  aroundPrior: { eta: 0.1, beta: 1, pull: 0.1, memory: 0.9, repetitions: 8 },
  withoutPrior: { eta: 1, beta: 1, pull: 0.2, memory: 0.8, repetitions: 8 },
  untracked: { eta: 1, beta: 0.1, pull: 0, memory: 0, repetitions: Infinity },
};

/**
 * The options of the paper's algorithm as it is printed: raw alignments (of batches of every domain: `alignment: { from: "batch" }`), β = 0.1, a uniform start, no prior and
 * no limits. The η of raw alignments has to be found by trial. Default 1.
 */
export function paper(options: { readonly eta?: number } = {}): DgaOptions {
  checkOptions("paper", options, { eta: numberIn({ min: 0 }) });
  const { eta = dgaDefaults.untracked.eta } = options;
  return { name: "dga", normalise: "raw", eta, beta: dgaDefaults.untracked.beta };
}

const positive = numberIn({ min: 0, openMin: true });
const share = numberIn({ min: 0, max: 1 });

export const dgaChecks: OptionChecks<DgaOptions> = {
  name: oneOf("dga"),
  eta: numberIn({ min: 0 }),
  beta: numberIn({ min: 0, max: 1, openMin: true }),
  normalise: oneOf(...dgaNormalisations),
  pull: share,
  prior: numbersByDomain,
  uniformShare: share,
  memory: numberIn({ min: 0, max: 1, openMax: true }),
  repetitions: positive,
  sizes: numbersByDomain,
  tokens: positive,
  floor: share,
  start: numbersByDomain,
};

/** Dynamic Gradient Alignment: a mirror step along the alignment of each domain's gradient with the target's. Fan, Grangier and Ablin, arXiv:2410.02498; docs/rules.md says what is ours. Throws `config` for options that are wrong. */
export function dga(options: DgaOptions = { name: "dga" }): Rule {
  checkOptions("dga", options, dgaChecks);
  const { normalise = dgaDefaults.normalise, floor = dgaDefaults.floor } = options;
  const { eta, beta, pull, memory } = withDefaults(defaultsOf(normalise, options), options);
  /** What is sampled of α: within the caps, then not below the floor. */
  const sampled = (alpha: Weights, domains: readonly string[]): Weights => {
    const caps = repetitionCaps(options, domains);
    return projectFloor(caps === null ? alpha : spreadExcess(alpha, caps), floor);
  };
  return {
    name: "dga",
    needs: normalise === "tracked" ? ["alignments", "standardErrors"] : normalisationNeeds(normalise),
    stepsOn: normalise === "adam" ? "preconditionedAlignments" : "alignments",
    init(domains) {
      checkRange("dga: floor", floor, { min: 0, max: 1 / domains.length, openMax: domains.length > 1 });
      const start = options.start === undefined ? priorOf(options, domains) : startOf(options.start, domains);
      const alpha = projectFloor(start, floor);
      const tracked = normalise === "tracked" ? { ...nothingTracked(domains.length) } : {};
      return initialState("dga", domains, sampled(alpha, domains), { alpha, ...tracked });
    },
    update(state, signal, change) {
      const { found, tracked } = alignedBy(normalise, state, signal, memory);
      const step: Step = { eta, ...found };
      const old = remembered("dga", state.memory, "alpha");
      const pulled = pull === 0 ? old : pulledTo(priorOf(options, state.domains), old, pull, step.among);
      // The floor is kept among those that step, so that the others stay; what rounding leaves of it, by all.
      const kept = (part: Weights, total: number): Weights => projectFloor(part, floor / total);
      const alpha = projectFloor(mirrorStep(old, step, change, kept, pulled), floor);
      // An average of floored points respects the floor; only its correction of rounding may not.
      const weights = projectFloor(movingAverage(state.weights, sampled(alpha, state.domains), beta), floor);
      return {
        ...state,
        weights: Array.from(weights),
        updates: state.updates + 1,
        memory: listed({ alpha, ...tracked }),
      };
    },
    memoryFault(saved) {
      if (!liesOnSimplex(remembered("dga", saved, "alpha"))) return "alpha does not lie on the simplex";
      return normalise === "tracked" ? trackedFault(trackedOf(saved)) : null;
    },
  };
}

/** The direction of the step, and what is tracked from here on; null where nothing is. */
function alignedBy(
  normalise: DgaNormalisation,
  state: RuleState,
  signal: Signal,
  memory: number,
): { readonly found: Omit<Step, "eta">; readonly tracked: Tracked | null } {
  if (normalise !== "tracked") return { found: directionOf("dga", state, signal, normalise), tracked: null };
  const tracked = followed(state, signal, memory);
  return { found: trackedDirection(state, signal, tracked), tracked };
}

function defaultsOf(
  normalise: DgaNormalisation,
  { prior }: DgaOptions,
): (typeof dgaDefaults)["aroundPrior" | "withoutPrior" | "untracked"] {
  if (normalise !== "tracked") return dgaDefaults.untracked;
  return prior === undefined ? dgaDefaults.withoutPrior : dgaDefaults.aroundPrior;
}

/** α₀ on the simplex. Throws `config` for what is no distribution over the domains. */
function priorOf({ prior, uniformShare, start }: DgaOptions, domains: readonly string[]): Weights {
  if (prior === undefined) {
    const own = start === undefined ? uniformWeights(domains.length) : startOf(start, domains);
    return mixUniform(own, uniformShare ?? 0);
  }
  const counts = sharesOf(prior, domains, "prior");
  return mixUniform(counts, uniformShare ?? dgaDefaults.uniformShare);
}

/** How many times a run may go through a domain, in expectation; Infinity for no limit. */
export function mostRepetitions(options: DgaOptions): number {
  const { normalise = dgaDefaults.normalise } = options;
  return withDefaults(defaultsOf(normalise, options), options).repetitions;
}

/** What each weight may be at most for the run to stay within `repetitions` of its domain; null where none is limited, or it is not known how many tokens that is. */
export function repetitionCaps(options: DgaOptions, domains: readonly string[]): readonly number[] | null {
  const { sizes, tokens } = options;
  const repetitions = mostRepetitions(options);
  if (sizes === undefined || tokens === undefined || repetitions === Infinity) return null;
  return sizesOf(sizes, domains).map((size) => Math.min(1, repetitions * (size / tokens)));
}

/** α^(1−γ) ⊙ prior^γ, normalised, among the domains that step. What has no weight stays without. */
function pulledTo(
  prior: Weights,
  alpha: readonly number[],
  pull: number,
  among: readonly boolean[] | null,
): Weights {
  // α ⊙ exp(γ·(log α₀ − log α)); where the prior is 0 it is as far away as a weight can be.
  const away = alpha.map((weight, i) =>
    weight > 0 ? Math.log(Math.max(prior[i]!, Number.MIN_VALUE)) - Math.log(weight) : 0,
  );
  return within(alpha, among, (part, _, indices) =>
    exponentiatedGradient(
      part,
      indices.map((i) => away[i]!),
      pull,
    ),
  );
}

/** What is tracked after a signal. Throws like `need` and `needErrors`. */
function followed(state: RuleState, signal: Signal, memory: number): Tracked {
  const alignments = need("dga", state, signal, "alignments");
  const errors = needErrors("dga", state, signal);
  const measured = measuredDomains("dga", state, signal);
  const { tokens } = signal;
  // Where no tokens are told all domains were measured alike.
  const counts = state.domains.map((_, i) => (tokens === undefined ? 1 : tokens[i]!));
  const observed = {
    alignments,
    errors,
    tokens: measured === null ? counts : counts.map((n, i) => (measured[i] ? n : 0)),
  };
  return track(trackedOf(state.memory), observed, memory);
}

/** Examples of a target with which half of what its gradient says is believed: so many are a small sample of it, and the errors of the domains' alignments do not know. */
const FEW_TARGET_EXAMPLES = 100;

/** A domain of which nothing is known yet takes no part; one that was measured before goes on with what is known of it. */
function trackedDirection(
  state: RuleState,
  { targetExamples = Infinity }: Signal,
  tracked: Tracked,
): Omit<Step, "eta"> {
  const known = state.domains.map((_, i) => tracked.tokens[i]! > 0);
  if (typeof targetExamples !== "number" || !(targetExamples > 0))
    throw new GradmixError(
      "numeric",
      `${state.rule}: targetExamples is ${show(targetExamples)}; a target has at least one; the weights stay as they are`,
    );
  const believed = 1 / (1 + FEW_TARGET_EXAMPLES / targetExamples);
  const direction = standardised(tracked).map((d) => believed * d);
  // The errors are in the direction already.
  return { direction, among: known.every(Boolean) ? null : known, errorOf: () => 0 };
}

const listed = (memory: Readonly<Record<string, ArrayLike<number>>>): RuleState["memory"] =>
  Object.fromEntries(Object.entries(memory).map(([name, values]) => [name, Array.from(values)]));

function trackedOf(memory: RuleState["memory"]): Tracked {
  const own = (name: keyof Tracked): Float64Array => Float64Array.from(remembered("dga", memory, name));
  const noise = own("noise");
  return {
    means: own("means"),
    tokens: own("tokens"),
    variances: own("variances"),
    noise: [noise[0]!, noise[1]!],
  };
}

function trackedFault({ tokens, variances, noise }: Tracked): string | null {
  const negative = Object.entries({ tokens, variances, noise }).find(([, values]) =>
    values.some((n) => n < 0),
  );
  return negative === undefined ? null : `${negative[0]} has a number below 0`;
}
