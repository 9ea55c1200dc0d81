/** Tokenizers against Hugging Face's library and against a naive trainer. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { GradmixError } from "gradmix";
import { byteTokenizer, END_OF_TEXT, loadTokenizer, type Tokenizer, trainBpe } from "gradmix/data";
import { beforeAll, describe, expect, test } from "vitest";
import { gpt2Pieces } from "#dist/data/pieces.js";
import { readPreTokenizer } from "#dist/data/pre-tokenizer.js";

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
        "\u0085",
        "\ufeff",
        "\u2028",
        "e\u0301",
        "!?",
        sample,
      ),
      { maxLength: 20 },
    )
    .map((parts) => parts.join("")),
);

/**
 * Hugging Face's library for JavaScript. Its own pattern for ByteLevel has JavaScript's white space; in a Split it has Unicode's, as the
 * library in Rust, so it is given GPT-2's pattern there.
 */
function theirs(json: unknown): (value: string) => number[] {
  const file = JSON.parse(JSON.stringify(json)) as { pre_tokenizer: Record<string, unknown> };
  const { type, use_regex: useRegex } = file.pre_tokenizer;
  if (type === "ByteLevel" && useRegex === true)
    file.pre_tokenizer = {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: PIECES }, behavior: "Isolated", invert: false },
        { ...file.pre_tokenizer, use_regex: false },
      ],
    };
  const library = new HuggingFaceTokenizer(file, {});
  return (value) => library.encode(value, { add_special_tokens: false }).ids;
}

/** GPT-2's pattern, as it is published. */
const PIECES = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
/** The same with Unicode's white space in place of JavaScript's. */
const PATTERN = new RegExp(
  PIECES.replaceAll(String.raw`\s`, String.raw`\p{White_Space}`).replace(
    String.raw`\S`,
    String.raw`\P{White_Space}`,
  ),
  "gu",
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

  test("decodes every string to itself", () => {
    fc.assert(
      fc.property(text, (value) => {
        const ids = tokenizer().encode(value);
        for (const id of ids) expect(id).toBeLessThan(tokenizer().endOfText);
        expect(tokenizer().decode(ids)).toBe(wellFormed(value));
      }),
    );
  });

  test("gives the ids that Hugging Face's library gives for its tokenizer.json", () => {
    const expected = theirs(tokenizer().toJSON());
    fc.assert(
      fc.property(text, (value) => {
        // Text that spells the special token is that token to them, and text to us.
        fc.pre(!value.includes(END_OF_TEXT) && value === wellFormed(value));
        expect([...tokenizer().encode(value)]).toEqual(expected(value));
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

  test("encodes text that looks like the end of text as text", () => {
    const ids = tokenizer().encode(`a${END_OF_TEXT}b`);
    expect([...ids]).not.toContain(tokenizer().endOfText);
    expect(tokenizer().decode([tokenizer().endOfText])).toBe(END_OF_TEXT);
  });
});

test("pieces equal the matches of the published pattern, for every character", () => {
  const everywhere = fc.oneof(
    text,
    fc.string({
      unit: fc.constantFrom("'s", "'t", "'m", "'d", "'re", "'ve", "'ll", "'ie", "'e", "'l", " ", "e"),
    }),
    fc.string({ unit: fc.constantFrom(...Array.from(" 's'll\n\t\u0085\ufeff\u200b\u2028a1!é🎉𝒜")) }),
  );
  fc.assert(
    fc.property(everywhere, (value) => {
      expect([...gpt2Pieces(value)]).toEqual(value.match(PATTERN) ?? []);
    }),
    { numRuns: 1000 },
  );
  // Each character alone, doubled, and among others.
  let all = "";
  for (let point = 0; point <= 0x10ffff; point += point < 0x3100 ? 1 : 257)
    if (point < 0xd800 || point > 0xdfff)
      all += `${String.fromCodePoint(point, point)} a${String.fromCodePoint(point)}1`;
  expect([...gpt2Pieces(all)].join("|")).toBe((all.match(PATTERN) ?? []).join("|"));
});

test("pieces do not depend on where the reading of a long text is resumed", () => {
  // Longer than what is read at a time, with runs, pairs and spaces at any place of it.
  const part = fc.constantFrom(
    "a",
    "日",
    "🎉",
    "𝒜",
    " ",
    "  ",
    "\n",
    "'s",
    "'ll",
    "1",
    "!",
    " b",
    "\ud83c",
    "x".repeat(400),
  );
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 0, max: 6 }),
      (parts, before) => {
        const unit = parts.join("");
        const value = wellFormed("-".repeat(before) + unit.repeat(Math.ceil(40_000 / unit.length)));
        // Not by toEqual, which is slow on tens of thousands of pieces.
        expect([...gpt2Pieces(value)].join("|")).toBe((value.match(PATTERN) ?? []).join("|"));
      },
    ),
    { numRuns: 40 },
  );
});

