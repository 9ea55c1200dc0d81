/** The files of a run: which belong to each domain and target, what is left out, and which are in two domains. */
import { join, resolve } from "node:path";
import { type PassedOverMemo, findFiles, type FoundFile, type LeftOut } from "../data/files.ts";
import { readDocuments } from "../data/sources.ts";
import { isTokenFile, tokenFileOf } from "../data/token-files.ts";
import { type ClusterFolder, isClusterFolder, readClusterFolder } from "./cluster-folder.ts";
import { compareNames, nameBook, type NameBook } from "./domain-names.ts";
import { findDomains } from "./find-domains.ts";
import { countOf, firstFew } from "./phrases.ts";
import { preparedAmong } from "./prepared-folder.ts";
import { domainLabel, type Label, labelName, targetLabel, theTarget } from "./labels.ts";
import type { RunHooks } from "./run-events.ts";
import { withStdin } from "./stdin.ts";
import type { DataConfig } from "./train-config.ts";
import { GradmixError } from "../errors.ts";
import { writtenNames } from "./run-names.ts";
import { optionTable } from "./options.ts";
import { unusedReading } from "./unused-reading.ts";
import { configError } from "./values.ts";

/** Files of the domains and targets. `labelledFiles` lists them with their labels. */
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

/** Files with the label of what they belong to. */
export interface LabelledFiles {
  readonly label: Label;
  readonly files: readonly string[];
}

/** The files of each label: those of the domains, in the order of the weights, and then those of the target, if there is one, and of further targets. */
export function labelledFiles({ domains, target, targets }: Inputs): LabelledFiles[] {
  return [
    ...Array.from(domains, ([name, files]) => ({ label: domainLabel(name), files })),
    ...(target.length === 0 ? [] : [{ label: theTarget, files: target }]),
    ...Array.from(targets, ([name, files]) => ({ label: targetLabel(name), files })),
  ];
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
  const target = plan.target.length === 0 ? [] : await search.find(labelName(theTarget), plan.target, none);
  const targets = new Map<string, readonly FoundFile[]>();
  for (const [name, globs] of plan.targets)
    targets.set(name, await search.find(labelName(targetLabel(name)), globs, none));
  // Text of a target is never trained on as text of a domain.
  const ofTargets = [...target, ...[...targets.values()].flat()];
  const exclude = new Set(ofTargets.map(({ path }) => path));
  const domains = new Map<string, readonly FoundFile[]>();
  for (const [name, globs] of plan.domains)
    domains.set(name, await search.find(labelName(domainLabel(name)), globs, exclude));
  const together = await domainsTogether(plan, search, ofTargets, exclude);
  for (const [name, files] of together.domains) domains.set(name, files);
  const shared = inTwoDomains([...domains, ...(together.shared === null ? [] : [together.shared])]);
  if (shared.length > 0)
    onEvent(`${countOf(shared.length, "file is", "files are")} in more than one domain: ${firstFew(shared)}`);
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
  const described = new Set(cards);
  // The index of a token file is read with the tokens.
  const own = found.filter((file) => tokenFileOf(file.path) === null && !described.has(file));
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
    for (const { path, identity } of files) if (theirs.has(identity)) left.push(path);
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
  excluded: (n) => `${countOf(n, "file that belongs", "files that belong")} to the target`,
  "passed over": (n) => `${countOf(n, "file", "files")} that a run wrote`,
  unreadable: (n) => `${countOf(n, "path", "paths")} that cannot be read`,
  link: (n) => `${countOf(n, "broken link", "broken links")}, which may have led to a folder`,
};

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
