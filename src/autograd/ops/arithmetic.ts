/** Elementwise arithmetic with broadcasting: add, sub, mul, div, maximum, minimum, affine, where, cast, stopGradient. */
import { run } from "../../backends/backend.ts";
import type { BinaryKind, KernelParams } from "../../backends/kernels.ts";
import { GradmixError } from "../../errors.ts";
import { valueThat } from "../../options.ts";
import { checkDType, type DType } from "../../tensor/dtype.ts";
import { broadcastShapes, broadcastStrides, formatShape, sameShape, type Shape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise } from "../batch.ts";
import {
  allocate,
  apply1,
  filled,
  MAX_RANK,
  type None,
  none,
  type Op,
  type Spec,
  specOf,
  wantType,
} from "../op.ts";
import { wantLike, wantTensor } from "../checks.ts";
import { reshape, stretch, sumTo } from "./broadcast.ts";

const number = valueThat("a number", (value) => typeof value === "number");

interface BinaryRules {
  /** What the vjp and the jvp need, out of the operands a and b and the result c. */
  saved(a: Tensor, b: Tensor, c: Tensor): Tensor[];
  /** ∂c/∂a · t and ∂c/∂b · t, of the result's shape; t is the cotangent or, broadcast, the tangent. */
  slopeA(t: Tensor, saved: readonly Tensor[]): Tensor;
  slopeB(t: Tensor, saved: readonly Tensor[]): Tensor;
}

/** The broadcast of two shapes, of as many axes as kernels walk. */
function jointShape(name: string, a: Spec, b: Spec): Shape {
  if (a.shape.length <= MAX_RANK && sameShape(a.shape, b.shape)) return a.shape;
  const shape = broadcastShapes(a.shape, b.shape, name);
  if (shape.length > MAX_RANK)
    throw new GradmixError(
      "shape",
      `${name}: ${formatShape(a.shape)} and ${formatShape(b.shape)} have over ${MAX_RANK} axes; reshape them`,
    );
  return shape;
}

const STEP: readonly number[] = [1];
type Walk = Omit<KernelParams["binary"], "kind">;

/** How a kernel reads a and b for c. Where nothing is broadcast it is one long row: a call on small tensors costs little but this bookkeeping. */
function walk<K>(kind: K, a: Tensor, b: Tensor, c: Tensor): Walk & { kind: K } {
  if (a.size === c.size && b.size === c.size)
    return { kind, shape: [c.size], aStrides: STEP, bStrides: STEP };
  const { shape } = c;
  const [aStrides, bStrides] = [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)];
  return { kind, shape, aStrides, bStrides };
}

function binaryOp(name: string, kind: BinaryKind, rules: BinaryRules): Op<None> {
  return {
    name,
    keepsBatch: keepsElementwise,
    infer([a, b]) {
      wantType(name, "the first operand", a, "f32");
      wantType(name, "the second operand", b, "f32");
      return [{ shape: jointShape(name, a, b), dtype: "f32" }];
    },
    forward([a, b], _, [spec]) {
      const c = allocate(spec, a);
      run("binary", walk(kind, a, b, c), [a, b], [c]);
      return { outputs: [c], saved: rules.saved(a, b, c) };
    },
    vjp([ct], { saved, inputs: [a, b], needs }) {
      if (ct === null) return [null, null];
      return [
        needs[0] ? sumTo(rules.slopeA(ct, saved), a.shape) : null,
        needs[1] ? sumTo(rules.slopeB(ct, saved), b.shape) : null,
      ];
    },
    jvp([ta, tb], { inputs: [a, b], outputs: [c] }) {
      const saved = rules.saved(a, b, c);
      // An operand's tangent broadcasts with the other factor by itself, except where it is handed on as it is.
      const fromA = ta === null ? null : stretch(rules.slopeA(ta, saved), c.shape);
      const fromB = tb === null ? null : stretch(rules.slopeB(tb, saved), c.shape);
      return [fromA === null ? fromB : fromB === null ? fromA : add(fromA, fromB)];
    },
  };
}

