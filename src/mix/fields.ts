/** Reads the fields of messages: errors that name a field by its path, and objects with one number per domain. */
import { GradmixError, PlacedError } from "../errors.ts";
import { isObject } from "../json.ts";
import {
  type Fault,
  inside,
  misfit,
  number,
  type Place,
  problem,
  type Schema,
  step,
  suggestion,
} from "../schema.ts";

/** The error for a message that cannot be used, with the field that caused it. */
export class MessageError extends GradmixError {
  /** Path of the field, such as "alignments.code"; null for the whole message. */
  readonly field: string | null;
  constructor(field: string | null, message: string, options?: ErrorOptions) {
    super("data", message, options);
    this.name = "MessageError";
    this.field = field;
  }
}

/** Makes the errors of messages, for the schemas. */
export const messageFault: Fault = (path, what) => new MessageError(path === "" ? null : path, `it ${what}`);

/** The path of a member of a field, such as "alignments.code". */
export function pathOf(field: string, name: string): string {
  return `${field}.${step(name)}`;
}

/** The path of the value that caused an error of a rule; null if the error does not say. A signal has the names of the fields of its message. */
export function causeOf(error: GradmixError): string | null {
  return error instanceof PlacedError ? error.place.map(step).join(".") : null;
}

/** Names of domains or of targets, with their indices. */
export interface Names {
  readonly kind: "domain" | "target";
  readonly list: readonly string[];
  /** Index of each name in `list`. */
  readonly places: ReadonlyMap<string, number>;
}

/** Makes `Names` of a list of distinct names. `kind` is what error messages call them. */
export function namesOf(list: readonly string[], kind: Names["kind"] = "domain"): Names {
  return { kind, list, places: new Map(list.map((name, i) => [name, i])) };
}

/** The index of a name. Throws for an unknown name; the error suggests the nearest known one. */
export function placeOf(name: string, at: Place, { kind, list, places }: Names): number {
  const place = places.get(name);
  if (place !== undefined) return place;
  const few = list.length <= 20 ? `the ${kind}s are ${list.join(", ")}` : `there are ${list.length}`;
  throw problem(inside(at, name), `is not a ${kind}; ${suggestion(name, list, few)}`);
}

/** Accepts an object with numbers by name. Returns them in the order of the names, with NaN for a number that is missing or null. */
export function numbersFor(names: Names, schema: Schema<number> = number): Schema<Float64Array> {
  return (value, at) => {
    const out = new Float64Array(names.list.length).fill(NaN);
    if (!isObject(value))
      throw misfit(
        value,
        at,
        Array.isArray(value)
          ? `an object with a number per ${names.kind}, such as {"${names.list[0] ?? ""}": …}`
          : `an object with a number per ${names.kind}`,
      );
    // `Object.keys` is faster than `Object.entries` here, and this loop is most of the cost of a long message.
    for (const name of Object.keys(value)) {
      const place = placeOf(name, at, names);
      if (value[name] !== null) out[place] = schema(value[name], inside(at, name));
    }
    return out;
  };
}

/** Like `numbersFor`, but refuses an object in which a number is missing or null. */
export function allNumbersFor(names: Names, schema: Schema<number> = number): Schema<Float64Array> {
  const some = numbersFor(names, schema);
  return (value, at) => {
    const out = some(value, at);
    const missing = out.findIndex((found) => Number.isNaN(found));
    if (missing >= 0)
      throw problem(inside(at, names.list[missing]!), `is missing; every ${names.kind} needs a number here`);
    return out;
  };
}

/** An object with the values by name; the inverse of `numbersFor`. */
export function byName(names: readonly string[], values: ArrayLike<number>): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [i, name] of names.entries()) {
    const value = values[i]!;
    // An assignment to `__proto__` would not add a member.
    if (name === "__proto__")
      Object.defineProperty(out, name, { value, enumerable: true, writable: true, configurable: true });
    else out[name] = value;
  }
  return out;
}
