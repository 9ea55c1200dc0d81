/** Checks of operands and attributes for `infer`, where every op refuses what it cannot do before a kernel is enqueued. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Spec } from "./op.ts";

/** Throws `shape` unless the operand is a tensor. */
export function wantTensor(op: string, what: string, value: unknown): asserts value is Tensor {
  if (!(value instanceof Tensor))
    throw new GradmixError("shape", `${op}: ${what} is ${show(value)}, not a tensor`);
}

/** Throws `shape` unless all operands are tensors. */
export function wantTensors(op: string, operands: readonly unknown[]): void {
  for (let slot = 0; slot < operands.length; slot++)
    if (!(operands[slot] instanceof Tensor)) wantTensor(op, `operand ${slot}`, operands[slot]);
}

/** Throws `shape` unless the input has the shape and the type of another. */
export function wantLike(op: string, what: string, spec: Spec, like: Spec): void {
  if (spec.dtype !== like.dtype || !sameShape(spec.shape, like.shape))
    throw new GradmixError(
      "shape",
      `${op}: ${what} is ${spec.dtype}${formatShape(spec.shape)}, ${like.dtype}${formatShape(like.shape)} is needed`,
    );
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
