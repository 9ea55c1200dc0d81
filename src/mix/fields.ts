/** Reads the fields of a message: each is checked by itself, and a complaint names it by its path. */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { nearest } from "../nearest.ts";
import { show } from "../options.ts";

/** What is wrong with a message, and with which field of it. */
export class MessageError extends GradmixError {
  /** Path of the field, such as "alignments.code"; null for the whole message. */
  readonly field: string | null;
  constructor(field: string | null, message: string, options?: ErrorOptions) {
    super("data", message, options);
    this.name = "MessageError";
    this.field = field;
  }
}

/** Longer words are shown in part, and nobody has mistyped them. */
const LONGEST_SHOWN = 80;

/** A value in a message, in a few words on one line. */
export function shown(value: unknown): string {
  const text = show(value);
  return text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
}

export function pathOf(field: string, name: string): string {
  return `${field}.${name.length > LONGEST_SHOWN ? `${name.slice(0, LONGEST_SHOWN)}…` : name}`;
}

export function suggestion(word: string, known: readonly string[], otherwise: string): string {
  const close = word.length > LONGEST_SHOWN ? null : nearest(word, known);
  return close === null ? otherwise : `did you mean "${close}"?`;
}

/** The members of an object. Throws for anything else. */
export function membersOf(value: unknown, field: string | null, what: string): [string, unknown][] {
  if (!isObject(value)) throw new MessageError(field, `${shown(value)} is not ${what}`);
  return Object.entries(value);
}

/** Throws at the first member that is none of `known`. */
export function checkNames(
  members: readonly [string, unknown][],
  known: readonly string[],
  at: string,
): void {
  const stranger = members.find(([name]) => !known.includes(name))?.[0];
  if (stranger === undefined) return;
  const hint = suggestion(stranger, known, `there are ${known.join(", ")}`);
  throw new MessageError(
    at === "" ? pathOf("", stranger).slice(1) : pathOf(at, stranger),
    `there is no such field; ${hint}`,
  );
}

/** Domains, or targets, with their places. */
export interface Names {
  readonly kind: "domain" | "target";
  readonly list: readonly string[];
  readonly places: ReadonlyMap<string, number>;
}

export function namesOf(list: readonly string[], kind: Names["kind"] = "domain"): Names {
  return { kind, list, places: new Map(list.map((name, i) => [name, i])) };
}

/** Where a name stands. Throws for an unknown one, offering the nearest. */
export function placeOf(name: string, field: string, { kind, list, places }: Names): number {
  const place = places.get(name);
  if (place !== undefined) return place;
  const few = list.length <= 20 ? `the ${kind}s are ${list.join(", ")}` : `there are ${list.length}`;
  throw new MessageError(pathOf(field, name), `there is no such ${kind}; ${suggestion(name, list, few)}`);
}

/** Bounds of numbers; finite they are all. */
export interface Bounds {
  readonly min?: number;
  /** The least number itself does not fit. */
  readonly openMin?: boolean;
}

/** `name` is the member of `field` that the number stands at. */
export function numberOf(
  value: unknown,
  field: string,
  { min = -Infinity, openMin = false }: Bounds = {},
  name?: string,
): number {
  if (typeof value === "number" && Number.isFinite(value) && (openMin ? value > min : value >= min))
    return value;
  const what =
    min === -Infinity ? "a finite number" : `a finite number ${openMin ? "above" : "of at least"} ${min}`;
  throw new MessageError(name === undefined ? field : pathOf(field, name), `${shown(value)} is not ${what}`);
}

export function integerOf(value: unknown, field: string, min: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= min) return value;
  throw new MessageError(field, `${shown(value)} is not a whole number of at least ${min}`);
}

export function booleanOf(value: unknown, field: string): boolean {
  if (typeof value === "boolean") return value;
  throw new MessageError(field, `${shown(value)} is not true or false`);
}

/** Numbers by name, in the names' order; NaN for what is missing or null. */
export function numbersOf(value: unknown, field: string, names: Names, bounds: Bounds = {}): Float64Array {
  const out = new Float64Array(names.list.length).fill(NaN);
  const what = Array.isArray(value)
    ? `an object: numbers are told by ${names.kind}, as {"${names.list[0] ?? ""}": …}, not by position`
    : `an object with numbers by ${names.kind}`;
  if (!isObject(value)) throw new MessageError(field, `${shown(value)} is not ${what}`);
  // Without a pair for each member: this is most of what a long message costs.
  for (const name of Object.keys(value)) {
    const number = value[name];
    const place = placeOf(name, field, names);
    if (number !== null) out[place] = numberOf(number, field, bounds, name);
  }
  return out;
}

/** The same, where every name needs a number. */
export function allNumbersOf(value: unknown, field: string, names: Names, bounds: Bounds = {}): Float64Array {
  const out = numbersOf(value, field, names, bounds);
  const missing = out.findIndex((number) => Number.isNaN(number));
  if (missing >= 0)
    throw new MessageError(
      pathOf(field, names.list[missing]!),
      `it is missing; every ${names.kind} needs a number here`,
    );
  return out;
}

export function byName(names: readonly string[], values: ArrayLike<number>): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [i, name] of names.entries()) {
    const value = values[i]!;
    // Assigned to, it would be no member.
    if (name === "__proto__")
      Object.defineProperty(out, name, { value, enumerable: true, writable: true, configurable: true });
    else out[name] = value;
  }
  return out;
}
