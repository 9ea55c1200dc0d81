/**
 * Streams of tokens: documents one after another, each ended by the end-of-text token, with their boundaries.
 *
 * Tokens of text are kept in memory, with two bytes each if the vocabulary allows it (a corpus of a billion tokens takes 2 GB); the text is not kept.
 * Tokens in files are read when they are requested (stored-tokens.ts).
 */
import { GradmixError } from "../errors.ts";
import type { TokenBatch } from "../nn/model.ts";
import {
  checkOptions,
  checkRange,
  oneOf,
  integerIn,
  numberList,
  objectWith,
  type OptionCheck,
  show,
  showKind,
} from "../options.ts";
import type { Dataset } from "./dataset.ts";

/** Whether the ids of a vocabulary need more than 16 bits each. */
export const isWide = (vocabSize: number): boolean => vocabSize > 2 ** 16;

/** Tokens by position, as an array in memory or in files. */
export interface StoredTokens {
  /** Number of tokens. */
  readonly length: number;
  /**
   * The ids from position `from` (included) to `to` (excluded), as far as they exist: a view or a copy, which must not be changed. Throws `data` for
   * files that can no longer be read.
   */
  subarray(from: number, to: number): Uint16Array | Uint32Array;
}

/** A stream of tokens, in memory or in files, with its documents. */
export interface StoredStream {
  /** The ids. */
  readonly tokens: StoredTokens;
  /** Where each document starts, and after them the stream's length. */
  readonly documents: Float64Array;
  /** The largest id or an upper bound of it, if it is known. */
  readonly largest?: number;
}

/** A stream of tokens in memory. */
export interface TokenStream extends StoredStream {
  /** The ids, in memory. */
  readonly tokens: Uint16Array | Uint32Array;
}

/** Collects documents into a stream of tokens. `tokenWriter` makes one. */
export interface TokenWriter {
  /** Appends tokens to the current document. */
  append(ids: ArrayLike<number>): void;
  /** Ends the document with the end-of-text token. */
  end(): void;
  /** Appends a document's tokens and the end-of-text token. */
  document(ids: ArrayLike<number>): void;
  /** Returns the stream and empties the writer; a document that was not ended ends here. Throws `memory` if the tokens do not fit into memory. */
  finish(): TokenStream;
}

/** Token ids in memory. Not part of the package's interface. */
export type Tokens = Uint16Array | Uint32Array;

/** An ArrayBuffer that can be made smaller (ES2024), which frees its memory at once instead of at some garbage collection. */
interface Resizable extends ArrayBuffer {
  resize(bytes: number): void;
}
const resizable = (bytes: number): Resizable =>
  Reflect.construct(ArrayBuffer, [bytes, { maxByteLength: bytes }]) as Resizable;

/** Bytes of the pieces in which a writer collects tokens: the first, and the largest. Each is twice as large as the one before. */
const FIRST_PIECE = 1 << 10;
const LARGEST_PIECE = 1 << 22;
/** Smaller pieces are plain buffers: each resizable one takes a part of the address space, of which a process has about 65,000. */
const LEAST_RESIZABLE = 1 << 17;

interface Piece {
  readonly tokens: Tokens;
  /** null if the buffer cannot be resized and is left to garbage collection. */
  readonly buffer: Resizable | null;
}

/** Tokens in pieces: nothing is copied until they are joined, and each piece's memory is then freed one after another. */
interface Pieces {
  append(ids: ArrayLike<number>): void;
  /** Moves the tokens of other pieces to the end of these. */
  moveFrom(other: Pieces): void;
  /** Returns the collected pieces. */
  release(): Piece[];
  join(): Tokens;
}

