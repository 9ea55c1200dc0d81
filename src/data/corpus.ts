/** A domain's text as tokens, split by document into a training and a held-out stream. */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import {
  callback,
  checkOptions,
  integerIn,
  numberIn,
  required,
  show,
  objectWith,
  iterable,
} from "../options.ts";
import { timesShare } from "../share.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import type { Tokenizer } from "./byte-level.ts";
import { utf8Length } from "./bytes.ts";
import {
  type CorpusWriter,
  corpusWriter,
  splitStream,
  type StoredStream,
  type TokenStream,
} from "./tokens.ts";

/** A domain's tokens, in memory or in files. */
export interface StoredCorpus {
  /** Name of the domain. */
  readonly name: string;
  /** Training tokens. */
  readonly train: StoredStream;
  /** Held-out tokens; null if no text was to be held out. */
  readonly heldOut: StoredStream | null;
  /** Number of documents in both parts. */
  readonly documents: number;
  /** Number of held-out documents. */
  readonly heldOutDocuments: number;
  /** UTF-8 bytes of the held-out text; 0 if they are unknown. */
  readonly heldOutBytes: number;
  /** A remark on the split for the user, or null. */
  readonly note: string | null;
}

/** A domain's text as tokens in memory. */
export interface Corpus extends StoredCorpus {
  /** Training tokens. */
  readonly train: TokenStream;
  /** Held-out tokens; null if no text was to be held out. */
  readonly heldOut: TokenStream | null;
  /** UTF-8 bytes of the whole text. */
  readonly bytes: number;
}

/** Options of `buildCorpus`. */
export interface CorpusOptions {
  /** Share of the documents to hold out, 0 ≤ share < 1. */
  readonly heldOut: number;
  /** Seed that decides which documents are held out. */
  readonly seed: number;
  /** Called with the text of each held-out document, or of the held-out part of a single document. */
  readonly onHeldOut?: (text: string) => void;
}

/** A document: its text, and its source for error messages. */
interface Text {
  readonly text: string;
  readonly source?: string;
}

/** Separates the choice of held-out documents from other uses of the seed. */
const SPLIT_STREAM = 0x5b17;

/**
 * Encodes documents and splits them. Each is held out with the given probability, decided by the seed and its index alone; with two documents or
 * more, at least one is held out and one is not. A single document is split at a token. Throws `data` if there is no text and for text that the
 * tokenizer cannot express, `config` for options out of range, and `memory` if the tokens do not fit into memory.
 */
export async function buildCorpus(
  name: string,
  documents: Iterable<Text> | AsyncIterable<Text>,
  tokenizer: Tokenizer,
  options: CorpusOptions,
): Promise<Corpus> {
  iterable("a list of documents { text }, or a generator of them")("buildCorpus: documents", documents);
  const builder = corpusBuilder(name, tokenizer, options);
  for await (const document of documents) builder.add(document);
  return builder.finish();
}

/** Decides which documents are held out: each with the given probability, by the seed and its index alone. */
export function heldOutChoice({ heldOut: share, seed }: CorpusOptions): (index: number) => boolean {
  const stream = foldIn(key(seed), SPLIT_STREAM);
  return (index) => uniformAt(stream, index) < share;
}

/** Builds a corpus from documents that are added one after another. */
export interface CorpusBuilder {
  add(document: Text): void;
  finish(): Corpus;
}

