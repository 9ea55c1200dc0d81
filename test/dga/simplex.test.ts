/** The simplex arithmetic against its definitions: optimality, invariances, brute force. */
import {
  checkSimplex,
  entropy,
  exponentiatedGradient,
  klDivergence,
  mirrorStep,
  mixUniform,
  movingAverage,
  normalise,
  projectBounds,
  projectFloor,
  spreadExcess,
  sumOf,
  uniformWeights,
  usualRepetitions,
  type Weights,
} from "#dist/dga/index.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { alignments, names, simplexPoint } from "gradmix/testing";
import { limitByCaps, within } from "#dist/dga/simplex.js";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const sizes = fc.integer({ min: 1, max: 12 });
const etas = fc.oneof(fc.double({ min: 0, max: 5, noNaN: true }), fc.constantFrom(0, 1e-12, 1e6));

/** α, directions of moderate size, and η. */
const steps = sizes.chain((k) => fc.record({ alpha: simplexPoint(k), a: alignments(k), eta: etas }));
const mild = fc.integer({ min: 2, max: 8 }).chain((k) =>
  fc.record({
    alpha: simplexPoint(k),
    a: fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: k, maxLength: k }),
    eta: fc.double({ min: 0.01, max: 2, noNaN: true }),
  }),
);

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++)
    expect(Math.abs(actual[i] - expected[i]), `at ${i}: ${actual[i]} for ${expected[i]}`).toBeLessThanOrEqual(
      tolerance,
    );
}

function expectSimplex(weights: ArrayLike<number>): void {
  for (let i = 0; i < weights.length; i++) expect(weights[i]).toBeGreaterThanOrEqual(0);
  expect(Math.abs(sumOf(weights) - 1)).toBeLessThanOrEqual(1e-12);
}

describe("sumOf", () => {
  test("is exact where naive addition is not", () => {
    expect(sumOf([1, 1e100, 1, -1e100])).toBe(2);
    expect(sumOf([])).toBe(0);
    expect(sumOf([1e308, 1e308])).toBe(Infinity);
  });

  test("is exact to rounding for scaled integers, compared with sums of BigInt", () => {
    fc.assert(
      fc.property(
        fc.array(fc.bigInt({ min: -(2n ** 52n), max: 2n ** 52n }), { maxLength: 200 }),
        (values) => {
          const exact = values.reduce((a, b) => a + b, 0n);
          const error = Math.abs(sumOf(values.map((v) => Number(v) / 2 ** 20)) - Number(exact) / 2 ** 20);
          expect(error).toBeLessThanOrEqual(2 ** -51 * Math.abs(Number(exact) / 2 ** 20) + 2 ** -40);
        },
      ),
    );
  });
});

describe("normalise", () => {
  test("gives a simplex point with the ratios of its input, at any scale", () => {
    const scales = fc.constantFrom(1, 1e-300, 1e300, 5e-324, 1e308);
    fc.assert(
      fc.property(fc.array(fc.nat(1000), { minLength: 1, maxLength: 20 }), scales, (counts, scale) => {
        fc.pre(counts.some((c) => c > 0));
        const total = counts.reduce((a, b) => a + b, 0);
        const values = counts.map((c) => Math.min(c * scale, Number.MAX_VALUE));
        fc.pre(counts.every((c, i) => values[i] === c * scale));
        const out = normalise(values);
        expectSimplex(out);
        expectClose(
          out,
          counts.map((c) => c / total),
          1e-12,
        );
      }),
    );
    expectClose(normalise([Number.MAX_VALUE, Number.MAX_VALUE]), [0.5, 0.5], 0);
  });

  test("values whose sum overflows are scaled by a power of two, and the bits are the same", () => {
    const values = [1.1, 1.3, 0, 1.7, 5e-10];
    expect(normalise(values.map((value) => value * 2 ** 1023))).toEqual(normalise(values));
  });

  test("refuses values that cannot be weights", () => {
    expect(errorOf(() => normalise([1, -1])).message).toBe(
      "weights: -1 cannot be a weight; weights are finite and ≥ 0",
    );
    expect(errorOf(() => normalise([0, 0], "counts")).message).toBe(
      "counts: they sum to 0; at least one must be positive",
    );
    for (const bad of [[1, -1], [NaN], [Infinity, 1], [0, 0], []])
      expect(errorOf(() => normalise(bad, "counts"))).toMatchObject({
        code: "numeric",
        message: expect.stringMatching(/^counts: /),
      });
  });
});

