/** The combinators by name, made from plain options; one line each. */
import { GradmixError, PlacedError } from "../../errors.ts";
import { isObject } from "../../json.ts";
import { keysOf } from "../../keys.ts";
import { nearest } from "../../nearest.ts";
import {
  assertOptions,
  integerIn,
  numberIn,
  oneOf,
  type OptionCheck,
  type OptionChecks,
  required,
  show,
  unchecked,
} from "../../options.ts";
import type { RunFacts } from "../facts.ts";
import type { Rule } from "../rule.ts";
import { checkRuleMembers } from "../rule-checks.ts";
import type { ByDomain } from "../rules/by-domain.ts";
import { ceiling, floor, repetitionCap, tokenBudget } from "./bounds.ts";
import { ema } from "./ema.ts";
import { etaSchedule } from "./eta-schedule.ts";
import { guard, type GuardOptions } from "./guard.ts";
import { shrinkage } from "./shrinkage.ts";
import { warmup } from "./warmup.ts";

/** A combinator by its name and options; docs/rules.md describes what each does to the weights of a rule. */
export type CombinatorOptions =
  | {
      /** Averages the weights over the updates. */
      readonly name: "ema";
      /** Weight of the new value in the average, 0 < β ≤ 1. */
      readonly beta: number;
    }
  | {
      /** Keeps every weight at a bound or above it. */
      readonly name: "floor";
      /** The smallest weight: one number for all domains, or numbers by domain. */
      readonly least: number | ByDomain;
    }
  | {
      /** Keeps every weight at a bound or below it. */
      readonly name: "ceiling";
      /** The largest weight: one number for all domains, or numbers by domain. */
      readonly most: number | ByDomain;
    }
  | {
      /** Keeps the expected training tokens of domains within a budget. */
      readonly name: "tokenBudget";
      /** The largest number of training tokens of each domain. */
      readonly budgets: ByDomain;
      /** Training tokens of the whole run. Default: `tokens` of the run's facts. */
      readonly tokens?: number;
    }
  | {
      /** Keeps the run from going through a domain too often. */
      readonly name: "repetitionCap";
      /** How many times the run may go through a domain, in expectation. */
      readonly repetitions: number;
      /** Tokens of each domain. Default: `sizes` of the run's facts. */
      readonly sizes?: ByDomain;
      /** Training tokens of the whole run. Default: `tokens` of the run's facts. */
      readonly tokens?: number;
    }
  | {
      /** Measures the first updates but does not apply them. */
      readonly name: "warmup";
      /** Number of updates that are not applied. */
      readonly updates: number;
    }
  | {
      /** Decreases the step size η over the updates. */
      readonly name: "etaSchedule";
      /** Shape of the decay. */
      readonly decay: "linear" | "cosine";
      /** Number of updates over which η decays. */
      readonly updates: number;
      /** Final η as a share of the initial η. Default 0. */
      readonly final?: number;
    }
  | {
      /** Shortens the parts of a step that are mostly noise. */
      readonly name: "shrinkage";
    }
  | ({
      /** Bounds how far the held-out losses of domains may rise. */
      readonly name: "guard";
    } & GuardOptions);

type Of<K extends CombinatorOptions["name"]> = Extract<CombinatorOptions, { name: K }>;

/** The combinator itself checks the value. */
const given: OptionCheck = required(unchecked);

const registry: {
  readonly [K in CombinatorOptions["name"]]: {
    readonly checks: OptionChecks<Omit<Of<K>, "name">>;
    readonly make: (rule: Rule, options: Of<K>, facts: RunFacts) => Rule;
  };
} = {
  ema: {
    checks: { beta: given },
    make: (rule, { beta }) => ema(rule, beta),
  },
  floor: { checks: { least: given }, make: (rule, { least }) => floor(rule, least) },
  ceiling: { checks: { most: given }, make: (rule, { most }) => ceiling(rule, most) },
  tokenBudget: {
    checks: { budgets: given, tokens: unchecked },
    make: (rule, { budgets, tokens }, facts) =>
      tokenBudget(rule, { budgets, tokens: requiredValue("tokenBudget", "tokens", tokens ?? facts.tokens) }),
  },
  repetitionCap: {
    checks: { repetitions: given, sizes: unchecked, tokens: unchecked },
    make: (rule, { repetitions, sizes, tokens }, facts) =>
      repetitionCap(rule, {
        repetitions,
        sizes: requiredValue("repetitionCap", "sizes", sizes ?? facts.sizes),
        tokens: requiredValue("repetitionCap", "tokens", tokens ?? facts.tokens),
      }),
  },
  warmup: { checks: { updates: given }, make: (rule, { updates }) => warmup(rule, updates) },
  etaSchedule: {
    checks: {
      decay: required(oneOf("linear", "cosine")),
      updates: required(integerIn(1)),
      final: numberIn({ min: 0, max: 1 }),
    },
    make: (rule, options) => scheduled(rule, options),
  },
  shrinkage: { checks: {}, make: (rule) => shrinkage(rule) },
  guard: {
    checks: { limits: given, references: unchecked, caps: unchecked, most: unchecked, rate: unchecked },
    make: (rule, { name: _name, ...options }) => guard(rule, options),
  },
};

