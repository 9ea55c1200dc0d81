/**
 * One option's value: from text on the command line or JSON in a config file to a checked value. Every error names
 * the option as the user wrote it, the value, and what is allowed.
 */
import { readFileSync } from "node:fs";
import { GradmixError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { Kind } from "./options.ts";

/** A value as the command line gives it: all arguments of a repeated flag, or a switch. */
export type Raw = readonly string[] | boolean;

/** What a flag's arguments say, in the form that a config file would hold. `label` is the flag. */
export function fromArguments(kind: Kind, raw: Raw, label: string): unknown {
  if (typeof raw === "boolean") return raw;
  const last = raw.at(-1) ?? "";
  switch (kind.type) {
    case "integer":
    case "number":
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(last) ? Number(last) : last;
    case "globs":
      return raw;
    case "domains":
      return gather(raw, label);
    case "shares":
      return last.includes("=") ? shares(last, label) : last;
    case "json":
      return parse(last, label);
    case "bytes":
    case "choice":
    case "text":
    case "file":
    case "switch":
      return last;
  }
}

function gather(raw: readonly string[], label: string): Record<string, string[]> {
  const domains: Record<string, string[]> = {};
  for (const item of raw) {
    const [name, glob] = split(item, label, "NAME=GLOB, for example code='src/**/*.ts'");
    domains[name] = [...(Object.hasOwn(domains, name) ? (domains[name] ?? []) : []), glob];
  }
  return domains;
}

function shares(text: string, label: string): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const item of text.split(",")) {
    const [name, value] = split(item, label, "NAME=X,NAME=X, for example code=0.7,prose=0.3");
    if (Object.hasOwn(out, name)) throw wrong(`${label}: names the domain ${quote(name)} twice`);
    out[name] = value.trim() === "" ? value : Number(value);
  }
  return out;
}

function split(item: string, label: string, form: string): [string, string] {
  const at = item.indexOf("=");
  if (at < 1 || at === item.length - 1) throw wrong(`${label}: ${quote(item)} is not of the form ${form}`);
  return [item.slice(0, at), item.slice(at + 1)];
}

/** Checks `value` and gives it in the form that `TrainConfig` holds. `label` says where it was found. */
export function checkValue(kind: Kind, value: unknown, label: string): unknown {
  switch (kind.type) {
    case "integer":
    case "number":
      return checkNumber(kind, value, label);
    case "bytes":
      return checkNumber({ ...kind, type: "integer" }, bytes(value, label), label);
    case "choice":
      if (typeof value === "string" && kind.choices.includes(value)) return value;
      throw wrong(
        `${label}: ${show(value)} is not one of ${kind.choices.join(", ")}${typeof value === "string" ? didYouMean(value, kind.choices) : ""}`,
      );
    case "file":
      return isObject(value) ? value : checkValue({ type: "text" }, value, label);
    case "text":
      if (typeof value === "string" && value !== "") return value;
      throw wrong(`${label}: ${value === "" ? "is empty" : `${show(value)} is not a text`}`);
    case "switch":
      if (typeof value === "boolean") return value;
      throw wrong(`${label}: ${show(value)} is not true or false`);
    case "globs":
      return checkGlobs(value, label);
    case "domains":
      return checkRecord(value, label, (globs, name) => checkGlobs(globs, `${label} ${quote(name)}`));
    case "shares":
      return checkShares(kind.sumsToOne, value, label);
    case "json":
      if (kind.shape === "object" ? isObject(value) : Array.isArray(value) && value.every(isObject))
        return value;
      throw wrong(
        `${label}: ${show(value)} is not ${kind.shape === "object" ? "a JSON object" : "a JSON list of objects"}`,
      );
  }
}

function checkNumber(kind: Kind & { type: "integer" | "number" }, value: unknown, label: string): number {
  const { min, max, openMin = false, openMax = false } = kind;
  const fits =
    typeof value === "number" &&
    (kind.type === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value)) &&
    (openMin ? value > min : value >= min) &&
    (openMax ? value < max : value <= max);
  if (fits) return value;
  const what = kind.type === "integer" ? "a whole number" : "a number";
  const lower = openMin ? `above ${min}` : `at least ${min}`;
  const upper = max > 2 ** 30 ? "" : openMax ? ` and below ${max}` : ` and at most ${max}`;
  throw wrong(`${label}: ${show(value)} is not ${what} ${lower}${upper}`);
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
    throw wrong(`${label}: ${quote(value)} is not a size such as 1000000, 512MiB or 2GiB`);
  return Math.floor(Number(match[1]) * unit);
}

