/**
 * DoGE, domain reweighting with generalization estimation (Fan, Pagliardini, Jaggi, arXiv 2310.15393, eq. 5 and 6):
 *
 *     α ← normalise(α ⊙ exp(η·Wᵢ)),  Wᵢ = ⟨gᵢ, Σⱼ gⱼ⟩ towards all domains, or ⟨gᵢ, g_target⟩ towards a target.
 *
 * As in the authors' code, W is divided by the mean norm of the domains' gradients and clamped to [0, 5], so a domain with a negative W counts like
 * one without effect; the paper has neither. η is their learning rate divided by the Bregman coefficient μ. If training and target domains are the
 * same, their code leaves ⟨gᵢ, gᵢ⟩ out of the sum, but the paper does not: the option `own` selects. Their code also clips every gradient to norm 5
 * first and decreases η with the learning rate (`etaSchedule`). The paper trains the final model with the mean of the weights over time: the averaged
 * weights of a run.
 */
import { boolean, checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import {
  checkDomains,
  initialState,
  measuredDomains,
  needGram,
  type Rule,
  type RuleState,
  type Signal,
  type Step,
} from "../rule.ts";
import { mixUniform, sumOf } from "../simplex.ts";
import { dogeScaled, directionOf } from "./normalisation.ts";
import { type ByDomain, numbersByDomain, startOf, ownOptions } from "./by-domain.ts";

/** Options of the rule `doge`. */
export interface DogeOptions {
  /** Selects this rule. */
  readonly name: "doge";
  /** What the mixture is optimised for. Default "domains", the paper's universal generalization; "target" is its out-of-domain setting. */
  readonly towards?: "domains" | "target";
  /**
   * Step size η ≥ 0. Default 0.01: the authors' learning rate of 5e-4 divided by μ = 0.05, which is their code's default and their setting towards a
   * target. Towards all domains their configuration has μ = 0.01, so η = 0.05. They update at every step; an update every T_r steps moves as far with
   * T_r times this η.
   */
  readonly eta?: number;
  /** Includes ⟨gᵢ, gᵢ⟩ in the sum towards "domains". Default true, as in the paper; the authors' code has false. */
  readonly own?: boolean;
  /** Share of uniform weights that is mixed in after a step, 0 ≤ c < 1. Default 0, as in the authors' code. */
  readonly smoothing?: number;
  /** Initial weights. Default uniform. */
  readonly start?: ByDomain;
}

export const dogeChecks: OptionChecks<DogeOptions> = {
  name: oneOf("doge"),
  towards: oneOf("domains", "target"),
  own: boolean,
  eta: numberIn({ min: 0 }),
  smoothing: numberIn({ min: 0, max: 1, openMax: true }),
  start: numbersByDomain,
};

/**
 * Makes the rule DoGE: a mirror step along the alignments with the sum of all domains' gradients, or with a target's gradient. Fan, Pagliardini and
 * Jaggi, arXiv:2310.15393. Throws `config` for invalid options.
 */
export function doge(options: DogeOptions = { name: "doge" }): Rule {
  checkOptions("doge", options, dogeChecks);
  options = ownOptions(options);
  const { towards = "domains", own = true, eta = 0.01, smoothing = 0 } = options;
  return {
    name: "doge",
    needs: towards === "domains" ? ["gram"] : ["alignments", "norms"],
    stepsOn: towards === "domains" ? "gram" : "alignments",
    init(domains) {
      checkDomains(domains);
      return initialState("doge", domains, startOf(options.start, domains));
    },
    update(state, signal, change) {
      const direction =
        towards === "domains"
          ? towardsDomains(state, signal, own)
          : directionOf("doge", state, signal, "doge");
      const weights = mirrorStep(state.weights, { eta, ...direction }, change, (part) =>
        mixUniform(part, smoothing),
      );
      return { ...state, weights: Array.from(weights), updates: state.updates + 1 };
    },
  };
}

/** ⟨gᵢ, Σⱼ gⱼ⟩ divided by the mean norm, clamped, among the domains that were measured. */
function towardsDomains(state: RuleState, signal: Signal, own: boolean): Pick<Step, "direction" | "among"> {
  const k = state.domains.length;
  const among = measuredDomains("doge", state, signal);
  const gram = needGram("doge", state, signal);
  const counts = (i: number): boolean => among === null || among[i]!;
  const rows = Float64Array.from({ length: k }, (_, i) => {
    const row = gram.subarray(i * k, (i + 1) * k);
    return counts(i) ? sumOf(row.map((g, j) => (counts(j) && (own || i !== j) ? g : 0))) : NaN;
  });
  const norms = Float64Array.from({ length: k }, (_, i) => Math.sqrt(gram[i * (k + 1)]!));
  return { direction: dogeScaled(rows, norms).direction, among };
}
