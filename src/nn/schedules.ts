/** Learning-rate schedules: pure functions of the step, counted from 0. */
import { checkOptions, integerIn, numberIn, oneOf, required, withDefaults } from "../options.ts";
import { timesShare } from "../share.ts";

/** Learning rate of a step; steps count from 0. Those that `createSchedule` makes throw `config` unless the step is a whole number of at least 0. */
export type Schedule = (step: number) => number;
/** The names of the schedules. Not part of the package's interface. */
export const scheduleNames = ["cosine", "wsd", "constant"] as const;
/** Name of a schedule. */
export type ScheduleName = (typeof scheduleNames)[number];

/** Options of `createSchedule`. */
export interface ScheduleOptions {
  /** Shape of the decay: a half cosine ("cosine"), constant and then a linear decay at the end ("wsd"), or none ("constant"). */
  readonly name: ScheduleName;
  /** Learning rate after the warm-up. */
  readonly lr: number;
  /**
   * Where the decay ends, as a share of `lr`. With "wsd" the last step, number steps − 1, has this rate. With "cosine" the first step after the run would
   * have it, so that the last step is a little above it. "constant" ignores it. Default 0.1.
   */
  readonly minRatio?: number;
  /**
   * Number of steps over which the rate rises linearly from lr/warmup to lr; a warm-up longer than the run does not reach lr. `usualWarmup` returns a good
   * number. Default 0.
   */
  readonly warmup?: number;
  /** Number of steps of the whole run. Later steps keep the rate at which the decay ends. */
  readonly steps: number;
  /** With "wsd": share of the steps at the end over which the rate decays linearly, rounded up to whole steps. The others ignore it. Default 0.2. */
  readonly decayShare?: number;
}

/** Defaults of the options of `createSchedule`. */
export const scheduleDefaults = { minRatio: 0.1, warmup: 0, decayShare: 0.2 };

/** The warm-up that `usualWarmup` returns: a number of steps, and at most a share of the run. Not part of the package's interface. */
export const warmupLimits = { steps: 60, share: 0.25 };

/**
 * Returns a number of warm-up steps that suits AdamW at its defaults: 60, but at most a quarter of the run. With β₂ = 0.95 the second moments need about 40 steps
 * (2/(1 − β₂); Ma & Yarats 2021), and runs of 240 steps ended lower with 60 than with 20 (docs/optimizers.md). Throws `config` unless `steps` is a whole number.
 */
export function usualWarmup(steps: number): number {
  integerIn(0)("usualWarmup: steps", steps);
  return Math.min(warmupLimits.steps, Math.floor(steps * warmupLimits.share));
}

const stepNumber = integerIn(0);

/**
 * Makes a schedule. "cosine": warm-up, then half a cosine towards minRatio·lr (Loshchilov & Hutter 2017). "wsd": warm-up, stable, linear decay (Hu et
 * al. 2024). "constant": warm-up, then constant. Throws `config` for values out of range.
 */
export function createSchedule(options: ScheduleOptions): Schedule {
  const share = numberIn({ min: 0, max: 1 });
  checkOptions("createSchedule", options, {
    name: required(oneOf(...scheduleNames)),
    lr: required(numberIn({ min: 0 })),
    minRatio: share,
    warmup: integerIn(0),
    steps: required(integerIn(0)),
    decayShare: share,
  });
  const { name, lr, minRatio, warmup, steps, decayShare } = withDefaults(scheduleDefaults, options);
  const low = lr * minRatio;
  const decayStart = Math.max(warmup, steps - timesShare(steps, decayShare, "up"));
  return (step) => {
    stepNumber("schedule: step", step);
    if (step < warmup) return (lr * (step + 1)) / warmup;
    if (name === "constant") return lr;
    const start = name === "wsd" ? decayStart : warmup;
    if (step < start) return lr;
    const progress = Math.min(1, (step - start + (name === "wsd" ? 1 : 0)) / Math.max(1, steps - start));
    return name === "wsd"
      ? lr + (low - lr) * progress
      : low + 0.5 * (lr - low) * (1 + Math.cos(Math.PI * progress));
  };
}