function tokenPieces(wide: boolean): Pieces {
  let done: Piece[] = [];
  let buffer: Resizable | null = null;
  let current: Tokens = new Uint16Array(0);
  let used = 0;
  let size = FIRST_PIECE;
  const close = (): void => {
    if (used > 0) done.push({ tokens: current.subarray(0, used), buffer });
    [buffer, current, used] = [null, new Uint16Array(0), 0];
  };
  const open = (): void => {
    close();
    buffer = size < LEAST_RESIZABLE ? null : resizable(size);
    const memory = buffer ?? new ArrayBuffer(size);
    current = wide ? new Uint32Array(memory) : new Uint16Array(memory);
    size = Math.min(2 * size, LARGEST_PIECE);
  };
  const release = (): Piece[] => {
    close();
    const given = done;
    done = [];
    return given;
  };
  return {
    append(ids) {
      for (let from = 0; from < ids.length;) {
        if (used === current.length) open();
        const count = Math.min(ids.length - from, current.length - used);
        for (let i = 0; i < count; i++) current[used + i] = ids[from + i]!;
        used += count;
        from += count;
      }
    },
    moveFrom(other) {
      close();
      done.push(...other.release());
    },
    release,
    join() {
      const given = release();
      const length = given.reduce((n, { tokens }) => n + tokens.length, 0);
      const out = allocate(wide, length);
      let at = 0;
      for (const { tokens, buffer } of given) {
        out.set(tokens, at);
        at += tokens.length;
        buffer?.resize(0);
      }
      return out;
    },
  };
}

function allocate(wide: boolean, length: number): Tokens {
  try {
    return wide ? new Uint32Array(length) : new Uint16Array(length);
  } catch (cause) {
    throw new GradmixError(
      "memory",
      `${length} tokens of ${wide ? 4 : 2} bytes do not fit into memory; use less text`,
      { cause },
    );
  }
}

/** A writer with the operations that only a corpus needs. */
export interface CorpusWriter extends TokenWriter {
  /** Moves the documents of another writer to the end of this one. */
  moveFrom(other: CorpusWriter): void;
  release(): { pieces: Pieces; starts: readonly number[] };
}

export function corpusWriter(vocabSize: number, endOfText: number): CorpusWriter {
  const pieces = tokenPieces(isWide(vocabSize));
  let length = 0;
  let starts: number[] = [0];
  const append = (ids: ArrayLike<number>): void => {
    pieces.append(ids);
    length += ids.length;
  };
  const end = (): void => {
    append([endOfText]);
    starts.push(length);
  };
  return {
    append,
    end,
    document(ids) {
      append(ids);
      end();
    },
    moveFrom(other) {
      const given = other.release();
      pieces.moveFrom(given.pieces);
      for (const start of given.starts.slice(1)) starts.push(length + start);
      length = starts[starts.length - 1]!;
    },
    release() {
      const given = { pieces, starts };
      [length, starts] = [0, [0]];
      return given;
    },
    finish() {
      // A last document without an end-of-text token ends with the stream.
      if (starts[starts.length - 1] !== length) starts.push(length);
      const documents = Float64Array.from(starts);
      [length, starts] = [0, [0]];
      return { tokens: pieces.join(), documents };
    },
  };
}

/**
 * Makes a writer of documents. While it collects, it takes as much memory as their tokens. Throws `config` for an invalid vocabulary size or
 * end-of-text id; the writer throws `data` for ids that are not below `vocabSize`.
 */
export function tokenWriter(vocabSize: number, endOfText: number): TokenWriter {
  checkRange("vocabSize", vocabSize, { min: 1, max: 2 ** 32, integer: true });
  checkRange("endOfText", endOfText, { min: 0, max: vocabSize - 1, integer: true });
  const writer = corpusWriter(vocabSize, endOfText);
  const append = (ids: ArrayLike<number>): void => {
    numberList("tokenWriter: ids", ids);
    for (let i = 0; i < ids.length; i++)
      if (!Number.isInteger(ids[i]) || ids[i]! < 0 || ids[i]! >= vocabSize)
        throw new GradmixError("data", `token ${i} is ${ids[i]}, which is not an id below ${vocabSize}`);
    writer.append(ids);
  };
  return {
    append,
    end: writer.end,
    document(ids) {
      append(ids);
      writer.end();
    },
    finish: writer.finish,
  };
}

const hasMembers = objectWith("a stream of tokens, such as `train` of a corpus", "tokens", "documents");

const hasTokens = objectWith("a Uint16Array or a Uint32Array, or tokens in files", "length", "subarray");

