/** A schedule of the step size η. */
import { checkRange, need, type Rule } from "../rule.ts";
import { wrap } from "./wrap.ts";

/**
 * Multiplies the alignments of update t (from 0) by factor(t), 0 ≤ factor ≤ 1. For a mirror step on ⟨gᵢ, g⟩ that is a step size of
 * η·factor(t), whatever the alignments are divided by. Throws `config` at an update whose factor is out of range.
 */
export function etaSchedule(rule: Rule, factor: (update: number) => number): Rule {
  return wrap(rule, {
    name: "etaSchedule",
    needs: ["alignments"],
    signal(given, state, update) {
      const scale = factor(update);
      checkRange(`factor of update ${update}`, scale, { min: 0, max: 1 });
      const values = need("etaSchedule", state, given, "alignments");
      return { ...given, alignments: Array.from(values, (a) => scale * a) };
    },
  });
}
