/**
 * Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training", §3.2): the losses are multiplied by a scale S before the backward pass,
 * so that small gradients do not vanish in f16, and the gradient is divided by S afterwards. S is adjusted during training: it halves after an
 * overflow and doubles after many steps without one. All scales are powers of two, by which numbers are multiplied and divided exactly.
 */
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, type OptionCheck, valueThat } from "../options.ts";
import { count, object, type Schema, valueThat as schemaThat } from "../schema.ts";

/** Options of dynamic loss scaling. */
export interface LossScaleOptions {
  /** Initial scale. Default 2¹⁶, or the nearest value that `min` and `max` allow. */
  readonly initial?: number;
  /** Number of consecutive steps without an overflow after which the scale doubles. Default 2000. */
  readonly growthInterval?: number;
  /** Largest scale, a power of two. Default 2²⁴. */
  readonly max?: number;
  /** Smallest scale, a power of two. Default 1. */
  readonly min?: number;
}

/** A loss scale with its history: plain JSON, part of a checkpoint. */
export interface LossScale {
  readonly scale: number;
  /** Steps without an overflow since the scale last changed. */
  readonly good: number;
}

/** Whether the value is a power of two that is a normal f32, as is its inverse. */
export function isScale(value: unknown): value is number {
  return (
    typeof value === "number" &&
    value >= 2 ** -126 &&
    value <= 2 ** 126 &&
    2 ** Math.round(Math.log2(value)) === value
  );
}

const POWERS = "a power of two from 2^-126 to 2^126";

export const lossScaleCheck: OptionCheck = valueThat(POWERS, isScale);

/** Adds the defaults. Throws `config` for invalid options. */
export function lossScaleOptions(options: LossScaleOptions): Required<LossScaleOptions> {
  checkOptions("lossScale", options, {
    initial: lossScaleCheck,
    growthInterval: integerIn(1),
    max: lossScaleCheck,
    min: lossScaleCheck,
  });
  const { growthInterval = 2000, max = 2 ** 24, min = 1 } = options;
  const initial = options.initial ?? Math.max(min, Math.min(max, 2 ** 16));
  if (!(min <= initial && initial <= max))
    throw new GradmixError("config", `lossScale: initial is ${initial}, not from min ${min} to max ${max}`);
  return { initial, growthInterval, max, min };
}

/**
 * The loss scales of the training steps and of the alignments. The alignments have a scale of their own because their passes use other batches and
 * overflow at other scales.
 */
export interface Scales {
  step: LossScale;
  alignment: LossScale;
}

/** The scales at the beginning of a run; null without loss scaling. */
export function firstScales(options: Required<LossScaleOptions> | null): Scales | null {
  if (options === null) return null;
  const first: LossScale = { scale: options.initial, good: 0 };
  return { step: first, alignment: first };
}

/** The scale after a step without an overflow. */
export function grow({ scale, good }: LossScale, options: Required<LossScaleOptions>): LossScale {
  if (good + 1 < options.growthInterval) return { scale, good: good + 1 };
  return { scale: Math.min(options.max, scale * 2), good: 0 };
}

/** The scale after an overflow. */
export function backoff({ scale }: LossScale, { min }: Required<LossScaleOptions>): LossScale {
  return { scale: Math.max(min, scale / 2), good: 0 };
}

/** Whether every number in the value is finite. */
export function allFinite(value: unknown): boolean {
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.values(value).every(allFinite);
}

/** A scale from a checkpoint. */
export const scaleSchema: Schema<number> = schemaThat(POWERS, isScale);
export const lossScale: Schema<LossScale> = object<LossScale>({ scale: scaleSchema, good: count });

/** The bounds may differ from those of the saved run; the new ones hold. */
export function withinBounds(
  { scale, good }: LossScale,
  { min, max }: Required<LossScaleOptions>,
): LossScale {
  return { scale: Math.max(min, Math.min(max, scale)), good };
}
