/** Batches and sources of tokens are checked against the model's vocabulary and context. */
import { createGPT, type TokenBatch } from "gradmix/nn";
import { tokenWriter, windowsOf } from "gradmix/data";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { checkTokens, tokenTensors } from "#dist/nn/token-batch.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { codeOf, errorOf } from "../errors.ts";

beforeEach(() => void setCurrentMemory(createReferenceBackend()));

const VOCABULARY = 7;
const batchOf = (inputs: number[], targets: number[], time: number, examples: number): TokenBatch => ({
  inputs: Int32Array.from(inputs),
  targets: Int32Array.from(targets),
  tokens: new Int32Array(examples).fill(time),
  time,
});

describe("a batch", () => {
  test("becomes tensors [examples, time] if all ids are in the vocabulary; otherwise the first invalid id is named", async () => {
    const rows = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.nat(3)).chain(([time, examples]) => {
      const ids = (min: number) =>
        fc.array(fc.integer({ min, max: VOCABULARY }), {
          minLength: time * examples,
          maxLength: time * examples,
        });
      return fc.record({ time: fc.constant(time), examples: fc.constant(examples), inputs: ids(-1), targets: ids(-3) }); // prettier-ignore
    });
    await fc.assert(
      fc.asyncProperty(rows, async ({ time, examples, inputs, targets }) => {
        const batch = batchOf(inputs, targets, time, examples);
        const input = inputs.findIndex((id) => id < 0 || id >= VOCABULARY);
        const target = targets.findIndex((id) => id >= VOCABULARY);
        const [field, ids, at] = input >= 0 ? ["inputs", inputs, input] : ["targets", targets, target];
        if (at >= 0) {
          expect(codeOf(() => tokenTensors(batch, VOCABULARY))).toBe(
            `data: gpt: ${field} hold token ${ids[at]}, at ${at}, which is not in the model's vocabulary of ${VOCABULARY}`,
          );
          return;
        }
        const found = tokenTensors(batch, VOCABULARY);
        for (const [t, want] of [
          [found.inputs, inputs],
          [found.targets, targets],
        ] as const) {
          expect([t.dtype, t.shape]).toEqual(["i32", [examples, time]]);
          expect([...(await t.data())]).toEqual(want);
        }
        expect(tokenTensors(found, VOCABULARY)).toBe(found);
      }),
    );
  });

  test.each<[string, Partial<TokenBatch>, string]>([
    ["a time of 0", { time: 0 }, "shape: gpt: 4 inputs are not windows of 0"],
    ["a negative time", { time: -2 }, "shape: gpt: 4 inputs are not windows of -2"],
    ["half a token", { time: 0.5 }, "shape: gpt: 4 inputs are not windows of 0.5"],
    ["windows that do not come out", { time: 3 }, "shape: gpt: 4 inputs are not windows of 3"],
    [
      "targets that are missing",
      { targets: new Int32Array(3) },
      "shape: gpt: 3 targets and 2 counts of tokens for 2 windows of 2",
    ],
    ["a count too many", { tokens: [1, 1, 1] }, "shape: gpt: 4 targets and 3 counts of tokens for 2 windows of 2"],
  ])("with %s is refused", (_, change, message) => {
    const batch = { ...batchOf([1, 2, 3, 4], [2, 3, 4, 5], 2, 2), ...change };
    expect(codeOf(() => tokenTensors(batch, VOCABULARY))).toBe(message);
  }); // prettier-ignore
});

