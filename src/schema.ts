/**
 * Schemas of JSON from outside: files of runs, headers of weight files, messages, saved states. A schema is a function that checks a value and returns it with
 * its type; the error for a value that does not fit names its path. Schemas are built from other schemas:
 *
 *     const shard = object<Shard>({ file: string, tokens: count, sha256: string });
 *     const manifest = object<Manifest>({ version: version(1), domains: map(shard), target: orNull(shard) });
 *     parse(manifest, text, { source: path, code: "data" }); // "…/prepared.json: domains.code.tokens is "3", not a whole number of at least 0"
 */
import { beginning, type ErrorCode, GradmixError } from "./errors.ts";
import { isObject, type Json, parseJson, plainJson } from "./json.ts";
import { nearest } from "./nearest.ts";
import { show } from "./options.ts";

/** Checks a value and returns it with its type; a missing member is passed as `undefined`. Throws the error that `misfit` or `problem` makes for the place. */
export type Schema<T> = (value: unknown, at: Place) => T;

/** The place of a value: a member of an object, an item of a list, or the whole value. */
export interface Place {
  /** Makes the errors for this place. */
  readonly fault: Fault;
  /** Place of the object or list that contains the value; null for the whole value. */
  readonly parent: Place | null;
  /** Name of the member or index of the item; "" for the whole value. */
  readonly name: string | number;
}

/** Makes the error for the value at `path` ("" for the whole value). `problem` describes what does not fit and begins with a verb: "is 3, not a string". */
export type Fault = (path: string, problem: string) => GradmixError;

/** The origin of a JSON text, for its errors. */
export interface Source {
  /** Name of the origin in messages, such as the path of a file. */
  readonly source: string;
  /** Code of the errors. */
  readonly code: ErrorCode;
  /** The part of the file that is JSON, such as "header". Default: the whole file. */
  readonly part?: string;
  /** What the user can do about an error, such as "prepare the text again". Default: no advice. */
  readonly advice?: string;
}

/** The errors of a source. Their messages contain the source, the path in it, the problem and the advice. */
export function faultOf({ source, code, part, advice }: Source): Fault {
  return (path, what) => {
    const place = [part, path].filter((name) => name !== undefined && name !== "").join(".");
    return new GradmixError(
      code,
      `${source}: ${place === "" ? "" : `${place} `}${what}${advice === undefined ? "" : `; ${advice}`}`,
    );
  };
}

/** Checks a value that `JSON.parse` or `parseJson` returned, and returns it with its type. */
export function read<T>(schema: Schema<T>, value: unknown, fault: Fault): T {
  return schema(value, { fault, parent: null, name: "" });
}

/** Parses and checks a text, or bytes in UTF-8, that a program wrote. Uses `JSON.parse`, which is fast and keeps the last of two members with the same name. */
export function parse<T>(schema: Schema<T>, text: string | Uint8Array, source: Source): T {
  return read(schema, jsonOf(text, source), faultOf(source));
}

/** Parses and checks a text with `parseJson`, which keeps the order of names and refuses a name that is repeated in an object. */
export function parseOrdered<T>(schema: Schema<T>, text: string, source: Source): T {
  return read(schema, parseJson(text, source), faultOf(source));
}

/**
 * Parses a text, or bytes in UTF-8, that a program wrote, without a check; a byte order mark is ignored. Throws an error with the code of the source for a
 * text that is not JSON.
 */
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

/** Parses a text that may be incomplete, such as the last line of a file that a process is writing; undefined if it is not JSON. */
export function jsonOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Why `JSON.parse` failed, with line and column if the engine's message has the position. `text` is null for bytes that are not UTF-8. */
function reason(error: unknown, text: string | null): string {
  if (text === null) return "it is not UTF-8";
  const message = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ");
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined || message.includes("line ")) return message;
  const before = text.slice(0, Number(position)).split("\n");
  return `${message}, line ${before.length} column ${(before.at(-1)?.length ?? 0) + 1}`;
}

/** The place of a member or an item of the value at `parent`. */
export function inside(parent: Place, name: string | number): Place {
  return { fault: parent.fault, parent, name };
}

/** Makes the error for the value at a place. `what` describes the problem and begins with a verb. */
export function problem(at: Place, what: string): GradmixError {
  return at.fault(pathOf(at), what);
}

