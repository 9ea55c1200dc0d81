/**
 * Tokenizers: text to ids and back, and their `tokenizer.json`, which Hugging Face's libraries read with the same ids.
 *
 * All are byte-level, so every string can be encoded: `byte` has a token for each byte, `bpe` (bpe.ts) merges frequent ones. Special tokens
 * only ever stand between and around documents: text that spells one, the end of text for instance, is encoded as that text.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { type AddedToken, bpeTokenizer, type Merge, tokenizerOf } from "./bpe.ts";
import { byteCharacters, END_OF_TEXT, readBytes, type Tokenizer } from "./byte-level.ts";
import { field, readNormalizer, readPreTokenizer } from "./pre-tokenizer.ts";

/** One token a byte, and the end of text: 257 ids. */
export function byteTokenizer(): Tokenizer {
  return bpeTokenizer(
    Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    [],
    "byte",
  );
}

/** Names under which tokenizers have the token that ends a document, the likeliest first. */
const ENDS_OF_TEXT = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<EOS>"];

type Wrong = (what: string) => GradmixError;

/**
 * Reads a byte-level BPE `tokenizer.json`: what `toJSON` gives, or one of GPT-2, Llama 3, Qwen and others that cut text into pieces by patterns.
 * Throws `data`, naming the part that is not supported or broken.
 */
export function loadTokenizer(json: unknown): Tokenizer {
  const wrong = (what: string): GradmixError =>
    new GradmixError("data", `tokenizer.json: ${what}; byte-level BPE can be read`);
  const model = readModel(json, wrong);
  const added = readAdded(json, model.ids, wrong);
  const contents = tokensById(model.ids, added, wrong);
  const specials = new Set(added.filter(({ special }) => special).map(({ content }) => content));
  const merges = readMerges(field(model.json, "merges"), model.ids, wrong);
  const bytes = Int32Array.from(byteCharacters, (character) => model.ids.get(character) ?? -1);
  const raw = new Set(added.map(({ content }) => content));
  const utf8 = new TextEncoder();
  return tokenizerOf({
    kind: merges.length === 0 ? "byte" : "bpe",
    tokens: contents.map((token) => (raw.has(token) ? null : readBytes(token)) ?? utf8.encode(token)),
    endOfText: findEndOfText(contents, specials, wrong),
    bytes,
    merges,
    preTokenizer: readPreTokenizer(field(json, "pre_tokenizer"), wrong),
    normalizer: readNormalizer(field(json, "normalizer"), wrong),
    added,
    whole:
      field(model.json, "ignore_merges") === true
        ? new Map([...model.ids].filter(([token]) => !specials.has(token)))
        : null,
    unknown: readUnknown(model.json, model.ids, bytes, wrong),
    // As it was given: what is not used here, a post-processor for instance, is for others.
    toJSON: () => structuredClone(json) as Record<string, unknown>,
  });
}

interface Model {
  readonly json: unknown;
  /** Id of each token of the model's vocabulary. */
  readonly ids: ReadonlyMap<string, number>;
}

function readModel(json: unknown, wrong: Wrong): Model {
  const model = field(json, "model");
  const vocab = field(model, "vocab");
  const isMap = isObject(vocab);
  // Files of before 2021 do not say which model they have; the one with merges is BPE.
  const type = field(model, "type") ?? (isMap && Array.isArray(field(model, "merges")) ? "BPE" : undefined);
  if (type !== "BPE") throw wrong(`the model is ${JSON.stringify(type) ?? "missing"}, not BPE`);
  if (!isMap) throw wrong("it has no vocabulary");
  // Absent, null, 0 and "" leave them out.
  for (const option of ["dropout", "continuing_subword_prefix", "end_of_word_suffix"])
    if (field(model, option)) throw wrong(`the model has ${option}, which is not supported`);
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isId(id)) throw wrong(`the token ${JSON.stringify(token)} has no id`);
    ids.set(token, id);
  }
  return { json: model, ids };
}

