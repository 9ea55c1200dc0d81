/**
 * Importance sampling: each domain weighs what share of the target falls into it, αᵢ = P(i | target), fixed (Grangier et al., CRISP,
 * arXiv 2410.03735). Uniform inside a domain.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, oneOf, type OptionChecks, required, show } from "../../options.ts";
import { initialState, type Rule } from "../rule.ts";
import { normalise } from "../simplex.ts";
import { byDomain, type ByDomain, numbersByDomain } from "./by-domain.ts";

export interface ImportanceSamplingOptions {
  readonly name: "importanceSampling";
  /** Target examples (or their share) whose nearest domain is i; any non-negative numbers, one per domain or by name. */
  readonly histogram: ByDomain;
}

const checks: OptionChecks<ImportanceSamplingOptions> = {
  name: oneOf("importanceSampling"),
  histogram: required(numbersByDomain),
};

export function importanceSampling(options: ImportanceSamplingOptions): Rule {
  checkOptions("importanceSampling", options, checks);
  return {
    name: "importanceSampling",
    needs: [],
    init(domains) {
      const counts = byDomain(options.histogram, domains, "histogram");
      const bad = counts.findIndex((count) => !Number.isFinite(count) || count < 0);
      if (bad >= 0)
        throw new GradmixError(
          "config",
          `histogram: "${domains[bad]}" has ${show(counts[bad])}; counts are finite and ≥ 0`,
        );
      if (counts.every((count) => count === 0))
        throw new GradmixError("config", "histogram: all counts are 0, so no domain could be drawn");
      return initialState("importanceSampling", domains, normalise(counts));
    },
    update: (state) => state,
  };
}
