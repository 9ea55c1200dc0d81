/** Alias tables: their exact probabilities, and the sampler that uses them. */
import fc from "fast-check";
import { aliasTable, createSampler, cumulativeTable } from "gradmix/data";
import { describe, expect, test } from "vitest";
import { random } from "../dga/arbitraries.ts";

/** On the simplex, some 0, over up to 60 powers of ten. */
const weights = fc
  .array(
    fc.oneof(
      { weight: 1, arbitrary: fc.constant(0) },
      { weight: 2, arbitrary: fc.double({ min: -60, max: 0, noNaN: true }).map((e) => 10 ** e) },
      { weight: 3, arbitrary: fc.double({ min: 0.1, max: 1, noNaN: true }) },
    ),
    { minLength: 1, maxLength: 40 },
  )
  .filter((values) => values.some((value) => value > 0))
  .map((values) => {
    const sum = values.reduce((a, b) => a + b, 0);
    return values.map((value) => value / sum);
  });

/** The length of the part of [0, 1) on which each index is drawn, found by halving in every column of the table. */
function measured(table: { size: number; at(u: number): number }): Float64Array {
  const k = table.size;
  const out = new Float64Array(k);
  for (let column = 0; column < k; column++) {
    const first = table.at(column / k + 1e-13);
    let [low, high] = [column / k + 1e-13, (column + 1) / k - 1e-13];
    const last = table.at(high);
    if (first === last) {
      out[first] += 1 / k;
      continue;
    }
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (table.at(middle) === first) low = middle;
      else high = middle;
    }
    out[first] += low - column / k;
    out[last] += (column + 1) / k - low;
  }
  return out;
}

describe("the alias table", () => {
  test("maps to every index a part of [0, 1) whose length is its weight", () => {
    fc.assert(
      fc.property(weights, (alpha) => {
        const lengths = measured(aliasTable(alpha));
        alpha.forEach((weight, i) => expect(Math.abs(lengths[i] - weight)).toBeLessThan(1e-9));
      }),
    );
  });

  test("never draws an index with weight 0, and always draws a valid index", () => {
    fc.assert(
      fc.property(
        weights,
        fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 50 }),
        (alpha, us) => {
          const tables = [aliasTable(alpha), cumulativeTable(alpha)];
          const edges = alpha.flatMap((_, i) => [i / alpha.length, (i + 1 - 1e-15) / alpha.length]);
          for (const u of [...us, ...edges, 0, 1 - 2 ** -53])
            for (const table of tables) expect(alpha[table.at(Math.min(u, 1 - 2 ** -53))]).toBeGreaterThan(0);
        },
      ),
    );
  });

  test("frequencies at k = 262,144 follow the weights", () => {
    const k = 2 ** 18;
    const next = random(5);
    const raw = Float64Array.from({ length: k }, () => next() ** 6);
    const sum = raw.reduce((a, b) => a + b, 0);
    const table = aliasTable(raw.map((value) => value / sum));
    // 64 groups of domains, by index modulo 64: χ² with 63 degrees of freedom.
    const expected = new Float64Array(64);
    raw.forEach((value, i) => (expected[i % 64] += value / sum));
    const hits = new Float64Array(64);
    const n = 400_000;
    for (let j = 0; j < n; j++) hits[table.at(next()) % 64]++;
    const chiSquare = hits.reduce(
      (total, hit, g) => total + (hit - n * expected[g]) ** 2 / (n * expected[g]),
      0,
    );
    // 99.9 % quantile.
    expect(chiSquare).toBeLessThan(103.4);
  });

  test("refuses invalid weights, and names the index", () => {
    expect(() => aliasTable([0.5, -0.5, 1])).toThrow(/weights: 1 has -0\.5; weights are finite and ≥ 0/);
    expect(() => aliasTable([0.5, NaN], (i) => `"d${i}"`)).toThrow(/weights: "d1" has NaN/);
    expect(() => aliasTable([0.5, 0.4])).toThrow(/sum to 0\.9, not to 1/);
    expect(() => aliasTable([])).toThrow(/sum to 0, not to 1/);
  });
});

describe("the sampler with prepared weights", () => {
  const domainsOf = (k: number) =>
    Array.from({ length: k }, (_, i) => ({ name: `d${i}`, count: 3 + (i % 5), tokensOf: () => 7 }));

  test.each([
    ["few domains", 5, "multinomial"],
    ["few domains", 5, "systematic"],
    ["many domains", 5000, "multinomial"],
    ["many domains", 5000, "systematic"],
  ] as const)("draws the same as without preparation: %s (%i, %s)", (_, k, mode) => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (seed) => {
        const next = random(seed);
        const raw = Array.from({ length: k }, () => (next() < 0.2 ? 0 : next()));
        raw[0] = 1;
        const sum = raw.reduce((a, b) => a + b, 0);
        const alpha = raw.map((value) => value / sum);
        const [a, b, c] = [1, 2, 3].map(() => createSampler({ domains: domainsOf(k), seed, mode }));
        const prepared = a.prepare(alpha);
        const expected = [a.draw(prepared, 9), a.draw(prepared, 9)];
        expect([b.draw(alpha, 9), b.draw(Float64Array.from(alpha), 9)]).toEqual(expected);
        // Stopped between the two, and prepared anew.
        c.draw(alpha, 9);
        const saved: unknown = JSON.parse(JSON.stringify(c.state()));
        c.drawFrom(0, 2);
        c.restore(saved);
        expect(c.draw(c.prepare(alpha), 9)).toEqual(expected[1]);
        for (const { domain } of expected.flat()) expect(alpha[domain]).toBeGreaterThan(0);
      }),
      { numRuns: 5 },
    );
  });

  test("refuses weights that were prepared for other domains", () => {
    const sampler = createSampler({ domains: domainsOf(3), seed: 1 });
    expect(() => sampler.draw(aliasTable([0.5, 0.5]), 1)).toThrow(/2 values for 3 domains/);
    expect(() => sampler.prepare([0.5, 0.5])).toThrow(/2 values for 3 domains/);
    expect(() => sampler.prepare([0.5, 0.6, -0.1])).toThrow(/"d2" has -0\.1/);
    expect(sampler.state().draws).toBe(0);
  });
});
