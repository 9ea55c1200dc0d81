/** The training part of a run's plan, and the changes to it that a resumed run may make. */
import type { LossScaleOptions } from "../dga/loss-scale.ts";
import { GradmixError } from "../errors.ts";
import type { AdamWOptions } from "../nn/optimizer-options.ts";
import { createSchedule, type Schedule, usualWarmup } from "../nn/schedules.ts";
import type { RunChanges } from "../runs/lines.ts";
import { type ScheduleName, totalSteps, type TrainConfig, warmupOf } from "./train-config.ts";

export interface TrainingPlan {
  /** Number of optimizer steps of the whole run. */
  readonly steps: number;
  /** Number of training tokens of the whole run. */
  readonly tokens: number;
  /** Windows per step. */
  readonly batch: number;
  readonly seed: number;
  readonly schedule: Schedule;
  readonly scheduleName: ScheduleName;
  readonly optimizer: AdamWOptions;
  readonly lossScale: LossScaleOptions | null;
}

export function planTraining(config: TrainConfig): TrainingPlan {
  const { training, model, run } = config;
  const { batch, seed, beta1, beta2, weightDecay, clip, lr, minRatio } = training;
  const steps = totalSteps(config);
  return {
    steps,
    tokens: steps * batch * model.context,
    batch,
    seed,
    schedule: createSchedule({
      ...{ name: training.schedule, lr, warmup: warmupOf(config), steps },
      ...(minRatio === null ? {} : { minRatio }),
    }),
    scheduleName: training.schedule,
    optimizer: { beta1, beta2, weightDecay, clip },
    lossScale: run.precision === "f16" ? {} : null,
  };
}

/** A line for the user if the run ends within its warm-up, as one from the config.json of a longer run may; null otherwise. */
export function unreachedRate(config: TrainConfig): string | null {
  const [warmup, steps] = [warmupOf(config), totalSteps(config)];
  if (warmup <= steps) return null;
  const share = Number(((100 * steps) / warmup).toPrecision(2));
  return `the warm-up of ${warmup} steps is longer than the run of ${steps}, so the learning rate reaches only ${share} % of --lr; the default is --warmup ${usualWarmup(steps)}`;
}

/**
 * Throws `checkpoint` if the new number of steps would change how the rule limits the repetitions of a domain. `limited` is the name of such a
 * domain, from `MixingPlan.limitedOtherwise`; it is known once the text was read.
 */
export function checkRepetitions(then: TrainingPlan, now: TrainingPlan, limited: string | null): void {
  if (limited === null) return;
  throw notExtended(
    then,
    now,
    `the rule's limit on the repetitions of domain "${limited}" depends on the number of tokens of the run (--rule-options '{"repetitions": …}' sets the limit)`,
  );
}

const notExtended = (then: TrainingPlan, now: TrainingPlan, why: string): GradmixError =>
  new GradmixError(
    "checkpoint",
    `--steps: the run of ${then.steps} steps cannot become a run of ${now.steps} steps: ${why}; to continue from its parameters, start a new run with --init-from`,
  );

/**
 * The change of the number of steps of a resumed run. Throws `checkpoint` unless a run with the new number would have taken the same steps so far:
 * the new schedule must give the same learning rates, and the rule must not depend on the length of the run. Windows that were selected stay selected.
 */
export function stepChanges(
  then: TrainingPlan,
  now: TrainingPlan,
  done: number,
  countsTokens: boolean,
): RunChanges {
  const [from, to] = [then.steps, now.steps];
  if (from === to) return {};
  const refuse = (why: string): GradmixError => notExtended(then, now, why);
  if (to < done) throw refuse(`${done} steps are already done`);
  for (let step = 0; step < done; step++)
    if (then.schedule(step) !== now.schedule(step))
      throw refuse(
        `with the schedule ${then.scheduleName}, step ${step + 1} would have had another learning rate; only constant, and wsd before its decay, can be extended`,
      );
  if (countsTokens) throw refuse("its combinators depend on the number of tokens of the run");
  return { steps: { from, to } };
}
