/** Shrinkage: the noisy entries of a direction count less. */
import { GradmixError } from "../../errors.ts";
import { needErrors, type Rule, type Step } from "../rule.ts";
import { checkRuleMembers } from "../rule-checks.ts";
import { sumOf } from "../simplex.ts";
import { wrap } from "./wrap.ts";

/**
 * Shrinks every entry of the step's direction towards the mean of the measured ones, according to its standard error: aᵢ′ = ā + (aᵢ − ā)·τ²/(τ² +
 * sᵢ²). The spread of the true values is estimated by moments, τ² = max(0, Var(a) − mean(s²)): empirical Bayes for the normal means problem (James &
 * Stein 1961; Morris, JASA 78, 1983). The direction is what the rule computes from the alignments (cosines, …), and the errors are scaled in the same
 * way. Entries that differ by no more than their errors become equal, so the weights do not move. An unknown standard error counts as the largest
 * known one; if none is known, nothing is shrunk. Throws `config` around a rule that does not step on the alignments with one target.
 */
export function shrinkage(rule: Rule): Rule {
  checkRuleMembers("shrinkage: rule", rule);
  const { needs, stepsOn } = rule;
  if (needs.length > 0 && stepsOn !== "alignments" && stepsOn !== "preconditionedAlignments")
    throw new GradmixError(
      "config",
      `shrinkage: the rule "${rule.name}" uses ${stepsOn ?? needs.join(", ")} for its step; shrinkage works only around a rule that uses alignments with one target`,
    );
  return wrap(rule, {
    name: "shrinkage",
    needs: ["standardErrors"],
    step: (step, given, state) => ({
      ...step,
      direction: shrunk(step, needErrors("shrinkage", state, given)),
    }),
  });
}

function shrunk({ direction, among, errorOf }: Step, given: readonly (number | null)[]): Float64Array {
  const measured = [...direction.keys()].filter((i) => among === null || among[i]);
  const errors = given.map((error, i) => {
    const own = error === null || errorOf === undefined ? null : errorOf(i, error);
    // An error that overflows when it is scaled is replaced by the largest number.
    return own === null ? null : Math.min(own, Number.MAX_VALUE);
  });
  const known = measured.flatMap((i) => errors[i] ?? []);
  const worst = known.reduce((most, error) => Math.max(most, error), 0);
  if (measured.length < 2 || worst === 0) return direction;
  // Relative to the largest number, so that no square overflows.
  const scale = measured.reduce((most, i) => Math.max(most, Math.abs(direction[i]!)), worst);
  const errorsOf = (i: number): number => (errors[i] ?? worst) / scale;
  const mean = sumOf(measured.map((i) => direction[i]! / scale)) / measured.length;
  const variance = sumOf(measured.map((i) => (direction[i]! / scale - mean) ** 2)) / (measured.length - 1);
  const spread = Math.max(0, variance - sumOf(measured.map((i) => errorsOf(i) ** 2)) / measured.length);
  const out = Float64Array.from(direction);
  for (const i of measured) {
    const keep = spread > 0 ? spread / (spread + errorsOf(i) ** 2) : 0;
    out[i] = scale * (mean + keep * (direction[i]! / scale - mean));
  }
  return out;
}
