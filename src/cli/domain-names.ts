/** Names of domains that are found in the paths of folders and files, or in a field of documents. */
import { resolve } from "node:path";
import { beginning, GradmixError } from "../errors.ts";

/**
 * Allowed names of domains. The joiners (U+200C, U+200D) are part of the spelling of Persian and Indic words. A space at the end would not be seen in
 * any list of names.
 */
export const domainName: RegExp = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}\p{Join_Control}_. -]*(?<! )$/u;

/** What such names are, for messages. */
export const domainNameForm =
  'it begins with a letter or digit, has letters with their marks, digits, "_", "-", "." and spaces, and does not end with a space';

/** The first two names that differ only in case, which are one file on some file systems; null if there are none. */
export function sameButForCase(names: Iterable<string>): readonly [string, string] | null {
  const seen = new Map<string, string>();
  for (const name of names) {
    const other = seen.get(name.toLowerCase());
    if (other !== undefined) return [other, name];
    seen.set(name.toLowerCase(), name);
  }
  return null;
}

/** Longest name. A field with longer values does not name domains. */
const LONGEST = 200;

/** Extensions of compression and of file formats, which say nothing about the subject of a text. */
const packing = /\.(gz|zst|bz2)$/i;
const writing = /\.(jsonl|ndjson|json|txt|text|md|csv|tsv|parquet|bin|ds|npy)$/i;
/** The end of the name of a shard, one of several files of a set: train-00003-of-00010. */
const shard = /[-_.]\d{3,}-of-\d{3,}$/;

/** `path` without extensions and without the number of a shard. */
export function withoutEndings(path: string): string {
  return path.replace(packing, "").replace(writing, "").replace(shard, "");
}

/** The set to which a shard belongs, and the number of files that its name declares; null for a file that is not a shard. */
export function shardSet(path: string): { readonly set: string; readonly count: number } | null {
  const [, start = "", total = "", end = ""] =
    /^(.*[-_.])\d{3,}-of-(\d{3,})((?:\.[a-z0-9]+)*)$/i.exec(path) ?? [];
  return total === "" ? null : { set: `${start}*-of-${total}${end}`, count: Number(total) };
}

/**
 * Makes the name of a domain from any text: characters that names cannot contain become "-". Throws `data`, naming `where`, for a text without
 * a letter or digit, and for one that is too long.
 */
export function cleanName(text: string, where: string): string {
  const name = text
    .normalize()
    .replaceAll(/[^\p{L}\p{M}\p{N}\p{Join_Control}_. -]+/gu, "-")
    .replace(/^[^\p{L}\p{N}]+/u, "")
    .replace(/[-. ]+$/, "");
  const shown = JSON.stringify(beginning(text, 60));
  if (name === "")
    throw new GradmixError("data", `${where}: ${shown} has no letter or digit, so it cannot name a domain`);
  if (name.length > LONGEST)
    throw new GradmixError(
      "data",
      `${where}: ${shown} is longer than ${LONGEST} characters, so it cannot name a domain`,
    );
  return name;
}

/** The order of found domains: by the characters of their names, with numbers in them by value (c2 before c10). */
export function compareNames(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = compareParts(left[i]!, right[i]!);
    if (order !== 0) return order;
  }
  // These names differ only in leading zeros.
  return left.length - right.length || (a < b ? -1 : a > b ? 1 : 0);
}

const partsOf = (name: string): string[] => name.match(/\d+|\D+/g) ?? [];

function compareParts(a: string, b: string): number {
  if (/^\d/.test(a) && /^\d/.test(b)) {
    const significant = (digits: string): string => digits.replace(/^0+/, "");
    const [x, y] = [significant(a), significant(b)];
    if (x.length !== y.length) return x.length - y.length;
    return x < y ? -1 : x > y ? 1 : 0;
  }
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The names in use, each with its source. No two sources have the same name. */
export interface NameBook {
  /** Makes a name from a text and reserves it. Throws `data`, naming both sources, if another source has the name; `advice` says what to do then. */
  claim(text: string, where: string, advice?: string): string;
}

/** `taken`: the names that the user gave. */
export function nameBook(taken: Iterable<string>): NameBook {
  const origins = new Map<string, string>(Array.from(taken, (name) => [name, `--domain ${name}`]));
  return {
    claim(text, where, advice = "rename one of them, or give it another name with --domain NAME=…") {
      const name = cleanName(text, where);
      const other = origins.get(name);
      if (other !== undefined && resolve(other) === resolve(where))
        throw new GradmixError(
          "data",
          `--domains: names ${where} twice, as the domain "${name}"; name it once`,
        );
      if (other !== undefined)
        throw new GradmixError("data", `${where} and ${other} would both be the domain "${name}"; ${advice}`);
      origins.set(name, where);
      return name;
    },
  };
}
