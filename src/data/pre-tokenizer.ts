/**
 * The steps before the pieces of a text are merged, as `tokenizer.json` describes them: normalizers, and pre-tokenizers that cut the text into pieces
 * and write these in byte characters. Semantics are those of Hugging Face's `tokenizers` library (tokenizers/src/pre_tokenizers,
 * tokenizers/src/tokenizer/normalizer.rs); anything that would give other ids is refused by name.
 */
import { toRegExp } from "oniguruma-to-es";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { writeBytes } from "./byte-level.ts";
import { gpt2Pieces } from "./pieces.ts";

/** Cuts a piece into smaller ones, in order. */
type Cut = (piece: string) => Iterable<string>;

export interface PreTokenizer {
  /** The pieces of a text, in order; empty ones are left out. */
  pieces(text: string): Iterable<string>;
  /** Whether the pieces are byte characters instead of text: parts after ByteLevel see text in this form. */
  readonly written: boolean;
  /** Whether the pieces together are always the whole text. */
  readonly complete: boolean;
}

/** Makes an error that names the part of a file that is not supported. */
type MakeError = (what: string) => GradmixError;

export function field(value: unknown, name: string): unknown {
  if (!isObject(value)) return undefined;
  return new Map<string, unknown>(Object.entries(value)).get(name);
}

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const named = (value: unknown): string => JSON.stringify(value) ?? "without a type";

/** The pre-tokenizer of GPT-2. */
export const gpt2PreTokenizer: PreTokenizer = { pieces: gpt2Pieces, written: false, complete: true };

/** The pre-tokenizer of a `tokenizer.json`: ByteLevel alone, or in a sequence with Split, Digits and Punctuation. */
export function readPreTokenizer(json: unknown, unsupported: MakeError): PreTokenizer {
  const utf8 = new TextEncoder();
  const cuts: Cut[] = [];
  let byteLevel: number | null = null;
  let complete = true;
  const add = (part: unknown): void => {
    const type = field(part, "type");
    if (type === "Sequence") {
      for (const inner of list(field(part, "pretokenizers"))) add(inner);
      return;
    }
    if (type !== "ByteLevel") {
      complete = false;
      cuts.push(readCut(type, part, unsupported));
      return;
    }
    if (byteLevel !== null) throw unsupported("it has two pre-tokenizers of the type ByteLevel");
    if (field(part, "add_prefix_space") !== false) {
      complete = false;
      cuts.push((piece) => (piece === "" ? [] : [piece.startsWith(" ") ? piece : ` ${piece}`]));
    }
    if (field(part, "use_regex") !== false) cuts.push(gpt2Pieces);
    byteLevel = cuts.length;
  };
  if (json !== null && json !== undefined) add(json);
  if (byteLevel === null)
    throw unsupported(
      json === null || json === undefined
        ? "it has no pre-tokenizer"
        : `the pre-tokenizer ${named(field(json, "type"))} has no part ByteLevel`,
    );
  const written = byteLevel < cuts.length;
  if (written) cuts.splice(byteLevel, 0, (piece) => [writeBytes(utf8.encode(piece))]);
  return { pieces: chain(cuts), written, complete: complete && !written };
}

/** Applies one cut after the other. The first receives the whole text; the others hold one piece each. */
function chain(cuts: readonly Cut[]): Cut {
  if (cuts.length === 0) return (text) => (text === "" ? [] : [text]);
  if (cuts.length === 1) return cuts[0]!;
  const rest = chain(cuts.slice(1));
  return function* (text) {
    for (const piece of cuts[0]!(text)) yield* rest(piece);
  };
}

