/** The facts of a run that its rule and combinators do not use. */
import { type CombinatorOptions, countsRunTokens, needsSizes } from "../dga/combinators/index.ts";
import type { RunFacts } from "../dga/facts.ts";
import { factsOfRule, type RuleName } from "../dga/rules/index.ts";
import { keysOf } from "../keys.ts";

/** The facts that limit repetitions, and do so only together. */
const together = { sizes: "tokens", tokens: "sizes" } as const;

export interface UnusedFact {
  readonly fact: keyof RunFacts;
  /** The fact without which this one has no effect; null if the rule does not use this one at all. */
  readonly missing: keyof typeof together | null;
  /** Why it has no effect, without a subject: for example "rule rnb does not use it with these options". */
  readonly reason: string;
}

/** The known facts that have no effect on a rule with these options and combinators. */
export function unusedFacts(
  rule: RuleName,
  options: Readonly<Record<string, unknown>>,
  combinators: readonly CombinatorOptions[],
  known: RunFacts,
): UnusedFact[] {
  const own = factsOfRule(rule, options);
  const around = { sizes: needsSizes(combinators), tokens: countsRunTokens(combinators), histogram: false };
  const limits = own.has("sizes") && own.has("tokens");
  return keysOf(known).flatMap((fact): UnusedFact[] => {
    if (known[fact] === undefined || around[fact]) return [];
    if (!own.has(fact))
      return [{ fact, missing: null, reason: `rule ${rule} does not use it with these options` }];
    const missing = limits && fact !== "histogram" ? together[fact] : null;
    if (missing === null || known[missing] !== undefined) return [];
    const reason = `rule ${rule} limits repetitions only if it knows the tokens of each domain and of the run`;
    return [{ fact, missing, reason }];
  });
}
