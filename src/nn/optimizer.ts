/**
 * AdamW over the parameter arena (Loshchilov & Hutter 2019): decoupled decay, none on gains and biases; clipping by the global norm
 * without a read-back.
 */
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { checkOptions, checkRange, numberIn, object, type OptionChecks } from "../options.ts";
import { empty, scope, type Tensor } from "../tensor/tensor.ts";
import { type Arena, arenaLike, orDispose, type Parameters } from "./parameters.ts";

export interface AdamWOptions {
  /** Default 0.9. */
  readonly beta1?: number;
  /** Default 0.95. */
  readonly beta2?: number;
  /** Default 1e-8. */
  readonly eps?: number;
  /** Default 0.1. */
  readonly weightDecay?: number;
  /** The gradient's global norm is scaled down to this; 0 turns it off. Default 1. */
  readonly clip?: number;
}

export interface OptimizerStepOptions {
  /** The gradient arena holds this power of two times the gradient (loss scaling), which the step undoes. Default 1. */
  readonly lossScale?: number;
  /** ‖gradient arena‖² [1], where the caller has it: it is then not added up again. */
  readonly squaredNorm?: Tensor;
}

/** Second moments of Adam, by which an alignment can be preconditioned: P = 1/(√(v/bias) + ε). */
export interface Preconditioner {
  /** v, in the layout of the parameters. */
  readonly v: Arena;
  /** 1 − β₂ᵗ. */
  readonly bias: number;
  readonly eps: number;
}

/** What a trainer asks of an optimizer. */
export interface Optimizer {
  readonly name: string;
  /** Arenas of the state by name, in the layout of the parameters: saved and restored with a trainer. */
  readonly state: Readonly<Record<string, Arena>>;
  /** Steps taken. Set it, with the state, to go on from a saved one. */
  steps: number;
  /**
   * One step with the gradient arena (which is read only) at the given rate. Returns ‖gradient arena‖² [1], from before clipping and with the
   * loss scale in it; it belongs to the caller's scope.
   */
  step(gradient: Tensor, lr: number, options?: OptimizerStepOptions): Tensor;
  /** For rules that ask for preconditioned alignments: null before the first step, left out by optimizers without second moments. */
  preconditioner?(): Preconditioner | null;
  dispose(): void;
}

export interface AdamW extends Optimizer {
  /** First and second moments, in the layout of the parameters. */
  readonly m: Arena;
  readonly v: Arena;
  preconditioner(): Preconditioner | null;
}

const learningRate = { min: 0, max: Infinity, openMax: true };
const stepOptions: OptionChecks<OptimizerStepOptions> = {
  lossScale: numberIn({ min: 0, openMin: true }),
  squaredNorm: object,
};

/** Every option, with its default. Throws `config` for values out of range. */
export function adamwOptions(options: AdamWOptions = {}): Required<AdamWOptions> {
  const share = numberIn({ min: 0, max: 1, openMax: true });
  const least0 = numberIn({ min: 0 });
  checkOptions("adamw", options, {
    beta1: share,
    beta2: share,
    // With 0 a parameter without gradients, such as the row of a token that never comes, would become 0/0.
    eps: numberIn({ min: 0, openMin: true }),
    weightDecay: least0,
    clip: least0,
  });
  const { beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weightDecay = 0.1, clip = 1 } = options;
  return { beta1, beta2, eps, weightDecay, clip };
}

/** AdamW (Loshchilov & Hutter 2019, Algorithm 2). Throws `config` for values out of range. */
export function adamw(parameters: Parameters, options: AdamWOptions = {}): AdamW {
  const { beta1, beta2, eps, weightDecay, clip } = adamwOptions(options);
  const m = arenaLike(parameters);
  const v = orDispose(() => arenaLike(parameters), m);
  const { value, decayed } = parameters;
  const parts = [
    { from: 0, size: decayed, weightDecay },
    { from: decayed, size: value.size - decayed, weightDecay: 0 },
  ].filter((part) => part.size > 0);
  const optimizer: AdamW = {
    name: "adamw",
    m,
    v,
    state: { m, v },
    steps: 0,
    step(gradient, lr, options = {}) {
      checkOptions("adamw.step", options, stepOptions);
      checkRange("adamw.step: lr", lr, learningRate);
      if (gradient.size !== value.size || gradient.dtype !== "f32")
        throw new GradmixError(
          "shape",
          `adamw.step: a gradient of ${gradient.size} ${gradient.dtype} for parameters of ${value.size}; give an arena of arenaLike`,
        );
      const { lossScale = 1, squaredNorm } = options;
      const unscales = lossScale !== 1;
      return scope(() => {
        // All memory is asked for before a parameter changes.
        const sumsq = squaredNorm ?? empty([1], "f32", value.memory);
        const scale = clip > 0 || unscales ? empty([1], "f32", value.memory) : null;
        if (squaredNorm === undefined) run("sumSquares", {}, [gradient], [sumsq]);
        if (scale !== null) {
          // min(1, clip·S/‖S·g‖)/S: powers of two, so that nothing is rounded that would not be without S.
          if (clip > 0) run("clipScale", { maxNorm: clip * lossScale }, [sumsq], [scale]);
          else run("fill", { value: 1 }, [], [scale]);
          if (unscales) run("affine", { scale: 1 / lossScale, shift: 0 }, [scale], [scale]);
        }
        optimizer.steps++;
        for (const { from, size, weightDecay: decay } of parts) {
          const part = (arena: Tensor): Tensor => arena.view([size], from);
          run(
            "adamw",
            { lr, beta1, beta2, eps, weightDecay: decay, step: optimizer.steps },
            [part(gradient), scale],
            [part(value), part(m.arena), part(v.arena)],
          );
        }
        return squaredNorm === undefined ? sumsq : squaredNorm.view(squaredNorm.shape);
      });
    },
    preconditioner: () => (optimizer.steps === 0 ? null : { v, bias: 1 - beta2 ** optimizer.steps, eps }),
    dispose() {
      m.dispose();
      v.dispose();
    },
  };
  return optimizer;
}
