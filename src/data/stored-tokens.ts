/**
 * Corpora of tokens in files, read by position. Memory holds the positions of documents (16 bytes each), but never the tokens.
 *
 * Each file is read once from beginning to end: for its largest id, for its end-of-text tokens if nothing else marks where documents end, and for the
 * hash by which a resumed run recognises it. Afterwards windows are read when they are requested.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync } from "node:fs";
import { giveTurn } from "../backends/turn.ts";
import type { CancelSignal } from "../cancel.ts";
import { GradmixError } from "../errors.ts";
import { firstAbove } from "./sorted.ts";
import {
  abortSignal,
  callback,
  checkOptions,
  integerIn,
  numberIn,
  oneOf,
  orNull,
  required,
  valueThat,
} from "../options.ts";
import { heldOutChoice, holdsOutFirst, singleNote, type StoredCorpus, tokensKept } from "./corpus.ts";
import { withDocuments } from "./olmo-documents.ts";
import {
  describeTokenFile,
  type FileStamp,
  littleEndian,
  readAt,
  tokenBytes,
  type TokenFile,
  type TokenType,
} from "./token-files.ts";
import type { StoredStream, StoredTokens } from "./tokens.ts";

/** Options of `openTokens`. */
export interface TokenFileOptions {
  /** Size of the vocabulary; all token ids must be smaller. */
  readonly vocabSize: number;
  /** Id that ends documents, for files that do not mark their ends otherwise. Default null: such a file is one document. */
  readonly endOfText?: number | null;
  /** Type of the tokens in files that do not state it: nanoGPT's (default "u16"), OLMo's and datatrove's (no default). */
  readonly tokenType?: "u16" | "u32" | null;
  /** Share of the documents to hold out, 0 ≤ share < 1. */
  readonly heldOut: number;
  /** Seed that decides which documents are held out. */
  readonly seed: number;
  /** Known facts about files, by path: a file whose size and time have not changed is not read again for them. */
  readonly known?: ReadonlyMap<string, KnownTokenFile>;
  /** Called for each file after it has been read. */
  readonly onFile?: (path: string, found: TokenFileFacts) => void;
  /** Cancels the reading, which then rejects with the signal's reason. */
  readonly signal?: CancelSignal;
}

/** What `onFile` reported about a file, with its size (bytes) and time of change (milliseconds) then. */
export interface KnownTokenFile {
  /** Size and time of change. */
  readonly stamp: FileStamp;
  /** The largest id in the file. */
  readonly largest: number;
  /** SHA-256 of its bytes. */
  readonly sha256: string;
}

/** Facts about a file of tokens. */
export interface TokenFileFacts {
  /** Format of the file. */
  readonly format: TokenFile["format"];
  /** Tokens in the file. */
  readonly tokens: number;
  /** Documents in the file. */
  readonly documents: number;
  /** The largest id in the file. */
  readonly largest: number;
  /** SHA-256 of its bytes. */
  readonly sha256: string;
}

/**
 * Opens a corpus of token files: Megatron's `.bin` with `.idx`, nanoGPT's and llm.c's `.bin`, datatrove's `.ds`, OLMo's `.npy` (token-files.ts has
 * their layouts). Tokens are neither added nor removed. Documents are held out like those of text (`buildCorpus`), in the order of the files. Throws
 * `data`, naming the file, for one that is cut off, does not match its index or contains an id that is not below `vocabSize`, and `config` for
 * invalid options.
 */
export async function openTokens(
  name: string,
  paths: readonly string[],
  options: TokenFileOptions,
): Promise<StoredCorpus> {
  checkOptions<TokenFileOptions>("openTokens", options, {
    vocabSize: required(integerIn(1)),
    endOfText: orNull(integerIn(0)),
    tokenType: orNull(oneOf("u16", "u32")),
    heldOut: required(numberIn({ min: 0, max: 1, openMax: true })),
    seed: required(integerIn(0)),
    known: valueThat("a Map", (value) => value instanceof Map),
    onFile: callback,
    signal: abortSignal,
  });
  const files: FileRange[] = [];
  let start = 0;
  let largest = 0;
  for (const path of paths) {
    const file = await withDocuments(describeTokenFile(path, options.tokenType ?? null));
    const known = options.known?.get(path);
    const isKnown =
      known !== undefined &&
      known.stamp.size === file.stamp.size &&
      known.stamp.modified === file.stamp.modified &&
      known.largest < options.vocabSize;
    const found = isKnown && file.ends !== null ? { ...known, ends: file.ends } : await scan(file, options);
    if (known !== undefined && known.sha256 !== found.sha256)
      throw new GradmixError("data", `${path}: its tokens have changed since they were first read`);
    const ends = file.ends ?? found.ends;
    files.push({ file, start, ends });
    start += file.length;
    largest = Math.max(largest, found.largest);
    const { format, length: tokens } = file;
    options.onFile?.(path, {
      format,
      tokens,
      documents: ends.length,
      largest: found.largest,
      sha256: found.sha256,
    });
  }
  if (start === 0) throw new GradmixError("data", `"${name}": it is empty; give tokens to learn from`);
  return splitFiles(name, files, largest, options);
}

