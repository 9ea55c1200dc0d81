/**
 * GRAPE, group robust multi-target pretraining (Fan, Glarou, Jaggi, arXiv 2505.20380): domain weights α for several targets, whose own weights z move
 * to the targets that improve least.
 *
 *     zₘ ← normalise(z ⊙ exp(−μ·rₘ)), then (1 − c)·z + c/M,  rₘ = Σᵢ αᵢ·a_mi   (the rate of improvement, ⟨∇log ℓₘ, Σ αᵢgᵢ⟩)
 *     αᵢ ← normalise(α ⊙ exp(+η·Σₘ zₘ·a_mi)), with the new z
 *
 * with a_mi = ⟨gᵢ, ∇log ℓₘ⟩ = ⟨gᵢ, ∇ℓₘ⟩/ℓₘ, where every gradient, including that of log ℓₘ, is clipped to norm 1 first (their setting). With one
 * target this is DGA on log ℓ. The order of the two updates, the smoothing c and the numbers are those of the authors' code. That code takes one
 * gradient of text drawn with α (for r) and one of targets drawn with z (for α) and clips those; here the clipped gradients of the parts are summed,
 * so that the same a_mi serve both.
 */
import { GradmixError } from "../../errors.ts";
import {
  checkOptions,
  numberIn,
  oneOf,
  type OptionChecks,
  required,
  show,
  valueThat,
  withDefaults,
} from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import {
  checkDomains,
  initialState,
  measuredDomains,
  need,
  numbers,
  remembered,
  type Rule,
  type RuleState,
  type Signal,
  wantState,
} from "../rule.ts";
import {
  exponentiatedGradient,
  liesOnSimplex,
  mixUniform,
  movingAverage,
  sumOf,
  uniformWeights,
  type Weights,
} from "../simplex.ts";
import { type ByDomain, numbersByDomain, startOf, weightsOf, ownOptions } from "./by-domain.ts";
import { scaled } from "./normalisation.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `grape`. */
export interface GrapeOptions {
  /** Selects this rule. */
  readonly name: "grape";
  /** Names of the targets, in the order of `signal.targets`. At least one. */
  readonly targets: readonly string[];
  /** Step size η ≥ 0 of the domain weights. Default 1.5, as in all configurations of the authors (an update every 100 steps). */
  readonly eta?: number;
  /** Step size μ ≥ 0 of the target weights; 0 keeps them fixed. Default 5, as in most configurations of the authors (10 in the others). */
  readonly mu?: number;
  /** Share c of uniform weights that is mixed into z, 0 ≤ c < 1. Default 1e-3, as in the authors' code. */
  readonly smoothing?: number;
  /** β of the moving average of the domain weights, 0 < β ≤ 1: the weight of the new value. Default 1: no averaging. */
  readonly beta?: number;
  /** How the gradients of ℓᵢ and log ℓₘ are scaled. Default "clipped", as the authors do. */
  readonly normalise?: "raw" | "clipped" | "cosine";
  /** Initial weights z of the targets, one per target or by name. Default uniform. */
  readonly targetWeights?: ByDomain;
  /** Initial domain weights α. Default uniform. */
  readonly start?: ByDomain;
}

/** Limit of a rate, so that sums of rates of tiny losses stay finite. */
const LARGEST_RATE = 1e300;

export const grapeTraits: RuleTraits = { severalTargets: true };

export const grapeChecks: OptionChecks<GrapeOptions> = {
  name: oneOf("grape"),
  targets: required(
    valueThat(
      "a list of at least one target name, without duplicates",
      (names) =>
        Array.isArray(names) &&
        names.length > 0 &&
        names.every((name) => typeof name === "string") &&
        new Set(names).size === names.length,
    ),
  ),
  eta: numberIn({ min: 0 }),
  mu: numberIn({ min: 0 }),
  smoothing: numberIn({ min: 0, max: 1, openMax: true }),
  beta: numberIn({ min: 0, max: 1, openMin: true }),
  normalise: oneOf("raw", "clipped", "cosine"),
  targetWeights: numbersByDomain,
  start: numbersByDomain,
};

/** Defaults of the options of `grape`: the authors' numbers. */
export const grapeDefaults: Required<Pick<GrapeOptions, "eta" | "mu" | "smoothing" | "beta" | "normalise">> =
  {
    eta: 1.5,
    mu: 5,
    smoothing: 1e-3,
    beta: 1,
    normalise: "clipped",
  };

/**
 * Makes the rule GRAPE: domain weights for several targets, whose own weights move to the targets that improve least. Fan, Glarou and Jaggi,
 * arXiv:2505.20380. Throws `config` for invalid options.
 */
