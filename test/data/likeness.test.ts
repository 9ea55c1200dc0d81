/** Parts of domains by how much they resemble a target, against a slow oracle of the same formula. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { divideByLikeness, type TokenStream } from "gradmix/data";
import { likenessTo, partsByScore, partsIn } from "#dist/data/likeness.js";

const stream = (documents: readonly (readonly number[])[]): TokenStream => {
  const starts = [0];
  for (const document of documents) starts.push(starts.at(-1)! + document.length);
  return { tokens: Uint16Array.from(documents.flat()), documents: Float64Array.from(starts) };
};

const document = fc.array(fc.nat({ max: 6 }), { minLength: 1, maxLength: 12 });
const text = fc.array(document, { minLength: 1, maxLength: 6 });

/** The mean of ln p_target(b | a) − ln p_all(b | a) of a document, with the smoothing of the histogram. */
function oracle(
  target: readonly number[],
  domains: readonly (readonly number[])[],
  of: readonly number[],
): number {
  const count = (
    parts: readonly (readonly number[])[],
    hit: (part: readonly number[], t: number) => boolean,
  ): number => parts.reduce((sum, part) => sum + part.filter((_, t) => hit(part, t)).length, 0);
  const tokens = count(domains, () => true);
  const p = (parts: readonly (readonly number[])[], a: number, b: number): number => {
    const total = count(parts, () => true);
    const background = 5e-6 + count(domains, (part, t) => part[t] === b) / tokens;
    const single = (count(parts, (part, t) => part[t] === b) + 1500 * background) / (total + 1500);
    const both = count(parts, (part, t) => t > 0 && part[t - 1] === a && part[t] === b);
    return (both + 20 * single) / (count(parts, (part, t) => part[t] === a) + 20);
  };
  if (of.length < 2) return 0;
  const sum = of
    .slice(1)
    .reduce((total, b, t) => total + Math.log(p([target], of[t], b) / p(domains, of[t], b)), 0);
  return sum / (of.length - 1);
}

test("the score of a text is the mean log-ratio of the target's bigrams and those of all domains, also for tokens in neither", () => {
  const domains = fc.array(text, { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(text, domains, fc.array(fc.nat({ max: 9 }), { maxLength: 12 }), (target, all, of) => {
      const wanted = oracle(
        target.flat(),
        all.map((one) => one.flat()),
        of,
      );
      expect(likenessTo(stream(target), all.map(stream))(of)).toBeCloseTo(wanted, 10);
    }),
    { numRuns: 50 },
  );
});

describe("parts", () => {
  const documents = fc.array(
    fc.record({ score: fc.integer({ min: -3, max: 3 }), size: fc.integer({ min: 1, max: 50 }) }),
    { maxLength: 40 },
  );
  test("are numbered without gaps, by falling score, and are of about equal size", () => {
    fc.assert(
      fc.property(documents, fc.integer({ min: 1, max: 8 }), (all, parts) => {
        const ids = partsByScore(
          all.map(({ score }) => score),
          all.map(({ size }) => size),
          parts,
        );
        const k = partsIn(ids);
        expect(k).toBeLessThanOrEqual(Math.min(parts, all.length));
        const total = all.reduce((sum, { size }) => sum + size, 0);
        const largest = all.reduce((most, { size }) => Math.max(most, size), 0);
        const of = (part: number) => all.filter((_, d) => ids[d] === part);
        for (let part = 0; part < k; part++) {
          const own = of(part);
          expect(own.length).toBeGreaterThan(0);
          const size = own.reduce((sum, one) => sum + one.size, 0);
          // Each end of a part is at most half a document away from its place.
          expect(size).toBeLessThanOrEqual(total / parts + largest);
          if (part > 0)
            expect(Math.max(...own.map(({ score }) => score))).toBeLessThanOrEqual(
              Math.min(...of(part - 1).map(({ score }) => score)),
            );
        }
        if (all.length > 0 && largest * parts <= total) expect(k).toBe(parts);
      }),
    );
  });

  test("of a stream hold each of its documents once, in their order", () => {
    const domains = fc.array(text, { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(text, domains, fc.integer({ min: 1, max: 5 }), (target, all, parts) => {
        const divided = divideByLikeness(stream(target), all.map(stream), { parts });
        const score = likenessTo(stream(target), all.map(stream));
        const found = divided.map((own) =>
          own.map(({ tokens, documents: starts }) =>
            Array.from({ length: starts.length - 1 }, (_, d) =>
              Array.from(tokens.subarray(starts[d], starts[d + 1])),
            ),
          ),
        );
        const wanted = all.map((own) => {
          const sizes = own.map(({ length }) => length);
          const ids = partsByScore(own.map(score), sizes, parts);
          return Array.from({ length: partsIn(ids) }, (_, part) =>
            own.filter((_document, d) => ids[d] === part),
          );
        });
        expect(found).toEqual(wanted);
      }),
      { numRuns: 20 },
    );
  });
});

test("the part that resembles the target is the first", () => {
  const like = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3];
  const unlike = [4, 5, 6, 4, 5, 6, 4, 5, 6, 4, 5, 6];
  const [parts] = divideByLikeness(stream([like]), [stream([unlike, like, unlike, like])], { parts: 2 });
  expect(parts.map(({ tokens }) => Array.from(tokens))).toEqual([
    [...like, ...like],
    [...unlike, ...unlike],
  ]);
});

test("ids above 2^16 stay whole", () => {
  const wide: TokenStream = {
    tokens: Uint32Array.of(70_000, 1, 70_000, 2),
    documents: Float64Array.of(0, 2, 4),
  };
  const parts = divideByLikeness(wide, [wide], { parts: 2 }).flat();
  expect(parts.flatMap(({ tokens }) => Array.from(tokens)).sort((a, b) => a - b)).toEqual([
    1, 2, 70_000, 70_000,
  ]);
});

test.each([
  [() => divideByLikeness(stream([]), [stream([[1]])]), "divideByLikeness: target: it has no tokens"],
  [() => divideByLikeness(stream([[1]]), [stream([])]), "divideByLikeness: domains: 0: it has no tokens"],
  [() => divideByLikeness(stream([[1]]), [stream([[1]])], { parts: 0 }), /parts/],
])("refuses in one line (%#)", (run, message) => {
  expect(run).toThrow(message);
});
