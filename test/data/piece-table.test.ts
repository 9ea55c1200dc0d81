/** The tables of byte-pair encoding against maps. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { NO_RANK, pairRanks, pieceTable } from "#dist/data/piece-table.js";

const idsAt = (records: Uint32Array, at: number): number[] => [
  ...records.subarray(at + 2, at + 2 + records[at]),
];

test("a table of pieces holds what was added, each under its own characters, until it is full and begins anew", () => {
  // Few letters and lengths, so that pieces begin alike and come again.
  const piece = fc.string({ unit: fc.constantFrom("a", "b", "é", "日"), minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 2500, size: "max" }),
      fc.constantFrom(8, 1024, 1 << 17),
      (pieces, most) => {
        const table = pieceTable(most);
        const expected = new Map<string, number[]>();
        pieces.forEach((text, i) => {
          const units = Uint16Array.from(`x${text}y`, (letter) => letter.charCodeAt(0));
          const at = table.find(units, 1, units.length - 1);
          const known = expected.get(text);
          const found = at < 0 ? undefined : idsAt(table.records, at);
          // Only what differs is worth a call of expect.
          if (found?.join() !== known?.join()) expect(found).toEqual(known);
          if (known !== undefined) return;
          if (expected.size === most) expected.clear();
          const ids = Array.from({ length: i % 5 }, (_, j) => i + j);
          expected.set(text, ids);
          table.add(units, 1, units.length - 1, Uint32Array.from(ids));
        });
      },
    ),
    { numRuns: 30 },
  );
});

test("ids that were returned do not change when the table begins anew", () => {
  const table = pieceTable(1);
  const units = Uint16Array.of(1, 2);
  table.find(units, 0, 1);
  table.add(units, 0, 1, Uint32Array.of(5));
  const { records } = table;
  table.find(units, 1, 2);
  table.add(units, 1, 2, Uint32Array.of(6));
  expect(idsAt(records, 0)).toEqual([5]);
});

test("the rank of a pair is its last one in the list", () => {
  const id = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 2 ** 26 - 1 }));
  fc.assert(
    fc.property(fc.array(fc.record({ left: id, right: id }), { maxLength: 200 }), id, id, (merges, a, b) => {
      const expected = new Map(merges.map(({ left, right }, rank) => [`${left} ${right}`, rank]));
      const rankOf = pairRanks(merges);
      for (const { left, right } of [...merges, { left: a, right: b }, { left: b, right: a }])
        expect(rankOf(left, right)).toBe(expected.get(`${left} ${right}`) ?? NO_RANK);
    }),
  );
});
