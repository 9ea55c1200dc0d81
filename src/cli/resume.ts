/** What a resumed run may do otherwise than the run it goes on with, and the line of metrics.jsonl that says so. */
import { type RunChanges, totalSteps, type TrainConfig } from "../dga/config.ts";
import { GradmixError } from "../errors.ts";
import { createSchedule, type Schedule } from "../nn/schedules.ts";
import { isObject } from "./values.ts";

/** What the numbers of a run depend on beside its configuration. */
export interface Engine {
  readonly backend: string;
  /** SIMD level of the cpu, name of the GPU. */
  readonly simd: string;
  readonly precision: string;
  /** Of gradmix. */
  readonly version: string;
}

/** As a checkpoint says it. Those of before hold the backend only. */
export function savedEngine(state: Readonly<Record<string, unknown>>): Partial<Engine> {
  const engine = state["engine"];
  const found: Record<string, unknown> = isObject(engine) ? engine : { backend: state["backend"] };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === "string"));
}

/** Each part that is known of both and differs. */
export function engineChanges(then: Partial<Engine>, now: Engine): RunChanges {
  return Object.fromEntries(
    Object.entries(now).flatMap(([name, value]: [string, string]) => {
      const from = then[name as keyof Engine];
      return from === undefined || from === value ? [] : [[name, { from, to: value }]];
    }),
  );
}

export function scheduleOf({ training }: TrainConfig, steps: number): Schedule {
  return createSchedule({
    name: training.schedule,
    lr: training.lr,
    minRatio: training.minLr,
    warmup: training.warmupSteps,
    steps,
  });
}

/**
 * The number of steps, when a resumed run is given another one. Throws `checkpoint` unless the run is then the one that would have begun with it: the
 * steps that were done must have had the learning rates of the new schedule, and the mixing must not count with the run's length.
 */
export function stepChanges(
  then: TrainConfig,
  now: TrainConfig,
  done: number,
  countsTokens: boolean,
): RunChanges {
  const [from, to] = [totalSteps(then), totalSteps(now)];
  if (from === to) return {};
  const anew = "to train on from its parameters, start a new run with --init-from";
  const refuse = (why: string): GradmixError =>
    new GradmixError(
      "checkpoint",
      `--steps: the run of ${from} steps cannot become one of ${to}: ${why}; ${anew}`,
    );
  if (to < done) throw refuse(`${done} are done`);
  const [before, after] = [scheduleOf(then, from), scheduleOf(now, to)];
  for (let step = 0; step < done; step++)
    if (before(step) !== after(step))
      throw refuse(
        `with the schedule ${then.training.schedule} step ${step + 1} would have had another learning rate; constant can be extended, and wsd before its decay`,
      );
  if (countsTokens) throw refuse("its combinators count with the run's tokens");
  return { steps: { from, to } };
}
