/** Whether the files of a complete folder of `gradmix prepare` are those that it wrote. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Tokenizer } from "../data/byte-level.ts";
import { openTokenizer } from "../data/index.node.ts";
import { describeTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { readError } from "../node/files.ts";
import { hashFile } from "./hash-file.ts";
import { hasChanged } from "./prepare-plan.ts";
import { type Manifest, preparedFiles, type Shard, tokenizerHash } from "./prepared-folder.ts";
import { configError, readJson } from "./values.ts";

/** The error for a folder with a file that is missing or is not what was written. */
function notWhole(folder: string, what: string, cause?: unknown): GradmixError {
  return configError(
    `--out ${folder}: ${what}; delete this folder and run the command again, or prepare into another one`,
    cause,
  );
}

/** The tokenizer that was written to the folder. Throws `config` if it cannot be read. */
export function ownTokenizer(folder: string): Tokenizer {
  const path = join(folder, preparedFiles.tokenizer);
  try {
    return openTokenizer(readJson(path, path));
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw notWhole(folder, error.message, error);
  }
}

/**
 * Checks that the tokenizer and all tokens of a complete folder are those that were written. Files of the size and time of the manifest are not read, as
 * before a run. Throws `config`, naming the first file that is not.
 */
export async function checkWhole(folder: string, manifest: Manifest, signal: AbortSignal): Promise<void> {
  if (tokenizerHash(ownTokenizer(folder)) !== manifest.tokenizer.sha256)
    throw notWhole(folder, `${join(folder, preparedFiles.tokenizer)}: is not the tokenizer of its tokens`);
  const { domains, target, targets, made } = manifest;
  const isMegatron = made.options.get("--format") === "megatron";
  for (const shard of [...domains.values(), ...(target === null ? [] : [target]), ...targets.values()]) {
    const what = await problemOf(folder, shard, isMegatron, signal);
    if (what !== null) throw notWhole(folder, what);
  }
}

async function problemOf(
  folder: string,
  { file, size, modified, documents, sha256 }: Shard,
  isMegatron: boolean,
  signal: AbortSignal,
): Promise<string | null> {
  const path = join(folder, file);
  const index = indexOf(path);
  const missing = [path, ...(isMegatron ? [index] : [])].find((one) => !existsSync(one));
  if (missing !== undefined) return `${missing}: is missing`;
  // A copied folder has other times.
  if (hasChanged({ path, size, modified }) && (await hashOf(path, signal)) !== sha256)
    return `${path}: has changed since it was written`;
  if (!isMegatron) return null;
  try {
    if (describeTokenFile(path, null).ends?.length !== documents)
      return `${index}: has changed since it was written`;
  } catch (error) {
    if (error instanceof GradmixError) return error.message;
    throw error;
  }
  return null;
}

/** Path of the index of a file of tokens. */
export function indexOf(path: string): string {
  return path.replace(/\.bin$/, ".idx");
}

async function hashOf(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  try {
    await hashFile(hash, path, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    throw readError(path, error);
  }
  return hash.digest("hex");
}
