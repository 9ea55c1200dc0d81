/** Kernels of embedding tables, of the row of a table with the largest score, and of sums of rows by segment. */
import {
  exact,
  extent,
  f32,
  flag,
  groupsGiven,
  i32,
  loose,
  optional,
  positive,
  type Signature,
  type Specs,
} from "./spec.ts";

/** Signatures of the kernels of tables. */
export interface TableKernels {
  /**
   * [x: rows·width, y: count·width, bias: count?] → [ids i32: rows, scores: rows]: the index of the row of y with the largest score ⟨x_r, y_j⟩ + bias_j,
   * and that score. With bias −‖y‖²/2 it is the nearest row in Euclidean distance. Among equal scores the lower index wins; NaN is larger than all numbers. On the
   * cpu the result is the same as if all scores were computed in doubles. `count` is at least 1.
   */
  nearest: Signature<{ rows: number; count: number; width: number }, "x y bias?", "ids scores">;
  /** [table: tableRows·width, ids i32: rows] → [out: rows·width]: out[r] = table[ids[r]]; an id outside the table gives a row of NaN. */
  gather: Signature<{ rows: number; width: number; tableRows: number }, "table ids", "out">;
  /**
   * [x: rows·width, ids i32: rows] → [out: tableRows·width]: out[ids[r]] += x[r], in the order of r. If `accumulate` is false, `out` is set to 0 first. Ids
   * outside the table are skipped.
   */
  scatterAdd: Signature<
    { rows: number; width: number; tableRows: number; accumulate: boolean },
    "x ids",
    "out"
  >;
  /**
   * Alignment of an embedding's gradient without materialising it. [dy: rows·width, ids i32: rows, segments i32: S+1,
   * groups i32: G+1?, v: tableRows·width?] → [dots: S, sumsq: S, groupSumsq: G?]. Row i of W_s is the sum of dy[r] over the rows r of segment s with
   * ids[r] = i. dots[s] = ⟨W_s, V⟩ (0 without v) and sumsq[s] = ‖W_s‖², so rows with the same id inside a segment are summed before they are squared; groupSumsq
   * is computed in the same way for each group of segments. Rows whose id is outside the table are skipped.
   */
  embeddingAlign: Signature<
    {
      rows: number;
      width: number;
      tableRows: number;
      segmentCount: number;
      groupCount: number;
    },
    "dy ids segments groups? v?",
    "dots sumsq groupSumsq?"
  >;
  /**
   * [x: rows·width, y: rows·width?, segments i32: S+1] → [out: S rows of width, `outStride` elements apart]: out[s] = Σ_{r in s} x[r] (⊙ y[r]). `accumulate`
   * adds to out.
   */
  segmentSum: Signature<SegmentRows & { rows: number; accumulate: boolean }, "x y? segments", "out">;
}

/**
 * The layout of sums by segment: `segmentCount` rows of `width` elements, whose first elements are `outStride` elements apart. Elements between the rows keep
 * their values.
 */
export interface SegmentRows {
  width: number;
  segmentCount: number;
  outStride: number;
}

/** The number of elements from the first element of the first row to the last element of the last row. */
export const segmentRows = ({ width, segmentCount, outStride }: SegmentRows): number =>
  segmentCount === 0 ? 0 : (segmentCount - 1) * outStride + width;

/** The problem of rows that overlap; null if they do not. */
export const rowOverlap = ({ width, segmentCount, outStride }: SegmentRows): string | null =>
  segmentCount < 2 || outStride >= width
    ? null
    : `rows of ${width} overlap: they are ${outStride} elements apart`;

const widths = { rows: extent, width: extent };
const each = (p: { rows: number }): number => p.rows;
const all = (p: { rows: number; width: number }): number => p.rows * p.width;
const table = (p: { tableRows: number; width: number }): number => p.tableRows * p.width;

export const tables: Specs<TableKernels> = {
  nearest: {
    params: { ...widths, count: positive },
    inputs: { x: f32(all), y: f32((p) => p.count * p.width), bias: optional(f32((p) => p.count)) },
    outputs: { ids: i32(each), scores: f32(each) },
    tolerance: loose,
  },
  gather: {
    params: { ...widths, tableRows: extent },
    inputs: { table: f32(table), ids: i32(each) },
    outputs: { out: f32(all) },
    tolerance: exact,
  },
  scatterAdd: {
    params: { ...widths, tableRows: extent, accumulate: flag },
    inputs: { x: f32(all), ids: i32(each) },
    outputs: { out: f32(table) },
    tolerance: loose,
  },
  embeddingAlign: {
    params: { ...widths, tableRows: extent, segmentCount: extent, groupCount: extent },
    inputs: {
      dy: f32(all),
      ids: i32(each),
      segments: i32((p) => p.segmentCount + 1),
      groups: optional(i32((p) => p.groupCount + 1)),
      v: optional(f32(table)),
    },
    outputs: {
      dots: f32((p) => p.segmentCount),
      sumsq: f32((p) => p.segmentCount),
      groupSumsq: optional(f32((p) => p.groupCount)),
    },
    tolerance: loose,
    together: (_, { groups }, { groupSumsq }) => groupsGiven(groups, groupSumsq),
  },
  segmentSum: {
    params: { ...widths, segmentCount: extent, outStride: extent, accumulate: flag },
    inputs: { x: f32(all), y: optional(f32(all)), segments: i32((p) => p.segmentCount + 1) },
    outputs: { out: f32(segmentRows) },
    tolerance: loose,
    together: rowOverlap,
  },
};
