/** Reads plain JSON with a check of every part: what does not fit is refused by its place. */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { show } from "../options.ts";

/** A value and where it stands, such as `run.json.domains.code.tokens`. */
export interface Part {
  readonly at: string;
  /** Of `JSON.parse`, or of `parseJson`, whose objects are Maps. */
  readonly value: unknown;
}

/** Throws `data`. */
export type Reader<T> = (part: Part) => T;

function misfit({ at, value }: Part, wanted: string): GradmixError {
  return new GradmixError("data", `${at} is ${value === undefined ? "missing" : show(value)}; it must be ${wanted}`);
}

export const number: Reader<number> = (part) => {
  if (typeof part.value !== "number" || !Number.isFinite(part.value)) throw misfit(part, "a finite number");
  return part.value;
};

export const text: Reader<string> = (part) => {
  if (typeof part.value !== "string") throw misfit(part, "a string");
  return part.value;
};

/** null for null and for what is left out. */
export function orNull<T>(reader: Reader<T>): Reader<T | null> {
  return (part) => (part.value === null || part.value === undefined ? null : reader(part));
}

/** A member of an object. */
export function member<T>(part: Part, name: string, reader: Reader<T>): T {
  return reader({ at: `${part.at}.${name}`, value: valueOf(part, name) });
}

function valueOf(part: Part, name: string): unknown {
  if (part.value instanceof Map) return part.value.get(name);
  if (!isObject(part.value)) throw misfit(part, "an object");
  // "constructor" and the like are members only where the text has them.
  return Object.hasOwn(part.value, name) ? part.value[name] : undefined;
}

/** A member that may be left out, as what an object literal spreads. */
export function optional<N extends string, T>(part: Part, name: N, reader: Reader<T>): { [K in N]?: T } {
  const found = member(part, name, orNull(reader));
  return (found === null ? {} : { [name]: found }) as { [K in N]?: T };
}

/** An object as a Map. The order is that of the text where `parseJson` has read it; JSON.parse puts names that are whole numbers first. */
export function mapOf<T>(reader: Reader<T>): Reader<ReadonlyMap<string, T>> {
  return (part) => {
    const members: Iterable<readonly [string, unknown]> | null =
      part.value instanceof Map
        ? (part.value as ReadonlyMap<string, unknown>)
        : isObject(part.value)
          ? Object.entries(part.value)
          : null;
    if (members === null) throw misfit(part, "an object");
    return new Map(
      Array.from(members, ([name, value]) => [name, reader({ at: `${part.at}.${name}`, value })]),
    );
  };
}

export function listOf<T>(reader: Reader<T>): Reader<readonly T[]> {
  return (part) => {
    if (!Array.isArray(part.value)) throw misfit(part, "a list");
    return part.value.map((value: unknown, i) => reader({ at: `${part.at}[${i}]`, value }));
  };
}
