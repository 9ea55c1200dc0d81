/**
 * ODM, online data mixing as a bandit (Albalak et al., arXiv 2312.02406, Algorithm 1): Exp3 with the loss of the sampled domain as its reward.
 *
 *     R̂ᵢ ← ρ·R̂ᵢ + (1 − ρ)·ℓᵢ/πᵢ  for the domains that were sampled,  εₜ = min(1/k, √(ln k / (k·t))),
 *     πᵢ = (1 − k·εₜ)·softmax(εₜ₋₁·R̂)ᵢ + εₜ.
 *
 * ℓᵢ/πᵢ is the importance-weighted reward; t counts updates. While t ≤ ln(k)·k exploration is all there is and the weights stay uniform (68
 * updates for k = 22). The authors' public code differs from their algorithm: the class that it names as the paper's keeps ρ·R̂ + (1 − ρ)·exp(ℓ)
 * without the division by π, another one adds up ℓ/(10·π) without decay. It is meant for signals of what was sampled (training steps): a domain without text keeps its
 * R̂. A signal that measures every domain every time, as from a batch of each, counts all of them as sampled.
 */
import { checkRange } from "../../options.ts";
import { checkOptionNames, measuredDomains, need, type Rule } from "../rule.ts";
import { exponentiatedGradient, normalise, uniformWeights } from "../simplex.ts";

export interface OdmOptions {
  readonly name: "odm";
  /** ρ, what is kept of the old reward, 0 ≤ ρ < 1. Default 0.9, the paper's. */
  readonly decay?: number;
}

/** Rewards of absurd losses over tiny weights stay finite. */
const LARGEST_REWARD = 1e300;

export function odm(options: OdmOptions = { name: "odm" }): Rule {
  checkOptionNames("odm", options, ["decay"]);
  const decay = options.decay ?? 0.9;
  checkRange("decay", decay, { min: 0, max: 1, openMax: true });
  return {
    name: "odm",
    needs: ["losses"],
    init: (domains) => ({
      rule: "odm",
      domains: [...domains],
      weights: Array.from(uniformWeights(domains.length)),
      updates: 0,
      memory: { rewards: domains.map(() => 0) },
    }),
    update(state, signal) {
      const k = state.domains.length;
      const losses = need("odm", state, signal, "losses");
      const measured = measuredDomains("odm", state, signal);
      const rewards = state.memory["rewards"].map((before, i) =>
        measured === null || measured[i]
          ? decay * before + (1 - decay) * bounded(losses[i] / state.weights[i])
          : before,
      );
      const epsilon = (t: number): number =>
        t === 0 ? 1 / k : Math.min(1 / k, Math.sqrt(Math.log(k) / (k * t)));
      const t = state.updates + 1;
      const explore = epsilon(t);
      const exploit = exponentiatedGradient(uniformWeights(k), rewards, epsilon(t - 1));
      return {
        ...state,
        weights: Array.from(normalise(exploit.map((weight) => (1 - k * explore) * weight + explore))),
        updates: t,
        memory: { rewards },
      };
    },
  };
}

function bounded(reward: number): number {
  return Math.max(-LARGEST_REWARD, Math.min(LARGEST_REWARD, reward));
}
