/** Kernels that reduce an axis or a whole operand, and softmax over rows. */
import { dotProduct, type Kernels, segmentRanges } from "./kernel.ts";

const EMPTY = { sum: 0, max: -Infinity, min: Infinity } as const;

export const reduce: Kernels<
  | "reduce"
  | "softmax"
  | "softmaxVjp"
  | "logSoftmax"
  | "logSoftmaxVjp"
  | "segmentSum"
  | "alignRows"
  | "sumSquares"
  | "dot"
  | "clipScale"
> = {
  reduce: (p, { x }, { y }) => {
    for (let o = 0; o < p.outer; o++)
      for (let i = 0; i < p.inner; i++) {
        let result: number = EMPTY[p.kind];
        for (let l = 0; l < p.length; l++) {
          const value = x[(o * p.length + l) * p.inner + i]!;
          if (p.kind === "sum") result += value;
          else if (p.kind === "max") result = Math.max(result, value);
          else result = Math.min(result, value);
        }
        y[o * p.inner + i] = result;
      }
  },

  softmax: (p, { x }, { y }) => {
    for (let r = 0; r < p.rows; r++) {
      const row = Array.from(x.subarray(r * p.cols, (r + 1) * p.cols));
      let max = -Infinity;
      for (const value of row) max = Math.max(max, value);
      const weights = row.map((value) => Math.exp(value - max));
      let sum = 0;
      for (const weight of weights) sum += weight;
      for (let j = 0; j < p.cols; j++) y[r * p.cols + j] = weights[j]! / sum;
    }
  },

  softmaxVjp: (p, { y, dy }, { dx }) => {
    for (let r = 0; r < p.rows; r++) {
      const start = r * p.cols;
      const mean = dotProduct(y.subarray(start, start + p.cols), dy.subarray(start, start + p.cols));
      for (let i = start; i < start + p.cols; i++) dx[i] = y[i]! * (dy[i]! - mean);
    }
  },

  logSoftmax: (p, { x }, { y }) => {
    for (let start = 0; start < p.rows * p.cols; start += p.cols) {
      const row = Array.from(x.subarray(start, start + p.cols));
      let max = -Infinity;
      for (const value of row) max = Math.max(max, value);
      let sum = 0;
      for (const value of row) sum += Math.exp(value - max);
      row.forEach((value, j) => (y[start + j] = value - max - Math.log(sum)));
    }
  },

  logSoftmaxVjp: (p, { y, dy }, { dx }) => {
    for (let start = 0; start < p.rows * p.cols; start += p.cols) {
      let total = 0;
      for (let i = start; i < start + p.cols; i++) total += dy[i]!;
      for (let i = start; i < start + p.cols; i++) dx[i] = dy[i]! - Math.exp(y[i]!) * total;
    }
  },

  segmentSum: (p, { x, y = null, segments }, { out }) => {
    segmentRanges("segmentSum", segments, p.rows).forEach(([start, end], s) => {
      for (let j = 0; j < p.width; j++) {
        const at = s * p.outStride + j;
        let sum = p.accumulate ? out[at]! : 0;
        for (let r = start; r < end; r++) sum += x[r * p.width + j]! * (y === null ? 1 : y[r * p.width + j]!);
        out[at] = sum;
      }
    });
  },

  alignRows: (p, { g, v }, { dots, sumsq }) => {
    for (let r = 0; r < p.rows; r++) {
      const row = g.subarray(r * p.width, (r + 1) * p.width);
      dots[r] = dotProduct(row, v);
      sumsq[r] = dotProduct(row, row);
    }
  },

  sumSquares: (_, { x }, { out }) => {
    out[0] = dotProduct(x, x);
  },

  dot: (_, { x, y }, { out }) => {
    out[0] = dotProduct(x, y);
  },

  clipScale: (p, { sumsq }, { scale }) => {
    const norm = Math.sqrt(sumsq[0]!);
    if (!Number.isFinite(norm)) scale[0] = 0;
    else scale[0] = norm > p.maxNorm ? p.maxNorm / norm : 1;
  },
};
