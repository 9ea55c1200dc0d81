/**
 * Bounds on the sampled weights. A floor and a ceiling project the weights in KL divergence (`projectBounds`). Limits on what the domains can supply
 * distribute the excess as `dga` does (`limitByCaps`). The inner rule continues without the bounds, so a weight that it has driven far below a floor
 * needs as many updates to return as it took to get there.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, checkRange, numberIn, required, show } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { byDomain, type ByDomain, numbersByDomain, ownOptions } from "../rules/by-domain.ts";
import { limitByCaps, projectBounds, sumOf } from "../simplex.ts";
import { wrap } from "./wrap.ts";

const positive = numberIn({ min: 0, openMin: true });

/**
 * Keeps every sampled weight at `least` or above it: one number for all domains, 0 ≤ least < 1/k, or numbers by domain that sum to less than 1 (a
 * domain that is not named has no floor). Keeps the order of the weights of domains that have the same floor. Throws `config`, naming the domain.
 */
export function floor(rule: Rule, least: number | ByDomain): Rule {
  if (!isByDomain(least)) checkRange("floor: least", least, { min: 0, max: 1 });
  const own = ownOptions({ least });
  return wrap(rule, {
    name: "floor",
    weights: (inner, _, domains) =>
      projectBounds(inner, floorsOf(own.least, domains), new Float64Array(domains.length).fill(1)),
  });
}

/**
 * Keeps every sampled weight at `most` or below it: one number for all domains, 1/k ≤ most ≤ 1, or numbers for some domains by name (a domain that is
 * not named has no ceiling), with which weights can still sum to 1. Keeps the order of the weights of domains that have the same ceiling. Throws
 * `config`, naming the domain.
 */
export function ceiling(rule: Rule, most: number | ByDomain): Rule {
  if (!isByDomain(most)) checkRange("ceiling: most", most, { min: 0, max: 1, openMin: true });
  const own = ownOptions({ most });
  return wrap(rule, {
    name: "ceiling",
    weights: (inner, _, domains) =>
      projectBounds(inner, new Float64Array(domains.length), ceilingsOf(own.most, domains)),
  });
}

/** Whether the option has numbers by domain, not one number for all. The option may come from a file. */
const isByDomain = (given: unknown): given is ByDomain => typeof given === "object" && given !== null;

/** One floor per domain. Throws `config` for floors that no weights can satisfy. */
function floorsOf(least: number | ByDomain, domains: readonly string[]): ArrayLike<number> {
  const k = domains.length;
  if (typeof least === "number") {
    checkRange("floor: least", least, { min: 0, max: 1 / k });
    return new Float64Array(k).fill(least);
  }
  const floors = byDomain(least, domains, "floor: least");
  floors.forEach((value, i) => checkRange(`floor: least: "${domains[i]}"`, value, { min: 0, max: 1 }));
  const sum = sumOf(floors);
  if (sum > 1) throw new GradmixError("config", `floor: least: the floors sum to ${sum}; weights sum to 1`);
  return floors;
}

/** One ceiling per domain, 1 for a domain that is not named. Throws `config` for ceilings that no weights can satisfy. */
function ceilingsOf(most: number | ByDomain, domains: readonly string[]): ArrayLike<number> {
  const k = domains.length;
  if (typeof most === "number") {
    checkRange("ceiling: most", most, { min: 1 / k, max: 1 });
    return new Float64Array(k).fill(most);
  }
  const given = byDomain(most, domains, "ceiling: most");
  const ceilings = given.map((value, i) =>
    Array.isArray(most) || Object.hasOwn(most, domains[i]!) ? value : 1,
  );
  ceilings.forEach((value, i) => checkRange(`ceiling: most: "${domains[i]}"`, value, { min: 0, max: 1 }));
  const sum = sumOf(ceilings);
  if (sum < 1)
    throw new GradmixError("config", `ceiling: most: the ceilings sum to ${sum}; weights sum to 1`);
  return ceilings;
}

/**
 * Limits the tokens that a run of `tokens` tokens draws from domain i to `budgets[i]` in expectation: αᵢ ≤ budgetᵢ / tokens. What exceeds
 * the budgets goes to the other domains (`limitByCaps`). Throws `config` when the budgets together are less than `tokens`.
 */
export function tokenBudget(
  rule: Rule,
  options: { readonly budgets: ByDomain; readonly tokens: number },
): Rule {
  checkOptions("tokenBudget", options, { budgets: required(numbersByDomain), tokens: required(positive) });
  return capped(rule, "tokenBudget", options.budgets, "budgets", 1 / options.tokens);
}

/**
 * Limits how often a run of `tokens` tokens goes through a domain of `sizes[i]` tokens to `repetitions` times in expectation. What exceeds
 * this goes to the other domains (`limitByCaps`). Throws `config` when all domains together cannot supply `tokens`.
 */
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

/** Limits αᵢ to factor·given[i], with the numbers by name or in the order of the domains. Throws `config` when the caps sum to less than 1. */
function capped(rule: Rule, name: string, numbers: ByDomain, what: string, factor: number): Rule {
  const { numbers: given } = ownOptions({ numbers });
  return wrap(rule, {
    name,
    weights(inner, _, domains) {
      const values = byDomain(given, domains, `${name}: ${what}`, { mustName: true });
      const bad = values.findIndex((value) => !Number.isFinite(value) || value < 0);
      if (bad >= 0)
        throw new GradmixError(
          "config",
          `${name}: ${what}: "${domains[bad]}" has ${show(values[bad])}; they are finite and ≥ 0`,
        );
      const caps = values.map((value) => Math.min(1, factor * value));
      const most = sumOf(caps);
      if (most < 1 - 1e-12)
        throw new GradmixError(
          "config",
          `${name}: ${what}: all domains together can supply only ${Number(most.toPrecision(3))} of the run's tokens; train on fewer tokens, or allow more ${what === "sizes" ? "repetitions" : "tokens of a domain"}`,
        );
      return limitByCaps(inner, caps);
    },
  });
}
