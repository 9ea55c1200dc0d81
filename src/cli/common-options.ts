/** The options of the section `mixing` that several rules have, and when one of them has no effect. */
import { ruleHas, type RuleName, ruleTraits } from "../dga/rules/index.ts";
import type { CombinatorOptions } from "../dga/combinators/index.ts";
import type { Idle } from "./options/spec.ts";
import type { MixingConfig } from "./train-config.ts";

/** The rules' names for the common options of `MixingConfig`. A rule accepts an option if it has one of these names. */
export const common = {
  eta: ["eta"],
  beta: ["beta"],
  normalise: ["normalise"],
  floor: ["floor"],
  weights: ["weights", "start"],
  histogram: ["histogram", "prior"],
} as const;
export type Common = keyof typeof common;

/** The rule's name of the option, if it accepts it. */
export function nameIn(rule: RuleName, option: Common): string | undefined {
  return common[option].find((name) => ruleHas(rule, name));
}

/** Whether the rule reads this option. */
export function ruleTakes(rule: RuleName, option: Common): boolean {
  return nameIn(rule, option) !== undefined;
}

/** Whether the rule weighs domains by their numbers of tokens, and not only limits them by these. */
export const weighsBySize = (rule: RuleName): boolean =>
  ruleHas(rule, "sizes") && !ruleHas(rule, "repetitions");

/** Whether the rule itself keeps the floor; otherwise a combinator does. */
export const ownFloor = (
  floor: MixingConfig["floor"],
  rule: RuleName,
  guard: MixingConfig["guard"],
): boolean => typeof floor === "number" && ruleTakes(rule, "floor") && guard === null;

/** How the rule normalises alignments; undefined: as is its default. */
export function normaliseOf({ rule, ruleOptions, normalise, preset }: MixingConfig): unknown {
  const published = preset === null ? undefined : ruleTraits(rule).published?.().normalise;
  return ruleOptions["normalise"] ?? normalise ?? published;
}

/** Why an option that rules share has no effect: the rule has no such option, or the options of the rule set it in another way. */
export function idleCommon(mixing: MixingConfig, option: Common): Idle {
  const { rule, ruleOptions, floor, guard } = mixing;
  const name = nameIn(rule, option);
  // Other floors are a combinator around the rule, and hold as well. So does a moving average.
  if (option === "floor" && !ownFloor(floor, rule, guard)) return null;
  if (name === undefined) return option === "beta" ? idleWhenFixed(mixing) : notUsed(rule);
  return Object.hasOwn(ruleOptions, name) ? `mixing.ruleOptions sets ${name}` : null;
}

/** Why an option of how the weights move has no effect: the rule keeps them fixed, and no guard moves them. */
export function idleWhenFixed({ rule, guard, combinators }: MixingConfig): Idle {
  const guarded = guard !== null || combinators.some(({ name }) => name === "guard");
  return ruleTraits(rule).fixed === true && !guarded ? notUsed(rule) : null;
}

/** Why the choice of a prior has no effect. */
export function idlePrior(mixing: MixingConfig): Idle {
  const { rule, ruleOptions } = mixing;
  const { histogram } = ruleTraits(rule);
  if (typeof histogram !== "object") return notUsed(rule);
  const name = nameIn(rule, "histogram");
  if (name !== undefined && Object.hasOwn(ruleOptions, name)) return `mixing.ruleOptions sets ${name}`;
  const normalise = normaliseOf(mixing);
  return histogram.priorWith(normalise)
    ? null
    : `rule ${rule} has no prior with normalise ${String(normalise)}`;
}

/** For each combinator, why it has no effect around the rule and the combinators inside it. */
export function idleCombinators(mixing: MixingConfig): Idle[] {
  const { rule, guard, combinators } = mixing;
  const { fixed = false, countsErrors } = ruleTraits(rule);
  return combinators.map(({ name }, i) => {
    const guarded = guard !== null || combinators.slice(0, i).some((inner) => inner.name === "guard");
    if (fixed && !guarded && ofMoves.includes(name)) return `the weights of rule ${rule} are fixed`;
    return name === "shrinkage" && countsErrors?.(normaliseOf(mixing)) === true
      ? `rule ${rule} already weighs alignments by their standard errors`
      : null;
  });
}

/** Combinators that change how weights move, and so do nothing where they do not move. */
const ofMoves: readonly CombinatorOptions["name"][] = ["ema", "warmup", "etaSchedule", "shrinkage"];

const notUsed = (rule: RuleName): string => `rule ${rule} does not use it`;
