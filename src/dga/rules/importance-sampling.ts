/**
 * Importance sampling: each domain weighs what share of the target falls into it, αᵢ = P(i | target), fixed (Grangier et al., CRISP,
 * arXiv 2410.03735). Uniform inside a domain.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptionNames, fixedState, type Rule } from "../rule.ts";
import { show } from "../../options.ts";
import { normalise } from "../simplex.ts";
import { byDomain } from "./by-domain.ts";

export interface ImportanceSamplingOptions {
  readonly name: "importanceSampling";
  /** Target examples (or their share) whose nearest domain is i; any non-negative numbers, one a domain or by name. */
  readonly histogram: readonly number[] | Readonly<Record<string, number>>;
}

export function importanceSampling(options: ImportanceSamplingOptions): Rule {
  checkOptionNames("importanceSampling", options, ["histogram"]);
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
      return fixedState("importanceSampling", domains, normalise(counts, "histogram"));
    },
    update: (state) => state,
  };
}
