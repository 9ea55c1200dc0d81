/**
 * GPT-2's pieces (Radford et al. 2019), the pre-tokenizer of byte-level BPE: contractions, words, numbers, punctuation, each with a space before
 * it, and runs of white space. As a pattern, with Unicode's White_Space for \s (JavaScript's has U+FEFF in it and lacks U+0085):
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * Written as a loop, because a regular expression needs stack for every character of a long run: megabytes without a space would overflow it.
 */

const OTHER = 0;
const SPACE = 1;
const LETTER = 2;
const NUMBER = 3;

const CLASSES: readonly [RegExp, number][] = [
  [/\p{White_Space}/u, SPACE],
  [/\p{L}/u, LETTER],
  [/\p{N}/u, NUMBER],
];

function classify(character: string): number {
  for (const [pattern, kind] of CLASSES) if (pattern.test(character)) return kind;
  return OTHER;
}

/** Classes of UTF-16 units; halves of surrogate pairs count as OTHER and are looked up as pairs. Made when first needed. */
let units: Uint8Array | null = null;
const makeUnits = (): Uint8Array =>
  Uint8Array.from({ length: 65536 }, (_, unit) => classify(String.fromCharCode(unit)));
/** Classes of the characters beyond U+FFFF that were met. */
const pairs = new Map<number, number>();

/** The pieces of a text, in order; together they are the text. */
export function* gpt2Pieces(text: string): Generator<string, void, undefined> {
  const table = (units ??= makeUnits());
  const n = text.length;
  /** Class of the character that starts at `at`. */
  const classAt = (at: number): number => {
    const unit = text.charCodeAt(at);
    if (unit < 0xd800 || unit > 0xdbff) return table[unit]!;
    const point = text.codePointAt(at) ?? unit;
    let kind = pairs.get(point);
    if (kind === undefined) pairs.set(point, (kind = classify(String.fromCodePoint(point))));
    return kind;
  };
  const endOfRun = (from: number, kind: number): number => {
    for (let at = from; ;) {
      if (at >= n || classAt(at) !== kind) return at;
      const unit = text.charCodeAt(at);
      at += unit >= 0xd800 && unit <= 0xdbff && (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
    }
  };
  for (let from = 0; from < n;) {
    let end = from + contraction(text, from);
    if (end === from) {
      const kind = classAt(from);
      const afterSpace =
        text.charCodeAt(from) === 32 && from + 1 < n && classAt(from + 1) !== SPACE ? from + 1 : from;
      if (kind !== SPACE || afterSpace > from) end = endOfRun(afterSpace, classAt(afterSpace));
      else {
        end = endOfRun(from, SPACE);
        // The last white space before a word is the word's, or a piece of its own. All white space is one unit wide.
        if (end < n && end - from > 1) end--;
      }
    }
    yield text.slice(from, end);
    from = end;
  }
}

/** Length of the contraction ('s 't 'm 'd 're 've 'll) that starts at `at`, or 0. */
function contraction(text: string, at: number): number {
  if (text.charCodeAt(at) !== 39) return 0;
  const [a, b] = [text[at + 1], text[at + 2]];
  if (a === "s" || a === "t" || a === "m" || a === "d") return 2;
  return (a === "r" && b === "e") || (a === "v" && b === "e") || (a === "l" && b === "l") ? 3 : 0;
}
