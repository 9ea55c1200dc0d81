/** Along an axis: running sums, and the positions of the largest elements. */
import { run } from "../../backends/backend.ts";
import { boolean, integerIn } from "../../options.ts";
import { aroundAxis, normaliseAxis } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { mixesBatch } from "../batch.ts";
import { wantTensor } from "../checks.ts";
import { allocate, apply1, type Op, type Spec, specOf, wantType } from "../op.ts";
import { moving } from "./broadcast.ts";
import { takeAlongAxis } from "./indexing.ts";

/** Throws unless x is f32 and has the axis. */
function wantAxis(name: string, x: Spec, axis: number): void {
  wantType(name, "x", x, "f32");
  integerIn(0, x.shape.length - 1)(`${name}: axis`, axis);
}

interface ScanAttrs {
  readonly axis: number;
  readonly reverse: boolean;
}

export const cumsumOp: Op<ScanAttrs> = moving(
  {
    name: "cumsum",
    keepsBatch: (_slot, _inputs, _output, { axis }) => axis > 0,
    infer([x], { axis, reverse }) {
      wantAxis("cumsum", x, axis);
      boolean("cumsum: reverse", reverse);
      return [specOf(x)];
    },
    forward([x], { axis, reverse }, [spec]) {
      const y = allocate(spec, x);
      run("cumsum", { ...aroundAxis(x.shape, axis), reverse }, { x }, { y });
      return { outputs: [y] };
    },
  },
  (t, attrs) => apply1(cumsumOp, [t], attrs),
  (ct, { axis, reverse }) => apply1(cumsumOp, [ct], { axis, reverse: !reverse }),
);

function largest(x: Tensor, axis: number, k: number, spec: Spec): Tensor {
  const indices = allocate(spec, x);
  run("topk", { ...aroundAxis(x.shape, axis), k }, { x }, { indices });
  return indices;
}

export const argmaxOp: Op<{ axis: number; keepDims: boolean }, "x", "y"> = {
  name: "argmax",
  keepsBatch: mixesBatch,
  constant: true,
  infer([x], { axis, keepDims }) {
    wantAxis("argmax", x, axis);
    boolean("argmax: keepDims", keepDims);
    integerIn(1)("argmax: the extent of the axis", x.shape[axis]);
    const shape = x.shape.flatMap((extent, i) => (i !== axis ? [extent] : keepDims ? [1] : []));
    return [{ shape, dtype: "i32" }];
  },
  forward([x], { axis }, [spec]) {
    return { outputs: [largest(x, axis, 1, spec)] };
  },
};

/** Positions of the k largest elements. */
export const topkOp: Op<{ k: number; axis: number }, "x", "y"> = {
  name: "topk",
  keepsBatch: mixesBatch,
  constant: true,
  infer([x], { k, axis }) {
    wantAxis("topk", x, axis);
    integerIn(0, x.shape[axis])("topk: k", k);
    return [{ shape: x.shape.map((extent, i) => (i === axis ? k : extent)), dtype: "i32" }];
  },
  forward([x], { k, axis }, [spec]) {
    return { outputs: [largest(x, axis, k, spec)] };
  },
};

/**
 * Running sums along an axis: y[l] = Σ_{i ≤ l} x[i], with the shape of x. They are accumulated in more than single precision, so that the error of an
 * element is that of one rounding, however long the axis is.
 */
export function cumsum(x: Tensor, axis: number): Tensor<"f32"> {
  wantTensor("cumsum", "x", x);
  return apply1(cumsumOp, [x], { axis: normaliseAxis(axis, x.rank, "cumsum"), reverse: false });
}

/**
 * Index of the largest element along an axis (i32): the first of several; NaN is larger than any number. The axis is removed, or stays with extent 1
 * with `keepDims`. It has no gradient. Throws `config` for an axis of extent 0.
 */
export function argmax(x: Tensor, axis: number, keepDims = false): Tensor<"i32"> {
  wantTensor("argmax", "x", x);
  return apply1(argmaxOp, [x], { axis: normaliseAxis(axis, x.rank, "argmax"), keepDims });
}

/** The result of `topk`. */
export interface TopK {
  /** The elements, the largest first. */
  readonly values: Tensor<"f32">;
  /** Their indices along the axis (i32). */
  readonly indices: Tensor<"i32">;
}

/**
 * The k largest elements along an axis, in descending order; of equal ones, the one with the lower index first. NaN is larger than any number. Both
 * results have the shape of x with extent k along the axis. The gradient goes to the selected elements. Throws `config` unless 0 ≤ k ≤ the axis's
 * extent.
 */
export function topk(x: Tensor, k: number, axis: number): TopK {
  wantTensor("topk", "x", x);
  const along = normaliseAxis(axis, x.rank, "topk");
  const indices = apply1(topkOp, [x], { k, axis: along });
  return { values: takeAlongAxis(x, indices, along), indices };
}
