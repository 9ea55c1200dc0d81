/** Kernels of matrix products and of sums of products. */
import { show } from "../../options.ts";
import { type Activation, activations } from "./kinds.ts";
import {
  extent,
  f32,
  flag,
  groupsGiven,
  i32,
  loose,
  number,
  oneOf,
  optional,
  type Signature,
  type Specs,
} from "./spec.ts";

type Empty = Record<never, never>;

/** Signatures of the product kernels. */
export interface ProductKernels {
  /**
   * [a, b, bias?] → [c, slope?]: for each of `batch` items x = alpha·op(a)·op(b) + bias (+ c when
   * `accumulate`), c = activation(x), slope = activation′(x). op(a) is m×k: `a` is stored m×k, or k×m with `transA`; op(b) is k×n: stored
   * k×n, or n×k with `transB`. `bias` has n elements. The strides between items count elements; a stride of 0 uses the same
   * operand for all items (not possible for c). `slope` is only written if it is given. `accumulate` requires the activation "none".
   */
  gemm: Signature<
    {
      m: number;
      n: number;
      k: number;
      transA: boolean;
      transB: boolean;
      batch: number;
      strideA: number;
      strideB: number;
      strideC: number;
      alpha: number;
      accumulate: boolean;
      activation: Activation;
    },
    "a b bias?",
    "c slope?"
  >;
  /**
   * The segmented weight gradient. [a: rows·m, b: rows·n, segments i32: S+1, groups i32: G+1?, v: m·n?] →
   * [total: m·n?, dots: S, sumsq: S, groupSumsq: G?, vSumsq: 1].
   *
   * Segment s consists of the rows segments[s] … segments[s+1]−1, and W_s = Σ_rows aᵣ bᵣᵀ is its gradient. The direction V is `v`,
   * or, if `v` is null, Σ_{s < targetSegments} W_s. Then dots[s] = ⟨W_s, V⟩ and sumsq[s] = ‖W_s‖² (for s <
   * targetSegments with `v` null, dots[s] = 0, because V is not known yet); groupSumsq[g] = ‖Σ_{groups[g] ≤ s < groups[g+1]}
   * W_s‖²; vSumsq = ‖V‖²; total = Σ_{s ≥ firstAccumulated} W_s, added to `total` if `accumulate` is true.
   * Segments ascend and may be empty; rows before the first and after the last are ignored. Groups ascend and cover consecutive segments; segments outside every
   * group are allowed. Without a direction (`v` null, targetSegments 0) V is 0. If `v` is given, dots are written for every segment. `groupSumsq` requires `groups`.
   */
  gemmSegmented: Signature<
    {
      rows: number;
      m: number;
      n: number;
      segmentCount: number;
      groupCount: number;
      targetSegments: number;
      firstAccumulated: number;
      accumulate: boolean;
    },
    "a b segments groups? v?",
    "total? dots sumsq groupSumsq? vSumsq"
  >;
  /** [g: rows·width, v: width] → [dots: rows, sumsq: rows]: ⟨g_r, v⟩ and ‖g_r‖². */
  alignRows: Signature<{ rows: number; width: number }, "g v", "dots sumsq">;
  /** [x] → [out: 1]: Σ x². */
  sumSquares: Signature<Empty, "x", "out">;
  /** [x, y] → [out: 1]: Σ x·y. */
  dot: Signature<Empty, "x y", "out">;
}

const batched = (items: number, stride: number, size: number): number =>
  items === 0 ? 0 : (items - 1) * stride + size;
const product = (p: { m: number; n: number; batch: number; strideC: number }): number =>
  batched(p.batch, p.strideC, p.m * p.n);

export const products: Specs<ProductKernels> = {
  gemm: {
    params: {
      ...{ m: extent, n: extent, k: extent, transA: flag, transB: flag },
      ...{ batch: extent, strideA: extent, strideB: extent, strideC: extent },
      ...{ alpha: number, accumulate: flag, activation: oneOf(activations) },
    },
    inputs: {
      a: f32((p) => batched(p.batch, p.strideA, p.m * p.k)),
      b: f32((p) => batched(p.batch, p.strideB, p.k * p.n)),
      bias: optional(f32((p) => p.n)),
    },
    outputs: { c: f32(product), slope: optional(f32(product)) },
    tolerance: loose,
    together(p) {
      if (p.accumulate && p.activation !== "none")
        return `"accumulate" goes with the activation "none", not ${show(p.activation)}`;
      return p.batch < 2 || p.strideC >= p.m * p.n
        ? null
        : `items of c overlap: they are ${p.strideC} elements apart`;
    },
  },
  gemmSegmented: {
    params: {
      ...{ rows: extent, m: extent, n: extent, segmentCount: extent, groupCount: extent },
      ...{ targetSegments: extent, firstAccumulated: extent, accumulate: flag },
    },
    inputs: {
      a: f32((p) => p.rows * p.m),
      b: f32((p) => p.rows * p.n),
      segments: i32((p) => p.segmentCount + 1),
      groups: optional(i32((p) => p.groupCount + 1)),
      v: optional(f32((p) => p.m * p.n)),
    },
    outputs: {
      total: optional(f32((p) => p.m * p.n)),
      dots: f32((p) => p.segmentCount),
      sumsq: f32((p) => p.segmentCount),
      groupSumsq: optional(f32((p) => p.groupCount)),
      vSumsq: f32(() => 1),
    },
    tolerance: { rtol: 5e-5, atol: 1e-4 },
    together: (p, { groups }, { groupSumsq }) =>
      p.targetSegments > p.segmentCount
        ? `${p.targetSegments} of ${p.segmentCount} segments cannot make the direction`
        : groupsGiven(groups, groupSumsq),
  },
  alignRows: {
    params: { rows: extent, width: extent },
    inputs: { g: f32((p) => p.rows * p.width), v: f32((p) => p.width) },
    outputs: { dots: f32((p) => p.rows), sumsq: f32((p) => p.rows) },
    tolerance: loose,
  },
  sumSquares: {
    params: {},
    inputs: { x: f32() },
    outputs: { out: f32(() => 1) },
    tolerance: loose,
  },
  dot: {
    params: {},
    inputs: { x: f32(), y: f32("x") },
    outputs: { out: f32(() => 1) },
    tolerance: loose,
  },
};
