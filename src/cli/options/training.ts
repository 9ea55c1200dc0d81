/** Options of the training steps and the optimizer. */
import { adamwOptions } from "../../nn/optimizer-options.ts";
import { scheduleDefaults, scheduleNames, warmupLimits } from "../../nn/schedules.ts";
import { choice, decimal, share, integer } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

const adamw = adamwOptions();

/** Number of steps if neither steps nor tokens are given. */
export const stepsOtherwise = 1000;

export const trainingOptions: SectionTable<"training"> = {
  steps: {
    flag: "--steps",
    value: "N",
    kind: integer(1),
    default: null,
    auto: `${stepsOtherwise} unless --tokens is given`,
    help: `optimizer steps. With --resume, a larger N extends the run, if the learning rates so far do not depend on N (constant, or wsd before its decay), and if the limit of dga on repetitions affects neither length. Selected windows stay those of the first length`,
    recorded: true,
  },
  tokens: {
    flag: "--tokens",
    value: "N",
    kind: integer(1, Number.MAX_SAFE_INTEGER),
    default: null,
    help: "training tokens; replaces --steps",
    recorded: true,
  },
  batch: {
    flag: "--batch",
    value: "N",
    kind: integer(1, 65_536),
    default: 16,
    help: "windows per step; a step trains on batch × context tokens",
  },
  lr: {
    flag: "--lr",
    value: "X",
    kind: decimal({ min: 0, max: 10, openMin: true }),
    default: 0.002,
    help: "peak learning rate of AdamW",
  },
  minRatio: {
    flag: "--min-ratio",
    formerly: { flag: "--min-lr", path: "training.minLr" },
    value: "SHARE",
    kind: share(),
    default: null,
    otherwise: scheduleDefaults.minRatio,
    idle: ({ config: { training } }) =>
      training.schedule === "constant" ? "the schedule constant keeps the learning rate" : null,
    help: "where the learning rate decays to, as a share of --lr",
  },
  schedule: {
    flag: "--schedule",
    value: "NAME",
    kind: choice(scheduleNames),
    default: "cosine",
    help: `learning rate after the warm-up: cosine, wsd (constant, then a decay over the last ${100 * scheduleDefaults.decayShare} % of the steps) or constant`,
  },
  warmup: {
    flag: "--warmup",
    formerly: { flag: "--warmup-steps", path: "training.warmupSteps" },
    value: "N",
    kind: integer(0),
    default: null,
    auto: `${warmupLimits.steps}, at most ${100 * warmupLimits.share} % of the steps`,
    help: "steps of the warm-up: in step i ≤ N the learning rate is i/N of --lr",
  },
  weightDecay: {
    flag: "--weight-decay",
    value: "X",
    kind: decimal({ min: 0, max: 10 }),
    default: adamw.weightDecay,
    help: "decoupled weight decay; not applied to gains and biases",
  },
  beta1: {
    flag: "--beta1",
    value: "X",
    kind: share({ openMax: true }),
    default: adamw.beta1,
    help: "decay rate of AdamW's first moment",
  },
  beta2: {
    flag: "--beta2",
    value: "X",
    kind: share({ openMax: true }),
    default: adamw.beta2,
    help: "decay rate of AdamW's second moment",
  },
  clip: {
    flag: "--clip",
    value: "X",
    kind: decimal({ min: 0, max: 1e9 }),
    default: adamw.clip,
    help: "clip the gradient to this norm; 0 turns clipping off",
  },
  seed: {
    flag: "--seed",
    value: "N",
    kind: integer(0, Number.MAX_SAFE_INTEGER),
    default: 1,
    help: "seed of the parameters and of the order of the data; equal seeds, backends and builds give equal bits",
  },
};