describe("exponentiatedGradient", () => {
  test("stays on the simplex and keeps the support, for any alignments up to 1e30 and any weights", () => {
    fc.assert(
      fc.property(steps, ({ alpha, a, eta }) => {
        const before = Float64Array.from(alpha);
        const next = exponentiatedGradient(alpha, a, eta);
        expectSimplex(next);
        alpha.forEach((weight, i) => expect(next[i] > 0).toBe(weight > 0));
        expect(alpha).toEqual(before);
      }),
      { numRuns: 500 },
    );
  });

  test("equals α ⊙ exp(ηa), normalised, if that can be computed directly", () => {
    fc.assert(
      fc.property(mild, ({ alpha, a, eta }) => {
        const direct = alpha.map((weight, i) => weight * Math.exp(eta * a[i]));
        expectClose(exponentiatedGradient(alpha, a, eta), normalise(direct), 1e-13);
      }),
    );
  });

  test("adding a constant to every alignment has no effect", () => {
    fc.assert(
      fc.property(mild, fc.double({ min: -1000, max: 1000, noNaN: true }), ({ alpha, a, eta }, shift) => {
        const shifted = exponentiatedGradient(
          alpha,
          a.map((x) => x + shift),
          eta,
        );
        expectClose(shifted, exponentiatedGradient(alpha, a, eta), 1e-11);
      }),
    );
    // Exactly nothing where the shift itself is exact.
    const [alpha, a] = [
      [0.2, 0.3, 0.5],
      [1, -0.5, 2],
    ];
    const far = a.map((x) => x + 2 ** 40);
    expect(exponentiatedGradient(alpha, far, 0.7)).toEqual(exponentiatedGradient(alpha, a, 0.7));
  });

  test("η = 0 or k = 1 changes nothing, bit for bit", () => {
    fc.assert(
      fc.property(steps, ({ alpha, a }) => {
        expect(exponentiatedGradient(alpha, a, 0)).toEqual(alpha);
      }),
    );
    fc.assert(
      fc.property(fc.double({ min: -1e30, max: 1e30, noNaN: true }), etas, (a, eta) => {
        expect(exponentiatedGradient([1], [a], eta)).toEqual(Float64Array.of(1));
      }),
    );
  });

  test("permuting the domains permutes the result", () => {
    fc.assert(
      fc.property(
        steps.chain((given) =>
          fc.record({
            given: fc.constant(given),
            order: fc.shuffledSubarray([...given.a.keys()], { minLength: given.a.length }),
          }),
        ),
        ({ given: { alpha, a, eta }, order }) => {
          const next = exponentiatedGradient(alpha, a, eta);
          const permuted = exponentiatedGradient(
            order.map((i) => alpha[i]),
            order.map((i) => a[i]),
            eta,
          );
          expectClose(
            permuted,
            order.map((i) => next[i]),
            1e-14,
          );
        },
      ),
    );
  });

  test("is monotone: raising aᵢ never lowers αᵢ and never raises another", () => {
    const raised = steps.chain((given) =>
      fc.record({
        given: fc.constant(given),
        i: fc.nat(given.a.length - 1),
        by: fc.oneof(fc.double({ min: 0, max: 5, noNaN: true }), fc.constant(1e30)),
      }),
    );
    fc.assert(
      fc.property(raised, ({ given: { alpha, a, eta }, i, by }) => {
        const before = exponentiatedGradient(alpha, a, eta);
        const after = exponentiatedGradient(alpha, a.with(i, a[i] + by), eta);
        after.forEach((weight, j) => {
          // The tolerance is relative: it must also hold for the tiny ones.
          if (j === i) expect(weight).toBeGreaterThanOrEqual(before[j] * (1 - 1e-8) - 1e-300);
          else expect(weight).toBeLessThanOrEqual(before[j] * (1 + 1e-8) + 1e-300);
        });
      }),
      { numRuns: 500 },
    );
  });

  test("a domain that is better aligned than another gains weight relative to it", () => {
    fc.assert(
      fc.property(mild, ({ alpha, a, eta }) => {
        const next = exponentiatedGradient(alpha, a, eta);
        for (let i = 1; i < a.length; i++) {
          if (!(alpha[i] > 1e-200 && alpha[0] > 1e-200)) continue;
          const gain = Math.log(next[i] / alpha[i]) - Math.log(next[0] / alpha[0]);
          // The four logarithms cancel.
          expectNear(gain, eta * (a[i] - a[0]), 1e-9, Math.max(1, eta * Math.abs(a[i] - a[0])));
        }
      }),
    );
  });

  test("minimises −η⟨a, α′⟩ + KL(α′‖α): no feasible point near or far does better", () => {
    fc.assert(
      fc.property(mild, fc.integer(), ({ alpha, a, eta }, seed) => {
        const objective = (p: ArrayLike<number>): number =>
          klDivergence(p, alpha) - eta * a.reduce((sum, x, i) => sum + x * p[i], 0);
        const next = exponentiatedGradient(alpha, a, eta);
        const best = objective(next);
        const draw = random(seed);
        for (let trial = 0; trial < 40; trial++) {
          const other = normalise(alpha.map((w) => (w > 0 ? -Math.log(1 - draw()) + 1e-9 : 0)));
          const t = 10 ** (-6 * draw());
          const point = next.map((w, i) => (1 - t) * w + t * other[i]);
          expect(objective(point)).toBeGreaterThanOrEqual(best - 1e-11);
        }
      }),
    );
  });

  test("two halves of a domain keep its total weight", () => {
    fc.assert(
      fc.property(mild, ({ alpha, a, eta }) => {
        const whole = exponentiatedGradient(alpha, a, eta);
        const halves = exponentiatedGradient(
          [alpha[0] / 2, alpha[0] / 2, ...alpha.subarray(1)],
          [a[0], ...a],
          eta,
        );
        expectClose([halves[0] + halves[1], ...halves.subarray(2)], whole, 1e-14);
      }),
    );
  });

  test("a domain that fell to the smallest weight can recover", () => {
    const down = exponentiatedGradient([0.5, 0.5], [0, 1e30], 1);
    // The smallest normal double.
    expect(down[0]).toBe(2 ** -1022);
    expect(exponentiatedGradient(down, [1000, 0], 1)[0]).toBeGreaterThan(0.99);
  });

  test("refuses a direction that is not finite, at any place", () => {
    for (const bad of [NaN, Infinity, -Infinity])
      for (const at of [0, 1, 2])
        expect(errorOf(() => exponentiatedGradient([0, 0.5, 0.5], [0, 0, 0].with(at, bad), 1))).toMatchObject(
          {
            code: "numeric",
            message: `the direction of the mirror step is ${bad} at ${at}`,
          },
        );
  });

  test("the direction of a domain without weight has no effect, however large it is", () => {
    const there = exponentiatedGradient([0.25, 0.75], [0, 1], 1);
    for (const far of [1e30, -1e30, 1e300])
      expect(exponentiatedGradient([0, 0.25, 0.75], [far, 0, 1], 1)).toEqual(Float64Array.of(0, ...there));
    // Here the product with η overflows.
    expect(exponentiatedGradient([0, 0.25, 0.75], [1e300, 0, 1], 1e10)).toEqual(
      Float64Array.of(0, 2 ** -1022, 1),
    );
  });
});

