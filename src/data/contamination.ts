/**
 * Finds documents that contain text of a target's held-out documents: runs of at least 13 words, and whole documents with the same words.
 *
 * A word is the text between white space, in lower case, without all characters that are not letters, marks or numbers, as in GPT-3's paper (Brown
 * and others 2020, appendix C); empty words do not count. In scripts without spaces between words, each character is a word. Texts of fewer than 13
 * words are only found as whole documents.
 */
import { GradmixError } from "../errors.ts";

/** Number of consecutive words that do not match by chance. */
export const GRAM = 13;

/** Share of a document's 13-grams from which it is a near copy. */
const NEAR = 0.8;

/** Largest number of words of held-out text that are searched for: about 100 MB. */
const MOST_WORDS = 1 << 22;

/** Collects held-out documents. */
export interface HeldOutText {
  add(text: string): void;
  /** An index of all documents so far. */
  index(): OverlapIndex;
}

export interface OverlapIndex {
  /** Number of held-out documents, and of those that are searched for. */
  readonly documents: number;
  readonly looked: number;
  /** The overlap of a document with the held-out documents; null if there is none. */
  compare(text: string): Overlap | null;
  /** Number of held-out documents that were found so far; a run of words that several contain counts for the first of them. */
  found(): number;
}

export interface Overlap {
  /** "copy": the same words as a held-out document. "near copy": at least 80 % of its 13-grams occur in held-out documents. "part": at least one does. */
  readonly kind: "copy" | "near copy" | "part";
  /** The first words that occur in both, at most 13. */
  readonly words: string;
}

// The kind of a UTF-16 unit. A letter, mark or number is represented by its unit in lower case, above 0.
const UNKNOWN = 0;
const SPACE = -1;
const IGNORED = -2;
/** A character that is a word by itself. */
const SINGLE_CHARACTER = -3;
/** The first half of a surrogate pair, which must be classified as a whole. */
const PAIR = -4;

/** The kind of each unit, as far as it was needed. */
const units = new Int32Array(65536).fill(UNKNOWN);

function lookUp(unit: number): number {
  const character = String.fromCharCode(unit);
  const lower = character.toLowerCase();
  const kind = kindOf(character);
  return (units[unit] =
    unit >= 0xd800 && unit <= 0xdbff
      ? PAIR
      : kind < 0
        ? kind
        : lower.length === 1
          ? lower.charCodeAt(0)
          : unit);
}

const SPACELESS =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}]/u;

/** 1 for a letter, mark or number. */
function kindOf(character: string): number {
  if (/\p{White_Space}/u.test(character)) return SPACE;
  if (!/[\p{L}\p{M}\p{N}]/u.test(character)) return IGNORED;
  return SPACELESS.test(character) ? SINGLE_CHARACTER : 1;
}

const pairs = new Map<number, number>();
function kindOfPair(point: number): number {
  let kind = pairs.get(point);
  if (kind === undefined) pairs.set(point, (kind = kindOf(String.fromCodePoint(point))));
  return kind;
}

/** The words of a text, as `compare` sees them. */
export function wordsOf(text: string): string[] {
  const words: string[] = [];
  let word = "";
  const end = (): void => {
    if (word !== "") words.push(word);
    word = "";
  };
  for (const character of text) {
    const point = character.codePointAt(0) ?? 0;
    const kind = point > 0xffff ? kindOfPair(point) : units[point] || lookUp(point);
    if (kind === SPACE || kind === SINGLE_CHARACTER) end();
    if (kind === SINGLE_CHARACTER) words.push(character);
    if (kind > 0) word += point > 0xffff ? character : String.fromCharCode(kind);
  }
  end();
  return words;
}

const WORD_SEED = 0x811c9dc5 | 0;
const WORD_FACTOR = 0x01000193;
/** Factor of the hash, from one word to the next within a gram. */
const FACTOR = 0x9e3779b1 | 0;
/** FACTOR to the power of GRAM. */
const OLDEST = Array.from({ length: GRAM }).reduce((power: number) => Math.imul(power, FACTOR), 1);

