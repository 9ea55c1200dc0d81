/** Fixed equal weights. */
import { checkOptions, oneOf, type OptionChecks } from "../../options.ts";
import { checkDomains, initialState, type Rule } from "../rule.ts";
import { uniformWeights } from "../simplex.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `uniform`. */
export interface UniformOptions {
  /** Selects this rule. */
  readonly name: "uniform";
}

export const uniformTraits: RuleTraits = { fixed: true };

export const uniformChecks: OptionChecks<UniformOptions> = { name: oneOf("uniform") };

/** Makes a rule with equal weights for all domains. Throws `config` for invalid options. */
export function uniform(options: UniformOptions = { name: "uniform" }): Rule {
  checkOptions("uniform", options, uniformChecks);
  return {
    name: "uniform",
    needs: [],
    init(domains) {
      checkDomains(domains);
      return initialState("uniform", domains, uniformWeights(domains.length));
    },
    update: (state) => state,
  };
}