describe("movingAverage", () => {
  const pairs = fc
    .integer({ min: 1, max: 10 })
    .chain((k) => fc.record({ average: simplexPoint(k), next: simplexPoint(k) }));

  test("β is the weight of the new value; the result stays on the simplex and between the arguments", () => {
    fc.assert(
      fc.property(
        pairs,
        fc.double({ min: 0, max: 1, minExcluded: true, noNaN: true }),
        ({ average, next }, beta) => {
          const out = movingAverage(average, next, beta);
          expectSimplex(out);
          expectClose(
            out,
            average.map((a, i) => (1 - beta) * a + beta * next[i]),
            1e-14,
          );
        },
      ),
    );
    expectClose(movingAverage([1, 0], [0, 1], 0.1), [0.9, 0.1], 1e-16);
  });

  test("with β = 1 the result is the new value, and the average of equal points is the point, bit for bit", () => {
    fc.assert(
      fc.property(pairs, fc.double({ min: 0, max: 1, noNaN: true }), ({ average, next }, beta) => {
        expect(movingAverage(average, next, 1)).toEqual(next);
        expect(movingAverage(next, next, beta)).toEqual(next);
      }),
    );
  });

  test("does not drift, even if the complement of β is not a double", () => {
    for (const beta of [1e-3, 1e-9, 0.1]) {
      const draw = random(7);
      let average = normalise(Array.from({ length: 9 }, draw));
      for (let step = 0; step < 20_000; step++)
        average = movingAverage(average, normalise(Array.from({ length: 9 }, draw)), beta);
      expect(Math.abs(sumOf(average) - 1)).toBeLessThanOrEqual(1e-13);
    }
    // The steps of the large weight are lost to rounding, those of the small one are not.
    let uneven: Weights = Float64Array.of(0.9, 0.1);
    for (let step = 0; step < 20_000; step++) uneven = movingAverage(uneven, [0.1, 0.9], 5e-17);
    expect(Math.abs(sumOf(uneven) - 1)).toBeLessThanOrEqual(2e-14);
  });
});

test("sums that are off by rounding are kept, and larger deviations are corrected", () => {
  const summed = (excess: number): number => {
    const average = [0.5, 0.25, 0.25 + excess];
    const out = movingAverage(average, average, 0.5);
    if (Math.abs(excess) < 1e-14) expect(out).toEqual(Float64Array.from(average));
    return sumOf(out) - 1;
  };
  for (const sign of [1, -1]) {
    expect(Math.abs(summed(sign * 0.9e-14))).toBeGreaterThan(0.8e-14);
    for (const excess of [1.2e-14, 1.9e-14, 1e-9])
      expect(Math.abs(summed(sign * excess))).toBeLessThan(3e-16);
  }
});

describe("within", () => {
  const unasked = (): Weights => expect.unreachable();
  test("a change among all domains gets the weights unchanged", () => {
    // They sum to a little less than 1.
    const alpha = [0.1, 0.2, 0.7];
    for (const among of [null, [true, true, true]])
      expect(
        within(alpha, among, (part, total, indices) => {
          expect([[...part], total, indices]).toEqual([alpha, 1, [0, 1, 2]]);
          return Float64Array.of(0.3, 0.3, 0.4 - 5e-15);
        }),
      ).toEqual(Float64Array.of(0.3, 0.3, 0.4 - 5e-15));
    expect(within([1], null, () => Float64Array.of(1))).toEqual(Float64Array.of(1));
  });
  test("a change among some domains gets their shares and their total, and does not affect the others", () => {
    const out = within([0.125, 0.5, 0.25, 0.125], [true, false, true, false], (part, total, indices) => {
      expect([[...part], total, indices]).toEqual([[1 / 3, 2 / 3], 0.375, [0, 2]]);
      return Float64Array.of(0, 1);
    });
    expect(out).toEqual(Float64Array.of(0, 0.5, 0.375, 0.125));
    const pair = within([0.5, 0.25, 0.25], [false, true, true], () => Float64Array.of(0.25, 0.75));
    expect(pair).toEqual(Float64Array.of(0.5, 0.125, 0.375));
  });
  test("a change among one, none, or domains without weight has no effect", () => {
    const alpha = Float64Array.of(0.5, 0, 0, 0.5);
    expect(within(alpha, [true, false, false, false], unasked)).toEqual(alpha);
    expect(within(alpha, [false, false, false, false], unasked)).toEqual(alpha);
    expect(within(alpha, [false, true, true, false], unasked)).toEqual(alpha);
  });
  test("a domain with a small weight keeps at least the smallest normal double", () => {
    const out = within([1, 1e-200, 1e-200], [false, true, true], () => Float64Array.of(1e-150, 1));
    expect(out).toEqual(Float64Array.of(1, 2 ** -1022, 2e-200));
  });
});

