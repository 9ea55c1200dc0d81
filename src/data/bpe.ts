/** Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019): encodes with merges that were learned (train-bpe.ts) or read (tokenizer.ts). */
import { callback, numberList, string } from "../options.ts";
import { GradmixError } from "../errors.ts";
import { END_OF_TEXT, readBytes, type Tokenizer, writeBytes } from "./byte-level.ts";
import { byteLevelJson } from "./byte-level-json.ts";
import { joinBytes, readable } from "./bytes.ts";
import { LONGEST_PIECE, NO_RANK, pairRanks, pieceTable } from "./piece-table.ts";
import { gpt2Pieces, pieceCursor } from "./pieces.ts";
import { escapePattern, gpt2PreTokenizer, type Normalizer, type PreTokenizer } from "./pre-tokenizer.ts";

export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly joined: number;
}

/** Encodes a pair of ids below 2²⁶ as one number. */
export const pairKey = (left: number, right: number): number => left * 67108864 + right;
export const splitKey = (pair: number): [left: number, right: number] => [
  Math.floor(pair / 67108864),
  pair % 67108864,
];

/** Number of pieces whose ids are cached, for pre-tokenizers other than GPT-2's. */
const CACHE_SIZE = 1 << 16;

/** Pieces of at least this many ids are merged with a heap: text without spaces (DNA, base64, some scripts) makes pieces of megabytes. */
const LONG_PIECE = 128;

/** Number of ids that are passed on at a time. */
const BLOCK = 1 << 14;

/** Copies a piece into a string of its own; a slice of a text would keep the whole text in memory. */
export const detach = (piece: string): string =>
  piece.length < 13
    ? piece
    : String.fromCharCode(...Array.from({ length: piece.length }, (_, i) => piece.charCodeAt(i)));

/** An added token that occurs in text. It is one token wherever it occurs, before anything else is matched. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Whether it is searched for in the normalized text instead of the original text. */
  readonly normalized: boolean;
  /** Whether it is a special token. Text that spells a special token stays text; it only hides other added tokens within it. */
  readonly special: boolean;
}

export interface TokenizerParts {
  readonly kind: Tokenizer["kind"];
  /** The bytes of each token, by id. */
  readonly tokens: readonly Uint8Array[];
  readonly endOfText: number;
  /** The token of each byte, or −1. */
  readonly bytes: Int32Array;
  /** Merges in order of rank. */
  readonly merges: readonly Merge[];
  readonly preTokenizer?: PreTokenizer;
  readonly normalizer?: Normalizer | null;
  readonly added?: readonly AddedToken[];
  /** Tokens by their bytes, if a piece that is a token is not merged but taken as a whole (`ignore_merges`). */
  readonly wholePieces?: ReadonlyMap<string, number> | null;
  /** The token for bytes without a token; with `fuse`, one for several in a row. Default: such text is refused. */
  readonly unknown?: { readonly id: number; readonly fuse: boolean } | null;
  readonly toJSON: () => Record<string, unknown>;
}

/** Makes a tokenizer from its parts. */
export function tokenizerOf(parts: TokenizerParts): Tokenizer {
  const { kind, tokens, endOfText, normalizer = null } = parts;
  const segments = segmenter(parts.added ?? [], normalizer);
  const encodeSegment = isByBytes(parts) ? byteEncoder(parts.bytes) : pieceEncoder(parts);

  const encodeBlocks = (text: string, onBlock: (ids: Uint32Array) => void): void => {
    string("tokenizer.encode: text", text);
    callback("tokenizer.encodeBlocks: onBlock", onBlock);
    const block = new Uint32Array(Math.min(BLOCK, text.length + 1));
    let length = 0;
    const put: Put = (ids, start, end) => {
      for (let from = start; from < end;) {
        const count = Math.min(block.length - length, end - from);
        for (let i = 0; i < count; i++) block[length + i] = ids[from + i]!;
        length += count;
        from += count;
        if (length === block.length) {
          onBlock(block);
          length = 0;
        }
      }
    };
    for (const segment of segments(text))
      if (typeof segment === "number") put(Uint32Array.of(segment), 0, 1);
      else encodeSegment(segment, put);
    if (length > 0) onBlock(block.subarray(0, length));
  };

  return {
    kind,
    vocabSize: tokens.length,
    endOfText,
    encodeBlocks,
    encode(text) {
      const blocks: Uint32Array[] = [];
      encodeBlocks(text, (ids) => blocks.push(ids.slice()));
      return joinIds(blocks);
    },
    decode(ids) {
      numberList("tokenizer.decode: ids", ids);
      const parts: Uint8Array[] = [];
      for (let i = 0; i < ids.length; i++) {
        const bytes = tokens[ids[i]!];
        if (bytes !== undefined) parts.push(bytes);
      }
      return readable(joinBytes(parts));
    },
    toJSON: parts.toJSON,
  };
}

