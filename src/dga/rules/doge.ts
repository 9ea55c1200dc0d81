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
import { GradmixError } from "../../errors.ts";
import { checkRange, show } from "../../options.ts";
import { checkOptionNames, need, needGram, type Rule } from "../rule.ts";
import { exponentiatedGradient, mixUniform, sumOf } from "../simplex.ts";
import { dogeScaled } from "./normalisation.ts";
import { startOf } from "./by-domain.ts";

export interface DogeOptions {
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
  readonly start?: readonly number[] | Readonly<Record<string, number>>;
}

export function doge(options: DogeOptions = { name: "doge" }): Rule {
  checkOptionNames("doge", options, ["towards", "own", "eta", "smoothing", "start"]);
  const { towards = "domains", own = true, eta = 0.01, smoothing = 0 } = options;
  if (towards !== "domains" && towards !== "target")
    throw new GradmixError("config", `towards: there is no ${show(towards)}; it is "domains" or "target"`);
  if (typeof own !== "boolean")
    throw new GradmixError("config", `own: ${show(own)} does not fit; it must be true or false`);
  checkRange("eta", eta, { min: 0, max: Infinity, openMax: true });
  checkRange("smoothing", smoothing, { min: 0, max: 1, openMax: true });
  return {
    name: "doge",
    needs: towards === "domains" ? ["gram"] : ["alignments", "norms"],
    init: (domains) => ({
      rule: "doge",
      domains: [...domains],
      weights: Array.from(startOf(options.start, domains)),
      updates: 0,
      memory: {},
    }),
    update(state, signal) {
      const k = state.domains.length;
      let scores: Float64Array;
      if (towards === "domains") {
        const gram = needGram("doge", state, signal);
        const rows = Float64Array.from({ length: k }, (_, i) =>
          sumOf(gram.subarray(i * k, (i + 1) * k).map((g, j) => (own || i !== j ? g : 0))),
        );
        scores = dogeScaled(
          rows,
          Float64Array.from({ length: k }, (_, i) => Math.sqrt(gram[i * (k + 1)])),
        );
      } else
        scores = dogeScaled(need("doge", state, signal, "alignments"), need("doge", state, signal, "norms"));
      const stepped = exponentiatedGradient(state.weights, scores, eta);
      return {
        ...state,
        weights: Array.from(mixUniform(stepped, eta === 0 ? 0 : smoothing)),
        updates: state.updates + 1,
      };
    },
  };
}
