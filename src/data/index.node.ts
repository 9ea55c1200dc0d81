/**
 * From text files to batches of tokens, including the functions that read files.
 *
 * @module gradmix/data
 */
export * from "./index.ts";
export { listFiles } from "./files.ts";
export { readDocuments } from "./sources.ts";
export { openTokens } from "./stored-tokens.ts";
export { openTokenizer } from "./open-tokenizer.ts";
