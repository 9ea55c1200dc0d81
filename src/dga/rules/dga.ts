/**
 * Dynamic Gradient Alignment: the rule of the paper (Fan, Grangier, Ablin, arXiv 2410.02498, Algorithm 1), and the form of it that is the default
 * here.
 *
 * The paper's: α ← α ⊙ exp(+η a), normalised; the sampled weights are the moving average (1 − β)·average + β·α. The sign is +: a step of size γ on
 * the mixture changes the target loss by −γ Σ αᵢ⟨gᵢ, g_target⟩, so a domain that aligns with the target should gain. `paper()` returns its options.
 *
 * The default is a mirror step around a prior α₀, such as the histogram of the target: α ← argmax over the simplex of η⟨d, α⟩ − (1 − γ)·KL(α‖α_old) −
 * γ·KL(α‖α₀), in closed form α ∝ α_old^(1−γ) ⊙ α₀^γ ⊙ exp(η d). Here d are the alignments tracked over updates, in units of the domains' spread
 * beyond their errors (tracking.ts). A domain that stays d spreads above the others ends at α₀·exp(η d/γ) before normalising: the prior limits how
 * far the weights can move, and noise does not move them. If the measurements contradict the prior, the step grows by a factor c, and α₀ ← α₀ ⊙
 * exp((c − 1)·η d) corrects the prior (`contradiction`). If sizes are known, no domain is sampled more than `repetitions` times in expectation.
 */
import { GOOD_EPOCHS } from "../../data/epochs.ts";
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
  checkDomains,
  initialState,
  measuredDomains,
  need,
  needErrors,
  remembered,
  type Rule,
  type RuleSchedule,
  type RuleState,
  type Signal,
  type Step,
} from "../rule.ts";
import {
  exponentiatedGradient,
  limitByCaps,
  liesOnSimplex,
  mixUniform,
  movingAverage,
  projectFloor,
  sumOf,
  uniformWeights,
  type Weights,
  within,
} from "../simplex.ts";
import { nothingTracked, standardised, standing, track, type Tracked } from "../tracking.ts";
import { type ByDomain, numbersByDomain, sharesOf, sizesOf, startOf, ownOptions } from "./by-domain.ts";
import { directionOf, type Normalisation, normalisationNeeds, normalisations } from "./normalisation.ts";
import type { RuleTraits } from "./traits.ts";

/** How dga computes the direction d of its step from the alignments. */
export type DgaNormalisation = Normalisation | "tracked";
/** All values of the option `normalise` of the rule `dga`. */
export const dgaNormalisations: readonly DgaNormalisation[] = ["tracked", ...normalisations];

/** Options of the rule `dga`. */
export interface DgaOptions {
  /** Selects this rule. */
  readonly name: "dga";
  /**
   * Step size η ≥ 0 of the mirror step: an update multiplies the ratio of two weights by exp(η·(dᵢ − dⱼ)). Default: `dgaDefaults`. With the
   * normalisations other than "tracked" it is 1, which suits cosines and clipped dots, which lie in [−1, 1], and tens of updates (docs/trials.md has
   * measurements). Raw alignments scale with the square of the gradients, which differ between models and shrink during training, so their η must be
   * found by trial.
   */
  readonly eta?: number;
  /**
   * β of the moving average of the weights, 0 < β ≤ 1: the weight of the NEW value; with 1 there is no averaging. Default 1 with "tracked", which
   * averages before the step, and otherwise 0.1, as in the paper.
   */
  readonly beta?: number;
  /** How alignments are scaled. Default "tracked": averaged over many updates, in units of their spread. All others use the last update alone. */
  readonly normalise?: DgaNormalisation;
  /** γ, 0 ≤ γ ≤ 1: how far an update pulls the logarithms of the weights back to those of the prior. Default: `dgaDefaults`. */
  readonly pull?: number;
  /** The prior α₀: shares or counts, one per domain or by name, such as the histogram of the target. Default: `start`, else uniform. */
  readonly prior?: ByDomain;
  /**
   * How far measurements that contradict the prior may correct it: the largest factor c ≥ 1 by which a step grows while the mixture misses the domains
   * that help. 1 turns the correction off. Default: `dgaDefaults`.
   */
  readonly correction?: number;
  /** Share of the uniform weights that is mixed into the prior, so that every domain can gain, 0 ≤ share ≤ 1. Default 0.01 with a `prior`, otherwise 0. */
  readonly uniformShare?: number;
  /** ρ with "tracked", 0 ≤ ρ < 1: the weight of earlier updates relative to the next one. Default: `dgaDefaults`. */
  readonly memory?: number;
  /**
   * How many times the run may go through a domain, in expectation, if `sizes` and `tokens` are known. Default with "tracked": `usualRepetitions`;
   * otherwise no limit.
   */
  readonly repetitions?: number;
  /** Tokens of each domain, by which `repetitions` limits the weights. */
  readonly sizes?: ByDomain;
  /** Training tokens of the whole run, by which `repetitions` limits the weights. */
  readonly tokens?: number;
  /** Smallest sampled weight of a domain, 0 ≤ floor < 1/k. Default 0. */
  readonly floor?: number;
  /** Initial α. Default: the prior. A domain at 0 stays at 0, unless there is a floor. */
  readonly start?: ByDomain;
}

