/** Batches of any kind: splitting undoes joining, and picking equals joining of split examples. */
import type { Examples } from "gradmix/nn";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkExamples, concatenate, cutExamples, pickExamples, tokenCount } from "#dist/nn/examples.js";
import { errorOf } from "../errors.ts";

const kinds = [
  Float32Array,
  Int32Array,
  Float64Array,
  Uint32Array,
  Int16Array,
  Uint16Array,
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
] as const;

type Batch = Examples & Record<string, unknown>;

/** Batches of one make: arrays of any kind and width, and what is the same for all examples. */
const alike: fc.Arbitrary<Batch[]> = fc
  .tuple(
    fc.array(fc.tuple(fc.constantFrom(...kinds), fc.integer({ min: 0, max: 3 })), { maxLength: 4 }),
    fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 5 }),
    fc.constantFrom(3, "word", true, null),
  )
  .map(([columns, counts, scalar]) => {
    let next = 0;
    return counts.map((count) => ({
      ...Object.fromEntries(
        columns.map(([Kind, width], c) => [
          `c${c}`,
          new Kind(Array.from({ length: count * width }, () => next++ % 120)),
        ]),
      ),
      scalar,
      tokens: Float64Array.from({ length: count }, () => next++),
    }));
  });

/** The examples of a batch, each as numbers. */
const rows = (batch: Batch): unknown[] =>
  Array.from({ length: batch.tokens.length }, (_, e) =>
    Object.entries(batch).map(([field, value]) => {
      if (!ArrayBuffer.isView(value)) return [field, value];
      const values = Array.from(value as Float32Array);
      const width = values.length / batch.tokens.length;
      return [field, values.slice(e * width, (e + 1) * width)];
    }),
  );

test("joined batches hold the examples of all, in order, in arrays of the same types", () => {
  fc.assert(
    fc.property(alike, (batches) => {
      const whole = concatenate(batches);
      expect(rows(whole)).toEqual(batches.flatMap(rows));
      expect(tokenCount(whole)).toBe(batches.reduce((sum, batch) => sum + tokenCount(batch), 0));
      for (const [field, value] of Object.entries(batches[0]))
        expect(Object.getPrototypeOf(whole[field] ?? 0)).toBe(Object.getPrototypeOf(value ?? 0));
      let first = 0;
      for (const batch of batches) {
        const end = first + batch.tokens.length;
        if (whole.tokens.length > 0) expect(rows(cutExamples(whole, first, end))).toEqual(rows(batch));
        first = end;
      }
    }),
  );
});

test("picked examples are those at the indices, in their order, as often as they occur", () => {
  fc.assert(
    fc.property(alike, fc.array(fc.nat(1000), { maxLength: 6 }), (batches, numbers) => {
      const whole = concatenate(batches);
      if (whole.tokens.length === 0) return;
      const indices = numbers.map((n) => n % whole.tokens.length);
      expect(rows(pickExamples(whole, indices))).toEqual(indices.map((i) => rows(whole)[i]));
    }),
  );
});

test("counts may be a list, also of lists and arrays", () => {
  const list = { tokens: [1, 2] };
  const array = { tokens: Int32Array.of(3) };
  expect(concatenate([list, list])).toEqual({ tokens: [1, 2, 1, 2] });
  expect(concatenate([array, array])).toEqual({ tokens: Int32Array.of(3, 3) });
  expect(concatenate<Examples>([list, array])).toEqual({ tokens: Float64Array.of(1, 2, 3) });
  expect(cutExamples(list, 1, 2)).toEqual({ tokens: [2] });
  expect(pickExamples(list, [1, 0, 1])).toEqual({ tokens: [2, 1, 2] });
});

describe("batches that do not go together are refused, and the field is named", () => {
  const batch = { x: Float32Array.of(1, 2, 3, 4), width: 2, tokens: [1, 1] };
  const cases: [string, object, RegExp][] = [
    ["another number", { width: 3 }, /^batches 0 and 1 do not go together: width is 2 in the one and 3 in/],
    ["another width", { x: new Float32Array(6) }, /together: x is 2 numbers per example in the one and 3 in/],
    ["another kind", { x: new Int32Array(4) }, /together: x is Float32Array in the one and Int32Array in/],
    ["another field", { y: new Int32Array(4) }, /together: y is undefined in the one and Int32Array in/],
    ["a missing field", { x: undefined }, /together: x is Float32Array in the one and undefined in/],
    [
      "rows that do not share out",
      { x: new Float32Array(5) },
      /^batch 1: 5 x cannot be divided evenly among the 2/,
    ],
  ];
  test.each(cases)("%s", (_, change, message) => {
    expect(errorOf(() => concatenate([batch, { ...batch, ...change }]))).toMatchObject({
      code: "shape",
      message: expect.stringMatching(message),
    });
  });

  test("batches that cannot be split", () => {
    for (const strange of [
      [1, 2],
      { a: 1 },
      () => 1,
      new BigInt64Array(2),
      new DataView(new ArrayBuffer(2)),
    ]) {
      const one = { ...batch, strange };
      for (const refused of [
        () => concatenate([one, one]),
        () => cutExamples(one, 0, 1),
        () => pickExamples(one, [0]),
      ])
        expect(errorOf(refused)).toMatchObject({
          code: "shape",
          message: expect.stringMatching(/^a batch's strange is .*; examples can be joined and cut where/),
        });
    }
  });

  test("an index beyond the examples", () => {
    for (const index of [-1, 2, 0.5, NaN])
      expect(errorOf(() => pickExamples(batch, [0, index]))).toMatchObject({
        code: "config",
        message: `there is no example ${index} in a batch of 2`,
      });
  });

  test("values that are not batches, and invalid counts", () => {
    expect(errorOf(() => concatenate([])).code).toBe("shape");
    for (const tokens of [
      [1, NaN],
      [1, -1],
      [1, Infinity],
      [1, 2.5],
    ])
      expect(errorOf(() => checkExamples("here", { tokens }))).toMatchObject({
        code: "data",
        message: expect.stringMatching(/^here: tokens of example 1 are/),
      });
    // A batch alone is what it is.
    const alone = { tokens: [1], tensor: { any: 1 } };
    expect(concatenate([alone])).toBe(alone);
  });
});
