/** The training part of a run, out of its options; and what a resumed run may do otherwise than the run it goes on with. */
import type { LossScaleOptions } from "../dga/loss-scale.ts";
import { GradmixError } from "../errors.ts";
import type { AdamWOptions } from "../nn/optimizer.ts";
import { createSchedule, type Schedule } from "../nn/schedules.ts";
import type { RunChanges } from "../runs/lines.ts";
import { type ScheduleName, totalSteps, type TrainConfig } from "./train-config.ts";

export interface TrainingPlan {
  /** Optimizer steps of the whole run. */
  readonly steps: number;
  /** Training tokens of the whole run. */
  readonly tokens: number;
  /** Windows in a step. */
  readonly batch: number;
  readonly seed: number;
  readonly schedule: Schedule;
  readonly scheduleName: ScheduleName;
  readonly optimizer: AdamWOptions;
  readonly lossScale: LossScaleOptions | null;
}

export function planTraining(config: TrainConfig): TrainingPlan {
  const { training, model, run } = config;
  const { batch, seed, beta1, beta2, weightDecay, clip, lr, minRatio, warmup } = training;
  const steps = totalSteps(config);
  return {
    steps,
    tokens: steps * batch * model.context,
    batch,
    seed,
    schedule: createSchedule({ name: training.schedule, lr, minRatio, warmup, steps }),
    scheduleName: training.schedule,
    optimizer: { beta1, beta2, weightDecay, clip },
    lossScale: run.precision === "f16" ? {} : null,
  };
}

/**
 * Throws `checkpoint` where the rule would limit the repetitions of a domain otherwise with the other number of steps (`MixingPlan.limitedOtherwise`, which knows it once the text
 * is read).
 */
export function checkRepetitions(then: TrainingPlan, now: TrainingPlan, limited: string | null): void {
  if (limited === null) return;
  throw notExtended(
    then,
    now,
    `its rule limits the repetitions of domain "${limited}" by the number of tokens of the run (--rule-options '{"repetitions": …}' sets the limit)`,
  );
}

const notExtended = (then: TrainingPlan, now: TrainingPlan, why: string): GradmixError =>
  new GradmixError(
    "checkpoint",
    `--steps: the run of ${then.steps} steps cannot become one of ${now.steps}: ${why}; to train on from its parameters, start a new run with --init-from`,
  );

/**
 * The number of steps, when a resumed run is given another one. Throws `checkpoint` unless the run is then the one that would have begun with it: the
 * steps that were done must have had the learning rates of the new schedule, and the mixing must not count with the run's length.
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
  if (to < done) throw refuse(`${done} are done`);
  for (let step = 0; step < done; step++)
    if (then.schedule(step) !== now.schedule(step))
      throw refuse(
        `with the schedule ${then.scheduleName} step ${step + 1} would have had another learning rate; constant can be extended, and wsd before its decay`,
      );
  if (countsTokens) throw refuse("its combinators depend on the number of tokens of the run");
  return { steps: { from, to } };
}