/**
 * Defaults of the options of `dga`, in three groups: tracked around a `prior`, which is usually close to right and is left slowly; tracked without a
 * prior, where the weights must find the target within some tens of steps; and untracked, as in the paper. They suit an update every 10 steps, and
 * without a prior the intervals in `schedules`.
 */
export const dgaDefaults: {
  /** Default of `normalise`. */
  readonly normalise: DgaNormalisation;
  /** Default of `floor`. */
  readonly floor: number;
  /** Default of `uniformShare` with a `prior`. */
  readonly uniformShare: number;
} & {
  readonly [K in "aroundPrior" | "withoutPrior" | "untracked"]: Readonly<
    Record<"eta" | "beta" | "pull" | "memory" | "correction", number>
  >;
} & {
  /** The two numbers of `usualRepetitions`. */
  readonly repetitions: {
    /** The limit while there is enough text. */
    readonly least: number;
    /** How much it is above the number of times that a run goes through all text, if there is little. */
    readonly beyondEven: number;
  };
  /** The schedules of `dga` with tracking; what they leave out has the usual default. */
  readonly schedules: {
    /** With a prior. */
    readonly aroundPrior: Required<Pick<RuleSchedule, "probes" | "blockShare">>;
    /** Without a prior. */
    readonly withoutPrior: Required<Pick<RuleSchedule, "updateEvery" | "measureEvery">>;
  };
} = {
  normalise: "tracked",
  floor: 0,
  uniformShare: 0.01,
  aroundPrior: { eta: 0.1, beta: 1, pull: 0.1, memory: 0.9, correction: 20 },
  withoutPrior: { eta: 0.5, beta: 1, pull: 0.05, memory: 0.5, correction: 1 },
  untracked: { eta: 1, beta: 0.1, pull: 0, memory: 0, correction: 1 },
  repetitions: { least: GOOD_EPOCHS, beyondEven: 3 },
  schedules: { aroundPrior: { probes: 4, blockShare: 0 }, withoutPrior: { updateEvery: 5, measureEvery: 1 } },
};

/**
 * The default limit on repetitions for domains of `sizes` tokens and a run of `tokens` tokens: three more than if the run used all text equally often,
 * and at least 4 (`GOOD_EPOCHS`): so often the same text is almost as good as new text (Muennighoff and others, arXiv:2305.16264). Where a run
 * must repeat all of its text, the three leave room to choose. Throws `config` unless all sizes and the tokens are finite and positive.
 */
export function usualRepetitions(sizes: readonly number[], tokens: number): number {
  if (!Array.isArray(sizes) || sizes.length === 0)
    throw new GradmixError(
      "config",
      `usualRepetitions: sizes: ${show(sizes)} does not fit; it must be a list of sizes`,
    );
  for (const size of sizes) positive("usualRepetitions: sizes", size);
  positive("usualRepetitions: tokens", tokens);
  const { least, beyondEven } = dgaDefaults.repetitions;
  return Math.max(least, beyondEven + tokens / sumOf(sizes));
}

/**
 * The options of the paper's algorithm as printed: raw alignments (from batches of every domain: `alignment: { from: "batch" }`), β = 0.1, a uniform
 * start, no prior and no limits. `eta` has the default 1, but the η of raw alignments must be found by trial.
 */
export function paper(options: { readonly eta?: number } = {}): DgaOptions {
  checkOptions("paper", options, { eta: numberIn({ min: 0 }) });
  const { eta = dgaDefaults.untracked.eta } = options;
  return { name: "dga", normalise: "raw", eta, beta: dgaDefaults.untracked.beta };
}

const positive = numberIn({ min: 0, openMin: true });
const share = numberIn({ min: 0, max: 1 });

/** Without tracking, this is the paper's rule, which has neither a prior nor caps. */
export function hasPrior(normalise: unknown): boolean {
  return (normalise ?? dgaDefaults.normalise) === "tracked";
}

