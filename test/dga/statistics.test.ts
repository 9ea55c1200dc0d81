/** A domain's alignment and its standard error from per-example numbers: against brute force and against repeated sampling. */
import { alignmentsByDomain, domainAlignments, sumOf } from "#dist/dga/index.js";
import { domainNorms } from "#dist/dga/statistics.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const example = fc.record({
  gradient: fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 3, maxLength: 3 }),
  tokens: fc.integer({ min: 1, max: 64 }),
});
const examples = fc.array(example, { minLength: 1, maxLength: 20 });
const target = fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 3, maxLength: 3 });
const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, x, i) => sum + x * b[i], 0);

describe("domainAlignments", () => {
  test("is the inner product of the target with the domain's gradient, summed over the examples", () => {
    fc.assert(
      fc.property(examples, target, (batch, direction) => {
        const tokens = batch.reduce((sum, e) => sum + e.tokens, 0);
        const gradient = [0, 1, 2].map((d) => batch.reduce((sum, e) => sum + e.gradient[d], 0) / tokens);
        const { alignment } = domainAlignments(
          batch.map((e) => dot(e.gradient, direction)),
          batch.map((e) => e.tokens),
        );
        const sizes = batch.map((e) => dot(e.gradient.map(Math.abs), direction.map(Math.abs)));
        const size = Math.max(...sizes);
        expectNear(alignment, dot(gradient, direction), 1e-9, size);
      }),
    );
  });

  test("with equal token counts, the standard error is that of a mean", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 2, maxLength: 30 }),
        fc.integer({ min: 1, max: 512 }),
        (values, tokens) => {
          const n = values.length;
          const mean = values.reduce((a, b) => a + b, 0) / n;
          const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1);
          const found = domainAlignments(
            values,
            values.map(() => tokens),
          );
          const size = Math.max(...values.map(Math.abs), 1e-150);
          expectNear(found.alignment * tokens, mean, 1e-9, size);
          expectNear((found.standardError ?? NaN) * tokens, Math.sqrt(variance / n), 1e-9, size);
        },
      ),
    );
  });

  test("the standard error is that of the delta method, differentiated numerically", () => {
    fc.assert(
      fc.property(fc.array(example, { minLength: 2, maxLength: 12 }), target, (batch, direction) => {
        const dots = batch.map((e) => dot(e.gradient, direction));
        const tokens = batch.map((e) => e.tokens);
        const n = batch.length;
        // Weighting example j by 1 + h moves the ratio by its influence; the variance is n/(n−1) times the sum of their squares.
        const ratio = (j: number, h: number): number => {
          const w = batch.map((_, i) => (i === j ? 1 + h : 1));
          return dot(w, dots) / dot(w, tokens);
        };
        const h = 1e-5;
        const influences = batch.map((_, j) => (ratio(j, h) - ratio(j, -h)) / (2 * h));
        const expected = Math.sqrt((n / (n - 1)) * dot(influences, influences));
        const found = domainAlignments(dots, tokens).standardError ?? NaN;
        expect(Math.abs(found - expected)).toBeLessThanOrEqual(1e-6 * (1 + expected));
      }),
    );
  });

  test("over many ragged batches, the spread of the estimates equals the standard errors", () => {
    const next = random(11);
    const estimates: number[] = [];
    let meanSquare = 0;
    const batches = 4000;
    for (let b = 0; b < batches; b++) {
      const tokens = Array.from({ length: 40 }, () => 1 + Math.floor(next() * 60));
      // The dot of an example grows with its length and has noise of its own.
      const dots = tokens.map((n) => 0.3 * n + Math.sqrt(n) * gaussian(next));
      const { alignment, standardError } = domainAlignments(dots, tokens);
      estimates.push(alignment);
      meanSquare += (standardError ?? NaN) ** 2 / batches;
    }
    const mean = estimates.reduce((a, b) => a + b, 0) / batches;
    const variance = estimates.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (batches - 1);
    expectNear(mean, 0.3, 1e-2);
    // Measured 0.98; four standard deviations of a variance from 4000 samples are 0.09.
    expect(meanSquare / variance).toBeGreaterThan(0.9);
    expect(meanSquare / variance).toBeLessThan(1.1);
  });

  test("one example gives no standard error, no examples give alignment 0, and examples without tokens do not count", () => {
    expect(domainAlignments([6], [3])).toEqual({ alignment: 2, standardError: null });
    expect(domainAlignments([], [])).toEqual({ alignment: 0, standardError: null });
    expect(domainAlignments([0, 0], [0, 0])).toEqual({ alignment: 0, standardError: null });
    expect(domainAlignments([6, 0], [3, 0])).toEqual({ alignment: 2, standardError: null });
    expect(domainAlignments([1, 2, 9, 5], [3, 4, 0, 5])).toEqual(domainAlignments([1, 2, 5], [3, 4, 5]));
    for (const tokens of [
      [-1, 1],
      [NaN, 1],
    ])
      // prettier-ignore
      expect(errorOf(() => domainAlignments([1, 2], tokens)).message).toMatch(/tokens: (-1|NaN) at 0/);
  });

  test("scaling the target's gradient scales both", () => {
    fc.assert(
      fc.property(fc.array(example, { minLength: 2, maxLength: 12 }), target, (batch, direction) => {
        const dots = batch.map((e) => dot(e.gradient, direction));
        const tokens = batch.map((e) => e.tokens);
        const one = domainAlignments(dots, tokens);
        const four = domainAlignments(
          dots.map((d) => -4 * d),
          tokens,
        );
        const size = Math.max(...dots.map(Math.abs), 1e-150);
        expectNear(four.alignment, -4 * one.alignment, 1e-12, size);
        expectNear(four.standardError, 4 * (one.standardError ?? NaN), 1e-12, size);
      }),
    );
  });
});

