/** A schedule of the step size η. */
import { GradmixError } from "../../errors.ts";
import { callback, checkRange } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { checkRuleMembers } from "../rule-checks.ts";
import { wrap } from "./wrap.ts";

/**
 * Takes update t (counted from 0) with the step size η·factor(t), 0 ≤ factor ≤ 1, whatever the direction of the step is computed from. (It does not
 * change μ of `grape`, the step size of its target weights.) Throws `config` around a rule without such a step, and at an update whose factor is out
 * of range.
 */
export function etaSchedule(rule: Rule, factor: (update: number) => number): Rule {
  callback("etaSchedule: factor", factor);
  checkRuleMembers("etaSchedule: rule", rule);
  if (rule.needs.length > 0 && rule.stepsOn === undefined)
    throw new GradmixError(
      "config",
      `etaSchedule: the rule "${rule.name}" has no step size η; leave the schedule out`,
    );
  return wrap(rule, {
    name: "etaSchedule",
    step(step, _given, _state, update) {
      const scale = factor(update);
      checkRange(`etaSchedule: factor of update ${update}`, scale, { min: 0, max: 1 });
      return { ...step, eta: scale * step.eta };
    },
  });
}
