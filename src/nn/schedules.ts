/** Learning-rate schedules: pure functions of the step, counted from 0. */
import { GradmixError } from "../errors.ts";

export type Schedule = (step: number) => number;
const names = ["cosine", "wsd", "constant"] as const;
export type ScheduleName = (typeof names)[number];

export interface ScheduleOptions {
  readonly name: ScheduleName;
  /** The rate after warm-up. */
  readonly lr: number;
  /** The rate at the end, as a share of `lr`. Default 0.1. */
  readonly minRatio?: number;
  /** Steps over which the rate rises linearly from lr/warmup to lr. Default 0. */
  readonly warmup?: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** "wsd": the share of the steps over which the rate falls linearly at the end. Default 0.2. */
  readonly decayShare?: number;
}

/**
 * "cosine": warm-up, then half a cosine down to minRatio·lr (Loshchilov & Hutter 2017). "wsd": warm-up, stable, linear decay (Hu et al.
 * 2024). "constant": warm-up, then flat. Throws `config` for values out of range.
 */
export function createSchedule(options: ScheduleOptions): Schedule {
  const { name, lr, minRatio = 0.1, warmup = 0, steps, decayShare = 0.2 } = options;
  const check = (field: string, value: number, fits: boolean, range: string): void => {
    if (!fits) throw new GradmixError("config", `${field}: ${value} is out of range; it must be ${range}`);
  };
  if (!names.includes(name))
    throw new GradmixError("config", `name: "${name as string}" is no schedule; use ${names.join(", ")}`);
  check("lr", lr, Number.isFinite(lr) && lr >= 0, "finite and at least 0");
  check("minRatio", minRatio, minRatio >= 0 && minRatio <= 1, "from 0 to 1");
  check("warmup", warmup, Number.isInteger(warmup) && warmup >= 0, "an integer of at least 0");
  check("steps", steps, Number.isInteger(steps) && steps >= 0, "an integer of at least 0");
  check("decayShare", decayShare, decayShare >= 0 && decayShare <= 1, "from 0 to 1");
  const low = lr * minRatio;
  const decayStart = Math.max(warmup, Math.floor(steps * (1 - decayShare)));
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