describe("alignmentsByDomain", () => {
  test("equals domainAlignments of each domain's examples, in any order", () => {
    const labelled = fc.array(
      fc.record({ dot: fc.double({ min: -9, max: 9, noNaN: true }), tokens: fc.nat(9), domain: fc.nat(3) }),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(labelled, (batch) => {
        const found = alignmentsByDomain(
          batch.map((e) => e.dot),
          batch.map((e) => e.tokens),
          batch.map((e) => e.domain),
          4,
        );
        expect(found).toEqual(
          [0, 1, 2, 3].map((i) => {
            const own = batch.filter((e) => e.domain === i);
            return domainAlignments(
              own.map((e) => e.dot),
              own.map((e) => e.tokens),
            );
          }),
        );
      }),
    );
  });

  test("refuses arrays that do not fit each other, and unknown domains", () => {
    expect(errorOf(() => domainAlignments([1, 2], [1]))).toMatchObject({
      code: "shape",
      message: "2 dots for 1 token counts",
    });
    for (const bad of [-1, 0.5, NaN, 2])
      expect(errorOf(() => alignmentsByDomain([1, 2, 3], [1, 1, 1], [1, bad, -7], 2))).toMatchObject({
        code: "shape",
        message: `example 1 is of domain ${bad}, but there are 2`,
      });
    // A list of tokens of another length, also where each domain's own numbers would fit.
    for (const tokens of [[1], [1, 1, 1]])
      expect(errorOf(() => alignmentsByDomain([1, 2], tokens, [0, 0], 1))).toMatchObject({
        code: "shape",
        message: `2 dots for ${tokens.length} token counts`,
      });
    for (const k of [NaN, 1.5, -1, undefined])
      expect(errorOf(() => alignmentsByDomain([1], [1], [0], k as number)).message).toMatch(
        /^alignmentsByDomain: k: /,
      );
    expect(errorOf(() => alignmentsByDomain([1, 2], [1, 1], [0], 1)).message).toBe(
      "2 dots for 1 domain indices",
    );
    expect(errorOf(() => alignmentsByDomain([1, 2], [1, 1], [0, 3], 3)).message).toBe(
      "example 1 is of domain 3, but there are 3",
    );
  });
});

