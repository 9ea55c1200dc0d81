/** Fixed weights, given by the user. */
import { checkOptions, oneOf, type OptionChecks, required } from "../../options.ts";
import { checkDomains, initialState, type Rule } from "../rule.ts";
import { type ByDomain, numbersByDomain, weightsOf, ownOptions } from "./by-domain.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `static`. */
export interface StaticOptions {
  /** Selects this rule. */
  readonly name: "static";
  /** One weight per domain, in the order of the domains or by name, 0 for a domain that is not drawn; they must sum to 1. */
  readonly weights: ByDomain;
}

export const staticTraits: RuleTraits = { fixed: true, needsWeights: true };

export const staticChecks: OptionChecks<StaticOptions> = {
  name: oneOf("static"),
  weights: required(numbersByDomain),
};

/** Makes a rule with fixed weights. Throws `config` for invalid options. */
export function staticWeights(options: StaticOptions): Rule {
  checkOptions("static", options, staticChecks);
  options = ownOptions(options);
  return {
    name: "static",
    needs: [],
    init(domains) {
      checkDomains(domains);
      return initialState("static", domains, weightsOf(options.weights, domains, "weights"));
    },
    update: (state) => state,
  };
}
