/** Streams and their windows at their shortest, and refusals. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  assembleBatch,
  evaluationWindows,
  splitStream,
  type TokenStream,
  tokenWriter,
  windowsOf,
} from "gradmix/data";
import { writeMegatron, writeNanoGPT } from "gradmix/node";
import { describe, expect, test } from "vitest";
import { commonTime } from "#dist/data/tokens.js";
import { codeOf, errorOf } from "../errors.ts";

const streamOf = (length: number) => ({
  tokens: Uint16Array.from({ length }, (_, i) => i),
  documents: Float64Array.of(0, length),
});

test("a single pair is a window for evaluation, and fewer tokens are none", () => {
  for (const length of [0, 1]) expect(evaluationWindows("e", streamOf(length), 4)).toBe(null);
  for (const length of [2, 4, 5, 6]) {
    const windows = evaluationWindows("e", streamOf(length), 4);
    expect(windows?.count).toBe(length < 6 ? 1 : 2);
    expect(windows?.tokensOf(0)).toBe(Math.min(4, length - 1));
    const { inputs, targets } = windows?.batchOf([0]) ?? {};
    expect([...(inputs ?? [])]).toEqual([0, 1, 2, 3].map((t) => (t < length - 1 ? t : 0)));
    expect([...(targets ?? [])]).toEqual([1, 2, 3, 4].map((t) => (t < length ? t : -1)));
  }
});

test("training needs a complete window; the last window is padded or dropped", () => {
  expect(codeOf(() => windowsOf("w", streamOf(4), 4))).toMatch(
    /^data: "w": 4 tokens are less than one window of 4 \+ 1/,
  );
  for (const [length, padded, dropped] of [
    [5, 1, 1],
    [6, 2, 1],
    [9, 2, 2],
    [10, 3, 2],
  ] as const) {
    expect(windowsOf("w", streamOf(length), 4).count).toBe(padded);
    expect(windowsOf("w", streamOf(length), 4, { partial: "drop" }).count).toBe(dropped);
  }
});

test("an invalid time, and unknown options, are refused", () => {
  for (const time of [0, -1, 0.5, NaN])
    for (const cut of [windowsOf, evaluationWindows])
      expect(codeOf(() => cut("w", streamOf(9), time))).toMatch(/^config: time: /);
  for (const options of [{ partial: "keep" }, { part: "pad" }])
    expect(codeOf(() => windowsOf("w", streamOf(9), 4, options as object))).toMatch(/^config: windowsOf: /);
});

test("a writer has a vocabulary, and an end of text within it", () => {
  const refused = (size: number, end: number) => codeOf(() => tokenWriter(size, end));
  for (const size of [0, 0.5, -1, 2 ** 32 + 1, NaN]) expect(refused(size, 0)).toMatch(/^config: vocabSize/);
  for (const end of [-1, 0.5, 7, NaN]) expect(refused(7, end)).toMatch(/^config: endOfText/);
  for (const [size, end] of [[1, 0], [7, 6], [2 ** 32, 2 ** 32 - 1]] as const) {
    const writer = tokenWriter(size, end);
    writer.document([0, size - 1]);
    expect([...writer.finish().tokens]).toEqual([0, size - 1, end]);
    for (const id of [-1, 0.5, size, NaN])
      expect(codeOf(() => writer.append([0, id]))).toMatch(/^data: token 1 is/);
    expect(writer.finish().tokens.length).toBe(0);
  }
}); // prettier-ignore

test("all windows of a batch have one length; sources that do not declare theirs are not checked", () => {
  expect(commonTime([])).toBe(0);
  expect(commonTime([{ name: "rows" }])).toBe(0);
  expect(commonTime([{ name: "rows" }, { name: "a", time: 3 }, { name: "b", time: 3 }])).toBe(3);
  expect(
    codeOf(() =>
      commonTime([
        { name: "a", time: 3 },
        { name: "b", time: 4 },
      ]),
    ),
  ).toMatch(/^data: "a" has windows of 3 tokens, "b" of 4/);
});

describe("a batch of windows", () => {
  const sources = [3, 3, 2].map((time, i) => windowsOf(`w${i}`, streamOf(8), time));
  const draw = (domain: number, window: number) => ({ domain, window, epoch: 0 });

  test("is empty without draws", () => {
    const none = new Int32Array(0);
    expect(assembleBatch([], sources)).toEqual({
      ...{ inputs: none, targets: none, tokens: none, domainOf: none, time: 0 },
    });
  });

  test("is in the order of the draws or, on request, in that of their domains", () => {
    const draws = [draw(1, 1), draw(0, 0), draw(1, 0)];
    expect(assembleBatch(draws, sources)).toEqual({
      inputs: Int32Array.of(3, 4, 5, 0, 1, 2, 0, 1, 2),
      targets: Int32Array.of(4, 5, 6, 1, 2, 3, 1, 2, 3),
      tokens: Int32Array.of(3, 3, 3),
      domainOf: Int32Array.of(1, 0, 1),
      time: 3,
    });
    const sorted = assembleBatch(draws, sources, { sortByDomain: true });
    expect([...sorted.domainOf]).toEqual([0, 1, 1]);
    expect([...sorted.inputs]).toEqual([0, 1, 2, 3, 4, 5, 0, 1, 2]);
  });

  test("is refused for draws or sources that do not fit", () => {
    const wrong = [[3, 0], [-1, 0], [0.5, 0], [0, 3], [0, -1], [0, 0.5], [NaN, 0], [0, NaN]] as const; // prettier-ignore
    for (const [domain, window] of wrong)
      for (const draws of [[draw(domain, window)], [draw(0, 0), draw(domain, window)]])
        expect(errorOf(() => assembleBatch(draws, sources))).toMatchObject({
          code: "config",
          message: `a batch: source ${domain} has no example ${window}`,
        });
    expect(codeOf(() => assembleBatch([draw(0, 0), draw(2, 0)], sources))).toMatch(
      /^data: "w0" has windows of 3 tokens, "w2" of 2/,
    );
    expect(codeOf(() => assembleBatch([], sources, { sortByDomian: true } as object))).toMatch(
      /^config: assembleBatch: there is no option "sortByDomian"/,
    );
    expect(codeOf(() => assembleBatch([], sources, { sortByDomain: 1 } as object))).toMatch(
      /^config: assembleBatch: sortByDomain: 1 does not fit/,
    );
  });
});

test("a stream that is cut keeps its documents, and a document across the cut is in both parts", () => {
  const documents = [0, 3, 4, 9, 12];
  const stream = { ...streamOf(12), documents: Float64Array.from(documents) };
  for (let at = 1; at < 12; at++) {
    const [head, tail] = splitStream(stream, at);
    expect([[...head.tokens], [...tail.tokens]]).toEqual([
      [...stream.tokens.slice(0, at)],
      [...stream.tokens.slice(at)],
    ]);
    const boundaries = new Set([...documents, at]);
    const within = (from: number, to: number): number[] =>
      [...boundaries].filter((b) => b >= from && b <= to).map((b) => b - from).sort((a, b) => a - b); // prettier-ignore
    expect([...head.documents]).toEqual(within(0, at));
    expect([...tail.documents]).toEqual(within(at, 12));
  }
  for (const at of [-1, 13, 0.5, NaN, undefined])
    expect(codeOf(() => splitStream(stream, at as number))).toMatch(/^config: splitStream: at: /);
});

test("tokens of another type are refused: their ids could be negative, which does not count as a target", () => {
  for (const tokens of [[1, 2, 3, 4], Int32Array.of(1, -2, 3, 4), Float32Array.of(1, 2, 3, 4), undefined])
    expect(codeOf(() => windowsOf("a", { ...streamOf(4), tokens: tokens as never }, 2))).toMatch(
      /^config: windowsOf: stream: /,
    );
  expect(codeOf(() => windowsOf("a", streamOf(4), 2))).toBe("no error");
});

test("documents that do not fit their stream are refused by all that takes one, and all others are taken", () => {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-streams-"));
  const takes = {
    windowsOf: (stream: TokenStream) => windowsOf("w", stream, 2),
    evaluationWindows: (stream: TokenStream) => evaluationWindows("w", stream, 2),
    splitStream: (stream: TokenStream) => splitStream(stream, 3),
    writeMegatron: (stream: TokenStream) => writeMegatron(join(folder, "m"), stream, { vocabSize: 9 }),
    writeNanoGPT: (stream: TokenStream) => writeNanoGPT(join(folder, "n.bin"), stream, { vocabSize: 9 }),
  };
  const fitting = fc
    .array(fc.nat(8), { maxLength: 5 })
    .map((inner) => [0, ...inner.sort((a, b) => a - b), 8]);
  const others = fc.array(fc.oneof(fc.nat(9), fc.constantFrom(-1, 0.5, NaN, Infinity, 1e9)), {
    maxLength: 6,
  });
  fc.assert(
    fc.property(fc.oneof(fitting, others), (documents) => {
      const tokens = Uint16Array.from({ length: 8 }, (_, i) => i);
      const stream = { tokens, documents: Float64Array.from(documents) };
      const fits =
        documents[0] === 0 &&
        documents.at(-1) === 8 &&
        documents.every((start, d) => Number.isInteger(start) && start >= (documents[d - 1] ?? 0));
      for (const [name, take] of Object.entries(takes)) {
        const refused = codeOf(() => take(stream));
        if (fits) expect(refused, name).toBe("no error");
        else expect(refused).toMatch(new RegExp(`^config: ${name}: stream: documents: `));
      }
    }),
  );
  rmSync(folder, { recursive: true });
});

test("what a writer makes is taken as a stream, also if its last document was not ended", () => {
  const step = fc.oneof(
    fc.array(fc.nat(7), { maxLength: 4 }).map((ids) => ["append", ids] as const),
    fc.array(fc.nat(7), { maxLength: 4 }).map((ids) => ["document", ids] as const),
    fc.constant(["end", []] as const),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
      const writer = tokenWriter(9, 8);
      for (const [name, ids] of steps) {
        if (name === "end") writer.end();
        else writer[name](ids);
      }
      const stream = writer.finish();
      expect(codeOf(() => evaluationWindows("w", stream, 4))).toBe("no error");
      const ended = stream.tokens.filter((id) => id === 8).length;
      const open = stream.tokens.length > 0 && stream.tokens.at(-1) !== 8;
      expect(stream.documents.length).toBe(1 + ended + (open ? 1 : 0));
    }),
  );
});

test("a window that does not exist has no number of tokens", () => {
  const windows = windowsOf("w", streamOf(10), 4);
  expect([0, 1, 2].map(windows.tokensOf)).toEqual([4, 4, 1]);
  for (const index of [-1, 3, 0.5, NaN])
    expect(codeOf(() => windows.tokensOf(index))).toBe(`data: "w": there is no window ${index}; it has 3`);
});

test("a corpus in place of its stream is refused, and told apart", () => {
  const corpus = { train: streamOf(12), heldOut: null };
  for (const [name, call] of Object.entries({
    windowsOf: () => windowsOf("a", corpus as never, 3),
    evaluationWindows: () => evaluationWindows("a", corpus as never, 3),
    splitStream: () => splitStream(corpus as never, 3),
  }))
    expect(codeOf(call)).toBe(`config: ${name}: stream: it is a corpus; pass its stream, corpus.train`);
});