/** Accepts a stream of tokens. */
export const checkStream: OptionCheck = (name, value) => {
  // Callers often pass the corpus instead of its stream.
  if (typeof value === "object" && value !== null && "train" in value)
    throw new GradmixError("config", `${name}: it is a corpus; pass its stream, corpus.train`);
  hasMembers(name, value);
  const tokens: unknown = Reflect.get(Object(value), "tokens");
  hasTokens(`${name}: tokens`, tokens);
  // Ids of another type could be negative, and targets below 0 do not count.
  if (ArrayBuffer.isView(tokens) && !(tokens instanceof Uint16Array || tokens instanceof Uint32Array))
    throw new GradmixError(
      "config",
      `${name}: tokens: ${showKind(tokens)} does not fit; it must be a Uint16Array or a Uint32Array`,
    );
  checkDocuments(
    name,
    Reflect.get(Object(value), "documents"),
    Number(Reflect.get(Object(tokens), "length")),
  );
};

/**
 * Throws `config`, naming the document, unless documents begin at 0, each at or after the one before it, and end with the stream. Other positions would give
 * documents that overlap or lie outside the stream, also in the files that are written from it.
 */
function checkDocuments(name: string, documents: unknown, length: number): void {
  numberList(`${name}: documents`, documents);
  const starts = documents as ArrayLike<unknown>;
  let before = 0;
  for (let d = 0; d < starts.length; d++) {
    const start = starts[d];
    const fits =
      typeof start === "number" && Number.isInteger(start) && (d === 0 ? start === 0 : start >= before);
    if (!fits)
      throw new GradmixError(
        "config",
        `${name}: documents: ${d} begins at ${show(start)}${d === 0 ? "; the first begins at 0" : `, and the one before it at ${before}; they ascend`}`,
      );
    before = start;
  }
  if (starts.length === 0 || before !== length)
    throw new GradmixError(
      "config",
      `${name}: documents: they end at ${starts.length === 0 ? "no position" : before}, and the stream of tokens at ${length}; the last number of documents is the length of the stream`,
    );
}

/** Accepts windows, such as `windowsOf` makes. */
export const checkWindows: OptionCheck = objectWith(
  "windows, such as windowsOf makes",
  "name",
  "count",
  "stream",
  "time",
  "tokensOf",
);

/**
 * Cuts a stream in two at a token; a document across the cut belongs to both parts. Both share the memory of the whole. Throws `config` unless the position is
 * one in the stream, or its end.
 */
export function splitStream(stream: TokenStream, at: number): [TokenStream, TokenStream] {
  checkStream("splitStream: stream", stream);
  integerIn(0, stream.tokens.length)("splitStream: at", at);
  const length = stream.tokens.length;
  const inner = [...stream.documents];
  const head = [...inner.filter((start) => start < at), at];
  const tail = [0, ...inner.filter((start) => start > at).map((start) => start - at)];
  if (tail[tail.length - 1] !== length - at) tail.push(length - at);
  return [
    { tokens: stream.tokens.subarray(0, at), documents: Float64Array.from(head) },
    { tokens: stream.tokens.subarray(at), documents: Float64Array.from(tail) },
  ];
}

/** Non-overlapping windows of T inputs and their next tokens. */
export interface Windows<S extends StoredStream = StoredStream> extends Dataset<TokenBatch> {
  /** The stream that is cut into windows. */
  readonly stream: S;
  /** Number of inputs per window, T. */
  readonly time: number;
  /** Number of counted targets of window `index`: T, or fewer in the last one. Throws `data` for a window that does not exist. */
  tokensOf(index: number): number;
}

/** Options of `windowsOf`. */
export interface WindowOptions {
  /** What happens to a last window with fewer than T targets: it is padded when read ("pad", the default), or left out ("drop"). */
  readonly partial?: "pad" | "drop";
}

/**
 * Cuts a stream of n tokens into ⌈(n−1)/T⌉ windows of `time` = T tokens, or ⌊(n−1)/T⌋ if a partial one is dropped. Throws `data`, naming the domain,
 * if there is not even one full window, and `config` for an invalid T or invalid options.
 */
