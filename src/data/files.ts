/**
 * Finds the files that paths, folders and glob patterns name. Everything that a pattern reaches is either in the result or reported: a broken link, a
 * folder without permission, a path that is too long for the system, and anything that is not a file either end the search with an error, or are left
 * out by name.
 */
import type { BigIntStats, Dirent } from "node:fs";
import { access, constants, readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import picomatch from "picomatch";
import { errorCode, GradmixError } from "../errors.ts";
import { boolean, callback, checkOptions, string, valueThat, show } from "../options.ts";

const aSet = valueThat("a Set", (value) => value instanceof Set);

export interface ListOptions {
  /** What the files are for, in error messages: 'domain "code"'. */
  readonly what?: string;
  /** Paths that are left out, under whatever name they are reached. For example, a target's files must not also be in a domain. */
  readonly exclude?: ReadonlySet<string>;
  /**
   * Selects, from the names in a folder, those that folders and patterns skip, with everything in them. It is not called for a path that is given by
   * itself.
   */
  readonly passOver?: (folder: string, names: ReadonlySet<string>) => ReadonlySet<string>;
  /** Leaves out what cannot be read instead of ending the search. Default false. */
  readonly skipUnreadable?: boolean;
  /** Called for each path that a pattern matches but that is left out, with the reason. */
  readonly onLeftOut?: (path: string, reason: LeftOut, detail: string) => void;
}

/** Why a path was left out. "link" is a broken link whose name does not match, but which may have been a folder with matching files. */
export type LeftOut = "excluded" | "passed over" | "unreadable" | "link";

export interface FoundFile {
  readonly path: string;
  /** Identifies the file under all its names. */
  readonly identity: string;
}

/**
 * Lists the files that paths, folders and glob patterns name, sorted and without duplicates (also if links lead to a file twice). A star does not
 * match hidden files, unless a name of the pattern begins with a dot at its first star or after it. Throws `data` for a path that does not exist, a
 * pattern without matches and, without `skipUnreadable`, for anything that cannot be read.
 */
export async function listFiles(patterns: readonly string[], options: ListOptions = {}): Promise<string[]> {
  return (await findFiles(patterns, options)).map(({ path }) => path);
}

/** Results of `passOver` for folders above the search; searches that share one memo ask only once. */
export type PassedOverMemo = Map<string, ReadonlySet<string>>;

/** Like `listFiles`, with the identity of each file. Not part of the package's interface. */
export async function findFiles(
  patterns: readonly string[],
  options: ListOptions = {},
  passedOverMemo: PassedOverMemo = new Map(),
): Promise<FoundFile[]> {
  const given: unknown = patterns;
  if (!Array.isArray(given) || given.some((pattern) => typeof pattern !== "string"))
    throw new GradmixError(
      "config",
      `listFiles: patterns: ${show(given)} does not fit; it must be a list of strings`,
    );
  checkOptions("listFiles", options, {
    ...{ what: string, exclude: aSet, passOver: callback, skipUnreadable: boolean, onLeftOut: callback },
  });
  const { what = "files", exclude = new Set(), skipUnreadable = false, onLeftOut } = options;
  const found = new Map<string, FoundFile>();
  const unreadable: { path: string; detail: string }[] = [];
  const counts = { excluded: 0, "passed over": 0, unreadable: 0, link: 0 };
  const reported = new Set<string>();
  const leaveOut = (path: string, reason: LeftOut, detail: string): void => {
    // Several patterns may lead to one path.
    if (reported.has(path)) return;
    reported.add(path);
    counts[reason]++;
    if (reason === "unreadable") unreadable.push({ path, detail });
    onLeftOut?.(path, reason, detail);
  };
  for (const pattern of patterns)
    for (const file of await expand(pattern, what, options.passOver ?? skipNone, leaveOut, passedOverMemo))
      if (!found.has(file.identity)) found.set(file.identity, file);
  const [first] = unreadable;
  if (first !== undefined && !skipUnreadable)
    throw new GradmixError(
      "data",
      `${what}: ${shorten(first.path)} cannot be read: ${first.detail}${unreadable.length > 1 ? ` (and ${unreadable.length - 1} more like it)` : ""}; fix it, or skip it with --skip-bad-lines`,
    );
  const excluded = new Set(
    await Promise.all([...exclude].map(async (path) => (await identify(path))?.identity ?? resolve(path))),
  );
  const kept = [...found.values()].filter(({ path, identity }) => {
    if (excluded.has(identity)) leaveOut(path, "excluded", "it belongs to the target");
    return !excluded.has(identity);
  });
  if (kept.length > 0) return sortBy(kept, ({ path }) => path);
  const all = patterns.join(", ");
  const reason =
    counts.excluded > 0
      ? `${allOf(counts.excluded, all, "belongs", "belong")} to the target too; a target file cannot be in a domain`
      : counts["passed over"] > 0
        ? `${allOf(counts["passed over"], all, "was", "were")} written by a run; to use one as text, name it by its own path`
        : counts.unreadable > 0
          ? `none of ${all} can be read`
          : counts.link > 0
            ? `nothing matches ${all}, and ${counts.link} links on the way are broken`
            : "no files were named";
  throw new GradmixError("data", `${what}: ${reason}`);
}

const allOf = (count: number, patterns: string, one: string, several: string): string =>
  count === 1 ? `the only file of ${patterns} ${one}` : `all ${count} files of ${patterns} ${several}`;

/** Sorts in place in the order that `sort()` gives texts. */
function sortBy<T>(items: T[], textOf: (item: T) => string): T[] {
  return items.sort((a, b) => (textOf(a) < textOf(b) ? -1 : 1));
}

const skipNone = (): ReadonlySet<string> => new Set();

/** Identity of a file, through links; null if it is not a file. Hard links are recognised by their inode, which is only read if a file has several. */
async function identify(path: string): Promise<FoundFile | null> {
  try {
    const info = await stat(path, { bigint: true });
    if (!info.isFile()) return null;
    return { path, identity: info.nlink > 1n && info.ino > 0n ? numberOf(info) : await realpath(path) };
  } catch {
    return null;
  }
}

const numberOf = ({ dev, ino }: BigIntStats): string => `${dev}:${ino}`;

type LeaveOut = (path: string, reason: LeftOut, detail: string) => void;
type PassOver = NonNullable<ListOptions["passOver"]>;

async function expand(
  pattern: string,
  what: string,
  passOver: PassOver,
  leaveOut: LeaveOut,
  passedOverMemo: PassedOverMemo,
): Promise<FoundFile[]> {
  const fails = (problem: string): GradmixError => new GradmixError("data", `${what}: ${problem}`);
  const found = await stat(pattern).then(
    (stats) => ({ isFolder: stats.isDirectory() }),
    async (error: unknown) => {
      // A pattern, or nothing.
      if (["ENOENT", "ENOTDIR"].includes(errorCode(error))) return null;
      throw fails(`${shorten(pattern)}: ${await reasonOf(error, pattern)}`);
    },
  );
  const isFolder = found?.isFolder === true;
  if (found !== null && !isFolder) {
    const file = await identify(pattern);
    if (file === null)
      throw fails(`${pattern} is neither a file nor a folder; write the text to a file first`);
    const closed = await whyClosed(pattern);
    if (closed !== null) throw fails(`${shorten(pattern)}: ${closed}; give access to it, or leave it out`);
    return [file];
  }
  const paths = isFolder
    ? [{ base: pattern.replace(/(.)\/+$/, "$1"), parts: ["**"] }]
    : partsOf(pattern, fails);
  if (paths.length === 1 && paths[0]!.parts.length === 0) {
    const target = await readlink(pattern).catch(() => null);
    throw fails(
      `no such file: ${shorten(pattern)}${target === null ? "" : ` (it is a link to ${target}, which does not exist)`}`,
    );
  }
  const files: FoundFile[] = [];
  let reported = false;
  for (const { base, parts } of paths) {
    if (parts.length === 0) {
      const file = await identify(base);
      if (file !== null) files.push(file);
      continue;
    }
    const start = await startOf(base, passOver, passedOverMemo);
    if (start === null) continue;
    // A star does not match hidden files unless the pattern has an explicit dot; the folder in which the pattern begins does not count.
    const dot = parts.some((part) => /^\.[^.]/.test(part));
    await walk(start, {
      // At the end, "**" stands for everything below the folder, not for a file in its place.
      parts: (parts.at(-1) === "**" ? [...parts, "*"] : parts).map((part) =>
        part === "**" ? null : picomatch.makeRe(part, { dot, nonegate: true }),
      ),
      dot,
      passOver,
      seen: new Set(),
      found: (file) => files.push(file),
      leaveOut(...args) {
        reported = true;
        leaveOut(...args);
      },
    });
  }
  if (files.length === 0 && !reported)
    throw fails(isFolder ? `the folder ${pattern} holds no files` : `nothing matches ${pattern}`);
  return sortBy(files, ({ path }) => path);
}

/** Splits a pattern into the folder where it begins and the names after it, once per alternative of braces that contain a "/". Without names it is a path. */
function partsOf(pattern: string, fails: (problem: string) => Error): { base: string; parts: string[] }[] {
  return alternatives(pattern).map((one) => {
    if (/\([^)]*\//.test(one) && picomatch.scan(one).isGlob)
      throw fails(`${pattern}: a "/" inside of (…) cannot be matched; use several patterns or {…,…}`);
    const names = one.replace(/^(\.\/+)+/, "").split("/");
    const at = names.findIndex((name) => picomatch.scan(name).isGlob);
    const plain = (at < 0 ? names : names.slice(0, at)).map((name) => name.replaceAll(/\\(.)/g, "$1"));
    const base = plain.length === 1 && plain[0] === "" ? "/" : plain.join("/");
    return { base, parts: at < 0 ? [] : names.slice(at).filter((name) => name !== "") };
  });
}

/**
 * Expands `{a/b,c}/*` into `a/b/*` and `c/*`; braces without a "/" stay, because they are within one name. Braces that are not closed, or contain a
 * "/" but no comma, are literal.
 */
function alternatives(pattern: string): string[] {
  let text = pattern;
  for (let open = text.indexOf("{"); open >= 0; open = text.indexOf("{", open + 1)) {
    if (text[open - 1] === "\\") continue;
    const commas: number[] = [];
    let depth = 0;
    let close = open;
    for (; close < text.length; close++) {
      if (text[close] === "{") depth++;
      else if (text[close] === "}" && --depth === 0) break;
      else if (text[close] === "," && depth === 1) commas.push(close);
    }
    const within = text.slice(open, close);
    if (close === text.length || (within.includes("/") && commas.length === 0)) {
      // The matcher of a name matches nothing if a brace is not closed.
      text = `${text.slice(0, open)}\\${text.slice(open)}`;
      open++;
    } else if (within.includes("/")) {
      const ends = [open, ...commas, close];
      return ends
        .slice(1)
        .flatMap((end, i) =>
          alternatives(text.slice(0, open) + text.slice(ends[i]! + 1, end) + text.slice(close + 1)),
        );
    }
  }
  return [text];
}

interface Walk {
  /** A pattern for each name of a path below the start; null for any number of folders. */
  readonly parts: readonly (RegExp | null)[];
  readonly dot: boolean;
  readonly passOver: PassOver;
  /** Folders that were visited, by inode and remaining pattern, since links may form cycles. */
  readonly seen: Set<string>;
  found(file: FoundFile): void;
  readonly leaveOut: LeaveOut;
}

/** A folder, and the parts of the pattern that its entries may match. */
interface Place {
  readonly folder: string;
  readonly states: readonly number[];
  readonly passedOver: boolean;
}

/** The start of a walk; null if it does not exist. A folder inside a skipped folder is skipped too. */
async function startOf(
  base: string,
  passOver: PassOver,
  passedOverMemo: PassedOverMemo,
): Promise<Place | null> {
  const folder = base === "." ? "" : base;
  try {
    if (!(await stat(placeOf(folder))).isDirectory()) return null;
  } catch (error) {
    // Any other problem with it is reported by the walk.
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error))) return null;
  }
  let passedOver = false;
  for (let inner = resolve(base); dirname(inner) !== inner; inner = dirname(inner)) {
    const folder = dirname(inner);
    let passed = passedOverMemo.get(folder);
    if (passed === undefined) {
      const names = await readdir(folder).catch(() => []);
      passed = passOver(folder, new Set(names));
      passedOverMemo.set(folder, passed);
    }
    passedOver ||= passed.has(basename(inner));
  }
  return { folder, states: [0], passedOver };
}

