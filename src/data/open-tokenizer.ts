/** Opens any tokenizer that Node.js can use: those that `loadTokenizer` reads, those that Hugging Face's library reads, and OpenAI's vocabularies by name. */
import type { Tokenizer } from "./byte-level.ts";
import { gptTokenizerJson } from "./gpt-vocabularies.ts";
import { libraryTokenizer } from "./library-tokenizer.ts";
import { loadTokenizer, UnsupportedTokenizer } from "./tokenizer.ts";

/**
 * Opens a tokenizer from the parsed text of a `tokenizer.json`, or by the name of a vocabulary of OpenAI: "gpt2", "r50k_base", "p50k_base",
 * "cl100k_base" or "o200k_base". Byte-level BPE needs no package; other models (Unigram, WordPiece, …) need the package `tokenizers`, and names need
 * `gpt-tokenizer`. Throws `config`, naming the package, if it is not installed, and `data` for a broken file.
 */
export function openTokenizer(source: unknown): Tokenizer {
  if (typeof source === "string") return loadTokenizer(gptTokenizerJson(source));
  try {
    return loadTokenizer(source);
  } catch (error) {
    if (!(error instanceof UnsupportedTokenizer)) throw error;
    return libraryTokenizer(source, error.reason);
  }
}
