/** Learns a byte-level BPE from texts (Sennrich et al. 2016). */
import type { CancelSignal } from "../cancel.ts";
import { giveTurn } from "../backends/turn.ts";
import { abortSignal, callback, checkOptions, integerIn, required, string, iterable } from "../options.ts";
import { bpeTokenizer, detach, type Merge, pairKey, splitKey } from "./bpe.ts";
import type { Tokenizer } from "./byte-level.ts";
import { gpt2Pieces } from "./pieces.ts";

/** During learning, longer pieces are cut: no useful token is that long, and a merge then only touches the cuts that contain its pair. */
const LONGEST_LEARNED = /.{1,128}/gsu;

/** Options of `trainBpe`. */
export interface TrainBpeOptions {
  /** Number of ids: 256 bytes, the merges, and the end of text. At least 257. */
  readonly vocabSize: number;
  /** Called at intervals with the number of merges found so far. */
  readonly onProgress?: (merges: number) => void;
  /** Cancels the learning between two merges; it then rejects with the signal's reason. */
  readonly signal?: CancelSignal;
}

/**
 * Learns merges from texts: the most frequent pair within pieces first, of equally frequent ones the one with the smaller ids. There are fewer merges
 * than requested if no pair occurs twice. Memory holds the distinct pieces, not the texts. Throws `config` for an invalid size.
 */
export async function trainBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  options: TrainBpeOptions,
): Promise<Tokenizer> {
  checkOptions<TrainBpeOptions>("trainBpe", options, {
    vocabSize: required(integerIn(257, 1_000_000)),
    onProgress: callback,
    signal: abortSignal,
  });
  const { vocabSize, onProgress, signal } = options;
  iterable("a list of strings")("trainBpe: texts", texts);
  const counts = new Map<string, number>();
  for await (const text of texts) {
    string("trainBpe: a text", text);
    for (const piece of gpt2Pieces(text))
      for (const [part] of piece.length <= 128 ? [[piece]] : piece.matchAll(LONGEST_LEARNED)) {
        const count = counts.get(part);
        // Only a new key is stored, so only it must be detached.
        if (count === undefined) counts.set(detach(part), 1);
        else counts.set(part, count + 1);
      }
  }

  const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const utf8 = new TextEncoder();
  const words = [...counts].map(([piece, count]) => ({ ids: Array.from(utf8.encode(piece)), count }));
  const pairs = new Map<number, { count: number; words: Set<number> }>();
  const countPair = (key: number, word: number, count: number): void => {
    let pair = pairs.get(key);
    if (pair === undefined) pairs.set(key, (pair = { count: 0, words: new Set() }));
    pair.count += count;
    if (count > 0) pair.words.add(word);
  };
  words.forEach(({ ids, count }, w) => {
    for (let i = 0; i + 1 < ids.length; i++) countPair(pairKey(ids[i]!, ids[i + 1]!), w, count);
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
    // Counts only fall after they were pushed; a count that rose was pushed again.
    if (pair.count !== top.count) {
      heap.push(top.key, pair.count);
      continue;
    }
    const [left, right] = splitKey(top.key);
    const joined = tokens.length;
    tokens.push(Uint8Array.from([...tokens[left]!, ...tokens[right]!]));
    merges.push({ left, right, joined });
    const risen = new Set<number>();
    for (const w of pair.words) {
      const { ids, count } = words[w]!;
      let to = 0;
      for (let from = 0; from < ids.length; from++) {
        if (ids[from] === left && ids[from + 1] === right) {
          // The pairs of the neighbours change: the one before is already written, the one after is still to come.
          if (to > 0) {
            countPair(pairKey(ids[to - 1]!, left), w, -count);
            countPair(pairKey(ids[to - 1]!, joined), w, count);
            risen.add(pairKey(ids[to - 1]!, joined));
          }
          if (from + 2 < ids.length) {
            countPair(pairKey(right, ids[from + 2]!), w, -count);
            countPair(pairKey(joined, ids[from + 2]!), w, count);
            risen.add(pairKey(joined, ids[from + 2]!));
          }
          ids[to++] = joined;
          from++;
        } else ids[to++] = ids[from]!;
      }
      ids.length = to;
    }
    pairs.delete(top.key);
    for (const key of risen) heap.push(key, pairs.get(key)?.count ?? 0);
    if (merges.length % 256 === 0) onProgress?.(merges.length);
  }
  return bpeTokenizer(tokens, merges, "bpe");
}

interface PairHeap {
  push(key: number, count: number): void;
  pop(): { key: number; count: number } | null;
}

/** A binary heap: the largest count first, then the smallest key. */
function pairHeap(): PairHeap {
  const items: { key: number; count: number }[] = [];
  const before = (a: number, b: number): boolean =>
    items[a]!.count > items[b]!.count ||
    (items[a]!.count === items[b]!.count && items[a]!.key < items[b]!.key);
  const swap = (a: number, b: number): void => {
    [items[a], items[b]] = [items[b]!, items[a]!];
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
