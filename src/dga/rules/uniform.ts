/** Every domain the same weight, always. */
import { checkOptionNames, fixedState, type Rule } from "../rule.ts";
import { uniformWeights } from "../simplex.ts";

export interface UniformOptions {
  readonly name: "uniform";
}

export function uniform(options: UniformOptions = { name: "uniform" }): Rule {
  checkOptionNames("uniform", options, []);
  return {
    name: "uniform",
    needs: [],
    init: (domains) => fixedState("uniform", domains, uniformWeights(domains.length)),
    update: (state) => state,
  };
}
