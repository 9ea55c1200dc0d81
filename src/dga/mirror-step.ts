/** The mirror step of all rules: among the domains that were measured, and after the changes of the combinators around the rule. */
import { GradmixError } from "../errors.ts";
import { checkRange, numberList, object } from "../options.ts";
import type { ChangeStep, Step } from "./rule.ts";
import { exponentiatedGradient, type Weights, within } from "./simplex.ts";

/**
 * Computes α ⊙ exp(η·direction), normalised, among the domains that take part; the others keep their weights. A domain that was not measured must not
 * get the direction 0: this would mean "worse than all domains that help", and starve exactly the domains that are rarely drawn. `change` is the
 * argument of `Rule.update`. `project` is applied after the step to the weights of the participating domains, divided by their `total`. The step
 * starts at the weights `from` if the rule moves them first, for example towards a prior. With η = 0 nothing changes at all. Throws like
 * `exponentiatedGradient` and `within`.
 */
export function mirrorStep(
  weights: ArrayLike<number>,
  step: Step,
  change: ChangeStep = (step) => step,
  project: (part: Weights, total: number) => Weights = (part) => part,
  from: ArrayLike<number> = weights,
): Weights {
  numberList("the weights of the mirror step", weights);
  object("the mirror step", step);
  const changed = change(step);
  object("the mirror step, as a combinator changed it", changed);
  const { eta, direction, among } = changed;
  numberList("the direction of the mirror step", direction);
  checkRange("the step size η of the mirror step", eta, { min: 0, max: Infinity, openMax: true });
  // Only the entries of domains that take part reach the step below.
  if (direction.length !== weights.length)
    throw new GradmixError(
      "config",
      `the direction of the mirror step has ${direction.length} numbers for ${weights.length} weights`,
    );
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
