/**
 * ODM, online data mixing as a bandit (Albalak et al., arXiv 2312.02406, Algorithm 1): Exp3 with the loss of the sampled domain as its reward.
 *
 *     R̂ᵢ ← ρ·R̂ᵢ + (1 − ρ)·ℓᵢ/πᵢ  for the domains that were sampled,  εₜ = min(1/k, √(ln k / (k·t))),
 *     πᵢ = (1 − k·εₜ)·softmax(εₜ₋₁·R̂)ᵢ + εₜ.
 *
 * ℓᵢ/πᵢ is the importance-weighted reward; t counts updates. While t ≤ ln(k)·k, the rule only explores and the weights stay uniform (68 updates for k
 * = 22). The authors' public code differs from their algorithm: the class that it names as the paper's keeps ρ·R̂ + (1 − ρ)·exp(ℓ) without the
 * division by π, and another one adds up ℓ/(10·π) without decay. The rule is meant for signals of sampled text (training steps). A domain without
 * text keeps its R̂, and a domain that never had text keeps its weight, because an R̂ of 0 would rank it last. In a signal that measures every domain
 * every time, as from a batch of each, all domains count as sampled.
 */
import { ownOptions } from "./by-domain.ts";
import { checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import {
  checkDomains,
  initialState,
  measuredDomains,
  need,
  remembered,
  type Rule,
  wantState,
} from "../rule.ts";
import { exponentiatedGradient, normalise, uniformWeights, within } from "../simplex.ts";

/** Options of the rule `odm`. */
export interface OdmOptions {
  /** Selects this rule. */
  readonly name: "odm";
  /** Decay ρ of the old reward, 0 ≤ ρ < 1. Default 0.9, as in the paper. */
  readonly decay?: number;
}

/** Limit of a reward, so that huge losses divided by tiny weights stay finite. */
const LARGEST_REWARD = 1e300;

export const odmChecks: OptionChecks<OdmOptions> = {
  name: oneOf("odm"),
  decay: numberIn({ min: 0, max: 1, openMax: true }),
};

/**
 * Makes the rule Online Data Mixing: a bandit whose rewards are the training losses of the domains. Albalak et al., arXiv:2312.02406. Throws `config`
 * for invalid options.
 */
export function odm(options: OdmOptions = { name: "odm" }): Rule {
  checkOptions("odm", options, odmChecks);
  options = ownOptions(options);
  const decay = options.decay ?? 0.9;
  return {
    name: "odm",
    needs: ["losses"],
    init(domains) {
      checkDomains(domains);
      return initialState("odm", domains, uniformWeights(domains.length), {
        rewards: domains.map(() => 0),
        /** 1 for a domain that has been measured, else 0. */
        known: domains.map(() => 0),
      });
    },
    update(state, signal) {
      wantState("odm", state);
      const k = state.domains.length;
      const losses = need("odm", state, signal, "losses");
      const measured = measuredDomains("odm", state, signal);
      const drawn = (i: number): boolean => measured === null || measured[i]!;
      const rewards = remembered("odm", state.memory, "rewards").map((before, i) =>
        drawn(i) ? decay * before + (1 - decay) * bounded(losses[i]! / state.weights[i]!) : before,
      );
      const known = remembered("odm", state.memory, "known").map((before, i) => (drawn(i) ? 1 : before));
      const epsilon = (t: number): number => Math.min(1 / k, Math.sqrt(Math.log(k) / (k * Math.max(1, t))));
      const t = state.updates + 1;
      // Domains that were never measured have kept 1/k each; the others share the rest, none below εₜ.
      const weights = within(
        state.weights,
        known.map((one) => one === 1),
        (part, total, indices) => {
          const m = part.length;
          const explore = epsilon(t) / total;
          const exploit = exponentiatedGradient(
            uniformWeights(m),
            indices.map((i) => rewards[i]!),
            epsilon(t - 1),
          );
          return normalise(exploit.map((weight) => (1 - m * explore) * weight + explore));
        },
      );
      return { ...state, weights: Array.from(weights), updates: t, memory: { rewards, known } };
    },
    memoryFault: (memory) =>
      remembered("odm", memory, "known").every((one) => one === 0 || one === 1)
        ? null
        : "an entry of known is neither 0 nor 1",
  };
}

function bounded(reward: number): number {
  return Math.max(-LARGEST_REWARD, Math.min(LARGEST_REWARD, reward));
}
