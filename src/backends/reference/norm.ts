/** LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019) by row, with their derivatives. */
import { type Data, type Kernels, segmentRanges } from "./kernel.ts";

/** x̂ of one row from its saved (mean, rstd). */
function normalised(x: Data, stats: Data, row: number, width: number): Float64Array {
  const mean = stats[2 * row]!;
  const rstd = stats[2 * row + 1]!;
  return Float64Array.from({ length: width }, (_, j) => (x[row * width + j]! - mean) * rstd);
}

function mean(length: number, at: (j: number) => number): number {
  let sum = 0;
  for (let j = 0; j < length; j++) sum += at(j);
  return sum / length;
}

export const norm: Kernels<"norm" | "normVjp" | "normJvp" | "normGainGrad"> = {
  norm: (p, { x, gain = null, bias = null, residual = null }, { y, stats, sum = null }) => {
    const { width } = p;
    if (sum !== null) for (let i = 0; i < sum.length; i++) sum[i] = x[i]! + (residual?.[i] ?? 0);
    const normal = sum ?? x;
    for (let r = 0; r < p.rows; r++) {
      const at = (j: number): number => normal[r * width + j]!;
      const center = p.kind === "layer" ? mean(width, at) : 0;
      const rstd = 1 / Math.sqrt(mean(width, (j) => (at(j) - center) ** 2) + p.eps);
      for (let j = 0; j < width; j++) {
        const unit = (at(j) - center) * rstd;
        y[r * width + j] = unit * (gain === null ? 1 : gain[j]!) + (bias === null ? 0 : bias[j]!);
      }
      stats[2 * r] = center;
      stats[2 * r + 1] = rstd;
    }
  },

  // The Jacobian rstd·(I − [1·1ᵀ/w if "layer"] − x̂ x̂ᵀ/w) is symmetric: vjp and jvp differ only in the side of the gain.
  normVjp: (p, { x, gain = null, stats, dy, also = null }, { dx }) => {
    const { width } = p;
    for (let r = 0; r < p.rows; r++) {
      const unit = normalised(x, stats, r, width);
      const dUnit = (j: number): number => dy[r * width + j]! * (gain === null ? 1 : gain[j]!);
      const center = p.kind === "layer" ? mean(width, dUnit) : 0;
      const along = mean(width, (j) => unit[j]! * dUnit(j));
      // The first result is rounded before the sum, as it would be between two kernels.
      for (let j = 0; j < width; j++) {
        dx[r * width + j] = stats[2 * r + 1]! * (dUnit(j) - center - unit[j]! * along);
        if (also !== null) dx[r * width + j]! += also[r * width + j]!;
      }
    }
  },

  normJvp: (p, { x, gain = null, stats, dx, dgain = null, dbias = null }, { dy }) => {
    const { width } = p;
    for (let r = 0; r < p.rows; r++) {
      const unit = normalised(x, stats, r, width);
      const at = (j: number): number => dx[r * width + j]!;
      const center = p.kind === "layer" ? mean(width, at) : 0;
      const along = mean(width, (j) => unit[j]! * at(j));
      for (let j = 0; j < width; j++) {
        const dUnit = stats[2 * r + 1]! * (at(j) - center - unit[j]! * along);
        dy[r * width + j] =
          dUnit * (gain === null ? 1 : gain[j]!) +
          unit[j]! * (dgain === null ? 0 : dgain[j]!) +
          (dbias === null ? 0 : dbias[j]!);
      }
    }
  },

  normGainGrad: (p, { x, stats, dy, segments }, { dgain }) => {
    const { width } = p;
    segmentRanges("normGainGrad", segments, p.rows).forEach(([start, end], s) => {
      const sum = new Float64Array(width);
      for (let r = start; r < end; r++) {
        const unit = normalised(x, stats, r, width);
        for (let j = 0; j < width; j++) sum[j]! += dy[r * width + j]! * unit[j]!;
      }
      sum.forEach((value, j) => {
        const at = s * p.outStride + j;
        dgain[at] = value + (p.accumulate ? dgain[at]! : 0);
      });
    });
  },
};
