/** Reductions over axes: mean, variance, max, min, softmax, logSoftmax, logSumExp. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, checkOptions, numberIn } from "../../options.ts";
import { MOST } from "../../tensor/dtype.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsRows } from "../batch.ts";
import { allocate, apply1, type None, none, type Op, type Spec, specOf, wantType } from "../op.ts";
import { wantLike } from "../checks.ts";
import { abs, exp, log, relu, square } from "./activation.ts";
import {
  add,
  affine,
  bounded,
  cast,
  div,
  maximum,
  minimum,
  mul,
  order,
  sign,
  stopGradient,
  sub,
  where,
} from "./arithmetic.ts";
import {
  axesOf,
  type Axis,
  keptShape,
  reduce,
  type ReduceAttrs,
  reduceOp,
  reshape,
  spread,
  sum,
} from "./broadcast.ts";

/** Equal shares for the elements that attain the extremum. */
function shares(x: Tensor, extremum: Tensor, axes: readonly number[]): Tensor {
  const distance = order(x, reshape(extremum, keptShape(x.shape, axes)));
  const attained = affine(mul(distance, distance), -1, 1);
  return div(attained, sum(attained, axes, true));
}

function extremumOp(kind: "max" | "min"): Op<ReduceAttrs> {
  return reduceOp<"x y">(kind, {
    vjp([ct], { attrs, saved: [x, y] }) {
      return [ct === null ? null : mul(spread(ct, x.shape, attrs.axes), shares(x, y, attrs.axes))];
    },
    jvp([tangent], { attrs, saved: [x, y] }) {
      return [
        tangent === null ? null : sum(mul(tangent, shares(x, y, attrs.axes)), attrs.axes, attrs.keepDims),
      ];
    },
  });
}

export const maxOp: Op<ReduceAttrs> = extremumOp("max");
export const minOp: Op<ReduceAttrs> = extremumOp("min");

function rowsOf(name: string, x: Spec): { rows: number; cols: number } {
  const cols = x.shape.at(-1);
  if (cols === undefined) throw new GradmixError("shape", `${name}: a scalar has no last axis`);
  return { rows: sizeOf(x.shape.slice(0, -1)), cols };
}

export const softmaxOp: Op<None, "x", "y", "y"> = {
  name: "softmax",
  keepsBatch: keepsRows,
  infer([x]) {
    wantType("softmax", "x", x, "f32");
    rowsOf("softmax", x);
    return [specOf(x)];
  },
  forward([x], _, [spec]) {
    const y = allocate(spec, x);
    run("softmax", rowsOf("softmax", x), { x }, { y });
    return { outputs: [y], saved: [y] };
  },
  vjp([ct], { saved: [y] }) {
    return [ct === null ? null : apply1(softmaxVjpOp, [y, ct], none)];
  },
  jvp([tangent], { saved: [y] }) {
    return [tangent === null ? null : apply1(softmaxVjpOp, [y, tangent], none)];
  },
};

/** Maps [y, t] to y ⊙ (t − Σ y·t): the Jacobian of softmax, which is symmetric. */
export const softmaxVjpOp: Op<None, "y t", "y"> = {
  name: "softmaxVjp",
  keepsBatch: keepsRows,
  infer([y, t]) {
    wantType("softmaxVjp", "y", y, "f32");
    wantLike("softmaxVjp", "t", t, y);
    rowsOf("softmaxVjp", y);
    return [specOf(y)];
  },
  forward([y, t], _, [spec]) {
    const dx = allocate(spec, y);
    run("softmaxVjp", rowsOf("softmaxVjp", y), { y, dy: t }, { dx });
    return { outputs: [dx] };
  },
  compose([y, t]) {
    return [mul(y, sub(t, sum(mul(y, t), -1, true)))];
  },
};

export const logSoftmaxOp: Op<None, "x", "y", "y"> = {
  name: "logSoftmax",
  keepsBatch: keepsRows,
  infer([x]) {
    wantType("logSoftmax", "x", x, "f32");
    rowsOf("logSoftmax", x);
    return [specOf(x)];
  },
  forward([x], _, [spec]) {
    const y = allocate(spec, x);
    run("logSoftmax", rowsOf("logSoftmax", x), { x }, { y });
    return { outputs: [y], saved: [y] };
  },
  vjp([ct], { saved: [y] }) {
    return [ct === null ? null : apply1(logSoftmaxVjpOp, [y, ct], none)];
  },
  jvp([tangent], { saved: [y] }) {
    return [tangent === null ? null : sub(tangent, sum(mul(exp(y), tangent), -1, true))];
  },
};

