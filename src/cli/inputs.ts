/**
 * The text that a run reads: which files, what was left out, which text stands in two places, and what it was, so that a
 * resumed run notices when it has changed.
 */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { findFiles, type FoundFile, type LeftOut } from "../data/files.ts";
import type { DataConfig } from "./train-config.ts";
import { GradmixError } from "../errors.ts";
import { runNames } from "./run-folder.ts";
import { isObject } from "../json.ts";

/** Files of the domains and targets, each by its label: `domain "code"`, `target`, `target "exam"`. */
export interface Inputs {
  readonly domains: ReadonlyMap<string, readonly string[]>;
  readonly target: readonly string[];
  readonly targets: ReadonlyMap<string, readonly string[]>;
}

/** Finds the files. Tells of everything that is left out, and of files that are in two domains. Throws `data`. */
export async function listInputs(
  plan: Pick<DataConfig, "domains" | "target" | "targets" | "skipBadLines"> & { readonly out: string | null },
  onEvent: (line: string) => void,
): Promise<Inputs> {
  const out = plan.out === null ? null : resolve(plan.out);
  const find = async (what: string, globs: readonly string[], exclude: ReadonlySet<string>) => {
    const leftOut = new Map<LeftOut, string[]>();
    const found = await findFiles(globs, {
      what,
      exclude,
      skipUnreadable: plan.skipBadLines,
      passOver: (folder, names) => runNames(names, resolve(folder) === out),
      onLeftOut(path, why, detail) {
        const paths = leftOut.get(why) ?? [];
        paths.push(why === "unreadable" ? `${path}: ${detail}` : path);
        leftOut.set(why, paths);
      },
    });
    for (const [why, paths] of leftOut)
      onEvent(`${what}: left out ${because[why](paths.length)}: ${few(paths)}`);
    return found;
  };
  const none = new Set<string>();
  const target = plan.target.length === 0 ? [] : await find("target", plan.target, none);
  const targets = new Map<string, FoundFile[]>();
  for (const [name, globs] of plan.targets) targets.set(name, await find(`target "${name}"`, globs, none));
  // A target's text is never also trained on as a domain's.
  const exclude = new Set([...target, ...[...targets.values()].flat()].map(({ path }) => path));
  const domains = new Map<string, FoundFile[]>();
  for (const [name, globs] of plan.domains) domains.set(name, await find(`domain "${name}"`, globs, exclude));
  const twice = inTwo(domains);
  if (twice.length > 0)
    onEvent(`${count(twice.length, "file is", "files are")} in more than one domain: ${few(twice)}`);
  const paths = (files: readonly FoundFile[]): string[] => files.map(({ path }) => path);
  const named = (of: ReadonlyMap<string, readonly FoundFile[]>) =>
    new Map([...of].map(([name, files]) => [name, paths(files)]));
  return { domains: named(domains), target: paths(target), targets: named(targets) };
}

const because: { readonly [W in LeftOut]: (n: number) => string } = {
  excluded: (n) => `${count(n, "file that belongs", "files that belong")} to the target`,
  "passed over": (n) => `${count(n, "file", "files")} that a run wrote`,
  unreadable: (n) => `${count(n, "path", "paths")} that cannot be read`,
  link: (n) => `${count(n, "link", "links")} to nothing, which may have been a folder`,
};

