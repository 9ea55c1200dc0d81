/** The tracked averages of alignments over updates, and how far domains differ beyond their errors: against a naive oracle, and by invariances. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  nothingTracked,
  type Observed,
  spreadOf,
  standardised,
  track,
  type Tracked,
} from "#dist/dga/tracking.js";
import { gaussian, random } from "./arbitraries.ts";
import { type Measured, naive } from "./naive-tracking.ts";
import { expectNear } from "../near.ts";

const after = (history: readonly Observed[], memory: number): Tracked =>
  history.reduce((known, one) => track(known, one, memory), nothingTracked(history[0].tokens.length));

/** Domains that differ, measured with errors; some not measured, some without a known error. */
function historyOf(seed: number, k: number, updates: number, differ = 1, outliers = 0.1): Measured[] {
  const next = random(seed);
  const own = Array.from({ length: k }, () => differ * gaussian(next));
  return Array.from({ length: updates }, () => {
    const tokens = own.map(() => (next() < 0.3 ? 0 : 1 + Math.floor(100 * next())));
    const errors = tokens.map((n) => (next() < 0.2 ? null : (4 * (0.5 + next())) / Math.sqrt(n + 1)));
    return {
      tokens,
      errors,
      // Now and then a window that is far from all others.
      alignments: own.map((mean, i) =>
        tokens[i] === 0 ? NaN : mean + (errors[i] ?? 1) * gaussian(next) * (next() < outliers ? 30 : 1),
      ),
    };
  });
}

const histories = fc.record({
  seed: fc.nat(1e9),
  k: fc.integer({ min: 1, max: 7 }),
  updates: fc.integer({ min: 1, max: 12 }),
  differ: fc.constantFrom(0, 1, 3),
  memory: fc.constantFrom(0, 0.3, 0.8, 0.9, 0.95),
});

