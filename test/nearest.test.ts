import { nearest } from "#dist/nearest.js";
import fc from "fast-check";
import { expect, test } from "vitest";

const flags = ["--lr", "--layers", "--eta", "--beta", "--batch", "--update-every", "--quiet"];

test("finds the flag that was meant", () => {
  expect(nearest("--lrr", flags)).toBe("--lr");
  expect(nearest("--layer", flags)).toBe("--layers");
  expect(nearest("--updateEvery", flags)).toBe("--update-every");
  expect(nearest("--abtch", flags)).toBe("--batch");
  expect(nearest("--update", flags)).toBe("--update-every");
});

test("returns null if no word is near", () => {
  expect(nearest("--zzzzzz", flags)).toBeNull();
  expect(nearest("x", [])).toBeNull();
  // One letter in place of another is another word.
  expect(nearest("c", ["a", "b"])).toBeNull();
  expect(nearest("A", ["b", "a"])).toBe("a");
  expect(nearest("ab", ["b", "cb"])).toBe("b");
});

test("returns a known word for itself, and finds a long word with one typing mistake", () => {
  fc.assert(
    fc.property(fc.constantFrom(...flags), (flag) => {
      expect(nearest(flag, flags)).toBe(flag);
    }),
  );
  const long = ["updateEvery", "checkpointEvery", "evalTokens", "skipBadLines"];
  fc.assert(
    fc.property(fc.constantFrom(...long), fc.nat(30), fc.constantFrom("", "q", "qx"), (word, at, insert) => {
      const i = at % word.length;
      expect(nearest(word.slice(0, i) + insert + word.slice(i + 1), long)).toBe(word);
    }),
  );
});
