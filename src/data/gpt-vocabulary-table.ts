/** OpenAI's vocabularies: the patterns and special tokens of tiktoken's `tiktoken_ext/openai_public.py` (0.14). */

export interface Vocabulary {
  /** Name of its list of tokens in the package. */
  readonly ranks: "r50k_base" | "p50k_base" | "cl100k_base" | "o200k_base";
  /** Pattern that cuts a text into pieces; null for GPT-2's, which ByteLevel stands for. */
  readonly pattern: string | null;
  readonly specials: Readonly<Record<string, number>>;
  /** Number of ids, including those without a token. */
  readonly size: number;
}

const CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const CL100K = String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const O200K = [
  String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+${CONTRACTION}?`,
  String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*${CONTRACTION}?`,
  String.raw`\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
].join("|");

const gpt2: Vocabulary = {
  ranks: "r50k_base",
  pattern: null,
  specials: { "<|endoftext|>": 50256 },
  size: 50257,
};

/** Vocabularies by their names in tiktoken. */
export const vocabularies: ReadonlyMap<string, Vocabulary> = new Map([
  ["gpt2", gpt2],
  ["r50k_base", gpt2],
  ["p50k_base", { ...gpt2, ranks: "p50k_base", size: 50281 }],
  [
    "cl100k_base",
    {
      ranks: "cl100k_base",
      pattern: CL100K,
      specials: {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
      },
      size: 100277,
    },
  ],
  [
    "o200k_base",
    {
      ranks: "o200k_base",
      pattern: O200K,
      specials: { "<|endoftext|>": 199999, "<|endofprompt|>": 200018 },
      size: 200019,
    },
  ],
]);

/** Their names. */
export const gptVocabularies: readonly string[] = [...vocabularies.keys()];
