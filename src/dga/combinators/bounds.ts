/**
 * Bounds on the weights that are sampled with: the KL projection onto them (`projectBounds`). The rule inside goes on without them, so a
 * weight that it has driven far below a floor takes as many updates to come back as it took to get there.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, checkRange, numberIn, required, show } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { byDomain, type ByDomain, numbersByDomain } from "../rules/by-domain.ts";
import { projectBounds, sumOf } from "../simplex.ts";
import { wrap } from "./wrap.ts";

const positive = numberIn({ min: 0, openMin: true });

/**
 * No weight below `least`: one number, 0 ≤ least < 1/k, or one for each domain (a domain that is not named has none), which sum to less than 1. Throws `config`, naming the domain.
 * Keeps the order of the weights of domains with one floor.
 */
export function floor(rule: Rule, least: number | ByDomain): Rule {
  if (!isByDomain(least)) checkRange("floor: least", least, { min: 0, max: 1 });
  return wrap(rule, {
    name: "floor",
    weights: (inner, _, domains) =>
      projectBounds(inner, floorsOf(least, domains), new Float64Array(domains.length).fill(1)),
  });
}

/**
 * No weight above `most`: one number, 1/k ≤ most ≤ 1, or some for domains by name (a domain that is not named has none), with which the weights can sum to 1. Throws `config`,
 * naming the domain. Keeps the order of the weights of domains with one ceiling.
 */
export function ceiling(rule: Rule, most: number | ByDomain): Rule {
  if (!isByDomain(most)) checkRange("ceiling: most", most, { min: 0, max: 1, openMin: true });
  return wrap(rule, {
    name: "ceiling",
    weights: (inner, _, domains) =>
      projectBounds(inner, new Float64Array(domains.length), ceilingsOf(most, domains)),
  });
}

/** Numbers by domain, and not one for all; the option may come from a file. */
const isByDomain = (given: unknown): given is ByDomain => typeof given === "object" && given !== null;

/** One floor per domain. Throws `config` for floors that no weights can keep. */
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

/** One ceiling per domain, 1 where none is named. Throws `config` for ceilings that no weights can keep. */
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
      const most = sumOf(caps);
      if (most < 1 - 1e-12)
        throw new GradmixError(
          "config",
          `${name}: ${what}: all domains together may give ${Number(most.toPrecision(3))} of the run's tokens, and must give all; train on fewer tokens, or allow more ${what === "sizes" ? "repetitions" : "of a domain"}`,
        );
      return projectBounds(inner, new Float64Array(domains.length), caps);
    },
  });
}
