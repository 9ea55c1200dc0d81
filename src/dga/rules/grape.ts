/**
 * GRAPE, group robust multi-target pretraining (Fan, Glarou, Jaggi, arXiv 2505.20380): domain weights α for several targets, whose own weights z
 * move to the targets that improve least.
 *
 *     zₘ ← normalise(z ⊙ exp(−μ·rₘ)),  rₘ = Σᵢ αᵢ·a_mi / ℓₘ   (the rate of improvement, ⟨∇log ℓₘ, Σ αᵢgᵢ⟩)
 *     αᵢ ← normalise(α ⊙ exp(+η·Σₘ zₘ·a_mi / ℓₘ))
 *
 * with a_mi = ⟨gᵢ, ∇ℓₘ⟩, every gradient clipped to norm 1 before the product (their setting). One target is DGA on log ℓ. Rewritten from the
 * paper's equations; the order of the two updates (z first, then α with the new z) is a choice.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptionNames, checkRange, need, type Rule, type RuleState, type Signal } from "../rule.ts";
import { show } from "../show.ts";
import { checkSimplex, exponentiatedGradient, movingAverage, sumOf } from "../simplex.ts";
import { byDomain, startOf } from "./by-domain.ts";
import { checkNormalisation, scaled } from "./normalisation.ts";

export interface GrapeOptions {
  readonly name: "grape";
  /** Names of the targets, in the order of `signal.targets`. At least one. */
  readonly targets: readonly string[];
  /** η ≥ 0 of the domain weights. Default 1.5, the paper's multiplier of clipped products. */
  readonly eta?: number;
  /** μ ≥ 0 of the target weights; 0 keeps them fixed. Default 1.5, the same. */
  readonly mu?: number;
  /** β of the moving average of the domain weights, the weight of the new value. Default 1: none. */
  readonly beta?: number;
  /** Default "clipped", the paper's. */
  readonly normalise?: "raw" | "clipped" | "cosine";
  /** Where z starts, by target; default uniform. */
  readonly targetWeights?: readonly number[] | Readonly<Record<string, number>>;
  /** Where α starts, by domain; default uniform. */
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
}

export function grape(options: GrapeOptions): Rule {
  checkOptionNames("grape", options, ["targets", "eta", "mu", "beta", "normalise", "targetWeights", "start"]);
  const { targets, eta = 1.5, mu = 1.5, beta = 1, normalise = "clipped" } = options;
  if (!Array.isArray(targets) || targets.length === 0 || targets.some((name) => typeof name !== "string"))
    throw new GradmixError(
      "config",
      `targets: ${show(targets)} does not fit; it must name at least one target`,
    );
  const twice = targets.find((name, m) => targets.indexOf(name) < m);
  if (twice !== undefined) throw new GradmixError("config", `targets: two are called "${twice}"`);
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("mu", mu, { min: 0, max: Infinity, openMax: true });
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
      const improvement = rates.map((row) => sumOf(row.map((rate, i) => old[i] * rate)));
      const weights = exponentiatedGradient(oldTargets, improvement, -mu);
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
      const rate = scaled(normalise, a, norms[i], norm) / loss;
      return Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, rate));
    });
  });
}
