/**
 * The work of `gradmix prepare` as plain data: the text of each domain and target, the jobs into which it is divided, and whether an unfinished
 * folder has the same plan.
 */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { partsOf } from "../data/cuts.ts";
import { type FilePart, PART } from "../data/sources.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { type Inputs, labelledFiles } from "./inputs.ts";
import { isDomain, type Label, labelName } from "./labels.ts";
import type { PrepareFormat } from "./prepare-arguments.ts";
import { CLUSTERS_OPTION, type InputFile, preparedFiles, type SavedPlan } from "./prepared-folder.ts";
import { sameButForCase } from "./domain-names.ts";
import { configError } from "./values.ts";

/** A part of the input that one worker turns into tokens. */
export interface Job {
  /** Determined by the fields below and the files: a job with the same id has the same result. */
  readonly id: string;
  /** Index of its label; −1 if its documents belong to several domains. */
  readonly label: number;
  readonly parts: readonly (FilePart & { readonly file: number })[];
  /** Bytes of the input. */
  readonly bytes: number;
}

export interface PreparePlan {
  /** The tokens of each label become one file. */
  readonly labels: readonly Label[];
  readonly inputs: readonly InputFile[];
  /** Indices of the inputs of each label. */
  readonly files: readonly (readonly number[])[];
  /** Inputs whose documents belong to several domains, and the label for each value of the field or cluster; null: there are none. */
  readonly mixed: {
    readonly files: readonly number[];
    readonly labelOf: ReadonlyMap<string, number>;
    /** Folder of the clusters; null: a field names the domain. */
    readonly clusters: string | null;
  } | null;
  readonly options: PrepareOptions;
}

/** Options on which the tokens depend, besides the text. */
export interface PrepareOptions {
  readonly format: PrepareFormat;
  readonly textField: string;
  readonly domainField: string | null;
  readonly skipBadLines: boolean;
  /** "bpe", "byte" or the path of a file. */
  readonly tokenizer: string;
  /** Size of a vocabulary to train; null for an existing tokenizer. */
  readonly vocabSize: number | null;
}

/** Makes the plan for the inputs. Throws `data` for files of tokens and for names that cannot be file names. */
export function planOf(found: Inputs, options: PrepareOptions): PreparePlan {
  const inputs: InputFile[] = [];
  const numbers = new Map<string, number>();
  const numberOf = (path: string): number => {
    let known = numbers.get(path);
    if (known === undefined) {
      if (isTokenFile(path))
        throw new GradmixError("data", `${path}: contains tokens already; pass it to gradmix train directly`);
      numbers.set(path, (known = inputs.length));
      inputs.push(stampOf(path));
    }
    return known;
  };
  const mixedNames = new Set(found.mixed?.domainOf.values());
  const texts = labelledFiles(found);
  const labels = texts.map(({ label }) => label);
  checkNames(labels);
  const files = texts.map(({ label, files }) =>
    isDomain(label) && mixedNames.has(label.name) ? [] : files.map(numberOf),
  );
  // Domains come first.
  const places = new Map(Array.from(found.domains.keys(), (name, i) => [name, i]));
  const placeOf = (name: string): number => {
    const place = places.get(name);
    if (place === undefined) throw new Error(`"${name}" is not a domain of the plan`);
    return place;
  };
  const mixed =
    found.mixed === null
      ? null
      : {
          files: found.mixed.files.map(numberOf),
          labelOf: new Map(Array.from(found.mixed.domainOf, ([value, name]) => [value, placeOf(name)])),
          clusters: found.mixed.clusters?.folder ?? null,
        };
  return { labels, inputs, files, mixed, options };
}

/** Largest length of a file name in bytes, including what is appended while it is written. */
const LONGEST = 200;

/** Throws `data` for two names that are the same file on case-insensitive file systems, and for one that is too long. */
function checkNames(labels: readonly Label[]): void {
  const long = labels.find(({ name }) => Buffer.byteLength(name) > LONGEST);
  if (long !== undefined)
    throw new GradmixError(
      "data",
      `"${long.name}": is longer than ${LONGEST} bytes, too long for a file name; choose another name with --domain NAME=…`,
    );
  for (const kind of ["domain", "targets"] as const) {
    const same = sameButForCase(labels.filter((label) => label.kind === kind).map(({ name }) => name));
    if (same !== null)
      throw new GradmixError(
        "data",
        `"${same[0]}" and "${same[1]}" would be the same file on a case-insensitive file system; rename one of them`,
      );
  }
}

/** Size and time of a file. Throws `data` if it does not exist. */
export function stampOf(path: string): InputFile {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new GradmixError("data", `${path}: it no longer exists`);
  return { path, size: found.size, modified: found.mtimeMs };
}

/** Whether a file has changed. Throws `data` if it does not exist. */
export function hasChanged({ path, size, modified }: InputFile): boolean {
  const now = stampOf(path);
  return now.size !== size || now.modified !== modified;
}

