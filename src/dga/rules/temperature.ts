/**
 * Weights from the domains' sizes: αᵢ ∝ nᵢ^τ, fixed. τ = 1 is proportional sampling, τ = 0 uniform; in between small domains gain. Language
 * models for many languages sample this way (Conneau et al. 2020, XLM-R, τ = 0.3; Raffel et al. 2020 write τ = 1/T).
 */
import { checkRange } from "../../options.ts";
import { checkOptionNames, fixedState, type Rule } from "../rule.ts";
import { normalise } from "../simplex.ts";
import { sizesOf } from "./by-domain.ts";

export interface TemperatureOptions {
  readonly name: "temperature";
  /** nᵢ: tokens (or documents) of each domain, in the domains' order or by name. The trainer's command fills in its tokens. */
  readonly sizes: readonly number[] | Readonly<Record<string, number>>;
  /** τ ≥ 0. Default 0.3, XLM-R's. */
  readonly exponent?: number;
}

export function temperature(options: TemperatureOptions): Rule {
  checkOptionNames("temperature", options, ["sizes", "exponent"]);
  const exponent = options.exponent ?? 0.3;
  checkRange("exponent", exponent, { min: 0, max: Infinity, openMax: true });
  return {
    name: "temperature",
    needs: [],
    init: (domains) => fixedState("temperature", domains, powers(sizesOf(options.sizes, domains), exponent)),
    update: (state) => state,
  };
}

function powers(sizes: readonly number[], exponent: number): Float64Array {
  const largest = sizes.reduce((most, size) => Math.max(most, size), 0);
  return normalise(sizes.map((size) => (size / largest) ** exponent));
}