const isId = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

function readAdded(json: unknown, ids: ReadonlyMap<string, number>, wrong: Wrong): AddedToken[] {
  const entries = field(json, "added_tokens") ?? [];
  if (!Array.isArray(entries)) throw wrong("added_tokens is not a list");
  return entries.map((entry: unknown, i): AddedToken => {
    const [content, id] = [field(entry, "content"), field(entry, "id")];
    if (typeof content !== "string" || content === "" || !isId(id))
      throw wrong(`entry ${i} of added_tokens has no content or no id`);
    const own = ids.get(content);
    if (own !== undefined && own !== id)
      throw wrong(
        `the token ${JSON.stringify(content)} has the id ${own} in the vocabulary and ${id} in added_tokens`,
      );
    const special = field(entry, "special") === true;
    if (!special)
      for (const option of ["single_word", "lstrip", "rstrip"])
        if (field(entry, option) === true)
          throw wrong(`the added token ${JSON.stringify(content)} has ${option}, which is not supported`);
    return { content, id, special, normalized: field(entry, "normalized") !== false };
  });
}

/** All tokens by id. Throws unless every id from 0 to the last has exactly one token. */
function tokensById(
  ids: ReadonlyMap<string, number>,
  added: readonly AddedToken[],
  wrong: Wrong,
): readonly string[] {
  const all = new Map([...ids, ...added.map(({ content, id }): [string, number] => [content, id])]);
  const contents = new Array<string>(all.size);
  for (const [token, id] of all) {
    if (id >= all.size)
      throw wrong(
        `the token ${JSON.stringify(token)} has the id ${id}, but there are only ${all.size} tokens: ids are missing before it`,
      );
    const other = contents.at(id);
    if (other !== undefined)
      throw wrong(`the tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} have the same id, ${id}`);
    contents[id] = token;
  }
  return contents;
}

function findEndOfText(contents: readonly string[], specials: ReadonlySet<string>, wrong: Wrong): number {
  const found =
    ENDS_OF_TEXT.find((name) => specials.has(name)) ?? ENDS_OF_TEXT.find((name) => contents.includes(name));
  if (found !== undefined) return contents.indexOf(found);
  const known = [...specials].slice(0, 8).join(" ");
  throw wrong(
    `it has no token that ends a text: none of ${ENDS_OF_TEXT.join(" ")}${known === "" ? "" : ` is among its special tokens (${known}${specials.size > 8 ? " …" : ""})`}; add one of them to added_tokens, as "special"`,
  );
}

function readMerges(given: unknown, ids: ReadonlyMap<string, number>, wrong: Wrong): Merge[] {
  if (!Array.isArray(given)) throw wrong("it has no merges");
  return given.map((merge: unknown, rank): Merge => {
    const parts: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = parts;
    if (parts.length !== 2 || typeof left !== "string" || typeof right !== "string")
      throw wrong(`merge ${rank} is malformed`);
    const [a, b, joined] = [ids.get(left), ids.get(right), ids.get(left + right)];
    if (a === undefined || b === undefined || joined === undefined)
      throw wrong(`merge ${rank} (${left} ${right}) names an unknown token`);
    return { left: a, right: b, joined };
  });
}

/** What stands for bytes that have no token. */
function readUnknown(
  model: unknown,
  ids: ReadonlyMap<string, number>,
  bytes: Int32Array,
  wrong: Wrong,
): { id: number; fuse: boolean } | null {
  if (!bytes.includes(-1)) return null;
  if (field(model, "byte_fallback") === true)
    throw wrong("the model has byte_fallback, which is not supported where bytes have no token of their own");
  const unknown = field(model, "unk_token");
  const id = typeof unknown === "string" ? ids.get(unknown) : undefined;
  return id === undefined ? null : { id, fuse: field(model, "fuse_unk") === true };
}