describe("both projections, as Bregman projections under the entropy", () => {
  /** Bounds with a point between them, and other points of the simplex between them. */
  const cases = fc.integer({ min: 1, max: 8 }).chain((k) =>
    fc.record({
      alpha: simplexPoint(k, { positive: true }),
      middle: simplexPoint(k),
      // At 1 the bounds leave nothing but rounding.
      share: fc.double({ min: 0, max: 0.99, noNaN: true }),
      rival: simplexPoint(k),
    }),
  );
  const projections: [
    string,
    (alpha: ArrayLike<number>, middle: Weights, share: number) => [Weights, Weights, Weights],
  ][] = [
    [
      "projectFloor",
      (alpha, { length: k }, share) => [
        projectFloor(alpha, share / k),
        new Float64Array(k).fill(share / k),
        new Float64Array(k).fill(1),
      ],
    ],
    [
      "projectBounds",
      (alpha, middle, share) => {
        const floors = middle.map((w) => share * w);
        const caps = middle.map((w) => w + (1 - w) * (1 - share) * 0.5);
        return [projectBounds(alpha, floors, caps), floors, caps];
      },
    ],
  ];
  test.each(projections)(
    "%s: applying it twice is the same as once, and KL(p‖α) ≥ KL(p‖Πα) + KL(Πα‖α) for p within the bounds",
    (_, project) => {
      fc.assert(
        fc.property(cases, ({ alpha, middle, share, rival }) => {
          const [out, floors, caps] = project(alpha, middle, share);
          expect(project(out, middle, share)[0]).toEqual(out);
          const center = Float64Array.from(
            floors.every((f) => f === floors[0]) ? uniformWeights(alpha.length) : middle,
          );
          for (const towards of [rival, alpha]) {
            // As far towards another point as the bounds allow.
            const steps = center.map((w, i) => {
              const way = towards[i] - w;
              return way > 0 ? (caps[i] - w) / way : way < 0 ? (floors[i] - w) / way : 1;
            });
            const t = Math.max(0, Math.min(1, ...steps));
            const p = normalise(center.map((w, i) => Math.max(0, w + t * (towards[i] - w))));
            const [whole, rest, own] = [
              klDivergence(p, alpha),
              klDivergence(p, out),
              klDivergence(out, alpha),
            ];
            expect(whole).toBeGreaterThanOrEqual(rest + own - 1e-9 * Math.max(1, own));
          }
        }),
        { numRuns: 500 },
      );
    },
  );
});

/** min(cap, max(floor, c·α)) with the c at which it sums to 1, by bisection on log c. */
function bisected(
  alpha: ArrayLike<number>,
  floors: readonly number[],
  caps: readonly number[],
): Float64Array {
  const at = (c: number): Float64Array =>
    Float64Array.from(alpha, (a, i) => Math.min(caps[i], Math.max(floors[i], c * a)));
  const sum = (c: number): number => at(c).reduce((x, y) => x + y, 0);
  let [low, high] = [-1000, 1000];
  for (let i = 0; i < 70; i++) {
    const middle = (low + high) / 2;
    if (sum(2 ** middle) < 1) low = middle;
    else high = middle;
  }
  return at(2 ** low);
}

describe("against bisection", () => {
  /** Bounds of which some touch each other, a point of the simplex between them, and any other point. */
  const cases = fc.integer({ min: 1, max: 9 }).chain((k) => {
    const share = fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom(0, 0, 1, 0.5));
    const vector = fc.array(share, { minLength: k, maxLength: k });
    return fc.record({
      alpha: fc.oneof(simplexPoint(k, { positive: true }), fc.constant(uniformWeights(k))),
      middle: simplexPoint(k, { positive: true }),
      low: vector,
      high: vector,
      // Of all floors and caps.
      tightness: fc.constantFrom(0, 0.3, 1),
    });
  });
  test("projectBounds", () => {
    fc.assert(
      fc.property(cases, ({ alpha, middle, low, high, tightness }) => {
        const floors = Array.from(middle, (m, i) => m * low[i] * 0.999);
        const caps = Array.from(middle, (m, i) => Math.min(1, m + (1 - tightness) * high[i] + 1e-3));
        const out = projectBounds(alpha, floors, caps);
        expectClose(out, bisected(alpha, floors, caps), 1e-13);
        out.forEach((weight, i) => {
          expect(weight).toBeGreaterThanOrEqual(floors[i]);
          expect(weight).toBeLessThanOrEqual(caps[i]);
        });
        expect(Math.abs(sumOf(out) - 1)).toBeLessThanOrEqual(1.1e-15);
        expect(projectBounds(out, floors, caps)).toEqual(out);
      }),
      { numRuns: 400 },
    );
  });
  test("projectFloor", () => {
    fc.assert(
      fc.property(cases, fc.double({ min: 0, max: 0.999, noNaN: true }), ({ alpha }, share) => {
        const k = alpha.length;
        const floor = share / k;
        const wanted = bisected(alpha, new Array<number>(k).fill(floor), new Array<number>(k).fill(1));
        expectClose(projectFloor(alpha, floor), wanted, 1e-13);
      }),
      { numRuns: 500 },
    );
  });
});

