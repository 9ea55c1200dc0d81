/**
 * Tokenizers: text to ids and back, and their `tokenizer.json`, which Hugging Face's libraries read with the same ids.
 *
 * Both are byte-level, so every string can be encoded: `byte` has a token for each byte, `bpe` (bpe.ts) merges frequent ones. The last id
 * is the end-of-text token, which only ever separates documents: text that spells its name is encoded as that text.
 */
import { GradmixError } from "../errors.ts";
import { bpeTokenizer, type Merge } from "./bpe.ts";
import { byteCharacters, END_OF_TEXT, type Tokenizer } from "./byte-level.ts";

/** One token a byte, and the end of text: 257 ids. */
export function byteTokenizer(): Tokenizer {
  return bpeTokenizer(
    Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    [],
    "byte",
  );
}

const bytesOfCharacters = new Map(byteCharacters.map((character, byte) => [character, byte]));

/** The bytes of a token as it is written in a vocabulary, or null when it is not byte-level. */
function tokenBytes(token: string): Uint8Array | null {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = bytesOfCharacters.get(character);
    if (byte === undefined) return null;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

const OTHER_IDS = [
  "dropout",
  "continuing_subword_prefix",
  "end_of_word_suffix",
  "byte_fallback",
  "ignore_merges",
];

/** Reads a byte-level BPE `tokenizer.json`: what `toJSON` gives, or GPT-2's. Throws `data`, saying what is not supported. */
export function loadTokenizer(json: unknown): Tokenizer {
  const wrong = (what: string): GradmixError =>
    new GradmixError(
      "data",
      `tokenizer.json: ${what}; byte-level BPE with GPT-2's pre-tokenizer can be read`,
    );
  const model = field(json, "model");
  if (field(model, "type") !== "BPE")
    throw wrong(`the model is ${JSON.stringify(field(model, "type"))}, not BPE`);
  const pre = field(json, "pre_tokenizer");
  if (field(pre, "type") !== "ByteLevel" || field(pre, "add_prefix_space") === true)
    throw wrong("the pre-tokenizer is not ByteLevel without a prefix space");
  if (field(pre, "use_regex") === false) throw wrong("the pre-tokenizer does not split (use_regex is false)");
  if ((field(json, "normalizer") ?? null) !== null) throw wrong("it has a normalizer");
  // Options of the model that would give other ids; absent, null, false, 0 and "" leave them out.
  for (const option of OTHER_IDS) if (field(model, option)) throw wrong(`the model has ${option}`);
  const vocab = field(model, "vocab");
  if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab))
    throw wrong("it has no vocabulary");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0)
      throw wrong(`the token ${JSON.stringify(token)} has no id`);
    ids.set(token, id);
  }
  const added = field(json, "added_tokens");
  for (const entry of Array.isArray(added) ? added : []) {
    const [content, id] = [field(entry, "content"), field(entry, "id")];
    if (typeof content === "string" && typeof id === "number") ids.set(content, id);
  }
  const endOfText = ids.get(END_OF_TEXT);
  if (endOfText === undefined) throw wrong(`it has no token ${END_OF_TEXT}`);
  if (endOfText !== ids.size - 1) throw wrong(`${END_OF_TEXT} is not the last of its ${ids.size} ids`);
  const tokens: Uint8Array[] = [];
  for (const [token, id] of ids) {
    if (id === endOfText) continue;
    const bytes = tokenBytes(token);
    if (bytes === null || id >= endOfText || tokens[id] !== undefined)
      throw wrong(`the token ${JSON.stringify(token)} is not byte-level, or its id ${id} is taken`);
    tokens[id] = bytes;
  }
  for (const character of byteCharacters)
    if (!ids.has(character)) throw wrong(`the byte ${JSON.stringify(character)} has no token`);
  const given = field(model, "merges");
  if (!Array.isArray(given)) throw wrong("it has no merges");
  const merges = given.map((merge: unknown, rank): Merge => {
    const parts: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = parts;
    if (parts.length !== 2 || typeof left !== "string" || typeof right !== "string")
      throw wrong(`merge ${rank} is malformed`);
    const [a, b, joined] = [ids.get(left), ids.get(right), ids.get(left + right)];
    if (a === undefined || b === undefined || joined === undefined)
      throw wrong(`merge ${rank} (${left} ${right}) names an unknown token`);
    return { left: a, right: b, joined };
  });
  return bpeTokenizer(tokens, merges, merges.length === 0 ? "byte" : "bpe");
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return new Map<string, unknown>(Object.entries(value)).get(name);
}