describe("the running statistics", () => {
  test("equal the statistics of the whole history", () => {
    let unclear = 0;
    fc.assert(
      fc.property(histories, ({ seed, k, updates, differ, memory }) => {
        const history = historyOf(seed, k, updates, differ);
        const found = after(history, memory);
        const wanted = naive(history, memory);
        expectNear(found.tokens, wanted.tokens, 1e-12);
        wanted.means.forEach((mean, i) => {
          if (mean === null) return;
          expectNear(found.means[i], mean, 1e-6, 10);
          expectNear(found.variances[i], wanted.variances[i], 1e-12);
        });
        expectNear(found.noise, [wanted.sigma ?? 0, wanted.behind], 1e-12);
        const { mean, spread } = spreadOf(found);
        // If τ is almost 0, it is the square root of a rounding error and not compared.
        expectNear(spread, wanted.tau, 1e-5, 10);
        if (wanted.tau > 0 && wanted.tau < 1e-3) unclear++;
        else {
          expectNear(mean, wanted.mean, 1e-6, 10);
          standardised(found).forEach((d, i) => {
            if (Number.isNaN(wanted.d[i])) expect(d).toBeNaN();
            else expectNear(d, wanted.d[i], 1e-5, 1);
          });
        }
      }),
      { numRuns: 400 },
    );
    expect(unclear).toBeLessThan(20);
  });

  test("τ solves its equation, or is 0 if the domains differ by less than their errors, for any number of domains", () => {
    for (const k of [2, 3, 24, 1000])
      for (const differ of [0, 0.01, 1, 100]) {
        const found = after(historyOf(k, k, 5, differ), 0.9);
        const { mean, spread, errors } = spreadOf(found);
        const known = [...errors.keys()].filter((i) => errors[i] < Infinity);
        const sum = (of: (i: number) => number): number => known.reduce((a, i) => a + of(i), 0);
        const weight = (i: number): number => 1 / (spread ** 2 + errors[i] ** 2);
        expectNear(mean, sum((i) => weight(i) * found.means[i]) / sum(weight), 1e-9, 1 + differ);
        const chi = sum((i) => weight(i) * (found.means[i] - mean) ** 2);
        if (spread > 0) expectNear(chi, known.length - 1, 1e-6);
        else expect(chi).toBeLessThanOrEqual(known.length - 1);
        if (differ === 100) expect(spread).toBeGreaterThan(1);
      }
    // With noise alone, almost no spread is found: the errors here are about 0.5.
    expect(spreadOf(after(historyOf(5, 1000, 5, 0, 0), 0.9)).spread).toBeLessThan(0.25);
  });

  test("the scale of the gradients has no effect: c·alignments with c·errors are standardised alike", () => {
    fc.assert(
      fc.property(
        histories,
        fc.double({ min: -150, max: 150, noNaN: true }),
        ({ seed, k, updates, differ, memory }, exponent) => {
          const history = historyOf(seed, k, updates, differ);
          const c = 10 ** exponent;
          const scaled = history.map((one) => ({
            ...one,
            alignments: one.alignments.map((a) => c * a),
            errors: one.errors.map((error) => (error === null ? null : c * error)),
          }));
          const [plain, other] = [history, scaled].map((one) => standardised(after(one, memory)));
          plain.forEach((d, i) => {
            if (Number.isNaN(d)) expect(other[i]).toBeNaN();
            else expectNear(other[i], d, 1e-6, 1);
          });
        },
      ),
      { numRuns: 200 },
    );
  });

  test("a shift of all domains has no effect, even if it is a million times their differences", () => {
    fc.assert(
      fc.property(histories, fc.constantFrom(-1e6, 3, 1e6), ({ seed, k, updates, differ, memory }, shift) => {
        const history = historyOf(seed, k, updates, differ);
        const moved = history.map((one) => ({ ...one, alignments: one.alignments.map((a) => a + shift) }));
        const [plain, other] = [history, moved].map((one) => standardised(after(one, memory)));
        plain.forEach((d, i) => {
          if (Number.isNaN(d)) expect(other[i]).toBeNaN();
          else expectNear(other[i], d, 1e-4, 1);
        });
      }),
      { numRuns: 200 },
    );
  });

  test("the size of token counts has no effect: even the smallest positive number gives finite results", () => {
    for (const n of [Number.MIN_VALUE, 1e-300]) {
      const one = { alignments: [1, -2], errors: [0.5, null], tokens: [n, n] };
      const found = after([one, one], 0.9);
      for (const values of [found.means, found.tokens, found.variances, found.noise, standardised(found)])
        expect(values.every(Number.isFinite), String(values)).toBe(true);
    }
  });

  test("the order of the domains has no effect", () => {
    fc.assert(
      fc.property(histories, ({ seed, k, updates, differ, memory }) => {
        const history = historyOf(seed, k, updates, differ);
        const turned = history.map(({ alignments, errors, tokens }) => ({
          alignments: alignments.toReversed(),
          errors: errors.toReversed(),
          tokens: tokens.toReversed(),
        }));
        const [plain, other] = [history, turned].map((one) => standardised(after(one, memory)));
        plain.forEach((d, i) => {
          if (Number.isNaN(d)) expect(other[k - 1 - i]).toBeNaN();
          else expectNear(other[k - 1 - i], d, 1e-6, 1);
        });
      }),
      { numRuns: 100 },
    );
  });
});

const once = (
  alignments: number[],
  errors: (number | null)[],
  tokens: number[] = alignments.map(() => 64),
): Observed => ({ alignments, errors, tokens });
const zeros = (k: number): number[] => new Array<number>(k).fill(0);

describe("the standardised alignment", () => {
  test("is the z-score if there are no errors", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 2, maxLength: 40 }),
        (alignments) => {
          const mean = alignments.reduce((a, b) => a + b) / alignments.length;
          const deviation = Math.sqrt(
            alignments.reduce((sum, a) => sum + (a - mean) ** 2, 0) / (alignments.length - 1),
          );
          const found = standardised(after([once(alignments, zeros(alignments.length))], 0.9));
          expectNear(
            found,
            alignments.map((a) => (deviation === 0 ? 0 : (a - mean) / deviation)),
            1e-7,
            1,
          );
        },
      ),
      { numRuns: 100 },
    );
  });

  test("is 0 if domains differ by no more than their errors or by rounding, or if there is only one", () => {
    const still = (history: Observed[]): void =>
      expect(Array.from(standardised(after(history, 0.9)), Math.abs)).toEqual(
        zeros(history[0].tokens.length),
      );
    still([once([1, -1, 1, -1], [3, 3, 3, 3])]);
    still([once([5, 5, 5], [0, 0, 0])]);
    still([once([0, 0, 0], [1, 2, 0])]);
    still([once([7], [0])]);
    still([once([7], [2])]);
    const third = 1 / 3;
    still([once([third, third, third * (1 + 2 ** -50)], [0, 0, 0])]);
  });

  test("is smaller for a domain that is known less precisely", () => {
    const [sure, unsure] = standardised(
      after([once([1, 1, -1, -1], [0.3, 0.3, 0.3, 0.3], [640, 8, 640, 8])], 0.9),
    );
    expect(sure).toBeGreaterThan(1.5 * unsure);
    expect(unsure).toBeGreaterThan(0);
  });

  test("is unknown before the first measurement, and stays known after it", () => {
    expect([...standardised(nothingTracked(2))]).toEqual([NaN, NaN]);
    const some = after([once([1, NaN, 3], [0, null, 0], [8, 0, 8])], 0.9);
    expect([...standardised(some)].map(Number.isNaN)).toEqual([false, true, false]);
    const later = after(
      [once([1, NaN, 3], [0, null, 0], [8, 0, 8]), once([NaN, 2, NaN], [null, 0, null], [0, 8, 0])],
      0.9,
    );
    expectNear(standardised(later), [-1, 0, 1], 1e-7, 1);
  });
});

