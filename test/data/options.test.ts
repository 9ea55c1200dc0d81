/** Options of the data functions: misspelt names and invalid values are refused, naming the option. */
import fc from "fast-check";
import { GradmixError } from "gradmix";
import {
  buildCorpus,
  byteTokenizer,
  createSampler,
  evaluationWindows,
  listFiles,
  readDocuments,
  readWindow,
  type TokenStream,
  tokenWriter,
  trainBpe,
  windowsOf,
} from "gradmix/data";
import { describe, expect, test } from "vitest";

const tokenizer = byteTokenizer();
const stream: TokenStream = (() => {
  const writer = tokenWriter(257, 256);
  writer.document([1, 2, 3, 4, 5, 6, 7]);
  return writer.finish();
})();
const domains = [{ name: "d", count: 3, tokensOf: () => 1 }];

/** Each function with options that fit, and for each of them values that do not. */
const functions: Record<
  string,
  { call(options: object): unknown; good: Record<string, unknown>; bad: Record<string, readonly unknown[]> }
> = {
  readDocuments: {
    call: async (options) => readDocuments([], options).next(),
    good: { textField: "text", skipBadLines: true, onSkip: () => {} },
    bad: { textField: [1, null], skipBadLines: ["yes", 1], onSkip: ["log", {}] },
  },
  listFiles: {
    call: async (options) => listFiles([import.meta.filename], options),
    good: {
      what: "files",
      exclude: new Set(),
      passOver: () => new Set(),
      skipUnreadable: true,
      onLeftOut: () => {},
    },
    bad: { what: [1], exclude: [[], "a"], passOver: ["a"], skipUnreadable: [1], onLeftOut: [true] },
  },
  trainBpe: {
    call: async (options) => trainBpe(["some text"], options as { vocabSize: number }),
    good: { vocabSize: 260, onProgress: () => {} },
    bad: { vocabSize: [256, 1_000_001, 300.5, "300", NaN], onProgress: [true], signal: [{ aborted: false }] },
  },
  buildCorpus: {
    call: async (options) =>
      buildCorpus("d", [{ text: "text" }], tokenizer, options as { heldOut: number; seed: number }),
    good: { heldOut: 0.1, seed: 1 },
    bad: { heldOut: [-0.1, 1, NaN, "0.1"], seed: [-1, 0.5, 2 ** 53, "1"] },
  },
  windowsOf: {
    call: (options) => windowsOf("d", stream, 2, options),
    good: { partial: "drop" },
    bad: { partial: ["keep", true] },
  },
  createSampler: {
    call: (options) => createSampler(options as { domains: typeof domains; seed: number }),
    good: { domains, seed: 1, mode: "systematic" },
    bad: { domains: [{}, "d"], seed: [-1, 0.5, 2 ** 53], mode: ["random", "Systematic "] },
  },
};

/** Returns the error that a call throws, or with which its promise is rejected. */
async function errorOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return null;
  } catch (error) {
    return error;
  }
}

describe.each(Object.entries(functions))("%s", (name, { call, good, bad }) => {
  test("takes what fits", async () => {
    expect(await errorOf(() => call(good))).toBeNull();
  });

  test("refuses names that it does not know, with the nearest one", async () => {
    for (const key of Object.keys(good)) {
      const misspelt = `${key.slice(0, -1)}x`;
      const error = await errorOf(() => call({ ...good, [misspelt]: 1 }));
      expect(error).toBeInstanceOf(GradmixError);
      expect(error).toMatchObject({
        code: "config",
        message: `${name}: there is no option "${misspelt}"; did you mean "${key}"?`,
      });
    }
    await fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1 }), async (key) => {
        fc.pre(!(key in good) && !(key in bad));
        expect(await errorOf(() => call({ ...good, [key]: 1 }))).toMatchObject({ code: "config" });
      }),
      { numRuns: 20 },
    );
  });

  test("refuses values that do not fit, naming the option", async () => {
    for (const [key, values] of Object.entries(bad))
      for (const value of values) {
        const error = await errorOf(() => call({ ...good, [key]: value }));
        expect([key, value, error]).toMatchObject([key, value, { code: "config" }]);
        expect(String(error)).toContain(`${name}: ${key}: `);
      }
  });
});

describe("positions that do not exist", () => {
  const refusals: [string, () => unknown, string, RegExp][] = [
    [
      "a window",
      () => readWindow(windowsOf("d", stream, 2), 4, new Int32Array(2), new Int32Array(2), 0),
      "data",
      /"d": there is no window 4; it has 4/,
    ],
    [
      "a negative window",
      () => readWindow(windowsOf("d", stream, 2), -1, new Int32Array(2), new Int32Array(2), 0),
      "data",
      /no window -1/,
    ],
    [
      "a row",
      () => readWindow(windowsOf("d", stream, 2), 0, new Int32Array(4), new Int32Array(2), 1),
      "shape",
      /row 1 of 2 tokens is not within arrays of 4 and 2/,
    ],
    ["a window of no tokens", () => windowsOf("d", stream, 0), "config", /time: 0 does not fit/],
    [
      "a window of half a token",
      () => evaluationWindows("d", stream, 1.5),
      "config",
      /time: 1\.5 does not fit/,
    ],
    [
      "a token beyond the vocabulary",
      () => tokenWriter(257, 256).document([1, 257]),
      "data",
      /token 1 is 257, which is not an id below 257/,
    ],
    ["half a token", () => tokenWriter(257, 256).append([0.5]), "data", /token 0 is 0\.5/],
    [
      "an end of text beyond the vocabulary",
      () => tokenWriter(257, 257),
      "config",
      /endOfText: 257 does not fit/,
    ],
    [
      "a domain",
      () => createSampler({ domains, seed: 1 }).drawFrom(1, 1),
      "config",
      /domain: 1 does not fit/,
    ],
    [
      "half a draw",
      () => createSampler({ domains, seed: 1 }).draw([1], 0.5),
      "config",
      /n: 0\.5 does not fit/,
    ],
    [
      "no number of draws",
      () => createSampler({ domains, seed: 1 }).drawFrom(0, NaN),
      "config",
      /n: NaN does not fit/,
    ],
  ];
  test.each(refusals)("%s", async (_, call, code, message) => {
    const error = await errorOf(call);
    expect(error).toMatchObject({ code });
    expect(String(error)).toMatch(message);
  });
});
