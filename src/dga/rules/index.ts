/** The rules by name; one line each. */
import { GradmixError } from "../../errors.ts";
import { isObject } from "../../json.ts";
import { keysOf } from "../../keys.ts";
import { nearest } from "../../nearest.ts";
import type { RunFacts } from "../facts.ts";
import type { Rule } from "../rule.ts";
import { assertOptions, checkSome, type OptionChecks, show, withDefaults, object } from "../../options.ts";
import { ado, adoChecks, type AdoOptions } from "./ado.ts";
import { dga, dgaChecks, type DgaOptions, dgaTraits, hasPrior } from "./dga.ts";
import { doge, dogeChecks, type DogeOptions } from "./doge.ts";
import { doremi, doremiChecks, type DoremiOptions, doremiTraits } from "./doremi.ts";
import { grape, grapeChecks, type GrapeOptions, grapeTraits } from "./grape.ts";
import {
  importanceSampling,
  importanceSamplingChecks,
  importanceSamplingTraits,
  type ImportanceSamplingOptions,
} from "./importance-sampling.ts";
import { odm, odmChecks, type OdmOptions } from "./odm.ts";
import { rnb, rnbChecks, type RnbOptions } from "./rnb.ts";
import { staticChecks, staticTraits, staticWeights, type StaticOptions } from "./static.ts";
import { temperature, temperatureChecks, type TemperatureOptions, temperatureTraits } from "./temperature.ts";
import type { RuleTraits } from "./traits.ts";
import { uniform, uniformChecks, type UniformOptions, uniformTraits } from "./uniform.ts";

/** A built-in rule by its name and options; docs/rules.md describes each. */
export type RuleOptions =
  | UniformOptions
  | StaticOptions
  | TemperatureOptions
  | ImportanceSamplingOptions
  | DgaOptions
  | DogeOptions
  | GrapeOptions
  | RnbOptions
  | DoremiOptions
  | OdmOptions
  | AdoOptions;
/** Name of a built-in rule. */
export type RuleName = RuleOptions["name"];

type Of<K extends RuleName> = Extract<RuleOptions, { name: K }>;

interface Registered<O extends RuleOptions> {
  readonly make: (options: O) => Rule;
  readonly checks: OptionChecks<O>;
  readonly traits?: RuleTraits<O>;
  /** Computes the options that the facts of a run supply if they are left out. */
  readonly fromFacts?: (
    facts: RunFacts,
    given: Readonly<Record<string, unknown>>,
  ) => { readonly [K in keyof O]?: unknown };
}

const registry: { readonly [K in RuleName]: Registered<Of<K>> } = {
  uniform: { make: uniform, checks: uniformChecks, traits: uniformTraits },
  static: { make: staticWeights, checks: staticChecks, traits: staticTraits },
  temperature: {
    make: temperature,
    checks: temperatureChecks,
    traits: temperatureTraits,
    fromFacts: ({ sizes }) => ({ sizes }),
  },
  importanceSampling: {
    make: importanceSampling,
    checks: importanceSamplingChecks,
    traits: importanceSamplingTraits,
    fromFacts: ({ histogram }) => ({ histogram }),
  },
  dga: {
    make: dga,
    checks: dgaChecks,
    traits: dgaTraits,
    fromFacts: ({ sizes, tokens, histogram }, { normalise, repetitions }) => ({
      ...(hasPrior(normalise) ? { prior: histogram } : {}),
      ...(hasPrior(normalise) || repetitions !== undefined ? { sizes, tokens } : {}),
    }),
  },
  doge: { make: doge, checks: dogeChecks },
  grape: { make: grape, checks: grapeChecks, traits: grapeTraits },
  rnb: { make: rnb, checks: rnbChecks },
  doremi: { make: doremi, checks: doremiChecks, traits: doremiTraits },
  odm: { make: odm, checks: odmChecks },
  ado: { make: ado, checks: adoChecks, fromFacts: ({ sizes }) => ({ sizes }) },
};