export function windowsOf<S extends StoredStream>(
  name: string,
  stream: S,
  time: number,
  options: WindowOptions = {},
): Windows<S> {
  checkOptions<WindowOptions>("windowsOf", options, { partial: oneOf("pad", "drop") });
  checkStream("windowsOf: stream", stream);
  checkTime(time);
  const pairs = stream.tokens.length - 1;
  if (pairs < time)
    throw new GradmixError(
      "data",
      `"${name}": ${Math.max(0, stream.tokens.length)} tokens are less than one window of ${time} + 1; add text or make the context shorter`,
    );
  return cut(name, stream, time, options.partial ?? "pad");
}

/** Cuts a stream into windows for evaluation, where a single short window is enough; null for a stream without a single pair. */
export function evaluationWindows<S extends StoredStream>(
  name: string,
  stream: S,
  time: number,
): Windows<S> | null {
  checkStream("evaluationWindows: stream", stream);
  checkTime(time);
  return stream.tokens.length < 2 ? null : cut(name, stream, time, "pad");
}

function checkTime(time: number): void {
  checkRange("time", time, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
}

function cut<S extends StoredStream>(
  name: string,
  stream: S,
  time: number,
  partial: "pad" | "drop",
): Windows<S> {
  const pairs = stream.tokens.length - 1;
  const count = partial === "pad" ? Math.ceil(pairs / time) : Math.floor(pairs / time);
  const windows: Windows<S> = {
    name,
    stream,
    time,
    count,
    tokensOf(index) {
      checkIndex(index, name, count);
      return Math.min(time, pairs - index * time);
    },
    batchOf(indices) {
      numberList(`"${name}": indices`, indices);
      const inputs = new Int32Array(indices.length * time);
      const targets = new Int32Array(indices.length * time);
      indices.forEach((index, row) => readWindow(windows, index, inputs, targets, row));
      return { inputs, targets, tokens: Int32Array.from(indices, windows.tokensOf), time };
    },
  };
  return windows;
}

/** Throws `data` unless there is a window of this index. */
function checkIndex(index: number, name: string, count: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= count)
    throw new GradmixError("data", `"${name}": there is no window ${show(index)}; it has ${count}`);
}

/**
 * The common T of windows that go into one batch, 0 if there are none. Throws `data`, naming two sources, if their lengths differ. Sources without a
 * length are ignored.
 */
export function commonTime(sources: Iterable<{ readonly name: string; readonly time?: number }>): number {
  let first: { name: string; time: number } | null = null;
  for (const { name, time } of sources) {
    if (time === undefined) continue;
    first ??= { name, time };
    if (time !== first.time)
      throw new GradmixError(
        "data",
        `"${first.name}" has windows of ${first.time} tokens, "${name}" of ${time}; a batch takes one length, so cut them alike`,
      );
  }
  return first?.time ?? 0;
}

/**
 * Writes window `index` into row `row` of a batch; targets that do not count are −1. Throws `data` for a window that does not exist, and `shape` for
 * a row beyond the arrays.
 */
export function readWindow(
  windows: Windows,
  index: number,
  inputs: Int32Array,
  targets: Int32Array,
  row: number,
): void {
  checkWindows("readWindow: windows", windows);
  numberList("readWindow: inputs", inputs);
  numberList("readWindow: targets", targets);
  const { time, stream, name, count } = windows;
  checkIndex(index, name, count);
  if (!Number.isInteger(row) || row < 0 || (row + 1) * time > Math.min(inputs.length, targets.length))
    throw new GradmixError(
      "shape",
      `row ${row} of ${time} tokens is not within arrays of ${inputs.length} and ${targets.length}`,
    );
  const valid = windows.tokensOf(index);
  const from = index * time;
  const to = row * time;
  const ids = stream.tokens.subarray(from, from + valid + 1);
  for (let t = 0; t < time; t++) {
    inputs[to + t] = t < valid ? ids[t]! : 0;
    targets[to + t] = t < valid ? ids[t + 1]! : -1;
  }
}