export const addOp: Op<None> = binaryOp("add", "add", {
  saved: () => [],
  slopeA: (t) => t,
  slopeB: (t) => t,
});
export const subOp: Op<None> = binaryOp("sub", "sub", {
  saved: () => [],
  slopeA: (t) => t,
  slopeB: (t) => affine(t, -1, 0),
});
export const mulOp: Op<None> = binaryOp("mul", "mul", {
  saved: (a, b) => [a, b],
  slopeA: (t, [, b]) => mul(t, b),
  slopeB: (t, [a]) => mul(t, a),
});
export const divOp: Op<None> = binaryOp("div", "div", {
  saved: (_, b, c) => [b, c],
  slopeA: (t, [b]) => div(t, b),
  slopeB: (t, [b, c]) => affine(mul(t, div(c, b)), -1, 0),
});
/** The largest finite f32. */
export const MOST: number = 3.4028234663852886e38;
/** x with infinities at the ends of the finite numbers. */
export const bounded = (x: Tensor): Tensor => minimum(maximum(x, -MOST), MOST);
/** The sign of a − b; of equal infinities too, whose difference is NaN, it is 0. */
export const order = (a: Tensor, b: Tensor): Tensor => sign(sub(bounded(a), bounded(b)));
/** Share of the slope that goes to a: 1 where a > b, 0 where a < b, ½ where they are equal. */
const larger = (a: Tensor, b: Tensor): Tensor => affine(order(a, b), 0.5, 0.5);
export const maximumOp: Op<None> = binaryOp("maximum", "max", {
  saved: (a, b) => [a, b],
  slopeA: (t, [a, b]) => mul(t, larger(a, b)),
  slopeB: (t, [a, b]) => mul(t, larger(b, a)),
});
export const minimumOp: Op<None> = binaryOp("minimum", "min", {
  saved: (a, b) => [a, b],
  slopeA: (t, [a, b]) => mul(t, larger(b, a)),
  slopeB: (t, [a, b]) => mul(t, larger(a, b)),
});

/** y = scale·x + shift. */
export const affineOp: Op<{ scale: number; shift: number }> = {
  name: "affine",
  keepsBatch: keepsElementwise,
  infer([x], { scale, shift }) {
    number("affine: scale", scale);
    number("affine: shift", shift);
    wantType("affine", "x", x, "f32");
    return [specOf(x)];
  },
  forward([x], attrs, [spec]) {
    const y = allocate(spec, x);
    run("affine", attrs, [x], [y]);
    return { outputs: [y] };
  },
  vjp([ct], { attrs }) {
    return [ct === null ? null : scaled(ct, attrs.scale)];
  },
  jvp([tangent], { attrs }) {
    return [tangent === null ? null : scaled(tangent, attrs.scale)];
  },
};

function scaled(t: Tensor, scale: number): Tensor {
  return scale === 1 ? t : affine(t, scale, 0);
}

/** −1, 0 or 1. A step function: gradients stop here. */
export const signOp: Op<None> = {
  name: "sign",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([x]) {
    wantType("sign", "x", x, "f32");
    return [specOf(x)];
  },
  forward([x], _, [spec]) {
    const ones = filled(1, spec, x);
    const y = allocate(spec, x);
    // The slope of |x|, which is 0 at 0.
    run("unaryVjp", { kind: "abs" }, [x, ones], [y]);
    ones.dispose();
    return { outputs: [y] };
  },
};

export const whereOp: Op<None> = {
  name: "where",
  keepsBatch: keepsElementwise,
  infer([condition, a, b]) {
    wantType("where", "the condition", condition, "i32");
    wantType("where", "the first choice", a, "f32");
    wantType("where", "the second choice", b, "f32");
    wantLike("where", "the second choice", b, a);
    wantLike("where", "the condition", condition, { shape: a.shape, dtype: "i32" });
    return [{ shape: a.shape, dtype: "f32" }];
  },
  forward([condition, a, b], _, [spec]) {
    const c = allocate(spec, a);
    run("select", {}, [condition, a, b], [c]);
    return { outputs: [c], saved: [condition] };
  },
  vjp([ct], { saved: [condition], needs }) {
    if (ct === null) return [null, null, null];
    const zero = filled(0, specOf(ct), ct);
    return [null, needs[1] ? where(condition, ct, zero) : null, needs[2] ? where(condition, zero, ct) : null];
  },
  jvp([, ta, tb], { inputs: [condition, a] }) {
    if (ta === null && tb === null) return [null];
    return [where(condition, ta ?? filled(0, specOf(a), a), tb ?? filled(0, specOf(a), a))];
  },
};

