/** The one mirror step that rules take: among the domains that were measured, and as the combinators around the rule have it. */
import type { ChangeStep, Step } from "./rule.ts";
import { exponentiatedGradient, type Weights, within } from "./simplex.ts";

/**
 * α ⊙ exp(η·direction), normalised, among the domains that take part; the others keep their weights, since not measured is not zero: a
 * direction of 0 in their place would read as "worse than all that help", and starve just those domains that are drawn rarely. `change` is
 * what `Rule.update` was given. `project` comes after the step, on the weights of those that take part, divided by their `total`. The step
 * starts `from` other weights where the rule moves them first, as towards a prior. With η = 0 nothing changes at all.
 */
export function mirrorStep(
  weights: ArrayLike<number>,
  step: Step,
  change: ChangeStep = (same) => same,
  project: (part: Weights, total: number) => Weights = (part) => part,
  from: ArrayLike<number> = weights,
): Weights {
  const { eta, direction, among } = change(step);
  if (eta === 0) return Float64Array.from(weights);
  return within(from, among, (part, total, indices) =>
    project(
      exponentiatedGradient(
        part,
        indices.map((i) => direction[i]!),
        eta,
      ),
      total,
    ),
  );
}
