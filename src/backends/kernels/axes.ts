/** Kernels along one axis of [outer, length, inner]. */
import { type ReduceKind, reduceKinds } from "./kinds.ts";
import { exact, extent, f32, flag, i32, loose, oneOf, type Signature, type Specs, tight } from "./spec.ts";

/** Extents of x before, along and after an axis, and the extent of the indices along that axis. */
export interface AlongParams {
  outer: number;
  length: number;
  inner: number;
  count: number;
}

/** Signatures of the kernels along an axis. */
export interface AxisKernels {
  /** [x: outer·length·inner] → [y: outer·inner]: reduces the middle axis. An empty sum is 0, an empty max −∞, an empty min +∞. */
  reduce: Signature<{ kind: ReduceKind; outer: number; length: number; inner: number }, "x", "y">;
  /**
   * [x: outer·length·inner] → [y: the same]: running sums along the middle axis, y[l] = Σ_{i ≤ l} x[i], or, with `reverse`, Σ_{i ≥ l} x[i]. The sums
   * have more than single precision, like those of statistics, so each y has the error of one rounding, for any length of the axis.
   */
  cumsum: Signature<{ outer: number; length: number; inner: number; reverse: boolean }, "x", "y">;
  /**
   * [x: outer·length·inner] → [indices i32: outer·k·inner]: indices of the k largest elements of the middle axis, in descending order of the elements. Among equal
   * elements (−0 and 0 are equal) the lower index is first. NaN is larger than +∞, and all NaNs are equal. k ≤ length.
   */
  topk: Signature<{ outer: number; length: number; inner: number; k: number }, "x", "indices">;
  /**
   * [x: outer·length·inner, indices i32: outer·count·inner] → [out: outer·count·inner]: out[o, c, i] = x[o, indices[o, c, i], i]; an index outside of the
   * axis gives NaN.
   */
  takeAlong: Signature<AlongParams, "x indices", "out">;
  /**
   * [y: outer·count·inner, indices i32: the same] → [out: outer·length·inner]: out[o, indices[o, c, i], i] = Σ y[o, c, i], summed in the order of c; 0 for elements
   * that no index names. Indices outside of the axis are skipped.
   */
  scatterAddAlong: Signature<AlongParams, "y indices", "out">;
}

const along = { outer: extent, length: extent, inner: extent };
type Along = Omit<AlongParams, "count">;
const elementCount = (p: Along): number => p.outer * p.length * p.inner;
const reduced = (p: Along): number => p.outer * p.inner;
const picked = (p: AlongParams): number => p.outer * p.count * p.inner;

export const axes: Specs<AxisKernels> = {
  reduce: {
    params: { kind: oneOf(reduceKinds), ...along },
    inputs: { x: f32(elementCount) },
    outputs: { y: f32(reduced) },
    tolerance: loose,
  },
  cumsum: {
    params: { ...along, reverse: flag },
    inputs: { x: f32(elementCount) },
    outputs: { y: f32(elementCount) },
    tolerance: tight,
  },
  topk: {
    params: { ...along, k: extent },
    inputs: { x: f32(elementCount) },
    outputs: { indices: i32((p) => p.outer * p.k * p.inner) },
    tolerance: exact,
    together: ({ length, k }) =>
      k <= length ? null : `there are not ${k} elements along an axis of ${length}`,
  },
  takeAlong: {
    params: { ...along, count: extent },
    inputs: { x: f32(elementCount), indices: i32(picked) },
    outputs: { out: f32(picked) },
    tolerance: exact,
  },
  scatterAddAlong: {
    params: { ...along, count: extent },
    inputs: { y: f32(picked), indices: i32(picked) },
    outputs: { out: f32(elementCount) },
    tolerance: loose,
  },
};
