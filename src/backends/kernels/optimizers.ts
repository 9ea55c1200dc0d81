/** Kernels of optimizer steps, which update their outputs in place, and of the scale that clips a gradient. */
import {
  f32,
  flag,
  type KernelSpec,
  loose,
  number,
  optional,
  positive,
  type Signature,
  type Specs,
  tight,
} from "./spec.ts";

/** Parameters of `adam` and `adamw`. */
export interface AdamParams {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  step: number;
}

/** Signatures of the optimizer kernels. */
export interface OptimizerKernels {
  /**
   * [sumsq: 1] → [scale: 1]: min(1, maxNorm/√sumsq), for global-norm clipping without reading the norm back. If sumsq is not finite, the scale is 0, at
   * which the kernels below take no step.
   */
  clipScale: Signature<{ maxNorm: number }, "sumsq", "scale">;
  // A gradScale of 0 means that there is no step: the kernels change no output then, whatever the gradient holds (0·∞ is NaN, and momentum and decay
  // would act without a gradient).
  /**
   * Stochastic gradient descent with momentum (Polyak 1964), as PyTorch writes it, without dampening. [grad, gradScale: 1?] → [value,
   * velocity?], updated in place: g = grad·gradScale + weightDecay·value; velocity = momentum·velocity + g; value −= lr·velocity, or with `nesterov`
   * value −= lr·(g + momentum·velocity). If `velocity` is left out, momentum must be 0, and value −= lr·g.
   */
  sgd: Signature<
    { lr: number; momentum: number; nesterov: boolean; weightDecay: number },
    "grad gradScale?",
    "value velocity?"
  >;
  /**
   * Adam (Kingma & Ba 2015) with L2 regularisation. [grad, gradScale: 1?] → [value, m, v], all updated in place: g = grad·gradScale +
   * weightDecay·value; m, v moving averages of g and g²; value −= lr·m̂/(√v̂ + eps), with m̂ = m/(1−beta1^step), v̂ = v/(1−beta2^step); step
   * counts from 1.
   */
  adam: Signature<AdamParams, "grad gradScale?", "value m v">;
  /** AdamW with decoupled decay (Loshchilov & Hutter 2019): as `adam`, with g = grad·gradScale and value −= lr·(m̂/(√v̂ + eps) + weightDecay·value). */
  adamw: Signature<AdamParams, "grad gradScale?", "value m v">;
}

const adam: KernelSpec<OptimizerKernels["adam"]> = {
  params: { lr: number, beta1: number, beta2: number, eps: number, weightDecay: number, step: positive },
  inputs: { grad: f32(), gradScale: optional(f32(() => 1)) },
  outputs: { value: f32("grad"), m: f32("grad"), v: f32("grad") },
  tolerance: loose,
};

export const optimizers: Specs<OptimizerKernels> = {
  clipScale: {
    params: { maxNorm: number },
    inputs: { sumsq: f32(() => 1) },
    outputs: { scale: f32(() => 1) },
    tolerance: tight,
  },
  sgd: {
    params: { lr: number, momentum: number, nesterov: flag, weightDecay: number },
    inputs: { grad: f32(), gradScale: optional(f32(() => 1)) },
    outputs: { value: f32("grad"), velocity: optional(f32("grad")) },
    tolerance: loose,
    together: ({ momentum }, _, { velocity }) =>
      momentum === 0 || (velocity !== null && velocity !== undefined)
        ? null
        : `momentum ${momentum} needs the operand "velocity"`,
  },
  adam,
  adamw: adam,
};
