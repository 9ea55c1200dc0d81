/**
 * GPT-2's pieces (Radford et al. 2019), the pre-tokenizer of byte-level BPE: contractions, words, numbers and punctuation, each with a space before
 * it, and runs of white space. As a pattern, with Unicode's White_Space for \s (JavaScript's contains U+FEFF and lacks U+0085):
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * It is written as a loop, because a regular expression needs stack for every character of a long run: megabytes without a space would overflow it.
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

/** First halves of surrogate pairs; the class is that of the pair. */
const HALF = 4;

/** Classes of UTF-16 units; lone second halves of pairs are OTHER. Made when first needed. */
let units: Uint8Array | null = null;
const makeUnits = (): Uint8Array =>
  Uint8Array.from({ length: 65536 }, (_, unit) =>
    unit >= 0xd800 && unit <= 0xdbff ? HALF : classify(String.fromCharCode(unit)),
  );
/** Classes of the characters beyond U+FFFF that have occurred. */
const pairs = new Map<number, number>();

/** Units of a text that are copied at a time: reading an array is faster than reading a string. */
const WINDOW = 1 << 14;
/** Number of units after a piece that may decide where it ends. */
const AHEAD = 3;

/** The pieces of a text, one after another, as ranges of an array. */
export interface PieceCursor {
  /** UTF-16 units that contain the piece; `next` may replace the array. */
  units: Uint16Array;
  /** Range of the piece: from unit `from` (included) to `to` (excluded). */
  from: number;
  to: number;
  /** Position of `units` in the text. */
  start: number;
  /** Moves to the next piece; returns false if there is none. */
  next(): boolean;
}

/** Makes a cursor before the first piece of a text. All pieces together are the text. */
export function pieceCursor(text: string): PieceCursor {
  const classes = (units ??= makeUnits());
  let length = 0;
  const cursor: PieceCursor = {
    units: new Uint16Array(Math.min(WINDOW, text.length)),
    from: 0,
    to: 0,
    start: 0,
    next() {
      const from = cursor.to;
      const end = from < length ? endOfPiece(classes, cursor.units, from, length) : from;
      if (end + AHEAD > length && cursor.start + length < text.length) {
        // Text after the window may belong to the piece. A piece that fills the window gets a larger one.
        if (from === 0 && length > 0) cursor.units = new Uint16Array(2 * cursor.units.length);
        cursor.start += from;
        length = copyUnits(text, cursor.start, cursor.units);
        cursor.to = 0;
        return cursor.next();
      }
      cursor.from = from;
      cursor.to = end;
      return end > from;
    },
  };
  return cursor;
}

/** Copies units from position `start` on, and returns their number. */
function copyUnits(text: string, start: number, into: Uint16Array): number {
  const count = Math.min(into.length, text.length - start);
  for (let i = 0; i < count; i++) into[i] = text.charCodeAt(start + i);
  return count;
}

function endOfPiece(classes: Uint8Array, text: Uint16Array, from: number, n: number): number {
  const first = text[from]!;
  if (first === 39) {
    const length = contraction(text, from, n);
    if (length > 0) return from + length;
  }
  let at = from;
  let kind = classes[first]!;
  if (first === 32 && from + 1 < n && classes[text[from + 1]!] !== SPACE) kind = classes[text[++at]!]!;
  if (kind === HALF) kind = classOfPair(text, at, n);
  const end = endOfRun(classes, text, at, n, kind);
  // The last white space before a word belongs to the word, or is a piece of its own. All white space is one unit wide.
  return kind === SPACE && end < n && end - from > 1 ? end - 1 : end;
}

function endOfRun(classes: Uint8Array, text: Uint16Array, from: number, n: number, kind: number): number {
  for (let at = from; at < n;) {
    const own = classes[text[at]!];
    if (own === kind) at++;
    else if (own === HALF && classOfPair(text, at, n) === kind) at += isPair(text, at, n) ? 2 : 1;
    else return at;
  }
  return n;
}

const isPair = (text: Uint16Array, at: number, n: number): boolean =>
  at + 1 < n && text[at + 1]! >= 0xdc00 && text[at + 1]! <= 0xdfff;

/** Class of the character whose first half is at `at`; a lone half is OTHER. */
function classOfPair(text: Uint16Array, at: number, n: number): number {
  if (!isPair(text, at, n)) return OTHER;
  const point = 0x10000 + ((text[at]! - 0xd800) << 10) + (text[at + 1]! - 0xdc00);
  let kind = pairs.get(point);
  if (kind === undefined) pairs.set(point, (kind = classify(String.fromCodePoint(point))));
  return kind;
}

/** The pieces of a text, in order; together they are the text. */
export function* gpt2Pieces(text: string): Generator<string, void, undefined> {
  const cursor = pieceCursor(text);
  while (cursor.next()) yield text.slice(cursor.start + cursor.from, cursor.start + cursor.to);
}

/** Length of the contraction ('s 't 'm 'd 're 've 'll) that starts at the apostrophe at `at`; 0 if there is none. */
function contraction(text: Uint16Array, at: number, n: number): number {
  const a = at + 1 < n ? text[at + 1] : 0;
  const b = at + 2 < n ? text[at + 2] : 0;
  if (a === S || a === T || a === M || a === D) return 2;
  return (a === R && b === E) || (a === V && b === E) || (a === L && b === L) ? 3 : 0;
}

const [S, T, M, D, R, V, E, L] = Array.from("stmdrvel", (letter) => letter.charCodeAt(0));
