/** Replacements in browsers for the functions that read files. Their types are the same, so that code compiles for both. */
import { GradmixError } from "../errors.ts";
import type { Tokenizer } from "./byte-level.ts";
import type { ListOptions } from "./files.ts";
import type { StoredCorpus } from "./corpus.ts";
import type { Document, ReadOptions } from "./sources.ts";
import type { TokenFileOptions } from "./stored-tokens.ts";
import { loadTokenizer } from "./tokenizer.ts";

/** Throws `io`: a browser has no files. */
export function listFiles(_patterns: readonly string[], _options: ListOptions = {}): Promise<string[]> {
  return Promise.reject(noFiles("listFiles"));
}

/** Throws `io`, when the first document is asked for: a browser has no files. */
// eslint-disable-next-line require-yield -- it is the signature of the one that reads
export async function* readDocuments(
  _files: Iterable<string>,
  _options: ReadOptions = {},
): AsyncGenerator<Document, void, undefined> {
  throw noFiles("readDocuments");
}

/** Throws `io`: a browser has no files. */
export function openTokens(
  _name: string,
  _paths: readonly string[],
  _options: TokenFileOptions,
): Promise<StoredCorpus> {
  return Promise.reject(noFiles("openTokens"));
}

/** Byte-level BPE as `loadTokenizer` reads it. Throws `io` for the name of a vocabulary, which is in a file. */
export function openTokenizer(source: unknown): Tokenizer {
  if (typeof source !== "string") return loadTokenizer(source);
  throw new GradmixError(
    "io",
    `openTokenizer: a browser has no package that holds the vocabulary ${JSON.stringify(source)}; fetch its tokenizer.json and give that`,
  );
}

const noFiles = (name: string): GradmixError =>
  new GradmixError(
    "io",
    `${name}: a browser has no files to read; fetch the text, or read it from what the user chose, and give it to buildCorpus as { text, source }`,
  );
