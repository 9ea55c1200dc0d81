/**
 * Schemas of JSON that comes from outside: files of runs, heads of files of weights, messages, saved states. A schema is a function from a value to a typed one; a value that does not
 * fit is refused by its path. Schemas are made of each other:
 *
 *     const shard = object<Shard>({ file: string, tokens: count, sha256: string });
 *     const manifest = object<Manifest>({ version: version(1), domains: map(shard), target: orNull(shard) });
 *     parse(manifest, text, { source: path, code: "data" }); // "…/prepared.json: domains.code.tokens is "3", not a whole number of at least 0"
 */
import { type ErrorCode, GradmixError } from "./errors.ts";
import { isObject, type Json, parseJson, plainJson } from "./json.ts";
import { nearest } from "./nearest.ts";
import { show } from "./options.ts";

/** Throws what `misfit` and `problem` make of the place. A member that is not there is `undefined`. */
export type Schema<T> = (value: unknown, at: Place) => T;

/** Where a value stands: a member of an object, an item of a list, or the whole. */
export interface Place {
  readonly fault: Fault;
  /** null for the whole. */
  readonly parent: Place | null;
  readonly name: string | number;
}

/** The error for what stands at `path` ("" for the whole) and has a problem, which begins with a verb: "is 3, not a string". */
export type Fault = (path: string, problem: string) => GradmixError;

/** What JSON was read from. */
export interface Source {
  /** What messages call it, such as the path of its file. */
  readonly source: string;
  readonly code: ErrorCode;
  /** The part of it that is JSON, such as "header". */
  readonly part?: string;
  /** What to do about a misfit, such as "prepare the text again". */
  readonly advice?: string;
}

/** The errors of a file: its path, the path in it, the problem, the advice. */
export function faultOf({ source, code, part, advice }: Source): Fault {
  return (path, what) => {
    const place = [part, path].filter((name) => name !== undefined && name !== "").join(".");
    return new GradmixError(
      code,
      `${source}: ${place === "" ? "" : `${place} `}${what}${advice === undefined ? "" : `; ${advice}`}`,
    );
  };
}

/** A value of `JSON.parse` or `parseJson` as its schema says. */
export function read<T>(schema: Schema<T>, value: unknown, fault: Fault): T {
  return schema(value, { fault, parent: null, name: "" });
}

/** The same of a text or of bytes in UTF-8 that a program wrote: by `JSON.parse`, which is fast and takes the last of two members of one name. */
export function parse<T>(schema: Schema<T>, text: string | Uint8Array, source: Source): T {
  return read(schema, jsonOf(text, source), faultOf(source));
}

/** The same of a text whose names keep their order, and stand once in an object: by `parseJson`. */
export function parseOrdered<T>(schema: Schema<T>, text: string, source: Source): T {
  return read(schema, parseJson(text, source), faultOf(source));
}

/** The JSON of a text or of bytes in UTF-8 that a program wrote, a byte order mark before it or not. */
export function jsonOf(text: string | Uint8Array, source: Source): unknown {
  let decoded: string | null = null;
  try {
    decoded = typeof text === "string" ? text : new TextDecoder("utf-8", { fatal: true }).decode(text);
    return JSON.parse(decoded.replace(/^\uFEFF/, "")) as unknown;
  } catch (cause) {
    const { message } = faultOf(source)("", `is not JSON (${reason(cause, decoded)})`);
    throw new GradmixError(source.code, message, { cause });
  }
}

/** The JSON of a text that may be none, such as the last line of a file that a process was writing: undefined where it is not JSON. */
export function jsonOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Why `JSON.parse` failed, with line and column where the engine tells the position. */
function reason(error: unknown, text: string | null): string {
  if (text === null) return "it is not UTF-8";
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ");
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined || message.includes("line ")) return message;
  const before = text.slice(0, Number(position)).split("\n");
  return `${message}, line ${before.length} column ${(before.at(-1)?.length ?? 0) + 1}`;
}

/** The place of a member or an item. */
export function inside(parent: Place, name: string | number): Place {
  return { fault: parent.fault, parent, name };
}

/** What is wrong with what stands at a place, in words that begin with a verb. */
export function problem(at: Place, what: string): GradmixError {
  return at.fault(pathOf(at), what);
}

/** A value that is not what is wanted there. */
export function misfit(value: unknown, at: Place, wanted: string): GradmixError {
  return problem(
    at,
    value === undefined ? `is missing; it must be ${wanted}` : `is ${shown(value)}, not ${wanted}`,
  );
}