/** `most` is the number of words that are searched for, in the order of the documents. */
export function heldOutText(most: number = MOST_WORDS): HeldOutText {
  const documents: string[][] = [];
  /** The document of which only a part of the words is searched for. */
  let cutOff: readonly string[] | null = null;
  let [count, words] = [0, 0];
  return {
    add(text) {
      count++;
      if (words >= most) return;
      const all = wordsOf(text);
      const own = all.slice(0, most - words);
      if (own.length < all.length) cutOff = own;
      words += own.length;
      documents.push(own);
    },
    index: () => overlapIndex(documents, count, cutOff),
  };
}

function overlapIndex(
  documents: readonly (readonly string[])[],
  count: number,
  cutOff: readonly string[] | null,
): OverlapIndex {
  /** All words, one after another. */
  const words = documents.flat();
  const hashes = Int32Array.from(words, hashOfWord);
  /** The grams by hash: the index of the first word of each. */
  const grams = hashTable(words.length);
  const wholes = new Map<number, number[]>();
  const seen = new Uint8Array(documents.length);
  const documentOf = new Int32Array(words.length);
  let start = 0;
  documents.forEach((own, d) => {
    documentOf.fill(d, start, start + own.length);
    let hash = 0;
    own.forEach((_, i) => {
      const at = start + i;
      hash = (Math.imul(hash, FACTOR) + hashes[at]!) | 0;
      if (i >= GRAM) hash = (hash - Math.imul(hashes[at - GRAM]!, OLDEST)) | 0;
      if (i >= GRAM - 1) grams.add(hash, at - GRAM + 1, (other) => sameWords(other, words, at - GRAM + 1));
    });
    const key = wholeKey(own.length, hash);
    const alike = wholes.get(key);
    if (own.length > 0 && own !== cutOff)
      if (alike === undefined) wholes.set(key, [d]);
      else alike.push(d);
    start += own.length;
  });

  function sameWords(at: number, others: readonly string[], from: number): boolean {
    for (let i = 0; i < GRAM; i++) if (words[at + i] !== others[from + i]) return false;
    return true;
  }

  const wholeOf = (hash: number, text: string): readonly string[] | null => {
    const alike = wholes.get(hash);
    if (alike === undefined) return null;
    const own = wordsOf(text);
    const found = alike.find(
      (d) => documents[d]!.length === own.length && documents[d]!.every((word, i) => word === own[i]),
    );
    if (found === undefined) return null;
    seen[found] = 1;
    return own;
  };

  const scan = gramScanner(grams.mayHold);
  return {
    documents: count,
    looked: documents.length,
    found: () => seen.reduce((sum, one) => sum + one, 0),
    compare(text) {
      let shared = 0;
      let first: readonly string[] | null = null;
      const { count: own, last } = scan(text, (hash, from, to) => {
        const gram = wordsOf(text.slice(from, to));
        const at = grams.find(hash, (other) => sameWords(other, gram, 0));
        if (at < 0) return;
        seen[documentOf[at]!] = 1;
        shared++;
        first ??= gram;
      });
      const copy = own === 0 ? null : wholeOf(wholeKey(own, last), text);
      if (copy !== null) return { kind: "copy", words: copy.slice(0, GRAM).join(" ") };
      if (first === null) return null;
      const kind = shared / (own - GRAM + 1) >= NEAR ? "near copy" : "part";
      return { kind, words: (first as readonly string[]).join(" ") };
    },
  };
}

function hashOfWord(word: string): number {
  let hash = WORD_SEED;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), WORD_FACTOR);
  return hash;
}

/** Key of a document, from the number of its words and the hash of its last gram. */
const wholeKey = (count: number, last: number): number => Math.imul(count, WORD_FACTOR) ^ last;

interface GramTable {
  /** Adds a gram, unless an equal one is there. */
  add(hash: number, word: number, isEqual: (word: number) => boolean): void;
  /** Whether a gram with that hash is there. */
  readonly mayHold: (hash: number) => boolean;
  /** The index of the first word of an equal gram, or −1. */
  find(hash: number, isEqual: (word: number) => boolean): number;
}

const SCATTER = 0x85ebca6b | 0;
/** A mask with two of 32 bits. */
const twoBits = (hash: number): number => (1 << (hash & 31)) | (1 << ((hash >>> 5) & 31));

