/**
 * The transformations: vjp, jvp, grad, valueAndGrad, and the two passes for training, `gradients` (reverse mode, into a sink) and
 * `forwardDerivative`.
 *
 * Everything that is made inside and not returned is freed at the end; results belong to the caller's scope, or to the caller if there is none. Every
 * result has a handle of its own: none is an input, and none occurs twice.
 */
import { GradmixError } from "../errors.ts";
import { callback, checkOptions, object, required, show, valueThat } from "../options.ts";
import { MOST } from "../tensor/dtype.ts";
import { formatShape } from "../tensor/shape.ts";
import { empty, scope, Tensor } from "../tensor/tensor.ts";
import { ForwardPass } from "./forward.ts";
import { wantExamples } from "./batch.ts";
import { wantDerivative, wantResult, wantTensor, wantTensorList } from "./checks.ts";
import { alias, withOwnMemory, fresh } from "./handles.ts";
import { filled, specOf, type Transform, transforming, withTransform } from "./op.ts";
import { type GradientSink, wantSink } from "./sink.ts";
import { Tape } from "./tape.ts";

/** A function of tensors with one result or a list of results. */
export type TensorFunction = (...inputs: Tensor[]) => Tensor | Tensor[];

const list = (result: Tensor | readonly Tensor[]): Tensor[] =>
  result instanceof Tensor ? [result] : [...result];

/**
 * A separate handle for each input, so that a transformation that follows it does not also see other uses of the same tensor (passed twice, or
 * captured by the function).
 */
function ownHandle(t: Tensor, caller: string): Tensor {
  return alias(differentiable(caller, t, "an input"));
}

/** Returns the tensor if it can have derivatives; throws `autograd` if not. */
function differentiable(caller: string, t: Tensor, what: string): Tensor {
  wantTensor(caller, what, t);
  if (t.dtype !== "f32")
    throw new GradmixError(
      "autograd",
      `${caller}: ${t.name ?? what} is ${t.dtype}; only f32 has derivatives`,
    );
  return t;
}

/** A function's values and its pullback. */
export interface Vjp {
  /** The values of the function, as a list. */
  readonly outputs: Tensor[];
  /** Computes the cotangents of the primals from those of the outputs. It can be called once, because it frees what was saved. */
  readonly pullback: (cotangents: Tensor | readonly Tensor[]) => Tensor<"f32">[];
  /** Frees what was saved, if `pullback` will not be called (otherwise the garbage collector does so eventually). */
  readonly dispose: () => void;
}

/** Tapes that can no longer be played back free what they saved. */
const forgotten = new FinalizationRegistry<Tape>((tape) => {
  try {
    tape.dispose();
  } catch (error) {
    // The backend may have been shut down, and its memory freed. Anything else is a fault.
    if (!(error instanceof GradmixError && error.code === "backend")) throw error;
  }
});

/** Records which of some tensors a function uses. */
class Uses implements Transform {
  readonly used = new Set<Tensor>();
  readonly #asked: ReadonlySet<Tensor>;

  constructor(tensors: readonly Tensor[]) {
    this.#asked = new Set(tensors);
  }

