/** Powers. */
import type { Tensor } from "../../tensor/tensor.ts";
import { apply1, type None, none, type Op } from "../op.ts";
import { abs, log } from "./activation.ts";
import { affine, binaryOp, mul, where } from "./arithmetic.ts";
import { equal, greater, greaterEqual, logicalAnd, logicalNot } from "./compare.ts";
import { type Operand, toTensors } from "./operands.ts";

/** The smallest normal f32: below it 1/x may overflow, and a GPU may treat x as 0. */
const LEAST = 2 ** -126;

export const powOp: Op<None> = binaryOp<"a b c">("pow", "pow", {
  saved: (a, b, c) => [a, b, c],
  // b·a^(b−1), and 0 at b = 0, where a^(b−1) may be infinite.
  slopeA(t, [a, b]) {
    const still = logicalAnd(equal(b, 0), logicalNot(greater(abs(a), LEAST)));
    return mul(t, mul(b, pow(a, where(still, b, affine(b, 1, -1)))));
  },
  // a^b·log a. At a = 0 it is 0 for b > 0, as its limit, and for b = 0, as in PyTorch.
  slopeB(t, [a, b, c]) {
    const still = logicalAnd(equal(a, 0), greaterEqual(b, 0));
    return mul(t, mul(c, log(where(still, 1, a))));
  },
});

/**
 * aᵇ, elementwise, with broadcasting; a and b are f32 tensors, or one of them is a number. As in C's pow, a < 0 gives NaN unless b is an integer, and
 * a⁰ and 1ᵇ are 1. The gradient with respect to a is b·aᵇ⁻¹, and 0 at b = 0; with respect to b it is aᵇ·log a, 0 at a = 0 for b ≥ 0 and NaN for a <
 * 0, as in PyTorch. Throws `shape` for other types and for shapes that do not broadcast.
 */
export function pow(a: Operand, b: Operand): Tensor<"f32"> {
  const [x, y] = toTensors("pow", a, b);
  return apply1(powOp, [x, y], none);
}