describe("long gaps", () => {
  test("do not change a domain's mean and error, for thousands of updates", () => {
    const first = after([once([1, 2, 3], [0.5, 0.5, 0.5]), once([1.5, 2, 3], [0.5, 0.5, 0.5])], 0.8);
    let known = first;
    for (let t = 0; t < 8000; t++)
      known = track(known, once([NaN, 2, 3], [null, 0.5, 0.5], [0, 64, 64]), 0.8);
    expect(known.tokens[0]).toBeGreaterThan(0);
    expect(known.means[0]).toBe(first.means[0]);
    expect(known.variances[0]).toBe(first.variances[0]);
    expectNear(spreadOf(known).errors[0], spreadOf(first).errors[0], 1e-9);
  });
});

describe("clipping", () => {
  const quiet = (): Tracked =>
    after(
      Array.from({ length: 20 }, () => once([1, 0, 2], [0.1, 0.1, 0.1])),
      0.9,
    );

  test("one example with a huge gradient moves its domain by a bounded amount", () => {
    const before = quiet();
    const { mean, spread } = spreadOf(before);
    const known = 0.9 * before.tokens[0];
    const limit = 4 * Math.hypot(before.noise[0] / Math.sqrt(64), spread);
    for (const [huge, side] of [
      [1e3, 1],
      [1e30, 1],
      [-1e30, -1],
    ]) {
      const now = track(before, once([huge, 0, 2], [0.1, 0.1, 0.1]), 0.9);
      expectNear(now.means[0], (1 * known + (mean + side * limit) * 64) / (known + 64), 1e-9);
    }
    // Within the limit it counts in full.
    const near = mean + 0.9 * limit;
    expectNear(
      track(before, once([near, 0, 2], [0.1, 0.1, 0.1]), 0.9).means[0],
      (known + near * 64) / (known + 64),
      1e-9,
    );
  });

  test("one huge error counts as three times the pooled one", () => {
    const before = quiet();
    const [sigma, behind] = before.noise;
    expectNear(sigma, 0.1 * 8, 1e-9);
    const { noise } = track(before, once([1, 0, 2], [1e20, 0.1, null]), 0.9);
    const kept = 0.9 * behind;
    expectNear(noise[0], sigma * Math.sqrt((kept + 64 + 9 * 64) / (kept + 128)), 1e-9);
    expectNear(noise[1], kept + 128, 1e-12);
  });

  test("a beginning without differences and errors sets no limit on later values", () => {
    const flat = once([0, 0, 0], [0, 0, 0]);
    const later = once([1, 0, 2], [0.1, 0.1, 0.1]);
    const known = after([flat, later], 0.9);
    expectNear(known.means, [1 / 1.9, 0, 2 / 1.9], 1e-12);
    expectNear(known.noise[0], (0.8 / Math.sqrt(1.9)) * 1, 1e-12);
    expect(standardised(known)[2]).toBeGreaterThan(0.5);
  });

  test("σ remembers ten updates even if alignments remember fewer", () => {
    const quick = after([once([1, 2], [1, 1]), once([1, 2], [3, 3])], 0);
    expectNear(quick.noise, [8 * Math.sqrt((0.9 + 9) / 1.9), 128 * 1.9], 1e-12, 8);
    const slow = after([once([1, 2], [1, 1]), once([1, 2], [3, 3])], 0.99);
    expectNear(slow.noise[0], 8 * Math.sqrt((0.99 + 9) / 1.99), 1e-12);
  });
});
