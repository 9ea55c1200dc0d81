/** Text that is in both held-out and other documents, against the definition. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GRAM, heldOutText, type OverlapIndex, wordsOf } from "#dist/data/contamination.js";

const indexOf = (heldOut: readonly string[], most?: number): OverlapIndex => {
  const text = heldOutText(most);
  for (const document of heldOut) text.add(document);
  return text.index();
};

/** Words made of the given letters, in lower case. */
const wordsIn = (letters: string, count: number): fc.Arbitrary<string[]> =>
  fc.array(fc.string({ unit: fc.constantFrom(...letters.split("")), minLength: 1, maxLength: 9 }), {
    minLength: count,
    maxLength: count,
  });

/** The same words with other spaces, punctuation and capitals. */
const written = (words: readonly string[]): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom(" ", "\n", "\t ", ", ", ". ", " — ", "\u00a0", "\u3000(", " \u{1f389} "), {
      minLength: words.length,
      maxLength: words.length,
    })
    .chain((gaps) =>
      fc.boolean().map((loud) => {
        const shown = words.map((word) =>
          loud ? `${word.slice(0, 1).toUpperCase()}'${word.slice(1)}` : word,
        );
        return shown.map((word, i) => word + gaps[i]).join("");
      }),
    );

describe("words", () => {
  /** The words by regular expressions, for characters whose lower case has one code unit. */
  const naive = (text: string): string[] =>
    text
      .replaceAll(/[^\p{L}\p{M}\p{N}\p{White_Space}]/gu, "")
      .replaceAll(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Thai}]/gu, " $& ")
      .split(/\p{White_Space}+/u)
      .filter((word) => word !== "")
      .map((word) => word.toLowerCase());

  test("match their definition", () => {
    const parts = ["The", "don't", "É", "e\u0301", " ", "\n", "\u0085", "\u3000", "日本", "の", "ภา", "🎉", "𠀀", "𝒜", "12", "½", "!?", "_", "\ud800", "\u200b", "Я"]; // prettier-ignore
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...parts), { maxLength: 12 }), (text) => {
        const whole = text.join("");
        expect(wordsOf(whole)).toEqual(naive(whole));
      }),
      { numRuns: 400 },
    );
    expect(wordsOf("Don't — STOP!, l’été 3.14\tend")).toEqual(["dont", "stop", "lété", "314", "end"]);
    expect(wordsOf("日本 go𠀀𝒜x")).toEqual(["日", "本", "go", "𠀀", "𝒜x"]);
  });
});

describe("a planted run of words", () => {
  // Places at which the scanner's blocks of 4,096 words end, among others.
  const places = fc.constantFrom(0, 1, 12, 13, 4079, 4080, 4081, 4093, 4094, 4095, 4096, 4097, 8190);
  const planted = (length: number) =>
    fc
      .record({
        heldOut: wordsIn("abc", 40),
        from: fc.nat(40 - length),
        before: places,
        after: fc.constantFrom(0, 1, 20),
        own: wordsIn("xyz", 60),
      })
      .chain(({ heldOut, from, before, after, own }) => {
        const fill = (count: number): string[] =>
          Array.from({ length: count }, (_, i) => own[i % own.length]);
        const span = heldOut.slice(from, from + length);
        return written([...fill(before), ...span, ...fill(after)]).map((text) => ({
          heldOut: heldOut.join(" "),
          text,
          span: span.join(" "),
        }));
      });

  test("of 13 is always found", () => {
    fc.assert(
      fc.property(planted(GRAM), ({ heldOut, text, span }) => {
        const index = indexOf(["first one", heldOut, heldOut]);
        const overlap = index.compare(text);
        expect(overlap?.words).toBe(span);
        expect(overlap?.kind).toMatch(/^(part|near copy)$/);
        expect(index.found()).toBe(1);
      }),
      { numRuns: 60 },
    );
  });

  test("of 12 is never found", () => {
    fc.assert(
      fc.property(planted(GRAM - 1), ({ heldOut, text }) => {
        const index = indexOf([heldOut]);
        expect([index.compare(text), index.found()]).toEqual([null, 0]);
      }),
      { numRuns: 60 },
    );
  });
});

test("a copy has the same words, and a near copy shares 80 % of its runs, for few words and many", () => {
  const documents = fc.array(fc.array(fc.constantFrom("a", "b"), { maxLength: 40 }), { maxLength: 4 });
  const naive = (heldOut: readonly string[][], own: readonly string[]): string | null => {
    const grams = (words: readonly string[]): string[] =>
      Array.from({ length: Math.max(0, words.length - GRAM + 1) }, (_, i) =>
        words.slice(i, i + GRAM).join(" "),
      );
    const known = new Set(heldOut.flatMap(grams));
    if (own.length > 0 && heldOut.some((words) => words.join(" ") === own.join(" "))) return "copy";
    const shared = grams(own).filter((gram) => known.has(gram)).length;
    return shared === 0 ? null : shared / grams(own).length >= 0.8 ? "near copy" : "part";
  };
  fc.assert(
    fc.property(documents, documents, (heldOut, others) => {
      const index = indexOf(heldOut.map((words) => words.join(" ")));
      for (const own of [...others, ...heldOut]) {
        const found = index.compare(own.join("\n"))?.kind ?? null;
        expect([own.join(" "), found]).toEqual([own.join(" "), naive(heldOut, own)]);
      }
    }),
    { numRuns: 200 },
  );
});

test("no more words are looked up than there is room for, and a document that is cut off cannot have a copy", () => {
  const word = (i: number): string => `w${i.toString(36)}`;
  const words = (from: number, count: number): string => Array.from({ length: count }, (_, i) => word(from + i)).join(" "); // prettier-ignore
  const documents = [words(0, 20), words(100, 20), words(200, 20)];
  const index = indexOf(documents, 34);
  expect([index.documents, index.looked]).toEqual([3, 2]);
  expect(documents.map((text) => index.compare(text)?.kind)).toEqual(["copy", "part", undefined]);
  // Only its first 14 words are looked up, and they are not a whole document.
  expect(index.compare(words(100, 14))?.kind).toBe("near copy");
  expect(index.compare(words(102, 13))).toBeNull();
  expect(indexOf([]).compare("a b c")).toBeNull();
  expect(indexOf(["", "?"]).compare("!")).toBeNull();
});