export const dgaTraits: RuleTraits<DgaOptions> = {
  histogram: { priorWith: hasPrior },
  countsErrors: hasPrior,
  published: () => paper(),
  repetitions: { most: mostRepetitions, caps: repetitionCaps },
};

export const dgaChecks: OptionChecks<DgaOptions> = {
  name: oneOf("dga"),
  eta: numberIn({ min: 0 }),
  beta: numberIn({ min: 0, max: 1, openMin: true }),
  normalise: oneOf(...dgaNormalisations),
  pull: share,
  prior: numbersByDomain,
  correction: numberIn({ min: 1 }),
  uniformShare: share,
  memory: numberIn({ min: 0, max: 1, openMax: true }),
  repetitions: positive,
  sizes: numbersByDomain,
  tokens: positive,
  floor: share,
  start: numbersByDomain,
};

/**
 * Makes the rule of Dynamic Gradient Alignment: a mirror step along the alignment of each domain's gradient with the target's. Fan, Grangier and
 * Ablin, arXiv:2410.02498; docs/rules.md describes the differences. Throws `config` for invalid options.
 */
export function dga(options: DgaOptions = { name: "dga" }): Rule {
  checkOptions("dga", options, dgaChecks);
  options = ownOptions(options);
  const { normalise = dgaDefaults.normalise, floor = dgaDefaults.floor } = options;
  const { eta, beta, pull, memory, correction } = withDefaults(defaultsOf(normalise, options), options);
  const corrects = normalise === "tracked" && correction > 1;
  const { repetitions, sizes, tokens } = options;
  if (repetitions !== undefined && (sizes === undefined || tokens === undefined))
    throw new GradmixError(
      "config",
      "dga: repetitions: a limit needs the tokens of each domain (sizes) and of the run (tokens); give both, or leave out repetitions",
    );
  /** The weights sampled for α: first limited by the caps, then raised to the floor. */
  const sampled = (alpha: Weights, domains: readonly string[]): Weights => {
    const caps = repetitionCaps(options, domains);
    return projectFloor(caps === null ? alpha : limitByCaps(alpha, caps), floor);
  };
  return {
    name: "dga",
    needs: normalise === "tracked" ? ["alignments", "standardErrors"] : normalisationNeeds(normalise),
    stepsOn: normalise === "adam" ? "preconditionedAlignments" : "alignments",
    ...(normalise === "tracked"
      ? { schedule: dgaDefaults.schedules[options.prior === undefined ? "withoutPrior" : "aroundPrior"] }
      : {}),
    init(domains) {
      checkDomains(domains);
      checkRange("dga: floor", floor, { min: 0, max: 1 / domains.length, openMax: domains.length > 1 });
      const start = options.start === undefined ? priorOf(options, domains) : startOf(options.start, domains);
      const alpha = projectFloor(start, floor);
      const tracked = normalise === "tracked" ? { ...nothingTracked(domains.length) } : {};
      const prior = corrects ? { prior: priorOf(options, domains), against: [0] } : {};
      return initialState("dga", domains, sampled(alpha, domains), { alpha, ...tracked, ...prior });
    },
    update(state, signal, change) {
      const { found, tracked } = alignedBy(normalise, state, signal, memory);
      const old = remembered("dga", state.memory, "alpha");
      const against = corrects
        ? contradiction(remembered("dga", state.memory, "against")[0]!, found.direction, old)
        : 0;
      const factor = Math.min(1 + against, correction);
      const step: Step = { eta: factor * eta, ...found };
      const prior = corrects ? remembered("dga", state.memory, "prior") : priorOf(options, state.domains);
      const pulled = pull === 0 ? old : pulledTo(prior, old, pull, step.among);
      // The floor is applied among the domains that step, so that the others stay; a final pass over all domains removes rounding errors.
      // A step that starts near the prior may start below the floor, so that the part's total has no room for it.
      const kept = (part: Weights, total: number): Weights =>
        projectFloor(part, Math.min(floor / total, 1 / part.length));
      const alpha = projectFloor(mirrorStep(old, step, change, kept, pulled), floor);
      // An average of points above the floor stays above it; only the correction of rounding may not.
      const weights = projectFloor(movingAverage(state.weights, sampled(alpha, state.domains), beta), floor);
      return {
        ...state,
        weights: Array.from(weights),
        updates: state.updates + 1,
        memory: listed({
          alpha,
          ...tracked,
          // What the step grew by moves the prior too, so that the weights are not pulled back.
          ...(corrects
            ? { prior: mirrorStep(prior, { ...step, eta: (factor - 1) * eta }, change), against: [against] }
            : {}),
        }),
      };
    },
    memoryFault(saved) {
      for (const name of corrects ? ["alpha", "prior"] : ["alpha"])
        if (!liesOnSimplex(remembered("dga", saved, name))) return `${name} does not lie on the simplex`;
      const against = corrects ? { against: remembered("dga", saved, "against") } : {};
      return normalise === "tracked" ? negativeIn({ ...trackedOf(saved), ...against }) : null;
    },
  };
}

