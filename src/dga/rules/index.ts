/** The rules by name: one line each. */
import { GradmixError } from "../../errors.ts";
import { isObject } from "../../json.ts";
import { nearest } from "../../nearest.ts";
import type { RunFacts } from "../facts.ts";
import type { Rule } from "../rule.ts";
import { show, withDefaults } from "../../options.ts";
import { ado, type AdoOptions } from "./ado.ts";
import { dga, dgaDefaults, type DgaOptions } from "./dga.ts";
import { doge, type DogeOptions } from "./doge.ts";
import { doremi, type DoremiOptions } from "./doremi.ts";
import { grape, type GrapeOptions } from "./grape.ts";
import { importanceSampling, type ImportanceSamplingOptions } from "./importance-sampling.ts";
import { odm, type OdmOptions } from "./odm.ts";
import { rnb, type RnbOptions } from "./rnb.ts";
import { staticWeights, type StaticOptions } from "./static.ts";
import { temperature, type TemperatureOptions } from "./temperature.ts";
import { uniform, type UniformOptions } from "./uniform.ts";

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
export type RuleName = RuleOptions["name"];

const registry: { readonly [K in RuleName]: (options: Extract<RuleOptions, { name: K }>) => Rule } = {
  uniform,
  static: staticWeights,
  temperature,
  importanceSampling,
  dga,
  doge,
  grape,
  rnb,
  doremi,
  odm,
  ado,
};

export const ruleNames: readonly string[] = Object.keys(registry);

/** The options that facts fill in where they are left out. An untracked `dga` is the paper's, which has neither prior nor caps. */
const takes: {
  readonly [K in RuleName]?: (
    facts: RunFacts,
    options: Extract<RuleOptions, { name: K }>,
  ) => { readonly [O in keyof Extract<RuleOptions, { name: K }>]?: unknown };
} = {
  temperature: ({ sizes }) => ({ sizes }),
  importanceSampling: ({ histogram }) => ({ histogram }),
  dga: ({ sizes, tokens, histogram }, { normalise = dgaDefaults.normalise }) =>
    normalise === "tracked" ? { sizes, tokens, prior: histogram } : {},
  ado: ({ sizes }) => ({ sizes }),
};

/** The options with what `facts` say of those that were left out. */
export function withFacts<K extends RuleName>(
  options: Extract<RuleOptions, { name: K }>,
  facts: RunFacts,
): Extract<RuleOptions, { name: K }> {
  return withDefaults(takes[options.name]?.(facts, options) ?? {}, options);
}

/**
 * The rule of the given options; `facts` fill in what the rule takes of them. Throws `config` for an unknown name, offering the nearest one, and for options
 * out of range.
 */
export function createRule<K extends RuleName>(
  options: Extract<RuleOptions, { name: K }>,
  facts: RunFacts = {},
): Rule {
  // The options often come from a file, so the type is only a promise.
  const given: unknown = options;
  const name: unknown = isObject(given) ? given["name"] : undefined;
  if (typeof name !== "string" || !Object.hasOwn(registry, name)) {
    const close = typeof name === "string" ? nearest(name, ruleNames) : null;
    const hint = close === null ? `the rules are ${ruleNames.join(", ")}` : `did you mean "${close}"?`;
    throw new GradmixError("config", `rule: there is no rule ${show(name)}; ${hint}`);
  }
  return registry[options.name](withFacts(options, facts));
}
