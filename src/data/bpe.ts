/**
 * Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019): learning merges, and encoding with them.
 */
import { giveTurn } from "../backends/turn.ts";
import { GradmixError } from "../errors.ts";
import { byteCharacters, END_OF_TEXT, type Tokenizer } from "./byte-level.ts";

export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly joined: number;
}

/** GPT-2's pieces: contractions, words, numbers, punctuation, each with a space before it, and runs of white space. */
const PIECES = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** Pairs of ids below 2²⁶ as one number. */
const pairKey = (left: number, right: number): number => left * 67108864 + right;

/** Pieces whose ids are remembered; words repeat, long pieces hardly ever. */
const CACHE_SIZE = 1 << 16;
const CACHED_LENGTH = 64;

/** From this many ids on a piece is merged with a heap: text without spaces (DNA, base64, some scripts) makes pieces of megabytes. */
const LONG_PIECE = 128;

/** When learning, longer pieces are cut: no useful token is as long, and a merge touches only the cuts that hold its pair. */
const LONGEST_LEARNED = /.{1,128}/gsu;

/** A piece as a string of its own. One cut from a text by a regular expression would keep the whole text in memory. */
const detach = (piece: string): string =>
  piece.length < 13 ? piece : Buffer.from(piece, "utf16le").toString("utf16le");

