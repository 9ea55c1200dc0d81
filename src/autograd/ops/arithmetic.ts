/** Elementwise arithmetic with broadcasting: add, sub, mul, div, maximum, minimum, clip, affine, where, cast, stopGradient. */
import { run } from "../../backends/backend.ts";
import type { BinaryKind } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { valueThat } from "../../options.ts";
import { checkDType, type DType, MOST } from "../../tensor/dtype.ts";
import { broadcastShapes } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise } from "../batch.ts";
import {
  allocate,
  apply1,
  type PerSlot,
  filled,
  type None,
  none,
  type Op,
  type SlotsOf,
  type Spec,
  specOf,
  wantType,
} from "../op.ts";
import { wantLike, wantTensor } from "../checks.ts";
import { reshape, stretch, sumTo } from "./broadcast.ts";
import { greater, less, logicalOr } from "./compare.ts";
import { jointShape, type Operand, toTensors, walk } from "./operands.ts";
import { runPairs } from "./strided.ts";

export type { Operand } from "./operands.ts";

const number = valueThat("a number", (value) => typeof value === "number");

interface BinaryRules<Saved extends string> {
  /** The tensors that the vjp and the jvp need, from the operands a and b and the result c. */
  saved(a: Tensor, b: Tensor, c: Tensor): Tensor[];
  /** ∂c/∂a · t and ∂c/∂b · t, with the result's shape; t is the cotangent or, broadcast, the tangent. */
  slopeA(t: Tensor, saved: PerSlot<SlotsOf<Saved>, Tensor>): Tensor;
  slopeB(t: Tensor, saved: PerSlot<SlotsOf<Saved>, Tensor>): Tensor;
}

/** `Saved` has the names of the saved values, in order. */
export function binaryOp<Saved extends string>(
  name: string,
  kind: BinaryKind,
  rules: BinaryRules<Saved>,
): Op<None, "a b", "c", Saved> {
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
      runPairs("binary", walk(kind, a, b, c), a, b, c);
      return { outputs: [c], saved: rules.saved(a, b, c) };
    },
    vjp([ct], { saved, inputs: [a, b], needs }) {
      if (ct === null) return [null, null];
      return [
        needs[0] ? sumTo(rules.slopeA(ct, saved), a.shape) : null,
        needs[1] ? sumTo(rules.slopeB(ct, saved), b.shape) : null,
      ];
    },
    jvp([ta, tb], { saved, outputs: [c] }) {
      // An operand's tangent broadcasts when it is multiplied, except where it is returned unchanged.
      const fromA = ta === null ? null : stretch(rules.slopeA(ta, saved), c.shape);
      const fromB = tb === null ? null : stretch(rules.slopeB(tb, saved), c.shape);
      return [fromA === null ? fromB : fromB === null ? fromA : add(fromA, fromB)];
    },
  };
}

export const addOp: Op<None> = binaryOp<"">("add", "add", {
  saved: () => [],
  slopeA: (t) => t,
  slopeB: (t) => t,
});
export const subOp: Op<None> = binaryOp<"">("sub", "sub", {
  saved: () => [],
  slopeA: (t) => t,
  slopeB: (t) => affine(t, -1, 0),
});
export const mulOp: Op<None> = binaryOp<"a b">("mul", "mul", {
  saved: (a, b) => [a, b],
  slopeA: (t, [, b]) => mul(t, b),
  slopeB: (t, [a]) => mul(t, a),
});
export const divOp: Op<None> = binaryOp<"b c">("div", "div", {
  saved: (_, b, c) => [b, c],
  slopeA: (t, [b]) => div(t, b),
  slopeB: (t, [b, c]) => affine(mul(t, div(c, b)), -1, 0),
});

