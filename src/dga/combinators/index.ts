/** The combinators by name, from plain options: one line each. */
import { GradmixError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import { checkRange, show } from "../../options.ts";
import { checkOptionNames, type Rule } from "../rule.ts";
import { ceiling, floor, repetitionCap, tokenBudget } from "./bounds.ts";
import { ema } from "./ema.ts";
import { etaSchedule } from "./eta-schedule.ts";
import { shrinkage } from "./shrinkage.ts";
import { warmup } from "./warmup.ts";

type ByDomain = readonly number[] | Readonly<Record<string, number>>;

export type CombinatorOptions =
  | { readonly name: "ema"; readonly beta: number }
  | { readonly name: "floor"; readonly least: number }
  | { readonly name: "ceiling"; readonly most: number }
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
  | { readonly name: "shrinkage" };

/** What is known of a run, for options that were left out. */
export interface RunFacts {
  /** Tokens of each domain. */
  readonly sizes?: ByDomain;
  /** Training tokens of the whole run. */
  readonly tokens?: number;
}

type Of<K extends CombinatorOptions["name"]> = Extract<CombinatorOptions, { name: K }>;

const registry: {
  readonly [K in CombinatorOptions["name"]]: {
    readonly options: readonly string[];
    readonly make: (rule: Rule, options: Of<K>, facts: RunFacts) => Rule;
  };
} = {
  ema: { options: ["beta"], make: (rule, { beta }) => ema(rule, beta) },
  floor: { options: ["least"], make: (rule, { least }) => floor(rule, least) },
  ceiling: { options: ["most"], make: (rule, { most }) => ceiling(rule, most) },
  tokenBudget: {
    options: ["budgets", "tokens"],
    make: (rule, { budgets, tokens }, facts) =>
      tokenBudget(rule, { budgets, tokens: given("tokenBudget", "tokens", tokens ?? facts.tokens) }),
  },
  repetitionCap: {
    options: ["repetitions", "sizes", "tokens"],
    make: (rule, { repetitions, sizes, tokens }, facts) =>
      repetitionCap(rule, {
        repetitions,
        sizes: given("repetitionCap", "sizes", sizes ?? facts.sizes),
        tokens: given("repetitionCap", "tokens", tokens ?? facts.tokens),
      }),
  },
  warmup: { options: ["updates"], make: (rule, { updates }) => warmup(rule, updates) },
  etaSchedule: { options: ["decay", "updates", "final"], make: (rule, options) => scheduled(rule, options) },
  shrinkage: { options: [], make: (rule) => shrinkage(rule) },
};

export const combinatorNames: readonly string[] = Object.keys(registry);

/**
 * Puts combinators around a rule, the first next to it. Throws `config`, with the place in the list, for an unknown name or option (the nearest
 * one is offered) and for options out of range.
 */
export function combine(rule: Rule, list: readonly CombinatorOptions[], facts: RunFacts = {}): Rule {
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
  const name: unknown = typeof options === "object" && options !== null ? options.name : undefined;
  if (typeof name !== "string" || !Object.hasOwn(registry, name)) {
    const close = typeof name === "string" ? nearest(name, combinatorNames) : null;
    const hint =
      close === null ? `the combinators are ${combinatorNames.join(", ")}` : `did you mean "${close}"?`;
    throw new GradmixError("config", `there is no combinator ${show(name)}; ${hint}`);
  }
  const { make, options: known } = registry[options.name];
  checkOptionNames(name, options, known);
  return make(rule, options, facts);
}

function scheduled(rule: Rule, { decay, updates, final = 0 }: Of<"etaSchedule">): Rule {
  checkRange("updates", updates, { min: 1, max: Infinity, openMax: true, integer: true });
  checkRange("final", final, { min: 0, max: 1 });
  if (decay !== "linear" && decay !== "cosine")
    throw new GradmixError("config", `decay: there is no ${show(decay)}; it is "linear" or "cosine"`);
  return etaSchedule(rule, (update) => {
    const part = Math.min(1, update / updates);
    const left = decay === "linear" ? 1 - part : (1 + Math.cos(Math.PI * part)) / 2;
    return Math.min(1, Math.max(0, final + (1 - final) * left));
  });
}

function given<T>(name: string, option: string, value: T | undefined): T {
  if (value === undefined) throw new GradmixError("config", `${name}: it needs ${option}`);
  return value;
}