test("a callback that receives ids may encode another text before it returns", async () => {
  const tokenizer = await trainBpe([sample], { vocabSize: 300 });
  // So many different pieces that the table of them grows in between.
  const many = (from: number): string => Array.from({ length: 20_000 }, (_, i) => `${from + i}x `).join("");
  const [one, other] = [many(1), many(1_000_000)];
  const expected = [...tokenizer.encode(one)];
  const found: number[] = [];
  const again = loadTokenizer(tokenizer.toJSON());
  let calls = 0;
  again.encodeBlocks(one, (ids) => {
    const before = [...ids];
    if (calls++ % 2 === 0) again.encode(other);
    expect([...ids]).toEqual(before);
    found.push(...before);
  });
  expect(found.length).toBe(expected.length);
  expect(found.every((id, i) => id === expected[i])).toBe(true);
});

test("a single piece may have millions of characters", () => {
  // A regular expression needs stack for each of them.
  const long = "日".repeat(9_000_000);
  expect([...gpt2Pieces(long)].map((piece) => piece.length)).toEqual([9_000_000]);
  let length = 0;
  byteTokenizer().encodeBlocks(long, (ids) => (length += ids.length));
  expect(length).toBe(27_000_000);
});

test("the ids of a text in blocks equal the ids of the whole text", () => {
  const long = fc
    .tuple(
      fc.array(fc.constantFrom("日", "🎉", "a", " the", "é", "\ud83c"), { minLength: 1, maxLength: 9 }),
      fc.integer({ min: 1, max: 9000 }),
    )
    .map(([parts, times]) => parts.join("").repeat(times));
  fc.assert(
    fc.property(long, fc.constantFrom(0, 1), (value, which) => {
      const tokenizer = tokenizers[which][1];
      const ids: number[] = [];
      tokenizer.encodeBlocks(value, (block) => {
        for (const id of block) ids.push(id);
      });
      expect(ids.length).toBe(tokenizer.encode(value).length);
      expect(tokenizer.decode(ids)).toBe(wellFormed(value));
      if (which === 0) expect(ids).toEqual([...Buffer.from(value)]);
    }),
    { numRuns: 25 },
  );
  // No block is empty: of no text, and of a text that fills blocks to the last id.
  for (const size of [0, 1, 2 ** 14, 2 ** 15]) {
    const lengths: number[] = [];
    tokenizers[0][1].encodeBlocks("a".repeat(size), (block) => lengths.push(block.length));
    expect(lengths.reduce((a, b) => a + b, 0)).toBe(size);
    expect(lengths).not.toContain(0);
  }
  // A pair lies across every place where a block could end.
  for (const before of ["", "a"]) {
    const value = before + "🎉".repeat(20_000);
    expect(Buffer.from(tokenizers[0][1].encode(value)).equals(Buffer.from(value))).toBe(true);
  }
});

test("what is no text, and what are no ids, is refused by every tokenizer", async () => {
  const trained = await trainBpe(["the fox and the fox"], { vocabSize: 260 });
  for (const tokenizer of [byteTokenizer(), trained, loadTokenizer(trained.toJSON())]) {
    for (const bad of [undefined, null, 3, {}, ["text"]]) {
      const what = /^tokenizer.encode: text: .* does not fit; it must be a string$/;
      expect(() => tokenizer.encode(bad as never)).toThrow(what);
      expect(() => tokenizer.encodeBlocks(bad as never, () => {})).toThrow(what);
    }
    for (const bad of [undefined, null, 3, {}, "65"])
      expect(() => tokenizer.decode(bad as never)).toThrow(/^tokenizer.decode: ids: .* does not fit/);
  }
});

test("the ids of bytes are the bytes", () => {
  expect([...byteTokenizer().encode("aé")]).toEqual([97, 0xc3, 0xa9]);
  expect([byteTokenizer().vocabSize, byteTokenizer().endOfText]).toEqual([257, 256]);
});

