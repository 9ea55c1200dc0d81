/** Kernels on rows: softmax and its logarithm, norms, and the cross-entropy, each with its derivatives. */
import { type NormKind, normKinds } from "./kinds.ts";
import {
  extent,
  f32,
  flag,
  i32,
  inPlaceOf,
  loose,
  oneOf,
  optional,
  type Signature,
  type Specs,
  tight,
} from "./spec.ts";
import { rowOverlap, type SegmentRows, segmentRows } from "./tables.ts";

interface Rows {
  rows: number;
  cols: number;
}
interface NormRows {
  kind: NormKind;
  rows: number;
  width: number;
}

/** Signatures of the kernels on rows. */
export interface RowKernels {
  /** [x] → [y]: the softmax of each row of `cols` elements. −∞ gives 0; a row that has only −∞, or that contains +∞, gives NaN. `y` may be `x`. */
  softmax: Signature<Rows, "x", "y">;
  /** [y, dy] → [dx]: dx = y ⊙ (dy − Σ y·dy) per row, which is both the vjp and the jvp. */
  softmaxVjp: Signature<Rows, "y dy", "dx">;
  /** [x] → [y]: y = x − log Σ exp(x) per row of `cols` elements. −∞ gives −∞; a row that has only −∞, or that contains +∞, gives NaN. */
  logSoftmax: Signature<Rows, "x", "y">;
  /** [y, dy] → [dx]: dx = dy − exp(y)·Σ dy per row. */
  logSoftmaxVjp: Signature<Rows, "y dy", "dx">;
  /**
   * [x, gain?, bias?, residual?] → [y, stats: rows·2, sum?]: normalises each row of x, or of sum = x + residual; `residual` and `sum` are both given, or neither.
   * "layer": x̂ = (x − mean)·rstd with rstd = 1/√(var + eps); "rms": x̂ = x·rstd with rstd = 1/√(mean x² + eps). y = x̂ ⊙ gain + bias. stats[r] = (mean, rstd);
   * mean is 0 for "rms".
   */
  norm: Signature<NormRows & { eps: number }, "x gain? bias? residual?", "y stats sum?">;
  /** [x, gain?, stats, dy, also?] → [dx]: the vjp of `norm` with respect to its input. `also`, the gradient of x from its other uses, is added. */
  normVjp: Signature<NormRows, "x gain? stats dy also?", "dx">;
  /** [x, gain?, stats, dx, dgain?, dbias?] → [dy]: the jvp of `norm`. */
  normJvp: Signature<NormRows, "x gain? stats dx dgain? dbias?", "dy">;
  /** [x, stats, dy, segments i32: S+1] → [dgain: S rows of width, `outStride` elements apart]: Σ_{r in s} dy[r] ⊙ x̂[r]. `accumulate` adds to `dgain`. */
  normGainGrad: Signature<NormRows & SegmentRows & { accumulate: boolean }, "x stats dy segments", "dgain">;
  /**
   * [logits: rows·cols, targets i32: rows] → [losses: rows, lse: rows]: the loss of a row is −log softmax(logits)[target]. A row with a target < 0 is ignored
   * (loss 0); a target ≥ cols gives NaN. `lse` is the log-sum-exp of each row.
   */
  crossEntropy: Signature<Rows, "logits targets", "losses lse">;
  /**
   * [logits, targets i32, lse, dlosses: rows] → [dlogits]: (softmax − onehot)·dloss per row; 0 for ignored rows, NaN for rows whose loss is NaN. `dlogits`
   * may be `logits`.
   */
  crossEntropyVjp: Signature<Rows, "logits targets lse dlosses", "dlogits">;
  /** [logits, targets i32, lse, dlogits] → [dlosses: rows]: the jvp of `crossEntropy`; 0 for ignored rows, NaN for rows whose loss is NaN. */
  crossEntropyJvp: Signature<Rows, "logits targets lse dlogits", "dlosses">;
}

const rowParams = { rows: extent, cols: extent };
const table = (p: Rows): number => p.rows * p.cols;
const each = (p: { rows: number }): number => p.rows;
const normParams = { kind: oneOf(normKinds), rows: extent, width: extent };
const normed = (p: NormRows): number => p.rows * p.width;
const width = (p: NormRows): number => p.width;
const stats = (p: NormRows): number => p.rows * 2;

export const rows: Specs<RowKernels> = {
  softmax: {
    params: rowParams,
    inputs: { x: f32(table) },
    outputs: { y: inPlaceOf(["x"], f32(table)) },
    tolerance: tight,
  },
  softmaxVjp: {
    params: rowParams,
    inputs: { y: f32(table), dy: f32(table) },
    outputs: { dx: f32(table) },
    tolerance: loose,
  },
  logSoftmax: {
    params: rowParams,
    inputs: { x: f32(table) },
    outputs: { y: f32(table) },
    tolerance: loose,
  },
  logSoftmaxVjp: {
    params: rowParams,
    inputs: { y: f32(table), dy: f32(table) },
    outputs: { dx: f32(table) },
    tolerance: loose,
  },
  norm: {
    params: {
      ...normParams,
      eps: {
        what: "a finite number of at least 0",
        fits: (eps) => typeof eps === "number" && eps >= 0 && eps < Infinity,
      },
    },
    inputs: {
      ...{ x: f32(normed), gain: optional(f32(width)), bias: optional(f32(width)) },
      residual: optional(f32(normed)),
    },
    outputs: { y: f32(normed), stats: f32(stats), sum: optional(f32(normed)) },
    tolerance: loose,
    together: (_, { residual = null }, { sum = null }) =>
      (residual === null) === (sum === null) ? null : '"residual" and "sum" go together',
  },
  normVjp: {
    params: normParams,
    inputs: {
      ...{ x: f32(normed), gain: optional(f32(width)), stats: f32(stats), dy: f32(normed) },
      also: optional(f32(normed)),
    },
    outputs: { dx: f32(normed) },
    tolerance: loose,
  },
  normJvp: {
    params: normParams,
    inputs: {
      ...{ x: f32(normed), gain: optional(f32(width)), stats: f32(stats), dx: f32(normed) },
      ...{ dgain: optional(f32(width)), dbias: optional(f32(width)) },
    },
    outputs: { dy: f32(normed) },
    tolerance: loose,
  },
  normGainGrad: {
    params: { ...normParams, segmentCount: extent, outStride: extent, accumulate: flag },
    inputs: { x: f32(normed), stats: f32(stats), dy: f32(normed), segments: i32((p) => p.segmentCount + 1) },
    outputs: { dgain: f32(segmentRows) },
    tolerance: loose,
    together: rowOverlap,
  },
  crossEntropy: {
    params: rowParams,
    inputs: { logits: f32(table), targets: i32(each) },
    outputs: { losses: f32(each), lse: f32(each) },
    tolerance: loose,
  },
  crossEntropyVjp: {
    params: rowParams,
    inputs: { logits: f32(table), targets: i32(each), lse: f32(each), dlosses: f32(each) },
    outputs: { dlogits: inPlaceOf(["logits"], f32(table)) },
    tolerance: loose,
  },
  crossEntropyJvp: {
    params: rowParams,
    inputs: { logits: f32(table), targets: i32(each), lse: f32(each), dlogits: f32(table) },
    outputs: { dlosses: f32(each) },
    tolerance: loose,
  },
};
