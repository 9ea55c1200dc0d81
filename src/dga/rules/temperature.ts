/**
 * Fixed weights from the domains' sizes: αᵢ ∝ nᵢ^τ. τ = 1 is proportional sampling and τ = 0 uniform; in between, small domains gain. Multilingual
 * language models are sampled this way (Conneau et al. 2020, XLM-R, τ = 0.3; Raffel et al. 2020 write τ = 1/T).
 */
import { checkOptions, numberIn, oneOf, type OptionChecks, required } from "../../options.ts";
import { checkDomains, initialState, type Rule } from "../rule.ts";
import { normalise } from "../simplex.ts";
import { type ByDomain, numbersByDomain, sizesOf, ownOptions } from "./by-domain.ts";
import type { RuleTraits } from "./traits.ts";

/** Options of the rule `temperature`. */
export interface TemperatureOptions {
  /** Selects this rule. */
  readonly name: "temperature";
  /** Tokens (or documents) nᵢ of each domain, in the order of the domains or by name. The command `gradmix train` fills in the tokens of its domains. */
  readonly sizes: ByDomain;
  /** Exponent τ ≥ 0. Default 0.3, as in XLM-R. */
  readonly exponent?: number;
}

export const temperatureTraits: RuleTraits = { fixed: true };

export const temperatureChecks: OptionChecks<TemperatureOptions> = {
  name: oneOf("temperature"),
  sizes: required(numbersByDomain),
  exponent: numberIn({ min: 0 }),
};

/**
 * Makes a rule with fixed weights in proportion to nᵢ^τ, where nᵢ are the sizes: τ = 1 is proportional to the sizes, τ = 0 uniform. Throws `config`
 * for invalid options.
 */
export function temperature(options: TemperatureOptions): Rule {
  checkOptions("temperature", options, temperatureChecks);
  options = ownOptions(options);
  const exponent = options.exponent ?? 0.3;
  return {
    name: "temperature",
    needs: [],
    init(domains) {
      checkDomains(domains);
      return initialState("temperature", domains, powers(sizesOf(options.sizes, domains), exponent));
    },
    update: (state) => state,
  };
}

function powers(sizes: readonly number[], exponent: number): Float64Array {
  const largest = sizes.reduce((most, size) => Math.max(most, size), 0);
  return normalise(sizes.map((size) => (size / largest) ** exponent));
}
