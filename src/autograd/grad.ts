/**
 * The transformations: vjp, jvp, grad, valueAndGrad, checkpoint, and the two passes that training is made of,
 * `gradients` (reverse, into a sink) and `forwardDerivative`.
 *
 * Everything made inside and not returned is freed at the end; what is returned belongs to the caller's scope, or to
 * the caller where there is none.
 */
import { GradmixError } from "../errors.ts";
import { formatShape } from "../tensor/shape.ts";
import { empty, scope, Tensor } from "../tensor/tensor.ts";
import { ForwardPass } from "./forward.ts";
import {
  apply1,
  filled,
  innermost,
  instead,
  specOf,
  type Transform,
  transforming,
  withTransform,
} from "./op.ts";
import { reshapeOp } from "./ops/broadcast.ts";
import type { GradientSink } from "./sink.ts";
import { Tape } from "./tape.ts";

export type TensorFunction = (...inputs: Tensor[]) => Tensor | Tensor[];

const list = (result: Tensor | readonly Tensor[]): Tensor[] =>
  result instanceof Tensor ? [result] : [...result];

/**
 * A handle of its own for each input, so that a transformation that watches it does not also see other uses of the same
 * tensor (given twice, or captured by the function).
 */
function alias(t: Tensor, what: string): Tensor {
  if (t.dtype !== "f32")
    throw new GradmixError(
      "autograd",
      `${what}: ${t.name ?? "an input"} is ${t.dtype}; only f32 has derivatives`,
    );
  const own = apply1(reshapeOp, [t], { shape: t.shape });
  own.name = t.name;
  return own;
}

/** A result with a handle of its own, where a rule handed on what the caller gave: both can be disposed. */
function apart(result: Tensor, given: readonly Tensor[]): Tensor {
  return given.includes(result) ? alias(result, "vjp") : result;
}

/** A function's values and its pullback. */
export interface Vjp {
  readonly outputs: Tensor[];
  /** Cotangents of the outputs → cotangents of the primals. Once: it lets go of what was saved. */
  readonly pullback: (cotangents: Tensor | readonly Tensor[]) => Tensor[];
  /** Lets go of what was saved, if `pullback` will not be called. */
  readonly dispose: () => void;
}

/** f at the primals, and Jᵀ·ct for cotangents of its outputs. */
export function vjp(f: TensorFunction, primals: readonly Tensor[]): Vjp {
  return scope(() => {
    const inputs = primals.map((t) => alias(t, "vjp"));
    const tape = new Tape(inputs);
    let outputs: Tensor[];
    try {
      outputs = withTransform(tape, () => list(f(...inputs)));
    } catch (error) {
      tape.dispose();
      throw error;
    }
    let played = false;
    return {
      outputs,
      pullback(cotangents) {
        const given = list(cotangents);
        if (played)
          throw new GradmixError(
            "autograd",
            "vjp: the pullback was used already; call vjp again for another",
          );
        if (given.length !== outputs.length)
          throw new GradmixError(
            "autograd",
            `vjp: ${given.length} cotangents were given for ${outputs.length} outputs`,
          );
        played = true;
        return scope(() => tape.backward(outputs, given).map((t) => apart(t, given)));
      },
      dispose() {
        played = true;
        tape.dispose();
      },
    };
  });
}

/** f at the primals, and J·t for their tangents; nothing is saved. */
export function jvp(
  f: TensorFunction,
  primals: readonly Tensor[],
  tangents: readonly Tensor[],
): { outputs: Tensor[]; tangents: Tensor[] } {
  if (primals.length !== tangents.length)
    throw new GradmixError(
      "autograd",
      `jvp: ${tangents.length} tangents were given for ${primals.length} primals`,
    );
  return scope(() => {
    const inputs = primals.map((t) => alias(t, "jvp"));
    const pass = new ForwardPass(new Map(inputs.map((t, i) => [t, tangents[i]])));
    try {
      const outputs = withTransform(pass, () => list(f(...inputs)));
      return { outputs, tangents: outputs.map((t) => apart(tangentOf(pass, t), tangents)) };
    } finally {
      pass.dispose();
    }
  });
}

function tangentOf(pass: ForwardPass, output: Tensor): Tensor {
  return pass.tangentOf(output)?.adopt() ?? filled(0, specOf(output), output);
}

/** The gradient of a function with a result of one element, as a function of the same inputs. */
export function grad(f: (...inputs: Tensor[]) => Tensor): (...inputs: Tensor[]) => Tensor[] {
  return (...inputs) => scope(() => valueAndGrad(f)(...inputs).gradients);
}

