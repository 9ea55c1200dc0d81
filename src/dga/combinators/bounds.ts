/**
 * Bounds on the weights that are sampled with: the KL projection onto them (`projectBounds`). The rule inside goes on without them, so a
 * weight that it has driven far below a floor takes as many updates to come back as it took to get there.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, checkRange, numberIn, required, show } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { byDomain, type ByDomain, numbersByDomain } from "../rules/by-domain.ts";
import { projectBounds } from "../simplex.ts";
import { wrap } from "./wrap.ts";

const positive = numberIn({ min: 0, openMin: true });

/** No weight below `least`, 0 ≤ least < 1/k (`config` for too many domains). Keeps the order of the weights. */
export function floor(rule: Rule, least: number): Rule {
  checkRange("floor: least", least, { min: 0, max: 1 });
  return wrap(rule, {
    name: "floor",
    weights: (inner, _, { length: k }) => {
      checkRange("floor: least", least, { min: 0, max: 1 / k });
      return projectBounds(inner, new Float64Array(k).fill(least), new Float64Array(k).fill(1));
    },
  });
}

/** No weight above `most`, 1/k ≤ most ≤ 1 (`config` for too few domains). Keeps the order of the weights. */
export function ceiling(rule: Rule, most: number): Rule {
  checkRange("ceiling: most", most, { min: 0, max: 1, openMin: true });
  return wrap(rule, {
    name: "ceiling",
    weights: (inner, _, { length: k }) => {
      checkRange("ceiling: most", most, { min: 1 / k, max: 1 });
      return projectBounds(inner, new Float64Array(k), new Float64Array(k).fill(most));
    },
  });
}

/** A run of `tokens` takes no more than `budgets[i]` tokens from a domain in expectation: αᵢ ≤ budgetᵢ / tokens. */
export function tokenBudget(
  rule: Rule,
  options: { readonly budgets: ByDomain; readonly tokens: number },
): Rule {
  checkOptions("tokenBudget", options, { budgets: required(numbersByDomain), tokens: required(positive) });
  return capped(rule, "tokenBudget", options.budgets, "budgets", 1 / options.tokens);
}

/** A run of `tokens` goes through a domain of `sizes[i]` tokens at most `repetitions` times in expectation. */
export function repetitionCap(
  rule: Rule,
  options: { readonly sizes: ByDomain; readonly repetitions: number; readonly tokens: number },
): Rule {
  checkOptions("repetitionCap", options, {
    sizes: required(numbersByDomain),
    repetitions: required(positive),
    tokens: required(positive),
  });
  const { sizes, repetitions, tokens } = options;
  return capped(rule, "repetitionCap", sizes, "sizes", repetitions / tokens);
}

/** αᵢ ≤ factor·given[i], by name or in the domains' order. Throws `config` when the caps do not sum to 1. */
function capped(rule: Rule, name: string, given: ByDomain, what: string, factor: number): Rule {
  return wrap(rule, {
    name,
    weights(inner, _, domains) {
      const values = byDomain(given, domains, what, { mustName: true });
      const bad = values.findIndex((value) => !Number.isFinite(value) || value < 0);
      if (bad >= 0)
        throw new GradmixError(
          "config",
          `${what}: "${domains[bad]}" has ${show(values[bad])}; they are finite and ≥ 0`,
        );
      const caps = values.map((value) => Math.min(1, factor * value));
      return projectBounds(inner, new Float64Array(domains.length), caps);
    },
  });
}
