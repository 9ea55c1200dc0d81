/**
 * Converts the value of an option from text on the command line or JSON in a config file to a checked value. Each error names the option as the user
 * wrote it, the value, and what is allowed.
 */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { beginning, GradmixError } from "../errors.ts";
import { recommendedWeights } from "../export/mixture.ts";
import { formatJson, isObject, type Json, parseJson, plainJson } from "../json.ts";
import { nearest } from "../nearest.ts";
import { reason } from "../node/system-errors.ts";
import { numeral } from "../numeral.ts";
import { jsonOf } from "../schema.ts";
import { timesShare } from "../share.ts";
import { domainName, domainNameForm } from "./domain-names.ts";
import type { Kind } from "./options/spec.ts";

/** A value as the command line gives it: the arguments of a flag, of which only a list has several, or the state of a switch. */
export type Raw = readonly string[] | boolean;

/** The text that was given for an option, by commander's name; null if it was not given. Throws `config` for an empty text. */
export function textOption(options: Readonly<Record<string, unknown>>, name: string): string | null {
  const value = options[name];
  if (value === "") throw configError(`${flagOf(name)}: is empty`);
  return typeof value === "string" ? value : null;
}

/** The whole number that was given for an option, by commander's name; null if it was not given. Throws `config`. */
export function integerOption(
  options: Readonly<Record<string, unknown>>,
  name: string,
  min: number,
  max: number = 2 ** 31,
): number | null {
  const text = textOption(options, name);
  return text === null ? null : integerOf(text, flagOf(name), min, max);
}

/** The whole number that a text of the command line gives. Throws `config`, naming the `label`. */
export function integerOf(text: string, label: string, min: number, max: number): number {
  const kind = { type: "integer", min, max } as const;
  return checkNumber(kind, fromArguments(kind, [text], label), label);
}

/** Converts the arguments of a flag to the form that a config file has. `label` is the flag. */
export function fromArguments(kind: Kind, raw: Raw, label: string): unknown {
  if (typeof raw === "boolean") return raw;
  const last = raw.at(-1) ?? "";
  switch (kind.type) {
    case "integer":
      // A number that a double does not hold is kept as text, so that the error shows it as it was typed.
      return numeral.test(last) && (Number.isSafeInteger(Number(last)) || !/^[+-]?\d+$/.test(last))
        ? Number(last)
        : last;
    case "number":
      return numeral.test(last) ? finite(last) : last;
    case "globs":
      return raw;
    case "domains":
      return gather(raw, label);
    case "shares":
      return isPath(last) ? last : shares(last, label);
    case "byName":
      return gatherNumbers(kind, raw, label);
    case "json":
      return parseJson(last, { source: label });
    case "bytes":
    case "choice":
    case "text":
    case "file":
    case "switch":
      return last;
  }
}

/**
 * Whether text names a file rather than shares NAME=X: it has no "=", names an existing file, or has a path separator before its first "=" and is no
 * list of names and numbers. (The domains of `gradmix mix` may have a separator in their names.)
 */
function isPath(text: string): boolean {
  const at = text.indexOf("=");
  if (at < 0 || isFile(text)) return true;
  const isShare = (part: string): boolean => {
    const [, number = ""] = /^[^=]+=([^=]+)$/.exec(part) ?? [];
    return number.trim() !== "" && !Number.isNaN(Number(number));
  };
  return /[/\\]/.test(text.slice(0, at)) && !text.split(",").every(isShare);
}