describe("training", () => {
  /** The definition: count all pairs anew for every merge. */
  function naive(texts: readonly string[], merges: number): [number, number][] {
    const words = texts.flatMap((value) =>
      // Pieces are cut after 128 characters.
      [...value.matchAll(PATTERN)]
        .flatMap(([piece]) => [...piece.matchAll(/.{1,128}/gsu)])
        .map(([part]) => [...new TextEncoder().encode(part)]),
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

  test("finds the merges of its definition", async () => {
    const word = fc
      .tuple(
        fc.array(fc.constantFrom("a", "b", "ab", "aa", " ", "ba", "c"), { maxLength: 12 }),
        fc.constantFrom(0, 0, 0, 126, 127, 128, 255),
      )
      .map(([parts, padding]) => "x".repeat(padding) + parts.join(""));
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

  test("cuts long pieces between characters, and no two ids have the same text", async () => {
    const tokenizer = await trainBpe([`${"🎉é".repeat(3000)} ${"日本語テスト".repeat(900)}`], {
      vocabSize: 300,
    });
    const vocab = (tokenizer.toJSON()["model"] as { vocab: Record<string, number> }).vocab;
    expect(Object.keys(vocab)).toHaveLength(tokenizer.vocabSize);
    // U+FFFD is what half a character would have become.
    expect(Object.keys(vocab).filter((token) => token.includes("ï¿½"))).toEqual([]);
    expect(tokenizer.encode("🎉é").length).toBeLessThan(3);
  });

  test("reports its progress after every 256 merges, and can be stopped between two", async () => {
    const learned = fc.sample(
      fc.string({ unit: fc.constantFrom("a", "b", "c", "d", "e", "f", "g"), minLength: 60 }),
      {
        seed: 1,
        numRuns: 200,
      },
    );
    const texts = learned.flatMap((value) => [value, value]);
    const told: number[] = [];
    const all = await trainBpe(texts, { vocabSize: 257 + 600, onProgress: (merges) => told.push(merges) });
    expect([all.vocabSize, told]).toEqual([857, [256, 512]]);
    const stop = new AbortController();
    const reason = new Error("enough");
    const stopped = trainBpe(texts, {
      vocabSize: 857,
      signal: stop.signal,
      onProgress: () => stop.abort(reason),
    });
    await expect(stopped).rejects.toBe(reason);
  });

  test("refuses impossible sizes", async () => {
    for (const vocabSize of [256, 0, 300.5, NaN, 2_000_000])
      await expect(trainBpe(["text"], { vocabSize })).rejects.toThrow(
        /trainBpe: vocabSize: .* does not fit; it must be an integer, at least 257/,
      );
  });
});

test("pieces of any length get the ids of Hugging Face's library", async () => {
  const words = ["ab", "abc", "bca", "aaa", "cab", "日本", "本語", "語日本"];
  const piece = fc
    .array(fc.constantFrom(...words), { minLength: 1, maxLength: 150 })
    .map((parts) => parts.join(""));
  const learned = fc.sample(piece, { seed: 5, numRuns: 40 });
  const tokenizer = await trainBpe(learned, { vocabSize: 600 });
  const expected = theirs(tokenizer.toJSON());
  fc.assert(
    fc.property(piece, (value) => {
      expect([...tokenizer.encode(value)]).toEqual(expected(value));
    }),
  );
});

describe("merges", () => {
  /** The definition, as Hugging Face's library has it: the pair of the lowest rank, the leftmost of them, one at a time. */
  function naive(
    ids: readonly number[],
    merges: readonly [number, number][],
    joined: readonly number[],
  ): number[] {
    const out = [...ids];
    const ranks = new Map(merges.map(([a, b], rank) => [`${a},${b}`, rank]));
    for (;;) {
      let [at, best] = [-1, Infinity];
      for (let i = 0; i + 1 < out.length; i++) {
        const rank = ranks.get(`${out[i]},${out[i + 1]}`) ?? Infinity;
        if (rank < best) [at, best] = [i, rank];
      }
      if (at < 0) return out;
      out.splice(at, 2, joined[best]);
    }
  }

  /** Merges over three letters, each of two tokens that there are, in the order of learning or in any other. */
  const merges = fc
    .array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 14 })
    .map((picks) => {
      const tokens = ["a", "b", "c"];
      const pairs = new Map<string, [string, string]>();
      for (const [i, j] of picks) {
        const [left, right] = [tokens[i % tokens.length], tokens[j % tokens.length]];
        if ((left + right).length > 12 || pairs.has(`${left} ${right}`)) continue;
        pairs.set(`${left} ${right}`, [left, right]);
        if (!tokens.includes(left + right)) tokens.push(left + right);
      }
      return { added: tokens.slice(3), pairs: [...pairs.values()] };
    })
    .chain((learned) =>
      fc
        .tuple(fc.boolean(), fc.shuffledSubarray(learned.pairs, { minLength: learned.pairs.length }))
        .map(([shuffled, pairs]) => ({ added: learned.added, pairs: shuffled ? pairs : learned.pairs })),
    );

  test.each([
    ["short", 1, 40],
    ["long", 120, 400],
  ])("follow the definition for %s pieces, in any order", (_, minLength, maxLength) => {
    fc.assert(
      fc.property(
        merges,
        fc.array(fc.constantFrom("a", "b", "c"), { minLength, maxLength }),
        ({ added, pairs }, letters) => {
          const json = JSON.parse(JSON.stringify(byteTokenizer().toJSON())) as {
            model: { vocab: Record<string, number>; merges: [string, string][] };
            added_tokens: { id: number }[];
          };
          const { vocab } = json.model;
          added.forEach((token, i) => (vocab[token] = 256 + i));
          vocab[END_OF_TEXT] = 256 + added.length;
          json.added_tokens[0].id = 256 + added.length;
          json.model.merges = pairs;
          const expected = naive(
            letters.map((letter) => vocab[letter]),
            pairs.map(([left, right]) => [vocab[left], vocab[right]]),
            pairs.map(([left, right]) => vocab[left + right]),
          );
          expect([...loadTokenizer(json).encode(letters.join(""))]).toEqual(expected);
        },
      ),
      { numRuns: 200 },
    );
  });
});

test.each([
  [
    "a token on the right is made later",
    [
      ["c", "ab"],
      ["cab", "a"],
      ["a", "b"],
    ],
  ],
  [
    "a token on the left is made later",
    [
      ["ab", "c"],
      ["b", "abc"],
      ["a", "b"],
    ],
  ],
  [
    "a token is made twice",
    [
      ["a", "b"],
      ["ab", "c"],
      ["b", "c"],
      ["a", "bc"],
    ],
  ],
] as const)("merges of which %s: in every order, and for every text of five letters", (_, pairs) => {
  const orders = (list: readonly (readonly [string, string])[]): (readonly [string, string])[][] =>
    list.length === 0
      ? [[]]
      : list.flatMap((one) => orders(list.filter((other) => other !== one)).map((rest) => [one, ...rest]));
  const texts = Array.from({ length: 3 ** 5 }, (_, n) =>
    n
      .toString(3)
      .padStart(5, "0")
      .replaceAll(/./g, (digit) => "abc"[Number(digit)]),
  );
  for (const order of orders(pairs)) {
    const tokenizer = withMerges([...new Set(order.map((pair) => pair.join("")))], order);
    for (const value of texts) {
      // The definition: the first pair of the list that is there, the leftmost of them, one at a time.
      let parts = Array.from(value);
      for (;;) {
        const [left, right] =
          order.find(([a, b]) => parts.some((part, i) => part === a && parts[i + 1] === b)) ?? [];
        if (left === undefined) break;
        const at = parts.findIndex((part, i) => part === left && parts[i + 1] === right);
        parts = [...parts.slice(0, at), parts[at] + parts[at + 1], ...parts.slice(at + 2)];
      }
      const spelt = [...tokenizer.encode(value)].map((id) => tokenizer.decode([id]));
      expect([order, value, spelt]).toEqual([order, value, parts]);
    }
  }
});

/** A tokenizer of the bytes, tokens, and merges that make them. */
function withMerges(added: readonly string[], merges: readonly (readonly [string, string])[]): Tokenizer {
  const json = JSON.parse(JSON.stringify(byteTokenizer().toJSON())) as {
    model: { vocab: Record<string, number>; merges: unknown };
    added_tokens: { id: number }[];
  };
  added.forEach((token, i) => (json.model.vocab[token] = 256 + i));
  json.model.vocab[END_OF_TEXT] = 256 + added.length;
  json.added_tokens[0].id = 256 + added.length;
  json.model.merges = merges;
  return loadTokenizer(json);
}

test("the tokenizer.json of a learned tokenizer has the fields that Hugging Face's library writes", async () => {
  const json = (await trainBpe(["ab ab"], { vocabSize: 258 })).toJSON();
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const { vocab, ...model } = json["model"] as { vocab: Record<string, number> };
  expect({ ...json, model }).toEqual({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: 257,
        content: END_OF_TEXT,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      merges: [["a", "b"]],
    },
  });
  expect([vocab["ab"], vocab[END_OF_TEXT], Object.keys(vocab).length]).toEqual([256, 257, 258]);
});

describe("pieces as a tokenizer.json defines them", () => {
  const wrong = (what: string): GradmixError => new GradmixError("data", what);
  const piecesOf = (...parts: object[]): ((value: string) => string[]) => {
    const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    const { pieces } = readPreTokenizer({ type: "Sequence", pretokenizers: [...parts, bytes] }, wrong);
    return (value) => [...pieces(value)];
  };

  /** What each behavior makes of a text and the delimiter "-", and of everything but it (`invert`), as patterns. */
  const behaviors: [string, RegExp, RegExp][] = [
    ["Removed", /[^-]+/g, /-/g],
    ["Isolated", /-|[^-]+/g, /-|[^-]+/g],
    ["MergedWithPrevious", /[^-]+-?|-/g, /-?[^-]+|-/g],
    ["MergedWithNext", /-?[^-]+|-/g, /[^-]+-?|-/g],
    ["Contiguous", /-+|[^-]+/g, /-+|[^-]+/g],
  ];
  test.each(behaviors)("Split and Punctuation with the behavior %s", (behavior, plain, inverted) => {
    const snake = behavior.replaceAll(/\B[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("-", "-", "a", "b", "é") }), (value) => {
        for (const name of [behavior, snake])
          for (const pattern of [{ String: "-" }, { Regex: "-" }]) {
            const split = { type: "Split", pattern, behavior: name };
            expect(piecesOf(split)(value)).toEqual(value.match(plain) ?? []);
            expect(piecesOf({ ...split, invert: false })(value)).toEqual(value.match(plain) ?? []);
            expect(piecesOf({ ...split, invert: true })(value)).toEqual(value.match(inverted) ?? []);
          }
        expect(piecesOf({ type: "Punctuation", behavior })(value)).toEqual(value.match(plain) ?? []);
        if (behavior === "Isolated")
          expect(piecesOf({ type: "Punctuation" })(value)).toEqual(value.match(plain) ?? []);
      }),
    );
  });

  test("a pattern may match the empty string, and a text in place of a pattern matches itself", () => {
    const empty = piecesOf({ type: "Split", pattern: { Regex: "-*" }, behavior: "Isolated" });
    expect(empty("a--bc")).toEqual(["a", "--", "b", "c"]);
    for (const character of "\\^$.*+?()[]{}|/-x é") {
      const split = piecesOf({ type: "Split", pattern: { String: character }, behavior: "Isolated" });
      expect(split(`a${character}\n0`)).toEqual(["a", character, "\n0"]);
    }
  });

  test("Digits, one by one or not", () => {
    expect(piecesOf({ type: "Digits", individual_digits: true })("a12b٣4")).toEqual([
      "a",
      "1",
      "2",
      "b",
      "٣",
      "4",
    ]);
    expect(piecesOf({ type: "Digits", individual_digits: false })("a12b٣4")).toEqual(["a", "12", "b", "٣4"]);
    expect(piecesOf({ type: "Digits" })("a12b")).toEqual(["a", "12", "b"]);
  });

  test("a text that is too long is refused if the pattern cannot cut it", () => {
    const split = piecesOf({ type: "Split", pattern: { Regex: "(?:a|b)+" }, behavior: "Isolated" });
    expect(() => split("ab".repeat(20_000_000))).toThrow(
      /^a text has 40000000 characters in a row that the tokenizer's pattern .* cannot split, which is too long/,
    );
  });

  test("without merges, removed text stays removed, and normalizers run one after the other", () => {
    const json = byteTokenizer().toJSON();
    const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    const spaces = { type: "Split", pattern: { String: " " }, behavior: "Removed" };
    const removing = loadTokenizer({
      ...json,
      pre_tokenizer: { type: "Sequence", pretokenizers: [spaces, bytes] },
    });
    expect(removing.decode(removing.encode("a b c"))).toBe("abc");
    const none = { type: "Sequence", normalizers: [] };
    for (const [normalizers, expected] of [
      [[{ type: "NFD" }, { type: "Lowercase" }], "e\u0301"],
      [[{ type: "Lowercase" }, none], "é"],
      [[none, null], "É"],
    ] as const) {
      const tokenizer = loadTokenizer({ ...json, normalizer: { type: "Sequence", normalizers } });
      expect(tokenizer.decode(tokenizer.encode("É"))).toBe(expected);
    }
  });
});

