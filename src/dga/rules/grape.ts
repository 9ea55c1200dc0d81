/**
 * GRAPE, group robust multi-target pretraining (Fan, Glarou, Jaggi, arXiv 2505.20380): domain weights α for several targets, whose own weights z
 * move to the targets that improve least.
 *
 *     zₘ ← normalise(z ⊙ exp(−μ·rₘ)), then (1 − c)·z + c/M,  rₘ = Σᵢ αᵢ·a_mi   (the rate of improvement, ⟨∇log ℓₘ, Σ αᵢgᵢ⟩)
 *     αᵢ ← normalise(α ⊙ exp(+η·Σₘ zₘ·a_mi)), with the new z
 *
 * with a_mi = ⟨gᵢ, ∇log ℓₘ⟩ = ⟨gᵢ, ∇ℓₘ⟩/ℓₘ, and every gradient, of log ℓₘ too, clipped to norm 1 first (their setting). One target is DGA on
 * log ℓ. The order of the two updates, the smoothing c and the numbers are the authors' code's. That code takes one gradient of text drawn
 * with α (for r) and one of targets drawn with z (for α) and clips those; here the clipped gradients of the parts are summed, so that the
 * same a_mi serve both.
 */
import { GradmixError } from "../../errors.ts";
import { checkRange, show } from "../../options.ts";
import { checkOptionNames, need, type Rule, type RuleState, type Signal } from "../rule.ts";
import { checkSimplex, exponentiatedGradient, mixUniform, movingAverage, sumOf } from "../simplex.ts";
import { byDomain, startOf } from "./by-domain.ts";
import { checkNormalisation, scaled } from "./normalisation.ts";

export interface GrapeOptions {
  readonly name: "grape";
  /** Names of the targets, in the order of `signal.targets`. At least one. */
  readonly targets: readonly string[];
  /** η ≥ 0 of the domain weights. Default 1.5, as in all of the authors' configurations (an update every 100 steps). */
  readonly eta?: number;
  /** μ ≥ 0 of the target weights; 0 keeps them fixed. Default 5, as in most of them (10 in the others). */
  readonly mu?: number;
  /** c, the share of uniform weights that is mixed into z, 0 ≤ c < 1. Default 1e-3, their code's. */
  readonly smoothing?: number;
  /** β of the moving average of the domain weights, the weight of the new value. Default 1: none. */
  readonly beta?: number;
  /** Of the gradients of ℓᵢ and log ℓₘ. Default "clipped", the authors'. */
  readonly normalise?: "raw" | "clipped" | "cosine";
  /** Where z starts, by target; default uniform. */
  readonly targetWeights?: readonly number[] | Readonly<Record<string, number>>;
  /** Where α starts, by domain; default uniform. */
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
}

/** Sums of rates of tiny losses stay finite. */
const LARGEST_RATE = 1e300;

export function grape(options: GrapeOptions): Rule {
  checkOptionNames("grape", options, [
    "targets",
    "eta",
    "mu",
    "smoothing",
    "beta",
    "normalise",
    "targetWeights",
    "start",
  ]);
  const { eta = 1.5, mu = 5, smoothing = 1e-3, beta = 1, normalise = "clipped" } = options;
  const targets = targetNames(options.targets);
  const twice = targets.find((name, m) => targets.indexOf(name) < m);
  if (twice !== undefined) throw new GradmixError("config", `targets: two are called "${twice}"`);
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("mu", mu, { min: 0, max: Infinity, openMax: true });
  checkRange("smoothing", smoothing, { min: 0, max: 1, openMax: true });
  checkRange("beta", beta, { min: 0, max: 1, openMin: true });
  checkNormalisation(normalise, ["raw", "clipped", "cosine"]);
  const z =
    options.targetWeights === undefined
      ? startOf(undefined, targets)
      : checkSimplex(byDomain(options.targetWeights, targets, "targetWeights"), targets, "targetWeights");
  return {
    name: "grape",
    needs: normalise === "raw" ? ["targets"] : ["targets", "norms"],
    init(domains) {
      const alpha = Array.from(startOf(options.start, domains));
      return {
        rule: "grape",
        domains: [...domains],
        weights: alpha,
        updates: 0,
        memory: { alpha, targets: Array.from(z) },
      };
    },
    update(state, signal) {
      const { alpha: old, targets: oldTargets } = state.memory;
      const rates = ratesOf(state, signal, targets, normalise);
      const lag = rates.map((row) => -sumOf(row.map((rate, i) => old[i] * rate)));
      const weights = mixUniform(exponentiatedGradient(oldTargets, lag, mu), mu === 0 ? 0 : smoothing);
      const direction = Float64Array.from(old, (_, i) => sumOf(rates.map((row, m) => weights[m] * row[i])));
      const alpha = exponentiatedGradient(old, direction, eta);
      return {
        ...state,
        weights: Array.from(movingAverage(state.weights, alpha, beta)),
        updates: state.updates + 1,
        memory: { alpha: Array.from(alpha), targets: Array.from(weights) },
      };
    },
    memoryFault(memory) {
      for (const name of ["alpha", "targets"])
        if (!(Math.abs(sumOf(memory[name]) - 1) <= 1e-9) || memory[name].some((weight) => weight < 0))
          return `${name} does not lie on the simplex`;
      return null;
    },
  };
}

function targetNames(given: unknown): readonly string[] {
  const names = Array.isArray(given) ? given.filter((name) => typeof name === "string") : [];
  if (!Array.isArray(given) || given.length === 0 || names.length < given.length)
    throw new GradmixError(
      "config",
      `targets: ${show(given)} does not fit; it must name at least one target`,
    );
  return names;
}

/** ⟨gᵢ, ∇log ℓₘ⟩ for every target (outer) and domain (inner), with gradients scaled as asked. */
function ratesOf(
  state: RuleState,
  signal: Signal,
  names: readonly string[],
  normalise: "raw" | "clipped" | "cosine",
): Float64Array[] {
  const given = signal.targets;
  if (given === undefined) throw new GradmixError("config", "grape: the signal has no targets");
  if (given.length !== names.length)
    throw new GradmixError("config", `grape: ${given.length} targets were measured, not ${names.length}`);
  const norms =
    normalise === "raw" ? new Float64Array(state.domains.length) : need("grape", state, signal, "norms");
  return given.map(({ name, alignments, norm, loss }, m) => {
    if (name !== names[m])
      throw new GradmixError("config", `grape: target ${m + 1} is "${name}", not "${names[m]}"`);
    const numbers = need("grape", state, { ...signal, alignments }, "alignments");
    if (!Number.isFinite(norm) || norm < 0 || !Number.isFinite(loss) || loss <= 0)
      throw new GradmixError(
        "numeric",
        `grape: target "${name}" has a loss of ${loss} and a gradient of norm ${norm}; the weights stay as they are`,
      );
    return numbers.map((a, i) => {
      const rate = scaled(normalise, a / loss, norms[i], norm / loss);
      return Math.max(-LARGEST_RATE, Math.min(LARGEST_RATE, rate));
    });
  });
}
