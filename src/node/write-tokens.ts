/**
 * Writes streams of tokens as files that other trainers read: those of Megatron and nanoGPT. They are written to temporary files and renamed, so that
 * a file is complete or absent.
 */
import { rmSync } from "node:fs";
import { littleEndianBytes, tokenBytes } from "../data/token-files.ts";
import { checkStream, type StoredStream, type StoredTokens } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, required, string } from "../options.ts";
import { writeFileAtomic } from "./files.ts";

/** Options of `writeMegatron` and `writeNanoGPT`. */
export interface WriteTokensOptions {
  /** Size of the vocabulary; all token ids must be smaller. */
  readonly vocabSize: number;
}

/** Megatron uses 16 bits only for vocabularies smaller than this, although larger ones would fit. */
const MEGATRON_WIDE = 65_500;
const MEGATRON_CODES = { u16: 8, u32: 4 } as const;

/**
 * Writes `prefix.bin` and `prefix.idx`, which Megatron-LM and NeMo accept as a data path. Each document is a sequence that includes its end-of-text
 * token. Throws `io` if they cannot be written, and `data` for a document of more than 2³¹ − 1 tokens or an id that is not below `vocabSize`.
 */
export function writeMegatron(prefix: string, stream: StoredStream, options: WriteTokensOptions): void {
  string("writeMegatron: prefix", prefix);
  checkStream("writeMegatron: stream", stream);
  checkOptions<WriteTokensOptions>("writeMegatron", options, { vocabSize: required(integerIn(1, 2 ** 31)) });
  writeMegatronBlocks(prefix, stream, options);
}

/**
 * Like `writeMegatron`, with a callback: `onBlock` receives the bytes of `prefix.bin` and their ids, block by block in order. Does not check the options. Not
 * part of the package's interface.
 */
export function writeMegatronBlocks(
  prefix: string,
  stream: StoredStream,
  { vocabSize }: WriteTokensOptions,
  onBlock: OnBlock = () => {},
): void {
  const type = vocabSize < MEGATRON_WIDE ? "u16" : "u32";
  // The index is written last and removed first, so that it only exists together with the data.
  rmSync(`${prefix}.idx`, { force: true });
  writeFileAtomic(`${prefix}.bin`, blocks(prefix, stream.tokens, type, vocabSize, onBlock));
  try {
    writeFileAtomic(`${prefix}.idx`, megatronIndex(prefix, stream.documents, type));
  } catch (error) {
    rmSync(`${prefix}.bin`, { force: true });
    throw error;
  }
}

type OnBlock = (bytes: Uint8Array, ids: ArrayLike<number>) => void;

/** Number of documents whose entries are made at a time. */
const ENTRIES = 2 ** 16;

function* megatronIndex(prefix: string, documents: Float64Array, type: "u16" | "u32"): Generator<Uint8Array> {
  const count = documents.length - 1;
  const header = new DataView(new ArrayBuffer(34));
  new TextEncoder().encodeInto("MMIDIDX", new Uint8Array(header.buffer));
  header.setBigUint64(9, 1n, true);
  header.setUint8(17, MEGATRON_CODES[type]);
  header.setBigUint64(18, BigInt(count), true);
  header.setBigUint64(26, BigInt(count + 1), true);
  yield new Uint8Array(header.buffer);
  yield* entries(count, 4, (view, at, i) => {
    const length = documents[i + 1]! - documents[i]!;
    if (length > 0x7fffffff)
      throw new GradmixError(
        "data",
        `${prefix}: document ${i} has ${length} tokens; Megatron allows at most 2³¹ − 1`,
      );
    view.setInt32(at, length, true);
  });
  yield* entries(count, 8, (view, at, i) => setNumber64(view, at, documents[i]! * tokenBytes[type]));
  yield* entries(count + 1, 8, setNumber64);
}

/** Yields `count` numbers of a fixed byte size, in blocks. */
function* entries(
  count: number,
  bytes: number,
  set: (view: DataView, at: number, i: number) => void,
): Generator<Uint8Array> {
  for (let from = 0; from < count; from += ENTRIES) {
    const view = new DataView(new ArrayBuffer(Math.min(ENTRIES, count - from) * bytes));
    for (let i = 0; i * bytes < view.byteLength; i++) set(view, i * bytes, from + i);
    yield new Uint8Array(view.buffer);
  }
}

function setNumber64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/**
 * Writes nanoGPT's `.bin`: 16-bit ids and nothing else. The end-of-text tokens show where documents end. Throws `io` if it cannot be written,
 * `config` for a vocabulary of more than 65,536 tokens, and `data` for an id that is not below `vocabSize`.
 */
export function writeNanoGPT(path: string, stream: StoredStream, options: WriteTokensOptions): void {
  string("writeNanoGPT: path", path);
  checkStream("writeNanoGPT: stream", stream);
  checkOptions<WriteTokensOptions>("writeNanoGPT", options, { vocabSize: required(integerIn(1, 65_536)) });
  writeNanoGPTBlocks(path, stream, options);
}

/**
 * Like `writeNanoGPT`, with a callback: `onBlock` receives the bytes and their ids, block by block in order. Does not check the options. Not part of the
 * package's interface.
 */
export function writeNanoGPTBlocks(
  path: string,
  stream: StoredStream,
  { vocabSize }: WriteTokensOptions,
  onBlock: OnBlock = () => {},
): void {
  writeFileAtomic(path, blocks(path, stream.tokens, "u16", vocabSize, onBlock));
}

/** Number of tokens that are written at a time. */
const BLOCK = 2 ** 20;

function* blocks(
  path: string,
  tokens: StoredTokens,
  type: "u16" | "u32",
  vocabSize: number,
  onBlock: OnBlock,
): Generator<Uint8Array> {
  for (let from = 0; from < tokens.length; from += BLOCK) {
    const ids = tokens.subarray(from, Math.min(tokens.length, from + BLOCK));
    for (let i = 0; i < ids.length; i++)
      if (ids[i]! >= vocabSize)
        throw new GradmixError(
          "data",
          `${path}: token ${from + i} is ${ids[i]}, which is not an id below ${vocabSize}`,
        );
    const bytes = littleEndianBytes(ids, type);
    onBlock(bytes, ids);
    yield bytes;
  }
}
