/** The first repeated name of a list, compared with the search of all pairs. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { firstRepeated } from "#dist/repeated.js";

test("the first name that has come before is found", () => {
  expect(firstRepeated([])).toBe(-1);
  expect(firstRepeated(["a", "b", "c", "b", "c"])).toBe(3);
  fc.assert(
    fc.property(fc.array(fc.constantFrom("a", "b", "c", "__proto__")), (names) => {
      expect(firstRepeated(names)).toBe(names.findIndex((name, i) => names.indexOf(name) < i));
    }),
  );
});