function joinIds(blocks: readonly Uint32Array[]): Uint32Array {
  if (blocks.length === 1) return blocks[0]!;
  const out = new Uint32Array(blocks.reduce((n, block) => n + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    out.set(block, at);
    at += block.length;
  }
  return out;
}

/** Receives the ids of an array from `from` (included) to `to` (excluded). */
type Put = (ids: Uint32Array, from: number, to: number) => void;

/** Passes on the ids of a text, in order. */
type SegmentEncoder = (text: string, put: Put) => void;

/** Whether every byte is a token and nothing is merged, so that pieces do not matter. */
function isByBytes({
  merges,
  wholePieces = null,
  bytes,
  preTokenizer = gpt2PreTokenizer,
}: TokenizerParts): boolean {
  return merges.length === 0 && wholePieces === null && preTokenizer.complete && !bytes.includes(-1);
}

function byteEncoder(bytes: Int32Array): SegmentEncoder {
  const utf8 = new TextEncoder();
  return (text, put) => {
    const room = Math.min(BLOCK, text.length) + 1;
    const scratch = new Uint8Array(3 * room);
    const ids = new Uint32Array(3 * room);
    for (let from = 0; from < text.length;) {
      const { read, written } = utf8.encodeInto(text.slice(from, from + room), scratch);
      // A part ends between characters: if the cut divides a surrogate pair, its first half is left for the next part.
      const cutPair = from + read < text.length && isHigh(text.charCodeAt(from + read - 1));
      const count = written - (cutPair ? 3 : 0);
      for (let i = 0; i < count; i++) ids[i] = bytes[scratch[i]!]!;
      put(ids, 0, count);
      from += read - (cutPair ? 1 : 0);
    }
  };
}

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdbff;

function pieceEncoder(parts: TokenizerParts): SegmentEncoder {
  const { merges, wholePieces = null, preTokenizer = gpt2PreTokenizer } = parts;
  const utf8 = new TextEncoder();
  const bytesOf = (piece: string): Uint8Array =>
    preTokenizer.written ? (readBytes(piece) ?? new Uint8Array(0)) : utf8.encode(piece);
  const idsOf = byteIds(parts);
  const merge = merger(merges);

  const encodePiece = (piece: string): Uint32Array => {
    const bytes = bytesOf(piece);
    const id = wholePieces?.get(writeBytes(bytes));
    return id === undefined ? merge(idsOf(bytes)) : Uint32Array.of(id);
  };

  // For GPT-2's pieces, the text need not be cut into strings.
  return preTokenizer.pieces === gpt2Pieces && !preTokenizer.written
    ? tableEncoder(encodePiece)
    : stringEncoder(preTokenizer, encodePiece);
}

type EncodePiece = (piece: string) => Uint32Array;

function tableEncoder(encodePiece: EncodePiece): SegmentEncoder {
  const table = pieceTable();
  return (text, put) => {
    const cursor = pieceCursor(text);
    while (cursor.next()) {
      const { units, from, to } = cursor;
      const isShort = to - from <= LONGEST_PIECE;
      const known = isShort ? table.find(units, from, to) : -1;
      if (known >= 0) put(table.records, known + 2, known + 2 + table.records[known]!);
      else {
        const ids = encodePiece(text.slice(cursor.start + from, cursor.start + to));
        if (isShort) table.add(units, from, to, ids);
        put(ids, 0, ids.length);
      }
    }
  };
}

function stringEncoder(preTokenizer: PreTokenizer, encodePiece: EncodePiece): SegmentEncoder {
  const cache = new Map<string, Uint32Array>();
  return (text, put) => {
    for (const piece of preTokenizer.pieces(text)) {
      let ids = cache.get(piece);
      if (ids === undefined) {
        ids = encodePiece(piece);
        if (piece.length <= LONGEST_PIECE) {
          if (cache.size >= CACHE_SIZE) cache.clear();
          cache.set(detach(piece), ids);
        }
      }
      put(ids, 0, ids.length);
    }
  };
}

/** The tokens of single bytes. Throws `data` for a byte without a token, unless the tokenizer has a token for unknown bytes. */
function byteIds({ bytes: ids, unknown = null }: TokenizerParts): (bytes: Uint8Array) => Uint32Array {
  return (bytes) => {
    const out = new Uint32Array(bytes.length);
    let length = 0;
    let inUnknown = false;
    for (const byte of bytes) {
      const id = ids[byte]!;
      if (id < 0 && unknown === null)
        throw new GradmixError(
          "data",
          `the tokenizer has no token for the byte 0x${byte.toString(16)}, which is in ${JSON.stringify(readable(bytes.subarray(0, 40)))}; use one whose vocabulary has all 256 bytes (in Hugging Face's BpeTrainer: initial_alphabet = ByteLevel.alphabet())`,
        );
      if (id >= 0) out[length++] = id;
      else if (unknown !== null && !(inUnknown && unknown.fuse)) out[length++] = unknown.id;
      inUnknown = id < 0;
    }
    return out.subarray(0, length);
  };
}

/** Merges the ids of a piece: the pair of the lowest rank first, and of equal ones the leftmost. May change the given array. */
function merger(merges: readonly Merge[]): (ids: Uint32Array) => Uint32Array {
  const rankOf = pairRanks(merges);
  const inOrder = isInOrder(merges);
  /** The rank of each id with the following one. */
  const ranks = new Int32Array(LONG_PIECE);
  return (ids) => (inOrder && ids.length < LONG_PIECE ? mergeShort(ids) : mergeLong(ids));

  function mergeShort(ids: Uint32Array): Uint32Array {
    let length = ids.length;
    for (let i = 0; i + 1 < length; i++) ranks[i] = rankOf(ids[i]!, ids[i + 1]!);
    for (;;) {
      let best = -1;
      let bestRank = NO_RANK;
      for (let i = 0; i + 1 < length; i++) if (ranks[i]! < bestRank) bestRank = ranks[(best = i)]!;
      if (best < 0) return ids.slice(0, length);
      // All occurrences of this merge at once, from the left: no pair that results from it can have a lower rank.
      const { left, right, joined } = merges[bestRank]!;
      let to = best;
      let afterJoined = false;
      for (let from = best; from < length;) {
        const joins = from + 1 < length && ids[from] === left && ids[from + 1] === right;
        const id = joins ? joined : ids[from]!;
        if (to > 0) ranks[to - 1] = joins || afterJoined ? rankOf(ids[to - 1]!, id) : ranks[from - 1]!;
        ids[to++] = id;
        from += joins ? 2 : 1;
        afterJoined = joins;
      }
      length = to;
    }
  }

  /**
   * The same in O(n log n), one occurrence at a time: positions in a linked list, and a heap of (rank, position) with the leftmost of the lowest rank
   * on top.
   */
  function mergeLong(ids: Uint32Array): Uint32Array {
    const n = ids.length;
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const before = Int32Array.from(ids, (_, i) => i - 1);
    const alive = new Uint8Array(n).fill(1);
    const heap = numberHeap(n);
    const rankAt = (i: number): number => (next[i]! < n ? rankOf(ids[i]!, ids[next[i]!]!) : NO_RANK);
    const offer = (i: number): void => {
      const rank = rankAt(i);
      if (rank < NO_RANK) heap.push(rank * 2 ** 31 + i);
    };
    for (let i = 0; i < n; i++) offer(i);
    for (let top = heap.pop(); top >= 0; top = heap.pop()) {
      const rank = Math.floor(top / 2 ** 31);
      const i = top % 2 ** 31;
      if (alive[i] === 0 || rankAt(i) !== rank) continue;
      ids[i] = merges[rank]!.joined;
      alive[next[i]!] = 0;
      next[i] = next[next[i]!]!;
      if (next[i] < n) before[next[i]] = i;
      offer(i);
      if (before[i]! >= 0) offer(before[i]!);
    }
    return ids.filter((_, i) => alive[i] === 1);
  }
}

/** Whether each merge comes after those that make its two tokens, as in learned merges. */
function isInOrder(merges: readonly Merge[]): boolean {
  const madeLast = new Map<number, number>();
  merges.forEach(({ joined }, rank) => madeLast.set(joined, rank));
  return merges.every(
    ({ left, right }, rank) => (madeLast.get(left) ?? -1) < rank && (madeLast.get(right) ?? -1) < rank,
  );
}

/**
 * Cuts a text at added tokens into ids and the texts between them, normalized. Of several added tokens at a position, the longest is taken. As in
 * Hugging Face's library, tokens that are not `normalized` are searched for in the original text, and the others in the normalized remainder.
 */
function segmenter(
  added: readonly AddedToken[],
  normalizer: Normalizer | null,
): (text: string) => Iterable<string | number> {
  const normalize = normalizer ?? ((text: string): string => text);
  // A lone half of a surrogate pair has no bytes; it becomes U+FFFD before patterns are matched.
  const wellFormed = (text: string): string =>
    // Most texts contain no surrogates at all, which is a faster test.
    /[\ud800-\udfff]/.test(text) && /\p{Cs}/u.test(text) ? text.replaceAll(/\p{Cs}/gu, "\ufffd") : text;
  const raw = finder(added.filter(({ normalized }) => !normalized));
  const inNormalized = finder(
    added
      .filter(({ normalized }) => normalized)
      .map((token) => ({ ...token, content: normalize(token.content) })),
  );
  if (raw === null && inNormalized === null && normalizer === null) return (text) => [wellFormed(text)];
  return function* (text) {
    for (const part of raw?.(wellFormed(text)) ?? [wellFormed(text)])
      if (typeof part === "number") yield part;
      else yield* inNormalized?.(normalize(part)) ?? [normalize(part)];
  };
}

/** Finds added tokens in a text; null if no text can contain one. */
function finder(added: readonly AddedToken[]): ((text: string) => Iterable<string | number>) | null {
  if (added.every(({ special }) => special)) return null;
  const byContent = new Map(added.map((token) => [token.content, token]));
  const pattern = new RegExp(
    added
      .map(({ content }) => content)
      .filter((content) => content !== "")
      .sort((a, b) => b.length - a.length)
      .map(escapePattern)
      .join("|"),
    "gu",
  );
  return function* (text) {
    let end = 0;
    for (const { 0: content, index } of text.matchAll(pattern)) {
      const token = byContent.get(content);
      if (token === undefined || token.special) continue;
      if (index > end) yield text.slice(end, index);
      yield token.id;
      end = index + content.length;
    }
    if (end < text.length) yield text.slice(end);
  };
}

/** A binary heap of numbers ≥ 0, the smallest first; `pop` returns −1 if it is empty. */
export function numberHeap(capacity: number): { push(value: number): void; pop(): number } {
  let items = new Float64Array(capacity);
  let size = 0;
  return {
    push(value) {
      if (size === items.length) {
        const larger = new Float64Array(2 * size + 16);
        larger.set(items);
        items = larger;
      }
      let i = size++;
      while (i > 0 && items[(i - 1) >> 1]! > value) {
        items[i] = items[(i - 1) >> 1]!;
        i = (i - 1) >> 1;
      }
      items[i] = value;
    },
    pop() {
      if (size === 0) return -1;
      const top = items[0]!;
      const last = items[--size]!;
      let i = 0;
      for (let child = 1; child < size; child = 2 * i + 1) {
        if (child + 1 < size && items[child + 1]! < items[child]!) child++;
        if (items[child]! >= last) break;
        items[i] = items[child]!;
        i = child;
      }
      items[i] = last;
      return top;
    },
  };
}

/**
 * Makes a tokenizer with GPT-2's pieces from learned tokens (their bytes by id, including the 256 single bytes) and merges in order of rank. The
 * end-of-text token gets the next id.
 */
export function bpeTokenizer(
  learned: readonly Uint8Array[],
  merges: readonly Merge[],
  kind: Tokenizer["kind"],
): Tokenizer {
  const endOfText = learned.length;
  const bytes = new Int32Array(256).fill(-1);
  learned.forEach((token, id) => {
    if (token.length === 1) bytes[token[0]!] = id;
  });
  return tokenizerOf({
    kind,
    tokens: [...learned, new TextEncoder().encode(END_OF_TEXT)],
    endOfText,
    bytes,
    merges,
    toJSON: () => learnedJson(learned, merges, endOfText),
  });
}

function learnedJson(
  learned: readonly Uint8Array[],
  merges: readonly Merge[],
  endOfText: number,
): Record<string, unknown> {
  const written = learned.map(writeBytes);
  return byteLevelJson({
    special: [{ id: endOfText, content: END_OF_TEXT }],
    pattern: null,
    ignoreMerges: false,
    vocab: [...written.map((token, id) => [token, id] as const), [END_OF_TEXT, endOfText]],
    merges: merges.map(({ left, right }) => [written[left], written[right]]),
  });
}
