/** Options of the optimizers of `optimizer.ts`, their checks and defaults. The help of the command shows them, so this file loads nothing of the engine. */
import { checkOptions, numberIn, type OptionCheck, type OptionChecks } from "../options.ts";
import { MOST } from "../tensor/dtype.ts";

/** Options of all optimizers. */
export interface CommonOptions {
  /**
   * Weight decay λ of the parameters with `decay` in their spec. `adamw` decays the value separately from the gradient; `sgd` and `adam` add λ·value
   * to the gradient (L2 regularisation), after clipping. Default 0.1 for `adamw`, 0 for the others.
   */
  readonly weightDecay?: number;
  /**
   * Largest global norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off. Default 1. Whatever it is, a step whose squared
   * norm is not finite (the gradient holds ∞ or NaN, or its norm is above about 1.8e19, where the square overflows f32) changes neither parameters nor
   * state, and returns that squared norm.
   */
  readonly clip?: number;
}

/** Options of `sgd`. */
export interface SGDOptions extends CommonOptions {
  /** Factor of the velocity from step to step, 0 ≤ momentum < 1. With 0 there is no velocity, and no memory for it. Default 0. */
  readonly momentum?: number;
  /** Uses Nesterov's momentum; needs a `momentum` above 0. Default false. */
  readonly nesterov?: boolean;
}

/** Options of `adam` and `adamw`. */
export interface AdamOptions extends CommonOptions {
  /** Decay β₁ of the first moments. Default 0.9. */
  readonly beta1?: number;
  /** Decay β₂ of the second moments. Default 0.95 for `adamw`, as in the training of language models; 0.999 for `adam`, as in its paper. */
  readonly beta2?: number;
  /** ε, added to the root of the second moments: a normal f32, so at least 2⁻¹²⁶. Default 1e-8. */
  readonly eps?: number;
}

/** Options of `adamw`. */
export type AdamWOptions = AdamOptions;

/** The smallest normal f32; some devices treat smaller numbers as 0. With an ε of 0, a parameter without gradients, such as the row of a token that never occurs, would become 0/0. */
const LEAST_EPS = 2 ** -126;
/** Range of the decay of a moving average: momentum, β₁ and β₂. */
export const decay: OptionCheck = numberIn({ min: 0, max: 1, openMax: true });
/** Checks of the options of all optimizers. */
export const commonChecks: OptionChecks<CommonOptions> = {
  weightDecay: numberIn({ min: 0, max: MOST }),
  clip: numberIn({ min: 0 }),
};

/** Fills in the defaults of `adam`, or of `adamw`, which differ in two. Throws `config` for values out of range. */
export function adamOptions(
  where: string,
  options: AdamOptions,
  defaults: { readonly beta2: number; readonly weightDecay: number },
): Required<AdamOptions> {
  checkOptions(where, options, {
    ...commonChecks,
    beta1: decay,
    beta2: decay,
    eps: numberIn({ min: LEAST_EPS, max: MOST }),
  });
  const { beta1 = 0.9, beta2 = defaults.beta2, eps = 1e-8, clip = 1 } = options;
  return { beta1, beta2, eps, weightDecay: options.weightDecay ?? defaults.weightDecay, clip };
}

/** Fills in the defaults of all options. Throws `config` for values out of range. */
export function adamwOptions(options: AdamWOptions = {}): Required<AdamWOptions> {
  return adamOptions("adamw", options, { beta2: 0.95, weightDecay: 0.1 });
}
