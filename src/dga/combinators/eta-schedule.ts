/** A schedule of the step size η. */
import { checkRange } from "../../options.ts";
import { need, type Rule } from "../rule.ts";
import { stepsOn, wrap } from "./wrap.ts";

/**
 * Multiplies the alignments of update t (from 0) by factor(t), 0 ≤ factor ≤ 1. For a mirror step on ⟨gᵢ, g⟩ that is a step size of
 * η·factor(t), whatever the alignments are divided by (with several targets, of both steps). Throws `config` around a rule that does not
 * step on alignments, and at an update whose factor is out of range.
 */
export function etaSchedule(rule: Rule, factor: (update: number) => number): Rule {
  const parts = stepsOn("etaSchedule", rule, ["alignments", "preconditionedAlignments", "targets"]);
  return wrap(rule, {
    name: "etaSchedule",
    signal(given, state, update) {
      const scale = factor(update);
      checkRange(`factor of update ${update}`, scale, { min: 0, max: 1 });
      const scaled = { ...given };
      for (const part of parts)
        if (part !== "targets")
          scaled[part] = Array.from(need("etaSchedule", state, given, part), (a) => scale * a);
        else if (given.targets !== undefined)
          scaled.targets = given.targets.map((target) => ({
            ...target,
            alignments: Array.from(target.alignments, (a) => scale * a),
          }));
      return scaled;
    },
  });
}