/** Whether a path is that of an existing file. Text that can be no path, such as a long list, is none. */
export function isFile(path: string): boolean {
  // `statSync` alone would throw for text that is longer than a path can be.
  return existsSync(path) && statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function gather(raw: readonly string[], label: string): Map<string, string[]> {
  const domains = new Map<string, string[]>();
  for (const item of raw) {
    const [name, glob] = split(item, label, "NAME=GLOB, for example code='src/**/*.ts'");
    domains.set(name, [...(domains.get(name) ?? []), glob]);
  }
  return domains;
}

/** Reads one number, or numbers by name; a number without a name is stored as "*". */
function gatherNumbers(
  { sign, all }: Kind & { type: "byName" },
  raw: readonly string[],
  label: string,
): unknown {
  const form = sign === "=" ? "X or NAME=X, for example 0.01 or code=0.1" : "NAME<=X, for example code<=1.02";
  const out = new Map<string, unknown>();
  for (const item of raw) {
    const at = item.indexOf(sign);
    if (at < 0 && !all) throw configError(`${label}: ${quote(item)} is not of the form ${form}`);
    const name = at < 0 ? "*" : item.slice(0, at).trim().normalize();
    const value = at < 0 ? item : item.slice(at + sign.length);
    if (name === "" || value.trim() === "")
      throw configError(`${label}: ${quote(item)} is not of the form ${form}`);
    if (out.has(name))
      throw configError(
        `${label}: ${name === "*" ? "has two numbers for the domains that are not named" : `names ${quote(name)} twice`}; give one`,
      );
    out.set(name, finite(value));
  }
  return out;
}

function shares(text: string, label: string): Map<string, unknown> {
  const out = new Map<string, unknown>();
  for (const item of text.split(",")) {
    const [name, value] = split(item, label, "NAME=X,NAME=X, for example code=0.7,prose=0.3");
    if (out.has(name)) throw configError(`${label}: names the domain ${quote(name)} twice`);
    // Text that is not a number is kept, so that the error shows it.
    out.set(name, value.trim() === "" ? value : finite(value));
  }
  return out;
}

/** The number that a text gives. Another text, also one of a number that is too large, is kept, so that the error shows it as it was typed. */
function finite(text: string): number | string {
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}

function split(item: string, label: string, form: string): [string, string] {
  const at = item.indexOf("=");
  if (at < 1 || at === item.length - 1)
    throw configError(`${label}: ${quote(item)} is not of the form ${form}`);
  return [item.slice(0, at).normalize(), item.slice(at + 1)];
}

/** Checks `value` and returns it in the form that `TrainConfig` holds. `label` names the place where it was found. */
export function checkValue(kind: Kind, value: unknown, label: string): unknown {
  switch (kind.type) {
    case "integer":
    case "number":
      return checkNumber(kind, value, label);
    case "bytes":
      return checkBytes(kind, value, label);
    case "choice":
      return checkChoice(kind.choices, value, label);
    case "file":
      return checkFile(value, label);
    case "text":
      return checkText(value, label);
    case "switch":
      return checkSwitch(value, label);
    case "globs":
      return checkGlobs(value, label);
    case "domains":
      return checkDomains(value, label);
    case "shares":
      return checkShares(kind.sumsToOne, value, label);
    case "byName":
      return checkByName(kind, value, label);
    case "json":
      return kind.shape === "object" ? checkObject(value, label) : checkObjects(value, label);
  }
}

export function checkBytes({ min, max }: Kind & { type: "bytes" }, value: unknown, label: string): number {
  const size = bytes(value, label);
  // A size with a unit is shown as it was typed.
  if (typeof value !== "string") return checkNumber({ type: "integer", min, max }, size, label);
  if (typeof size === "number" && size >= min && size <= max) return size;
  throw configError(`${label}: ${quote(value)} is not a size from ${min} to ${max} bytes`);
}

/** A number in a config file stands for the choice that is written so. */
export function checkChoice<C extends string>(choices: readonly C[], value: unknown, label: string): C {
  const wanted = typeof value === "number" ? String(value) : value;
  const chosen = choices.find((one) => one === wanted);
  if (chosen !== undefined) return chosen;
  throw configError(
    `${label}: ${show(value)} is not one of ${choices.join(", ")}${typeof value === "string" ? didYouMean(value, choices) : ""}`,
  );
}

export function checkText(value: unknown, label: string): string {
  if (typeof value === "string" && value !== "") return value;
  throw configError(`${label}: ${value === "" ? "is empty" : `${show(value)} is not a text`}`);
}

export function checkSwitch(value: unknown, label: string): boolean {
  if (typeof value === "boolean") return value;
  throw configError(`${label}: ${show(value)} is not true or false`);
}

export function checkDomains(
  value: unknown,
  label: string,
  { anyName = false }: { readonly anyName?: boolean } = {},
): Map<string, string[]> {
  const globsOf = (globs: unknown, name: string): string[] => checkGlobs(globs, `${label} ${quote(name)}`);
  if (!anyName) return checkRecord(value, label, globsOf);
  return new Map(namesOf(value, label).map(([name, globs]) => [name, globsOf(globs, name)]));
}

export function checkObject(value: unknown, label: string): Record<string, unknown> {
  const plain = plainJson(value as Json);
  if (isObject(plain)) return plain;
  throw configError(`${label}: ${show(value)} is not a JSON object`);
}

export function checkObjects(value: unknown, label: string): Record<string, unknown>[] {
  const plain = plainJson(value as Json);
  if (Array.isArray(plain) && plain.every(isObject)) return plain;
  throw configError(`${label}: ${show(value)} is not a JSON list of objects`);
}

/** Accepts a path, or the bases that its file would contain. */
export function checkFile(value: unknown, label: string): string | GivenBases {
  const members = membersOf(value);
  return members === null ? checkText(value, label) : checkBases(members, label);
}

/** Accepts a number for all domains, or numbers by name. An object with only "*" gives that number if one number may stand for all. */
export function checkByName(
  kind: Kind & { type: "byName" },
  value: unknown,
  label: string,
): number | Map<string, number> {
  const { all, min, max, openMin = false } = kind;
  const number = (item: unknown, what: string): number =>
    checkNumber({ type: "number", min, max, openMin }, item, what);
  if (all && membersOf(value) === null) return number(value, label);
  const checked = checkNamed(value, label, (item, name) => number(item, `${label} ${quote(name)}`));
  if (checked.size === 0) throw configError(`${label}: names no domain`);
  return all && checked.size === 1 ? (checked.get("*") ?? checked) : checked;
}

export function checkNumber(
  kind: Kind & { type: "integer" | "number" },
  value: unknown,
  label: string,
): number {
  const { min, max, openMin = false, openMax = false } = kind;
  const fits =
    typeof value === "number" &&
    (kind.type === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value)) &&
    (openMin ? value > min : value >= min) &&
    (openMax ? value < max : value <= max);
  if (fits) return value;
  const what = kind.type === "integer" ? "a whole number" : "a number";
  const lower = openMin ? `above ${min}` : `of at least ${min}`;
  // A limit that nobody meets by chance is named only to those who exceed it.
  const exceeds = (typeof value === "number" || (typeof value === "string" && numeral.test(value))) && Number(value) > max; // prettier-ignore
  const upper = max > 2 ** 30 && !exceeds ? "" : openMax ? ` and below ${max}` : ` and at most ${max}`;
  throw configError(`${label}: ${show(value)} is not ${what} ${lower}${upper}`);
}

