/**
 * Optimizers over the parameter arena: SGD, Adam, AdamW. Weight decay applies to the parameters whose spec says so (not to gains and biases).
 * Clipping by the global norm and undoing the loss scale are one factor of the gradient, computed on the device without reading back.
 */
import { wantTensor } from "../autograd/checks.ts";
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import {
  boolean,
  callback,
  checkOptions,
  checkRange,
  numberIn,
  object,
  objectWith,
  type OptionCheck,
  type OptionChecks,
  string,
  valueThat,
} from "../options.ts";
import { MOST } from "../tensor/dtype.ts";
import { empty, isTensor, scope, sharesMemory, type Tensor } from "../tensor/tensor.ts";
import {
  type Arena,
  arenaLike,
  checkParameters,
  orDispose,
  type Parameters,
  checkArena,
} from "./parameters.ts";
import {
  type AdamOptions,
  adamOptions,
  type AdamWOptions,
  adamwOptions,
  commonChecks,
  type SGDOptions,
  decay,
} from "./optimizer-options.ts";

/** Options of a single step of an optimizer. */
export interface OptimizerStepOptions {
  /** Loss scale: the gradient arena holds the gradient times this power of two, which the step undoes. Default 1. */
  readonly lossScale?: number;
  /** Squared norm ‖gradient arena‖² [1], if the caller has it. Default: the step computes it. */
  readonly squaredNorm?: Tensor;
}

/** Second moments of a gradient, with which an alignment can be preconditioned: P = 1/(√(v/bias) + ε). */
export interface Preconditioner {
  /** Second moments v, in the layout of the parameters. */
  readonly v: Arena;
  /** Bias correction 1 − β₂ᵗ. */
  readonly bias: number;
  /** ε, which is added to the root of the second moments. */
  readonly eps: number;
}

/** The interface of optimizers for a trainer, implemented by `sgd`, `adam` and `adamw`. */
export interface Optimizer {
  /** Name of the optimizer, stored in checkpoints with its state. */
  readonly name: string;
  /** Arenas of the state by name, in the layout of the parameters. A trainer saves and restores them. */
  readonly state: Readonly<Record<string, Arena>>;
  /** The parameters that it updates. A trainer refuses an optimizer of other parameters than its model's. It may be left out. */
  readonly parameters?: Parameters;
  /** Number of steps taken, with those that changed nothing because the gradient was not finite. To continue from a saved state, set it together with `state`. */
  steps: number;
  /**
   * Takes one step with the gradient arena (which it does not change) and the learning rate `lr`. Returns ‖gradient arena‖² [1], before clipping and
   * with the loss scale in it; it belongs to the caller's scope. If that is not finite, the step changes neither parameters nor state; `steps` counts
   * it all the same, because the norm is not read back. Throws `config` for a rate that is negative or that f32 does not hold, and
   * `shape` for a gradient of another size, and `autograd` for one in the memory of the parameters or of the state.
   */
  step(gradient: Tensor, lr: number, options?: OptimizerStepOptions): Tensor;
  /** The second moments, for rules that need preconditioned alignments; null before the first step. Optimizers without second moments leave it out. */
  preconditioner?(): Preconditioner | null;
  /** Frees the state. */
  dispose(): void;
}

/** Adam or AdamW. The state holds the first moments `m` and the second moments `v`. */
export interface Adam extends Optimizer {
  /** First moments `m` and second moments `v`, in the layout of the parameters. */
  readonly state: {
    /** First moments. */
    readonly m: Arena;
    /** Second moments. */
    readonly v: Arena;
  };
  /** `state.m`. */
  readonly m: Arena;
  /** `state.v`. */
  readonly v: Arena;
  preconditioner(): Preconditioner | null;
}

/** AdamW: Adam with weight decay that is decoupled from the gradient. */
export type AdamW = Adam;

const hasMembers = objectWith("an optimizer, such as adamw makes", "name", "state", "steps", "step");

/** Accepts an optimizer. */
export const checkOptimizer: OptionCheck = (name, value) => {
  hasMembers(name, value);
  const member = (key: string): unknown => Reflect.get(Object(value), key);
  const state = member("state");
  string(`${name}: name`, member("name"));
  object(`${name}: state`, state);
  callback(`${name}: step`, member("step"));
  callback(`${name}: dispose`, member("dispose"));
  if (isObject(state))
    for (const [key, arena] of Object.entries(state)) checkArena(`${name}: state: ${key}`, arena);
};

const learningRate = { min: 0, max: MOST };
const stepOptions: OptionChecks<OptimizerStepOptions> = {
  lossScale: numberIn({ min: 0, openMin: true }),
  squaredNorm: valueThat("a tensor", isTensor),
};
/** Makes AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2). Throws `config` for values out of range. */
export function adamw(parameters: Parameters, options: AdamWOptions = {}): AdamW {
  checkParameters("adamw: parameters", parameters);
  return createAdam("adamw", parameters, adamwOptions(options));
}

/**
 * Makes Adam (Kingma & Ba 2015, Algorithm 1), with weight decay coupled as in `torch.optim.Adam`: λ·value is added to the gradient. Throws `config`
 * for values out of range.
 */
export function adam(parameters: Parameters, options: AdamOptions = {}): Adam {
  checkParameters("adam: parameters", parameters);
  return createAdam("adam", parameters, adamOptions("adam", options, { beta2: 0.999, weightDecay: 0 }));
}

/**
 * Makes stochastic gradient descent as in `torch.optim.SGD` without dampening: g = gradient + λ·value; velocity = momentum·velocity + g; value −=
 * lr·velocity, or with Nesterov's momentum lr·(g + momentum·velocity). The state is `momentum`, the velocity; without momentum there is none. Throws
 * `config` for values out of range.
 */
