/** Regressions: pure functions of numbers. */
import { mean } from "#dist/runs/statistics.js";

export interface Linear {
  readonly intercept: number;
  readonly slopes: readonly number[];
}

export function predict({ intercept, slopes }: Linear, x: readonly number[]): number {
  return slopes.reduce((sum, slope, j) => sum + slope * x[j], intercept);
}

/** Least squares with penalty·|slopes|² added; the intercept is free. */
export function ridge(rows: readonly (readonly number[])[], y: readonly number[], penalty: number): Linear {
  const width = rows[0].length;
  const centres = Array.from({ length: width }, (_, j) => mean(rows.map((row) => row[j])));
  const x = rows.map((row) => row.map((value, j) => value - centres[j]));
  const middle = mean(y);
  // Normal equations, which the penalty makes positive definite.
  const matrix = Array.from({ length: width }, (_, i) =>
    Array.from(
      { length: width },
      (_, j) => x.reduce((sum, row) => sum + row[i] * row[j], 0) + (i === j ? penalty : 0),
    ),
  );
  const right = Array.from({ length: width }, (_, i) =>
    x.reduce((sum, row, r) => sum + row[i] * (y[r] - middle), 0),
  );
  const slopes = solve(matrix, right);
  return { intercept: middle - slopes.reduce((sum, slope, j) => sum + slope * centres[j], 0), slopes };
}

/** The penalty, of those given, whose ridge regression predicts each row best from the others. */
export function bestRidge(
  rows: readonly (readonly number[])[],
  y: readonly number[],
  penalties: readonly number[],
): Linear {
  const error = (penalty: number): number =>
    mean(
      rows.map((row, out) => {
        const kept = rows.filter((_, r) => r !== out);
        const own = ridge(
          kept,
          y.filter((_, r) => r !== out),
          penalty,
        );
        return (predict(own, row) - y[out]) ** 2;
      }),
    );
  const scored = penalties.map((penalty) => ({ penalty, error: error(penalty) }));
  const best = scored.reduce((a, b) => (b.error < a.error ? b : a));
  return ridge(rows, y, best.penalty);
}

/** A x = b for a symmetric positive definite A, by Cholesky. */
function solve(a: readonly (readonly number[])[], b: readonly number[]): number[] {
  const n = b.length;
  const l = Array.from({ length: n }, () => new Array<number>(n).fill(0));
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = a[i][j];
      for (let m = 0; m < j; m++) sum -= l[i][m] * l[j][m];
      l[i][j] = i === j ? Math.sqrt(sum) : sum / l[j][j];
    }
  const y = [...b];
  for (let i = 0; i < n; i++) {
    for (let m = 0; m < i; m++) y[i] -= l[i][m] * y[m];
    y[i] /= l[i][i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let m = i + 1; m < n; m++) y[i] -= l[m][i] * y[m];
    y[i] /= l[i][i];
  }
  return y;
}