  observe(inputs: readonly Tensor[]): void {
    for (const t of inputs) if (this.#asked.has(t)) this.used.add(t);
  }

  tracks(): boolean {
    return false;
  }

  record(): void {}
}

/**
 * Runs f at `inputs`, which stand for `primals`, under a transformation. Throws `autograd` for an input that f ignores while it uses the caller's
 * tensor, of which the transformation knows nothing; with `some`, also if f uses none of its inputs.
 */
function runUnder(
  caller: string,
  transform: Transform,
  f: TensorFunction,
  primals: readonly Tensor[],
  inputs: readonly Tensor[],
  requireUse = false,
): Tensor[] {
  const uses = new Uses([...primals, ...inputs]);
  const { used } = uses;
  const outputs = withTransform(uses, () =>
    withTransform(transform, () =>
      fresh(() => {
        const result = f(...inputs);
        wantResult(caller, result, true);
        return list(result);
      }),
    ),
  );
  for (const [i, input] of inputs.entries())
    if (!used.has(input) && used.has(primals[i]!))
      throw new GradmixError(
        "autograd",
        `${caller}: the function captures its input ${i} (${input.name ?? "a tensor"} ${formatShape(input.shape)}) from outside and ignores the argument, whose derivative would be 0; use the argument`,
      );
  if (requireUse && inputs.length > 0 && !inputs.some((input) => used.has(input)))
    throw new GradmixError(
      "autograd",
      `${caller}: the function uses none of its inputs, so every gradient would be 0; what it captures from outside counts as constant`,
    );
  return outputs;
}

/**
 * Computes f at the primals, and returns a pullback that computes Jᵀ·ct for cotangents of its outputs. Tensors that f captures count as constants.
 * Throws `autograd` for an input that f ignores while it uses the same tensor by capture.
 */
export function vjp(f: TensorFunction, primals: readonly Tensor[]): Vjp {
  callback("vjp: f", f);
  wantTensorList("vjp", "primal", primals);
  return record("vjp", f, primals);
}

/** `some` means that f must use at least one of its inputs. */
function record(caller: string, f: TensorFunction, primals: readonly Tensor[], requireUse = false): Vjp {
  return scope(() => {
    const inputs = primals.map((t) => ownHandle(t, caller));
    const tape = new Tape(inputs);
    let outputs: Tensor[];
    try {
      outputs = runUnder(caller, tape, f, primals, inputs, requireUse);
      tape.wantIntact(outputs);
    } catch (error) {
      tape.dispose();
      throw error;
    }
    // Both functions refer to this object; once it is collected, the tape can no longer be played back.
    const state = { played: false, disposed: false };
    forgotten.register(state, tape, state);
    return {
      outputs,
      pullback(cotangents) {
        // Checked before anything is played back, so that the call can be repeated.
        const given = cotangents instanceof Tensor ? [cotangents] : cotangents;
        wantTensorList("vjp", "cotangent", given);
        if (state.disposed)
          throw new GradmixError(
            "disposed",
            "vjp: the pullback was disposed; call vjp again to get a new one",
          );
        if (state.played)
          throw new GradmixError(
            "autograd",
            "vjp: the pullback was used already; call vjp again for another",
          );
        if (given.length !== outputs.length)
          throw new GradmixError(
            "autograd",
            `vjp: ${given.length} cotangents were given for ${outputs.length} outputs`,
          );
        for (const [i, t] of given.entries()) wantDerivative("vjp", `cotangent ${i}`, t, outputs[i]!);
        state.played = true;
        forgotten.unregister(state);
        return scope(() => withOwnMemory(tape.backward(outputs, given), [...primals, ...given, ...outputs]));
      },
      dispose() {
        state.disposed = true;
        forgotten.unregister(state);
        tape.dispose();
      },
    };
  });
}

/** Computes f at the primals, and J·t for their tangents; nothing is saved. Throws like `vjp`. */
export function jvp(
  f: TensorFunction,
  primals: readonly Tensor[],
  tangents: readonly Tensor[],
): {
  /** The values of the function, as a list. */
  outputs: Tensor[];
  /** The tangents of the outputs, each with the shape of its output. */
  tangents: Tensor<"f32">[];
} {
  callback("jvp: f", f);
  wantTensorList("jvp", "primal", primals);
  wantTensorList("jvp", "tangent", tangents);
  if (primals.length !== tangents.length)
    throw new GradmixError(
      "autograd",
      `jvp: ${tangents.length} tangents were given for ${primals.length} primals`,
    );
  return scope(() => {
    const inputs = primals.map((t) => ownHandle(t, "jvp"));
    const pass = new ForwardPass("jvp", new Map(inputs.map((t, i) => [t, tangents[i]!])));
    try {
      const outputs = runUnder("jvp", pass, f, primals, inputs);
      const moved = outputs.map((t) => tangentOf(pass, t));
      return { outputs, tangents: withOwnMemory(moved, [...primals, ...tangents, ...outputs]) };
    } finally {
      pass.dispose();
    }
  });
}

function tangentOf(pass: ForwardPass, output: Tensor): Tensor {
  return pass.tangentOf(output)?.adopt() ?? filled(0, specOf(output), output);
}

/** One gradient per input. */
export type Gradients<I extends readonly Tensor[]> = { -readonly [K in keyof I]: Tensor<"f32"> };

/**
 * The gradient of a function with a single-element result, as a function of the same inputs: one gradient per input. Tensors that the function
 * captures count as constants. Throws `autograd` for another result, and for a function that uses none of its inputs, or captures one of them and
 * ignores the argument (`gradients` is for losses that capture their parameters).
 */
export function grad<I extends readonly Tensor[]>(
  f: (...inputs: I) => Tensor,
): (...inputs: I) => Gradients<I> {
  callback("grad: f", f);
  return (...inputs) => scope(() => withValue("grad", f, inputs).gradients);
}

/** The value and the gradient of a function with a single-element result; see `grad`. */
export function valueAndGrad<I extends readonly Tensor[]>(
  f: (...inputs: I) => Tensor,
): (...inputs: I) => {
  /** The value of the function. */
  value: Tensor<"f32">;
  /** Its gradient, in the shape of the input or inputs. */
  gradients: Gradients<I>;
} {
  callback("valueAndGrad: f", f);
  return (...inputs) => withValue("valueAndGrad", f, inputs);
}

function withValue<I extends readonly Tensor[]>(
  caller: string,
  f: (...inputs: I) => Tensor,
  inputs: I,
): { value: Tensor<"f32">; gradients: Gradients<I> } {
  return scope(() => {
    // It is called with as many tensors as were passed.
    const { outputs, pullback, dispose } = record(
      caller,
      (...given) => f(...(given as readonly Tensor[] as I)),
      inputs,
      true,
    );
    const [value] = outputs;
    if (value === undefined || outputs.length !== 1 || value.size !== 1) {
      dispose();
      throw new GradmixError(
        "autograd",
        `${caller}: the function gave ${outputs.map((t) => formatShape(t.shape)).join(" and ")}; one element is needed (sum it)`,
      );
    }
    return { value, gradients: pullback(filled(1, specOf(value), value)) as Gradients<I> };
  });
}

/** What `gradients` differentiates, and where the gradients go. */
export interface GradientsOptions {
  /** Tensors whose gradients go to the sink. */
  readonly parameters: Iterable<Tensor>;
  /** Receives the gradients of the parameters: `sumSink`, `alignSink`, `perExampleSink`, … */
  readonly sink: GradientSink;
  /** Weight of each example's loss [batch]. Default: all 1. */
  readonly weights?: Tensor | ArrayLike<number>;
}

const gradientsChecks = { parameters: required(object), sink: required(object), weights: object };

/**
 * Runs `loss`, which returns one loss per example [batch], and propagates ∇ Σ_b weights[b]·loss[b] back into the sink. Returns the losses. Throws
 * `autograd` for a loss of another shape or one that depends on no parameter, and `config` for a list of weights that are not all finite in f32.
 *
 * Sinks that distinguish examples (all but `sumSink`) need losses that keep them apart: along axis 0, loss b depends only on row b of every value
 * that depends on parameters. A loss that mixes examples (batch norm, a contrastive loss) is refused with `autograd`, naming the op; so is a
 * parameter that is used by an op other than linear, embedding, layerNorm and rmsNorm. The batch may be flattened, [B, T, …] → [B·T, …], and reshaped
 * back.
 */
export function gradients(loss: () => Tensor, options: GradientsOptions): Tensor<"f32"> {
  checkOptions("gradients", options, gradientsChecks);
  callback("gradients: loss", loss);
  const { parameters, sink, weights } = options;
  if (!(Symbol.iterator in parameters))
    throw new GradmixError("config", "gradients: parameters: it must be a list of tensors");
  wantSink(sink);
  if (transforming())
    throw new GradmixError("autograd", "gradients: cannot run inside another transformation; use grad there");
  const watched = new Set<Tensor>();
  for (const parameter of parameters) watched.add(differentiable("gradients", parameter, "a parameter"));
  const tape = new Tape([], watched, (parameter) => sink.distinguishes?.(parameter) ?? true);
  return scope(() => {
    try {
      const losses = scope(() => withTransform(tape, () => lossesOf("gradients", loss)));
      tape.wantIntact([losses]);
      if (!tape.isValue(losses))
        throw new GradmixError("autograd", "gradients: the loss depends on none of the parameters");
      if (sink.perExample !== false)
        wantExamples(`gradients into the sink "${sink.name}"`, losses, tape.blocksOf(losses));
      const cotangent = weightsOf(losses, weights);
      sink.begin?.(watched, losses.size);
      tape.backward([losses], [cotangent], sink);
      sink.end?.();
      return losses;
    } finally {
      tape.dispose();
    }
  });
}

/** What `loss` returns. Throws `autograd` unless that is one loss per example. */
function lossesOf(name: string, loss: () => Tensor): Tensor {
  const losses = fresh(() => {
    const result = loss();
    wantResult(name, result, false);
    return result;
  });
  if (losses.rank !== 1)
    throw new GradmixError(
      "autograd",
      `${name}: the loss has the shape ${formatShape(losses.shape)}; one loss per example is needed, [batch]`,
    );
  return losses;
}

const weight = valueThat(
  "a finite number that f32 holds",
  (value) => typeof value === "number" && Math.abs(value) <= MOST,
);

function weightsOf(losses: Tensor, weights: Tensor | ArrayLike<number> | undefined): Tensor {
  if (weights === undefined) return filled(1, specOf(losses), losses);
  if (weights instanceof Tensor) {
    wantDerivative("gradients", "the tensor of weights", weights, losses);
    return weights;
  }
  if (weights.length !== losses.size)
    throw new GradmixError("shape", `gradients: ${weights.length} weights for ${losses.size} losses`);
  for (let example = 0; example < weights.length; example++)
    weight(`gradients: weights: ${example}`, weights[example]);
  const out = empty(losses.shape, "f32", losses.memory);
  out.write(weights);
  return out;
}

/**
 * The derivative of each example's loss along `tangents` (parameter → direction of the same shape) by one forward-mode pass: ⟨∇loss_b, V⟩ for every b
 * at once, without saving anything. Both results are [batch]. Like the sinks that distinguish examples, it refuses losses that mix them (`autograd`), and like
 * `gradients` one that depends on none of the parameters.
 */
export function forwardDerivative(
  loss: () => Tensor,
  tangents: ReadonlyMap<Tensor, Tensor>,
): {
  /** The losses that `loss` returned [batch]. */
  losses: Tensor<"f32">;
  /** Derivative of each loss along the tangents [batch]. */
  derivatives: Tensor<"f32">;
} {
  callback("forwardDerivative: loss", loss);
  const given: unknown = tangents;
  if (!(given instanceof Map))
    throw new GradmixError(
      "autograd",
      `forwardDerivative: the tangents are ${show(given)}; a Map from parameters to tangents is needed`,
    );
  return scope(() => {
    const pass = new ForwardPass("forwardDerivative", tangents);
    try {
      const losses = withTransform(pass, () => lossesOf("forwardDerivative", loss));
      if (pass.tangentOf(losses) === null)
        throw new GradmixError(
          "autograd",
          "forwardDerivative: the loss depends on none of the parameters that have a tangent",
        );
      wantExamples("forwardDerivative", losses, pass.blocksOf(losses));
      const derivatives = withOwnMemory([tangentOf(pass, losses)], [...tangents.values(), losses]);
      return { losses, derivatives: derivatives[0]! };
    } finally {
      pass.dispose();
    }
  });
}