/** The value and the gradient of a function with a result of one element. */
export function valueAndGrad(
  f: (...inputs: Tensor[]) => Tensor,
): (...inputs: Tensor[]) => { value: Tensor; gradients: Tensor[] } {
  return (...inputs) =>
    scope(() => {
      const { outputs, pullback, dispose } = vjp(f, inputs);
      const [value] = outputs;
      if (outputs.length !== 1 || value.size !== 1) {
        dispose();
        throw new GradmixError(
          "autograd",
          `grad: the function gave ${outputs.map((t) => formatShape(t.shape)).join(" and ")}; one element is needed (sum it)`,
        );
      }
      return { value, gradients: pullback(filled(1, specOf(value), value)) };
    });
}

/**
 * f(...inputs), without saving what f computes: the backward pass runs f again (Chen et al. 2016). Parameters may be used
 * freely inside; every other tensor that depends on them must be one of `inputs`. Outside of a backward pass it is
 * just f.
 */
export function checkpoint<R extends Tensor | Tensor[]>(
  f: (...inputs: Tensor[]) => R,
  ...inputs: Tensor[]
): R {
  const tape = innermost();
  if (!(tape instanceof Tape)) return scope(() => f(...inputs));
  const guard: Transform = {
    tracks: (used) => used.some((t) => tape.isValue(t) && !inputs.includes(t)),
    note({ op }) {
      throw new GradmixError(
        "autograd",
        `checkpoint: ${op.name} uses a tensor that depends on parameters but is not an input of the checkpoint; pass it as one`,
      );
    },
  };
  const result = scope(() => instead(tape, guard, () => f(...inputs)));
  const outputs = list(result);
  const tracked = inputs.map((t) => tape.isValue(t));
  tape.noteStep(inputs, outputs, (cotangents, sink) => {
    const again = inputs.map((t, i) => (tracked[i] ? alias(t, "checkpoint") : t));
    const leaves = again.filter((_, i) => tracked[i]);
    const replay = new Tape(leaves, tape.parameters);
    try {
      const recomputed = scope(() => withTransform(replay, () => list(f(...again))));
      const gradients = replay.backward(recomputed, cotangents, sink);
      return inputs.map((_, i) => (tracked[i] ? (gradients.shift() ?? null) : null));
    } finally {
      replay.dispose();
    }
  });
  return result;
}

export interface GradientsOptions {
  /** Tensors whose gradients go to the sink. */
  readonly parameters: Iterable<Tensor>;
  readonly sink: GradientSink;
  /** The cotangent of each example's loss. Default: all 1. */
  readonly weights?: Tensor | ArrayLike<number>;
}

/**
 * Runs `loss`, which gives one loss an example [batch], and plays it back into the sink: ∇ Σ_b weights[b]·loss[b].
 * Returns the losses. Throws `autograd` for a loss of another shape or one that depends on no parameter.
 */
export function gradients(loss: () => Tensor, { parameters, sink, weights }: GradientsOptions): Tensor {
  if (transforming())
    throw new GradmixError("autograd", "gradients: cannot run inside another transformation; use grad there");
  const watched = new Set(parameters);
  const tape = new Tape([], watched);
  return scope(() => {
    try {
      const losses = scope(() => withTransform(tape, loss));
      wantLosses("gradients", losses);
      if (!tape.isValue(losses))
        throw new GradmixError("autograd", "gradients: the loss depends on none of the parameters");
      const cotangent = weightsOf(losses, weights);
      sink.begin?.(watched);
      tape.backward([losses], [cotangent], sink);
      sink.end?.();
      return losses;
    } finally {
      tape.dispose();
    }
  });
}

function wantLosses(name: string, losses: Tensor): void {
  if (losses.rank !== 1)
    throw new GradmixError(
      "autograd",
      `${name}: the loss has the shape ${formatShape(losses.shape)}; one loss an example is needed, [batch]`,
    );
}

function weightsOf(losses: Tensor, weights: Tensor | ArrayLike<number> | undefined): Tensor {
  if (weights === undefined) return filled(1, specOf(losses), losses);
  if ("shape" in weights) return weights;
  if (weights.length !== losses.size)
    throw new GradmixError("shape", `gradients: ${weights.length} weights for ${losses.size} losses`);
  const out = empty(losses.shape, "f32", losses.memory);
  out.write(weights);
  return out;
}

/**
 * The derivative of each example's loss along `tangents` (parameter → direction of the same shape), by one forward-mode
 * pass: ⟨∇loss_b, V⟩ for every b at once, with nothing saved. Both results are [batch].
 */
export function forwardDerivative(
  loss: () => Tensor,
  tangents: ReadonlyMap<Tensor, Tensor>,
): { losses: Tensor; derivatives: Tensor } {
  return scope(() => {
    const pass = new ForwardPass(tangents);
    try {
      const losses = withTransform(pass, loss);
      wantLosses("forwardDerivative", losses);
      return { losses, derivatives: tangentOf(pass, losses) };
    } finally {
      pass.dispose();
    }
  });
}
