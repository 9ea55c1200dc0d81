/**
 * The balance step of R&B, regroup and balance (Ge et al., arXiv 2505.00358): α = softmax(λ·G q / ‖G q‖), G the Gram matrix of the domains'
 * gradients and q the share that each domain has in what the model is evaluated on. G q is the inner product of every domain's gradient with
 * that of the evaluation mixture, so this is an alignment without a target set, from no state at all. The authors collect the gradients of
 * training steps; here the trainer measures G from a batch of each domain. Regrouping, the other half of the method, is a matter of the data.
 */
import { checkRange } from "../../options.ts";
import { checkOptionNames, needGram, type Rule } from "../rule.ts";
import { checkSimplex, exponentiatedGradient, sumOf, uniformWeights } from "../simplex.ts";
import { byDomain } from "./by-domain.ts";

export interface RnbOptions {
  readonly name: "rnb";
  /** q on the simplex, in the domains' order or by name. Default uniform. */
  readonly target?: readonly number[] | Readonly<Record<string, number>>;
  /** λ ≥ 0, the inverse temperature. Default 1, ours: the direction has norm 1, so at most e^√2 lies between two weights. */
  readonly lambda?: number;
}

export function rnb(options: RnbOptions = { name: "rnb" }): Rule {
  checkOptionNames("rnb", options, ["target", "lambda"]);
  const lambda = options.lambda ?? 1;
  checkRange("lambda", lambda, { min: 0, max: Infinity, openMax: true });
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
      return {
        rule: "rnb",
        domains: [...domains],
        weights: Array.from(uniformWeights(domains.length)),
        updates: 0,
        memory: {},
      };
    },
    update(state, signal) {
      const k = state.domains.length;
      const q = shares(state.domains);
      const gram = needGram("rnb", state, signal);
      // The largest entry goes first: squares of huge numbers would overflow.
      const largest = gram.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const direction = Float64Array.from({ length: k }, (_, i) =>
        largest === 0 ? 0 : sumOf(gram.subarray(i * k, (i + 1) * k).map((g, j) => (g / largest) * q[j])),
      );
      const norm = Math.hypot(...direction);
      const unit = direction.map((value) => (norm > 0 ? value / norm : 0));
      return {
        ...state,
        weights: Array.from(exponentiatedGradient(uniformWeights(k), unit, lambda)),
        updates: state.updates + 1,
      };
    },
  };
}
