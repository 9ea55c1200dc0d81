/** Every domain the same weight, always. */
import { fixedState, type Rule } from "../rule.ts";
import { uniformWeights } from "../simplex.ts";

export interface UniformOptions {
  readonly name: "uniform";
}

export function uniform(_options: UniformOptions = { name: "uniform" }): Rule {
  return {
    name: "uniform",
    needs: [],
    init: (domains) => fixedState("uniform", domains, uniformWeights(domains.length)),
    update: (state) => state,
  };
}
