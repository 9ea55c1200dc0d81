/** The model of an earlier run, which gives reference losses. It is read and checked before the data, and built once the backend runs. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { openTokenizer, type Tokenizer } from "../data/index.node.ts";
import { GradmixError } from "../errors.ts";
import type { GPT } from "../nn/gpt.ts";
import { fromHuggingFace } from "../nn/huggingface/read.ts";
import type { ByteSource } from "../nn/safetensors.ts";
import { fileSource } from "../node/files.ts";
import { reason } from "../node/system-errors.ts";
import { shellWord } from "../shell-word.ts";
import { hashFile } from "./hash-file.ts";
import { modelFolder } from "./run-places.ts";
import { readJson } from "./values.ts";

export interface Reference {
  readonly folder: string;
  /** SHA-256 of the model. A resumed run must use the reference with which it began. */
  readonly fingerprint: string;
  readonly tokenizer: Tokenizer;
  /** The files of the model, which are read when it is built. */
  readonly files: ReadonlyMap<string, ByteSource>;
}

const names = ["config.json", "model.safetensors"];

/** Reads a reference. Throws `config` if the folder does not contain a finished run; rejects with the reason of `signal` after an abort. */
export async function readReference(folder: string, signal: AbortSignal): Promise<Reference> {
  const files = new Map<string, ByteSource>();
  const hash = createHash("sha256");
  for (const name of names) {
    const path = join(folder, modelFolder, name);
    try {
      files.set(name, fileSource(path));
      await hashFile(hash, path, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new GradmixError(
        "config",
        `--reference: ${path} cannot be read (${reason(error)}); it must be the folder of a finished run`,
        { cause: error },
      );
    }
  }
  const path = join(folder, modelFolder, "tokenizer.json");
  const tokenizer = openTokenizer(readJson(path, `--reference: ${path}`));
  return { folder, fingerprint: hash.digest("hex"), tokenizer, files };
}

/**
 * Builds the model, whose losses are compared with those of a model with the `wanted` vocabulary and context. Throws `config` if the tokenizers
 * differ or its windows are shorter, and the errors of `fromHuggingFace` for invalid files.
 */
export function referenceModel(
  { folder, tokenizer, files }: Reference,
  wanted: { readonly tokenizer: Tokenizer; readonly vocabSize: number; readonly context: number },
): GPT {
  const unfit = (what: string): GradmixError => new GradmixError("config", `--reference: ${folder} ${what}`);
  if (JSON.stringify(tokenizer.toJSON()) !== JSON.stringify(wanted.tokenizer.toJSON()))
    throw unfit(
      `has another tokenizer; train both with --tokenizer ${shellWord(join(folder, modelFolder, "tokenizer.json"))}`,
    );
  const model = fromHuggingFace(files);
  const { vocabSize, context } = model.config;
  const fault =
    vocabSize !== wanted.vocabSize
      ? `has a model with a vocabulary of ${vocabSize} tokens, but this run has ${wanted.vocabSize}; give the folder of a finished run with the same vocabulary`
      : context < wanted.context
        ? `has windows of ${context} tokens, but this run has windows of ${wanted.context}; use --context ${context}, or a reference with longer windows`
        : null;
  if (fault === null) return model;
  model.dispose();
  throw unfit(fault);
}
