/**
 * The text that a run reads: which files, what is left out, which text occurs in two places, and its hashes, by which a resumed run detects
 * changes.
 */
import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { type PassedOverMemo, findFiles, type FoundFile, type LeftOut } from "../data/files.ts";
import { readDocuments } from "../data/sources.ts";
import { isTokenFile, tokenFileOf } from "../data/token-files.ts";
import { type ClusterFolder, isClusterFolder, readClusterFolder } from "./cluster-folder.ts";
import { compareNames, nameBook, type NameBook } from "./domain-names.ts";
import { findDomains } from "./find-domains.ts";
import { preparedAmong } from "./prepared-folder.ts";
import type { RunHooks } from "./run-events.ts";
import { withStdin } from "./stdin.ts";
import type { DataConfig } from "./train-config.ts";
import { GradmixError } from "../errors.ts";
import { writtenNames } from "./run-names.ts";
import { optionTable } from "./options.ts";
import { unusedReading } from "./unused-reading.ts";
import { type TextHash, textHash } from "./text-hash.ts";
import { configError } from "./values.ts";
import { isObject } from "../json.ts";
import { faultOf, integerFrom, list, object, read, type Schema, string } from "../schema.ts";

/** Files of the domains and targets. In messages and records each has a label: `domain "code"`, `target`, `target "exam"`. */
export interface Inputs {
  /** Files by domain, in the order of the weights. A domain that a field of documents defines has no files of its own. */
  readonly domains: ReadonlyMap<string, readonly string[]>;
  /** Files that contain documents of several domains; null if there are none. */
  readonly mixed: MixedFiles | null;
  readonly target: readonly string[];
  readonly targets: ReadonlyMap<string, readonly string[]>;
}

export interface MixedFiles {
  readonly files: readonly string[];
  /** Maps the value of the documents' field to the name of the domain. */
  readonly domainOf: ReadonlyMap<string, string>;
  /** The clusters, if the domains are clusters; they take the place of a field. null otherwise. */
  readonly clusters: ClusterFolder | null;
}

type ListedConfig = Pick<
  DataConfig,
  "domains" | "domainsFrom" | "domainField" | "target" | "targets" | "textField" | "skipBadLines"
> & { readonly out: string | null };

/** Finds the files and the domains in them. Reports everything that is left out, and files that belong to two domains. Throws `data`. */
export async function listInputs(
  given: ListedConfig,
  { onEvent, signal }: Pick<RunHooks, "onEvent" | "signal">,
): Promise<Inputs> {
  const plan = await withStdin(given, signal);
  const search = searchOf(plan, onEvent, signal);
  const none = new Set<string>();
  const target = plan.target.length === 0 ? [] : await search.find("target", plan.target, none);
  const targets = new Map<string, readonly FoundFile[]>();
  for (const [name, globs] of plan.targets)
    targets.set(name, await search.find(`target "${name}"`, globs, none));
  // Text of a target is never trained on as text of a domain.
  const ofTargets = [...target, ...[...targets.values()].flat()];
  const exclude = new Set(ofTargets.map(({ path }) => path));
  const domains = new Map<string, readonly FoundFile[]>();
  for (const [name, globs] of plan.domains)
    domains.set(name, await search.find(`domain "${name}"`, globs, exclude));
  const together = await domainsTogether(plan, search, ofTargets, exclude);
  for (const [name, files] of together.domains) domains.set(name, files);
  const shared = inTwoDomains([...domains, ...(together.shared === null ? [] : [together.shared])]);
  if (shared.length > 0)
    onEvent(`${count(shared.length, "file is", "files are")} in more than one domain: ${firstFew(shared)}`);
  const all = [...ofTargets, ...[...domains.values()].flat(), ...(together.shared?.[1] ?? [])];
  for (const { key, why } of unusedReading(
    all.map(({ path }) => path),
    search.unreadable(),
    { textField: plan.textField !== optionTable.data.textField.default, skipBadLines: plan.skipBadLines },
  ))
    onEvent(`data.${key} has no effect: ${why}`);
  const paths = (files: readonly FoundFile[]): string[] => files.map(({ path }) => path);
  const named = (of: ReadonlyMap<string, readonly FoundFile[]>) =>
    new Map([...of].map(([name, files]) => [name, paths(files)]));
  return { domains: named(domains), mixed: together.mixed, target: paths(target), targets: named(targets) };
}

/** How the files of a list of inputs are found. */
export interface Search {
  /** Finds the files of globs, without those in `exclude`. Reports what is left out. Throws `data` if no file remains. */
  find(what: string, globs: readonly string[], exclude: ReadonlySet<string>): Promise<readonly FoundFile[]>;
  /** Returns the names in a folder that a run wrote there. */
  readonly passOver: (folder: string, names: ReadonlySet<string>) => ReadonlySet<string>;
  /** Number of paths that were left out so far because they cannot be read. */
  unreadable(): number;
  readonly onEvent: RunHooks["onEvent"];
  readonly signal: AbortSignal;
}