test("texts are not kept in memory after learning or encoding", async () => {
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

interface Golden {
  readonly name: string;
  readonly file: TokenizerFile;
  readonly texts: readonly [string, string][];
}
interface TokenizerFile {
  readonly added_tokens: readonly { content: string; id: number; special: boolean }[];
  readonly pre_tokenizer: Record<string, unknown>;
  readonly model: { readonly vocab: Record<string, number>; readonly merges: readonly unknown[] };
}
const golden = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../golden/tokenizers.json"), "utf8"),
) as readonly Golden[];

describe.each(golden)("a tokenizer.json like that of $name", ({ file, texts }) => {
  test("gives the ids of Hugging Face's library in Rust", () => {
    const tokenizer = loadTokenizer(file);
    for (const [value, ids] of texts)
      expect([value, [...tokenizer.encode(value)].join(" ")]).toEqual([value, ids]);
    // As many ids as tokens, and an end of text that is one of them.
    const contents = new Set([
      ...Object.keys(file.model.vocab),
      ...file.added_tokens.map(({ content }) => content),
    ]);
    expect(tokenizer.vocabSize).toBe(contents.size);
    const { content } =
      file.added_tokens.find(({ id }) => id === tokenizer.endOfText) ?? expect.unreachable();
    expect(["<|endoftext|>", "<|end_of_text|>", "</s>"]).toContain(content);
    expect(tokenizer.decode([tokenizer.endOfText])).toBe(content);
  });

  test("is stored unchanged, and can be read again", () => {
    const tokenizer = loadTokenizer(file);
    expect(tokenizer.toJSON()).toEqual(file);
    const again = loadTokenizer(JSON.parse(JSON.stringify(tokenizer.toJSON())));
    for (const [value] of texts) expect(again.encode(value)).toEqual(tokenizer.encode(value));
  });
});

/** Those that the library for JavaScript reads as the one in Rust does. */
const alike = ["gpt2", "special first", "llama 3", "qwen", "gpt-neox"];
test.each(golden.filter(({ name }) => alike.includes(name)))(
  "a tokenizer.json like that of $name gives the ids of Hugging Face's library in JavaScript for any text",
  ({ file }) => {
    const tokenizer = loadTokenizer(file);
    const specials = file.added_tokens.filter(({ special }) => special);
    const expected = theirs({ ...file, model: { type: "BPE", ...file.model } });
    fc.assert(
      fc.property(text, (value) => {
        fc.pre(value === wellFormed(value) && !specials.some(({ content }) => value.includes(content)));
        expect([...tokenizer.encode(value)]).toEqual(expected(value));
      }),
    );
  },
);

describe("a tokenizer.json that cannot be used", () => {
  type Json = Record<string, Record<string, unknown>>;
  const good = (): Json => JSON.parse(JSON.stringify(byteTokenizer().toJSON())) as Json;
  const change = (section: string, changes: Record<string, unknown>): object => ({
    ...good(),
    [section]: { ...good()[section], ...changes },
  });
  const vocab = (changes: Record<string, unknown>): object =>
    change("model", { vocab: { ...(good().model["vocab"] as object), ...changes } });
  const added = (...entries: unknown[]): object => ({ ...good(), added_tokens: entries });
  const end = { id: 256, content: END_OF_TEXT, special: true };

  const cases: [unknown, RegExp][] = [
    [null, /the model is missing, not BPE/],
    ["text", /not BPE/],
    [{}, /not BPE/],
    [change("model", { type: "WordPiece" }), /the model is "WordPiece", not BPE; byte-level BPE can be read/],
    [change("model", { type: "Unigram" }), /"Unigram"/],
    [change("pre_tokenizer", { type: "Whitespace" }), /the pre-tokenizer "Whitespace" is not supported/],
    [change("pre_tokenizer", { type: "Metaspace" }), /the pre-tokenizer "Metaspace" is not supported/],
    [{ ...good(), pre_tokenizer: null }, /it has no pre-tokenizer/],
    [{ ...good(), pre_tokenizer: {} }, /the pre-tokenizer without a type is not supported/],
    [change("pre_tokenizer", { type: "Punctuation", behavior: "Somehow" }), /with the behavior "Somehow"/],
    [
      change("pre_tokenizer", { type: "Sequence", pretokenizers: [] }),
      /the pre-tokenizer "Sequence" has no part ByteLevel/,
    ],
    [change("pre_tokenizer", { type: "Digits" }), /the pre-tokenizer "Digits" has no part ByteLevel/],
    [
      change("pre_tokenizer", {
        type: "Sequence",
        pretokenizers: [{ type: "ByteLevel" }, { type: "ByteLevel" }],
      }),
      /two pre-tokenizers of the type ByteLevel/,
    ],
    [
      change("pre_tokenizer", { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" }),
      /the pattern "\(" of its pre-tokenizer is not supported/,
    ],
    [
      change("pre_tokenizer", { type: "Split", pattern: { Regex: "a" }, behavior: "Somehow" }),
      /the pre-tokenizer Split with the behavior "Somehow" is not supported/,
    ],
    [change("pre_tokenizer", { type: "Split", behavior: "Isolated" }), /Split has no pattern/],
    [
      { ...good(), normalizer: { type: "BertNormalizer" } },
      /the normalizer "BertNormalizer" is not supported/,
    ],
    [
      { ...good(), normalizer: { type: "Sequence", normalizers: [{ type: "Strip" }] } },
      /the normalizer "Strip"/,
    ],
    [change("model", { dropout: 0.1 }), /the model has dropout, which is not supported/],
    [change("model", { end_of_word_suffix: "</w>" }), /the model has end_of_word_suffix/],
    [change("model", { continuing_subword_prefix: "##" }), /the model has continuing_subword_prefix/],
    [change("model", { vocab: 3 }), /no vocabulary/],
    [change("model", { vocab: { a: -1 } }), /"a" has no id/],
    [change("model", { vocab: { a: 2 ** 53 } }), /"a" has no id/],
    [
      { ...change("model", { vocab: { a: 0, [END_OF_TEXT]: 1 }, byte_fallback: true }), added_tokens: [] },
      /byte_fallback/,
    ],
    [vocab({ ab: 256 }), /the tokens "<\|endoftext\|>" and "ab" have the same id, 256/],
    [vocab({ ab: 97 }), /have the same id, 97/],
    [vocab({ ab: 258 }), /the token "ab" has the id 258, but there are only 258 tokens: ids are missing/],
    [
      added(end, { id: 4_000_000_000, content: "x y", special: true }),
      /"x y" has the id 4000000000, but there are only 258 tokens/,
    ],
    [
      added({ ...end, id: 300 }),
      /"<\|endoftext\|>" has the id 256 in the vocabulary and 300 in added_tokens/,
    ],
    [added(end, { id: 257 }), /entry 1 of added_tokens has no content or no id/],
    [
      added(end, { id: 257, content: "yes", lstrip: true }),
      /the added token "yes" has lstrip, which is not supported/,
    ],
    [{ ...good(), added_tokens: 3 }, /added_tokens is not a list/],
    [
      {
        ...change("model", { vocab: Object.fromEntries(byteTokenizerVocab()) }),
        added_tokens: [{ id: 256, content: "<|stop|>", special: true }],
      },
      /no token that ends a text: none of <\|endoftext\|> .* is among its special tokens \(<\|stop\|>\)/,
    ],
    [change("model", { merges: "no" }), /no merges|not BPE/],
    [change("model", { merges: ["a"] }), /merge 0 is malformed/],
    [change("model", { merges: ["a qq"] }), /merge 0 \(a qq\) names an unknown token/],
    [change("model", { merges: [["a", "b"]] }), /merge 0 \(a b\) names an unknown token/],
  ];
  test.each(cases)("%#: is refused with the reason", (json, message) => {
    expect(() => loadTokenizer(json)).toThrow(message);
    expect(() => loadTokenizer(json)).toThrow(GradmixError);
  });

  test("is accepted if a piece can look like a special token; that text stays text", () => {
    const whole = { type: "Split", pattern: { String: "\n" }, behavior: "Isolated" };
    const file = {
      ...change("model", { ignore_merges: true }),
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [whole, { type: "ByteLevel", add_prefix_space: false, use_regex: false }],
      },
    };
    expect([...loadTokenizer(file).encode(END_OF_TEXT)]).toEqual([...Buffer.from(END_OF_TEXT)]);
  });

  test("a piece that is a token stays one if merges are ignored; otherwise the merges decide", () => {
    const vocab = { ...Object.fromEntries(byteTokenizerVocab()), the: 257 };
    const idsWith = (ignore_merges: boolean): number[] => [
      ...loadTokenizer(change("model", { vocab, ignore_merges })).encode("the thethe the"),
    ];
    const [letters, rest] = ["the", " thethe the"].map((piece) => [...Buffer.from(piece)]);
    expect(idsWith(false)).toEqual([...letters, ...rest]);
    expect(idsWith(true)).toEqual([257, ...rest]);
  });

  test("without merges, the steps before the bytes still happen", () => {
    const file = change("pre_tokenizer", { add_prefix_space: true });
    expect([...loadTokenizer(file).encode("word")]).toEqual([...Buffer.from(" word")]);
  });

  test("gives the library's ids for a long piece in which every merge makes two others possible", () => {
    const [bytes, runs] = [Object.fromEntries(byteTokenizerVocab()), ["aa", "aaa", "aaaa", "aaaaa"]];
    const vocab = { ...bytes, ...Object.fromEntries(runs.map((run, i) => [run, 257 + i])) };
    const merges = ["a a", "a aa", "aa a", "aa aa", "a aaa", "aaa a", "aa aaa", "aaa aa", "aaaa a", "a aaaa"];
    const file = change("model", { vocab, merges });
    const [ours, expected] = [loadTokenizer(file), theirs(file)];
    for (const n of [127, 128, 129, 500])
      for (const piece of ["a".repeat(n), "aab".repeat(n)])
        expect([...ours.encode(piece)]).toEqual(expected(piece));
  });

  test("is accepted if it lacks some bytes; texts that it cannot express are refused", () => {
    const tokens = byteTokenizerVocab().flatMap(([token, id]) => (id === 0xc3 ? [] : [token]));
    // Wherever the end of text is among them.
    for (const at of [0, 1, 100, 255]) {
      const file = {
        ...change("model", {
          vocab: Object.fromEntries(tokens.toSpliced(at, 0, END_OF_TEXT).map((token, id) => [token, id])),
        }),
        added_tokens: [{ ...end, id: at }],
      };
      const tokenizer = loadTokenizer(file);
      expect(tokenizer.decode(tokenizer.encode("plain"))).toBe("plain");
      expect(() => tokenizer.encode("plain é")).toThrow(
        /the tokenizer has no token for the byte 0xc3, which is in " é"; use one whose vocabulary has all 256 bytes/,
      );
    }
  });

  function byteTokenizerVocab(): [string, number][] {
    return Object.entries(good().model["vocab"] as Record<string, number>).filter(
      ([token]) => token !== END_OF_TEXT,
    );
  }
});

/** Any JSON in any place of a file that was good: loaded and usable, or refused. */
test("a broken tokenizer.json is refused, or is a tokenizer", () => {
  const paths = ["added_tokens", "normalizer", "pre_tokenizer", "model", "version", "decoder"];
  fc.assert(
    fc.property(
      fc.constantFrom(...golden),
      fc.constantFrom(...paths),
      fc.nat(9),
      fc.jsonValue(),
      ({ file }, path, pick, value) => {
        const broken = structuredClone(file) as unknown as Record<string, unknown>;
        const inner = broken[path];
        // The part itself, or something in it.
        const keys = typeof inner === "object" && inner !== null ? Object.keys(inner) : [];
        if (pick === 0 || keys.length === 0) broken[path] = value;
        else (inner as Record<string, unknown>)[keys[pick % keys.length]] = value;
        let tokenizer: Tokenizer;
        try {
          tokenizer = loadTokenizer(broken);
        } catch (error) {
          expect(error).toBeInstanceOf(GradmixError);
          return;
        }
        for (const id of tokenizer.encode("the 12 ")) expect(id).toBeLessThan(tokenizer.vocabSize);
      },
    ),
    { numRuns: 300 },
  );
});
