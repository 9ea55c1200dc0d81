/** Names of domains that are found: from the paths of folders and files, and from a field of documents. */
import { GradmixError } from "../errors.ts";

/** The joiners (U+200C, U+200D) are part of how Persian and Indic words are spelt. */
export const domainName: RegExp = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}\p{Join_Control}_. -]*$/u;

/** Longest name; a field with longer values is no field of names. */
const LONGEST = 200;

/** Endings that say how a file is packed and written, and nothing of what it holds. */
const packing = /\.(gz|zst|bz2)$/i;
const writing = /\.(jsonl|ndjson|json|txt|text|md|csv|tsv|parquet|bin|ds|npy)$/i;
/** One of several files of a set: train-00003-of-00010. */
const shard = /[-_.]\d{3,}-of-\d{3,}$/;

/** `path` without what says how the file is written, and which shard of a set it is. */
export function withoutEndings(path: string): string {
  return path.replace(packing, "").replace(writing, "").replace(shard, "");
}

/** The set that a file is a shard of, and how many it says there are; null for a file that is no shard. */
export function shardSet(path: string): { readonly set: string; readonly count: number } | null {
  const [, start = "", total = "", end = ""] =
    /^(.*[-_.])\d{3,}-of-(\d{3,})((?:\.[a-z0-9]+)*)$/i.exec(path) ?? [];
  return total === "" ? null : { set: `${start}*-of-${total}${end}`, count: Number(total) };
}

/**
 * A name for a domain out of any text: characters that names do not have become "-". Throws `data`, naming `where`, for a text without a letter or digit and for one
 * that is too long.
 */
export function cleanName(text: string, where: string): string {
  const name = text
    .normalize()
    .replaceAll(/[^\p{L}\p{M}\p{N}\p{Join_Control}_. -]+/gu, "-")
    .replace(/^[^\p{L}\p{N}]+/u, "")
    .replace(/[-. ]+$/, "");
  const shown = JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
  if (name === "")
    throw new GradmixError("data", `${where}: ${shown} has no letter or digit, so that it names no domain`);
  if (name.length > LONGEST)
    throw new GradmixError(
      "data",
      `${where}: ${shown} is longer than ${LONGEST} characters, so that it names no domain`,
    );
  return name;
}

/** The order of domains that are found: by the characters of their names, numbers in them by their size (c2 before c10). */
export function compareNames(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = compareParts(left[i]!, right[i]!);
    if (order !== 0) return order;
  }
  // Numbers that differ only in zeros before them.
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

/** Names that are given out, each with where it comes from: no two places have one name. */
export interface NameBook {
  /** A name out of a text. Throws `data`, naming both places, where another place has it. */
  claim(text: string, where: string): string;
}

/** `taken`: names that were given by hand. */
export function nameBook(taken: Iterable<string>): NameBook {
  const origins = new Map<string, string>(Array.from(taken, (name) => [name, `--domain ${name}`]));
  return {
    claim(text, where) {
      const name = cleanName(text, where);
      const other = origins.get(name);
      if (other !== undefined)
        throw new GradmixError(
          "data",
          `${where} and ${other} would both be the domain "${name}"; rename one of them, or give it another name by --domain NAME=…`,
        );
      origins.set(name, where);
      return name;
    },
  };
}