/** Open addressing, at most half full, preceded by a bit filter that fits into a cache. */
function hashTable(most: number): GramTable {
  const size = 2 ** Math.ceil(Math.log2(Math.max(16, 2 * most)));
  if (size > 2 ** 30) throw new GradmixError("memory", `${most} words are more than can be compared`);
  const words = new Int32Array(size).fill(-1);
  const hashes = new Int32Array(size);
  const bits = new Uint32Array(size / 4);
  // The highest bits of a product depend on all bits of its factors. (`size` is at least 16.)
  const slotShift = 32 - Math.log2(size);
  const bitsShift = slotShift + 2;
  const slot = (hash: number, isEqual: (word: number) => boolean): number => {
    let at = Math.imul(hash, SCATTER) >>> slotShift;
    while (words[at]! >= 0 && !(hashes[at] === hash && isEqual(words[at]!))) at = (at + 1) & (size - 1);
    return at;
  };
  return {
    add(hash, word, isEqual) {
      const at = slot(hash, isEqual);
      if (words[at]! >= 0) return;
      words[at] = word;
      hashes[at] = hash;
      bits[Math.imul(hash, SCATTER) >>> bitsShift]! |= twoBits(hash);
    },
    mayHold(hash) {
      const mask = twoBits(hash);
      return (
        (bits[Math.imul(hash, SCATTER) >>> bitsShift]! & mask) === mask && words[slot(hash, () => true)]! >= 0
      );
    },
    find: (hash, isEqual) => words[slot(hash, isEqual)]!,
  };
}

type GramScanner = (
  text: string,
  candidate: (hash: number, from: number, to: number) => void,
) => { readonly count: number; readonly last: number };

/** Number of words that are hashed at a time. */
const BLOCK = 4096;

/**
 * Scans the words of a text without creating them: computes the hash of each gram and, for those that may match, the position. Words are hashed block
 * by block, and grams are computed from a block's hashes, so that the loop over characters does little.
 */
function gramScanner(mayHold: (hash: number) => boolean): GramScanner {
  // A block is preceded by the last words of the block before.
  const hashes = new Int32Array(GRAM + BLOCK);
  const ends = new Int32Array(GRAM + BLOCK);
  return (text, candidate) => {
    hashes.fill(0, 0, GRAM);
    ends.fill(0, 0, GRAM);
    let [count, gram] = [0, 0];
    const takeBlock = (until: number): void => {
      let g = gram;
      const first = GRAM + GRAM - 1 - Math.min(count, GRAM - 1);
      for (let k = GRAM; k < until; k++) {
        g = (Math.imul(g, FACTOR) + hashes[k]! - Math.imul(hashes[k - GRAM]!, OLDEST)) | 0;
        if (k >= first && mayHold(g)) candidate(g, ends[k - GRAM]!, ends[k]!);
      }
      [gram, count] = [g, count + until - GRAM];
      hashes.copyWithin(0, until - GRAM, until);
      ends.copyWithin(0, until - GRAM, until);
    };
    const n = text.length;
    let k = GRAM;
    let word = WORD_SEED;
    let inWord = false;
    for (let i = 0; i < n; i++) {
      const unit = text.charCodeAt(i);
      let kind = units[unit]!;
      if (kind > 0) {
        word = Math.imul(word ^ kind, WORD_FACTOR);
        inWord = true;
        continue;
      }
      // A character makes at most two words.
      if (k >= GRAM + BLOCK - 2) {
        takeBlock(k);
        k = GRAM;
      }
      const at = i;
      let low = 0;
      if (kind === UNKNOWN) kind = lookUp(unit);
      if (kind === PAIR) {
        const point = text.codePointAt(i) ?? 0;
        if (point > 0xffff) low = text.charCodeAt(++i);
        kind = low > 0 ? kindOfPair(point) : IGNORED;
      }
      if (kind === IGNORED) continue;
      if (kind < 0 && inWord) {
        hashes[k] = word;
        ends[k++] = at;
        word = WORD_SEED;
        inWord = false;
      }
      if (kind === SPACE) continue;
      word = Math.imul(word ^ (low === 0 && kind > 0 ? kind : unit), WORD_FACTOR);
      if (low > 0) word = Math.imul(word ^ low, WORD_FACTOR);
      inWord = kind !== SINGLE_CHARACTER;
      if (inWord) continue;
      hashes[k] = word;
      ends[k++] = i + 1;
      word = WORD_SEED;
    }
    if (inWord) {
      hashes[k] = word;
      ends[k++] = n;
    }
    takeBlock(k);
    return { count, last: gram };
  };
}
