/**
 * The balance step of R&B, regroup and balance (Ge et al., arXiv 2505.00358): α = softmax(λ·G q / ‖G q‖), where G is the Gram matrix of the domains'
 * gradients and q the share of each domain in the evaluation mixture. G q is the inner product of every domain's gradient with that of the evaluation
 * mixture, so this is an alignment without a target set, and without any state. The authors collect the gradients of training steps; here the trainer
 * measures G from a batch of each domain. Regrouping, the other half of the method, changes the data. A domain that was not measured keeps its
 * weight, and the others share the rest.
 */
import { checkOptions, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import { checkDomains, initialState, measuredDomains, needGram, type Rule, wantState } from "../rule.ts";
import { exponentiatedGradient, sumOf, uniformWeights, within } from "../simplex.ts";
import { type ByDomain, numbersByDomain, weightsOf, ownOptions } from "./by-domain.ts";

/** Options of the rule `rnb`. */
export interface RnbOptions {
  /** Selects this rule. */
  readonly name: "rnb";
  /** Evaluation mixture q on the simplex, in the order of the domains or by name. Default uniform. */
  readonly target?: ByDomain;
  /** Inverse temperature λ ≥ 0. Default 1 (not from the paper): the direction has norm 1, so two weights differ by a factor of at most e^√2. */
  readonly lambda?: number;
}

export const rnbChecks: OptionChecks<RnbOptions> = {
  name: oneOf("rnb"),
  target: numbersByDomain,
  lambda: numberIn({ min: 0 }),
};

/**
 * Makes the rule R&B, the balance step of regroup and balance: weights from the Gram matrix of the domains' gradients, without a target set. Ge et
 * al., arXiv:2505.00358. Throws `config` for invalid options.
 */
export function rnb(options: RnbOptions = { name: "rnb" }): Rule {
  checkOptions("rnb", options, rnbChecks);
  options = ownOptions(options);
  const lambda = options.lambda ?? 1;
  const shares = (domains: readonly string[]): Float64Array =>
    options.target === undefined
      ? uniformWeights(domains.length)
      : weightsOf(options.target, domains, "target");
  return {
    name: "rnb",
    needs: ["gram"],
    init(domains) {
      checkDomains(domains);
      // Checked here, so that a mistake shows before training.
      shares(domains);
      return initialState("rnb", domains, uniformWeights(domains.length));
    },
    update(state, signal) {
      wantState("rnb", state);
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
