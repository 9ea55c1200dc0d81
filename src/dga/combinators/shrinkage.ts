/** Alignments that are mostly noise count less. */
import { GradmixError } from "../../errors.ts";
import { measuredDomains, need, type Rule, type RuleState, type Signal } from "../rule.ts";
import { sumOf } from "../simplex.ts";
import { stepsOn, wrap } from "./wrap.ts";

/**
 * Shrinks every alignment towards the mean of the measured ones by its standard error, aᵢ′ = ā + (aᵢ − ā)·τ²/(τ² + sᵢ²), with the spread of the true
 * alignments estimated by moments, τ² = max(0, Var(a) − mean(s²)): empirical Bayes for the normal means problem (James & Stein 1961; Morris,
 * JASA 78, 1983). Alignments that differ by no more than their errors become equal, and the rule rests. A standard error that is not known
 * counts as the largest that is; if none is, nothing is shrunk. Throws `config` around a rule that does not step on the alignments with one
 * target.
 */
export function shrinkage(rule: Rule): Rule {
  const parts = stepsOn("shrinkage", rule, ["alignments", "preconditionedAlignments"]);
  return wrap(rule, {
    name: "shrinkage",
    needs: ["standardErrors"],
    signal(given, state) {
      const shrunken = { ...given };
      for (const part of parts) shrunken[part] = Array.from(shrunk(given, state, part));
      return shrunken;
    },
  });
}

function shrunk(
  given: Signal,
  state: RuleState,
  part: "alignments" | "preconditionedAlignments",
): Float64Array {
  const values = need("shrinkage", state, given, part);
  const measured = measuredDomains("shrinkage", state, given);
  const there = [...values.keys()].filter((i) => measured === null || measured[i]);
  const errors = given.standardErrors;
  if (errors === undefined) throw new GradmixError("config", "shrinkage: the signal has no standardErrors");
  if (errors.length !== values.length)
    throw new GradmixError(
      "config",
      `shrinkage: ${errors.length} standardErrors for ${values.length} domains`,
    );
  for (const i of there) {
    const error = errors[i];
    if (error !== null && (!Number.isFinite(error) || error < 0))
      throw new GradmixError(
        "numeric",
        `shrinkage: standardErrors of domain "${state.domains[i]}" is ${error}; the weights stay as they are`,
      );
  }
  const known = there.flatMap((i) => errors[i] ?? []);
  if (there.length < 2 || known.length === 0) return values;
  const worst = known.reduce((most, error) => Math.max(most, error), 0);
  // Relative to the largest number at hand, so that no square overflows.
  const scale = there.reduce((most, i) => Math.max(most, Math.abs(values[i])), worst);
  if (scale === 0) return values;
  const errorOf = (i: number): number => (errors[i] ?? worst) / scale;
  const mean = sumOf(there.map((i) => values[i] / scale)) / there.length;
  const variance = sumOf(there.map((i) => (values[i] / scale - mean) ** 2)) / (there.length - 1);
  const spread = Math.max(0, variance - sumOf(there.map((i) => errorOf(i) ** 2)) / there.length);
  const out = Float64Array.from(values);
  for (const i of there) {
    const squared = errorOf(i) ** 2;
    const keep = spread + squared > 0 ? spread / (spread + squared) : 1;
    out[i] = scale * (mean + keep * (values[i] / scale - mean));
  }
  return out;
}