/** A tokenizer of tokens (their bytes by id, the 256 single bytes among them) and merges in order of rank. */
export function bpeTokenizer(
  tokens: readonly Uint8Array[],
  merges: readonly Merge[],
  kind: Tokenizer["kind"],
): Tokenizer {
  const endOfText = tokens.length;
  const ranks = new Map<number, number>();
  merges.forEach(({ left, right }, rank) => {
    if (!ranks.has(pairKey(left, right))) ranks.set(pairKey(left, right), rank);
  });
  const single = new Uint32Array(256);
  tokens.forEach((bytes, id) => {
    if (bytes.length === 1) single[bytes[0]] = id;
  });
  const utf8 = new TextEncoder();
  const cache = new Map<string, Uint32Array>();

  const encodePiece = (piece: string): Uint32Array => {
    const bytes = utf8.encode(piece);
    if (bytes.length >= LONG_PIECE) return mergeLong(Uint32Array.from(bytes, (byte) => single[byte]));
    const ids = Array.from(bytes, (byte) => single[byte]);
    for (;;) {
      let best = -1;
      let bestRank = Infinity;
      for (let i = 0; i + 1 < ids.length; i++) {
        const rank = ranks.get(pairKey(ids[i], ids[i + 1]));
        if (rank !== undefined && rank < bestRank) [best, bestRank] = [i, rank];
      }
      if (best < 0) return Uint32Array.from(ids);
      // All places of this merge at once, from the left.
      const { left, right, joined } = merges[bestRank];
      let to = best;
      for (let from = best; from < ids.length; from++) {
        if (ids[from] === left && ids[from + 1] === right) {
          ids[to++] = joined;
          from++;
        } else ids[to++] = ids[from];
      }
      ids.length = to;
    }
  };

  /** The same merges in O(n log n): places in a linked list, a heap of (rank, place) with the leftmost of the lowest rank on top. */
  const mergeLong = (ids: Uint32Array): Uint32Array => {
    const n = ids.length;
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const before = Int32Array.from(ids, (_, i) => i - 1);
    const alive = new Uint8Array(n).fill(1);
    const heap = numberHeap();
    const rankAt = (i: number): number =>
      next[i] < n ? (ranks.get(pairKey(ids[i], ids[next[i]])) ?? -1) : -1;
    const offer = (i: number): void => {
      const rank = rankAt(i);
      if (rank >= 0) heap.push(rank * 2 ** 31 + i);
    };
    for (let i = 0; i < n; i++) offer(i);
    for (let top = heap.pop(); top >= 0; top = heap.pop()) {
      const rank = Math.floor(top / 2 ** 31);
      const i = top % 2 ** 31;
      if (alive[i] === 0 || rankAt(i) !== rank) continue;
      ids[i] = merges[rank].joined;
      alive[next[i]] = 0;
      next[i] = next[next[i]];
      if (next[i] < n) before[next[i]] = i;
      offer(i);
      if (before[i] >= 0) offer(before[i]);
    }
    return ids.filter((_, i) => alive[i] === 1);
  };

  return {
    kind,
    vocabSize: tokens.length + 1,
    endOfText,
    encode(text) {
      if (merges.length === 0) return Uint32Array.from(utf8.encode(text), (byte) => single[byte]);
      let out = new Uint32Array(text.length + 16);
      let length = 0;
      for (const [piece] of text.matchAll(PIECES)) {
        let ids = cache.get(piece);
        if (ids === undefined) {
          ids = encodePiece(piece);
          if (piece.length <= CACHED_LENGTH) {
            if (cache.size >= CACHE_SIZE) cache.clear();
            cache.set(detach(piece), ids);
          }
        }
        if (length + ids.length > out.length) {
          const larger = new Uint32Array(2 * out.length + ids.length);
          larger.set(out.subarray(0, length));
          out = larger;
        }
        out.set(ids, length);
        length += ids.length;
      }
      return out.slice(0, length);
    },
    decode(ids) {
      const parts: Uint8Array[] = [];
      for (let i = 0; i < ids.length; i++) {
        const bytes = ids[i] === endOfText ? utf8.encode(END_OF_TEXT) : tokens[ids[i]];
        if (bytes !== undefined) parts.push(bytes);
      }
      const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(all);
    },
    toJSON() {
      const written = tokens.map((bytes) => Array.from(bytes, (byte) => byteCharacters[byte]).join(""));
      const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
      return {
        version: "1.0",
        truncation: null,
        padding: null,
        added_tokens: [
          {
            id: endOfText,
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
          vocab: Object.fromEntries<number>([
            ...written.map((token, id): [string, number] => [token, id]),
            [END_OF_TEXT, endOfText],
          ]),
          merges: merges.map(({ left, right }) => [written[left], written[right]]),
        },
      };
    },
  };
}

export interface TrainBpeOptions {
  /** Ids in all: 256 bytes, the merges, and the end of text. At least 257. */
  readonly vocabSize: number;
  /** Told the number of merges found so far, now and then. */
  readonly onProgress?: (merges: number) => void;
  /** Ends the learning, with its reason, between two merges. */
  readonly signal?: AbortSignal;
}

/**
 * Learns merges from texts: the most frequent pair inside pieces first, of equally frequent ones that of the smaller ids. Fewer merges come out when no
 * pair appears twice. What is held is the different pieces, not the texts. Throws `config` for an impossible size.
 */
export async function trainBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  options: TrainBpeOptions,
): Promise<Tokenizer> {
  const { vocabSize, onProgress, signal } = options;
  if (!Number.isInteger(vocabSize) || vocabSize < 257 || vocabSize > 1_000_000)
    throw new GradmixError("config", `vocabSize: ${vocabSize} is not an integer from 257 to 1000000`);
  const counts = new Map<string, number>();
  for await (const text of texts)
    for (const [piece] of text.matchAll(PIECES))
      for (const part of piece.match(LONGEST_LEARNED) ?? []) {
        const count = counts.get(part);
        // Only a new key is stored, so only it has to be detached.
        if (count === undefined) counts.set(detach(part), 1);
        else counts.set(part, count + 1);
      }

  const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const utf8 = new TextEncoder();
  const words = [...counts].map(([piece, count]) => ({ ids: Array.from(utf8.encode(piece)), count }));
  const pairs = new Map<number, { count: number; words: Set<number> }>();
  const note = (key: number, word: number, count: number): void => {
    let pair = pairs.get(key);
    if (pair === undefined) pairs.set(key, (pair = { count: 0, words: new Set() }));
    pair.count += count;
    if (count > 0) pair.words.add(word);
  };
  words.forEach(({ ids, count }, w) => {
    for (let i = 0; i + 1 < ids.length; i++) note(pairKey(ids[i], ids[i + 1]), w, count);
  });
  const heap = pairHeap();
  for (const [key, { count }] of pairs) heap.push(key, count);

  const merges: Merge[] = [];
  while (tokens.length < vocabSize - 1) {
    await giveTurn();
    signal?.throwIfAborted();
    const top = heap.pop();
    if (top === null) break;
    const pair = pairs.get(top.key);
    if (pair === undefined || pair.count < 2) continue;
    // Counts only fall after they were pushed, or were pushed again when they rose.
    if (pair.count !== top.count) {
      heap.push(top.key, pair.count);
      continue;
    }
    const left = Math.floor(top.key / 67108864);
    const right = top.key % 67108864;
    const joined = tokens.length;
    tokens.push(Uint8Array.from([...tokens[left], ...tokens[right]]));
    merges.push({ left, right, joined });
    pairs.delete(top.key);
    const risen = new Set<number>();
    for (const w of pair.words) {
      const { ids, count } = words[w];
      let to = 0;
      for (let from = 0; from < ids.length; from++) {
        if (ids[from] === left && ids[from + 1] === right) {
          // The neighbours' pairs change: the one before is already written, the one after is still to come.
          if (to > 0) {
            note(pairKey(ids[to - 1], left), w, -count);
            note(pairKey(ids[to - 1], joined), w, count);
            risen.add(pairKey(ids[to - 1], joined));
          }
          if (from + 2 < ids.length) {
            note(pairKey(right, ids[from + 2]), w, -count);
            note(pairKey(joined, ids[from + 2]), w, count);
            risen.add(pairKey(joined, ids[from + 2]));
          }
          ids[to++] = joined;
          from++;
        } else ids[to++] = ids[from];
      }
      ids.length = to;
    }
    pairs.delete(top.key);
    for (const key of risen) heap.push(key, pairs.get(key)?.count ?? 0);
    if (merges.length % 256 === 0) onProgress?.(merges.length);
  }
  return bpeTokenizer(tokens, merges, "bpe");
}

