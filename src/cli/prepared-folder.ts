/**
 * The folder of `gradmix prepare`: a corpus as tokens, with the tokenizer that wrote them.
 *
 *     prepared.json      what was read and how; each shard with its tokens, documents and hash
 *     tokenizer.json
 *     domains/NAME.bin   the tokens of a domain, and in NAME.idx where its documents are (Megatron's files; of --format nanogpt only NAME.bin)
 *     target.bin         of the target, and targets/NAME.bin of several
 *     work/              while it is made: plan.json, done.jsonl, and the tokens of parts of the input
 *     lock               the process that makes it
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createHash } from "node:crypto";
import type { Tokenizer } from "../data/byte-level.ts";
import type { KnownTokenFile } from "../data/stored-tokens.ts";
import { GradmixError } from "../errors.ts";
import { readError } from "../node/files.ts";
import {
  count,
  list,
  map,
  number,
  object,
  orNull,
  parseOrdered,
  type Schema,
  string,
  version,
} from "../schema.ts";
import { shellWord } from "../shell-word.ts";

export const preparedFiles = {
  manifest: "prepared.json",
  tokenizer: "tokenizer.json",
  domains: "domains",
  target: "target",
  targets: "targets",
  work: "work",
  plan: "plan.json",
  done: "done.jsonl",
} as const;

/** Names in a folder that `gradmix prepare` wrote there. */
export function preparedNames(names: ReadonlySet<string>): ReadonlySet<string> {
  if (!names.has(preparedFiles.manifest) && !(names.has(preparedFiles.work) && names.has("lock")))
    return new Set();
  const { manifest, tokenizer, domains, target, targets, work } = preparedFiles;
  const own = [manifest, tokenizer, domains, `${target}.bin`, `${target}.idx`, targets, work, "lock"];
  return new Set(own.filter((name) => names.has(name)));
}

/** A token file: its path in the folder, and its contents. */
export interface Shard {
  readonly file: string;
  readonly tokens: number;
  readonly documents: number;
  /** UTF-8 bytes of the text. */
  readonly textBytes: number;
  readonly largest: number;
  /** Size of the file in bytes, and when it was written. */
  readonly size: number;
  readonly modified: number;
  readonly sha256: string;
}

export interface Prepared {
  readonly folder: string;
  /** Hash of the tokenizer, made by `tokenizerHash`. */
  readonly tokenizer: string;
  /** Number of ids of the tokenizer, and the id of the token that ends a document. */
  readonly vocabSize: number;
  readonly endOfText: number;
  readonly domains: ReadonlyMap<string, Shard>;
  readonly target: Shard | null;
  readonly targets: ReadonlyMap<string, Shard>;
  /** Whether the domains are clusters, which may be shorter than a window. */
  readonly clusters: boolean;
}

/** The key under which the kept options store clusters named in `--domains`. */
export const CLUSTERS_OPTION = "--domains (clusters)";

/** A text file from which tokens were made. */
export interface InputFile {
  readonly path: string;
  /** Size in bytes. */
  readonly size: number;
  /** Time of the last change, in milliseconds. */
  readonly modified: number;
}

/** The plan that the folder stores, in plan.json and later in prepared.json. */
export interface SavedPlan {
  readonly gradmix: string;
  /** Hash of the tokenizer. */
  readonly tokenizer: string;
  /** The value of each option, by its flag. */
  readonly options: ReadonlyMap<string, string>;
  /** Names of the domains and targets. */
  readonly labels: readonly string[];
  readonly inputs: readonly InputFile[];
}

/** A hash that identifies a tokenizer. */
export function tokenizerHash(tokenizer: Pick<Tokenizer, "toJSON">): string {
  return createHash("sha256").update(JSON.stringify(tokenizer.toJSON())).digest("hex");
}

export const shard: Schema<Shard> = object<Shard>({
  file: string,
  tokens: count,
  documents: count,
  textBytes: count,
  largest: number,
  size: count,
  modified: number,
  sha256: string,
});

/** Whether a path is a folder of `gradmix prepare`. Throws `data` for one that is incomplete. */
function isPrepared(path: string): boolean {
  if (existsSync(join(path, preparedFiles.manifest))) return true;
  if (existsSync(join(path, preparedFiles.work, preparedFiles.plan)))
    throw new GradmixError(
      "data",
      `${path}: is not complete; run the same gradmix prepare command again to continue it`,
    );
  return false;
}

