/**
 * Makes the line of a training step in metrics.jsonl. A line stays short however many domains there are: of more than `MAX_NAMES` names it contains
 * the heaviest, and of the domains those on which the step trained. weights.json contains all of them.
 */
import type { Bases } from "../dga/bases.ts";
import type { HeldOutLosses, Trainer, TrainStep } from "../dga/trainer.ts";
import type { Evaluation, GuardMetrics, StepMetrics } from "../runs/lines.ts";

/** Largest number of names in one part of a line, and of domains that are evaluated. */
export const MAX_NAMES = 100;

/** Indices of the domains out of k that are evaluated: all, or of many every n-th one, always the same. */
export function evaluated(k: number): number[] {
  const every = Math.ceil(k / MAX_NAMES);
  return Array.from({ length: Math.ceil(k / every) }, (_, i) => i * every);
}

/** Indices of the `most` largest weights, ascending; of equal weights the first ones. */
function heaviest(weights: ArrayLike<number>, most: number): number[] {
  const all = Array.from({ length: weights.length }, (_, i) => i);
  if (all.length <= most) return all;
  return all
    .sort((i, j) => weights[j]! - weights[i]! || i - j)
    .slice(0, most)
    .sort((i, j) => i - j);
}

export type MetricsOf = (step: TrainStep, evaluation: Evaluation | null, seconds: number) => StepMetrics;

/** Metrics of the evaluated domains; of many, those whose loss rose most relative to its reference. */
export function guardMetrics(
  names: readonly string[],
  { losses, references, standardErrors }: HeldOutLosses,
  multipliers: readonly number[] | null,
): ReadonlyMap<string, GuardMetrics> {
  const rises = losses.map((loss, i) => (loss ?? 0) / (references[i] || Infinity));
  return new Map(
    heaviest(rises, MAX_NAMES).flatMap((i) => {
      const [loss, reference] = [losses[i] ?? null, references[i] ?? null];
      if (loss === null || reference === null) return [];
      const standardError = standardErrors[i] ?? null;
      return [[names[i]!, { loss, reference, standardError, multiplier: multipliers?.[i] ?? null }] as const];
    }),
  );
}

/**
 * `names` are those of the domains; `seen` returns how much of a domain was trained on so far, `targetExamples` is the target's number of
 * examples, and `multipliers` returns the guards' multipliers.
 */
export function createMetrics(
  names: readonly string[],
  bases: Bases | null,
  seen: Trainer["seen"],
  targetExamples: number | null,
  multipliers: () => readonly number[] | null = () => null,
): MetricsOf {
  const mixed = bases?.names ?? names;
  const trainedOnly = bases !== null || names.length > MAX_NAMES;
  // Weights change only with updates, so the heaviest are determined once per update.
  let last: { weights: Float64Array; shown: number[] } | null = null;
  return (step, evaluation, seconds) => {
    if (last?.weights !== step.weights)
      last = { weights: step.weights, shown: heaviest(step.weights, MAX_NAMES) };
    const { shown } = last;
    const { alignments, trained } = step;
    const lossOf = new Map(trained.map(({ domain, loss }) => [domain, loss]));
    return {
      step: step.step,
      tokens: step.tokens,
      loss: step.loss,
      gradNorm: Number.isFinite(step.gradNorm) ? step.gradNorm : null,
      ...(step.lossScale === null ? {} : { lossScale: step.lossScale }),
      ...(step.skipped ? { skipped: true } : {}),
      lr: step.lr,
      seconds,
      weights: new Map(shown.map((i) => [mixed[i]!, step.weights[i]!])),
      domains: new Map(
        trainedOnly
          ? trained.map(({ domain, ...own }) => [
              names[domain]!,
              { weight: step.domainWeights[domain]!, ...own },
            ])
          : names.map((name, i) => [name, { loss: lossOf.get(i) ?? null, ...seen(i) }]),
      ),
      ...(alignments === null
        ? {}
        : {
            alignments: new Map(
              shown
                .filter((i) => alignments.tokens[i]! > 0)
                .map((i) => [
                  mixed[i]!,
                  {
                    value: alignments.alignments[i]!,
                    standardError: alignments.standardErrors?.[i] ?? null,
                    norm: alignments.norms?.[i] ?? null,
                    tokens: alignments.tokens[i]!,
                    ...(alignments.effectiveSizes === undefined
                      ? {}
                      : { effectiveSize: alignments.effectiveSizes[i]! }),
                  },
                ]),
            ),
            targetNorm: alignments.targetNorm,
            ...(targetExamples === null ? {} : { targetExamples }),
          }),
      ...(step.heldOut === null ? {} : { guard: guardMetrics(names, step.heldOut, multipliers()) }),
      ...(evaluation === null ? {} : { evaluation }),
    };
  };
}
