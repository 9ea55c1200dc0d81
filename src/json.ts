/**
 * Reads JSON that people write: config files, bases, weights, options on the command line. If two members of an object have the same name, `JSON.parse`
 * silently keeps the last one; it also moves names that are whole numbers to the front, and its errors often have no position. Here a repeated name is
 * refused, members keep their order (objects become Maps), and every error has a line and a column.
 */
import { beginning, type ErrorCode, GradmixError } from "./errors.ts";

/**
 * A JSON value. Objects are Maps in the order of the text. Names are normalised to Unicode's composed form (NFC), so that é is the same name however it was
 * typed.
 */
export type Json = null | boolean | number | string | readonly Json[] | ReadonlyMap<string, Json>;

/** The path to a value: names of members and indices of items. */
export type JsonPath = readonly (string | number)[];

export interface JsonOptions {
  /** Name of the text in messages, such as the path of its file. */
  readonly source: string;
  /** Code of the errors. Default "config". */
  readonly code?: ErrorCode;
}

/** Largest depth of nesting; all that gradmix reads is nested less deeply. */
const MOST_DEPTH = 100;

/** Parses a text. Throws an error with source, line and column for a text that is not JSON and for an object that has two members with the same name. */
export function parseJson(text: string, options: JsonOptions): Json {
  return read(text, options, null).value;
}

/** The line number of the value at `path`, in a text that `parseJson` accepts. For a member it is the line of the member's name. */
export function jsonLine(text: string, path: JsonPath): number {
  const { line } = place(text, read(text, { source: "" }, path).at);
  return line;
}

function place(text: string, at: number): { line: number; column: number } {
  let [line, start] = [1, text.startsWith("\uFEFF") ? 1 : 0];
  for (let end = text.indexOf("\n"); end >= 0 && end < at; end = text.indexOf("\n", start)) {
    line++;
    start = end + 1;
  }
  return { line, column: at - start + 1 };
}

/** Matches the next token. Groups: a sign, a complete string, any other word, a character that begins none of these. */
const token = /[ \t\r\n]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\.)*")|([^\s{}[\],:"]+)|([^])|$)/y;

/** Parses the whole text. `at` is the offset of the value (or of the name of the member) at the path `watched`, or the length of the text if there is none. */
function read(
  text: string,
  { source, code = "config" }: JsonOptions,
  watched: JsonPath | null,
): { value: Json; at: number } {
  let kind: "sign" | "string" | "other" | "end" = "end";
  let word = "";
  let start = 0;
  let end = text.startsWith("\uFEFF") ? 1 : 0;
  let found = text.length;
  const path: (string | number)[] = [];

  const advance = (): void => {
    token.lastIndex = end;
    const [, sign, string, other, stray] = token.exec(text) ?? [];
    end = token.lastIndex;
    word = sign ?? string ?? other ?? stray ?? "";
    kind = sign !== undefined ? "sign" : string !== undefined ? "string" : word !== "" ? "other" : "end";
    start = end - word.length;
  };
  const fault = (what: string, at: number = start): GradmixError => {
    const { line, column } = place(text, at);
    return new GradmixError(code, `${source}, line ${line}, column ${column}: ${what}`);
  };
  const expected = (what: string): GradmixError => {
    if (word === '"')
      return fault("a string that is not closed, or has a line break or another control character");
    const shown = beginning(word, 60);
    return fault(
      `${what} expected, not ${kind === "end" ? "the end" : kind === "string" ? shown : JSON.stringify(shown)}`,
    );
  };
  const isSign = (sign: string): boolean => kind === "sign" && word === sign;
  const string = (): string => {
    try {
      return JSON.parse(word) as string;
    } catch {
      throw fault(`${word} has an escape that JSON does not know`);
    }
  };
  /** Reads the members of an object or a list, up to and including the closing sign. */
  const each = (close: "}" | "]", member: () => void): void => {
    if (path.length >= MOST_DEPTH) throw fault(`it is nested more than ${MOST_DEPTH} levels deep`);
    advance();
    if (!isSign(close))
      for (;;) {
        member();
        if (isSign(close)) break;
        if (!isSign(",")) throw expected(`"," or "${close}"`);
        advance();
      }
    advance();
  };
  const watch = (): void => {
    if (watched?.length === path.length && watched.every((step, i) => step === path[i])) found = start;
  };
  const object = (): Map<string, Json> => {
    const members = new Map<string, Json>();
    each("}", () => {
      if (kind !== "string") throw expected("a name in quotes");
      const name = string().normalize();
      if (members.has(name)) throw fault(`the name ${JSON.stringify(name)} appears twice in one object`);
      path.push(name);
      watch();
      advance();
      if (!isSign(":")) throw expected('":"');
      advance();
      members.set(name, value());
      path.pop();
    });
    return members;
  };
  const list = (): Json[] => {
    const items: Json[] = [];
    each("]", () => {
      path.push(items.length);
      watch();
      items.push(value());
      path.pop();
    });
    return items;
  };
  const value = (): Json => {
    if (isSign("{")) return object();
    if (isSign("[")) return list();
    const scalar = kind === "string" ? string() : kind === "other" ? scalarOf(word) : undefined;
    if (typeof scalar === "number" && !isKept(word, scalar))
      throw fault(
        Number.isFinite(scalar)
          ? `${word} would become ${scalar}, because numbers have about 16 digits; write one with fewer`
          : `${beginning(word, 60)} is too large for a number`,
      );
    if (scalar === undefined) throw expected("a value");
    advance();
    return scalar;
  };

  advance();
  watch();
  const whole = value();
  if (kind !== "end") throw expected("the end");
  return { value: whole, at: found };
}