function checkGlobs(value: unknown, label: string): string[] {
  const globs: unknown[] = Array.isArray(value) ? value : [value];
  return globs.map((glob) => {
    if (typeof glob !== "string" || glob === "")
      throw wrong(`${label}: ${show(glob)} is not a glob, such as "texts/**/*.md"`);
    return glob;
  });
}

function checkRecord<V>(
  value: unknown,
  label: string,
  check: (item: unknown, name: string) => V,
): Record<string, V> {
  if (!isObject(value)) throw wrong(`${label}: ${show(value)} is not an object with a key for each domain`);
  const out: Record<string, V> = {};
  for (const [name, item] of Object.entries(value)) {
    if (!/^[\p{L}\p{N}][\p{L}\p{N}_. -]*$/u.test(name))
      throw wrong(
        `${label}: ${quote(name)} is not a name for a domain: letters, digits, "_", "-", "." and spaces`,
      );
    out[name] = check(item, name);
  }
  return out;
}

function checkShares(sumsToOne: boolean, value: unknown, label: string): Record<string, number> {
  if (typeof value === "string")
    return checkShares(sumsToOne, readShares(value, label), `${label} (${value})`);
  const checked = checkRecord(value, label, (item, name) => {
    if (typeof item === "number" && Number.isFinite(item) && item >= 0) return item;
    throw wrong(`${label}: ${quote(name)} is ${show(item)}, not a number of at least 0`);
  });
  const sum = Object.values(checked).reduce((total, x) => total + x, 0);
  if (sumsToOne && Math.abs(sum - 1) > 1e-6)
    throw wrong(`${label}: the weights sum to ${Number(sum.toPrecision(9))}, not to 1`);
  if (!(sum > 0)) throw wrong(`${label}: all shares are 0`);
  return checked;
}

/** A JSON file of domain → number, or a run's weights.json, of which the averaged weights are taken. */
function readShares(path: string, label: string): unknown {
  const json = readJson(path, `${label} ${path}`);
  return isObject(json) && isObject(json["averaged"]) ? json["averaged"] : json;
}

/** Throws `config`, on one line, when the file cannot be read or is not JSON. */
export function readJson(path: string, label: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw wrong(`${label}: cannot be read (${reason(error)})`, error);
  }
  return parse(text, label);
}

function parse(text: string, label: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, "")) as unknown;
  } catch (error) {
    throw wrong(`${label}: is not JSON (${jsonReason(error, text)})`, error);
  }
}

/** The reason of a JSON.parse failure, with line and column where the engine tells the position. */
function jsonReason(error: unknown, text: string): string {
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ");
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined || message.includes("line ")) return message;
  const before = text.slice(0, Number(position)).split("\n");
  return `${message}, line ${before.length} column ${(before.at(-1)?.length ?? 0) + 1}`;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EISDIR: "it is a folder",
  ENOTDIR: "a part of the path is not a folder",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file is too large",
  EMFILE: "too many open files",
  EIO: "input/output error",
  EAGAIN: "nobody reads it",
  ENOMEM: "no memory is left",
};

/** A file-system error in words. */
export function reason(error: unknown): string {
  const code = errorCode(error);
  return code === "" ? String(error) : reasonOf(code);
}

/** The system's code of an error in words. */
export function reasonOf(code: string): string {
  return reasons[code] ?? code;
}

export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function didYouMean(word: string, known: Iterable<string>): string {
  const best = nearest(word, known);
  return best === null ? "" : `; did you mean ${best}?`;
}

export function wrong(message: string, cause?: unknown): GradmixError {
  return new GradmixError("config", message, cause === undefined ? {} : { cause });
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

/** A value in an error message, on one line and not endless. */
export function show(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
