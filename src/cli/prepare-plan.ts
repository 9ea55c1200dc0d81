/** What `gradmix prepare` has to do, as plain data: the text of each domain and target, the jobs that it is cut into, and whether a folder that was begun is of the same. */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { partsOf } from "../data/cuts.ts";
import { type FilePart, PART } from "../data/sources.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { Inputs } from "./inputs.ts";
import type { PrepareFormat } from "./prepare-arguments.ts";
import { CLUSTERS_OPTION, type InputFile, preparedFiles, type SavedPlan } from "./prepared-folder.ts";
import { wrong } from "./values.ts";

/** Tokens that become one file. */
export interface Label {
  readonly kind: "domain" | "target" | "targets";
  /** "" of the target. */
  readonly name: string;
}

/** Part of the input that one worker turns into tokens. */
export interface Job {
  /** Follows from all below and from the files as they are: a job of the same name has the same result. */
  readonly id: string;
  /** Its label by number; −1: its documents are of several domains. */
  readonly label: number;
  readonly parts: readonly (FilePart & { readonly file: number })[];
  /** Of the input. */
  readonly bytes: number;
}

export interface PreparePlan {
  readonly labels: readonly Label[];
  readonly inputs: readonly InputFile[];
  /** Numbers of the inputs of each label. */
  readonly files: readonly (readonly number[])[];
  /** Those whose documents are of several domains, and the label that the field or cluster of a document means; null: there are none. */
  readonly mixed: {
    readonly files: readonly number[];
    readonly labelOf: ReadonlyMap<string, number>;
    /** Folder of the clusters; null: a field says it. */
    readonly clusters: string | null;
  } | null;
  readonly options: PrepareOptions;
}

/** What the tokens depend on besides the text. */
export interface PrepareOptions {
  readonly format: PrepareFormat;
  readonly textField: string;
  readonly domainField: string | null;
  readonly skipBadLines: boolean;
  /** "bpe", "byte" or the path of a file. */
  readonly tokenizer: string;
  /** Of a vocabulary that is trained; null: of a tokenizer that there is. */
  readonly vocabSize: number | null;
}

export const labelName = ({ kind, name }: Label): string =>
  kind === "target" ? "target" : `${kind === "domain" ? "domain" : "target"} "${name}"`;

/** The plan for what was found. Throws `data` for files of tokens and for names that can be no files. */
export function planOf(found: Inputs, options: PrepareOptions): PreparePlan {
  const inputs: InputFile[] = [];
  const numbers = new Map<string, number>();
  const numberOf = (path: string): number => {
    let known = numbers.get(path);
    if (known === undefined) {
      if (isTokenFile(path))
        throw new GradmixError("data", `${path}: is tokens already, which gradmix train takes as they are`);
      numbers.set(path, (known = inputs.length));
      inputs.push(stampOf(path));
    }
    return known;
  };
  const mixedNames = new Set(found.mixed?.domainOf.values());
  const domains = Array.from(found.domains, ([name, files]) => ({ kind: "domain" as const, name, files }));
  const targets = [
    ...(found.target.length === 0 ? [] : [{ kind: "target" as const, name: "", files: found.target }]),
    ...Array.from(found.targets, ([name, files]) => ({ kind: "targets" as const, name, files })),
  ];
  const labels = [...domains, ...targets].map(({ kind, name }): Label => ({ kind, name }));
  checkNames(labels);
  const files = [...domains, ...targets].map(({ kind, name, files }) =>
    kind === "domain" && mixedNames.has(name) ? [] : files.map(numberOf),
  );
  // Domains come first.
  const places = new Map(domains.map(({ name }, i) => [name, i]));
  const mixed =
    found.mixed === null
      ? null
      : {
          files: found.mixed.files.map(numberOf),
          labelOf: new Map(
            Array.from(found.mixed.domainOf, ([said, name]) => [said, places.get(name) ?? -1]),
          ),
          clusters: found.mixed.clusters?.folder ?? null,
        };
  return { labels, inputs, files, mixed, options };
}