/** The range of a file within the tokens of all files. */
export interface FileRange {
  readonly file: TokenFile;
  /** Number of tokens in the files before it. */
  readonly start: number;
  /** Where its documents end, in tokens from the start of the file. */
  readonly ends: Float64Array;
}

interface Scanned {
  readonly largest: number;
  readonly sha256: string;
  /** Ends of documents by end-of-text tokens; a single end if there are none. */
  readonly ends: Float64Array;
}

/** Bytes that are read at a time. */
const BLOCK = 2 ** 22;

async function scan(
  file: TokenFile,
  { vocabSize, endOfText = null, signal }: TokenFileOptions,
): Promise<Scanned> {
  const { path, type, offset, length } = file;
  const hash = createHash("sha256");
  const ends = growing();
  let largest = 0;
  // A document ends after its end of text; an end of text by itself belongs to the next document.
  let empty = true;
  const handle = openFile(file);
  try {
    const header = new Uint8Array(offset);
    readAt(handle, path, 0, header);
    hash.update(header);
    const perBlock = BLOCK / tokenBytes[type];
    const block = new Uint8Array(Math.min(BLOCK, length * tokenBytes[type]));
    for (let from = 0; from < length; from += perBlock) {
      await giveTurn();
      signal?.throwIfAborted();
      const bytes = block.subarray(0, Math.min(perBlock, length - from) * tokenBytes[type]);
      readAt(handle, path, offset + from * tokenBytes[type], bytes);
      hash.update(bytes);
      const ids = idsOf(bytes, type);
      const most = largestOf(ids);
      if (most >= vocabSize) {
        const at = ids.findIndex((id) => id >= vocabSize);
        throw new GradmixError(
          "data",
          `${path}: token ${from + at} is ${ids[at]}, which is not an id below ${vocabSize}, the size of the vocabulary; give the tokenizer that the file was made with, or another type than ${type} (--token-type)`,
        );
      }
      largest = Math.max(largest, most);
      if (file.ends !== null || endOfText === null) continue;
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] !== endOfText) empty = false;
        else if (!empty) {
          ends.push(from + i + 1);
          empty = true;
        }
      }
    }
  } finally {
    closeSync(handle);
  }
  // The rest after the last end of text: a document without one, or only ends of text.
  if (!empty || ends.length() === 0) ends.push(length);
  else ends.setLast(length);
  return { largest, sha256: hash.digest("hex"), ends: ends.toArray() };
}

function largestOf(ids: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < ids.length; i++) if (ids[i]! > most) most = ids[i]!;
  return most;
}

/** Bytes as ids. A number that does not fit into 32 bits becomes 2³² − 1, above every vocabulary. */
function idsOf(bytes: Uint8Array, type: TokenType): Uint16Array | Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = bytes.length / tokenBytes[type];
  switch (type) {
    case "u8":
      return Uint16Array.from(bytes);
    case "u16":
      return littleEndian
        ? new Uint16Array(bytes.buffer, bytes.byteOffset, count)
        : Uint16Array.from({ length: count }, (_, i) => view.getUint16(2 * i, true));
    case "u32":
      return littleEndian
        ? new Uint32Array(bytes.buffer, bytes.byteOffset, count)
        : Uint32Array.from({ length: count }, (_, i) => view.getUint32(4 * i, true));
    case "u64":
      return Uint32Array.from({ length: count }, (_, i) =>
        view.getUint32(8 * i + 4, true) === 0 ? view.getUint32(8 * i, true) : 2 ** 32 - 1,
      );
  }
}

/** A growing list of numbers. */
export interface Growing {
  push(value: number): void;
  setLast(value: number): void;
  length(): number;
  toArray(): Float64Array;
}

export function growing(): Growing {
  let values = new Float64Array(64);
  let used = 0;
  return {
    push(value) {
      if (used === values.length) {
        const larger = new Float64Array(2 * used);
        larger.set(values);
        values = larger;
      }
      values[used++] = value;
    },
    setLast(value) {
      values[used - 1] = value;
    },
    length: () => used,
    toArray: () => values.slice(0, used),
  };
}

/** Parts of files in a stream. Within a run, neighbours in the stream are neighbours in the file. */
export interface Runs {
  /** Where each run begins in the stream, and after them the stream's length. */
  readonly starts: Float64Array;
  /** Where each run begins among the tokens of all files. */
  readonly places: Float64Array;
}

