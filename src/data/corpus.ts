/** A domain's text as tokens, split by document into a training and a held-out stream. */
import { GradmixError } from "../errors.ts";
import { callback, checkOptions, integerIn, numberIn, required } from "../options.ts";
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

/** A domain's tokens, wherever they are. */
export interface StoredCorpus {
  /** Name of the domain. */
  readonly name: string;
  /** Tokens to train on. */
  readonly train: StoredStream;
  /** null when nothing was asked to be held out. */
  readonly heldOut: StoredStream | null;
  /** Documents of both parts. */
  readonly documents: number;
  /** Documents of the part that is held out. */
  readonly heldOutDocuments: number;
  /** UTF-8 bytes of the part that is held out; 0 where they are not known. */
  readonly heldOutBytes: number;
  /** Something the user should know about the split, or null. */
  readonly note: string | null;
}

/** A domain's text as tokens in memory. */
export interface Corpus extends StoredCorpus {
  /** Tokens to train on. */
  readonly train: TokenStream;
  /** Tokens held out; null when nothing was asked to be held out. */
  readonly heldOut: TokenStream | null;
  /** UTF-8 bytes of the text. */
  readonly bytes: number;
}

/** Options of `buildCorpus`. */
export interface CorpusOptions {
  /** Share of the documents held out, 0 ≤ share < 1. */
  readonly heldOut: number;
  /** Decides which. */
  readonly seed: number;
  /** Told of the text of each document, or part of a single one, that is held out. */
  readonly onHeldOut?: (text: string) => void;
}

/** A document: its text, and where it is from, for errors. */
interface Text {
  readonly text: string;
  readonly source?: string;
}

/** Separates the choice of held-out documents from other uses of the seed. */
const SPLIT_STREAM = 0x5b17;

/**
 * Encodes documents. Each is held out with the given probability, decided by the seed and its index alone; with two documents or more at least one is
 * held out and one is not. A single document is split at a token. Throws `data` when there is no
 * text and for text that the tokenizer cannot express, `config` for options that do not fit, `memory` when the tokens do not fit.
 */
export async function buildCorpus(
  name: string,
  documents: Iterable<Text> | AsyncIterable<Text>,
  tokenizer: Tokenizer,
  options: CorpusOptions,
): Promise<Corpus> {
  const builder = corpusBuilder(name, tokenizer, options);
  for await (const document of documents) builder.add(document);
  return builder.finish();
}

/** Which documents are held out: each with the given probability, decided by the seed and its index alone. */
export function heldOutChoice({ heldOut: share, seed }: CorpusOptions): (index: number) => boolean {
  const stream = foldIn(key(seed), SPLIT_STREAM);
  return (index) => uniformAt(stream, index) < share;
}

/** A corpus whose documents are handed in one after another. */
export interface CorpusBuilder {
  add(document: Text): void;
  finish(): Corpus;
}

/** What `buildCorpus` does, for documents of many corpora that come in turn. */
export function corpusBuilder(name: string, tokenizer: Tokenizer, options: CorpusOptions): CorpusBuilder {
  checkOptions<CorpusOptions>("buildCorpus", options, {
    heldOut: required(numberIn({ min: 0, max: 1, openMax: true })),
    seed: required(integerIn(0)),
    onHeldOut: callback,
  });
  const { heldOut: share, onHeldOut } = options;
  const chosen = heldOutChoice(options);
  const writer = (): CorpusWriter => corpusWriter(tokenizer.vocabSize, tokenizer.endOfText);
  const [train, heldOut, first] = [writer(), writer(), writer()];
  let count = 0;
  let heldOutDocuments = 0;
  let [bytes, heldOutBytes, firstBytes] = [0, 0, 0];
  let firstText = "";
  return {
    add({ text, source }) {
      // The first document waits until it is known whether the others leave a side empty.
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
      (firstHeldOut ? heldOut : train).take(first);
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

/** With the other documents decided, the first of two or more goes where its number says unless a side would stay empty. */
export function holdsOutFirst(
  share: number,
  others: number,
  count: number,
  chosen: (index: number) => boolean,
): boolean {
  return share > 0 && (others === 0 || (others < count - 1 && chosen(0)));
}

/** Writes a document block by block, so that its ids are never held apart from the stream. */
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
  whole: TokenStream,
  share: number,
  bytes: number,
  tokenizer: Tokenizer,
  onHeldOut: CorpusOptions["onHeldOut"],
): Corpus {
  const common = { name, documents: 1, bytes, heldOutDocuments: 0 };
  if (share === 0) return { ...common, train: whole, heldOut: null, heldOutBytes: 0, note: null };
  const { length } = whole.tokens;
  const [train, heldOut] = splitStream(whole, tokensKept(length, share));
  // Without the end-of-text token, which is no text. A character that the cut divides counts as U+FFFD.
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

/** Of the tokens of a single document, those that are trained on. */
export function tokensKept(length: number, share: number): number {
  return length - timesShare(length, share, "nearest");
}

export function singleNote(name: string, share: number): string {
  return `"${name}" is a single document: its last ${Math.round(share * 100)} % of tokens are held out`;
}
