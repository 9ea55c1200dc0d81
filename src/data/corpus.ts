/** A domain's text as tokens, split by document into a training and a held-out stream. */
import { GradmixError } from "../errors.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import type { Tokenizer } from "./byte-level.ts";
import { splitStream, type TokenStream, tokenWriter } from "./tokens.ts";

export interface Corpus {
  readonly name: string;
  readonly train: TokenStream;
  /** null when nothing was asked to be held out. */
  readonly heldOut: TokenStream | null;
  readonly documents: number;
  readonly heldOutDocuments: number;
  /** UTF-8 bytes of the text. */
  readonly bytes: number;
  /** Something the user should know about the split, or null. */
  readonly note: string | null;
}

export interface CorpusOptions {
  /** Share of the documents held out, 0 ≤ share < 1. */
  readonly heldOut: number;
  /** Decides which. */
  readonly seed: number;
}

/** Separates the choice of held-out documents from other uses of the seed. */
const SPLIT_STREAM = 0x5b17;

/**
 * Encodes documents. Each is held out with the given probability, decided by the seed and its index alone; with two documents or more at least one is
 * held out and one is not. A single document is split at a token. Throws `data` when there is no text.
 */
export async function buildCorpus(
  name: string,
  documents: Iterable<{ readonly text: string }> | AsyncIterable<{ readonly text: string }>,
  tokenizer: Tokenizer,
  options: CorpusOptions,
): Promise<Corpus> {
  const { heldOut: share, seed } = options;
  if (!(share >= 0 && share < 1))
    throw new GradmixError(
      "config",
      `heldOut: ${share} is out of range; it must be at least 0 and less than 1`,
    );
  const stream = foldIn(key(seed), SPLIT_STREAM);
  const writers = {
    train: tokenWriter(tokenizer.vocabSize, tokenizer.endOfText),
    heldOut: tokenWriter(tokenizer.vocabSize, tokenizer.endOfText),
  };
  // The first document waits until it is known whether the others leave a side empty.
  let first: Uint32Array | null = null;
  let count = 0;
  let heldOutDocuments = 0;
  let bytes = 0;
  let last: Uint32Array | null = null;
  const utf8 = new TextEncoder();
  const add = (ids: Uint32Array, isHeldOut: boolean): void => {
    if (isHeldOut) heldOutDocuments++;
    (isHeldOut ? writers.heldOut : writers.train).document(ids);
  };
  // One document is always pending, so that the last one can still be given to an empty side.
  for await (const { text } of documents) {
    const ids = tokenizer.encode(text);
    bytes += utf8.encode(text).length;
    if (first === null) first = ids;
    else {
      if (last !== null) add(last, chosen(count - 1));
      last = ids;
    }
    count++;
  }
  function chosen(index: number): boolean {
    return uniformAt(stream, index) < share;
  }
  if (first === null) throw new GradmixError("data", `"${name}": it is empty; give text to learn from`);
  if (last === null) return single(name, first, tokenizer, share, bytes);

  const lastHeldOut = share > 0 && chosen(count - 1);
  const othersHeldOut = heldOutDocuments + (lastHeldOut ? 1 : 0);
  // With the other documents decided, the first goes where its number says unless a side would stay empty.
  const firstHeldOut = share > 0 && (othersHeldOut === 0 || (othersHeldOut < count - 1 && chosen(0)));
  add(last, lastHeldOut);
  add(first, firstHeldOut);
  return {
    name,
    train: writers.train.finish(),
    heldOut: share > 0 ? writers.heldOut.finish() : null,
    documents: count,
    heldOutDocuments,
    bytes,
    note: null,
  };
}

function single(name: string, ids: Uint32Array, tokenizer: Tokenizer, share: number, bytes: number): Corpus {
  const writer = tokenWriter(tokenizer.vocabSize, tokenizer.endOfText);
  writer.document(ids);
  const whole = writer.finish();
  const common = { name, documents: 1, bytes };
  if (share === 0) return { ...common, train: whole, heldOut: null, heldOutDocuments: 0, note: null };
  const [train, heldOut] = splitStream(whole, Math.round(whole.tokens.length * (1 - share)));
  return {
    ...common,
    train,
    heldOut,
    heldOutDocuments: 0,
    note: `"${name}" is a single document: its last ${Math.round(share * 100)} % of tokens are held out`,
  };
}
