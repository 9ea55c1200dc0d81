/** Weights given by the user, always. */
import { checkOptions, oneOf, type OptionChecks, required } from "../../options.ts";
import { initialState, type Rule } from "../rule.ts";
import { checkSimplex } from "../simplex.ts";
import { byDomain, type ByDomain, numbersByDomain } from "./by-domain.ts";

/** Options of the rule `static`. */
export interface StaticOptions {
  /** Selects this rule. */
  readonly name: "static";
  /** One weight per domain, in the domains' order or by name; they sum to 1. */
  readonly weights: ByDomain;
}

export const staticChecks: OptionChecks<StaticOptions> = {
  name: oneOf("static"),
  weights: required(numbersByDomain),
};

/** Fixed weights. Throws `config` for options that are wrong. */
export function staticWeights(options: StaticOptions): Rule {
  checkOptions("static", options, staticChecks);
  return {
    name: "static",
    needs: [],
    init: (domains) =>
      initialState("static", domains, checkSimplex(byDomain(options.weights, domains, "weights"), domains)),
    update: (state) => state,
  };
}