/** Longer words are shown in part, and nobody has mistyped them. */
const LONGEST_SHOWN = 80;

const cut = (text: string): string =>
  text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;

/** A value in a few words on one line. */
export function shown(value: unknown): string {
  return cut(show(value));
}

/** A name as a part of a path, on one line and not endless. */
export function step(name: string | number): string {
  return typeof name === "string" && /[\p{Cc}\u2028\u2029]/u.test(name)
    ? cut(JSON.stringify(name))
    : cut(String(name));
}

function pathOf({ parent, name }: Place): string {
  if (parent === null) return "";
  const before = pathOf(parent);
  return before === "" ? step(name) : `${before}.${step(name)}`;
}

/** The nearest of the known names to one that is none of them; `otherwise` where none is near. */
export function suggestion(word: string, known: readonly string[], otherwise: string): string {
  const close = word.length > LONGEST_SHOWN ? null : nearest(word, known);
  return close === null ? otherwise : `did you mean "${close}"?`;
}

/** Any value, checked elsewhere or not at all. */
export const anything: Schema<unknown> = (value) => value;

/** A value for which `fits` holds; `wanted` says in messages what it must be. */
export function valueThat<T>(wanted: string, fits: (value: unknown) => value is T): Schema<T> {
  return (value, at) => {
    if (!fits(value)) throw misfit(value, at, wanted);
    return value;
  };
}

/** An object, not a Map, whose members are checked elsewhere. */
export const plainObject: Schema<Readonly<Record<string, unknown>>> = (value, at) => {
  const found = value instanceof Map ? plainJson(value as ReadonlyMap<string, Json>) : value;
  if (!isObject(found)) throw misfit(value, at, "an object");
  return found;
};
export const string: Schema<string> = valueThat("a string", (value) => typeof value === "string");
export const boolean: Schema<boolean> = valueThat("true or false", (value) => typeof value === "boolean");

/** A finite number, from `min` on where there is one, or above it. */
export function numberFrom(min: number, end: "included" | "open" = "included"): Schema<number> {
  const bound = min === -Infinity ? "" : end === "open" ? ` above ${min}` : ` of at least ${min}`;
  return valueThat(
    `a finite number${bound}`,
    (value): value is number =>
      typeof value === "number" && Number.isFinite(value) && (end === "open" ? value > min : value >= min),
  );
}

export const number: Schema<number> = numberFrom(-Infinity);

/** A whole number that a double holds exactly. */
export function integerFrom(min: number): Schema<number> {
  return valueThat(
    `a whole number of at least ${min}`,
    (value): value is number => Number.isSafeInteger(value) && (value as number) >= min,
  );
}

/** A number of things. */
export const count: Schema<number> = integerFrom(0);

/** One of a few values. */
export function oneOf<const V extends string | number | boolean | null>(...values: readonly V[]): Schema<V> {
  const wanted = values.map(show).join(" or ");
  return (value, at) => {
    const found = values.find((known) => known === value);
    if (found === undefined) throw misfit(value, at, wanted);
    return found;
  };
}

/** The version of a layout; `advice` is what to do with a file of another one. */
export function version<const V extends number>(known: V, advice: string): Schema<V> {
  return (value, at) => {
    if (value !== known)
      throw value === undefined
        ? misfit(value, at, String(known))
        : problem(at, `is ${shown(value)}, and this gradmix reads ${known}; ${advice}`);
    return known;
  };
}

/** null, or what the schema reads. */
export function nullable<T>(schema: Schema<T>): Schema<T | null> {
  return (value, at) => (value === null ? null : schema(value, at));
}

/** The same, and null for what is left out. */
export function orNull<T>(schema: Schema<T>): Schema<T | null> {
  return (value, at) => (value === null || value === undefined ? null : schema(value, at));
}

/** What is read where a member is left out. */
export function withDefault<T, D>(schema: Schema<T>, otherwise: D): Schema<T | D> {
  return (value, at) => (value === undefined ? otherwise : schema(value, at));
}

/** The schema of a member that may be left out, or null, which says the same. */
export type Optional<T> = Schema<T> & { readonly optional: true };

export function optional<T>(schema: Schema<T>): Optional<T> {
  return Object.assign(
    // `object` leaves out what is undefined.
    (value: unknown, at: Place) =>
      (value === null || value === undefined ? undefined : schema(value, at)) as T,
    { optional: true as const },
  );
}

