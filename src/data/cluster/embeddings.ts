/**
 * Embeddings of texts without any model: hashed TF-IDF, a sparse random projection, and the leading directions of the result (latent semantic
 * analysis; Deerwester et al. 1990, by subspace iteration as in Halko et al. 2011), scaled to unit length. They are fitted on a sample of the texts;
 * then any text can be embedded.
 */
import { giveTurn } from "../../backends/turn.ts";
import type { CancelSignal } from "../../cancel.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { transpose } from "../../autograd/ops/shape.ts";
import { add } from "../../autograd/ops/arithmetic.ts";
import { GradmixError } from "../../errors.ts";
import {
  abortSignal,
  checkOptions,
  integerIn,
  type OptionCheck,
  objectWith,
  valueThat,
} from "../../options.ts";
import { key, threefry2x32 } from "../../tensor/rng.ts";
import { scope, type Tensor, tensor } from "../../tensor/tensor.ts";
import { embedderDefaults } from "../defaults.ts";
import type { Points } from "./points.ts";

/** Options of `fitEmbedder`. */
export interface EmbedderOptions {
  /** Numbers per text, at most 2,048. Default 128. */
  readonly dim?: number;
  /** Seed of the projection. Default 1. */
  readonly seed?: number;
  /** Cancels the fit, which then throws the signal's reason. */
  readonly signal?: CancelSignal;
}

/** A fitted embedder of texts: plain JSON except for the arrays. */
export interface Embedder {
  /** Numbers per text. */
  readonly dim: number;
  /** Seed of the projection. */
  readonly seed: number;
  /** Weight of each hashed word [FEATURES]: ln((1 + n)/(1 + n_w)) + 1, where n_w of n texts contain the word. */
  readonly idf: Float32Array;
  /** The leading directions [dim, PROJECTED], row-major. */
  readonly directions: Float32Array;
}

/** Number of hashed words; words are distinguished by 18 bits of their hash, as in Weinberger et al. 2009. */
export const FEATURES: number = 1 << 18;
/** Numbers of a text after the random projection, before the leading directions are taken. */
export const PROJECTED = 2048;
export const dimCheck: OptionCheck = integerIn(1, PROJECTED);
/** Number of positions to which a word is projected (sparse Johnson–Lindenstrauss; Kane and Nelson 2014). */
const PLACES = 8;
/** Number of subspace iterations. The last directions converge last and matter least. */
const ITERATIONS = 12;
/** Number of texts that are projected at once. */
const BLOCK = 2048;

const checkEmbedder = objectWith("an embedder of fitEmbedder", "dim", "seed", "idf", "directions");

/** Accepts a list of texts. */
export const checkTexts: OptionCheck = valueThat(
  "a list of strings",
  (value) => Array.isArray(value) && value.every((text) => typeof text === "string"),
);

/**
 * Fits an embedder to texts: the weights of words and the leading directions. A few thousand texts suffice. Needs a backend (`init`). Throws `config`
 * for options out of range, and `data` if no text has a word.
 */
export async function fitEmbedder(
  texts: readonly string[],
  options: EmbedderOptions = {},
): Promise<Embedder> {
  checkOptions<EmbedderOptions>("fitEmbedder", options, {
    dim: dimCheck,
    seed: integerIn(0),
    signal: abortSignal,
  });
  const { dim = embedderDefaults.dim, seed = embedderDefaults.seed, signal } = options;
  checkTexts("fitEmbedder: texts", texts);
  const counted: ReadonlyMap<number, number>[] = [];
  for (const text of texts) {
    await giveTurn();
    signal?.throwIfAborted();
    counted.push(countWords(text));
  }
  const idf = new Float32Array(FEATURES);
  for (const words of counted) for (const word of words.keys()) idf[word]!++;
  for (let f = 0; f < FEATURES; f++) idf[f] = Math.log((1 + texts.length) / (1 + idf[f]!)) + 1;
  const rank = counted.filter((words) => words.size > 0).length;
  if (rank === 0) throw new GradmixError("data", "fitEmbedder: no text contains a word");
  const places = placesOf(seed);
  let covariance: Tensor | null = null;
  try {
    for (let from = 0; from < counted.length; from += BLOCK) {
      await giveTurn();
      signal?.throwIfAborted();
      const block = counted.slice(from, from + BLOCK);
      const rows = projected(block, idf, places);
      const before: Tensor | null = covariance;
      covariance = scope(() => {
        const x = tensor(rows, [block.length, PROJECTED]);
        const own = matmul(transpose(x), x);
        return before === null ? own : add(before, own);
      });
      before?.dispose();
    }
    if (covariance === null) throw new GradmixError("data", "fitEmbedder: there is no text");
    return { dim, seed, idf, directions: await leadingDirections(covariance, { dim, rank, seed, signal }) };
  } finally {
    covariance?.dispose();
  }
}

/** Embeds texts as points of unit length [texts · dim]; a text without a word is the zero point. Needs a backend (`init`). */
export async function embedTexts(
  embedder: Embedder,
  texts: readonly string[],
  signal?: CancelSignal,
): Promise<Points> {
  checkEmbedder("embedTexts: embedder", embedder);
  checkTexts("embedTexts: texts", texts);
  const { dim, seed, idf, directions } = embedder;
  const places = placesOf(seed);
  const values = new Float32Array(texts.length * dim);
  const weight = tensor(directions, [dim, PROJECTED]);
  try {
    for (let from = 0; from < texts.length; from += BLOCK) {
      signal?.throwIfAborted();
      const block = texts.slice(from, from + BLOCK).map(countWords);
      const y = scope(() => linear(tensor(projected(block, idf, places), [block.length, PROJECTED]), weight));
      try {
        values.set(await y.data(), from * dim);
      } finally {
        y.dispose();
      }
    }
  } finally {
    weight.dispose();
  }
  toUnitLength(values, dim);
  return { values, dim };
}

