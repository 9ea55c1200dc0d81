/** Weights as decimals: properties over all weights, among them those past any number of digits. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decimalsOf, plainDecimal } from "#dist/export/decimals.js";
import { expectNear } from "../near.ts";
import { billionths } from "./readers.ts";

/** Positive weights of a spread up to 1e8, up to many more than a list holds at 6 digits. */
const positive = fc
  .array(fc.double({ min: 0, max: 18, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((logs) => {
    const raw = logs.map((log) => Math.exp(-log));
    const total = raw.reduce((sum, x) => sum + x, 0);
    return raw.map((x) => x / total);
  });

describe("decimalsOf", () => {
  test("gives decimals that sum to exactly 1, have no 0, keep their order, and are off by less than a unit of the last digit", () => {
    fc.assert(
      fc.property(positive, (weights) => {
        const printed = decimalsOf(weights);
        const units = printed.map(billionths);
        expect(units.reduce((sum, unit) => sum + unit, 0n)).toBe(1_000_000_000n);
        expect(units.every((unit) => unit > 0n)).toBe(true);
        const digits = Math.max(6, ...printed.map((text) => text.split(".")[1].length));
        const least = Math.min(...weights);
        // Three digits of the least, where 9 digits have them.
        if (least > 1e-7)
          for (const [i, text] of printed.entries())
            expect(Math.abs(Number(text) - weights[i])).toBeLessThan(10 ** -digits + 1e-12);
        for (const [i, weight] of weights.entries())
          for (const [j, other] of weights.entries())
            if (weight > other) expect(units[i] >= units[j]).toBe(true);
      }),
    );
  });

  test("gives what rounding leaves to the largest remainders, and more digits to small weights", () => {
    expect(decimalsOf([1 / 3, 1 / 3, 1 / 3])).toEqual(["0.333334", "0.333333", "0.333333"]);
    expect(decimalsOf([0.5, 0.25, 0.25])).toEqual(["0.5", "0.25", "0.25"]);
    expect(decimalsOf([1])).toEqual(["1.0"]);
    expect(decimalsOf([0.9999, 0.0001])).toEqual(["0.9999", "0.0001"]);
    expect(decimalsOf([1 - 2e-8, 1e-8, 1e-8])).toEqual(["0.99999998", "0.00000001", "0.00000001"]);
    // 2/3 has the largest remainder of its last digit, 1/7 the next.
    expect(decimalsOf([2 / 3, 1 / 7, 4 / 21])).toEqual(["0.666667", "0.142857", "0.190476"]);
  });

  test("keeps the order of weights whose shares are equal by rounding", () => {
    const [small, large] = [0.14285714254630671, 0.14285714254630674];
    const units = decimalsOf([2.1758529283877316e-9, large, large, small, large, large, large, large]).map(
      billionths,
    );
    expect(units[3]).toBe(units.slice(1).reduce((least, unit) => (unit < least ? unit : least)));
  });

  test("raises many weights below one unit to one unit each, at the expense of the heaviest", () => {
    const printed = decimalsOf([1 - 1000 * 4e-10, ...Array.from({ length: 1000 }, () => 4e-10)]);
    expect(printed.reduce((sum, text) => sum + billionths(text), 0n)).toBe(1_000_000_000n);
    expect(new Set(printed.slice(1))).toEqual(new Set(["0.000000001"]));
  });
});

test("plainDecimal has six digits and no exponent", () => {
  fc.assert(
    fc.property(fc.double({ min: 1e-12, max: 1e15, noNaN: true }), (value) => {
      expect(plainDecimal(value)).toMatch(/^\d+(\.\d*[1-9])?$/);
      expectNear(Number(plainDecimal(value)), value, 1e-5);
    }),
  );
  expect([1e-7, 0.5, 12, 3e11].map(plainDecimal)).toEqual(["0.0000001", "0.5", "12", "300000000000"]);
});
