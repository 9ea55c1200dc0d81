/** Finds the domains of `--domains`: each subfolder of a folder, each file of a pattern, or each value of a field of the documents. */
import { readdir, stat } from "node:fs/promises";
import { basename } from "node:path";
import picomatch from "picomatch";
import type { FoundFile } from "../data/files.ts";
import { tokenFileOf } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { compareNames, type NameBook, shardSet, withoutEndings } from "./domain-names.ts";

/** How files are found, and how messages are reported. */
export interface Search {
  /** Finds the files of patterns; `what` names their purpose in errors. */
  find(what: string, globs: readonly string[]): Promise<readonly FoundFile[]>;
  /** Returns the names in a folder that are skipped unless they are named explicitly. */
  passOver(folder: string, names: ReadonlySet<string>): ReadonlySet<string>;
  onEvent(line: string): void;
}

/** Files in a folder that are not data: those with names in capitals, and those that Hugging Face adds. */
const aside = /^(README|LICEN[CS]E|NOTICE|CITATION|CHANGELOG|dataset_infos\.json|dataset_dict\.json)/;

/** Number of simultaneous searches. Each mostly waits for the disk. */
const AT_ONCE = 16;

/**
 * The domains of `globs` by name, in the order of their names: for a folder each folder and file in it, for a pattern each file that it
 * matches. Files that are shards of one set (NAME-00000-of-00005.parquet) form one domain. Throws `data` if two domains would have the same
 * name.
 */
export async function findDomains(
  globs: readonly string[],
  book: NameBook,
  search: Search,
): Promise<Map<string, readonly FoundFile[]>> {
  const found: [string, readonly FoundFile[]][] = [];
  for (const glob of globs)
    for (const { text, where, files } of (await isFolder(glob))
      ? await inFolder(glob.replace(/(.)\/+$/, "$1"), search)
      : await ofPattern(glob, search))
      found.push([book.claim(text, where), files]);
  if (found.length === 0) throw new GradmixError("data", `--domains: ${globs.join(", ")} holds no domains`);
  return new Map(found.sort(([a], [b]) => compareNames(a, b)));
}

/** Files that form one domain. */
interface Group {
  /** The text from which its name is made. */
  readonly text: string;
  /** Its description in errors. */
  readonly where: string;
  readonly files: readonly FoundFile[];
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() === true;
}

async function inFolder(folder: string, search: Search): Promise<readonly Group[]> {
  const names = await readdir(folder);
  const passed = search.passOver(folder, new Set(names));
  const entries = names.filter((name) => !name.startsWith(".")).sort();
  const left = entries.filter((name) => aside.test(name) || passed.has(name));
  if (left.length > 0)
    search.onEvent(
      `--domains ${folder}: left out files that are not data: ${left.slice(0, 5).join(", ")}${left.length > 5 ? ` and ${left.length - 5} more` : ""}`,
    );
  const pathOf = (name: string): string => (folder.endsWith("/") ? folder + name : `${folder}/${name}`);
  // The index of a token file is read with the tokens.
  const kept = entries.filter((name) => !left.includes(name) && tokenFileOf(pathOf(name)) === null);
  const groups: Group[] = [];
  const loose: FoundFile[] = [];
  for (let from = 0; from < kept.length; from += AT_ONCE) {
    const looks = kept.slice(from, from + AT_ONCE).map(async (name): Promise<Group | null> => {
      const path = pathOf(name);
      const files = await search.find(`--domains ${path}`, [path]);
      if (await isFolder(path)) return { text: name, where: path, files };
      loose.push(...files);
      return null;
    });
    for (const group of await Promise.all(looks)) if (group !== null) groups.push(group);
  }
  return [...groups, ...groupFiles(loose, folder, search)];
}

async function ofPattern(glob: string, search: Search): Promise<readonly Group[]> {
  // A file that is named by itself keeps its path as it was written, such as "./a.txt".
  const { base, isGlob } = picomatch.scan(glob);
  return groupFiles(await search.find(`--domains ${glob}`, [glob]), isGlob ? base : glob, search);
}

/** Groups shards of a set, and returns each file or set by its path below `base`. */
function groupFiles(files: readonly FoundFile[], base: string, { onEvent }: Search): Group[] {
  const sets = new Map<string, { count: number; files: FoundFile[] }>();
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const file of sorted) {
    const { set, count } = shardSet(file.path) ?? { set: file.path, count: 1 };
    const group = sets.get(set) ?? { count, files: [] };
    group.files.push(file);
    sets.set(set, group);
  }
  return Array.from(sets.values(), ({ count, files }) => {
    const { path } = files[0]!;
    if (files.length !== count)
      onEvent(`--domains: only ${files.length} of the ${count} shards of ${path} exist`);
    const own =
      path === base ? basename(path) : path.startsWith(`${base}/`) ? path.slice(base.length + 1) : path;
    return { text: withoutEndings(own), where: path, files };
  });
}