function readCut(type: unknown, part: unknown, unsupported: MakeError): Cut {
  switch (type) {
    case "Split": {
      const pattern = readPattern(field(part, "pattern"), unsupported);
      return cutAt(
        pattern,
        readBehavior(field(part, "behavior"), unsupported),
        field(part, "invert") === true,
      );
    }
    case "Digits":
      return cutAt(/\p{N}/gu, field(part, "individual_digits") === true ? "isolated" : "contiguous");
    case "Punctuation":
      return cutAt(/[!-/:-@[-`{-~\p{P}]/gu, readBehavior(field(part, "behavior") ?? "Isolated", unsupported));
    default:
      throw unsupported(`the pre-tokenizer ${named(type)} is not supported`);
  }
}

const BEHAVIORS = ["removed", "isolated", "mergedwithprevious", "mergedwithnext", "contiguous"] as const;
type Behavior = (typeof BEHAVIORS)[number];

function readBehavior(value: unknown, unsupported: MakeError): Behavior {
  const folded = typeof value === "string" ? value.toLowerCase().replaceAll("_", "") : value;
  const found = BEHAVIORS.find((known) => known === folded);
  if (found === undefined)
    throw unsupported(`the pre-tokenizer Split with the behavior ${named(value)} is not supported`);
  return found;
}

/** The characters of Oniguruma's \w: Unicode's letters, marks, decimal digits and connectors, and Latin-1's other digits. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}²³¹¼-¾";

/** Converts a pattern of the file, which is written for Oniguruma, to a JavaScript regular expression. */
function readPattern(pattern: unknown, unsupported: MakeError): RegExp {
  const literal = field(pattern, "String");
  if (typeof literal === "string") return new RegExp(escapePattern(literal), "gu");
  const source = field(pattern, "Regex");
  if (typeof source !== "string") throw unsupported("the pre-tokenizer Split has no pattern");
  const words = source.replaceAll(/\\(.)/gsu, (escape, letter) =>
    letter === "w" ? `[${WORD}]` : letter === "W" ? `[^${WORD}]` : escape,
  );
  try {
    return toRegExp(words, { global: true });
  } catch (error) {
    throw unsupported(
      `the pattern ${named(source)} of its pre-tokenizer is not supported (${error instanceof Error ? error.message : String(error)})`,
    );
  }
}

/** A pattern that matches exactly this text. */
export const escapePattern = (literal: string): string => literal.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

interface Range {
  readonly from: number;
  readonly to: number;
  readonly matches: boolean;
}

/** All of a text, as the ranges that a pattern matches and those between them. */
function* rangesOf(text: string, pattern: RegExp): Generator<Range, void, undefined> {
  let end = 0;
  try {
    // `matchAll` works on a copy of the pattern, so that two texts can be cut at the same time.
    for (const { 0: match, index } of text.matchAll(pattern)) {
      if (index > end) yield { from: end, to: index, matches: false };
      yield { from: index, to: index + match.length, matches: true };
      end = index + match.length;
    }
  } catch (cause) {
    throw new GradmixError(
      "data",
      `a text has ${text.length} characters in a row that the tokenizer's pattern ${String(pattern)} cannot split, which is too long; break the text into lines`,
      { cause },
    );
  }
  yield { from: end, to: text.length, matches: false };
}

function cutAt(pattern: RegExp, behavior: Behavior, invert = false): Cut {
  return function* (text) {
    // The last range is held back, because the next may be joined to it.
    let held: Range | null = null;
    for (const range of rangesOf(text, pattern)) {
      const matches = range.matches !== invert;
      const joins =
        held !== null &&
        (behavior === "contiguous"
          ? matches === held.matches
          : behavior === "mergedwithprevious"
            ? matches && !held.matches
            : behavior === "mergedwithnext" && !matches && held.matches);
      const from: number = held !== null && joins ? held.from : range.from;
      if (held !== null && !joins && held.to > held.from) yield text.slice(held.from, held.to);
      held = behavior === "removed" && matches ? null : { from, to: range.to, matches };
    }
    if (held !== null && held.to > held.from) yield text.slice(held.from, held.to);
  };
}

/** Changes a text as a whole. */
export type Normalizer = (text: string) => string;

/** The normalizer of a `tokenizer.json`: null, Unicode's normal forms, Lowercase, or a sequence of those. */
export function readNormalizer(json: unknown, unsupported: MakeError): Normalizer | null {
  if (json === null || json === undefined) return null;
  const type = field(json, "type");
  switch (type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return (text) => text.normalize(type);
    case "Lowercase":
      // Character by character: their library does not turn a capital sigma at the end of a word into a final sigma.
      return (text) => text.replaceAll(/\p{Changes_When_Lowercased}/gu, (c) => c.toLowerCase());
    case "Sequence": {
      const parts = list(field(json, "normalizers")).flatMap(
        (part) => readNormalizer(part, unsupported) ?? [],
      );
      return parts.length === 0 ? null : (text) => parts.reduce((value, part) => part(value), text);
    }
    default:
      throw unsupported(`the normalizer ${named(type)} is not supported`);
  }
}
