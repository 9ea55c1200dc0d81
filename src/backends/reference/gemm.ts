/** Matrix products: batched gemm with its epilogue, and the segmented weight gradient. */
import { GradmixError } from "../../errors.ts";
import { activate, activationSlope } from "./elementwise.ts";
import { dotProduct, type Kernels, segmentRanges } from "./kernel.ts";

export const gemm: Kernels<"gemm" | "gemmSegmented"> = {
  gemm: (p, { a, b, bias = null }, { c, slope = null }) => {
    for (let item = 0; item < p.batch; item++)
      for (let i = 0; i < p.m; i++)
        for (let j = 0; j < p.n; j++) {
          let sum = 0;
          for (let l = 0; l < p.k; l++) {
            const ia = item * p.strideA + (p.transA ? l * p.m + i : i * p.k + l);
            const ib = item * p.strideB + (p.transB ? j * p.k + l : l * p.n + j);
            sum += a[ia]! * b[ib]!;
          }
          const at = item * p.strideC + i * p.n + j;
          const value = p.alpha * sum + (bias === null ? 0 : bias[j]!) + (p.accumulate ? c[at]! : 0);
          if (slope !== null) slope[at] = activationSlope(p.activation, value);
          c[at] = activate(p.activation, value);
        }
  },

  gemmSegmented: (
    p,
    { a, b, segments, groups = null, v = null },
    { total = null, dots, sumsq, groupSumsq = null, vSumsq },
  ) => {
    const { m, n } = p;
    const ranges = segmentRanges("gemmSegmented", segments, p.rows);

    /** sum += Σ_r a_r b_rᵀ over the rows start … end−1. */
    const addOuter = (sum: Float64Array, [start, end]: readonly [number, number]): Float64Array => {
      for (let r = start; r < end; r++)
        for (let i = 0; i < m; i++)
          for (let j = 0; j < n; j++) sum[i * n + j]! += a[r * m + i]! * b[r * n + j]!;
      return sum;
    };
    const gradientOf = (parts: readonly (readonly [number, number])[]): Float64Array =>
      parts.reduce(addOuter, new Float64Array(m * n));

    const direction = v === null ? gradientOf(ranges.slice(0, p.targetSegments)) : Float64Array.from(v);
    vSumsq[0] = dotProduct(direction, direction);

    ranges.forEach((range, s) => {
      const gradient = gradientOf([range]);
      const known = v !== null || s >= p.targetSegments;
      dots[s] = known ? dotProduct(gradient, direction) : 0;
      sumsq[s] = dotProduct(gradient, gradient);
    });

    if (total !== null) {
      const start = p.accumulate ? Float64Array.from(total) : new Float64Array(m * n);
      total.set(ranges.slice(p.firstAccumulated).reduce(addOuter, start));
    }

    if (groupSumsq === null) return;
    if (groups === null)
      throw new GradmixError("shape", `gemmSegmented: "groupSumsq" needs the operand "groups"`);
    segmentRanges("gemmSegmented", groups, p.segmentCount).forEach(([first, last], g) => {
      const gradient = gradientOf(ranges.slice(first, last));
      groupSumsq[g] = dotProduct(gradient, gradient);
    });
  },
};
