/**
 * DoGE, domain reweighting with generalization estimation (Fan, Pagliardini, Jaggi, arXiv 2310.15393, eq. 5 and 6):
 *
 *     α ← normalise(α ⊙ exp(η·Wᵢ)),  Wᵢ = ⟨gᵢ, Σⱼ gⱼ⟩ towards all domains, or ⟨gᵢ, g_target⟩ towards a target.
 *
 * As in the authors' code, W is divided by the mean norm of the domains' gradients and clamped to [0, 5], so a domain whose W is negative
 * counts as one that does nothing; the paper writes it without both. η is their learning rate over the Bregman coefficient μ. Where training
 * and target domains are the same, their code leaves ⟨gᵢ, gᵢ⟩ out of the sum, which the paper does not: `own` chooses. Their code also clips
 * every gradient to norm 5 first and lets η fall with the learning rate (`etaSchedule`). The paper trains the final model with the mean of
 * the weights over time: the averaged weights of a run.
 */
import { boolean, checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { mirrorStep } from "../mirror-step.ts";
import {
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
import { type ByDomain, numbersByDomain, startOf } from "./by-domain.ts";

/** Options of the rule `doge`. */
export interface DogeOptions {
  /** Selects this rule. */
  readonly name: "doge";
  /** What the domains should serve. Default "domains", the paper's universal generalization; "target" is its out-of-domain setting. */
  readonly towards?: "domains" | "target";
  /**
   * η ≥ 0. Default 0.01: the authors' learning rate of 5e-4 over μ = 0.05, their code's default and its setting towards a target; towards all
   * domains their configuration has μ = 0.01, so 0.05. They update every step; with T_r steps between two, T_r times as much moves as far.
   */
  readonly eta?: number;
  /** Does ⟨gᵢ, gᵢ⟩ count towards "domains"? Default true, as in the paper; the authors' code has false. */
  readonly own?: boolean;
  /** Share of uniform weights that is mixed in after a step, 0 ≤ c < 1. Default 0, the code's. */
  readonly smoothing?: number;
  /** Default uniform. */
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

/** DoGE: a mirror step along the alignments with the sum of all domains' gradients, or with a target's. Fan, Pagliardini and Jaggi, arXiv:2310.15393. Throws `config` for options that are wrong. */
export function doge(options: DogeOptions = { name: "doge" }): Rule {
  checkOptions("doge", options, dogeChecks);
  const { towards = "domains", own = true, eta = 0.01, smoothing = 0 } = options;
  return {
    name: "doge",
    needs: towards === "domains" ? ["gram"] : ["alignments", "norms"],
    stepsOn: towards === "domains" ? "gram" : "alignments",
    init: (domains) => initialState("doge", domains, startOf(options.start, domains)),
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

/** ⟨gᵢ, Σⱼ gⱼ⟩ over the mean norm, clamped; of the domains that were measured. */
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
