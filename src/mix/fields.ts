/** What the fields of messages have in common: errors that name the field by its path, and numbers by domain. */
import { GradmixError } from "../errors.ts";
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

/** Errors of messages. */
export const messageFault: Fault = (path, what) => new MessageError(path === "" ? null : path, `it ${what}`);

export function pathOf(field: string, name: string): string {
  return `${field}.${step(name)}`;
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

/** Where the name of a member stands. Throws for an unknown one, offering the nearest. */
export function placeOf(name: string, at: Place, { kind, list, places }: Names): number {
  const place = places.get(name);
  if (place !== undefined) return place;
  const few = list.length <= 20 ? `the ${kind}s are ${list.join(", ")}` : `there are ${list.length}`;
  throw problem(inside(at, name), `is not a ${kind}; ${suggestion(name, list, few)}`);
}

/** Numbers by name, in the names' order; NaN for what is missing or null. */
export function numbersFor(names: Names, schema: Schema<number> = number): Schema<Float64Array> {
  return (value, at) => {
    const out = new Float64Array(names.list.length).fill(NaN);
    if (!isObject(value))
      throw misfit(
        value,
        at,
        Array.isArray(value)
          ? `an object: numbers are told by ${names.kind}, as {"${names.list[0] ?? ""}": …}, not by position`
          : `an object with numbers by ${names.kind}`,
      );
    // Without a pair for each member: this is most of what a long message costs.
    for (const name of Object.keys(value)) {
      const place = placeOf(name, at, names);
      if (value[name] !== null) out[place] = schema(value[name], inside(at, name));
    }
    return out;
  };
}

/** The same, where every name needs a number. */
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