describe("projectBounds", () => {
  const thirds = [1 / 3, 1 / 3, 1 / 3];
  test("weights that respect the bounds are returned bit for bit, even if they touch them", () => {
    const alpha = [0.1, 0.2, 0.7];
    expect(projectBounds(alpha, [0.1, 0, 0.7], [0.5, 0.2, 0.7])).toEqual(Float64Array.from(alpha));
    expect(projectFloor([0.1, 0.1, 0.8 - 1e-16], 0.1)).toEqual(Float64Array.of(0.1, 0.1, 0.8 - 1e-16));
  });
  test("weights of 0 share what the positive ones cannot take, in proportion to the room below their caps", () => {
    // The floor of the third is 0.1; the 0.6 that are missing go to rooms of 0.6 and 0.5.
    const filled = [(0.6 * 6) / 11, 0.3, 0.1 + (0.6 * 5) / 11];
    expectClose(projectBounds([0, 1, 0], [0, 0, 0.1], [0.6, 0.3, 0.6]), filled, 1e-15);
    expectClose(projectBounds([0, 1, 0, 0], [0, 0, 0, 0], [0.2, 0.5, 0.4, 0.4]), [0.1, 0.5, 0.2, 0.2], 1e-15);
    expectClose(projectBounds([1, 0], [0, 0], [0.25, 1]), [0.25, 0.75], 1e-15);
  });
  test("bounds that allow only one point give this point", () => {
    expect(projectBounds([1, 0, 0], thirds, [1, 1, 1])).toEqual(Float64Array.from(thirds));
    expect(projectBounds([1, 0, 0], [0, 0, 0], thirds)).toEqual(Float64Array.from(thirds));
    // And within the tolerance, bounds whose sums pass 1 by rounding.
    const above = thirds.map((third) => third * (1 + 0.9e-12));
    const below = thirds.map((third) => third * (1 - 0.9e-12));
    expect(projectBounds([1, 0, 0], above, [1, 1, 1])).toEqual(Float64Array.from(above));
    expect(projectBounds([0.5, 0.5, 0], [0, 0, 0], below)).toEqual(Float64Array.from(below));
    expect(projectBounds([1, 0, 0], above, above)).toEqual(Float64Array.from(above));
  });
  test.each<[number[], number[], string]>([
    [
      thirds.map((x) => x * (1 + 1.5e-12)),
      [1, 1, 1],
      "none lie between floors that sum to 1.0000000000015 and caps that sum to 3;",
    ],
    [
      [0, 0, 0],
      thirds.map((x) => x * (1 - 1.5e-12)),
      "none lie between floors that sum to 0 and caps that sum to 0.9999999999985",
    ],
    [[0.2, 0.6, 0.5], [0.1, 0.5, 1], "the floor 0.2 of domain 0 is above its cap 0.1"],
    [[0, 0.3, 0.5], [1, 1, 0.4], "the floor 0.5 of domain 2 is above its cap 0.4"],
    [[0, -0.1, 0], [1, 1, 1], "the floor -0.1 of domain 1 is above its cap 1"],
    [[0, NaN, 0], [1, 1, 1], "the floor NaN of domain 1 is above its cap 1"],
  ])("no point lies between %j and %j", (floors, caps, message) => {
    // A point outside the bounds, whatever they are.
    const error = errorOf(() => projectBounds([2, -1, 0], floors, caps));
    expect(error.code).toBe("config");
    expect(error.message).toContain(`weights: ${message}`);
  });
  test("a floor may equal its cap", () => {
    expectClose(projectBounds([0.8, 0.1, 0.1], [0.2, 0, 0], [0.2, 1, 1]), [0.2, 0.4, 0.4], 1e-15);
  });
});

describe("projectFloor", () => {
  const cases = sizes.chain((k) =>
    fc.record({
      alpha: simplexPoint(k),
      floor: fc.oneof(fc.double({ min: 0, max: 1 / k, noNaN: true }), fc.constantFrom(0, 1 / k, 1e-3 / k)),
    }),
  );

  test("respects the floor and stays on the simplex; order and ratios above the floor are kept", () => {
    fc.assert(
      fc.property(cases, ({ alpha, floor }) => {
        const out = projectFloor(alpha, floor);
        expectSimplex(out);
        out.forEach((weight) => expect(weight).toBeGreaterThanOrEqual(floor));
        for (let i = 0; i < alpha.length; i++)
          for (let j = 0; j < alpha.length; j++) {
            if (alpha[i] > alpha[j]) expect(out[i]).toBeGreaterThanOrEqual(out[j]);
            if (alpha[i] === alpha[j]) expect(out[i]).toBe(out[j]);
            if (out[i] > floor * (1 + 1e-9) && out[j] > floor * (1 + 1e-9) && alpha[j] > 0)
              expectNear(out[i] / out[j] / (alpha[i] / alpha[j]), 1, 1e-9);
          }
      }),
      { numRuns: 500 },
    );
  });

  test("is the KL projection: no other point above the floor is closer, and applying it twice is the same as once", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 8 }).chain((k) =>
          fc.record({
            alpha: simplexPoint(k, { positive: true }),
            share: fc.double({ min: 0, max: 0.99, noNaN: true }),
            seed: fc.integer(),
          }),
        ),
        ({ alpha, share, seed }) => {
          const k = alpha.length;
          const floor = share / k;
          const out = projectFloor(alpha, floor);
          expect(projectFloor(out, floor)).toEqual(out);
          const best = klDivergence(out, alpha);
          const draw = random(seed);
          for (let trial = 0; trial < 40; trial++) {
            const free = normalise(alpha.map(() => -Math.log(1 - draw()) + 1e-12));
            const feasible = free.map((w) => floor + (1 - k * floor) * w);
            const t = 10 ** (-6 * draw());
            const point = out.map((w, i) => (1 - t) * w + t * feasible[i]);
            expect(klDivergence(point, alpha)).toBeGreaterThanOrEqual(best - 1e-10);
          }
        },
      ),
    );
  });

  test("a point above the floor is not changed; a vertex is raised to the floor", () => {
    expect(projectFloor([0.7, 0.2, 0.1], 0.1)).toEqual(Float64Array.of(0.7, 0.2, 0.1));
    expectClose(projectFloor([1, 0, 0], 0.05), [0.9, 0.05, 0.05], 1e-15);
    // Scaling the first down must not push the second under the floor unnoticed.
    expectClose(projectFloor([0.79, 0.21, 0], 0.2), [0.6, 0.2, 0.2], 1e-15);
    expectClose(projectFloor([0.9, 0.1, 0, 0], 0.25), uniformWeights(4), 0);
  });
});