/** Makes the error for a value that does not fit or is missing. `wanted` describes values that fit. */
export function misfit(value: unknown, at: Place, wanted: string): GradmixError {
  return problem(
    at,
    value === undefined ? `is missing; it must be ${wanted}` : `is ${shown(value)}, not ${wanted}`,
  );
}

/** Longer texts are cut in messages, and get no suggestion. */
const LONGEST_SHOWN = 80;

const cut = (text: string): string => beginning(text, LONGEST_SHOWN);

/** A short description of a value on one line. */
export function shown(value: unknown): string {
  return cut(show(value));
}

/** A name as a part of a path. A name with control characters or line separators is quoted, and long names are cut. */
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

/** A hint for an unknown name: the nearest known name, or `otherwise` if none is near. */
export function suggestion(word: string, known: readonly string[], otherwise: string): string {
  const close = word.length > LONGEST_SHOWN ? null : nearest(word, known);
  return close === null ? otherwise : `did you mean "${close}"?`;
}

/** Accepts any value, including `undefined`, and returns it unchanged. */
export const anything: Schema<unknown> = (value) => value;

/** Accepts a value for which `fits` returns true. `wanted` describes such values in messages. */
export function valueThat<T>(wanted: string, fits: (value: unknown) => value is T): Schema<T> {
  return (value, at) => {
    if (!fits(value)) throw misfit(value, at, wanted);
    return value;
  };
}

/** Accepts an object and returns it as a plain object, also if it is a Map; its members are checked elsewhere. */
export const plainObject: Schema<Readonly<Record<string, unknown>>> = (value, at) => {
  const found = value instanceof Map ? plainJson(value as ReadonlyMap<string, Json>) : value;
  if (!isObject(found)) throw misfit(value, at, "an object");
  return found;
};
export const string: Schema<string> = valueThat("a string", (value) => typeof value === "string");
export const boolean: Schema<boolean> = valueThat("true or false", (value) => typeof value === "boolean");

/** Accepts a finite number of at least `min`, or above `min` if the end is "open". With `min` −Infinity every finite number is accepted. */
export function numberFrom(min: number, end: "included" | "open" = "included"): Schema<number> {
  const bound = min === -Infinity ? "" : end === "open" ? ` above ${min}` : ` of at least ${min}`;
  return valueThat(
    `a finite number${bound}`,
    (value): value is number =>
      typeof value === "number" && Number.isFinite(value) && (end === "open" ? value > min : value >= min),
  );
}

export const number: Schema<number> = numberFrom(-Infinity);

/** Accepts a safe integer of at least `min`. */
export function integerFrom(min: number): Schema<number> {
  return valueThat(
    `a whole number of at least ${min}`,
    (value): value is number => Number.isSafeInteger(value) && (value as number) >= min,
  );
}

/** Accepts a safe integer of at least 0. */
export const count: Schema<number> = integerFrom(0);

/** Accepts one of the given values. */
export function oneOf<const V extends string | number | boolean | null>(...values: readonly V[]): Schema<V> {
  const wanted = values.map(show).join(" or ");
  return (value, at) => {
    const found = values.find((known) => known === value);
    if (found === undefined) throw misfit(value, at, wanted);
    return found;
  };
}

/** Accepts the version number of a layout. `advice` is what the user can do with a file of another version. */
export function version<const V extends number>(known: V, advice: string): Schema<V> {
  return (value, at) => {
    if (value !== known)
      throw value === undefined
        ? misfit(value, at, String(known))
        : problem(at, `is ${shown(value)}, and this gradmix reads ${known}; ${advice}`);
    return known;
  };
}

/** Accepts null, and what the schema accepts. A missing value is passed to the schema. */
export function nullable<T>(schema: Schema<T>): Schema<T | null> {
  return (value, at) => (value === null ? null : schema(value, at));
}

/** Accepts what the schema accepts, and returns null for null and for a missing value. */
export function orNull<T>(schema: Schema<T>): Schema<T | null> {
  return (value, at) => (value === null || value === undefined ? null : schema(value, at));
}

/** Accepts what the schema accepts, and returns `otherwise` for a missing value. */
export function withDefault<T, D>(schema: Schema<T>, otherwise: D): Schema<T | D> {
  return (value, at) => (value === undefined ? otherwise : schema(value, at));
}