/** Names of the combinators that `combine` accepts. */
export const combinatorNames: readonly string[] = Object.keys(registry);

/** Whether one of the combinators needs the run's tokens because its own options do not give them. */
export function countsRunTokens(list: readonly CombinatorOptions[]): boolean {
  return list.some(
    (options) =>
      (options.name === "tokenBudget" || options.name === "repetitionCap") && options.tokens === undefined,
  );
}

/** Whether one of the combinators needs the tokens of each domain because its own options do not give them. */
export function needsSizes(list: readonly CombinatorOptions[]): boolean {
  return list.some((options) => options.name === "repetitionCap" && options.sizes === undefined);
}

/**
 * Puts combinators around a rule; the first of the list is the innermost. Throws `config`, naming the position in the list, for an unknown name or
 * option (the message suggests the nearest one) and for options out of range.
 */
export function combine(rule: Rule, list: readonly CombinatorOptions[], facts: RunFacts = {}): Rule {
  checkRuleMembers("combine: rule", rule);
  return placed(list).reduce<Rule>(
    (inner, { at, options }) => inPlace(at, () => build(inner, checked(options), facts)),
    rule,
  );
}

/**
 * Checks options of combinators that came from a file or a message. Throws `config`, naming the position in the list, for an unknown name or option;
 * the combinators check the values when they are put around a rule. Not part of the package's interface.
 */
export function combinatorsFrom(given: unknown): CombinatorOptions[] {
  return placed(given).map(({ at, options }) => inPlace(at, () => checked(options)));
}

function checked(options: unknown): CombinatorOptions {
  assertCombinator(nameOf(options), options);
  return options;
}

interface Placed {
  readonly at: number;
  readonly options: unknown;
}

function placed(list: unknown): Placed[] {
  if (!Array.isArray(list))
    throw new PlacedError("config", `combinators: ${show(list)} does not fit; it must be a list of options`, [
      "combinators",
    ]);
  return list.map((options: unknown, at) => ({ at, options }));
}

/** Adds the position in the list to an error. */
function inPlace<T>(at: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    const place = ["combinators", String(at)];
    throw new PlacedError(error.code, `combinators[${at}]: ${error.message}`, place, { cause: error });
  }
}

function nameOf(options: unknown): CombinatorOptions["name"] {
  const name: unknown = isObject(options) ? options["name"] : undefined;
  const known = keysOf(registry).find((one) => one === name);
  if (known !== undefined) return known;
  const close = typeof name === "string" ? nearest(name, combinatorNames) : null;
  const hint =
    close === null ? `the combinators are ${combinatorNames.join(", ")}` : `did you mean "${close}"?`;
  const what =
    name === undefined
      ? `${isObject(options) ? "the options have" : `${show(options)} has`} no name of a combinator`
      : `there is no combinator ${show(name)}`;
  throw new GradmixError("config", `${what}; ${hint}`);
}

/** Checks the options other than `name`, which selects the combinator. */
function assertCombinator<K extends CombinatorOptions["name"]>(
  name: K,
  given: unknown,
): asserts given is Of<K> {
  const { name: _name, ...options } = isObject(given) ? given : {};
  assertOptions<Omit<Of<K>, "name">>(name, options, registry[name].checks);
}

function build<K extends CombinatorOptions["name"]>(rule: Rule, options: Of<K>, facts: RunFacts): Rule {
  return registry[options.name].make(rule, options, facts);
}

function scheduled(rule: Rule, { decay, updates, final = 0 }: Of<"etaSchedule">): Rule {
  return etaSchedule(rule, (update) => {
    const part = Math.min(1, update / updates);
    const left = decay === "linear" ? 1 - part : (1 + Math.cos(Math.PI * part)) / 2;
    return final + (1 - final) * left;
  });
}

function requiredValue<T>(name: string, option: string, value: T | undefined): T {
  if (value === undefined) throw new GradmixError("config", `${name}: it needs ${option}`);
  return value;
}