/** Makes the search of a command. `out` is its own folder, whose files are not read; null if there is none. */
export function searchOf(
  plan: Pick<ListedConfig, "out" | "skipBadLines">,
  onEvent: RunHooks["onEvent"],
  signal: AbortSignal,
): Search {
  const out = plan.out === null ? null : resolve(plan.out);
  const above: PassedOverMemo = new Map();
  let unreadable = 0;
  const passOver = (folder: string, names: ReadonlySet<string>): ReadonlySet<string> =>
    writtenNames(names, resolve(folder) === out);
  return {
    ...{ passOver, onEvent, signal },
    unreadable: () => unreadable,
    async find(what, globs, exclude) {
      signal.throwIfAborted();
      const leftOut = new Map<LeftOut, string[]>();
      const found = await findFiles(
        globs,
        {
          ...{ what, exclude, passOver, skipUnreadable: plan.skipBadLines },
          onLeftOut(path, why, detail) {
            const paths = leftOut.get(why) ?? [];
            paths.push(why === "unreadable" ? `${path}: ${detail}` : path);
            if (why === "unreadable") unreadable++;
            leftOut.set(why, paths);
          },
        },
        above,
      );
      for (const [why, paths] of leftOut)
        onEvent(`${what}: left out ${because[why](paths.length)}: ${firstFew(paths)}`);
      return withText(what, found, onEvent);
    },
  };
}

/** The files without those that only describe others. Throws `data` if none remains. */
function withText(
  what: string,
  found: readonly FoundFile[],
  onEvent: RunHooks["onEvent"],
): readonly FoundFile[] {
  const cards = found.some(({ path }) => isTable.test(path))
    ? found.filter(({ path }) => isCard.test(path))
    : [];
  if (cards.length > 0)
    onEvent(`${what}: left out files that describe the tables: ${firstFew(cards.map(({ path }) => path))}`);
  // The index of a token file is read with the tokens.
  const own = found.filter((file) => tokenFileOf(file.path) === null && !cards.includes(file));
  if (own.length === 0)
    throw new GradmixError(
      "data",
      `${what}: ${found[0]!.path} belongs to ${tokenFileOf(found[0]!.path) ?? ""}; name that`,
    );
  return own;
}

/** The domains that `--domains` defines, by name; domains whose documents share files have no files of their own. */
interface Together {
  readonly domains: ReadonlyMap<string, readonly FoundFile[]>;
  readonly mixed: MixedFiles | null;
  /** The files of `mixed`, with the option that says whose domains they hold. */
  readonly shared: readonly [option: string, files: readonly FoundFile[]] | null;
}

async function domainsTogether(
  plan: ListedConfig,
  search: Search,
  ofTargets: readonly FoundFile[],
  exclude: ReadonlySet<string>,
): Promise<Together> {
  if (plan.domainsFrom.length === 0) return { domains: new Map(), mixed: null, shared: null };
  const book = nameBook(plan.domains.keys());
  const prepared = preparedAmong(plan.domainsFrom);
  const domains = new Map<string, readonly FoundFile[]>();
  for (const { folder, domains: shards } of prepared)
    for (const [name, { file }] of shards) {
      const path = join(folder, file);
      domains.set(book.claim(name, path), await search.find(`--domains ${folder}`, [path], exclude));
    }
  const from = plan.domainsFrom.filter((path) => prepared.every(({ folder }) => folder !== path));
  const { domainField } = plan;
  const clusters = clustersOf(from);
  if (clusters !== null) {
    if (domainField !== null)
      throw configError(
        `--domain-field: --domains ${clusters.folder} is a folder of clusters, which are already domains`,
      );
    const found = await search.find(
      "--domains",
      clusters.files.map(({ path }) => path),
      exclude,
    );
    return sharing(domains, mixedClusters(clusters, book, found), [`--domains ${clusters.folder}`, found]);
  }
  if (from.length === 0) {
    if (domainField !== null)
      throw configError("--domain-field: --domains names prepared text, which already has its domains");
    return { domains, mixed: null, shared: null };
  }
  if (domainField !== null) {
    const found = await search.find("--domains", from, exclude);
    const files = found.map(({ path }) => path);
    const domainOf = await domainsByField(files, book, plan, domainField, search.signal);
    const shared = [`--domain-field ${domainField}`, found] as const;
    return sharing(domains, { files, domainOf, clusters: null }, shared);
  }
  const { passOver, onEvent } = search;
  const find = (what: string, globs: readonly string[]) => search.find(what, globs, new Set<string>());
  const found = await findDomains(from, book, { find, passOver, onEvent });
  const own = withoutTargets(found, ofTargets, onEvent);
  return { domains: new Map([...domains, ...own]), mixed: null, shared: null };
}

function sharing(
  domains: ReadonlyMap<string, readonly FoundFile[]>,
  mixed: MixedFiles,
  shared: Together["shared"],
): Together {
  const without = Array.from(mixed.domainOf.values(), (name) => [name, []] as const);
  return { domains: new Map([...domains, ...without]), mixed, shared };
}