/** A string or a number. */
export const stringOrNumber: Schema<string | number> = (value, at) => {
  if (typeof value !== "string" && !(typeof value === "number" && Number.isFinite(value)))
    throw misfit(value, at, "a string or a finite number");
  return value;
};

/** A condition on what a schema has read: a problem ("sums to 2, not to 1"), or null. */
export function where<T>(schema: Schema<T>, fault: (value: T) => string | null): Schema<T> {
  return (value, at) => {
    const found = schema(value, at);
    const what = fault(found);
    if (what !== null) throw problem(at, what);
    return found;
  };
}

/** Something else made of what a schema has read. */
export function made<T, U>(schema: Schema<T>, make: (value: T) => U): Schema<U> {
  return (value, at) => make(schema(value, at));
}

/** A row per member: what is added to the type without a schema does not compile. */
export type Fields<T> = {
  readonly [K in keyof T]-?: object extends Pick<T, K> ? Optional<T[K]> : Schema<T[K]>;
};

/** An object with these members; others are passed over. */
export function object<T>(fields: Fields<T>): Schema<T> {
  const rows = Object.entries<Schema<unknown>>(fields);
  return (value, at) => {
    const get = getter(value, at);
    const out: Record<string, unknown> = {};
    for (const [name, schema] of rows) {
      const found = schema(get(name), inside(at, name));
      if (found !== undefined) out[name] = found;
    }
    return out as T;
  };
}

/** An object with these members and no others. */
export function closed<T>(fields: Fields<T>): Schema<T> {
  const [names, schema] = [onlyNames(Object.keys(fields)), object(fields)];
  return (value, at) => schema(names(value, at), at);
}

/** An object, not a Map, whose members have some of these names; for another one the nearest is offered. */
export function onlyNames(known: readonly string[]): Schema<Readonly<Record<string, unknown>>> {
  return (value, at) => {
    const found = plainObject(value, at);
    const stranger = Object.keys(found).find((name) => !known.includes(name));
    if (stranger === undefined) return found;
    const hint = suggestion(
      stranger,
      known,
      known.length === 0 ? "there are none" : `there are ${known.join(", ")}`,
    );
    throw problem(inside(at, stranger), `is an unknown field; ${hint}`);
  };
}

function getter(value: unknown, at: Place): (name: string) => unknown {
  if (value instanceof Map) return (name) => value.get(name) as unknown;
  if (!isObject(value)) throw misfit(value, at, "an object");
  // "constructor" and the like are members only where the text has them.
  return (name) => (Object.hasOwn(value, name) ? value[name] : undefined);
}

/** Names and values of an object, in its order. */
export function membersOf(
  value: unknown,
  at: Place,
  wanted = "an object",
): Iterable<readonly [string, unknown]> {
  if (value instanceof Map) return value as ReadonlyMap<string, unknown>;
  if (!isObject(value)) throw misfit(value, at, wanted);
  return Object.entries(value);
}

/** An object as a Map. The order is that of the text where `parseJson` has read it; `JSON.parse` puts names that are whole numbers first. */
export function map<T>(schema: Schema<T>): Schema<ReadonlyMap<string, T>> {
  return (value, at) =>
    new Map(Array.from(membersOf(value, at), ([name, member]) => [name, schema(member, inside(at, name))]));
}

/** A list; of `length` items, if that is given. */
export function list<T>(schema: Schema<T>, length: number | null = null): Schema<readonly T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw misfit(value, at, length === null ? "a list" : `a list of ${length}`);
    if (length !== null && value.length !== length)
      throw problem(at, `has ${value.length} items, not ${length}`);
    return value.map((item: unknown, i) => schema(item, inside(at, i)));
  };
}

/** A list of two. */
export function pair<A, B>(first: Schema<A>, second: Schema<B>): Schema<readonly [A, B]> {
  return (value, at) => {
    const [a, b] = list(anything, 2)(value, at);
    return [first(a, inside(at, 0)), second(b, inside(at, 1))];
  };
}

/** A list with an item for each schema. */
export function tuple<T>(schemas: readonly Schema<T>[]): Schema<readonly T[]> {
  return (value, at) =>
    list(anything, schemas.length)(value, at).map((item, i) => schemas[i]!(item, inside(at, i)));
}

/** A list with an item for each name, by which the paths in it go. */
export function listFor<T>(names: readonly string[], schema: Schema<T>): Schema<readonly T[]> {
  return (value, at) => {
    const items = list(anything, names.length)(value, at);
    return items.map((item, i) => schema(item, inside(at, names[i]!)));
  };
}