/** Longest name of a file, in bytes, with what is put to it while it is written. */
const LONGEST = 200;

/** Throws `data` for two names that are one file where capitals do not count, and for one that is too long. */
function checkNames(labels: readonly Label[]): void {
  const seen = new Map<string, string>();
  for (const { kind, name } of labels) {
    if (Buffer.byteLength(name) > LONGEST)
      throw new GradmixError(
        "data",
        `"${name}": is longer than ${LONGEST} bytes, so that it names no file; give it another name by --domain NAME=…`,
      );
    const key = `${kind} ${name.toLowerCase()}`;
    const other = seen.get(key);
    if (other !== undefined)
      throw new GradmixError(
        "data",
        `"${other}" and "${name}" would be one file where capitals do not count; rename one of them`,
      );
    seen.set(key, name);
  }
}

/** A file as it is now. Throws `data` where it is not there. */
export function stampOf(path: string): InputFile {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new GradmixError("data", `${path}: it is not there any more`);
  return { path, size: found.size, modified: found.mtimeMs };
}

/** Throws `data` unless the file is what it was. */
export function checkStamp({ path, size, modified }: InputFile): void {
  const now = stampOf(path);
  if (now.size !== size || now.modified !== modified)
    throw new GradmixError("data", `${path}: it has changed while it was prepared`);
}

/** Where a label's tokens are, without an ending. */
export function shardPath({ kind, name }: Label): string {
  if (kind === "target") return preparedFiles.target;
  return join(kind === "domain" ? preparedFiles.domains : preparedFiles.targets, name);
}

/** The jobs, in the order of the tokens: of one label after another, large files in parts, small ones together. It follows from the plan alone. */
export function jobsOf({ files, mixed, inputs, labels }: PreparePlan): Job[] {
  const jobs: Job[] = [];
  const idOf = (label: number, parts: Job["parts"]): string => {
    const all = parts.map(({ file, from, to }) => {
      const { path, size, modified } = inputs[file]!;
      return [resolve(path), size, modified, from, to];
    });
    // Labels have their numbers in the tokens of a job.
    return createHash("sha256")
      .update(JSON.stringify([label, labels, all]))
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
  // The clusters of a file are told by the numbers of its documents.
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
 * Throws `config` with what differs, unless the folder was begun with the same. `isUsed`: whether tokens of files that have changed are there; a file may be mended as long as none are.
 */
export function checkSamePlan(folder: string, then: SavedPlan, now: SavedPlan, isUsed: boolean): void {
  const differs = (what: string): GradmixError =>
    wrong(`--out ${folder}: ${what}; prepare into another folder, or delete this one`);
  if (then.gradmix !== now.gradmix)
    throw differs(`was begun by gradmix ${then.gradmix}, and this is ${now.gradmix}`);
  for (const [flag, value] of now.options)
    if (then.options.get(flag) !== value)
      throw differs(
        `${flag} was ${then.options.get(flag) ?? "not there"} when it was begun, and is ${value} now`,
      );
  if (then.tokenizer !== now.tokenizer) throw differs("was begun with another tokenizer");
  if (JSON.stringify(then.labels) !== JSON.stringify(now.labels))
    throw differs("was begun with other domains or targets, or with the same in another order");
  if (!isUsed) return;
  const before = new Map(then.inputs.map((file) => [file.path, file]));
  for (const { path, size, modified } of now.inputs) {
    const known = before.get(path);
    if (known === undefined) throw differs(`${path} was not among its files when it was begun`);
    if (known.size !== size || known.modified !== modified)
      throw differs(`${path} has changed since it was begun`);
    before.delete(path);
  }
  const [gone] = before.keys();
  if (gone !== undefined) throw differs(`${gone} was among its files when it was begun, and is not now`);
}
