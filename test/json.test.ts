/** The reader of hand-written JSON: the values of JSON.parse, in the order of the text, with no member dropped. */
import { formatJson, type Json, jsonLine, type JsonPath, parseJson, plainJson } from "#dist/json.js";
import { GradmixError } from "gradmix";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

const read = (text: string): Json => parseJson(text, { source: "c.json" });

function messageOf(text: string): string {
  try {
    read(text);
  } catch (error) {
    if (error instanceof GradmixError) return error.message;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** Names of all objects, from the outside in, in order. */
function namesIn(value: unknown): string[] {
  const members = value instanceof Map ? [...(value as Map<string, unknown>)] : [];
  const items = Array.isArray(value) ? (value as unknown[]) : members.map(([, member]) => member);
  return [...members.map(([name]) => name), ...items.flatMap(namesIn)];
}

const scalars = fc.oneof(fc.string(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean());
const keys = fc.oneof(fc.string().map((s) => s.normalize()), fc.nat(30).map(String), fc.constantFrom("__proto__", "constructor", "")); // prettier-ignore
/** Plain data whose objects are Maps. */
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.oneof(scalars, fc.constant(null)),
    fc.array(tie("tree"), { maxLength: 4 }),
    fc
      .uniqueArray(fc.tuple(keys, tie("tree")), { maxLength: 5, selector: ([key]) => key })
      .map((entries) => new Map(entries)),
  ),
}));

/** All numbers in a value. */
function numbersIn(value: unknown): number[] {
  if (typeof value === "number") return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(numbersIn) : [];
}

describe("the reader", () => {
  test("returns what was written, with every name in its place, in any layout", () => {
    fc.assert(
      fc.property(
        tree,
        fc.constantFrom(0, 2),
        fc.constantFrom("", "\uFEFF", " \r\n\t"),
        (value, indent, mark) => {
          const found = read(mark + formatJson(value, indent));
          expect(namesIn(found)).toEqual(namesIn(value));
          // JSON.parse is the judge of the values; -0 is kept by neither writer.
          expect(plainJson(found)).toEqual(JSON.parse(formatJson(value)));
        },
      ),
    );
  });

  test("a number that would become another one is refused where it is", () => {
    expect(messageOf('{"seed":\n 9007199254740993}')).toBe(
      "c.json, line 2, column 2: 9007199254740993 would become 9007199254740992, because numbers have about 16 digits; write one with fewer",
    );
    expect(messageOf("[-1e400]")).toBe("c.json, line 1, column 2: -1e400 is too large for a number");
    expect(
      read("[9007199254740992, 1e22, 123456789012345680000, 0.1000000000000000055, -0, 1e-400]"),
    ).toEqual([2 ** 53, 1e22, 123456789012345680000, 0.1, -0, 0]);
  });

  test("plain data is written as by JSON.stringify, but keeps the sign of zeros", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(0, 2, 3), (value, indent) => {
        const text = formatJson(value, indent);
        expect(JSON.parse(text)).toEqual(value);
        const unsigned: unknown = JSON.parse(text, (_, member: unknown) => (member === 0 ? 0 : member));
        expect(formatJson(unsigned, indent)).toBe(JSON.stringify(value, null, indent));
      }),
    );
    expect(formatJson([-0, { a: -0 }])).toBe('[-0,{"a":-0}]');
  });

  test("accepts exactly what JSON.parse accepts, except for repeated names and numbers that would become others", () => {
    const pieces = ["{", "}", "[", "]", ",", ":", '"a"', '"\\u0062"', '"\\x"', '"\t"', "1", "-0.5e1", "+1", "1.", "null", "nul", "\n", " ", "01", "x", '"', "\u00a0", "\u2028", "\v", "//"]; // prettier-ignore
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...pieces), { maxLength: 9 }),
        fc.constantFrom("", '{"a":', "["),
        (parts, start) => {
          const text = start + parts.join("");
          let parsed: unknown;
          try {
            parsed = JSON.parse(text);
          } catch {
            expect(messageOf(text)).toMatch(/^c\.json, line \d+, column \d+: [^\n]*$/);
            return;
          }
          let found: unknown;
          try {
            found = plainJson(read(text));
          } catch {
            const message = messageOf(text);
            if (
              / is too large for a number$|, because numbers have about 16 digits; write one with fewer$/.test(
                message,
              )
            )
              expect(numbersIn(parsed).every(Number.isSafeInteger)).toBe(false);
            else expect(message).toMatch(/the name "[ab]" appears twice in one object$/);
            return;
          }
          expect(found).toEqual(parsed);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test.each([
    ['{\n "model": {\n  "dim": }\n}', 'line 3, column 10: a value expected, not "}"'],
    ["", "line 1, column 1: a value expected, not the end"],
    ["\uFEFFx", 'line 1, column 1: a value expected, not "x"'],
    ["[1,\n2", 'line 2, column 2: "," or "]" expected, not the end'],
    ['{"a": 1}\n {"b": 2}', 'line 2, column 2: the end expected, not "{"'],
    ['{"a": 1, // no\n"b": 2}', 'line 1, column 10: a name in quotes expected, not "//"'],
    ['{"a": 1,\n   "b": {},\n   "a": 2}', 'line 3, column 4: the name "a" appears twice in one object'],
    ['{"caf\u00e9": 1, "cafe\u0301": 2}', 'line 1, column 13: the name "café" appears twice in one object'],
    ['["\\u12"]', 'line 1, column 2: "\\u12" has an escape that JSON does not know'],
    [
      '["a\nb"]',
      "line 1, column 2: a string that is not closed, or has a line break or another control character",
    ],
    ["[".repeat(200), "line 1, column 101: it is nested more than 100 levels deep"],
  ])("%j: %s", (text, message) => {
    expect(messageOf(text)).toBe(`c.json, ${message}`);
  });

  test("finds the line of every value", () => {
    const paths = (value: unknown, at: JsonPath = []): JsonPath[] => [
      at,
      ...(value instanceof Map
        ? [...(value as Map<string, unknown>)].flatMap(([name, member]) => paths(member, [...at, name]))
        : Array.isArray(value)
          ? value.flatMap((item, i) => paths(item, [...at, i]))
          : []),
    ];
    fc.assert(
      fc.property(tree, (value) => {
        const text = formatJson(value, 1);
        const all = paths(value);
        // With an indent, every value begins on its own line, in the order of the paths; closing brackets have their own lines.
        const starts = text.split("\n").flatMap((line, i) => (/^ *[\]}]/.test(line) ? [] : [i + 1]));
        expect(all.map((path) => jsonLine(text, path))).toEqual(starts);
      }),
    );
  });
});
