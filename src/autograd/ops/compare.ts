/** Comparisons and logic: conditions, i32 tensors of 0 and 1, for `where`. Gradients do not pass. */
import type { CompareKind } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise } from "../batch.ts";
import { wantTensor } from "../checks.ts";
import { allocate, apply1, filled, type None, none, type Op, wantType } from "../op.ts";
import { jointShape, type Operand, toTensors, walk } from "./operands.ts";
import { runPairs } from "./strided.ts";

function compareOp(name: string, kind: CompareKind): Op<None, "a b", "c"> {
  return {
    name,
    keepsBatch: keepsElementwise,
    constant: true,
    infer([a, b]) {
      if (kind === "and" || kind === "or") wantType(name, "the first operand", a, "i32");
      if (a.dtype !== b.dtype)
        throw new GradmixError(
          "shape",
          `${name}: the operands are ${a.dtype} and ${b.dtype}, they must be of one type; cast one of them`,
        );
      return [{ shape: jointShape(name, a, b), dtype: "i32" }];
    },
    forward([a, b], _, [spec]) {
      const c = allocate(spec, a);
      runPairs("compare", walk(kind, a, b, c), a, b, c);
      return { outputs: [c] };
    },
  };
}

export const compareOps: { readonly [K in CompareKind]: Op<None> } = {
  equal: compareOp("equal", "equal"),
  notEqual: compareOp("notEqual", "notEqual"),
  less: compareOp("less", "less"),
  lessEqual: compareOp("lessEqual", "lessEqual"),
  greater: compareOp("greater", "greater"),
  greaterEqual: compareOp("greaterEqual", "greaterEqual"),
  and: compareOp("logicalAnd", "and"),
  or: compareOp("logicalOr", "or"),
};

const compared = (op: Op<None>, a: Operand, b: Operand): Tensor<"i32"> =>
  apply1(op, toTensors(op.name, a, b), none);

/**
 * Whether a = b, elementwise, with broadcasting: a condition for `where`, i32, 1 where true, else 0. Operands are tensors of one type (f32 or i32) or
 * a tensor and a number. −0 equals 0, and NaN equals nothing. It has no gradient. Throws `shape` for operands of different types, and for shapes that
 * do not broadcast.
 */
export function equal(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.equal, a, b);
}

/** Whether a ≠ b, elementwise, with broadcasting: the opposite of `equal`, so NaN differs from everything, including itself. */
export function notEqual(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.notEqual, a, b);
}

/** Whether a < b, elementwise, with broadcasting: a condition like that of `equal`; 0 where one is NaN. */
export function less(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.less, a, b);
}

/** Whether a ≤ b, elementwise, with broadcasting: a condition like that of `equal`; 0 where one is NaN. */
export function lessEqual(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.lessEqual, a, b);
}

/** Whether a > b, elementwise, with broadcasting: a condition like that of `equal`; 0 where one is NaN. */
export function greater(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.greater, a, b);
}

/** Whether a ≥ b, elementwise, with broadcasting: a condition like that of `equal`; 0 where one is NaN. */
export function greaterEqual(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.greaterEqual, a, b);
}

/** 1 where both conditions a and b are true (not 0), else 0: i32, with broadcasting. Throws `shape` for other types. */
export function logicalAnd(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.and, a, b);
}

/** 1 where at least one of the conditions a and b is true (not 0), else 0: i32, with broadcasting. Throws `shape` for other types. */
export function logicalOr(a: Operand, b: Operand): Tensor<"i32"> {
  return compared(compareOps.or, a, b);
}

/** 1 where the condition is false (0), else 0: i32. Throws `shape` for other types. */
export function logicalNot(condition: Tensor): Tensor<"i32"> {
  wantTensor("logicalNot", "the condition", condition);
  wantType("logicalNot", "the condition", condition, "i32");
  return apply1(compareOps.equal, [condition, filled(0, { shape: [], dtype: "i32" }, condition)], none);
}
