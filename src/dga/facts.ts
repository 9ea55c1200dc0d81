/** What is known of a run, for the rules and combinators that take it: said once to `createMixer`, not to each. */
import { numberIn, type OptionChecks } from "../options.ts";
import { type ByDomain, numbersByDomain, sharesOf, sizesOf } from "./rules/by-domain.ts";

/** Facts of a run that rules and combinators take when their own options do not give them. */
export interface RunFacts {
  /** Tokens of each domain: the caps of `dga`, the sizes of `temperature` and `ado`, and of `repetitionCap`. */
  readonly sizes?: ByDomain;
  /** Training tokens of the whole run: `dga`, `repetitionCap`, `tokenBudget`. */
  readonly tokens?: number;
  /** Share of the target by domain, or counts: the prior of `dga`, the histogram of `importanceSampling`. A domain that is not named has none. */
  readonly histogram?: ByDomain;
}

export const factChecks: OptionChecks<RunFacts> = {
  sizes: numbersByDomain,
  tokens: numberIn({ min: 0, openMin: true }),
  histogram: numbersByDomain,
};

/** Throws `config` for names that are no domains and numbers out of range, whether a rule looks at them or not. */
export function checkFacts({ sizes, histogram }: RunFacts, domains: readonly string[]): void {
  if (sizes !== undefined) sizesOf(sizes, domains);
  if (histogram !== undefined) sharesOf(histogram, domains, "histogram");
}
