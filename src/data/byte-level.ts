/** What byte-level tokenizers share: their interface, the end of text, how bytes are written in a vocabulary. */

export const END_OF_TEXT = "<|endoftext|>";

/** Turns text into ids of tokens and back; `byteTokenizer`, `loadTokenizer` and `trainBpe` make one. */
export interface Tokenizer {
  /** The algorithm that cuts the text into tokens. */
  readonly kind: "byte" | "bpe" | "unigram" | "wordpiece" | "wordlevel";
  /** Ids are 0 … vocabSize − 1. */
  readonly vocabSize: number;
  /** Id of the token that ends a document. */
  readonly endOfText: number;
  /** Throws `data` for a text that the vocabulary cannot express: a byte that has no token. */
  encode(text: string): Uint32Array;
  /**
   * The same ids in blocks, for texts whose ids are not wanted all at once. A block is valid until `take` returns; it is written anew after that.
   */
  encodeBlocks(text: string, take: (ids: Uint32Array) => void): void;
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

const bytesOfCharacters: ReadonlyMap<string, number> = new Map(
  byteCharacters.map((character, byte) => [character, byte]),
);

/** Bytes as they are written in a vocabulary. */
export function writeBytes(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += byteCharacters[byte];
  return out;
}

/** The bytes of a token as it is written in a vocabulary, or null when it is not byte-level. */
export function readBytes(token: string): Uint8Array | null {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = bytesOfCharacters.get(character);
    if (byte === undefined) return null;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
