/** Tokenizers against Hugging Face's library and against a naive trainer. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { GradmixError } from "gradmix";
import { byteTokenizer, END_OF_TEXT, loadTokenizer, type Tokenizer, trainBpe } from "gradmix/data";
import { beforeAll, describe, expect, test } from "vitest";

const sample = `The quick brown fox jumps over the lazy dog; it's 1234 o'clock, and they've run.
const total = items.map((item) => item.price * 1.19).reduce((a, b) => a + b, 0);
    return { total, "naïve": "façade", 日本語: "テスト", emoji: "🎉🎉👩‍👩‍👧" };\n\n\t\t`;

/** Lone surrogates have no UTF-8; they become U+FFFD. */
const wellFormed = (value: string): string => Buffer.from(value).toString();

/** Any text: words, spaces, controls, scripts, emoji. */
const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 60 }),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc
    .array(
      fc.constantFrom(
        "the",
        " ",
        "  ",
        "\n",
        "\t",
        "fox",
        "it's",
        "12",
        "日本",
        "🎉",
        "\u0000",
        "\u00a0",
        "e\u0301",
        "!?",
        sample,
      ),
      { maxLength: 20 },
    )
    .map((parts) => parts.join("")),
);

let tokenizers: [string, Tokenizer][] = [];
beforeAll(async () => {
  const repeated = Array.from({ length: 20 }, (_, i) => sample.replace("1234", String(i * 37)));
  tokenizers = [
    ["byte", byteTokenizer()],
    ["bpe", await trainBpe(repeated, { vocabSize: 420 })],
  ];
});

describe.each([0, 1])("tokenizer %i", (which) => {
  const tokenizer = (): Tokenizer => tokenizers[which]?.[1] ?? expect.unreachable();

  test("every string comes back", () => {
    fc.assert(
      fc.property(text, (value) => {
        const ids = tokenizer().encode(value);
        for (const id of ids) expect(id).toBeLessThan(tokenizer().endOfText);
        expect(tokenizer().decode(ids)).toBe(wellFormed(value));
      }),
    );
  });

  test("gives the ids that Hugging Face's library gives for its tokenizer.json", () => {
    const json = JSON.parse(JSON.stringify(tokenizer().toJSON())) as object;
    const theirs = new HuggingFaceTokenizer(json, {});
    fc.assert(
      fc.property(text, (value) => {
        // Text that spells the special token is that token to them, and text to us.
        fc.pre(!value.includes(END_OF_TEXT) && value === wellFormed(value));
        expect([...tokenizer().encode(value)]).toEqual(
          theirs.encode(value, { add_special_tokens: false }).ids,
        );
      }),
    );
  });

  test("is read back from its own JSON", () => {
    const again = loadTokenizer(JSON.parse(JSON.stringify(tokenizer().toJSON())));
    expect([again.kind, again.vocabSize, again.endOfText]).toEqual([
      tokenizer().kind,
      tokenizer().vocabSize,
      tokenizer().endOfText,
    ]);
    fc.assert(
      fc.property(text, (value) => {
        expect(again.encode(value)).toEqual(tokenizer().encode(value));
      }),
    );
    expect(again.toJSON()).toEqual(tokenizer().toJSON());
  });

  test("text that spells the end of text is text", () => {
    const ids = tokenizer().encode(`a${END_OF_TEXT}b`);
    expect([...ids]).not.toContain(tokenizer().endOfText);
    expect(tokenizer().decode([tokenizer().endOfText])).toBe(END_OF_TEXT);
  });
});

test("byte ids are bytes", () => {
  expect([...byteTokenizer().encode("aé")]).toEqual([97, 0xc3, 0xa9]);
  expect([byteTokenizer().vocabSize, byteTokenizer().endOfText]).toEqual([257, 256]);
});

