/** Streams of tokens as files that other trainers read: Megatron's and nanoGPT's. Written beside and renamed, so that a file is whole or not there. */
import { rmSync } from "node:fs";
import { tokenBytes } from "../data/token-files.ts";
import type { StoredStream, StoredTokens } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, required } from "../options.ts";
import { writeFileAtomic } from "./files.ts";

export interface WriteTokensOptions {
  /** Ids are below it. */
  readonly vocabSize: number;
}

/** Megatron takes 16 bits for smaller vocabularies only, though more would fit. */
const MEGATRON_WIDE = 65_500;
const MEGATRON_CODES = { u16: 8, u32: 4 } as const;

/**
 * Writes `prefix.bin` and `prefix.idx`, which Megatron-LM and NeMo take as a data path. Each document is a sequence, its end of text included. Throws `io` where they cannot be written,
 * `data` for a stream of more than 2³¹ − 1 tokens in one document or an id that is not below `vocabSize`.
 */
export function writeMegatron(prefix: string, stream: StoredStream, options: WriteTokensOptions): void {
  checkOptions<WriteTokensOptions>("writeMegatron", options, { vocabSize: required(integerIn(1, 2 ** 31)) });
  const type = options.vocabSize < MEGATRON_WIDE ? "u16" : "u32";
  const { documents } = stream;
  const count = documents.length - 1;
  const index = new DataView(new ArrayBuffer(34 + 20 * count + 8));
  new TextEncoder().encodeInto("MMIDIDX", new Uint8Array(index.buffer));
  index.setBigUint64(9, 1n, true);
  index.setUint8(17, MEGATRON_CODES[type]);
  index.setBigUint64(18, BigInt(count), true);
  index.setBigUint64(26, BigInt(count + 1), true);
  for (let i = 0; i < count; i++) {
    const length = documents[i + 1]! - documents[i]!;
    if (length > 0x7fffffff)
      throw new GradmixError("data", `${prefix}: document ${i} has ${length} tokens; Megatron takes 2³¹ − 1`);
    index.setInt32(34 + 4 * i, length, true);
    index.setBigInt64(34 + 4 * count + 8 * i, BigInt(documents[i]! * tokenBytes[type]), true);
  }
  for (let i = 0; i <= count; i++) index.setBigInt64(34 + 12 * count + 8 * i, BigInt(i), true);
  // The index comes last and goes first, so that the two are only found together.
  rmSync(`${prefix}.idx`, { force: true });
  writeFileAtomic(`${prefix}.bin`, blocks(prefix, stream.tokens, type, options.vocabSize));
  try {
    writeFileAtomic(`${prefix}.idx`, [new Uint8Array(index.buffer)]);
  } catch (error) {
    rmSync(`${prefix}.bin`, { force: true });
    throw error;
  }
}

/**
 * Writes nanoGPT's `.bin`: ids of 16 bits and nothing else. Where documents end says the end of text that each has. Throws `io` where it cannot be written, `config` for a vocabulary of more than
 * 65,536, `data` for an id that is not below `vocabSize`.
 */
export function writeNanoGPT(path: string, stream: StoredStream, options: WriteTokensOptions): void {
  checkOptions<WriteTokensOptions>("writeNanoGPT", options, { vocabSize: required(integerIn(1, 65_536)) });
  writeFileAtomic(path, blocks(path, stream.tokens, "u16", options.vocabSize));
}

/** Tokens that are written at a time. */
const BLOCK = 2 ** 20;

function* blocks(
  path: string,
  tokens: StoredTokens,
  type: "u16" | "u32",
  vocabSize: number,
): Generator<Uint8Array> {
  const bytes = tokenBytes[type];
  for (let from = 0; from < tokens.length; from += BLOCK) {
    const ids = tokens.subarray(from, Math.min(tokens.length, from + BLOCK));
    const out = new DataView(new ArrayBuffer(ids.length * bytes));
    ids.forEach((id, i) => {
      if (id >= vocabSize)
        throw new GradmixError(
          "data",
          `${path}: token ${from + i} is ${id}, which is no id of ${vocabSize} tokens`,
        );
      if (bytes === 2) out.setUint16(2 * i, id, true);
      else out.setUint32(4 * i, id, true);
    });
    yield new Uint8Array(out.buffer);
  }
}
