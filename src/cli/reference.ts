/** The model of an earlier run, which gives reference losses: read and checked before the data, made once the backend runs. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { openTokenizer, type Tokenizer } from "../data/index.node.ts";
import { GradmixError } from "../errors.ts";
import type { GPT } from "../nn/gpt.ts";
import { fromHuggingFace } from "../nn/huggingface/read.ts";
import type { ByteSource } from "../nn/safetensors.ts";
import { fileSource } from "../node/files.ts";
import { reason } from "../node/system-errors.ts";
import { readJson } from "./values.ts";

export interface Reference {
  readonly folder: string;
  /** SHA-256 of the model: a run goes on only with the reference it began with. */
  readonly fingerprint: string;
  readonly tokenizer: Tokenizer;
  /** Read by place, once the model is made. */
  readonly files: ReadonlyMap<string, ByteSource>;
}

const names = ["config.json", "model.safetensors"];

/** Throws `config` when the folder holds no finished run; rejects with the reason of `signal` once that is aborted. */
export async function readReference(folder: string, signal: AbortSignal): Promise<Reference> {
  const files = new Map<string, ByteSource>();
  const hash = createHash("sha256");
  for (const name of names) {
    const path = join(folder, "model", name);
    try {
      files.set(name, fileSource(path));
      // A part at a time, with what waits in the event loop between them.
      for await (const part of createReadStream(path, { highWaterMark: 1 << 22 })) {
        signal.throwIfAborted();
        hash.update(part as Uint8Array);
      }
    } catch (error) {
      signal.throwIfAborted();
      throw new GradmixError(
        "config",
        `--reference: ${path} cannot be read (${reason(error)}); it must be the folder of a finished run`,
        { cause: error },
      );
    }
  }
  const path = join(folder, "model", "tokenizer.json");
  const tokenizer = openTokenizer(readJson(path, `--reference: ${path}`));
  return { folder, fingerprint: hash.digest("hex"), tokenizer, files };
}

/**
 * The model, whose losses are compared with those of a model of these tokens and this context. Throws `config` when its tokens mean something
 * else, or its windows are shorter; what is wrong with the files themselves in their own words.
 */
export function referenceModel(
  { folder, tokenizer, files }: Reference,
  wanted: { readonly tokenizer: Tokenizer; readonly vocabSize: number; readonly context: number },
): GPT {
  const wrong = (what: string): GradmixError => new GradmixError("config", `--reference: ${folder} ${what}`);
  if (JSON.stringify(tokenizer.toJSON()) !== JSON.stringify(wanted.tokenizer.toJSON()))
    throw wrong(
      `has another tokenizer; train both with --tokenizer ${join(folder, "model", "tokenizer.json")}`,
    );
  const model = fromHuggingFace(files);
  const { vocabSize, context } = model.config;
  const fault =
    vocabSize !== wanted.vocabSize
      ? `has a model of ${vocabSize} tokens, this run's has ${wanted.vocabSize}; it must be the folder of a finished run`
      : context < wanted.context
        ? `has windows of ${context} tokens, this run's have ${wanted.context}; give --context ${context} or a reference of longer ones`
        : null;
  if (fault === null) return model;
  model.dispose();
  throw wrong(fault);
}