describe("a source of windows", () => {
  const sourceOf = (tokens: readonly number[], time: number) => ({
    name: "s",
    count: Math.ceil((tokens.length - 1) / time),
    stream: { tokens: Int32Array.from(tokens) },
    time,
  });
  const model = { context: 3, vocabSize: VOCABULARY };

  test("is refused for an invalid token in the requested windows, which is named, but not for tokens elsewhere", () => {
    const given = fc.record({
      tokens: fc.array(fc.integer({ min: 3, max: VOCABULARY }), { minLength: 2, maxLength: 12 }),
      time: fc.integer({ min: 1, max: 3 }),
      from: fc.nat(5),
      more: fc.nat(4),
    });
    fc.assert(
      fc.property(given, ({ tokens, time, from, more }) => {
        const source = sourceOf(tokens, time);
        const first = Math.min(from, source.count);
        const end = Math.min(first + more, source.count);
        // Inputs and targets of each window.
        const read = Array.from({ length: end - first }, (_, w) =>
          Array.from({ length: time + 1 }, (_, t) => (first + w) * time + t),
        ).flat();
        const bad = read.find((at) => at < tokens.length && tokens[at] >= VOCABULARY);
        const found = codeOf(() => checkTokens(source, model, first, end));
        if (bad !== undefined)
          expect(found).toBe(
            `data: "s": token ${tokens[bad]}, number ${bad} of its stream, is not in the model's vocabulary of ${VOCABULARY}; use the tokenizer that the model was made for`,
          );
        // No window has been asked for: only the token where the first would begin may be looked at.
        else if (first < end || tokens[first * time] < VOCABULARY) expect(found).toBe("no error");
      }),
    );
  });

  test("is checked up to its last token, unless it declares its largest token", () => {
    const tokens = new Array<number>(200_000).fill(3);
    tokens[199_999] = VOCABULARY;
    const source = sourceOf(tokens, 1);
    expect(codeOf(() => checkTokens(source, model, 0, source.count))).toContain(
      "number 199999 of its stream",
    );
    expect(codeOf(() => checkTokens(source, model, 0, source.count - 1))).toBe("no error");
    const saying = (largest: number) => ({ ...source, stream: { ...source.stream, largest } });
    expect(codeOf(() => checkTokens(saying(VOCABULARY - 1), model, 0, source.count))).toBe("no error");
    expect(codeOf(() => checkTokens(saying(VOCABULARY), model, 0, source.count))).toContain("number 199999");
  });

  test("may be as long as the context, and must have windows", () => {
    const long = sourceOf([1, 2, 3, 4, 5], 4);
    expect(codeOf(() => checkTokens(long, { ...model, context: 4 }, 0, 1))).toBe("no error");
    expect(codeOf(() => checkTokens(long, model, 0, 1))).toBe(
      `data: "s": windows of 4 tokens are longer than the model's context of 3`,
    );
    for (const none of [
      { ...sourceOf([1, 2], 1), count: 0 },
      { name: "s", count: 0 },
    ])
      expect(codeOf(() => checkTokens(none, model, 0, 0))).toBe('data: "s": it has no windows');
    expect(codeOf(() => checkTokens({ name: "s", count: 1 }, model, 0, 1))).toBe("no error");
  });

  test("is checked as a whole if only a part of it is used", () => {
    const source = sourceOf([1, 2, VOCABULARY, 4], 1);
    const part = { name: "s", count: 1, time: 1, of: source };
    expect(codeOf(() => checkTokens(part, model, 0, 1))).toContain("number 2 of its stream");
    const long = { name: "s", count: 1, time: 4, of: sourceOf([1, 2, 3, 4, 5], 4) };
    expect(codeOf(() => checkTokens(long, model, 0, 1))).toContain("longer than the model's context of 3");
    expect(codeOf(() => checkTokens({ ...part, of: sourceOf([1, 2], 1) }, model, 0, 1))).toBe("no error");
    expect(codeOf(() => checkTokens({ ...part, count: 0 }, model, 0, 0))).toContain("it has no windows");
  });

  test("that shows only its tokens or only its time is not checked", () => {
    const [tokens, time] = [{ name: "s", count: 1, stream: { tokens: [99] } }, { name: "s", count: 1, time: 99 }]; // prettier-ignore
    for (const source of [tokens, time])
      expect(codeOf(() => checkTokens(source, model, 0, 1))).toBe("no error");
  });

  test("is checked by the model, for all windows or for the given range", () => {
    const writer = tokenWriter(50, 49);
    writer.document([1, 2, 3, 4, 5, 48, 1, 2]);
    const windows = windowsOf("w", writer.finish(), 2);
    const gpt = createGPT({ vocabSize: 48, dim: 4, layers: 1, heads: 1, context: 2 });
    expect(codeOf(() => gpt.check(windows, 0, 2))).toBe("no error");
    for (const range of [[], [0], [0, 3], [2, 3]])
      expect(errorOf(() => gpt.check(windows, ...range)).message).toMatch(/^"w": token 48, number 5 of/);
    expect(errorOf(() => gpt.check(windows, 3)).message).toMatch(/token 49, number 8/);
    gpt.dispose();
  });
});
