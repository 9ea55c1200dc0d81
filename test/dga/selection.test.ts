/** Which parameters are aligned: by name, the last blocks, or a share of the blocks; and where a backward pass over them ends. */
import { init, shutdown } from "gradmix";
import { lastBlocks } from "gradmix/dga";
import type { ParameterSpec } from "gradmix/nn";
import { afterAll, beforeAll, expect, test } from "vitest";
import { backwardShare, inBlockShare, selectedParameters } from "#dist/dga/selection.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { tiny } from "./languages.ts";

beforeAll(async () => void (await init({ backend: "cpu", threads: 1 })));
afterAll(shutdown);

test("the selected parameters are those that are named, or all by default", () => {
  const model = tiny(2);
  const names = [...model.parameters.byName.keys()];
  expect(selectedParameters(model)).toBe(model.parameters.list);
  expect(selectedParameters(model, {})).toBe(model.parameters.list);
  for (const name of names)
    expect(selectedParameters(model, { parameters: (one) => one === name })).toEqual([
      model.parameters.byName.get(name),
    ]);
  expect(codeOf(() => selectedParameters(model, { parameters: () => false }))).toBe(
    "config: parameters: the selection contains none of the model's parameters",
  );
});

/** Specs p0, p1, … of the given blocks and shapes. */
const specsOf = (
  blocks: readonly ParameterSpec["block"][],
  shapeOf: (i: number) => readonly number[] = () => [1],
): ParameterSpec[] =>
  blocks.map((block, i) => ({
    name: `p${i}`,
    shape: shapeOf(i),
    init: { kind: "constant", value: 0 },
    decay: false,
    ...(block === undefined ? {} : { block }),
  }));

test("the last blocks are those with the highest numbers, and include what comes after all blocks", () => {
  const blocks = [undefined, 0, 1, "after", 0, 2, 1, "after", undefined] as const;
  const named = { parameters: { specs: specsOf(blocks) } } as unknown as Parameters<typeof lastBlocks>[0];
  const of = (count: number): number[] => [...blocks.keys()].filter((i) => lastBlocks(named, count)(`p${i}`));
  expect([0, 1, 2, 3].map(of)).toEqual([
    [3, 7],
    [3, 5, 7],
    [2, 3, 5, 6, 7],
    [1, 2, 3, 4, 5, 6, 7],
  ]);
  for (const count of [-1, 4, 0.5, NaN])
    expect(codeOf(() => lastBlocks(named, count))).toBe(
      `config: lastBlocks: ${count} is not a number of blocks from 0 to 3`,
    );
});

test("a share of the blocks is rounded up, and selects all parameters if there would be no matrix", () => {
  const names = (specs: readonly ParameterSpec[], share: number): string[] | null => {
    const selected = inBlockShare(specs, share);
    return selected === null ? null : specs.flatMap(({ name }) => (selected(name) ? [name] : []));
  };
  const matrices = (): number[] => [2, 3];
  const three = specsOf([undefined, 0, 1, 2, "after"], matrices);
  const [head, last, upper] = [["p4"], ["p3", "p4"], ["p2", "p3", "p4"]];
  for (const [share, wanted] of [
    [0, head],
    [0.01, last],
    [1 / 3, last],
    [0.34, upper],
    [2 / 3, upper],
    [0.99, ["p1", ...upper]],
    [1, null],
  ] as const)
    expect(names(three, share), String(share)).toEqual(wanted);
  // Products of shares and counts that are whole, however they are rounded: s of n blocks, and the head.
  for (let n = 1; n < 60; n++)
    for (let s = 0; s < n; s++) {
      const specs = specsOf([...Array.from({ length: n }, (_, b) => b), "after"], matrices);
      expect(names(specs, s / n)).toHaveLength(s + 1);
    }
  for (const share of [0, 0.5]) expect(names(specsOf([undefined, undefined], matrices), share)).toBe(null);
  // A head that is tied to the embedding leaves the final norm alone.
  const tied = specsOf([undefined, 0, "after"], (i) => (i === 2 ? [3] : [2, 3]));
  expect(names(tied, 0)).toBe(null);
  expect(names(tied, 0.5)).toEqual(["p1", "p2"]);
});

test("a backward pass ends below the lowest selected parameter, and is counted by sizes", () => {
  const specs = specsOf([undefined, 0, 1, 1, "after"], (i) => [10 ** i]);
  const of = (...selected: string[]): number => backwardShare(specs, (name) => selected.includes(name));
  expectNear(of("p4"), 10_000 / 11_110, 1e-12);
  expectNear(of("p3"), 11_100 / 11_110, 1e-12);
  expectNear(of("p2", "p4"), 11_100 / 11_110, 1e-12);
  expect(of("p1")).toBe(1);
  expect(of("p0", "p4")).toBe(1);
  expect(backwardShare(specs)).toBe(1);
  expect(backwardShare([])).toBe(1);
  expect(backwardShare(specsOf([undefined]))).toBe(1);
});