/** Names of the built-in rules. */
export const ruleNames: readonly RuleName[] = keysOf(registry);

export function isRuleName(name: unknown): name is RuleName {
  return typeof name === "string" && Object.hasOwn(registry, name);
}

/** What is asked of a rule before one is made. */
export function ruleTraits(rule: RuleName): Omit<RuleTraits, "repetitions"> {
  return registry[rule].traits ?? {};
}

/** Names of the rules of which this is true. */
export function rulesWith(trait: keyof RuleTraits): readonly RuleName[] {
  return ruleNames.filter((name) => registry[name].traits?.[trait] !== undefined);
}

/** How often the rule's weights let a domain be repeated; Infinity for a rule that does not limit it. */
export function mostRepetitionsOf<K extends RuleName>(options: Of<K>, domains: readonly string[]): number {
  return registry[options.name].traits?.repetitions?.most(options, domains) ?? Infinity;
}

/** The largest weight of each domain for the limit on repetitions; null for a rule without one. */
export function repetitionCapsOf<K extends RuleName>(
  options: Of<K>,
  domains: readonly string[],
): readonly number[] | null {
  return registry[options.name].traits?.repetitions?.caps(options, domains) ?? null;
}

/** The facts of a run that supply options of the rule which are not among those given. */
export function factsOfRule(
  rule: RuleName,
  given: Readonly<Record<string, unknown>>,
): ReadonlySet<keyof RunFacts> {
  // Found again in the options by their identity.
  const marks: Required<RunFacts> = { sizes: {}, tokens: -1, histogram: {} };
  const supplied = Object.entries(registry[rule].fromFacts?.(marks, given) ?? {})
    .filter(([name]) => !Object.hasOwn(given, name))
    .map(([, value]) => value);
  return new Set(keysOf(marks).filter((fact) => supplied.includes(marks[fact])));
}

/** Whether the rule has an option of this name. */
export function ruleHas(rule: RuleName, option: string): boolean {
  return Object.hasOwn(registry[rule].checks, option);
}

/** Checks some of a rule's options, while others may be missing. Throws `config`; `where` begins the error. */
export function checkRuleOptions(
  rule: RuleName,
  given: Readonly<Record<string, unknown>>,
  where: string,
): void {
  checkSome(`${where}: ${rule}`, given, registry[rule].checks);
}

/** The name in the options. Throws `config` for an unknown name, suggesting the nearest one. */
function nameOf(given: unknown): RuleName {
  const name: unknown = isObject(given) ? given["name"] : undefined;
  if (isRuleName(name)) return name;
  const close = typeof name === "string" ? nearest(name, ruleNames) : null;
  const hint = close === null ? `the rules are ${ruleNames.join(", ")}` : `did you mean "${close}"?`;
  const what = name === undefined ? "the options have no name of a rule" : `there is no rule ${show(name)}`;
  throw new GradmixError("config", `rule: ${what}; ${hint}`);
}

function checkedOptions<K extends RuleName>(name: K, given: unknown, facts: RunFacts): Of<K> {
  const { checks, fromFacts } = registry[name];
  const whole: unknown = isObject(given) ? withDefaults(fromFacts?.(facts, given) ?? {}, given) : given;
  assertOptions(name, whole, checks);
  return whole;
}

/**
 * Checks options of a rule that came from a file or a message; `facts` supply those that were left out. Throws like `createRule`. Not part of the
 * package's interface.
 */
export function ruleOptionsFrom(given: unknown, facts: RunFacts = {}): RuleOptions {
  return checkedOptions(nameOf(given), given, facts);
}

/**
 * Makes the rule with the given options; `facts` supply options that are left out. Throws `config` for an unknown name, suggesting the nearest one,
 * and for options out of range.
 */
export function createRule<K extends RuleName>(options: Of<K>, facts: RunFacts = {}): Rule {
  object("createRule: facts", facts);
  return build(ruleOptionsFrom(options, facts));
}

function build<K extends RuleName>(options: Of<K>): Rule {
  return registry[options.name].make(options);
}