/** The schema of a member that may be missing or null; both mean the same. */
export type Optional<T> = Schema<T> & { readonly optional: true };

/** Makes a member optional: `object` leaves it out of its result if it is missing or null. */
export function optional<T>(schema: Schema<T>): Optional<T> {
  return Object.assign(
    // `object` leaves out members whose schema returns undefined.
    (value: unknown, at: Place) =>
      (value === null || value === undefined ? undefined : schema(value, at)) as T,
    { optional: true as const },
  );
}

/** Accepts a string or a finite number. */
export const stringOrNumber: Schema<string | number> = (value, at) => {
  if (typeof value !== "string" && !(typeof value === "number" && Number.isFinite(value)))
    throw misfit(value, at, "a string or a finite number");
  return value;
};

/** Adds a condition to a schema. `fault` returns the problem of a value, such as "sums to 2, not to 1", or null if there is none. */
export function where<T>(schema: Schema<T>, fault: (value: T) => string | null): Schema<T> {
  return (value, at) => {
    const found = schema(value, at);
    const what = fault(found);
    if (what !== null) throw problem(at, what);
    return found;
  };
}

/** Applies `make` to the value that a schema returns. */
export function converted<T, U>(schema: Schema<T>, make: (value: T) => U): Schema<U> {
  return (value, at) => make(schema(value, at));
}

/** One schema per member. A member that is added to the type without a schema does not compile. */
export type Fields<T> = {
  readonly [K in keyof T]-?: object extends Pick<T, K> ? Optional<T[K]> : Schema<T[K]>;
};

/** Accepts an object, or a Map, with these members; other members are ignored. */
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

/** Accepts an object with these members and no others. */
export function closed<T>(fields: Fields<T>): Schema<T> {
  const [names, schema] = [onlyNames(Object.keys(fields)), object(fields)];
  return (value, at) => schema(names(value, at), at);
}

/** Accepts an object whose members all have known names, and returns it as a plain object. The error for another name suggests the nearest known one. */
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
  // Inherited names such as "constructor" are not members.
  return (name) => (Object.hasOwn(value, name) ? value[name] : undefined);
}

/** The names and values of an object or a Map, in its order. Throws if the value is neither; `wanted` describes what fits. */
export function membersOf(
  value: unknown,
  at: Place,
  wanted = "an object",
): Iterable<readonly [string, unknown]> {
  if (value instanceof Map) return value as ReadonlyMap<string, unknown>;
  if (!isObject(value)) throw misfit(value, at, wanted);
  return Object.entries(value);
}

/**
 * Accepts an object whose members all fit the schema, and returns a Map. It has the order of the text if `parseJson` read it; `JSON.parse` moves names that
 * are whole numbers to the front.
 */
export function map<T>(schema: Schema<T>): Schema<ReadonlyMap<string, T>> {
  return (value, at) =>
    new Map(Array.from(membersOf(value, at), ([name, member]) => [name, schema(member, inside(at, name))]));
}

/** Accepts a list whose items all fit the schema. If `length` is not null, the list must have that many items. */
export function list<T>(schema: Schema<T>, length: number | null = null): Schema<readonly T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw misfit(value, at, length === null ? "a list" : `a list of ${length}`);
    if (length !== null && value.length !== length)
      throw problem(at, `has ${value.length} items, not ${length}`);
    return value.map((item: unknown, i) => schema(item, inside(at, i)));
  };
}

/** Accepts a list of two items, with a schema for each. */
export function pair<A, B>(first: Schema<A>, second: Schema<B>): Schema<readonly [A, B]> {
  return (value, at) => {
    const [a, b] = list(anything, 2)(value, at);
    return [first(a, inside(at, 0)), second(b, inside(at, 1))];
  };
}

/** Accepts a list with one item per schema. */
export function tuple<T>(schemas: readonly Schema<T>[]): Schema<readonly T[]> {
  return (value, at) =>
    list(anything, schemas.length)(value, at).map((item, i) => schemas[i]!(item, inside(at, i)));
}

/** Accepts a list with one item per name. Errors name an item by its name instead of its index. */
export function listFor<T>(names: readonly string[], schema: Schema<T>): Schema<readonly T[]> {
  return (value, at) => {
    const items = list(anything, names.length)(value, at);
    return items.map((item, i) => schema(item, inside(at, names[i]!)));
  };
}
