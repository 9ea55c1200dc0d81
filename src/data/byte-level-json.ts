/** The tokenizer.json of a byte-level BPE, for learned tokenizers and those of OpenAI. Only plain data; `loadTokenizer` reads it back. */

/** Cuts text into pieces by GPT-2's pattern, and writes bytes as letters. */
const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

export interface ByteLevelParts {
  /** Tokens that are never the result of a merge, with their ids. */
  readonly special: readonly { readonly id: number; readonly content: string }[];
  /** Regular expression that cuts text into pieces; null for GPT-2's. */
  readonly pattern: string | null;
  /** Whether a piece that equals a token becomes this token, without the merges. */
  readonly ignoreMerges: boolean;
  /** Tokens in the form of `writeBytes`, with their ids. */
  readonly vocab: Iterable<readonly [string, number]>;
  readonly merges: unknown;
}

/** Makes the tokenizer.json. The order of members is part of a tokenizer's hash. */
export function byteLevelJson(parts: ByteLevelParts): Record<string, unknown> {
  const { special, pattern, ignoreMerges, vocab, merges } = parts;
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map(({ id, content }) => ({
      ...{ id, content },
      ...{ single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    })),
    normalizer: null,
    pre_tokenizer: pattern === null ? byteLevel : splitBy(pattern),
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(vocab),
      merges,
    },
  };
}

const splitBy = (pattern: string): Record<string, unknown> => ({
  type: "Sequence",
  pretokenizers: [
    { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
    { ...byteLevel, use_regex: false },
  ],
});