describe("training", () => {
  const PIECES = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

  /** The definition: count all pairs anew for every merge. */
  function naive(texts: readonly string[], merges: number): [number, number][] {
    const words = texts.flatMap((value) =>
      [...value.matchAll(PIECES)].map(([piece]) => [...new TextEncoder().encode(piece)]),
    );
    const found: [number, number][] = [];
    while (found.length < merges) {
      const pairs = new Map<string, number>();
      for (const ids of words)
        for (let i = 0; i + 1 < ids.length; i++) {
          const pair = `${ids[i]},${ids[i + 1]}`;
          pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
        }
      const best = [...pairs]
        .map(([pair, count]) => ({ pair: pair.split(",").map(Number) as [number, number], count }))
        .sort((a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1])[0];
      if (best === undefined || best.count < 2) break;
      const joined = 256 + found.length;
      found.push(best.pair);
      for (const ids of words)
        for (let i = 0; i + 1 < ids.length; i++)
          if (ids[i] === best.pair[0] && ids[i + 1] === best.pair[1]) ids.splice(i, 2, joined);
    }
    return found;
  }

  test("finds the merges of the definition", async () => {
    const word = fc
      .array(fc.constantFrom("a", "b", "ab", "aa", " ", "ba", "c"), { maxLength: 12 })
      .map((parts) => parts.join(""));
    await fc.assert(
      fc.asyncProperty(fc.array(word, { maxLength: 8 }), async (texts) => {
        const tokenizer = await trainBpe(texts, { vocabSize: 257 + 12 });
        const expected = naive(texts, 12);
        expect(tokenizer.vocabSize).toBe(257 + expected.length);
        // What each merge joined, as text.
        const tokens: string[] = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
        expected.forEach(([a, b], i) => {
          tokens.push((tokens[a] ?? "") + (tokens[b] ?? ""));
          expect(tokenizer.decode([256 + i])).toBe(tokens.at(-1));
        });
      }),
    );
  });

  test("cuts long pieces between characters, and no two ids spell the same", async () => {
    const tokenizer = await trainBpe([`${"🎉é".repeat(3000)} ${"日本語テスト".repeat(900)}`], {
      vocabSize: 300,
    });
    const vocab = (tokenizer.toJSON()["model"] as { vocab: Record<string, number> }).vocab;
    expect(Object.keys(vocab)).toHaveLength(tokenizer.vocabSize);
    // U+FFFD is what half a character would have become.
    expect(Object.keys(vocab).filter((token) => token.includes("ï¿½"))).toEqual([]);
    expect(tokenizer.encode("🎉é").length).toBeLessThan(3);
  });

  test("refuses impossible sizes", async () => {
    for (const vocabSize of [256, 0, 300.5, NaN, 2_000_000])
      await expect(trainBpe(["text"], { vocabSize })).rejects.toThrow(
        /vocabSize: .* is not an integer from 257/,
      );
  });
});

test("pieces of any length get the ids that Hugging Face's library gives", async () => {
  const words = ["ab", "abc", "bca", "aaa", "cab", "日本", "本語", "語日本"];
  const piece = fc
    .array(fc.constantFrom(...words), { minLength: 1, maxLength: 150 })
    .map((parts) => parts.join(""));
  const learned = fc.sample(piece, { seed: 5, numRuns: 40 });
  const tokenizer = await trainBpe(learned, { vocabSize: 600 });
  const theirs = new HuggingFaceTokenizer(JSON.parse(JSON.stringify(tokenizer.toJSON())) as object, {});
  fc.assert(
    fc.property(piece, (value) => {
      expect([...tokenizer.encode(value)]).toEqual(theirs.encode(value, { add_special_tokens: false }).ids);
    }),
  );
});

test("texts are not kept once they are learned from or encoded", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const heap = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const document = (i: number): string =>
    Buffer.from(`${"a b ".repeat(120_000)} averylongword${"x".repeat(i)}`).toString();
  let most = 0;
  const start = heap();
  function* documents(): Generator<string> {
    for (let i = 0; i < 20; i++) {
      yield document(i);
      if (i % 5 === 4) most = Math.max(most, heap() - start);
    }
  }
  const tokenizer = await trainBpe(documents(), { vocabSize: 260 });
  for (const value of documents()) tokenizer.encode(value);
  expect(most).toBeLessThan(4e6);
});

test("a tokenizer.json that cannot be used is refused, with the reason", () => {
  const good = JSON.parse(JSON.stringify(byteTokenizer().toJSON())) as Record<
    string,
    Record<string, unknown>
  >;
  const without = (section: string, change: Record<string, unknown>): unknown => ({
    ...good,
    [section]: { ...good[section], ...change },
  });
  const cases: [unknown, RegExp][] = [
    [null, /the model is undefined, not BPE/],
    ["text", /not BPE/],
    [{}, /not BPE/],
    [without("model", { type: "WordPiece" }), /"WordPiece", not BPE/],
    [without("pre_tokenizer", { type: "Whitespace" }), /pre-tokenizer is not ByteLevel/],
    [without("pre_tokenizer", { add_prefix_space: true }), /prefix space/],
    [without("pre_tokenizer", { use_regex: false }), /use_regex is false/],
    [without("model", { ignore_merges: true }), /the model has ignore_merges/],
    [without("model", { dropout: 0.1 }), /the model has dropout/],
    [without("model", { end_of_word_suffix: "</w>" }), /the model has end_of_word_suffix/],
    [{ ...good, normalizer: { type: "NFC" } }, /normalizer/],
    [without("model", { vocab: 3 }), /no vocabulary/],
    [without("model", { vocab: { a: -1 } }), /"a" has no id/],
    [without("model", { vocab: { a: 0 } }), /id|byte/],
    [without("model", { merges: "no" }), /no merges/],
    [without("model", { merges: ["a"] }), /merge 0 is malformed/],
    [without("model", { merges: ["a qq"] }), /merge 0 \(a qq\) names an unknown token/],
  ];
  for (const [json, message] of cases) {
    expect(() => loadTokenizer(json)).toThrow(message);
    expect(() => loadTokenizer(json)).toThrow(GradmixError);
  }
});