/** Maps [y, ct] to ct − exp(y)·Σ ct per row. */
export const logSoftmaxVjpOp: Op<None, "y ct", "y"> = {
  name: "logSoftmaxVjp",
  keepsBatch: keepsRows,
  infer([y, ct]) {
    wantType("logSoftmaxVjp", "y", y, "f32");
    wantLike("logSoftmaxVjp", "the cotangent", ct, y);
    rowsOf("logSoftmaxVjp", y);
    return [specOf(y)];
  },
  forward([y, ct], _, [spec]) {
    const dx = allocate(spec, y);
    run("logSoftmaxVjp", rowsOf("logSoftmaxVjp", y), { y, dy: ct }, { dx });
    return { outputs: [dx] };
  },
  compose([y, ct]) {
    return [sub(ct, mul(exp(y), sum(ct, -1, true)))];
  },
};

/** The mean over the axes (default: all). With `keepDims` they stay with extent 1. */
export function mean(x: Tensor, axis?: Axis, keepDims = false): Tensor<"f32"> {
  boolean("mean: keepDims", keepDims);
  const count = sizeOf(axesOf(x, axis, "mean").map((a) => x.shape[a]!));
  return affine(sum(x, axis, keepDims), 1 / count, 0);
}

/** Options of `variance`. */
export interface VarianceOptions {
  /**
   * Number that is subtracted from the number of elements in the divisor: 1 estimates the variance of the distribution, 0 gives the variance of the
   * elements themselves. Default 1.
   */
  readonly correction?: number;
  /** Keeps the axes, with extent 1. Default false. */
  readonly keepDims?: boolean;
}

/**
 * The variance Σ (x − mean)² / (n − correction) over the axes (default: all), in two passes, so that a variance that is small relative to the mean
 * stays accurate. Throws `shape` unless there are more than `correction` elements.
 */
export function variance(x: Tensor, axis?: Axis, options: VarianceOptions = {}): Tensor<"f32"> {
  const axes = axesOf(x, axis, "variance");
  wantType("variance", "x", x, "f32");
  checkOptions("variance", options, { correction: numberIn({ min: 0 }), keepDims: boolean });
  const { correction = 1, keepDims = false } = options;
  const count = sizeOf(axes.map((a) => x.shape[a]!));
  if (!(count > correction))
    throw new GradmixError(
      "shape",
      `variance: ${count} elements minus a correction of ${correction} leave nothing to divide by`,
    );
  // The mean is only as accurate as its size; the error is the mean of the differences, which are small.
  const near = sub(x, stopGradient(mean(x, axes, true)));
  const centred = sub(near, mean(near, axes, true));
  return affine(sum(square(centred), axes, keepDims), 1 / (count - correction), 0);
}

/** The largest element over the axes (default: all). Equal ones share the gradient. With `keepDims` the axes stay with extent 1. */
export function max(x: Tensor, axis?: Axis, keepDims = false): Tensor<"f32"> {
  return reduce(maxOp, x, axis, keepDims);
}

/** The smallest element over the axes (default: all). Equal ones share the gradient. With `keepDims` the axes stay with extent 1. */
export function min(x: Tensor, axis?: Axis, keepDims = false): Tensor<"f32"> {
  return reduce(minOp, x, axis, keepDims);
}

/** Softmax over the last axis, with the shape of x. */
export function softmax(x: Tensor): Tensor<"f32"> {
  return apply1(softmaxOp, [x], none);
}

/**
 * The logarithm of the softmax over the last axis, x − log Σ exp(x), in one pass that neither overflows nor loses accuracy for small probabilities: x
 * [batch, …, classes] → the same shape. −∞ gives −∞; a row with only −∞, or with +∞, gives NaN. Throws `shape` for a scalar, and unless x is f32.
 */
export function logSoftmax(x: Tensor): Tensor<"f32"> {
  return apply1(logSoftmaxOp, [x], none);
}

/**
 * log Σ exp(x) over the axes (default: all), without overflow. If the largest element is infinite (all are −∞, or one is +∞), so is the result, and
 * the elements that attain it share the gradient.
 */
export function logSumExp(x: Tensor, axis?: Axis): Tensor<"f32"> {
  const axes = axesOf(x, axis, "logSumExp");
  const top = max(x, axes, true);
  const base = stopGradient(bounded(top));
  // For finite elements the largest is 0 and the sum at least 1, so the bounds change nothing; otherwise they keep ∞·0 out of the gradient.
  const shares = exp(minimum(sub(x, base), 1));
  const finite = add(log(maximum(sum(shares, axes, true), 0.5)), base);
  const infinite = cast(relu(sign(affine(abs(top), 1, -MOST))), "i32");
  const total = where(infinite, top, finite);
  return reshape(
    total,
    x.shape.filter((_, i) => !axes.includes(i)),
  );
}
