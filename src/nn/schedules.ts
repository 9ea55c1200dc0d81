/** Learning-rate schedules: pure functions of the step, counted from 0. */
import { checkOptions, integerIn, numberIn, oneOf, required, withDefaults } from "../options.ts";
import { timesShare } from "../share.ts";

/** Learning rate of a step; steps count from 0. */
export type Schedule = (step: number) => number;
const names = ["cosine", "wsd", "constant"] as const;
/** Name of a schedule. */
export type ScheduleName = (typeof names)[number];

/** Options of `createSchedule`. */
export interface ScheduleOptions {
  /** Shape of the decay: a half cosine, constant and then a decay at the end (`wsd`), or none. */
  readonly name: ScheduleName;
  /** The rate after warm-up. */
  readonly lr: number;
  /** The rate at the end, as a share of `lr`. Default 0.1. */
  readonly minRatio?: number;
  /** Steps over which the rate rises linearly from lr/warmup to lr. Default 0. */
  readonly warmup?: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** "wsd": the share of the steps over which the rate falls linearly at the end, a part of a step counted as a whole one. Default 0.2. */
  readonly decayShare?: number;
}

/** What `createSchedule` takes where nothing is said. */
export const scheduleDefaults = { minRatio: 0.1, warmup: 0, decayShare: 0.2 };

/**
 * "cosine": warm-up, then half a cosine down to minRatio·lr (Loshchilov & Hutter 2017). "wsd": warm-up, stable, linear decay (Hu et al.
 * 2024). "constant": warm-up, then flat. Throws `config` for values out of range.
 */
export function createSchedule(options: ScheduleOptions): Schedule {
  const share = numberIn({ min: 0, max: 1 });
  checkOptions("createSchedule", options, {
    name: required(oneOf(...names)),
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