/** Scales rows to unit length in place; rows of zeros stay. */
export function toUnitLength(values: Float32Array, dim: number): void {
  for (let at = 0; at < values.length; at += dim) {
    const norm = Math.hypot(...values.subarray(at, at + dim));
    if (norm > 0) for (let d = at; d < at + dim; d++) values[d]! /= norm;
  }
}

/** Scripts without spaces between words; there, pairs of characters replace words. */
const unspaced =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const wordsIn = /[\p{L}\p{M}\p{N}_]+/gu;

/** How often each word occurs in a text, by its hash. */
export function countWords(text: string): ReadonlyMap<number, number> {
  const counts = new Map<number, number>();
  for (const word of wordsOf(text)) {
    const hash = hashOf(word) & (FEATURES - 1);
    counts.set(hash, (counts.get(hash) ?? 0) + 1);
  }
  return counts;
}

/** The words of a text in lower case, with at least two characters. */
export function* wordsOf(text: string): Generator<string, void, undefined> {
  for (const [run] of text.toLowerCase().matchAll(wordsIn)) {
    if (!unspaced.test(run)) {
      if (run.length > 1) yield run;
      continue;
    }
    const characters = Array.from(run);
    if (characters.length === 1) yield run;
    for (let i = 1; i < characters.length; i++) yield characters[i - 1]! + characters[i]!;
  }
}

/** FNV-1a over UTF-16 units, followed by the finaliser of MurmurHash3. */
export function hashOf(word: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The positions of word f in the projection: position · 2 + (sign < 0), PLACES for each word. */
type Places = (word: number) => Uint16Array;

function placesOf(seed: number): Places {
  const [k0, k1] = key(seed);
  const known = new Map<number, Uint16Array>();
  return (word) => {
    let places = known.get(word);
    if (places === undefined) {
      places = new Uint16Array(PLACES);
      for (let p = 0; p < PLACES; p += 2)
        places.set(
          threefry2x32(k0, k1, word, p).map((bits) => bits & (2 * PROJECTED - 1)),
          p,
        );
      known.set(word, places);
    }
    return places;
  };
}

/** TF-IDF, with 1 + ln of the count, scaled to unit length and projected: [texts · PROJECTED]. */
function projected(
  texts: readonly ReadonlyMap<number, number>[],
  idf: Float32Array,
  places: Places,
): Float32Array {
  const out = new Float32Array(texts.length * PROJECTED);
  texts.forEach((words, i) => {
    let square = 0;
    for (const [word, count] of words) square += ((1 + Math.log(count)) * idf[word]!) ** 2;
    const scale = square === 0 ? 0 : 1 / Math.sqrt(square * PLACES);
    for (const [word, count] of words) {
      const value = (1 + Math.log(count)) * idf[word]! * scale;
      for (const place of places(word))
        out[i * PROJECTED + (place >> 1)]! += (place & 1) === 0 ? value : -value;
    }
  });
  return out;
}

/**
 * The eigenvectors of a symmetric matrix of at most this rank with the largest eigenvalues, as rows [dim, PROJECTED], by subspace iteration. They are
 * accurate as a subspace, not one by one. Rows past the rank are 0.
 */
async function leadingDirections(
  covariance: Tensor,
  { dim, rank, seed, signal }: { dim: number; rank: number; seed: number; signal?: CancelSignal | undefined },
): Promise<Float32Array> {
  const [k0, k1] = key(seed);
  const count = Math.min(dim, rank);
  const all = new Float32Array(dim * PROJECTED);
  const directions = all.subarray(0, count * PROJECTED);
  for (let i = 0; i < directions.length; i++)
    directions[i] = threefry2x32(k0, k1, i, 0x5eed)[0] / 2 ** 31 - 1;
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    await orthonormalise(directions, PROJECTED, signal);
    const next = scope(() => linear(tensor(directions, [count, PROJECTED]), covariance));
    try {
      directions.set(await next.data());
    } finally {
      next.dispose();
    }
  }
  await orthonormalise(directions, PROJECTED, signal);
  return all;
}

/**
 * Gram–Schmidt orthonormalisation of rows, twice each because of rounding. A row that depends on those before it becomes 0. The time grows with the
 * square of the number of rows, so signals are handled after each.
 */
async function orthonormalise(rows: Float32Array, width: number, signal?: CancelSignal): Promise<void> {
  /** Where the rows before this one begin that are not 0. */
  const others: number[] = [];
  for (let at = 0; at < rows.length; at += width) {
    await giveTurn();
    signal?.throwIfAborted();
    const row = rows.subarray(at, at + width);
    const size = lengthOf(row);
    if (size === 0) continue;
    for (let pass = 0; pass < 2; pass++)
      for (const other of others) {
        let dot = 0;
        for (let d = 0; d < width; d++) dot += row[d]! * rows[other + d]!;
        for (let d = 0; d < width; d++) row[d]! -= dot * rows[other + d]!;
      }
    const left = lengthOf(row);
    const scale = left > 1e-5 * size ? 1 / left : 0;
    for (let d = 0; d < width; d++) row[d]! *= scale;
    if (scale > 0) others.push(at);
  }
}

function lengthOf(row: Float32Array): number {
  let square = 0;
  for (const value of row) square += value * value;
  return Math.sqrt(square);
}
