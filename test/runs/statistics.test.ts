/** Intervals against tables and closed forms. */
import { interval, studentQuantile } from "#dist/runs/statistics.js";
import { describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";

describe("Student's t", () => {
  test.each([
    // Tables of the National Institute of Standards and Technology, and closed forms for 1 and 2 degrees.
    [0.975, 1, Math.tan(0.475 * Math.PI)],
    [0.9, 1, Math.tan(0.4 * Math.PI)],
    [0.975, 2, (2 * 0.475) / Math.sqrt(2 * 0.975 * 0.025)],
    [0.95, 2, (2 * 0.45) / Math.sqrt(2 * 0.95 * 0.05)],
    [0.975, 3, 3.182446],
    [0.975, 5, 2.570582],
    [0.975, 8, 2.306004],
    [0.975, 30, 2.042272],
    [0.95, 10, 1.812461],
    [0.995, 10, 3.169273],
    [0.975, 1e6, 1.959966],
  ])("quantile %f with %i degrees of freedom", (p, freedom, want) => {
    expectNear(studentQuantile(p, freedom), want, 2e-6);
  });

  test("an interval is the mean and t·s/√n", () => {
    const found = interval([1, 2, 4]);
    expectNear(found.mean, 7 / 3, 1e-14);
    expectNear(found.standardError, Math.sqrt(7 / 3) / Math.sqrt(3), 1e-14);
    expectNear(found.half, (4.302653 * Math.sqrt(7 / 3)) / Math.sqrt(3), 1e-6);
    expect(interval([5])).toEqual({ mean: 5, standardError: null, half: null, count: 1 });
    expect(interval([])).toMatchObject({ half: null, count: 0 });
  });
});

