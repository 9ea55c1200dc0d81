/** What byte-level tokenizers share: their interface, the end-of-text token, and how bytes are written in a vocabulary. */

export const END_OF_TEXT = "<|endoftext|>";

/** Turns text into token ids and back. Made by `byteTokenizer`, `loadTokenizer` and `trainBpe`. */
export interface Tokenizer {
  /** The algorithm that cuts text into tokens. */
  readonly kind: "byte" | "bpe" | "unigram" | "wordpiece" | "wordlevel";
  /** Number of ids; they are 0 … vocabSize − 1. */
  readonly vocabSize: number;
  /** Id of the token that ends a document. */
  readonly endOfText: number;
  /** Token ids of a text. Throws `data` for a text that the vocabulary cannot express because a byte has no token. */
  encode(text: string): Uint32Array;
  /**
   * Passes the same ids to a callback in blocks, for texts whose ids are not needed all at once. A block is only valid until `onBlock` returns; then it
   * is overwritten.
   */
  encodeBlocks(text: string, onBlock: (ids: Uint32Array) => void): void;
  /** Text of token ids. Ids without a token are left out; bytes that are not UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>): string;
  /** The tokenizer in the `tokenizer.json` format of the Hugging Face tokenizers library. */
  toJSON(): Record<string, unknown>;
}

/** GPT-2's map from bytes to printable characters, used in byte-level vocabularies: printable bytes map to themselves, the others to 256, 257, … */
export const byteCharacters: readonly string[] = (() => {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
})();

const bytesOfCharacters: ReadonlyMap<string, number> = new Map(
  byteCharacters.map((character, byte) => [character, byte]),
);

/** Bytes in the form that is used in a vocabulary. */
export function writeBytes(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += byteCharacters[byte];
  return out;
}

/** The bytes of a token of a vocabulary, or null if it is not byte-level. */
export function readBytes(token: string): Uint8Array | null {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = bytesOfCharacters.get(character);
    if (byte === undefined) return null;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
