/**
 * The balance step of R&B, regroup and balance (Ge et al., arXiv 2505.00358): α = softmax(λ·G q / ‖G q‖), G the Gram matrix of the domains'
 * gradients and q the share that each domain has in what the model is evaluated on. G q is the inner product of every domain's gradient with
 * that of the evaluation mixture, so this is an alignment without a target set, from no state at all. The authors collect the gradients of
 * training steps; here the trainer measures G from a batch of each domain. Regrouping, the other half of the method, is a matter of the data.
 * A domain that was not measured keeps its weight, and the others share the rest by what is known of them.
 */
import { checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { initialState, measuredDomains, needGram, type Rule } from "../rule.ts";
import { checkSimplex, exponentiatedGradient, sumOf, uniformWeights, within } from "../simplex.ts";
import { byDomain, type ByDomain, numbersByDomain } from "./by-domain.ts";

/** Options of the rule `rnb`. */
export interface RnbOptions {
  /** Selects this rule. */
  readonly name: "rnb";
  /** q on the simplex, in the domains' order or by name. Default uniform. */
  readonly target?: ByDomain;
  /** λ ≥ 0, the inverse temperature. Default 1, ours: the direction has norm 1, so at most e^√2 lies between two weights. */
  readonly lambda?: number;
}

export const rnbChecks: OptionChecks<RnbOptions> = {
  name: oneOf("rnb"),
  target: numbersByDomain,
  lambda: numberIn({ min: 0 }),
};

/** R&B, the balance step of regroup and balance: weights by the Gram matrix of the domains' gradients, without a target set. Ge et al., arXiv:2505.00358. Throws `config` for options that are wrong. */
export function rnb(options: RnbOptions = { name: "rnb" }): Rule {
  checkOptions("rnb", options, rnbChecks);
  const lambda = options.lambda ?? 1;
  const shares = (domains: readonly string[]): Float64Array =>
    options.target === undefined
      ? uniformWeights(domains.length)
      : checkSimplex(byDomain(options.target, domains, "target"), domains, "target");
  return {
    name: "rnb",
    needs: ["gram"],
    init(domains) {
      // Read now, so that a mistake shows before training.
      shares(domains);
      return initialState("rnb", domains, uniformWeights(domains.length));
    },
    update(state, signal) {
      const k = state.domains.length;
      const q = shares(state.domains);
      const gram = needGram("rnb", state, signal);
      const weights = within(state.weights, measuredDomains("rnb", state, signal), (part, _, indices) => {
        const direction = indices.map((i) => sumOf(indices.map((j) => gram[i * k + j]! * q[j]!)));
        const norm = Math.hypot(...direction);
        const unit = direction.map((value) => (norm > 0 ? value / norm : 0));
        return exponentiatedGradient(uniformWeights(part.length), unit, lambda);
      });
      return { ...state, weights: Array.from(weights), updates: state.updates + 1 };
    },
  };
}
