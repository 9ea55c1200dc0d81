/**
 * Tokenizers: text to ids and back, and their `tokenizer.json`, which Hugging Face's libraries read with the same ids.
 *
 * All are byte-level, so every string can be encoded: `byte` has a token for each byte, and `bpe` (bpe.ts) merges frequent ones. Special tokens only
 * occur between and around documents: text that spells one, for instance the end of text, is encoded as text.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { type AddedToken, bpeTokenizer, type Merge, tokenizerOf } from "./bpe.ts";
import { byteCharacters, END_OF_TEXT, readBytes, type Tokenizer } from "./byte-level.ts";
import { field, readNormalizer, readPreTokenizer } from "./pre-tokenizer.ts";

/** Makes a tokenizer with one token per byte, and the end of text: 257 ids. */
export function byteTokenizer(): Tokenizer {
  return bpeTokenizer(
    Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    [],
    "byte",
  );
}

/** Names that tokenizers use for the token that ends a document, the likeliest first; BERT's documents are divided by [SEP]. */
const ENDS_OF_TEXT = [
  ...[END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<EOS>"],
  ...["<｜end▁of▁sentence｜>", "<EOS_TOKEN>", "[SEP]"],
];

/** Thrown for a `tokenizer.json` that is not supported here, but may be supported by other libraries. */
export class UnsupportedTokenizer extends GradmixError {
  /** The unsupported part. */
  readonly reason: string;
  constructor(reason: string) {
    super("data", `tokenizer.json: ${reason}; byte-level BPE can be read`);
    this.reason = reason;
  }
}
const unsupported = (reason: string): UnsupportedTokenizer => new UnsupportedTokenizer(reason);
const invalidFile = (what: string): GradmixError =>
  new GradmixError("data", `tokenizer.json: ${what}; byte-level BPE can be read`);

/**
 * Reads a byte-level BPE `tokenizer.json`: the result of `toJSON`, or one of GPT-2, Llama 3, Qwen and others that cut text into pieces by patterns.
 * Throws `data`, naming the part that is not supported or broken.
 */
export function loadTokenizer(json: unknown): Tokenizer {
  const { model, kind, ids, added, contents, endOfText } = describeTokens(json);
  if (kind !== "bpe") throw unsupported(`the model is ${JSON.stringify(field(model, "type"))}, not BPE`);
  // Absent, null, 0 and "" all mean that the option is not used.
  for (const option of ["continuing_subword_prefix", "end_of_word_suffix"])
    if (field(model, option)) throw unsupported(`the model has ${option}, which is not supported`);
  for (const { content, special, options } of added)
    if (!special && options.length > 0)
      throw unsupported(
        `the added token ${JSON.stringify(content)} has ${options[0]}, which is not supported`,
      );
  const specials = new Set(added.filter(({ special }) => special).map(({ content }) => content));
  const merges = readMerges(field(model, "merges"), ids);
  const bytes = Int32Array.from(byteCharacters, (character) => ids.get(character) ?? -1);
  const raw = new Set(added.map(({ content }) => content));
  const utf8 = new TextEncoder();
  return tokenizerOf({
    kind: merges.length === 0 ? "byte" : "bpe",
    tokens: contents.map((token) => (raw.has(token) ? null : readBytes(token)) ?? utf8.encode(token)),
    endOfText,
    bytes,
    merges,
    preTokenizer: readPreTokenizer(field(json, "pre_tokenizer"), unsupported),
    normalizer: readNormalizer(field(json, "normalizer"), unsupported),
    added,
    wholePieces:
      field(model, "ignore_merges") === true
        ? new Map([...ids].filter(([token]) => !specials.has(token)))
        : null,
    unknown: readUnknown(model, ids, bytes),
    // Unchanged: parts that are not used here, for instance a post-processor, are for other readers.
    toJSON: () => structuredClone(json) as Record<string, unknown>,
  });
}

/** The tokens of any `tokenizer.json`. */
export interface TokenFacts {
  readonly model: unknown;
  readonly kind: Exclude<Tokenizer["kind"], "byte">;
  /** Id of each token of the model's vocabulary. */
  readonly ids: ReadonlyMap<string, number>;
  readonly added: readonly FoundToken[];
  /** Text of each token, by id. */
  readonly contents: readonly string[];
  readonly endOfText: number;
}

interface FoundToken extends AddedToken {
  /** Its other options, which restrict where the token is found. */
  readonly options: readonly string[];
}

/** Reads the tokens. Throws `data` for a broken file: an id without a token, two tokens with the same id, no end of text, or an invalid model. */
export function describeTokens(json: unknown): TokenFacts {
  const { model, kind, ids } = readModel(json);
  const added = readAdded(json, ids);
  const contents = tokensById(ids, added);
  const specials = new Set(added.filter(({ special }) => special).map(({ content }) => content));
  return { model, kind, ids, added, contents, endOfText: findEndOfText(contents, specials) };
}

const kinds: ReadonlyMap<unknown, TokenFacts["kind"]> = new Map([
  ["BPE", "bpe"],
  ["Unigram", "unigram"],
  ["WordPiece", "wordpiece"],
  ["WordLevel", "wordlevel"],
]);

function readModel(json: unknown): Pick<TokenFacts, "model" | "kind" | "ids"> {
  const model = field(json, "model");
  const vocab = field(model, "vocab");
  // Files from before 2021 do not state the type of model; one with merges is BPE.
  const type =
    field(model, "type") ?? (isObject(vocab) && Array.isArray(field(model, "merges")) ? "BPE" : undefined);
  const kind = kinds.get(type);
  if (kind === undefined) throw invalidFile(`the model is ${JSON.stringify(type) ?? "missing"}, not BPE`);
  // Ids would differ each time.
  if (field(model, "dropout")) throw invalidFile("the model has dropout, which is not supported");
  const ids = new Map<string, number>();
  if (Array.isArray(vocab))
    vocab.forEach((entry: unknown, id) => {
      const token: unknown = Array.isArray(entry) ? entry[0] : undefined;
      if (typeof token !== "string")
        throw invalidFile(`entry ${id} of the vocabulary is not a token with a score`);
      if (!ids.has(token)) ids.set(token, id);
    });
  else if (isObject(vocab))
    for (const [token, id] of Object.entries(vocab)) {
      if (!isId(id)) throw invalidFile(`the token ${JSON.stringify(token)} has no id`);
      ids.set(token, id);
    }
  else throw invalidFile("it has no vocabulary");
  return { model, kind, ids };
}

const isId = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

function readAdded(json: unknown, ids: ReadonlyMap<string, number>): FoundToken[] {
  const entries = field(json, "added_tokens") ?? [];
  if (!Array.isArray(entries)) throw invalidFile("added_tokens is not a list");
  return entries.map((entry: unknown, i): FoundToken => {
    const [content, id] = [field(entry, "content"), field(entry, "id")];
    if (typeof content !== "string" || content === "" || !isId(id))
      throw invalidFile(`entry ${i} of added_tokens has no content or no id`);
    const own = ids.get(content);
    if (own !== undefined && own !== id)
      throw invalidFile(
        `the token ${JSON.stringify(content)} has the id ${own} in the vocabulary and ${id} in added_tokens`,
      );
    return {
      content,
      id,
      special: field(entry, "special") === true,
      normalized: field(entry, "normalized") !== false,
      options: ["single_word", "lstrip", "rstrip"].filter((option) => field(entry, option) === true),
    };
  });
}

/** All tokens by id. Throws unless every id from 0 to the last has exactly one token. */
function tokensById(ids: ReadonlyMap<string, number>, added: readonly AddedToken[]): readonly string[] {
  const all = new Map([...ids, ...added.map(({ content, id }): [string, number] => [content, id])]);
  const contents = new Array<string>(all.size);
  for (const [token, id] of all) {
    if (id >= all.size)
      throw invalidFile(
        `the token ${JSON.stringify(token)} has the id ${id}, but there are only ${all.size} tokens: ids are missing before it`,
      );
    const other = contents.at(id);
    if (other !== undefined)
      throw invalidFile(
        `the tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} have the same id, ${id}`,
      );
    contents[id] = token;
  }
  return contents;
}

function findEndOfText(contents: readonly string[], specials: ReadonlySet<string>): number {
  const found =
    ENDS_OF_TEXT.find((name) => specials.has(name)) ?? ENDS_OF_TEXT.find((name) => contents.includes(name));
  if (found !== undefined) return contents.indexOf(found);
  const known = [...specials].slice(0, 8).join(" ");
  throw invalidFile(
    `it has no token that ends a text: none of ${ENDS_OF_TEXT.join(" ")}${known === "" ? "" : ` is among its special tokens (${known}${specials.size > 8 ? " …" : ""})`}; add one of them to added_tokens, as "special"`,
  );
}

function readMerges(given: unknown, ids: ReadonlyMap<string, number>): Merge[] {
  if (!Array.isArray(given)) throw invalidFile("it has no merges");
  return given.map((merge: unknown, rank): Merge => {
    const parts: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = parts;
    if (parts.length !== 2 || typeof left !== "string" || typeof right !== "string")
      throw invalidFile(`merge ${rank} is malformed`);
    const [a, b, joined] = [ids.get(left), ids.get(right), ids.get(left + right)];
    if (a === undefined || b === undefined || joined === undefined)
      throw invalidFile(`merge ${rank} (${left} ${right}) names an unknown token`);
    return { left: a, right: b, joined };
  });
}

/** The token for bytes that have no token. */
function readUnknown(
  model: unknown,
  ids: ReadonlyMap<string, number>,
  bytes: Int32Array,
): { id: number; fuse: boolean } | null {
  if (!bytes.includes(-1)) return null;
  if (field(model, "byte_fallback") === true)
    throw unsupported(
      "the model has byte_fallback, which is not supported where bytes have no token of their own",
    );
  const unknown = field(model, "unk_token");
  const id = typeof unknown === "string" ? ids.get(unknown) : undefined;
  return id === undefined ? null : { id, fuse: field(model, "fuse_unk") === true };
}
