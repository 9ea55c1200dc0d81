/** Regressions and random numbers of the experiments against closed forms. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { dirichlet, randomOf } from "../../experiments/random.ts";
import { bestRidge, predict, ridge } from "../../experiments/statistics.ts";
import { mean, variance } from "#dist/runs/statistics.js";
import { expectNear } from "../near.ts";

describe("ridge regression", () => {
  const rows = fc.array(
    fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: 3, maxLength: 3 }),
    {
      minLength: 3,
      maxLength: 8,
    },
  );

  test("the derivative of its objective is zero", () => {
    fc.assert(
      fc.property(rows, fc.double({ min: 0.01, max: 10, noNaN: true }), fc.integer(), (x, penalty, seed) => {
        const random = randomOf(seed);
        const y = x.map(() => random());
        const found = ridge(x, y, penalty);
        const residuals = x.map((row, r) => predict(found, row) - y[r]);
        expectNear(mean(residuals), 0, 1e-10, 1);
        const slopes = found.slopes.map(
          (slope, j) => residuals.reduce((sum, residual, r) => sum + residual * x[r][j], 0) + penalty * slope,
        );
        expectNear(slopes, [0, 0, 0], 1e-9, 1 + 9 * x.length);
      }),
    );
  });

  test("of two penalties, the one that predicts left-out rows better is chosen", () => {
    const random = randomOf(4);
    const x = Array.from({ length: 12 }, () => [random(), random(), random()]);
    const line = x.map(([a, b, c]) => 1 + 2 * a - b + 3 * c);
    expect(bestRidge(x, line, [100, 1e-6])).toEqual(ridge(x, line, 1e-6));
    const noise = x.map((_, r) => (r % 2) * 2 - 1);
    expect(bestRidge(x, noise, [1e-6, 1e4])).toEqual(ridge(x, noise, 1e4));
  });
});

describe("Dirichlet", () => {
  test.each([[[1, 1, 1, 1]], [[0.3, 2, 5]]])("%j has the means and variances of its formula", (shapes) => {
    const random = randomOf(7);
    const drawn = Array.from({ length: 20_000 }, () => dirichlet(shapes, random));
    const total = shapes.reduce((a, b) => a + b, 0);
    for (const point of drawn.slice(0, 100)) {
      expectNear(
        point.reduce((a, b) => a + b, 0),
        1,
        1e-12,
      );
      expect(Math.min(...point)).toBeGreaterThan(0);
    }
    shapes.forEach((shape, i) => {
      const own = drawn.map((point) => point[i]);
      const share = shape / total;
      const spread = (share * (1 - share)) / (total + 1);
      // Five standard errors of the mean; the variance's are larger.
      expectNear(mean(own), share, 5 * Math.sqrt(spread / drawn.length), 1);
      expectNear(variance(own), spread, 0.08);
    });
  });

  test("the same seed gives the same draws", () => {
    expect(dirichlet([1, 2], randomOf(3))).toEqual(dirichlet([1, 2], randomOf(3)));
    expect(dirichlet([1, 2], randomOf(3))).not.toEqual(dirichlet([1, 2], randomOf(4)));
  });
});
