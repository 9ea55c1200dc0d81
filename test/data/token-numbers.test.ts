import fc from "fast-check";
import { expect, test } from "vitest";
import { createKeys, createTokenNumbers } from "#dist/data/token-numbers.js";

// Around the side of the table of pairs, the limit of tokens that are looked up directly, and the largest integers.
const integer = fc.oneof(
  fc.integer({ min: 0, max: 8 }),
  fc.integer({ min: 1022, max: 1025 }),
  fc.integer({ min: 2 ** 20 - 2, max: 2 ** 20 + 1 }),
  fc.integer({ min: 2 ** 31 - 3, max: 2 ** 31 - 1 }),
);

test("pairs are numbered as a Map numbers them, within the table and past it", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(integer, integer), { maxLength: 300 }),
      fc.tuple(integer, integer),
      (pairs, asked) => {
        const keys = createKeys();
        const map = new Map<string, number>();
        for (const [a, b] of pairs) {
          const key = `${a} ${b}`;
          expect(keys.get(a, b)).toBe(map.get(key) ?? -1);
          if (!map.has(key)) map.set(key, map.size);
          expect(keys.add(a, b)).toBe(map.get(key));
        }
        expect(keys.size).toBe(map.size);
        expect(keys.get(...asked)).toBe(map.get(asked.join(" ")) ?? -1);
        const listed = new Map<string, number>();
        keys.forEach((a, b, number) => listed.set(`${a} ${b}`, number));
        expect(listed).toEqual(map);
      },
    ),
  );
});

test("many pairs past the table keep their numbers while it grows", () => {
  const keys = createKeys();
  for (let i = 0; i < 5000; i++) expect(keys.add(2000 + (i % 71), i * 7)).toBe(i);
  for (let i = 0; i < 5000; i++) expect(keys.get(2000 + (i % 71), i * 7)).toBe(i);
});

test("tokens are numbered as a Map numbers them", () => {
  fc.assert(
    fc.property(fc.array(integer, { maxLength: 300 }), (tokens) => {
      const numbers = createTokenNumbers();
      const map = new Map<number, number>();
      for (const token of tokens) {
        expect(numbers.get(token)).toBe(map.get(token) ?? -1);
        if (!map.has(token)) map.set(token, map.size);
        expect(numbers.add(token)).toBe(map.get(token));
      }
      expect(numbers.size).toBe(map.size);
    }),
  );
});