/** x with infinities replaced by the largest finite numbers. */
export const bounded = (x: Tensor): Tensor => minimum(maximum(x, -MOST), MOST);
/** The sign of a − b; 0 also for equal infinities, whose difference is NaN. */
export const order = (a: Tensor, b: Tensor): Tensor => sign(sub(bounded(a), bounded(b)));
/** Share of the slope that goes to a: 1 where a > b, 0 where a < b, ½ where they are equal. */
const larger = (a: Tensor, b: Tensor): Tensor => affine(order(a, b), 0.5, 0.5);
export const maximumOp: Op<None> = binaryOp<"a b">("maximum", "max", {
  saved: (a, b) => [a, b],
  slopeA: (t, [a, b]) => mul(t, larger(a, b)),
  slopeB: (t, [a, b]) => mul(t, larger(b, a)),
});
export const minimumOp: Op<None> = binaryOp<"a b">("minimum", "min", {
  saved: (a, b) => [a, b],
  slopeA: (t, [a, b]) => mul(t, larger(b, a)),
  slopeB: (t, [a, b]) => mul(t, larger(a, b)),
});

/** x clipped to [min, max]. */
export const clipOp: Op<{ min: number; max: number }, "x", "y", "x"> = {
  name: "clip",
  keepsBatch: keepsElementwise,
  infer([x], { min, max }) {
    number("clip: min", min);
    number("clip: max", max);
    if (!(min <= max)) throw new GradmixError("config", `clip: min ${min} must be at most max ${max}`);
    wantType("clip", "x", x, "f32");
    return [specOf(x)];
  },
  forward([x], { min, max }, [spec]) {
    const y = allocate(spec, x);
    const one: Spec = { shape: [], dtype: "f32" };
    const [low, high] = [filled(min, one, x), filled(max, one, x)];
    runPairs("binary", walk("max", x, low, y), x, low, y);
    runPairs("binary", walk("min", y, high, y), y, high, y);
    for (const t of [low, high]) t.dispose();
    return { outputs: [y], saved: [x] };
  },
  vjp([ct], { saved: [x], attrs }) {
    return [ct === null ? null : within(x, attrs, ct)];
  },
  jvp([tangent], { inputs: [x], attrs }) {
    return [tangent === null ? null : within(x, attrs, tangent)];
  },
};

/** t where min ≤ x ≤ max, else 0; t where x is NaN. */
function within(x: Tensor, { min, max }: { min: number; max: number }, t: Tensor): Tensor {
  return where(logicalOr(less(x, min), greater(x, max)), 0, t);
}

/** y = scale·x + shift. */
export const affineOp: Op<{ scale: number; shift: number }, "x", "y"> = {
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
    run("affine", attrs, { x }, { y });
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
  return scale === 1 ? t : affine(t, scale, NOTHING);
}

/** The shift that changes no number. (0 + −0 is 0.) */
const NOTHING = -0;

/** An op of a tensor and a number. The type is checked here, so that the message names the op that was called. */
function withNumber(name: string, x: Tensor, scale: number, shift: number): Tensor<"f32"> {
  wantType(name, "the tensor", x, "f32");
  return affine(x, scale, shift);
}

/** −1, 0 or 1. A step function, so gradients stop here. */
export const signOp: Op<None, "x", "y"> = {
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
    run("unaryVjp", { kind: "abs" }, { x, dy: ones }, { dx: y });
    ones.dispose();
    return { outputs: [y] };
  },
};

