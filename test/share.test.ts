/** Shares of whole numbers, against exact rationals. */
import { createSchedule } from "gradmix/nn";
import fc from "fast-check";
import { expect, test } from "vitest";
import { timesShare } from "#dist/share.js";

/** A share as people write it, and the same as a fraction. */
const decimal = fc
  .tuple(fc.integer({ min: 0, max: 12 }), fc.maxSafeNat())
  .map(([digits, n]) => ({
    numerator: BigInt(n) % (10n ** BigInt(digits) + 1n),
    denominator: 10n ** BigInt(digits),
  }))
  .map(({ numerator, denominator }) => ({
    numerator,
    denominator,
    share: Number(numerator) / Number(denominator),
  }));

test("n·share is rounded as in exact arithmetic", () => {
  fc.assert(
    fc.property(fc.nat(10_000_000), decimal, (n, { numerator, denominator, share }) => {
      const product = BigInt(n) * numerator;
      const [down, rest] = [product / denominator, product % denominator];
      expect(timesShare(n, share, "down")).toBe(Number(down));
      expect(timesShare(n, share, "up")).toBe(Number(down + (rest > 0n ? 1n : 0n)));
      expect(timesShare(n, share, "nearest")).toBe(Number(down + (2n * rest > denominator ? 1n : 0n)));
    }),
    { numRuns: 2000 },
  );
});

test("shares that print with an exponent, and shares beyond 1, work too", () => {
  expect(timesShare(10 ** 9, 1e-7, "down")).toBe(100);
  expect(timesShare(10 ** 9, 1.5e-9, "down")).toBe(1);
  expect(timesShare(1, 1e21, "down")).toBe(1e21);
  expect(timesShare(10 ** 6, 4.35, "down")).toBe(4_350_000);
  expect(timesShare(7, 0, "up")).toBe(0);
  expect(timesShare(7, 5e-324, "up")).toBe(1);
});

test("wsd falls for ⌈steps·share⌉ steps, and reaches its end with the last one", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2000 }), decimal, (steps, { numerator, denominator, share }) => {
      const schedule = createSchedule({ name: "wsd", lr: 1, minRatio: 0, steps, decayShare: share });
      let falling = 0;
      for (let step = 0; step < steps; step++) if (schedule(step) < 1) falling++;
      expect(falling).toBe(Number((BigInt(steps) * numerator + denominator - 1n) / denominator));
    }),
    { numRuns: 200 },
  );
  const long = createSchedule({ name: "wsd", lr: 1, steps: 1000, decayShare: 0.9 });
  expect([long(99), long(100) < 1]).toEqual([1, true]);
});
