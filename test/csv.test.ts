/** CSV is read back as it was written, whatever is in its fields. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { csvField, csvFields, csvText } from "#dist/csv.js";

const field = fc.string({ unit: fc.constantFrom("a", "é", " ", "\t", '"', ",", ";", "'"), maxLength: 6 });

test("the fields of a line are read back", () => {
  fc.assert(
    fc.property(fc.array(field, { minLength: 1, maxLength: 4 }), (fields) => {
      const text = csvText([fields]);
      expect(text.endsWith("\n")).toBe(true);
      expect(csvFields(text.slice(0, -1))).toEqual(fields);
    }),
  );
});

test.each([
  [" a , b ", ["a", "b"]],
  ['" a ","b,""c"""', [" a ", 'b,"c"']],
  [",", ["", ""]],
  ['"a', null],
  ['a"b', null],
  ['"a"b', null],
])("the fields of %j are %j", (line, fields) => {
  expect(csvFields(line)).toEqual(fields);
});

test("only fields that need quotes get them", () => {
  expect(["a b", "a,b", 'a"b', " a", "a\nb", "a\rb", ""].map(csvField)).toEqual(
    ["a b", '"a,b"', '"a""b"', '" a"', '"a\nb"', '"a\rb"', ""], // prettier-ignore
  );
});