/** f32 ↔ i32. To i32 gradients stop; from i32 there are none. */
export const castOp: Op<{ dtype: DType }> = {
  name: "cast",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([x], { dtype }) {
    checkDType(dtype, "cast");
    return [{ shape: x.shape, dtype }];
  },
  forward([x], _, [spec]) {
    const y = allocate(spec, x);
    run("cast", {}, [x], [y]);
    return { outputs: [y] };
  },
};

export const stopGradientOp: Op<None> = {
  name: "stopGradient",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([x]) {
    return [specOf(x)];
  },
  forward([x]) {
    return { outputs: [x.view(x.shape)] };
  },
};

export type Operand = Tensor | number;

function binary(op: Op<None>, a: Operand, b: Operand): Tensor {
  return apply1(op, toTensors(op.name, a, b), none);
}

function toTensors(name: string, a: Operand, b: Operand): [Tensor, Tensor] {
  if (typeof a !== "number") wantTensor(name, "operand 0", a);
  if (typeof b !== "number") wantTensor(name, "operand 1", b);
  const like = a instanceof Tensor ? a : b;
  if (!(like instanceof Tensor))
    throw new GradmixError("shape", `${name}: one of the operands must be a tensor, both are numbers`);
  const scalar: Spec = { shape: [], dtype: "f32" };
  const wrap = (x: Operand): Tensor => (typeof x === "number" ? filled(x, scalar, like) : x);
  return [wrap(a), wrap(b)];
}

/** a + b, broadcast. */
export function add(a: Operand, b: Operand): Tensor {
  if (typeof b === "number" && a instanceof Tensor) return affine(a, 1, b);
  if (typeof a === "number" && b instanceof Tensor) return affine(b, 1, a);
  return binary(addOp, a, b);
}

/** a − b, broadcast. */
export function sub(a: Operand, b: Operand): Tensor {
  if (typeof b === "number" && a instanceof Tensor) return affine(a, 1, -b);
  if (typeof a === "number" && b instanceof Tensor) return affine(b, -1, a);
  return binary(subOp, a, b);
}

/** a ⊙ b, broadcast. */
export function mul(a: Operand, b: Operand): Tensor {
  if (typeof b === "number" && a instanceof Tensor) return affine(a, b, 0);
  if (typeof a === "number" && b instanceof Tensor) return affine(b, a, 0);
  return binary(mulOp, a, b);
}

/** a / b, broadcast. */
export function div(a: Operand, b: Operand): Tensor {
  return binary(divOp, a, b);
}

/** The larger of a and b, broadcast; where they are equal each gets half of the gradient. */
export function maximum(a: Operand, b: Operand): Tensor {
  return binary(maximumOp, a, b);
}

/** The smaller of a and b, broadcast; where they are equal each gets half of the gradient. */
export function minimum(a: Operand, b: Operand): Tensor {
  return binary(minimumOp, a, b);
}

/** scale·x + shift. */
export function affine(x: Tensor, scale: number, shift: number): Tensor {
  return apply1(affineOp, [x], { scale, shift });
}

/** −1, 0 or 1 by the sign of x. No gradient. */
export function sign(x: Tensor): Tensor {
  return apply1(signOp, [x], none);
}

/** condition ≠ 0 ? a : b by element, broadcast; `condition` is i32. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  wantTensor("where", "the condition", condition);
  const [x, y] = toTensors("where", a, b);
  const shape = broadcastShapes(condition.shape, broadcastShapes(x.shape, y.shape, "where"), "where");
  return apply1(
    whereOp,
    [condition, x, y].map((t) => stretch(t, shape)),
    none,
  );
}

/** The elements as `dtype`; towards zero to i32. No gradient passes a conversion; to its own type x keeps its gradient. */
export function cast(x: Tensor, dtype: DType): Tensor {
  wantTensor("cast", "x", x);
  return x.dtype === dtype ? reshape(x, x.shape) : apply1(castOp, [x], { dtype });
}

/** x, as a constant: no gradient and no tangent passes. */
export function stopGradient(x: Tensor): Tensor {
  return apply1(stopGradientOp, [x], none);
}