/** A binary heap of numbers ≥ 0, the least first; −1 when empty. */
function numberHeap(): { push(value: number): void; pop(): number } {
  const items: number[] = [];
  return {
    push(value) {
      let i = items.length;
      items.push(value);
      while (i > 0 && items[(i - 1) >> 1] > value) {
        items[i] = items[(i - 1) >> 1];
        i = (i - 1) >> 1;
      }
      items[i] = value;
    },
    pop() {
      const top = items[0] ?? -1;
      const last = items.pop();
      if (last === undefined || items.length === 0) return top;
      let i = 0;
      for (let child = 1; child < items.length; child = 2 * i + 1) {
        if (child + 1 < items.length && items[child + 1] < items[child]) child++;
        if (items[child] >= last) break;
        items[i] = items[child];
        i = child;
      }
      items[i] = last;
      return top;
    },
  };
}

interface PairHeap {
  push(key: number, count: number): void;
  pop(): { key: number; count: number } | null;
}

/** A binary heap: the largest count first, then the smallest key. */
function pairHeap(): PairHeap {
  const items: { key: number; count: number }[] = [];
  const before = (a: number, b: number): boolean =>
    items[a].count > items[b].count || (items[a].count === items[b].count && items[a].key < items[b].key);
  const swap = (a: number, b: number): void => {
    [items[a], items[b]] = [items[b], items[a]];
  };
  return {
    push(key, count) {
      items.push({ key, count });
      for (let i = items.length - 1; i > 0;) {
        const parent = (i - 1) >> 1;
        if (!before(i, parent)) return;
        swap(i, parent);
        i = parent;
      }
    },
    pop() {
      if (items.length === 0) return null;
      swap(0, items.length - 1);
      const top = items.pop() ?? null;
      for (let i = 0; ;) {
        const [a, b] = [2 * i + 1, 2 * i + 2];
        let best = i;
        if (a < items.length && before(a, best)) best = a;
        if (b < items.length && before(b, best)) best = b;
        if (best === i) return top;
        swap(i, best);
        i = best;
      }
    },
  };
}
