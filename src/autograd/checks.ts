/** Checks of operands and attributes for `infer`, where every op refuses what it cannot do before a kernel is enqueued. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { formatShape, sameShape, sizeOf } from "../tensor/shape.ts";
import { isTensor, Tensor } from "../tensor/tensor.ts";
import type { Spec } from "./op.ts";

/** Throws `shape` unless the operand is a tensor. */
export function wantTensor(op: string, what: string, value: unknown): asserts value is Tensor {
  if (!(value instanceof Tensor))
    throw new GradmixError("shape", `${op}: ${what} is ${show(value)}, not a tensor`);
}

/** "a promise", or what `show` says. */
const named = (value: unknown): string =>
  value instanceof Promise ? "a promise" : value === undefined ? "nothing (undefined)" : show(value);

/** Throws `autograd` unless a function that was differentiated returned a tensor or, with `lists`, a list of tensors. */
export function wantResult(caller: string, result: unknown, lists: boolean): void {
  const many: readonly unknown[] = lists && Array.isArray(result) ? result : [result];
  const wrong = many.find((t) => !(t instanceof Tensor));
  if (wrong === undefined && many.every((t) => t instanceof Tensor)) return;
  // Nobody waits for a promise that is refused, so its error is ignored.
  if (wrong instanceof Promise) wrong.catch(() => {});
  throw new GradmixError(
    "autograd",
    `${caller}: the function returned ${named(wrong)}, not a tensor${lists ? " or a list of tensors" : ""}; ${wrong instanceof Promise ? "it has to be synchronous" : "return the tensor that it computes"}`,
  );
}

/** Throws `shape` unless the value is a list of tensors. */
export function wantTensorList(
  caller: string,
  what: string,
  value: unknown,
): asserts value is readonly Tensor[] {
  wantList(caller, `the list of ${what}s`, value, "tensors");
  for (const [i, t] of value.entries()) wantTensor(caller, `${what} ${i}`, t);
}

/** Throws `shape` unless the derivative, a cotangent or a tangent, has the type and the shape of the value to which it belongs. */
export function wantDerivative(caller: string, what: string, derivative: unknown, of: Spec): void {
  wantTensor(caller, what, derivative);
  if (derivative.dtype !== "f32" || !sameShape(derivative.shape, of.shape))
    throw new GradmixError(
      "shape",
      `${caller}: ${what} is ${derivative.dtype}${formatShape(derivative.shape)}; f32${formatShape(of.shape)} is needed`,
    );
}

/** Throws `shape` unless all operands are tensors. */
export function wantTensors(op: string, operands: readonly unknown[]): void {
  for (let slot = 0; slot < operands.length; slot++) {
    const operand = operands[slot];
    if (!isTensor(operand)) wantTensor(op, `operand ${slot}`, operand);
    // A program that changes the list `shape` would otherwise make kernels read beyond the elements.
    else if (sizeOf(operand.shape) !== operand.size) refuseShape(op, slot, operand);
  }
}

function refuseShape(op: string, slot: number, { shape, size }: Tensor): never {
  throw new GradmixError(
    "shape",
    `${op}: operand ${slot} has the shape ${formatShape(shape)} and ${size} elements: its shape was changed; use reshape`,
  );
}

/** Throws `shape` unless the input has the shape and the type of another. */
export function wantLike(op: string, what: string, spec: Spec, like: Spec): void {
  if (spec.dtype !== like.dtype || !sameShape(spec.shape, like.shape))
    throw new GradmixError(
      "shape",
      `${op}: ${what} is ${spec.dtype}${formatShape(spec.shape)}, ${like.dtype}${formatShape(like.shape)} is needed`,
    );
}

/** A copy of a list of the caller's, who may change it after the call; other values stay, for the check that follows. */
export function ownList(list: readonly number[]): readonly number[] {
  return Array.isArray(list) ? list.slice() : list;
}

/** Throws `shape` unless the value is a list; the message names its contents. */
export function wantList(
  op: string,
  what: string,
  value: unknown,
  of: "integers" | "tensors" = "integers",
): asserts value is readonly unknown[] {
  if (!Array.isArray(value))
    throw new GradmixError("shape", `${op}: ${what} is ${show(value)}, not a list of ${of}`);
}