function splitFiles(
  name: string,
  files: readonly FileRange[],
  largest: number,
  { heldOut: share, seed }: TokenFileOptions,
): StoredCorpus {
  // Documents without tokens do not count.
  let count = 0;
  for (const { ends } of files)
    for (let i = 0; i < ends.length; i++) if (ends[i]! > (i === 0 ? 0 : ends[i - 1]!)) count++;
  const length = files.reduce((sum, { file }) => sum + file.length, 0);
  const stream = (parts: (addPart: (from: number, to: number) => void) => void): StoredStream =>
    streamOf(files, largest, parts);
  const common = { name, documents: count, heldOutBytes: 0 };
  if (count === 1) {
    const kept = share === 0 ? length : tokensKept(length, share);
    return {
      ...common,
      heldOutDocuments: 0,
      train: stream((addPart) => addPart(0, kept)),
      heldOut: share === 0 ? null : stream((addPart) => addPart(kept, length)),
      note: share === 0 ? null : singleNote(name, share),
    };
  }
  const chosen = heldOutChoice({ heldOut: share, seed });
  const isHeldOut = new Uint8Array(count);
  let others = 0;
  // A corpus may have many millions of documents; nothing is drawn if all are on one side.
  if (share > 0) for (let i = 1; i < count; i++) if (chosen(i)) others += isHeldOut[i] = 1;
  if (holdsOutFirst(share, others, count, chosen)) isHeldOut[0] = 1;
  const side = (which: 0 | 1): StoredStream =>
    stream((addPart) => {
      // The first document comes last, as in a corpus of text.
      let first = { from: 0, to: 0 };
      let index = 0;
      for (const { start, ends } of files) {
        let from = 0;
        for (let i = 0; i < ends.length; i++) {
          const end = ends[i]!;
          if (end === from) continue;
          if (index === 0) first = { from: start + from, to: start + end };
          else if (isHeldOut[index] === which) addPart(start + from, start + end);
          index++;
          from = end;
        }
      }
      if (isHeldOut[0] === which) addPart(first.from, first.to);
    });
  return {
    ...common,
    heldOutDocuments: others + isHeldOut[0]!,
    train: side(0),
    heldOut: share > 0 ? side(1) : null,
    note: null,
  };
}

/** `parts` passes the documents of a stream to a callback, in order, as positions among the tokens of all files. */
function streamOf(
  files: readonly FileRange[],
  largest: number,
  parts: (addPart: (from: number, to: number) => void) => void,
): StoredStream {
  const [documents, starts, places] = [growing(), growing(), growing()];
  let length = 0;
  let next = -1;
  parts((from, to) => {
    if (from === to) return;
    documents.push(length);
    if (from !== next) {
      starts.push(length);
      places.push(from);
    }
    length += to - from;
    next = to;
  });
  documents.push(length);
  starts.push(length);
  const runs = { starts: starts.toArray(), places: places.toArray() };
  return { tokens: storedTokens(files, runs, largest), documents: documents.toArray(), largest };
}

/** Tokens that are read when they are requested. */
export function storedTokens(
  files: readonly FileRange[],
  { starts, places }: Runs,
  largest: number,
): StoredTokens {
  const length = starts[starts.length - 1]!;
  const fileStarts = Float64Array.from(files, ({ start }) => start);
  return {
    length,
    subarray(first, end) {
      const from = Math.max(0, Math.min(first, length));
      const to = Math.max(from, Math.min(end, length));
      const out = largest > 0xffff ? new Uint32Array(to - from) : new Uint16Array(to - from);
      for (let at = from, run = lastAtMost(starts, from); at < to; run++) {
        const stop = Math.min(to, starts[run + 1]!);
        let place = places[run]! + at - starts[run]!;
        for (let f = lastAtMost(fileStarts, place); at < stop; f++) {
          const { file, start } = files[f]!;
          const count = Math.min(stop - at, start + file.length - place);
          if (count > 0) out.set(readIds(file, place - start, count), at - from);
          at += count;
          place += count;
        }
      }
      return out;
    },
  };
}

/** The last index whose value is at most `value`, for ascending values that begin at or below it. */
const lastAtMost = (ascending: Float64Array, value: number): number => firstAbove(ascending, value) - 1;

function readIds(file: TokenFile, from: number, count: number): Uint16Array | Uint32Array {
  const size = tokenBytes[file.type];
  const bytes = new Uint8Array(count * size);
  readAt(handleOf(file), file.path, file.offset + from * size, bytes);
  return idsOf(bytes, file.type);
}

/** Open files, the one that was used last at the end. A process can only have a few hundred. */
const handles = new Map<TokenFile, number>();
const MOST_OPEN = 64;

/** Closes the files that are open, for a caller that will not read them again. Reading opens them again. */
export function closeFiles(files: readonly FileRange[]): void {
  for (const { file } of files) {
    const handle = handles.get(file);
    if (handle === undefined) continue;
    handles.delete(file);
    closeSync(handle);
  }
}

function handleOf(file: TokenFile): number {
  const known = handles.get(file);
  handles.delete(file);
  const handle = known ?? openFile(file);
  handles.set(file, handle);
  if (handles.size > MOST_OPEN)
    for (const [other, its] of handles) {
      handles.delete(other);
      closeSync(its);
      break;
    }
  return handle;
}

/** Throws `data` if the file has changed since its index was read. */
function openFile({ path, stamp }: TokenFile): number {
  let handle: number;
  try {
    handle = openSync(path, "r");
  } catch (cause) {
    throw new GradmixError("data", `${path}: it cannot be read any more`, { cause });
  }
  const { size, mtimeMs } = fstatSync(handle);
  if (size === stamp.size && mtimeMs === stamp.modified) return handle;
  closeSync(handle);
  throw new GradmixError("data", `${path}: it has changed while it was read`);
}