/** Throws `data` if the file has changed. */
export function checkStamp(file: InputFile): void {
  if (hasChanged(file)) throw new GradmixError("data", `${file.path}: it changed while it was prepared`);
}

/** Path of a label's tokens, without an extension. */
export function shardPath({ kind, name }: Label): string {
  if (kind === "target") return preparedFiles.target;
  return join(kind === "domain" ? preparedFiles.domains : preparedFiles.targets, name);
}

/** The jobs, in the order of the tokens: label after label, with large files divided and small ones combined. They depend only on the plan. */
export function jobsOf({ files, mixed, inputs, labels }: PreparePlan): Job[] {
  const jobs: Job[] = [];
  const named = createHash("sha256").update(JSON.stringify(labels)).digest("hex");
  const idOf = (label: number, parts: Job["parts"]): string => {
    const all = parts.map(({ file, from, to }) => {
      const { path, size, modified } = inputs[file]!;
      return [resolve(path), size, modified, from, to];
    });
    // The tokens of a job contain the indices of labels.
    return createHash("sha256")
      .update(JSON.stringify([label, named, all]))
      .digest("hex")
      .slice(0, 20);
  };
  const add = (label: number, numbers: readonly number[], cut: boolean): void => {
    let parts: (FilePart & { readonly file: number })[] = [];
    let bytes = 0;
    const close = (): void => {
      if (parts.length > 0) jobs.push({ id: idOf(label, parts), label, parts, bytes });
      [parts, bytes] = [[], 0];
    };
    for (const file of numbers) {
      const { path, size } = inputs[file]!;
      const all = cut ? partsOf(path, size) : [{ path, from: 0, to: null }];
      for (const part of all) {
        const own = (part.to ?? size) - part.from;
        if (bytes + own > PART) close();
        parts.push({ ...part, file });
        bytes += own;
      }
    }
    close();
  };
  files.forEach((numbers, label) => add(label, numbers, true));
  // The clusters of a file are indexed by its documents.
  if (mixed !== null) add(-1, mixed.files, mixed.clusters === null);
  return jobs;
}

export function planToSave(plan: PreparePlan, gradmix: string, tokenizer: string): SavedPlan {
  const { labels, mixed, inputs, options } = plan;
  const clusters = mixed?.clusters ?? null;
  return {
    gradmix,
    tokenizer,
    options: new Map([
      ["--format", options.format],
      ["--text-field", options.textField],
      ["--domain-field", options.domainField ?? "none"],
      ["--skip-bad-lines", options.skipBadLines ? "given" : "not given"],
      ["--vocab-size", options.vocabSize === null ? "not used" : String(options.vocabSize)],
      [CLUSTERS_OPTION, clusters === null ? "none" : clustersHash(clusters)],
    ]),
    labels: labels.map(labelName),
    inputs: inputs.map(({ path, ...stamp }) => ({ path: resolve(path), ...stamp })),
  };
}

function clustersHash(folder: string): string {
  const { size, modified } = stampOf(join(folder, "clusters.json"));
  return createHash("sha256")
    .update(`${resolve(folder)} ${size} ${modified}`)
    .digest("hex")
    .slice(0, 16);
}

export function formatPlan(plan: SavedPlan): string {
  return formatJson(plan, 1);
}

/**
 * Throws `config`, naming the difference, unless the folder was begun with the same plan. `isUsed` returns whether tokens of changed files exist; a
 * file may be corrected as long as there are none.
 */
export function checkSamePlan(folder: string, begun: SavedPlan, current: SavedPlan, isUsed: boolean): void {
  const differs = (what: string): GradmixError =>
    configError(`--out ${folder}: ${what}; prepare into another folder, or delete this one`);
  if (begun.gradmix !== current.gradmix)
    throw differs(`was started by gradmix ${begun.gradmix}, but this is ${current.gradmix}`);
  for (const [flag, value] of current.options)
    if (begun.options.get(flag) !== value)
      throw differs(
        `${flag} was ${begun.options.get(flag) ?? "not given"} when it was started, but is ${value} now`,
      );
  if (begun.tokenizer !== current.tokenizer) throw differs("was started with another tokenizer");
  if (JSON.stringify(begun.labels) !== JSON.stringify(current.labels))
    throw differs("was started with other domains or targets, or in another order");
  if (!isUsed) return;
  const before = new Map(begun.inputs.map((file) => [file.path, file]));
  for (const { path, size, modified } of current.inputs) {
    const known = before.get(path);
    if (known === undefined) throw differs(`${path} was not among its files when it was started`);
    if (known.size !== size || known.modified !== modified)
      throw differs(`${path} has changed since it was started`);
    before.delete(path);
  }
  const [missing] = before.keys();
  if (missing !== undefined)
    throw differs(`${missing} was among its files when it was started, but is not now`);
}