/** The remaining files of a folder of clusters, and the clusters that have documents in them. */
function mixedClusters(clusters: ClusterFolder, book: NameBook, found: readonly FoundFile[]): MixedFiles {
  const there = new Set(found.map(({ path }) => path));
  const files = clusters.files.filter(({ path }) => there.has(path));
  const used = new Set(files.flatMap(({ ids }) => Array.from(new Set(ids), (id) => clusters.names[id])));
  const names = clusters.names.filter((name) => used.has(name));
  return {
    files: files.map(({ path }) => path),
    domainOf: new Map(names.map((name) => [name, book.claim(name, clusters.folder)])),
    clusters,
  };
}

/** A folder of tables often contains descriptions of them, as on Hugging Face. */
const isTable = /\.(parquet|csv|tsv)(\.gz|\.zst)?$/i;
const isCard = /(^|\/)(README\.md|LICEN[CS]E(\.\w+)?|dataset_infos?\.json|dataset_dict\.json)$/;

/** The found domains without the files of targets. A domain without any remaining file is dropped. */
function withoutTargets(
  found: ReadonlyMap<string, readonly FoundFile[]>,
  targets: readonly FoundFile[],
  onEvent: (line: string) => void,
): Map<string, FoundFile[]> {
  const theirs = new Set(targets.map(({ identity }) => identity));
  const kept = new Map<string, FoundFile[]>();
  const left: string[] = [];
  for (const [name, files] of found) {
    const own = files.filter(({ identity }) => !theirs.has(identity));
    left.push(...files.filter((file) => !own.includes(file)).map(({ path }) => path));
    if (own.length > 0) kept.set(name, own);
  }
  if (left.length > 0) onEvent(`--domains: left out ${because.excluded(left.length)}: ${firstFew(left)}`);
  return kept;
}

/** The clusters that `--domains` names; null if it names something else. Throws `config` for clusters together with other domains. */
function clustersOf(from: readonly string[]): ClusterFolder | null {
  const folder = from.find(isClusterFolder);
  if (folder === undefined) return null;
  if (from.length > 1)
    throw configError(
      `--domains ${folder}: a folder of clusters cannot be combined with other domains; leave out ${firstFew(from.filter((one) => one !== folder))}`,
    );
  const clusters = readClusterFolder(folder);
  const ofTokens = clusters.files.find(({ path }) => isTokenFile(path));
  if (ofTokens !== undefined)
    throw configError(
      `--domains ${folder}: its clusters were made from token files (${ofTokens.path}), so a run cannot use them as domains; cluster the original text`,
    );
  return clusters;
}

/** Maps each value of the documents' field to the name of its domain, in the order of the names. */
async function domainsByField(
  files: readonly string[],
  book: NameBook,
  { textField, skipBadLines }: Pick<DataConfig, "textField" | "skipBadLines">,
  domainField: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const names = new Map<string, string>();
  for await (const { domain = "", source } of readDocuments(files, {
    textField,
    domainField,
    skipBadLines,
  })) {
    if (names.has(domain)) continue;
    signal.throwIfAborted();
    names.set(
      domain,
      book.claim(
        domain,
        `${source}: ${domainField} ${JSON.stringify(domain)}`,
        "change one of the two values in the documents",
      ),
    );
  }
  if (names.size === 0)
    throw new GradmixError(
      "data",
      `--domains ${firstFew(files)}: no document has the field "${domainField}"`,
    );
  return new Map([...names].sort(([, a], [, b]) => compareNames(a, b)));
}

const because: { readonly [W in LeftOut]: (n: number) => string } = {
  excluded: (n) => `${count(n, "file that belongs", "files that belong")} to the target`,
  "passed over": (n) => `${count(n, "file", "files")} that a run wrote`,
  unreadable: (n) => `${count(n, "path", "paths")} that cannot be read`,
  link: (n) => `${count(n, "broken link", "broken links")}, which may have led to a folder`,
};

const count = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`;

function firstFew(items: readonly string[]): string {
  return items.slice(0, 3).join(", ") + (items.length > 3 ? ` and ${items.length - 3} more` : "");
}

/** Describes each file that belongs to two domains, under any path: `path (first domain, second domain)`. */
function inTwoDomains(domains: readonly (readonly [name: string, files: readonly FoundFile[]])[]): string[] {
  const first = new Map<string, string>();
  const shared: string[] = [];
  for (const [name, files] of domains)
    for (const { path, identity } of files) {
      const other = first.get(identity);
      if (other === undefined) first.set(identity, name);
      else shared.push(`${path} (${other}, ${name})`);
    }
  return shared;
}

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

/** Hashes text while it is tokenized, which takes many times as long. `dropped`: the run leaves out what is held out of the target (`--drop-contaminated`). */
export function createWitness(dropped = false): Witness {
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
        return `${labels.join(" and ")} hold the same text in ${count(paths.length, "file", "files")} each: ${firstFew(paths)}${!trained ? "" : dropped ? "; the domain is read without the documents that are held out" : "; the run would train on text on which it is evaluated"}`;
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