export const whereOp: Op<None, "condition a b", "y", "condition"> = {
  name: "where",
  keepsBatch: keepsElementwise,
  infer([condition, a, b]) {
    wantType("where", "the condition", condition, "i32");
    wantLike("where", "the second choice", b, a);
    wantLike("where", "the condition", condition, { shape: a.shape, dtype: "i32" });
    return [specOf(a)];
  },
  forward([condition, a, b], _, [spec]) {
    const c = allocate(spec, a);
    run("select", {}, { condition, a, b }, { c });
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

/** Converts between f32 and i32. Gradients do not pass the conversion. */
export const castOp: Op<{ dtype: DType }, "x", "y"> = {
  name: "cast",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([x], { dtype }) {
    checkDType(dtype, "cast");
    return [{ shape: x.shape, dtype }];
  },
  forward([x], _, [spec]) {
    const y = allocate(spec, x);
    run("cast", {}, { x }, { y });
    return { outputs: [y] };
  },
};

export const stopGradientOp: Op<None, "x"> = {
  name: "stopGradient",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([x]) {
    return [specOf(x)];
  },
  forward([x]) {
    return { outputs: [x.part(x.shape)] };
  },
};

function binary(op: Op<None>, a: Operand, b: Operand): Tensor<"f32"> {
  return apply1(op, toTensors(op.name, a, b), none);
}

/** a + b, elementwise, with broadcasting. */
export function add(a: Operand, b: Operand): Tensor<"f32"> {
  if (typeof b === "number" && a instanceof Tensor) return withNumber("add", a, 1, b);
  if (typeof a === "number" && b instanceof Tensor) return withNumber("add", b, 1, a);
  return binary(addOp, a, b);
}

/** a − b, elementwise, with broadcasting. */
export function sub(a: Operand, b: Operand): Tensor<"f32"> {
  if (typeof b === "number" && a instanceof Tensor) return withNumber("sub", a, 1, -b);
  if (typeof a === "number" && b instanceof Tensor) return withNumber("sub", b, -1, a);
  return binary(subOp, a, b);
}

/** a ⊙ b, elementwise, with broadcasting. */
export function mul(a: Operand, b: Operand): Tensor<"f32"> {
  if (typeof b === "number" && a instanceof Tensor) return withNumber("mul", a, b, NOTHING);
  if (typeof a === "number" && b instanceof Tensor) return withNumber("mul", b, a, NOTHING);
  return binary(mulOp, a, b);
}

/** a / b, elementwise, with broadcasting. */
export function div(a: Operand, b: Operand): Tensor<"f32"> {
  return binary(divOp, a, b);
}

/** The larger of a and b, elementwise, with broadcasting; where they are equal, each gets half of the gradient. */
export function maximum(a: Operand, b: Operand): Tensor<"f32"> {
  return binary(maximumOp, a, b);
}

/** The smaller of a and b, elementwise, with broadcasting; where they are equal, each gets half of the gradient. */
export function minimum(a: Operand, b: Operand): Tensor<"f32"> {
  return binary(minimumOp, a, b);
}

/**
 * x clipped to [min, max], elementwise; an infinite end does not clip. The slope is 1 from min to max, including both ends, and 0 outside, as in
 * PyTorch; NaN stays NaN. For bounds that are tensors, use `minimum(maximum(x, low), high)`. Throws `shape` unless x is f32, and `config` unless min
 * ≤ max are numbers.
 */
export function clip(x: Tensor, min: number, max: number): Tensor<"f32"> {
  return apply1(clipOp, [x], { min, max });
}

/** scale·x + shift, elementwise. */
export function affine(x: Tensor, scale: number, shift: number): Tensor<"f32"> {
  return apply1(affineOp, [x], { scale, shift });
}

/** The sign of x, elementwise: −1, 0 or 1. It has no gradient. */
export function sign(x: Tensor): Tensor<"f32"> {
  return apply1(signOp, [x], none);
}

/**
 * Selects elements: a where condition ≠ 0, else b, with broadcasting. `condition` is i32, as returned by `less` and the other comparisons; a and b
 * are both f32 or both i32, or numbers. The element that is not selected has no effect, even if it is NaN or ∞: its gradient is 0. (The ops before it
 * may still turn this 0 into NaN, like 0·∞ in the rule of log at 0, so select before such a function, not after it.) Throws `shape` for other types
 * and for shapes that do not broadcast.
 */
export function where(condition: Tensor, a: number, b: number): Tensor<"f32">;
export function where<D extends DType>(
  condition: Tensor,
  a: Tensor<D> | number,
  b: Tensor<D> | number,
): Tensor<D>;
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  wantTensor("where", "the condition", condition);
  const [x, y] = toTensors("where", a, b, condition);
  const shape = broadcastShapes(condition.shape, broadcastShapes(x.shape, y.shape, "where"), "where");
  const wide = (t: Tensor): Tensor => stretch(t, shape);
  return apply1(whereOp, [wide(condition), wide(x), wide(y)], none);
}

/**
 * Converts the elements to `dtype`; to i32 they are rounded towards zero. Gradients do not pass a conversion; without a change of type, x keeps its
 * gradient.
 */
export function cast<D extends DType>(x: Tensor, dtype: D): Tensor<D> {
  wantTensor("cast", "x", x);
  return x.dtype === dtype ? reshape(x, x.shape) : apply1(castOp, [x], { dtype });
}

/** x as a constant: neither gradients nor tangents pass. */
export function stopGradient<D extends DType>(x: Tensor<D>): Tensor<D> {
  return apply1(stopGradientOp, [x], none);
}
