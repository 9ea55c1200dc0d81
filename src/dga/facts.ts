/** Facts about a run that rules and combinators use. They are given once, to `createMixer`. */
import { numberIn, type OptionChecks } from "../options.ts";
import { type ByDomain, numbersByDomain, sharesOf, sizesOf } from "./rules/by-domain.ts";

/** Facts about a run. Rules and combinators use them where their own options are left out. */
export interface RunFacts {
  /** Tokens of each domain, used by the caps of `dga`, by `temperature`, `ado` and `repetitionCap`. */
  readonly sizes?: ByDomain;
  /** Training tokens of the whole run, used by `dga`, `repetitionCap` and `tokenBudget`. */
  readonly tokens?: number;
  /**
   * Share of the target that falls into each domain, or counts: the prior of `dga` and the histogram of `importanceSampling`. A domain that is not
   * named has none.
   */
  readonly histogram?: ByDomain;
}

export const factChecks: OptionChecks<RunFacts> = {
  sizes: numbersByDomain,
  tokens: numberIn({ min: 0, openMin: true }),
  histogram: numbersByDomain,
};

/** Throws `config` for unknown domains and numbers out of range, whether or not a rule uses them. */
export function checkFacts({ sizes, histogram }: RunFacts, domains: readonly string[]): void {
  if (sizes !== undefined) sizesOf(sizes, domains);
  if (histogram !== undefined) sharesOf(histogram, domains, "histogram");
}