/** The path to read for a folder. Paths below the current folder do not begin with "./". */
const placeOf = (folder: string): string => (folder === "" ? "." : folder);

/** Adds the states that are reached by skipping parts that may match nothing. The number of all parts stands for a match. */
function closure(states: readonly number[], { parts }: Walk): number[] {
  const all = new Set(states);
  for (const state of all) if (parts[state] === null) all.add(state + 1);
  return [...all];
}

function step(states: readonly number[], name: string, walk: Walk): number[] {
  const next = states.flatMap((state) => {
    const part = walk.parts[state];
    // All parts have matched.
    if (part === undefined) return [];
    if (part === null) return walk.dot || !name.startsWith(".") ? [state] : [];
    return part.test(name) ? [state + 1] : [];
  });
  return closure(next, walk);
}

async function walk(place: Place, of: Walk): Promise<void> {
  const { folder } = place;
  const states = closure(place.states, of);
  let entries: Dirent[];
  try {
    const own = numberOf(await stat(placeOf(folder), { bigint: true }));
    const key = `${own} ${states.join()} ${place.passedOver}`;
    if (of.seen.has(key)) return;
    of.seen.add(key);
    entries = await readdir(placeOf(folder), { withFileTypes: true });
  } catch (error) {
    of.leaveOut(placeOf(folder), "unreadable", await reasonOf(error, placeOf(folder)));
    return;
  }
  const passed = of.passOver(placeOf(folder), new Set(entries.map(({ name }) => name)));
  const folders: Place[] = [];
  // Lookups end in any order; their results are reported in the order of the names.
  sortBy(entries, ({ name }) => name);
  const looks = entries.map(async (entry): Promise<(() => void) | null> => {
    const next = step(states, entry.name, of);
    const path = folder === "" || folder.endsWith("/") ? folder + entry.name : `${folder}/${entry.name}`;
    const matches = next.includes(of.parts.length);
    const deeper = next.some((state) => state < of.parts.length);
    if (!matches && !deeper) return null;
    const kind = await kindOf(entry, path);
    const passedOver = place.passedOver || passed.has(entry.name);
    if (kind === "folder")
      return deeper ? () => folders.push({ folder: path, states: next, passedOver }) : null;
    if (kind === "file") {
      if (!matches) return null;
      const file = await identify(path);
      if (file === null) return () => of.leaveOut(path, "unreadable", "it was deleted in the meantime");
      if (passedOver) return () => of.leaveOut(path, "passed over", "a run wrote it");
      const closed = await whyClosed(path);
      return closed === null ? () => of.found(file) : () => of.leaveOut(path, "unreadable", closed);
    }
    if (matches) return () => of.leaveOut(path, "unreadable", kind.reason);
    // An entry that is not a file and does not have a file's name matters only if it is a link, which may have been a folder.
    return entry.isSymbolicLink() ? () => of.leaveOut(path, "link", kind.reason) : null;
  });
  for (const report of await Promise.all(looks)) report?.();
  for (const next of folders) await walk(next, of);
}

