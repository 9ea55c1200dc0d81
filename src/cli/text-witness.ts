/** What was read of a run's text: its hashes, by which a resumed run detects changes, and the text that occurs in two places. */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { faultOf, integerFrom, list, object, read, type Schema, string } from "../schema.ts";
import { countOf, firstFew } from "./phrases.ts";
import { type TextHash, textHash } from "./text-hash.ts";

/** What was read under one label. */
export interface Content {
  /** `domain "code"`, `target`, `target "exam"`. */
  readonly label: string;
  readonly files: number;
  readonly documents: number;
  /** Number of tokens of the training stream. */
  readonly tokens: number;
  /** SHA-256 of the text, file by file. */
  readonly sha256: string;
}

/** Records what is read under one label, while it is read. */
export interface Reading {
  /** Records a document of a file. The documents of one file must come one after another. */
  text(path: string, text: string): void;
  /** Records a token file with the hash of its bytes. */
  tokens(path: string, sha256: string, documents: number): void;
  /** Ends the recording. `files` is the number of files to read; by default the number of those that contained text. */
  end(files?: number): void;
}

export interface Witness {
  open(label: string): Reading;
  /** Passes on the documents of the files, one file after another and unchanged, and records their contents under `label`. */
  watch<D extends { readonly text: string }>(
    label: string,
    files: readonly string[],
    documents: (files: readonly string[]) => AsyncIterable<D>,
  ): AsyncGenerator<D, void, undefined>;
  /** The contents of everything that was read to its end; `tokens` are the numbers of tokens by label. */
  contents(tokens: ReadonlyMap<string, number>): Content[];
  /** One line for every two labels under which the same text was read from different files. */
  copies(): string[];
}

/** Hashes text while it is tokenized, which takes many times as long. */
export function createWitness(): Witness {
  const read = new Map<string, { files: number; documents: number; sha256: string }>();
  /** Maps the hash of a file's text to where it was first read. */
  const first = new Map<string, { label: string; path: string }>();
  const copies = new Map<string, { labels: [string, string]; paths: string[] }>();
  const compare = (label: string, path: string, sha256: string): void => {
    const other = first.get(sha256);
    if (other === undefined) first.set(sha256, { label, path });
    else if (other.label !== label && resolve(other.path) !== resolve(path)) {
      // Messages name domains before targets, although targets are read first.
      const own = { label, path };
      const turned = other.label.startsWith("target") && label.startsWith("domain");
      const [left, right] = turned ? [own, other] : [other, own];
      const labels: [string, string] = [left.label, right.label];
      const pair = copies.get(labels.join(" ")) ?? { labels, paths: [] };
      pair.paths.push(`${left.path} and ${right.path}`);
      copies.set(labels.join(" "), pair);
    }
  };
  const open = (label: string): Reading => {
    const whole = createHash("sha256");
    let [documents, withText] = [0, 0];
    let current: { readonly path: string; readonly hash: TextHash } | null = null;
    const add = (path: string, sha256: string): void => {
      whole.update(sha256);
      compare(label, path, sha256);
    };
    const close = (): void => {
      if (current !== null) add(current.path, current.hash.digest());
      current = null;
    };
    return {
      text(path, text) {
        if (current?.path !== path) {
          close();
          current = { path, hash: textHash() };
          withText++;
        }
        current.hash.add(text);
        documents++;
      },
      tokens(path, sha256, count) {
        add(path, sha256);
        documents += count;
        withText++;
      },
      end(files = withText) {
        close();
        read.set(label, { files, documents, sha256: whole.digest("hex") });
      },
    };
  };
  return {
    open,
    async *watch(label, files, documents) {
      const reading = open(label);
      for (const path of files)
        for await (const document of documents([path])) {
          reading.text(path, document.text);
          yield document;
        }
      reading.end(files.length);
    },
    contents: (tokens) =>
      [...read].map(([label, own]) => ({ label, tokens: tokens.get(label) ?? 0, ...own })),
    copies: () =>
      [...copies.values()].map(({ labels, paths }) => {
        const trained =
          labels.some((label) => label.startsWith("target")) &&
          labels.some((label) => label.startsWith("domain"));
        return `${labels.join(" and ")} hold the same text in ${countOf(paths.length, "file", "files")} each: ${firstFew(paths)}${trained ? "; the run would train on text on which it is evaluated" : ""}`;
      }),
  };
}

const size = integerFrom(0);

/** Schema of what was read under one label, in a checkpoint. */
export const savedContent: Schema<Content> = object<Content>({
  ...{ label: string, files: size, documents: size, tokens: size, sha256: string },
});

/**
 * Throws `checkpoint`, naming the change, unless the text is the one with which the run began. `saved` comes from its checkpoint. Older
 * checkpoints contain no hashes but numbers of tokens; for these, a line for the user is returned.
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
    return "the checkpoint was written by an earlier version and has no hash of the text: only the number of tokens could be checked, and it is the same";
  }
  const fault = faultOf({ source: "checkpoint", part: "corpus", code: "checkpoint" });
  const before = new Map(read(list(savedContent), saved, fault).map((content) => [content.label, content]));
  const labels = new Set(found.map(({ label }) => label));
  for (const then of before.values())
    if (!labels.has(then.label)) throw differs(then.label, sizeOf(then), "none");
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

/** The label in older checkpoints: `code`, `(target)`, `(target exam)`. */
function oldLabel(label: string): string {
  const [, kind = "", name] = /^(domain|target)(?: "(.*)")?$/.exec(label) ?? [];
  return kind === "domain" ? (name ?? "") : name === undefined ? "(target)" : `(target ${name})`;
}
