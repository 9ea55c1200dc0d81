/** What was read of a run's text: its hashes, by which a resumed run detects changes, and the text that occurs in two places. */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { faultOf, integerFrom, list, object, read, type Schema, string } from "../schema.ts";
import { isDomain, type Label, labelName } from "./labels.ts";
import { countOf, firstFew } from "./phrases.ts";
import { type TextHash, textHash } from "./text-hash.ts";

/** What was read under one label. */
export interface Content {
  readonly label: Label;
  readonly files: number;
  readonly documents: number;
  /** Number of tokens of the training stream. */
  readonly tokens: number;
  /** SHA-256 of the text, file by file. */
  readonly sha256: string;
}

/** The same in a checkpoint, where the label is written as in messages. */
export type SavedContent = Omit<Content, "label"> & { readonly label: string };

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
  open(label: Label): Reading;
  /** Passes on the documents of the files, one file after another and unchanged, and records their contents under `label`. */
  watch<D extends { readonly text: string }>(
    label: Label,
    files: readonly string[],
    documents: (files: readonly string[]) => AsyncIterable<D>,
  ): AsyncGenerator<D, void, undefined>;
  /** The contents of everything that was read to its end; `tokens` are the numbers of tokens by the name of the label. */
  contents(tokens: ReadonlyMap<string, number>): Content[];
  /** One line for every two labels under which the same text was read from different files. */
  copies(): string[];
}

/** Hashes text while it is tokenized, which takes many times as long. `dropped`: the run leaves out what is held out of the target (`--drop-contaminated`). */
export function createWitness(dropped = false): Witness {
  const read = new Map<string, Omit<Content, "tokens">>();
  /** Maps the hash of a file's text to where it was first read. */
  const first = new Map<string, { label: Label; path: string }>();
  const copies = new Map<string, { labels: [Label, Label]; paths: string[] }>();
  const compare = (label: Label, path: string, sha256: string): void => {
    const other = first.get(sha256);
    if (other === undefined) first.set(sha256, { label, path });
    else if (labelName(other.label) !== labelName(label) && resolve(other.path) !== resolve(path)) {
      // Messages name domains before targets, although targets are read first.
      const own = { label, path };
      const turned = !isDomain(other.label) && isDomain(label);
      const [left, right] = turned ? [own, other] : [other, own];
      const labels: [Label, Label] = [left.label, right.label];
      const key = labels.map(labelName).join(" and ");
      const pair = copies.get(key) ?? { labels, paths: [] };
      pair.paths.push(`${left.path} and ${right.path}`);
      copies.set(key, pair);
    }
  };
  const open = (label: Label): Reading => {
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
        read.set(labelName(label), { label, files, documents, sha256: whole.digest("hex") });
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
      Array.from(read, ([name, { label, ...own }]) => ({ label, tokens: tokens.get(name) ?? 0, ...own })),
    copies: () =>
      Array.from(copies, ([names, { labels, paths }]) => {
        const trained = labels.some(isDomain) && !labels.every(isDomain);
        const effect = dropped
          ? "the domain is read without the documents that are held out"
          : "the run would train on text on which it is evaluated";
        return `${names} hold the same text in ${countOf(paths.length, "file", "files")} each: ${firstFew(paths)}${trained ? `; ${effect}` : ""}`;
      }),
  };
}

const size = integerFrom(0);

/** The contents as a checkpoint has them. */
export const contentsToSave = (contents: readonly Content[]): readonly SavedContent[] =>
  contents.map(({ label, ...own }) => ({ label: labelName(label), ...own }));

/** Schema of what was read under one label, in a checkpoint. */
export const savedContent: Schema<SavedContent> = object<SavedContent>({
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
      if (then !== tokens) throw differs(labelName(label), `${String(then)} tokens`, `${tokens} tokens`);
    }
    return "the checkpoint was written by an earlier version and has no hash of the text: only the number of tokens could be checked, and it is the same";
  }
  const fault = faultOf({ source: "checkpoint", part: "corpus", code: "checkpoint" });
  const before = new Map(read(list(savedContent), saved, fault).map((content) => [content.label, content]));
  const labels = new Set(found.map(({ label }) => labelName(label)));
  for (const then of before.values())
    if (!labels.has(then.label)) throw differs(then.label, sizeOf(then), "none");
  for (const now of found) {
    const name = labelName(now.label);
    const then = before.get(name);
    if (then?.sha256 === now.sha256 && then.tokens === now.tokens) continue;
    throw differs(
      name,
      then === undefined ? "none" : sizeOf(then),
      sizeOf(now) + (then !== undefined && sizeOf(then) === sizeOf(now) ? ", but other text" : ""),
    );
  }
  return null;
}

function sizeOf({ files, documents, tokens }: Omit<Content, "label">): string {
  const n = (value: number): string => value.toLocaleString("en");
  return `${n(files)} ${files === 1 ? "file" : "files"}, ${n(documents)} ${documents === 1 ? "document" : "documents"}, ${n(tokens)} training tokens`;
}

/** The label in older checkpoints: `code`, `(target)`, `(target exam)`. */
function oldLabel({ kind, name }: Label): string {
  return kind === "domain" ? name : kind === "target" ? "(target)" : `(target ${name})`;
}
