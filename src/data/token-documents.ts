/** Documents of token files, decoded one after another. */
import { closeSync, openSync } from "node:fs";
import { GradmixError } from "../errors.ts";
import type { Tokenizer } from "./byte-level.ts";
import { describeTokenFile, readAt, tokenBytes, type TokenFile, type TokenType } from "./token-files.ts";

/** Bytes that are read at a time from files whose documents end at their end-of-text tokens. */
const BLOCK = 2 ** 20;

/**
 * The texts of a token file's documents, in order, without their end-of-text tokens; "" for an empty one. Throws `data`, naming the file, for an id
 * that the tokenizer does not have, and for files that `describeTokenFile` refuses.
 */
export function* tokenDocuments(
  path: string,
  tokenizer: Tokenizer,
  type: TokenType | null = null,
): Generator<string, void, undefined> {
  const file = describeTokenFile(path, type);
  const handle = openSync(path, "r");
  try {
    let tokens = 0;
    for (const ids of file.ends === null
      ? byEndOfText(file, handle, tokenizer.endOfText)
      : byEnds(file, file.ends, handle)) {
      const bad = ids.findIndex((id) => id >= tokenizer.vocabSize);
      if (bad >= 0)
        throw new GradmixError(
          "data",
          `${path}: token ${tokens + bad} is ${ids[bad]}, which is not an id below ${tokenizer.vocabSize}, the size of the vocabulary; give the tokenizer that the file was made with`,
        );
      tokens += ids.length;
      yield tokenizer.decode(ids.filter((id) => id !== tokenizer.endOfText));
    }
  } finally {
    closeSync(handle);
  }
}

function* byEnds(file: TokenFile, ends: Float64Array, handle: number): Generator<number[], void, undefined> {
  let start = 0;
  for (const end of ends) {
    yield idsAt(file, handle, start, end - start);
    start = end;
  }
}

function* byEndOfText(
  file: TokenFile,
  handle: number,
  endOfText: number,
): Generator<number[], void, undefined> {
  const perBlock = BLOCK / tokenBytes[file.type];
  let document: number[] = [];
  for (let from = 0; from < file.length; from += perBlock)
    for (const id of idsAt(file, handle, from, Math.min(perBlock, file.length - from))) {
      document.push(id);
      if (id !== endOfText) continue;
      yield document;
      document = [];
    }
  if (document.length > 0) yield document;
}

function idsAt({ path, type, offset }: TokenFile, handle: number, first: number, count: number): number[] {
  const width = tokenBytes[type];
  const bytes = new Uint8Array(count * width);
  readAt(handle, path, offset + first * width, bytes);
  const view = new DataView(bytes.buffer);
  const at = {
    u8: (i: number): number => view.getUint8(i),
    u16: (i: number): number => view.getUint16(i, true),
    u32: (i: number): number => view.getUint32(i, true),
    u64: (i: number): number => Number(view.getBigUint64(i, true)),
  }[type];
  return Array.from({ length: count }, (_, i) => at(i * width));
}