/** Builds one of several corpora whose documents come in mixed order, with the result of `buildCorpus`. */
export function corpusBuilder(name: string, tokenizer: Tokenizer, options: CorpusOptions): CorpusBuilder {
  checkOptions<CorpusOptions>("buildCorpus", options, {
    heldOut: required(numberIn({ min: 0, max: 1, openMax: true })),
    seed: required(integerIn(0)),
    onHeldOut: callback,
  });
  objectWith(
    "a tokenizer, such as byteTokenizer makes",
    "encode",
    "vocabSize",
    "endOfText",
  )("buildCorpus: tokenizer", tokenizer);
  const { heldOut: share, onHeldOut } = options;
  const chosen = heldOutChoice(options);
  const writer = (): CorpusWriter => corpusWriter(tokenizer.vocabSize, tokenizer.endOfText);
  const [train, heldOut, first] = [writer(), writer(), writer()];
  let count = 0;
  let heldOutDocuments = 0;
  let [bytes, heldOutBytes, firstBytes] = [0, 0, 0];
  let firstText = "";
  return {
    add(document) {
      const { text, source } = checkedText(document, name, count);
      // The first document waits until it is known whether the others leave one side empty.
      const isHeldOut = count > 0 && chosen(count);
      if (isHeldOut) heldOutDocuments++;
      const to = count === 0 ? first : isHeldOut ? heldOut : train;
      encodeTo(to, text, source, tokenizer);
      const length = utf8Length(text);
      bytes += length;
      if (count === 0) {
        firstBytes = length;
        if (onHeldOut !== undefined && share > 0) firstText = text;
      }
      if (isHeldOut) {
        heldOutBytes += length;
        onHeldOut?.(text);
      }
      count++;
    },
    finish() {
      if (count === 0) throw new GradmixError("data", `"${name}": it is empty; give text to learn from`);
      if (count === 1) return single(name, first.finish(), share, bytes, tokenizer, onHeldOut);
      const firstHeldOut = holdsOutFirst(share, heldOutDocuments, count, chosen);
      if (firstHeldOut) onHeldOut?.(firstText);
      (firstHeldOut ? heldOut : train).moveFrom(first);
      return {
        name,
        train: train.finish(),
        heldOut: share > 0 ? heldOut.finish() : null,
        documents: count,
        heldOutDocuments: heldOutDocuments + (firstHeldOut ? 1 : 0),
        bytes,
        heldOutBytes: heldOutBytes + (firstHeldOut ? firstBytes : 0),
        note: null,
      };
    },
  };
}

/** Throws `data`, naming the document, for one without text. Without types, as in JavaScript, a number would be encoded without end. */
function checkedText(document: Text, name: string, index: number): Text {
  const given: unknown = document;
  if (isObject(given) && typeof given["text"] === "string") return document;
  const what = isObject(given) ? `has ${show(given["text"])} as its text` : `is ${show(given)}`;
  throw new GradmixError(
    "data",
    `"${name}": document ${index + 1} ${what}; a document is an object with its text, { text: "…" }`,
  );
}

/** Whether the first of two or more documents is held out, after all others were decided: by its index, unless one side would stay empty. */
export function holdsOutFirst(
  share: number,
  others: number,
  count: number,
  chosen: (index: number) => boolean,
): boolean {
  return share > 0 && (others === 0 || (others < count - 1 && chosen(0)));
}

/** Encodes a document into the stream block by block, so that its ids are never stored separately. */
function encodeTo(
  writer: CorpusWriter,
  text: string,
  source: string | undefined,
  tokenizer: Tokenizer,
): void {
  try {
    tokenizer.encodeBlocks(text, (ids) => writer.append(ids));
  } catch (error) {
    if (source === undefined || !(error instanceof GradmixError)) throw error;
    throw new GradmixError(error.code, `${source}: ${error.message}`, { cause: error });
  }
  writer.end();
}

function single(
  name: string,
  stream: TokenStream,
  share: number,
  bytes: number,
  tokenizer: Tokenizer,
  onHeldOut: CorpusOptions["onHeldOut"],
): Corpus {
  const common = { name, documents: 1, bytes, heldOutDocuments: 0 };
  if (share === 0) return { ...common, train: stream, heldOut: null, heldOutBytes: 0, note: null };
  const { length } = stream.tokens;
  const [train, heldOut] = splitStream(stream, tokensKept(length, share));
  // The end-of-text token is not text, so it is left out. A character that the cut divides counts as U+FFFD.
  const heldOutText = tokenizer.decode(heldOut.tokens.subarray(0, -1));
  onHeldOut?.(heldOutText);
  return {
    ...common,
    train,
    heldOut,
    heldOutBytes: utf8Length(heldOutText),
    note: singleNote(name, share),
  };
}

/** Number of tokens of a single document that are trained on. */
export function tokensKept(length: number, share: number): number {
  return length - timesShare(length, share, "nearest");
}

export function singleNote(name: string, share: number): string {
  return `"${name}" is a single document: its last ${Math.round(share * 100)} % of tokens are held out`;
}
