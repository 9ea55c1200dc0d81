/** The combinators by name, from plain options: one line each. */
import { GradmixError } from "../../errors.ts";
import { isObject } from "../../json.ts";
import { nearest } from "../../nearest.ts";
import {
  checkOptions,
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
import type { ByDomain } from "../rules/by-domain.ts";
import { ceiling, floor, repetitionCap, tokenBudget } from "./bounds.ts";
import { ema } from "./ema.ts";
import { etaSchedule } from "./eta-schedule.ts";
import { guard, type GuardOptions } from "./guard.ts";
import { shrinkage } from "./shrinkage.ts";
import { warmup } from "./warmup.ts";

export type CombinatorOptions =
  | { readonly name: "ema"; readonly beta: number }
  | { readonly name: "floor"; readonly least: number | ByDomain }
  | { readonly name: "ceiling"; readonly most: number | ByDomain }
  | { readonly name: "tokenBudget"; readonly budgets: ByDomain; readonly tokens?: number }
  | {
      readonly name: "repetitionCap";
      readonly repetitions: number;
      readonly sizes?: ByDomain;
      readonly tokens?: number;
    }
  | { readonly name: "warmup"; readonly updates: number }
  /** η falls over `updates` updates to `final` (default 0) of itself. */
  | {
      readonly name: "etaSchedule";
      readonly decay: "linear" | "cosine";
      readonly updates: number;
      readonly final?: number;
    }
  | { readonly name: "shrinkage" }
  | ({ readonly name: "guard" } & GuardOptions);

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
      tokenBudget(rule, { budgets, tokens: known("tokenBudget", "tokens", tokens ?? facts.tokens) }),
  },
  repetitionCap: {
    checks: { repetitions: given, sizes: unchecked, tokens: unchecked },
    make: (rule, { repetitions, sizes, tokens }, facts) =>
      repetitionCap(rule, {
        repetitions,
        sizes: known("repetitionCap", "sizes", sizes ?? facts.sizes),
        tokens: known("repetitionCap", "tokens", tokens ?? facts.tokens),
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

export const combinatorNames: readonly string[] = Object.keys(registry);

/** Does one of them count with the tokens of the run, having none of its own? */
export function countsRunTokens(list: readonly CombinatorOptions[]): boolean {
  return list.some(
    (options) =>
      (options.name === "tokenBudget" || options.name === "repetitionCap") && options.tokens === undefined,
  );
}

/**
 * Puts combinators around a rule, the first next to it. Throws `config`, with the place in the list, for an unknown name or option (the nearest
 * one is offered) and for options out of range.
 */
export function combine(rule: Rule, list: readonly CombinatorOptions[], facts: RunFacts = {}): Rule {
  const entries: unknown = list;
  if (!Array.isArray(entries))
    throw new GradmixError(
      "config",
      `combinators: ${show(entries)} does not fit; it must be a list of options`,
    );
  return list.reduce<Rule>((inner, options, at) => {
    try {
      return one(inner, options, facts);
    } catch (error) {
      if (!(error instanceof GradmixError)) throw error;
      throw new GradmixError(error.code, `combinators[${at}]: ${error.message}`, { cause: error });
    }
  }, rule);
}

function one<K extends CombinatorOptions["name"]>(rule: Rule, options: Of<K>, facts: RunFacts): Rule {
  // The options often come from a file, so the type is only a promise.
  const name: unknown = isObject(options) ? options["name"] : undefined;
  if (typeof name !== "string" || !Object.hasOwn(registry, name)) {
    const close = typeof name === "string" ? nearest(name, combinatorNames) : null;
    const hint =
      close === null ? `the combinators are ${combinatorNames.join(", ")}` : `did you mean "${close}"?`;
    throw new GradmixError("config", `there is no combinator ${show(name)}; ${hint}`);
  }
  const { make, checks } = registry[options.name];
  const { name: _name, ...own } = options;
  checkOptions<Omit<Of<K>, "name">>(name, own, checks);
  return make(rule, options, facts);
}

function scheduled(rule: Rule, { decay, updates, final = 0 }: Of<"etaSchedule">): Rule {
  return etaSchedule(rule, (update) => {
    const part = Math.min(1, update / updates);
    const left = decay === "linear" ? 1 - part : (1 + Math.cos(Math.PI * part)) / 2;
    return final + (1 - final) * left;
  });
}

function known<T>(name: string, option: string, value: T | undefined): T {
  if (value === undefined) throw new GradmixError("config", `${name}: it needs ${option}`);
  return value;
}
