/**
 * Streams of tokens: documents one after another, each ended by the end-of-text token, with their boundaries.
 *
 * Tokens are kept in memory, two bytes each where the vocabulary allows (a corpus of a billion tokens takes 2 GB); text is not.
 */
import { GradmixError } from "../errors.ts";

export interface TokenStream {
  readonly tokens: Uint16Array | Uint32Array;
  /** Where each document starts, and after them the stream's length. */
  readonly documents: Float64Array;
}

export interface TokenWriter {
  /** Appends a document's tokens and the end-of-text token. */
  document(ids: ArrayLike<number>): void;
  finish(): TokenStream;
}

/** Collects documents in arrays that double as they grow. */
export function tokenWriter(vocabSize: number, endOfText: number): TokenWriter {
  const wide = vocabSize > 65536;
  let tokens: Uint16Array | Uint32Array = wide ? new Uint32Array(1 << 14) : new Uint16Array(1 << 14);
  let length = 0;
  const starts: number[] = [0];
  return {
    document(ids) {
      const end = length + ids.length + 1;
      if (end > tokens.length) {
        const size = Math.max(end, tokens.length * 2);
        const larger = wide ? new Uint32Array(size) : new Uint16Array(size);
        larger.set(tokens.subarray(0, length));
        tokens = larger;
      }
      tokens.set(ids, length);
      tokens[end - 1] = endOfText;
      length = end;
      starts.push(end);
    },
    finish: () => ({ tokens: tokens.slice(0, length), documents: Float64Array.from(starts) }),
  };
}

/** Cuts a stream in two at a token; a document that lies across belongs to both parts. */
export function splitStream(stream: TokenStream, at: number): [TokenStream, TokenStream] {
  const length = stream.tokens.length;
  const inner = [...stream.documents];
  const head = [...inner.filter((start) => start < at), at];
  const tail = [0, ...inner.filter((start) => start > at).map((start) => start - at)];
  if (tail[tail.length - 1] !== length - at) tail.push(length - at);
  return [
    { tokens: stream.tokens.slice(0, at), documents: Float64Array.from(head) },
    { tokens: stream.tokens.slice(at), documents: Float64Array.from(tail) },
  ];
}

/** Non-overlapping windows of T inputs and their next tokens. */
export interface Windows {
  readonly name: string;
  readonly stream: TokenStream;
  /** T. */
  readonly time: number;
  readonly count: number;
  /** Targets of window `index` that count: T, or fewer in the last one. */
  tokensOf(index: number): number;
}

export interface WindowOptions {
  /** What becomes of a last window with fewer than T targets: padded when read ("pad", the default), or left out ("drop"). */
  readonly partial?: "pad" | "drop";
}

/**
 * Cuts a stream of n tokens into ⌈(n−1)/T⌉ windows, ⌊(n−1)/T⌋ when a partial one is dropped. Throws `data` when not even one full window is
 * there, naming the domain.
 */
export function windowsOf(
  name: string,
  stream: TokenStream,
  time: number,
  { partial = "pad" }: WindowOptions = {},
): Windows {
  const pairs = stream.tokens.length - 1;
  if (pairs < time)
    throw new GradmixError(
      "data",
      `"${name}": ${Math.max(0, stream.tokens.length)} tokens are less than one window of ${time} + 1; add text or make the context shorter`,
    );
  return cut(name, stream, time, partial);
}

/** The same for evaluation, where one short window is enough; null for a stream without a single pair. */
export function evaluationWindows(name: string, stream: TokenStream, time: number): Windows | null {
  return stream.tokens.length < 2 ? null : cut(name, stream, time, "pad");
}

function cut(name: string, stream: TokenStream, time: number, partial: "pad" | "drop"): Windows {
  const pairs = stream.tokens.length - 1;
  const count = partial === "pad" ? Math.ceil(pairs / time) : Math.floor(pairs / time);
  return { name, stream, time, count, tokensOf: (index) => Math.min(time, pairs - index * time) };
}

/** Writes window `index` into row `row` of a batch; targets that do not count are −1. */
export function readWindow(
  windows: Windows,
  index: number,
  inputs: Int32Array,
  targets: Int32Array,
  row: number,
): void {
  const { time, stream } = windows;
  const valid = windows.tokensOf(index);
  const from = index * time;
  const to = row * time;
  for (let t = 0; t < time; t++) {
    inputs[to + t] = t < valid ? stream.tokens[from + t] : 0;
    targets[to + t] = t < valid ? stream.tokens[from + t + 1] : -1;
  }
}