describe("checkSimplex", () => {
  test("accepts weights within the tolerance, which then sum to 1", () => {
    fc.assert(
      fc.property(
        sizes.chain((k) => simplexPoint(k)),
        fc.double({ min: -9e-7, max: 9e-7, noNaN: true }),
        (alpha, off) => {
          const out = checkSimplex(
            alpha.map((w) => w * (1 + off)),
            names(alpha.length),
          );
          expectSimplex(out);
          expectClose(out, alpha, 1e-14);
        },
      ),
    );
  });

  test.each([
    [[0.5, -0.1, 0.6], /^weights: "domain1" has -0.1;/],
    [[0.5, NaN, 0.5], /^weights: "domain1" has NaN;/],
    [[0.5, 0, Infinity], /^weights: "domain2" has Infinity;/],
    [[0.5, 0.3, 0.3], /^weights: they sum to 1.1, not to 1$/],
    [[0.5, 0.5 - 1.5e-6, 0], /not to 1$/],
    [[0.5, 0.5 + 1.5e-6, 0], /not to 1$/],
    [[0.5, 0.5], /^weights: 2 values for 3 domains$/],
  ])("refuses %j", (weights, message) => {
    const error = errorOf(() => checkSimplex(weights, names(3)));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(message);
  });
});

describe("entropy and KL divergence", () => {
  test("entropy is log k at the centre and 0 at a vertex; KL is 0 only for equal points and ∞ off the support", () => {
    expectNear(entropy(uniformWeights(7)), Math.log(7), 1e-12);
    expect(entropy([0, 1, 0])).toBe(0);
    expectNear(
      entropy([0.5, 0, 0.125, 0.375]),
      0.5 * Math.LN2 + 0.125 * Math.log(8) + 0.375 * Math.log(8 / 3),
      1e-15,
    );
    expect(klDivergence([0, 1], [0, 1])).toBe(0);
    expectNear(klDivergence([0, 0.25, 0.75], [0.5, 0.25, 0.25]), 0.75 * Math.log(3), 1e-15);
    expect(klDivergence([0.5, 0.5], [1, 0])).toBe(Infinity);
    expectNear(klDivergence([1, 0], [0.5, 0.5]), Math.LN2, 1e-15);
    const next = random(3);
    const p = normalise(Array.from({ length: 6 }, () => Math.exp(gaussian(next))));
    expect(klDivergence(p, p)).toBe(0);
    // KL(p‖uniform) = log k − H(p).
    expectNear(klDivergence(p, uniformWeights(6)), Math.log(6) - entropy(p), 1e-12);
  });
});

/** Weights and caps of as many domains. */
const capped = fc.integer({ min: 1, max: 12 }).chain((k) =>
  fc.record({
    alpha: simplexPoint(k),
    caps: fc.array(fc.oneof(fc.double({ min: 1e-6, max: 1, noNaN: true }), fc.constantFrom(1, 0.2, 1e-300)), {
      minLength: k,
      maxLength: k,
    }),
  }),
);

describe.each([
  ["limitByCaps", limitByCaps],
  ["spreadExcess", spreadExcess],
])("%s", (_, limited) => {
  test("keeps its argument, and the order under equal caps", () => {
    fc.assert(
      fc.property(capped, fc.double({ min: 1e-6, max: 1, noNaN: true }), ({ alpha, caps }, cap) => {
        const before = Array.from(alpha);
        limited(alpha, caps);
        expect(Array.from(alpha)).toEqual(before);
        const equal = limited(
          alpha,
          Array.from(alpha, () => cap),
        );
        alpha.forEach((a, i) =>
          alpha.forEach((b, j) => {
            if (a <= b) expect(equal[i]).toBeLessThanOrEqual(equal[j] + 1e-15);
          }),
        );
      }),
      { numRuns: 500 },
    );
  });

  test("stays on the simplex and below the caps; if the caps sum to less than 1, weights are in proportion to them", () => {
    fc.assert(
      fc.property(capped, ({ alpha, caps }) => {
        const out = limited(alpha, caps);
        expect(Math.abs(sumOf(out) - 1)).toBeLessThanOrEqual(1e-12);
        const all = sumOf(caps);
        if (all <= 1)
          expectClose(
            out,
            caps.map((cap) => cap / all),
            1e-12,
          );
        else
          out.forEach((weight, i) => {
            expect(weight).toBeGreaterThanOrEqual(0);
            expect(weight).toBeLessThanOrEqual(caps[i] * (1 + 1e-12));
          });
      }),
      { numRuns: 500 },
    );
  });

  test("changes nothing if no cap is exceeded, to the bit", () => {
    fc.assert(
      fc.property(
        sizes.chain((k) => simplexPoint(k)),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (alpha, room) => {
          const caps = Array.from(alpha, (weight) => Math.min(1, weight + room));
          fc.pre(sumOf(caps) > 1);
          expect(Array.from(limited(alpha, caps))).toEqual(Array.from(alpha));
        },
      ),
    );
  });
});

