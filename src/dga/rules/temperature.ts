/**
 * Weights from the domains' sizes: αᵢ ∝ nᵢ^τ, fixed. τ = 1 is proportional sampling, τ = 0 uniform; in between small domains gain. Language
 * models for many languages sample this way (Conneau et al. 2020, XLM-R, τ = 0.3; Raffel et al. 2020 write τ = 1/T).
 */
import { checkOptions, numberIn, oneOf, type OptionChecks, required } from "../../options.ts";
import { checkDomains, initialState, type Rule } from "../rule.ts";
import { normalise } from "../simplex.ts";
import { type ByDomain, numbersByDomain, sizesOf } from "./by-domain.ts";

/** Options of the rule `temperature`. */
export interface TemperatureOptions {
  /** Selects this rule. */
  readonly name: "temperature";
  /** nᵢ: tokens (or documents) of each domain, in the domains' order or by name. The trainer's command fills in its tokens. */
  readonly sizes: ByDomain;
  /** τ ≥ 0. Default 0.3, XLM-R's. */
  readonly exponent?: number;
}

export const temperatureChecks: OptionChecks<TemperatureOptions> = {
  name: oneOf("temperature"),
  sizes: required(numbersByDomain),
  exponent: numberIn({ min: 0 }),
};

/** Fixed weights in proportion to sizeᵗ with the exponent τ: 1 is proportional to the sizes, 0 is uniform. Throws `config` for options that are wrong. */
export function temperature(options: TemperatureOptions): Rule {
  checkOptions("temperature", options, temperatureChecks);
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