/** Why a file cannot be opened; null if it can. */
async function whyClosed(path: string): Promise<string | null> {
  try {
    await access(path, constants.R_OK);
    return null;
  } catch (error) {
    return reasonOf(error, path);
  }
}

async function kindOf(entry: Dirent, path: string): Promise<"file" | "folder" | { reason: string }> {
  try {
    const kind = entry.isSymbolicLink() ? await stat(path) : entry;
    if (kind.isFile()) return "file";
    return kind.isDirectory() ? "folder" : { reason: "it is neither a file nor a folder" };
  } catch (error) {
    return { reason: await reasonOf(error, path) };
  }
}

async function reasonOf(failure: unknown, path: string): Promise<string> {
  const code = errorCode(failure);
  if (code === "EACCES" || code === "EPERM") return "it may not be read (permission denied)";
  if (code === "ENAMETOOLONG") return `its path is longer than the system allows (${path.length} characters)`;
  // Fails if it is not a link.
  const link = await readlink(path).catch(() => null);
  if (link !== null && code === "ELOOP") return `it is a link to ${link}, which leads back to itself`;
  if (link !== null && code === "ENOENT") return `it is a link to ${link}, which does not exist`;
  return code === "ENOENT" ? "it does not exist" : (failure as Error).message;
}

function shorten(path: string): string {
  return path.length <= 200 ? path : `${path.slice(0, 100)}…${path.slice(-60)}`;
}