export function sgd(parameters: Parameters, options: SGDOptions = {}): Optimizer {
  checkParameters("sgd: parameters", parameters);
  checkOptions("sgd", options, { ...commonChecks, momentum: decay, nesterov: boolean });
  const { momentum = 0, nesterov = false, weightDecay = 0, clip = 1 } = options;
  if (nesterov && momentum === 0)
    throw new GradmixError("config", "sgd: nesterov: needs a momentum above 0; none is given");
  return createOptimizer({
    ...{ name: "sgd", parameters, clip, weightDecay },
    state: momentum === 0 ? {} : { momentum: arenaLike(parameters) },
    update: ({ lr, weightDecay, gradient, scale, value, state }) =>
      run(
        "sgd",
        { lr, momentum, nesterov, weightDecay },
        { grad: gradient, gradScale: scale },
        { value, velocity: state["momentum"] ?? null },
      ),
  });
}

function createAdam(name: "adam" | "adamw", parameters: Parameters, options: Required<AdamOptions>): Adam {
  const { beta1, beta2, eps, clip, weightDecay } = options;
  const m = arenaLike(parameters);
  const v = orDispose(() => arenaLike(parameters), m);
  const optimizer = createOptimizer({
    ...{ name, parameters, clip, weightDecay },
    state: { m, v },
    update: ({ lr, weightDecay, step, gradient, scale, value, state }) =>
      run(
        name,
        { lr, beta1, beta2, eps, weightDecay, step },
        { grad: gradient, gradScale: scale },
        { value, m: state["m"]!, v: state["v"]! },
      ),
  });
  return Object.assign(optimizer, {
    ...{ m, v, state: { m, v } },
    preconditioner: () => (optimizer.steps === 0 ? null : { v, bias: 1 - beta2 ** optimizer.steps, eps }),
  });
}

/** A range of the arenas that one kernel call updates. */
interface Update {
  readonly lr: number;
  readonly weightDecay: number;
  /** Number of the step, counted from 1. */
  readonly step: number;
  readonly gradient: Tensor;
  /** Factor of the gradient [1]; 0 means no step. */
  readonly scale: Tensor;
  readonly value: Tensor;
  readonly state: Readonly<Record<string, Tensor>>;
}

interface Maker {
  readonly name: string;
  readonly parameters: Parameters;
  readonly clip: number;
  readonly weightDecay: number;
  readonly state: Readonly<Record<string, Arena>>;
  readonly update: (range: Update) => void;
}

function createOptimizer({ name, parameters, clip, weightDecay, state, update }: Maker): Optimizer {
  const { value, decayed } = parameters;
  // Without decay, both ranges are treated alike.
  const cut = weightDecay === 0 ? value.size : decayed;
  const ranges = [
    { from: 0, size: cut, weightDecay },
    { from: cut, size: value.size - cut, weightDecay: 0 },
  ].filter(({ size }) => size > 0);
  const arenas = Object.entries(state);
  const where = `${name}.step`;
  const changed = [value, ...Object.values(state).map(({ arena }) => arena)];
  const optimizer: Optimizer = {
    name,
    state,
    parameters,
    steps: 0,
    step(gradient, lr, options = {}) {
      checkOptions(where, options, stepOptions);
      checkRange(`${where}: lr`, lr, learningRate);
      wantTensor(where, "the gradient", gradient);
      if (gradient.size !== value.size || gradient.dtype !== "f32")
        throw new GradmixError(
          "shape",
          `${where}: a gradient of ${gradient.size} ${gradient.dtype} for parameters of ${value.size}; give an arena of arenaLike`,
        );
      if (changed.some((own) => sharesMemory(own, gradient)))
        throw new GradmixError(
          "autograd",
          `${where}: the gradient is in the memory that the step changes, of the parameters or the state; give an arena of arenaLike`,
        );
      return scope(() => {
        // All memory is allocated before a parameter changes.
        const { squaredNorm, scale } = gradientScale(gradient, clip, options);
        optimizer.steps++;
        for (const { from, size, weightDecay } of ranges) {
          const part = (arena: Tensor): Tensor => arena.part([size], from);
          const own: Record<string, Tensor> = {};
          for (const [name, { arena }] of arenas) own[name] = part(arena);
          const [grad, val] = [part(gradient), part(value)];
          update({ lr, weightDecay, step: optimizer.steps, gradient: grad, scale, value: val, state: own });
        }
        return squaredNorm === options.squaredNorm ? squaredNorm.part(squaredNorm.shape) : squaredNorm;
      });
    },
    dispose() {
      for (const arena of Object.values(state)) arena.dispose();
    },
  };
  return optimizer;
}

/**
 * ‖gradient‖² and the factor of the gradient: min(1, clip/‖g‖)/S, or 0, at which the kernels take no step, if the norm is not finite. Both belong to
 * the current scope.
 */
function gradientScale(
  gradient: Tensor,
  clip: number,
  { lossScale = 1, squaredNorm: given }: OptimizerStepOptions,
): { squaredNorm: Tensor; scale: Tensor } {
  const squaredNorm = given ?? empty([1], "f32", gradient.memory);
  const scale = empty([1], "f32", gradient.memory);
  if (given === undefined) run("sumSquares", {}, { x: gradient }, { out: squaredNorm });
  // min(1, clip·S/‖S·g‖)/S: S is a power of two, so it causes no additional rounding. No norm of f32 is above the largest f32, so that clips nothing.
  const maxNorm = clip > 0 ? clip * lossScale : MOST;
  run("clipScale", { maxNorm }, { sumsq: squaredNorm }, { scale });
  if (lossScale !== 1) run("affine", { scale: 1 / lossScale, shift: 0 }, { x: scale }, { y: scale });
  return { squaredNorm, scale };
}
