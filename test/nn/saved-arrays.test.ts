/** Parts of a saved state: wanted arrays are returned, and everything else is refused by name. */
import { describe, expect, test } from "vitest";
import { arraysOf, checkpointFault, savedParts } from "#dist/nn/saved-arrays.js";
import { read } from "#dist/schema.js";
import { codeOf } from "../errors.ts";

describe("arrays", () => {
  const wanted = new Map([
    ["a", { size: 3 }],
    ["b", { size: 0 }],
  ]);
  const [a, b] = [Float32Array.of(1, -2, 0), new Float32Array(0)];

  test("are returned by name if they are expected, and no others", () => {
    expect(arraysOf({ b, a, c: "other" }, wanted)).toEqual(
      new Map([
        ["a", a],
        ["b", b],
      ]),
    );
  });

  test.each<[unknown, string]>([
    [undefined, "it has no a, which takes 3 values"],
    [null, "a is null, not a Float32Array"],
    [[1, 2, 3], "a is a list, not a Float32Array"],
    [new Float64Array(3), "a is Float64Array, not a Float32Array"],
    [new DataView(new ArrayBuffer(12)), "a is DataView, not a Float32Array"],
    [new Float32Array(2), "a has 2 values, the model has 3"],
    [new Float32Array(4), "a has 4 values, the model has 3"],
    [Float32Array.of(NaN, 1, Infinity), "a has NaN at 0"],
    [Float32Array.of(1, -Infinity, NaN), "a has -Infinity at 1"],
    [Float32Array.of(1, 2, NaN), "a has NaN at 2"],
  ])("%j is refused", (given, message) => {
    expect(codeOf(() => arraysOf({ a: given, b }, wanted))).toBe(`checkpoint: checkpoint: ${message}`);
  });
});

test("a saved part must be an object", () => {
  const saved = { json: { steps: 1 }, arrays: {} };
  expect(read(savedParts, { ...saved, other: 3 }, checkpointFault)).toEqual(saved);
  for (const bad of [undefined, null, 3, "x", []])
    for (const name of ["json", "arrays"])
      expect(codeOf(() => read(savedParts, { ...saved, [name]: bad }, checkpointFault))).toMatch(
        new RegExp(`^checkpoint: checkpoint: ${name} is .* an object$`),
      );
  for (const bad of [null, undefined, 3, "json", []])
    expect(codeOf(() => read(savedParts, bad, checkpointFault))).toMatch(
      /^checkpoint: checkpoint: is .* an object$/,
    );
});
