/**
 * Tokenizers other than byte-level BPE (Unigram, WordPiece, …), by Hugging Face's library: the package `tokenizers`, its official binding for
 * Node.js, which users install if they need it. It answers asynchronously, so it runs in a thread of its own and the caller waits.
 */
import { callback, numberList, string } from "../options.ts";
import { createRequire } from "node:module";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { errorCode, GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import type { Tokenizer } from "./byte-level.ts";
import type { LibraryAnswer, LibraryRequest, LibrarySetup } from "./library-worker.ts";
import { field } from "./pre-tokenizer.ts";
import { describeTokens, type TokenFacts } from "./tokenizer.ts";

/**
 * Makes a tokenizer from a `tokenizer.json` of any kind, with the library. `reason` says why the library is needed. Text that spells a special token
 * stays text. Throws `config` if the package is not installed, and `data` for a file that it cannot read.
 */
export function libraryTokenizer(json: unknown, reason: string): Tokenizer {
  const facts = describeTokens(json);
  const send = library(reason);
  const file = load(send, textOnly(json, facts));
  let decoder: number | null = null;
  const encode = (text: string): Uint32Array => {
    string("tokenizer.encode: text", text);
    const answer = send({ file, encode: text });
    if ("ids" in answer) return answer.ids;
    throw failure(answer, "it cannot encode a text");
  };
  return {
    kind: facts.kind,
    vocabSize: facts.contents.length,
    endOfText: facts.endOfText,
    encode,
    encodeBlocks(text, onBlock) {
      callback("tokenizer.encodeBlocks: onBlock", onBlock);
      const ids = encode(text);
      if (ids.length > 0) onBlock(ids);
    },
    decode(ids) {
      numberList("tokenizer.decode: ids", ids);
      decoder ??= load(send, withoutAdditions(json));
      const known = Array.from(ids).filter((id) => id < facts.contents.length);
      const answer = send({ file: decoder, decode: known });
      if ("text" in answer) return answer.text;
      throw failure(answer, "it cannot decode ids");
    },
    toJSON: () => structuredClone(json) as Record<string, unknown>,
  };
}

type SendRequest = (request: LibraryRequest) => LibraryAnswer;

function load(send: SendRequest, json: object): number {
  const answer = send({ load: JSON.stringify(json) });
  if ("loaded" in answer) return answer.loaded;
  throw failure(answer, "it cannot be read");
}

function failure(answer: LibraryAnswer, what: string): GradmixError {
  const problem = "error" in answer ? answer.error.replaceAll(/\s+/g, " ").slice(0, 300) : "another answer";
  return new GradmixError("data", `tokenizer.json: ${what} (Hugging Face's library: ${problem})`);
}

/** The file without parts that add tokens to a text or remove some. */
function withoutAdditions(json: unknown): Record<string, unknown> {
  return { ...(isObject(json) ? json : {}), truncation: null, padding: null, post_processor: null };
}

/**
 * The file for encoding. In it, no text can spell a special token: the library does not search for them, and in the model's vocabulary their names
 * are surrounded by noncharacters of Unicode.
 */
function textOnly(json: unknown, { added }: TokenFacts): Record<string, unknown> {
  const specials = new Set(added.filter(({ special }) => special).map(({ content }) => content));
  const hidden = (token: unknown): unknown =>
    typeof token === "string" && specials.has(token) ? `\u{10ffff}${token}\u{10fffe}` : token;
  const model = field(json, "model");
  const vocab = field(model, "vocab");
  const renamed: unknown = Array.isArray(vocab)
    ? vocab.map((entry: unknown) =>
        Array.isArray(entry) ? entry.map((part: unknown, i) => (i === 0 ? hidden(part) : part)) : entry,
      )
    : isObject(vocab)
      ? Object.fromEntries(Object.entries(vocab).map(([token, id]) => [hidden(token), id]))
      : vocab;
  const listed = field(json, "added_tokens");
  const unknown = field(model, "unk_token");
  return {
    ...withoutAdditions(json),
    added_tokens: (Array.isArray(listed) ? listed : []).filter(
      (entry: unknown) => field(entry, "special") !== true,
    ),
    model: {
      ...(isObject(model) ? model : {}),
      vocab: renamed,
      ...(unknown === undefined ? {} : { unk_token: hidden(unknown) }),
    },
  };
}

let running: SendRequest | null = null;

/** The thread with the library, which is started once. */
function library(reason: string): SendRequest {
  if (running !== null) return running;
  try {
    createRequire(import.meta.url).resolve("tokenizers");
  } catch (cause) {
    if (errorCode(cause) !== "MODULE_NOT_FOUND") throw cause;
    throw new GradmixError(
      "config",
      `tokenizer.json: ${reason}; to read any tokenizer, install Hugging Face's library beside gradmix: npm install tokenizers`,
      { cause },
    );
  }
  const { port1: own, port2: port } = new MessageChannel();
  const answers = new Int32Array(new SharedArrayBuffer(4));
  const setup: LibrarySetup = { port, answers };
  const worker = new Worker(new URL("./library-worker.js", import.meta.url), {
    workerData: setup,
    transferList: [port],
    execArgv: [],
  });
  worker.unref();
  own.unref();
  running = (request) => waitFor(own, answers, request);
  return running;
}

/** Longest time that an answer may take, in milliseconds. */
const PATIENCE = 600_000;

function waitFor(port: MessagePort, answers: Int32Array, request: LibraryRequest): LibraryAnswer {
  const before = Atomics.load(answers, 0);
  port.postMessage(request);
  if (Atomics.wait(answers, 0, before, PATIENCE) === "timed-out")
    throw new GradmixError("data", "tokenizer.json: Hugging Face's library has not answered for ten minutes");
  const received = receiveMessageOnPort(port);
  if (received === undefined) throw new Error("the worker announced an answer that it did not send");
  return received.message as LibraryAnswer;
}
