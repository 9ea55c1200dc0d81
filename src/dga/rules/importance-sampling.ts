/**
 * Importance sampling: the weight of each domain is the share of the target that falls into it, αᵢ = P(i | target), fixed (Grangier et al., CRISP,
 * arXiv 2410.03735). Sampling is uniform within a domain.
 */
import { checkOptions, oneOf, type OptionChecks, required } from "../../options.ts";
import { checkDomains, initialState, type Rule } from "../rule.ts";
import { type ByDomain, numbersByDomain, sharesOf, ownOptions } from "./by-domain.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `importanceSampling`. */
export interface ImportanceSamplingOptions {
  /** Selects this rule. */
  readonly name: "importanceSampling";
  /** Number (or share) of target examples whose nearest domain is i: any non-negative numbers, one per domain or by name. */
  readonly histogram: ByDomain;
}

export const importanceSamplingTraits: RuleTraits = { fixed: true, histogram: "needed" };

export const importanceSamplingChecks: OptionChecks<ImportanceSamplingOptions> = {
  name: oneOf("importanceSampling"),
  histogram: required(numbersByDomain),
};

/** Makes a rule with fixed weights in proportion to a histogram of the target over the domains. Throws `config` for invalid options. */
export function importanceSampling(options: ImportanceSamplingOptions): Rule {
  checkOptions("importanceSampling", options, importanceSamplingChecks);
  options = ownOptions(options);
  return {
    name: "importanceSampling",
    needs: [],
    init(domains) {
      checkDomains(domains);
      return initialState("importanceSampling", domains, sharesOf(options.histogram, domains, "histogram"));
    },
    update: (state) => state,
  };
}