export const savedPlan: Schema<SavedPlan> = object<SavedPlan>({
  gradmix: string,
  tokenizer: string,
  options: map(string),
  labels: list(string),
  inputs: list(object<InputFile>({ path: string, size: number, modified: number })),
});

/** The fields of prepared.json that are read. */
export interface Manifest {
  readonly version: 1;
  readonly tokenizer: { readonly sha256: string; readonly vocabSize: number; readonly endOfText: number };
  readonly domains: ReadonlyMap<string, Shard>;
  readonly target: Shard | null;
  readonly targets: ReadonlyMap<string, Shard>;
  /** The plan with which the folder was begun. */
  readonly made: SavedPlan;
}

export const manifest: Schema<Manifest> = object<Manifest>({
  version: version(1, "prepare the text again"),
  tokenizer: object<Manifest["tokenizer"]>({ sha256: string, vocabSize: count, endOfText: count }),
  domains: map(shard),
  target: orNull(shard),
  targets: map(shard),
  made: savedPlan,
});

/** Reads prepared.json. Throws `data` for a folder that `gradmix prepare` did not write. */
export function readManifest(folder: string): Manifest {
  const at = join(folder, preparedFiles.manifest);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(at);
  } catch (error) {
    throw readError(at, error);
  }
  return parseOrdered(manifest, new TextDecoder().decode(bytes), { source: at, code: "data" });
}

function readPrepared(folder: string): Prepared {
  const { tokenizer, domains, target, targets, made } = readManifest(folder);
  const clusters = made.options.get(CLUSTERS_OPTION) !== "none";
  const { sha256, vocabSize, endOfText } = tokenizer;
  return { folder, tokenizer: sha256, vocabSize, endOfText, domains, target, targets, clusters };
}

/** The prepared folders that `--domains` names. */
export function preparedAmong(from: readonly string[]): Prepared[] {
  return from.filter(isPrepared).map(readPrepared);
}

/** Replaces prepared folders in a list of paths by the files of their domains, and returns the tokenizer of the first; null if there is none. */
export function withShards(paths: readonly string[]): { files: string[]; tokenizer: string | null } {
  const prepared = preparedAmong(paths);
  const shardsOf = (path: string): string[] | undefined =>
    prepared
      .filter(({ folder }) => folder === path)
      .map(({ folder, domains }) => Array.from(domains.values(), ({ file }) => join(folder, file)))[0];
  return {
    files: paths.flatMap((path) => shardsOf(path) ?? [path]),
    tokenizer: prepared[0] === undefined ? null : join(prepared[0].folder, preparedFiles.tokenizer),
  };
}

/** The facts that the manifests record of their files, by path. */
export function knownShards(prepared: readonly Prepared[]): ReadonlyMap<string, KnownTokenFile> {
  const all = prepared.flatMap(({ folder, domains, target, targets }) =>
    [...domains.values(), ...(target === null ? [] : [target]), ...targets.values()].map(
      (shard) => [folder, shard] as const,
    ),
  );
  return new Map(
    all.map(([folder, { file, size, modified, largest, sha256 }]) => [
      join(folder, file),
      { stamp: { size, modified }, largest, sha256 },
    ]),
  );
}

/** Throws `data` if the tokens were written with another tokenizer. */
export function checkTokenizer(prepared: readonly Prepared[], tokenizer: Tokenizer): void {
  if (prepared.length === 0) return;
  const hash = tokenizerHash(tokenizer);
  const other = prepared.find((one) => one.tokenizer !== hash);
  if (other !== undefined)
    throw new GradmixError(
      "data",
      `--domains ${other.folder}: was prepared with another tokenizer than that of this run; leave out --tokenizer, or prepare the text again with it`,
    );
}

/** What to do where a target is missing: to name one of the several targets of prepared text in `--domains`; otherwise what is `usual`. */
export function targetAdvice(from: readonly string[], usual: string): string {
  const of = preparedAmong(from).find(({ targets }) => targets.size > 0);
  const [one] = of?.targets.values() ?? [];
  return of === undefined || one === undefined
    ? usual
    : `${of.folder} has the targets ${[...of.targets.keys()].join(", ")}; name one with --target ${shellWord(join(of.folder, one.file))}`;
}