const units: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

function bytes(value: unknown, label: string): unknown {
  if (typeof value !== "string") return value;
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(value.trim());
  const unit = units[match?.[2]?.toLowerCase() ?? ""];
  if (match === null || unit === undefined)
    throw configError(`${label}: ${quote(value)} is not a size such as 1000000, 512MiB or 2GiB`);
  return timesShare(unit, Number(match[1]), "down");
}

export function checkGlobs(value: unknown, label: string): string[] {
  const globs: unknown[] = Array.isArray(value) ? value : [value];
  return globs.map((glob) => {
    if (typeof glob !== "string" || glob === "")
      throw configError(`${label}: ${show(glob)} is not a glob, such as "texts/**/*.md"`);
    return glob;
  });
}

/** Values by name, for an option that names the domains. */
function checkRecord<V>(
  value: unknown,
  label: string,
  check: (item: unknown, name: string) => V,
): Map<string, V> {
  return checkNamed(value, label, (item, name) => {
    if (!domainName.test(name))
      throw configError(
        `${label}: ${quote(name)} is not a name for a domain, which has this form: ${domainNameForm}`,
      );
    return check(item, name);
  });
}

/** Values by the names of domains, which are checked once the domains are known. The domains of gradmix mix may have any names. */
function checkNamed<V>(
  value: unknown,
  label: string,
  check: (item: unknown, name: string) => V,
): Map<string, V> {
  const out = new Map<string, V>();
  for (const [given, item] of namesOf(value, label)) {
    // Names are composed (NFC), so that é is the same name however it was typed.
    const name = given.normalize();
    if (!/^\P{Cc}+$/u.test(name))
      throw configError(
        `${label}: ${quote(name)} is not a name for a domain: it ${name === "" ? "is empty" : "has a control character"}`,
      );
    if (out.has(name)) throw configError(`${label}: names the domain ${quote(name)} twice`);
    out.set(name, check(item, name));
  }
  return out;
}

/** Bases as in a config file: name → numbers by domain, or a list of numbers. */
export type GivenBases = ReadonlyMap<string, ReadonlyMap<string, number> | readonly number[]>;