describe("domainNorms", () => {
  const parts = fc.record({
    pairDots: fc.double({ min: -9, max: 9, noNaN: true }),
    pairTokens: fc.constantFrom(0, 0, 1, 12),
    squares: fc.oneof(fc.constant(0), fc.double({ min: 0.1, max: 9, noNaN: true })),
    examples: fc.nat(5),
  });
  const possible = parts.map((one) => ({
    ...one,
    // Without a pair there is no product, without an example nothing at all, and a pair takes two.
    pairDots: one.pairTokens === 0 ? 0 : one.pairDots,
    squares: one.examples === 0 ? 0 : one.squares,
    pairTokens: one.examples < 2 ? 0 : one.pairTokens,
  }));
  test("is the root of the mean product of pairs, but at least what noise alone gives; without pairs, as coherent as all others", () => {
    fc.assert(
      fc.property(fc.array(possible, { minLength: 1, maxLength: 6 }), (all) => {
        const single = all.map(({ squares, examples }) => (examples === 0 ? 0 : squares / examples));
        const paired = [...all.keys()].filter((i) => all[i].pairTokens > 0);
        const sum = (of: (i: number) => number): number => paired.reduce((total, i) => total + of(i), 0);
        const alone = sum((i) => single[i] * all[i].examples);
        const coherence =
          alone === 0 ? 1 : sum((i) => (all[i].pairDots / all[i].pairTokens) * all[i].examples) / alone;
        const wanted = all.map(({ pairDots, pairTokens, examples }, i) => {
          if (examples === 0) return 0;
          const square = pairTokens === 0 ? coherence * single[i] : pairDots / pairTokens;
          return Math.sqrt(Math.max(square, single[i] / examples));
        });
        expectNear(domainNorms(all), wanted, 1e-12);
      }),
    );
  });
  test("equals the norm of gradients that are all alike, and the norm of the mean of independent ones", () => {
    const same = { pairDots: 6 * 4 * 25, pairTokens: 6 * 4, squares: 3 * 25, examples: 3 };
    expectNear(domainNorms([same]), [5], 1e-15);
    const noise = { pairDots: -1, pairTokens: 6, squares: 75, examples: 3 };
    expectNear(domainNorms([noise]), [Math.sqrt(25 / 3)], 1e-15);
    // One that was never drawn has none, one without pairs is as coherent as the first.
    const once = { pairDots: 0, pairTokens: 0, squares: 9, examples: 1 };
    const never = { pairDots: 0, pairTokens: 0, squares: 0, examples: 0 };
    expectNear(domainNorms([same, once, never]), [5, 3, 0], 1e-15);
    expectNear(domainNorms([once]), [3], 1e-15);
  });
});

test("numbers of examples that are not numbers, and tokens that are not finite, are refused", () => {
  const wrongTokens = ["1", null, undefined, NaN, Infinity, -Infinity, -1, true, 1n];
  const wrongDots = ["1", null, undefined, true, {}, 1n];
  const refusedBy = (dots: readonly unknown[], tokens: readonly unknown[]): void => {
    for (const call of [
      () => domainAlignments(dots as number[], tokens as number[]),
      () => alignmentsByDomain(dots as number[], tokens as number[], [0, 0, 0], 1),
    ])
      expect(errorOf(call)).toMatchObject({
        code: "numeric",
        message: expect.stringMatching(/^domainAlignments: .* at 1; /),
      });
  };
  for (const wrong of wrongTokens) refusedBy([1, 2, 3], [1, wrong, 1]);
  for (const wrong of wrongDots) refusedBy([1, wrong, 3], [1, 1, 1]);
});

test("a sum has only numbers", () => {
  for (const wrong of ["1", null, undefined, true, 1n])
    expect(errorOf(() => sumOf([1, wrong as unknown as number])).message).toMatch(
      /^sumOf: .* at 1 is not a number/,
    );
});