function scalarOf(word: string): null | boolean | number | undefined {
  if (/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(word)) return Number(word);
  return word === "null" ? null : word === "true" ? true : word === "false" ? false : undefined;
}

/** Whether a number keeps the value that was written: it is not too large, and a whole number has all of its digits. */
function isKept(word: string, value: number): boolean {
  return (
    Number.isFinite(value) && (Number.isSafeInteger(value) || !/^-?\d+$/.test(word) || String(value) === word)
  );
}

/** The value with plain objects in place of Maps, for values whose members are only looked up by name. */
export function plainJson(value: Json): unknown {
  if (value instanceof Map)
    return Object.fromEntries(
      [...(value as ReadonlyMap<string, Json>)].map(([name, member]) => [name, plainJson(member)]),
    );
  return Array.isArray(value) ? (value as readonly Json[]).map(plainJson) : value;
}

/**
 * Formats plain data as JSON text. Maps become objects and keep their order. `indent` is the number of spaces per level, as in `JSON.stringify`; 0 gives one
 * line.
 */
export function formatJson(value: unknown, indent: number = 0, depth: number = 0): string {
  const members =
    value instanceof Map
      ? [...(value as ReadonlyMap<string, unknown>)]
      : Array.isArray(value) || typeof value !== "object" || value === null
        ? null
        : Object.entries(value);
  // `JSON.stringify` would write −0 as 0.
  if (Object.is(value, -0)) return "-0";
  if (members === null && !Array.isArray(value)) return JSON.stringify(value) ?? "null";
  const inner = (item: unknown): string => formatJson(item, indent, depth + 1);
  const parts =
    members === null
      ? (value as readonly unknown[]).map(inner)
      : members
          .filter(([, member]) => member !== undefined)
          .map(([name, member]) => `${JSON.stringify(name)}:${indent > 0 ? " " : ""}${inner(member)}`);
  const [open, close] = members === null ? "[]" : "{}";
  if (indent === 0 || parts.length === 0) return `${open}${parts.join(",")}${close}`;
  const [margin, last] = [depth + 1, depth].map((n) => `\n${" ".repeat(indent * n)}`);
  return `${open}${margin}${parts.join(`,${margin}`)}${last}${close}`;
}

/** A plain object, as opposed to a list, a Map or null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Map);
}
