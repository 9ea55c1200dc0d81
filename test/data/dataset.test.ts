/** Sources of examples: a batch contains the drawn examples, for every kind of source. */
import { type Dataset, createSampler, examplesOf, rowsOf, tokenWriter, windowsOf } from "gradmix/data";
import { assembleBatch } from "gradmix/data";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assemble } from "#dist/data/dataset.js";
import { codeOf, errorOf } from "../errors.ts";

const table = (rows: number, width: number, from = 0) => ({
  inputs: Float32Array.from({ length: rows * width }, (_, i) => from + i),
  width,
  targets: Int32Array.from({ length: rows }, (_, i) => from + i),
});

describe("rows of a table", () => {
  test("a batch has the rows of the table, and each row counts 1", () => {
    const rows = rowsOf("t", table(5, 3));
    expect(rows).toMatchObject({ name: "t", count: 5 });
    expect(rows.tokensOf(4)).toBe(1);
    expect(rows.batchOf([4, 0, 4])).toEqual({
      inputs: Float32Array.of(12, 13, 14, 0, 1, 2, 12, 13, 14),
      width: 3,
      targets: Int32Array.of(4, 0, 4),
      tokens: Float64Array.of(1, 1, 1),
    });
  });

  test("targets may be several numbers per row", () => {
    const rows = rowsOf("t", { inputs: new Float32Array(2), width: 1, targets: Float32Array.of(1, 2, 3, 4) });
    expect(rows.batchOf([1]).targets).toEqual(Float32Array.of(3, 4));
  });

  test("values that are not tables are refused by name", () => {
    for (const [change, code, message] of [
      [{ width: 2 }, "shape", '"t": 15 inputs are not rows of 2'],
      [{ width: 0 }, "config", "rowsOf: width: 0 does not fit; it must be an integer of at least 1"],
      [
        { targets: new Int32Array(4) },
        "shape",
        '"t": 4 targets cannot be divided evenly among the 5 examples in tokens',
      ],
      [{ inputs: new Float32Array(0), targets: new Int32Array(0) }, "data", '"t": it has no examples'],
    ] as const)
      expect(errorOf(() => rowsOf("t", { ...table(5, 3), ...change }))).toMatchObject({ code, message });
  });
});

test("any batch in memory can be a source of its examples, such as pairs of sequences", () => {
  const pairs = examplesOf("pairs", {
    chosen: Int32Array.of(1, 2, 3, 4),
    rejected: Int32Array.of(5, 6, 7, 8),
    time: 2,
    tokens: [2, 1],
  });
  expect(pairs.tokensOf(1)).toBe(1);
  for (const index of [2, -1, 0.5])
    expect(errorOf(() => pairs.tokensOf(index))).toMatchObject({
      code: "config",
      message: `"pairs": there is no example ${index}; it has 2`,
    });
  expect(pairs.batchOf([1])).toEqual({
    chosen: Int32Array.of(3, 4),
    rejected: Int32Array.of(7, 8),
    time: 2,
    tokens: [1],
  });
  expect(errorOf(() => examplesOf("x", { tokens: [1], list: [1] })).message).toMatch(
    /^a batch's list is a list/,
  );
});

describe("draws from several sources", () => {
  const sources = [3, 1, 4].map((rows, i) => rowsOf(`t${i}`, table(rows, 2, 100 * i)));

  test("give the single examples, in the order of the draws", () => {
    const draw = fc
      .nat(sources.length - 1)
      .chain((domain) =>
        fc.record({ domain: fc.constant(domain), window: fc.nat(sources[domain].count - 1) }),
      );
    fc.assert(
      fc.property(fc.array(draw, { minLength: 1, maxLength: 12 }), (drawn) => {
        const { targets, inputs, tokens } = assemble(
          drawn.map((one) => ({ ...one, epoch: 0 })),
          sources,
        );
        expect([...targets]).toEqual(drawn.map(({ domain, window }) => 100 * domain + window));
        expect([...inputs]).toEqual(
          drawn.flatMap(({ domain, window }) => [0, 1].map((c) => 100 * domain + 2 * window + c)),
        );
        expect(tokens.length).toBe(drawn.length);
      }),
    );
  });

  test("a source that returns another number of examples than requested is refused by name", () => {
    const short: Dataset<{ tokens: number[] }> = {
      name: "short",
      count: 9,
      tokensOf: () => 1,
      batchOf: () => ({ tokens: [1] }),
    };
    const draws = [1, 2].map((window) => ({ domain: 0, window, epoch: 0 }));
    expect(errorOf(() => assemble(draws, [short]))).toMatchObject({
      code: "shape",
      message: '"short": batchOf returned 1 examples, but 2 were requested',
    });
  });

  test("a source whose batch is none, or has other numbers of tokens than it says, is refused by name", () => {
    const source = (tokens: unknown): Dataset<{ tokens: number[] }> => ({
      name: "own",
      count: 9,
      tokensOf: (i) => i + 1,
      batchOf: () => tokens as { tokens: number[] },
    });
    const refused = (tokens: unknown): string =>
      codeOf(() =>
        assemble(
          [3, 4].map((window) => ({ domain: 0, window, epoch: 0 })),
          [source(tokens)],
        ),
      );
    expect(refused({ tokens: [4, 5] })).toBe("no error");
    // Numbers of single precision are enough.
    expect(refused({ tokens: Float32Array.of(4, 5) })).toBe("no error");
    expect(refused({ tokens: [4, 1] })).toBe(
      'data: "own": tokensOf(4) is 5, but batchOf gives the example 1 tokens; both must be the terms of its loss',
    );
    expect(refused({ tokens: [4, NaN] })).toMatch(/^data: "own": batchOf: tokens of example 1 are NaN/);
    expect(refused(Promise.reject(new Error("unread")))).toMatch(
      /^data: "own": batchOf: a promise is not a batch; batchOf is synchronous/,
    );
    for (const none of [undefined, null, [], { inputs: [1] }, { tokens: 2 }])
      expect(refused(none)).toMatch(
        /^data: "own": batchOf: .* is not a batch; a batch is an object with tokens/,
      );
  });

  test("windows of tokens are such a source, with the same batches as assembleBatch", () => {
    const writer = tokenWriter(50, 49);
    writer.document(Array.from({ length: 23 }, (_, i) => i));
    const windows = windowsOf("w", writer.finish(), 5);
    const draws = createSampler({ domains: [windows], seed: 2 }).draw([1], 7);
    const { domainOf, ...batch } = assembleBatch(draws, [windows]);
    expect([...domainOf]).toEqual(draws.map(() => 0));
    expect(windows.batchOf(draws.map(({ window }) => window))).toEqual(batch);
    expect([...batch.tokens]).toEqual(draws.map(({ window }) => windows.tokensOf(window)));
  });
});
