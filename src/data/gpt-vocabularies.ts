/**
 * OpenAI's vocabularies by name, as the `tokenizer.json` that gives the ids of their library (tiktoken). The tokens, a few megabytes, come from the
 * package gpt-tokenizer; patterns and special tokens are in `gpt-vocabulary-table.ts`.
 */
import { createRequire } from "node:module";
import { errorCode, GradmixError } from "../errors.ts";
import { pairKey } from "./bpe.ts";
import { writeBytes } from "./byte-level.ts";
import { byteLevelJson } from "./byte-level-json.ts";
import { gptVocabularies, type Vocabulary, vocabularies } from "./gpt-vocabulary-table.ts";
import { field } from "./pre-tokenizer.ts";

/** Makes the tokenizer.json. Throws `config`, naming the package, if gpt-tokenizer is not installed or does not contain the vocabulary. */
export function gptTokenizerJson(name: string): Record<string, unknown> {
  const vocabulary = vocabularies.get(name);
  if (vocabulary === undefined)
    throw new GradmixError(
      "config",
      `there is no vocabulary ${JSON.stringify(name)}; there are ${gptVocabularies.join(", ")}`,
    );
  return tokenizerJson(vocabulary, readRanks(name, vocabulary));
}

/** Tokens by id; undefined for an id without a token. */
type Ranks = readonly (Uint8Array | undefined)[];

function readRanks(name: string, { ranks }: Vocabulary): Ranks {
  let found: unknown;
  try {
    found = createRequire(import.meta.url)(`gpt-tokenizer/bpeRanks/${ranks}`);
  } catch (cause) {
    if (!["MODULE_NOT_FOUND", "ERR_PACKAGE_PATH_NOT_EXPORTED"].includes(errorCode(cause))) throw cause;
    throw new GradmixError(
      "config",
      `the vocabulary "${name}" comes with another package; install it beside gradmix: npm install gpt-tokenizer`,
      { cause },
    );
  }
  const list = field(found, "default");
  const utf8 = new TextEncoder();
  if (Array.isArray(list))
    return Array.from(list, (token: unknown) =>
      typeof token === "string"
        ? utf8.encode(token)
        : Array.isArray(token)
          ? Uint8Array.from(token as number[])
          : undefined,
    );
  throw new GradmixError(
    "config",
    `the installed gpt-tokenizer does not hold the vocabulary "${name}" as its version 4 does; npm install gpt-tokenizer@4`,
  );
}

function tokenizerJson({ pattern, specials, size }: Vocabulary, ranks: Ranks): Record<string, unknown> {
  const written = ranks.map((token) => (token === undefined ? undefined : writeBytes(token)));
  const ids = new Map<string, number>();
  written.forEach((token, id) => {
    if (token !== undefined) ids.set(token, id);
  });
  const contents = new Map(Object.entries(specials).map(([content, id]) => [id, content]));
  const added = Array.from({ length: size }, (_, id) => id).filter((id) => written[id] === undefined);
  return byteLevelJson({
    // Ids without a token get a name here, so that each id has one.
    special: added.map((id) => ({ id, content: contents.get(id) ?? `<|reserved_${id}|>` })),
    pattern,
    // As in tiktoken.
    ignoreMerges: true,
    vocab: ids,
    merges: mergesOf(written, ids),
  });
}

/**
 * The two tokens from which each token was merged, in order of rank: the two parts of its bytes after all merges of lower rank. (tiktoken does not
 * store merges: a token's id is the rank of its merge.) `written` are tokens in byte characters, one per byte.
 */
function mergesOf(
  written: readonly (string | undefined)[],
  ids: ReadonlyMap<string, number>,
): [string, string][] {
  /** Ids of two tokens → id of the token that they form. */
  const joined = new Map<number, number>();
  return written.flatMap((token, rank): [string, string][] => {
    if (token === undefined || token.length < 2) return [];
    const parts = Array.from(token, (character) => ids.get(character) ?? -1);
    while (parts.length > 2) {
      let [at, best] = [-1, Infinity];
      for (let i = 0; i + 1 < parts.length; i++) {
        const found = joined.get(pairKey(parts[i]!, parts[i + 1]!));
        if (found !== undefined && found < best) [at, best] = [i, found];
      }
      // It cannot result from a merge, but only be a whole piece.
      if (at < 0) return [];
      parts.splice(at, 2, best);
    }
    const [left, right] = [parts[0]!, parts[1]!];
    joined.set(pairKey(left, right), rank);
    return [[written[left] ?? "", written[right] ?? ""]];
  });
}