describe("bounds that hold up to rounding", () => {
  // A weight of 0 or almost 0, caps that are the weights or differ by an ulp, and weights whose sum is 1 up to rounding.
  const nearly = fc.integer({ min: 2, max: 8 }).chain((k) =>
    fc
      .record({
        alpha: simplexPoint(k),
        tiny: fc.array(fc.constantFrom(1, 1, 1e-17, 1e-90), { minLength: k, maxLength: k }),
        ulps: fc.array(fc.constantFrom(-1, 0, 1, 2 ** 50), { minLength: k, maxLength: k }),
      })
      .map(({ alpha, tiny, ulps }) => {
        const weights = normalise(alpha.map((weight, i) => (weight + 1e-3) * tiny[i]));
        return { weights, caps: weights.map((weight, i) => weight * (1 + ulps[i] * 2 ** -52)) };
      }),
  );
  test.each([
    ["spreadExcess", spreadExcess],
    ["limitByCaps", limitByCaps],
  ] as const)("%s stays on the simplex and near the weights", (_, limit) => {
    fc.assert(
      fc.property(nearly, ({ weights, caps }) => {
        const out = limit(weights, caps);
        expectSimplex(out);
        expectClose(out, weights, 1e-14);
      }),
      { numRuns: 2000 },
    );
    // The weights sum to 1 + 2⁻⁵², and the excess over the first cap is rounded away.
    const alpha = [0.9767112790454375, 0.023288720954562622, 1.0307402300461188e-90];
    expectClose(limit(alpha, [alpha[0], 0.02328872095456262, alpha[2] * (1 - 2 ** -52)]), alpha, 1e-15);
  });
});

test("weights that are all 0 are refused, and not returned as weights", () => {
  const none = [0, 0];
  for (const call of [
    () => exponentiatedGradient(none, [1, 2], 1),
    () => exponentiatedGradient(none, [1, 2], 0),
    () => projectFloor(none, 0.1),
    () => projectBounds(none, none, [1, 1]),
    () => spreadExcess(none, [1, 1]),
    () => limitByCaps(none, [1, 1]),
  ])
    expect(errorOf(call)).toMatchObject({ code: "numeric", message: expect.stringMatching(/all of them are 0/) as unknown }); // prettier-ignore
});

test("no result is the list that was passed", () => {
  const alpha = Float64Array.of(0.25, 0.75);
  for (const out of [
    mixUniform(alpha, 0),
    exponentiatedGradient(alpha, [0, 0], 0),
    projectFloor(alpha, 0),
    projectBounds(alpha, [0, 0], [1, 1]),
    limitByCaps(alpha, [1, 1]),
    movingAverage(alpha, alpha, 1),
  ]) {
    expect(out).toEqual(alpha);
    expect(out).not.toBe(alpha);
  }
});

test("a step of negative η is the step of the negated direction, also where differences overflow", () => {
  fc.assert(
    fc.property(mild, ({ alpha, a, eta }) => {
      const negated = a.map((value) => -value);
      expectClose(exponentiatedGradient(alpha, a, -eta), exponentiatedGradient(alpha, negated, eta), 1e-14);
    }),
  );
  expectClose(exponentiatedGradient([0.5, 0.5], [1e308, -1e308], -1), [0, 1], 1e-300);
  expectClose(exponentiatedGradient([0.5, 0.5], [1e308, -1e308], 1), [1, 0], 1e-300);
});