export function grape(options: GrapeOptions): Rule {
  checkOptions("grape", options, grapeChecks);
  options = ownOptions(options);
  const { eta, mu, smoothing, beta, normalise } = withDefaults(grapeDefaults, options);
  const targets = [...options.targets];
  const z =
    options.targetWeights === undefined
      ? uniformWeights(targets.length)
      : weightsOf(options.targetWeights, targets, "targetWeights", "target");
  return {
    name: "grape",
    needs: normalise === "raw" ? ["targets"] : ["targets", "norms"],
    stepsOn: "targets",
    targets,
    init(domains) {
      checkDomains(domains);
      const alpha = startOf(options.start, domains);
      return initialState("grape", domains, alpha, { alpha, targets: z });
    },
    update(state, signal, change) {
      wantState("grape", state);
      const old = remembered("grape", state.memory, "alpha");
      const oldTargets = remembered("grape", state.memory, "targets");
      const among = measuredDomains("grape", state, signal);
      const rates = ratesOf(state, signal, targets, normalise);
      const weights = targetStep(oldTargets, rates, old, among, mu, smoothing);
      const direction = Float64Array.from(old, (_, i) => sumOf(rates.map((row, m) => weights[m]! * row[i]!)));
      const alpha = mirrorStep(old, { eta, direction, among }, change);
      return {
        ...state,
        weights: Array.from(movingAverage(state.weights, alpha, beta)),
        updates: state.updates + 1,
        memory: { alpha: Array.from(alpha), targets: Array.from(weights) },
      };
    },
    memoryFault(memory) {
      for (const name of ["alpha", "targets"])
        if (!liesOnSimplex(remembered("grape", memory, name))) return `${name} does not lie on the simplex`;
      return null;
    },
  };
}

/** The new weights of the targets. The rates of improvement are means over the domains that were measured; if none was, z stays. */
function targetStep(
  z: readonly number[],
  rates: readonly Float64Array[],
  alpha: readonly number[],
  among: readonly boolean[] | null,
  mu: number,
  smoothing: number,
): Weights {
  const indices = [...alpha.keys()].filter((i) => among === null || among[i]);
  const total = among === null ? 1 : sumOf(indices.map((i) => alpha[i]!));
  if (mu === 0 || total === 0) return Float64Array.from(z);
  const lag = rates.map((row) => -sumOf(indices.map((i) => (alpha[i]! / total) * row[i]!)));
  return mixUniform(exponentiatedGradient(z, lag, mu), smoothing);
}

/** ⟨gᵢ, ∇log ℓₘ⟩ for every target (outer) and domain (inner), with the gradients scaled by `normalise`; NaN for unmeasured domains. */
function ratesOf(
  state: RuleState,
  signal: Signal,
  names: readonly string[],
  normalise: "raw" | "clipped" | "cosine",
): Float64Array[] {
  const given: unknown = signal.targets;
  if (given === undefined || given === null)
    throw new GradmixError("config", "grape: the signal has no targets");
  if (!Array.isArray(given) || given.length !== names.length)
    throw new GradmixError(
      "config",
      `grape: ${Array.isArray(given) ? given.length : show(given)} targets were measured, not ${names.length}`,
    );
  const measured = measuredDomains("grape", state, signal);
  const norms =
    normalise === "raw" ? new Float64Array(state.domains.length) : need("grape", state, signal, "norms");
  return given.map((target: unknown, m) => {
    const wanted = names[m]!;
    const { name, alignments, norm, loss } = Object(target) as Record<string, unknown>;
    if (name !== wanted)
      throw new GradmixError("config", `grape: target ${m + 1} is ${show(name)}, not "${wanted}"`);
    const what = `alignments with target "${wanted}"`;
    const own = numbers("grape", state, alignments, what, measured, ["targets", wanted, "alignments"]);
    if (
      typeof norm !== "number" ||
      typeof loss !== "number" ||
      !(norm >= 0 && norm < Infinity && loss > 0 && loss < Infinity)
    )
      throw new GradmixError(
        "numeric",
        `grape: target "${wanted}" has a loss of ${show(loss)} and a gradient of norm ${show(norm)}; the weights stay as they are`,
      );
    return own.map((a, i) => {
      if (Number.isNaN(a)) return NaN;
      const rate = scaled(normalise, a / loss, norms[i]!, norm / loss);
      return Math.max(-LARGEST_RATE, Math.min(LARGEST_RATE, rate));
    });
  });
}