const count = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`;

function few(items: readonly string[]): string {
  return items.slice(0, 3).join(", ") + (items.length > 3 ? ` and ${items.length - 3} more` : "");
}

/** `path (first domain, second domain)` of every file that is in two domains, under whatever name. */
function inTwo(domains: ReadonlyMap<string, readonly FoundFile[]>): string[] {
  const first = new Map<string, string>();
  const twice: string[] = [];
  for (const [name, files] of domains)
    for (const { path, identity } of files) {
      const other = first.get(identity);
      if (other === undefined) first.set(identity, name);
      else twice.push(`${path} (${other}, ${name})`);
    }
  return twice;
}

/** What was read under one label. */
export interface Content {
  /** `domain "code"`, `target`, `target "exam"`. */
  readonly label: string;
  readonly files: number;
  readonly documents: number;
  /** Tokens of the training stream. */
  readonly tokens: number;
  /** SHA-256 of the text, file by file. */
  readonly sha256: string;
}

export interface Witness {
  /** The documents of the files, one file after another, unchanged. What they hold is remembered under `label`. */
  watch<D extends { readonly text: string }>(
    label: string,
    files: readonly string[],
    documents: (files: readonly string[]) => AsyncIterable<D>,
  ): AsyncGenerator<D, void, undefined>;
  /** Of everything that was watched to its end; `tokens` by label. */
  contents(tokens: ReadonlyMap<string, number>): Content[];
  /** A line for every two labels under which the same text was read from different files. */
  copies(): string[];
}

/** Hashes text on its way to the tokenizer, which takes many times as long. */
export function createWitness(): Witness {
  const read = new Map<string, { files: number; documents: number; sha256: string }>();
  /** Hash of a file's text → where it was read first. */
  const first = new Map<string, { label: string; path: string }>();
  const copies = new Map<string, { labels: [string, string]; paths: string[] }>();
  const compare = (label: string, path: string, sha256: string): void => {
    const other = first.get(sha256);
    if (other === undefined) first.set(sha256, { label, path });
    else if (other.label !== label && resolve(other.path) !== resolve(path)) {
      const labels: [string, string] = [other.label, label];
      const pair = copies.get(labels.join(" ")) ?? { labels, paths: [] };
      pair.paths.push(`${other.path} and ${path}`);
      copies.set(labels.join(" "), pair);
    }
  };
  return {
    async *watch(label, files, documents) {
      const whole = createHash("sha256");
      let count = 0;
      for (const path of files) {
        const hash = createHash("sha256");
        let empty = true;
        for await (const document of documents([path])) {
          // With lengths, so that text cannot move between documents unseen.
          hash.update(`${document.text.length}\n`).update(document.text);
          empty = false;
          count++;
          yield document;
        }
        if (empty) continue;
        const sha256 = hash.digest("hex");
        whole.update(sha256);
        compare(label, path, sha256);
      }
      read.set(label, { files: files.length, documents: count, sha256: whole.digest("hex") });
    },
    contents: (tokens) =>
      [...read].map(([label, own]) => ({ label, tokens: tokens.get(label) ?? 0, ...own })),
    copies: () =>
      [...copies.values()].map(({ labels, paths }) => {
        const trained =
          labels.some((label) => label.startsWith("target")) &&
          labels.some((label) => label.startsWith("domain"));
        return `${labels.join(" and ")} hold the same text in ${count(paths.length, "file", "files")} each: ${few(paths)}${trained ? "; the target is then measured on text that is trained on" : ""}`;
      }),
  };
}

/**
 * Throws `checkpoint`, with what has changed, unless the text is what the run began with. `saved` is what its checkpoint says; one of before the text was
 * hashed says how many tokens there were, and gives a line that tells so.
 */
export function checkSameText(saved: unknown, found: readonly Content[]): string | null {
  const differs = (label: string, then: string, now: string): GradmixError =>
    new GradmixError(
      "checkpoint",
      `--resume: the text of ${label} has changed (then ${then}; now ${now}); restore it, or start a new run from the checkpoint with --init-from`,
    );
  if (!Array.isArray(saved)) {
    const before = new Map(Object.entries(isObject(saved) ? saved : {}));
    for (const { label, tokens } of found) {
      const then = before.get(oldLabel(label));
      if (then !== tokens) throw differs(label, `${String(then)} tokens`, `${tokens} tokens`);
    }
    return "the checkpoint was written by an earlier version and has no hash of the text: it has as many tokens as then, more cannot be checked";
  }
  const before = new Map((saved as readonly Content[]).map((content) => [content.label, content]));
  for (const now of found) {
    const then = before.get(now.label);
    if (then?.sha256 === now.sha256 && then.tokens === now.tokens) continue;
    throw differs(
      now.label,
      then === undefined ? "none" : sizeOf(then),
      sizeOf(now) + (then !== undefined && sizeOf(then) === sizeOf(now) ? ", but other text" : ""),
    );
  }
  return null;
}

function sizeOf({ files, documents, tokens }: Content): string {
  const n = (value: number): string => value.toLocaleString("en");
  return `${n(files)} ${files === 1 ? "file" : "files"}, ${n(documents)} ${documents === 1 ? "document" : "documents"}, ${n(tokens)} training tokens`;
}

/** As checkpoints of before named it: `code`, `(target)`, `(target exam)`. */
function oldLabel(label: string): string {
  const [, kind = "", name] = /^(domain|target)(?: "(.*)")?$/.exec(label) ?? [];
  return kind === "domain" ? (name ?? "") : name === undefined ? "(target)" : `(target ${name})`;
}