describe("limitByCaps", () => {
  const supplyOf = (alpha: ArrayLike<number>, caps: readonly number[]): number[] =>
    caps.map((cap, i) => (alpha[i] > 0 ? cap : 0));

  test("is a mixture of the even spread and the KL projection, with a share of 1 over the spare supply, at most 1", () => {
    fc.assert(
      fc.property(capped, ({ alpha, caps }) => {
        const used = supplyOf(alpha, caps);
        const supply = sumOf(used);
        fc.pre(supply > 1);
        const out = limitByCaps(alpha, caps);
        const even = spreadExcess(alpha, used);
        const share = Math.min(1, 1 / (supply - 1));
        const near = projectBounds(alpha, new Float64Array(alpha.length), used);
        expectClose(
          out,
          near.map((weight, i) => (1 - share) * weight + share * even[i]),
          1e-14,
        );
      }),
      { numRuns: 500 },
    );
  });

  test("uses domains of weight 0 only for what the others cannot supply", () => {
    expectClose(limitByCaps([0.8, 0.2, 0], [0.5, 0.9, 5]), [0.5, 0.5, 0], 1e-15);
    expectClose(limitByCaps([0.8, 0.2, 0, 0], [0.5, 0.3, 1, 3]), [0.5, 0.3, 0.05, 0.15], 1e-15);
    fc.assert(
      fc.property(capped, ({ alpha, caps }) => {
        fc.pre(sumOf(caps) > 1 + 1e-9);
        const supply = sumOf(supplyOf(alpha, caps));
        const out = limitByCaps(alpha, caps);
        const zeros = [...out.keys()].filter((i) => alpha[i] === 0);
        expectNear(sumOf(zeros.map((i) => out[i])), Math.max(0, 1 - supply), 1e-12, 1);
        if (supply >= 1) for (const i of zeros) expect(out[i]).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  test("by hand: with twice the need to spare, half of the result is even and half keeps ratios", () => {
    // The excess is 0.4. Evenly, it goes to rooms of 1.25 and 1.15; by ratios, 0.05 and 0.15 are multiplied by 3.
    const even = [0.05 + (0.4 * 1.25) / 2.4, 0.15 + (0.4 * 1.15) / 2.4];
    expectClose(
      limitByCaps([0.8, 0.05, 0.15], [0.4, 1.3, 1.3]),
      [0.4, (even[0] + 0.15) / 2, (even[1] + 0.45) / 2],
      1e-15,
    );
    // With no more to spare than is needed, all of it is even.
    expectClose(
      limitByCaps([0.8, 0.05, 0.15], [0.4, 0.8, 0.8]),
      spreadExcess([0.8, 0.05, 0.15], [0.4, 0.8, 0.8]),
      0,
    );
  });
});

describe("spreadExcess", () => {
  test("moves the excess above a cap in proportion to the room", () => {
    expectClose(spreadExcess([0.7, 0.2, 0.1], [0.4, 0.5, 0.4]), [0.4, 0.35, 0.25], 1e-15);
    // What is at its cap stays there; every other one has got the same share of its room.
    fc.assert(
      fc.property(capped, ({ alpha, caps }) => {
        fc.pre(sumOf(caps) > 1 + 1e-6);
        const out = spreadExcess(alpha, caps);
        const shares = Array.from(alpha, (weight, i) => [caps[i] - weight, out[i] - weight] as const).filter(
          ([room]) => room > 1e-3,
        );
        for (const [room, got] of shares) expectNear(got / room, shares[0][1] / shares[0][0], 1e-9, 1);
      }),
    );
  });

  test("caps that are all 0 are refused", () => {
    expect(errorOf(() => spreadExcess([0.5, 0.5], [0, 0])).message).toMatch(/^caps: they sum to 0/);
  });

  test("is right for thousands of domains, however many caps are exceeded", () => {
    const next = random(4);
    for (const k of [1000, 10_000])
      for (const spare of [1e-9, 0.1, 3]) {
        const alpha = normalise(Array.from({ length: k }, () => next() ** 8));
        const caps = normalise(Array.from({ length: k }, () => 0.1 + next())).map((c) => (1 + spare) * c);
        const out = spreadExcess(alpha, caps);
        expect(Math.abs(sumOf(out) - 1)).toBeLessThanOrEqual(1e-12);
        expect(alpha.some((weight, i) => weight > caps[i])).toBe(true);
        out.forEach((weight, i) => expect(weight).toBeLessThanOrEqual(caps[i] * (1 + 1e-12)));
      }
  });
});

test("numbers that cannot be weights, bounds or steps are refused, and lists of other lengths", () => {
  const half = [0.5, 0.5];
  const step = { eta: 1, direction: Float64Array.of(1, 2), among: null };
  const untyped = (call: (...given: never[]) => unknown, ...given: unknown[]): (() => unknown) => {
    return () => Reflect.apply(call, undefined, given);
  };
  const refused: [call: () => unknown, code: string, message: RegExp][] = [
    [untyped(mirrorStep, half, { ...step, eta: NaN }), "config", /^the step size η of the mirror step: NaN does not fit/],
    [untyped(mirrorStep, half, { ...step, eta: -1 }), "config", /^the step size η of the mirror step: -1 does not fit/],
    [untyped(mirrorStep, half, { ...step, direction: [1, 2, 3] }), "config", /has 3 numbers for 2 weights$/],
    [untyped(mirrorStep, half, { ...step, direction: [1] }), "config", /has 1 numbers for 2 weights$/],
    [untyped(mirrorStep, [NaN, 1], step), "numeric", /^the weights of the mirror step: NaN at 0; they are finite and ≥ 0$/],
    [untyped(mirrorStep, [1.5, -0.5], step), "numeric", /^the weights of the mirror step: -0.5 at 1/],
    [untyped(mirrorStep, half, { ...step, among: [true] }), "config", /^among: 1 values for 2 domains; give true or false for each, or null for all$/],
    [untyped(mirrorStep, half, { eta: 1, direction: [1, 2] }), "config", /^among: undefined for 2 domains/],
    [untyped(exponentiatedGradient, half, [1, 2], "1"), "config", /^the step size η of the mirror step: "1" does not fit/],
    [untyped(movingAverage, half, [1], 0.5), "config", /^movingAverage: next: 1 numbers for 2 weights$/],
    [untyped(movingAverage, half, [1, 0], 2), "config", /^movingAverage: beta: 2 does not fit/],
    [untyped(movingAverage, half, [1, NaN], 1), "numeric", /^movingAverage: next: NaN at 1/],
    [untyped(mixUniform, Float64Array.from(half), 2), "config", /^mixUniform: share: 2 does not fit/],
    [untyped(projectFloor, half, 0.6), "config", /^projectFloor: floor: 0.6 does not fit; it must be at least 0 and at most 0.5$/],
    [untyped(projectFloor, half, NaN), "config", /^projectFloor: floor: NaN/],
    [untyped(projectFloor, [NaN, 0.5], 0.1), "numeric", /^projectFloor: weights: NaN at 0/],
    [untyped(projectBounds, half, [0, 0], [1]), "config", /^projectBounds: 2 floors and 1 caps for 2 weights$/],
    [untyped(projectBounds, [NaN, 1], [0, 0], [1, 1]), "numeric", /^projectBounds: weights: NaN at 0/],
    [untyped(spreadExcess, half, [0.9]), "config", /^spreadExcess: caps: 1 numbers for 2 weights$/],
    [untyped(spreadExcess, [2, -1], [0.9, 0.9]), "numeric", /^spreadExcess: weights: -1 at 1/],
    [untyped(uniformWeights, 1.5), "config", /^uniformWeights: k: 1.5 does not fit/],
    [untyped(uniformWeights, -1), "config", /^uniformWeights: k: -1 does not fit/],
    [untyped(uniformWeights, "3"), "config", /^uniformWeights: k: "3" does not fit/],
    [untyped(entropy, [NaN, 1]), "numeric", /^entropy: weights: NaN at 0/],
    [untyped(klDivergence, half, [1]), "config", /^klDivergence: q: 1 numbers for 2 weights$/],
    [untyped(usualRepetitions, [100, 0], 1000), "config", /^usualRepetitions: sizes: 0 does not fit/],
    [untyped(usualRepetitions, [100], NaN), "config", /^usualRepetitions: tokens: NaN does not fit/],
    [untyped(usualRepetitions, [], 1), "config", /^usualRepetitions: sizes: a list does not fit/],
  ]; // prettier-ignore
  for (const [call, code, message] of refused)
    expect(call, String(message)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
});