/** How far below the mean of the domains a mixture may stand, in spreads, without contradicting the prior. */
const SLACK = 0.35;

/**
 * What contradicts the prior, summed over updates: how far the mixture stands below the domains' mean, beyond the slack, and at least 0 (a CUSUM; Page
 * 1954). Noise, and swings around a good mixture, cancel out; a mixture that helps less than even weights would, adds up.
 */
const contradiction = (before: number, direction: ArrayLike<number>, alpha: ArrayLike<number>): number =>
  Math.max(0, before - standing(direction, alpha) - SLACK);

/** What contradicts the prior, from the memory of a rule that contains `dga`: S ≥ 0 of docs/rules.md. null if no prior is being corrected. */
export function contradictionIn({ memory }: Pick<RuleState, "memory">): number | null {
  const found = Object.entries(memory).find(([key]) => /(^|\.)against$/.test(key));
  return found?.[1][0] ?? null;
}

/** The direction of the step, and the tracked values after it; null where nothing is tracked. */
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

/** The prior α₀ on the simplex. Throws `config` for an invalid distribution over the domains. */
function priorOf({ prior, uniformShare, start }: DgaOptions, domains: readonly string[]): Weights {
  if (prior === undefined) {
    const own = start === undefined ? uniformWeights(domains.length) : startOf(start, domains);
    return mixUniform(own, uniformShare ?? 0);
  }
  const counts = sharesOf(prior, domains, "prior");
  return mixUniform(counts, uniformShare ?? dgaDefaults.uniformShare);
}

/** How many times a run may go through a domain, in expectation; Infinity if there is no limit, or if it depends on sizes or tokens that are unknown. */
function mostRepetitions(options: DgaOptions, domains: readonly string[]): number {
  const { normalise = dgaDefaults.normalise, repetitions, sizes, tokens } = options;
  if (repetitions !== undefined) return repetitions;
  if (normalise !== "tracked" || sizes === undefined || tokens === undefined) return Infinity;
  return usualRepetitions(sizesOf(sizes, domains), tokens);
}

/**
 * The largest weight of each domain with which the run goes through it at most `repetitions` times; null if no domain is limited, or the sizes or the
 * tokens of the run are unknown.
 */
export function repetitionCaps(options: DgaOptions, domains: readonly string[]): readonly number[] | null {
  const { sizes, tokens } = options;
  const repetitions = mostRepetitions(options, domains);
  if (sizes === undefined || tokens === undefined || repetitions === Infinity) return null;
  return sizesOf(sizes, domains).map((size) => Math.min(1, repetitions * (size / tokens)));
}

/** α^(1−γ) ⊙ prior^γ, normalised, among the domains that step. Weights of 0 stay 0. */
function pulledTo(
  prior: ArrayLike<number>,
  alpha: readonly number[],
  pull: number,
  among: readonly boolean[] | null,
): Weights {
  // α ⊙ exp(γ·(log α₀ − log α)); where the prior is 0, the difference is the largest possible.
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

/** The tracked values after a signal. Throws like `need` and `needErrors`. */
function followed(state: RuleState, signal: Signal, memory: number): Tracked {
  const alignments = need("dga", state, signal, "alignments");
  const errors = needErrors("dga", state, signal);
  const measured = measuredDomains("dga", state, signal);
  const { tokens } = signal;
  // Without token counts, all domains were measured alike.
  const counts = state.domains.map((_, i) => (tokens === undefined ? 1 : tokens[i]!));
  const observed = {
    alignments,
    errors,
    tokens: measured === null ? counts : counts.map((n, i) => (measured[i] ? n : 0)),
  };
  return track(trackedOf(state.memory), observed, memory);
}

/**
 * Number of target examples at which the direction is halved: a small target is itself a noisy sample, and the errors of the domains' alignments do
 * not include this noise.
 */
const FEW_TARGET_EXAMPLES = 100;

/** The direction from the tracked values. A domain that was never measured takes no part; one that was measured before continues with its tracked value. */
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
  // The direction already includes the errors.
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

function negativeIn({
  tokens,
  variances,
  noise,
  against = [],
}: Tracked & { readonly against?: ArrayLike<number> }): string | null {
  const negative = Object.entries({ tokens, variances, noise, against }).find(([, values]) =>
    Array.from(values).some((n) => n < 0),
  );
  return negative === undefined ? null : `${negative[0]} has a number below 0`;
}
