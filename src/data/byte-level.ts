/** What byte-level tokenizers share: their interface, the end of text, how bytes are written in a vocabulary. */

export const END_OF_TEXT = "<|endoftext|>";

export interface Tokenizer {
  readonly kind: "byte" | "bpe";
  /** Ids are 0 … vocabSize − 1. */
  readonly vocabSize: number;
  /** Id of the token that ends a document. */
  readonly endOfText: number;
  encode(text: string): Uint32Array;
  /** Ids that are no token are left out; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
  /** `tokenizer.json` of the Hugging Face tokenizers library. */
  toJSON(): Record<string, unknown>;
}

/**
 * GPT-2's map from bytes to printable characters, in which byte-level vocabularies are written: printable bytes stand for themselves, the others
 * for 256, 257, …
 */
export const byteCharacters: readonly string[] = (() => {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
})();
