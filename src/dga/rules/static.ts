/** Weights given by the user, always. */
import { checkOptionNames, fixedState, type Rule } from "../rule.ts";
import { checkSimplex } from "../simplex.ts";
import { byDomain } from "./by-domain.ts";

export interface StaticOptions {
  readonly name: "static";
  /** One weight a domain, in the domains' order or by name; they sum to 1. */
  readonly weights: readonly number[] | Readonly<Record<string, number>>;
}

export function staticWeights(options: StaticOptions): Rule {
  checkOptionNames("static", options, ["weights"]);
  return {
    name: "static",
    needs: [],
    init: (domains) =>
      fixedState("static", domains, checkSimplex(byDomain(options.weights, domains, "weights"), domains)),
    update: (state) => state,
  };
}