/** Checks the form of bases. The domains are checked once they are known. */
function checkBases(given: readonly (readonly [string, unknown])[], label: string): GivenBases {
  return new Map(
    given.map(([name, basis]): [string, ReadonlyMap<string, number> | readonly number[]] => {
      const wanted = (what: unknown): GradmixError =>
        configError(
          `${label}: basis ${quote(name)}: ${show(what)} is not numbers, one per domain or by name`,
        );
      const numeric = (value: unknown): number => {
        if (typeof value !== "number") throw wanted(basis);
        return value;
      };
      if (Array.isArray(basis)) return [name, basis.map(numeric)];
      const members = membersOf(basis);
      if (members === null) throw wanted(basis);
      return [name, new Map(members.map(([domain, value]) => [domain, numeric(value)]))];
    }),
  );
}

export function checkShares(sumsToOne: boolean, value: unknown, label: string): Map<string, number> {
  if (value === "") throw configError(`${label}: is empty`);
  if (typeof value === "string")
    return checkShares(sumsToOne, readShares(value, label), `${label} (${value})`);
  const checked = checkNamed(value, label, (item, name) => {
    if (typeof item === "number" && Number.isFinite(item) && item >= 0) return item;
    throw configError(`${label}: ${quote(name)} is ${show(item)}, not a number of at least 0`);
  });
  const sum = [...checked.values()].reduce((total, x) => total + x, 0);
  if (sumsToOne && Math.abs(sum - 1) > 1e-6)
    throw configError(`${label}: the weights sum to ${Number(sum.toPrecision(9))}, not to 1`);
  if (!(sum > 0)) throw configError(`${label}: all shares are 0`);
  return checked;
}

/** Reads a JSON file of domain → number, or the recommended weights of a run's weights.json. */
function readShares(path: string, label: string): unknown {
  const json = readInput(path, `${label} ${path}`);
  const taken = json instanceof Map ? (json as ReadonlyMap<string, Json>).get(recommendedWeights) : undefined;
  return taken instanceof Map ? taken : json;
}

/** Reads JSON that a person wrote. Throws `config`, on one line, if the file cannot be read, is not JSON, or repeats a name within an object. */
export function readInput(path: string, label: string): Json {
  return parseJson(readText(path, label), { source: label });
}

/** Reads JSON that a program wrote, such as a tokenizer. Throws `config`, on one line, if the file cannot be read or is not JSON. */
export function readJson(path: string, label: string): unknown {
  return jsonOf(readText(path, label), { source: label, code: "config" });
}

/** Reads a text file. Throws `config`, on one line, if it cannot be read. */
export function readText(path: string, label: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw configError(`${label}: cannot be read (${reason(error)})`, error);
  }
}

/** The members of an object with a key per domain. Throws `config` for anything else. */
function namesOf(value: unknown, label: string): readonly (readonly [string, unknown])[] {
  const members = membersOf(value);
  if (members === null)
    throw configError(`${label}: ${show(value)} is not an object with a key for each domain`);
  return members;
}

/** The members of an object or a Map, in order; null for anything else. */
export function membersOf(value: unknown): readonly (readonly [string, unknown])[] | null {
  if (value instanceof Map) return [...(value as ReadonlyMap<string, unknown>)];
  return isObject(value) ? Object.entries(value) : null;
}

export function didYouMean(word: string, known: Iterable<string>): string {
  const best = nearest(word, known);
  return best === null ? "" : `; did you mean ${best}?`;
}

/**
 * Throws `config` if `--domains` names a path twice, under whatever name: its domains could not be told apart. `label` is the name of the option.
 */
export function checkNamedOnce(paths: readonly string[], label: string): void {
  const known = new Map<string, string>();
  for (const path of paths) {
    const real = existsSync(path) ? realpathSync(path) : path;
    const other = known.get(real);
    if (other !== undefined)
      throw configError(
        `${label}: ${path} is named twice${other === path ? "" : ` (also as ${other})`}; name it once`,
      );
    known.set(real, path);
  }
}

export function configError(message: string, cause?: unknown): GradmixError {
  return new GradmixError("config", message, cause === undefined ? {} : { cause });
}

function quote(text: string): string {
  return JSON.stringify(beginning(text, 60));
}

/** The flag of an option by its name in the code: `scaleTo` is `--scale-to`. */
export const flagOf = (name: string): string =>
  `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Formats a value for an error message, on one line of limited length. */
export function show(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number") return String(value);
  return beginning(formatJson(value), 80);
}
