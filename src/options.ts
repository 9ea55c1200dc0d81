/**
 * Checks options objects. Every public function that has options uses it: an unknown name is refused, with the nearest known name as a hint, and each
 * value is checked by the check of its name. The type requires a check per option, so an option that is added without one does not compile.
 */
import { GradmixError } from "./errors.ts";
import { nearest } from "./nearest.ts";

/** Checks the value of an option. Throws `config`, naming the option, if the value does not fit. It is not called for `undefined`, which means the default. */
export interface OptionCheck {
  (name: string, value: unknown): void;
  /** True if the option has no default, so that `undefined` is refused. Default false. */
  readonly required?: boolean;
}

/** One check per option of `O`. */
export type OptionChecks<O extends object> = { readonly [K in keyof O]-?: OptionCheck };

/**
 * Throws `config` unless `options` is an object that has only the options in `checks`, each with a value that fits, and all that are required.
 * `where` is the name of the function, or the place in a file, that the message begins with.
 */
export function checkOptions<O extends object>(where: string, options: O, checks: OptionChecks<O>): void {
  check(where, options, checks);
}

/** Like `checkOptions`, for a value of unknown type from a file or a message; afterwards it has the type of the options. */
export function assertOptions<O extends object>(
  where: string,
  given: unknown,
  checks: OptionChecks<O>,
): asserts given is O {
  check(where, given, checks);
}

/** Like `checkOptions`, for a part of the options: those that are required may be missing. */
export function checkSome(
  where: string,
  given: Readonly<Record<string, unknown>>,
  checks: Readonly<Record<string, OptionCheck>>,
): void {
  for (const [name, value] of Object.entries(given)) {
    const row = Object.hasOwn(checks, name) ? checks[name] : undefined;
    if (row === undefined) throw unknownName(where, name, checks);
    if (value !== undefined) row(`${where}: ${name}`, value);
  }
}

function check(where: string, given: unknown, checks: Readonly<Record<string, OptionCheck>>): void {
  if (!hasMembers(given))
    throw new GradmixError("config", `${where}: the options are ${describe(given)}, not an object`);
  for (const name in given)
    if (!Object.hasOwn(checks, name) && Object.hasOwn(given, name)) throw unknownName(where, name, checks);
  // The passes of every training step check their options, so options that are not checked cost no string.
  for (const name in checks) {
    const row = checks[name]!;
    const value: unknown = Reflect.get(given, name);
    if (value !== undefined) {
      if (row !== unchecked) row(`${where}: ${name}`, value);
    } else if (row.required === true) throw new GradmixError("config", `${where}: ${name} is missing`);
  }
}

function unknownName(where: string, name: string, checks: object): GradmixError {
  const known = Object.keys(checks);
  const close = nearest(name, known);
  const hint =
    close !== null
      ? `did you mean "${close}"?`
      : known.length === 0
        ? "it has none"
        : `its options are ${known.join(", ")}`;
  return new GradmixError("config", `${where}: there is no option "${name}"; ${hint}`);
}

/** The interval of a number: min ≤ value ≤ max, with < at an end that is open. */
export interface Range {
  /** The lower end. */
  readonly min: number;
  /** The upper end. */
  readonly max: number;
  /** Excludes the lower end. Default false. */
  readonly openMin?: boolean;
  /** Excludes the upper end. Default false. */
  readonly openMax?: boolean;
  /** Accepts only whole numbers. Default false. */
  readonly integer?: boolean;
}

/** Throws `config` unless the value is a number in the range. */
export function checkRange(name: string, value: unknown, range: Range): void {
  const given: unknown = range;
  if (typeof given !== "object" || given === null)
    throw new GradmixError("config", `checkRange: ${name}: the range is ${show(given)}, not { min, max }`);
  const { min, max, openMin = false, openMax = false, integer = false } = range;
  const fits =
    typeof value === "number" &&
    (openMin ? value > min : value >= min) &&
    (openMax ? value < max : value <= max) &&
    (!integer || Number.isInteger(value));
  if (!fits) {
    if (integer && max === Number.MAX_SAFE_INTEGER && !(Number.isInteger(value) && Number(value) > max))
      throw new GradmixError(
        "config",
        `${name}: ${show(value)} does not fit; it must be an integer of at least ${min}`,
      );
    const low = openMin ? `more than ${min}` : `at least ${min}`;
    const high = max === Infinity ? "finite" : openMax ? `less than ${max}` : `at most ${max}`;
    throw new GradmixError(
      "config",
      `${name}: ${show(value)} does not fit; it must be ${integer ? "an integer, " : ""}${low} and ${high}`,
    );
  }
}

/** Accepts a number in a range. If an end is left out, there is no bound on that side, but the number must be finite. */
export function numberIn(range: Partial<Range> = {}): OptionCheck {
  const { min = -Infinity, max = Infinity } = range;
  const whole: Range = {
    ...range,
    min,
    max,
    openMin: range.openMin ?? min === -Infinity,
    openMax: range.openMax ?? max === Infinity,
  };
  return (name, value) => checkRange(name, value, whole);
}

/** Accepts an integer with min ≤ value ≤ max. The default of `max` is the largest safe integer. */
export function integerIn(min: number, max: number = Number.MAX_SAFE_INTEGER): OptionCheck {
  return (name, value) => checkRange(name, value, { min, max, integer: true });
}

/** Accepts one of the given values; the error suggests the nearest of them for a mistyped string. */
export function oneOf(...values: readonly (string | number | boolean | null)[]): OptionCheck {
  return (name, value) => {
    if (values.some((known) => known === value)) return;
    const words = values.filter((known) => typeof known === "string");
    const close = typeof value === "string" ? nearest(value, words) : null;
    const hint =
      close === null ? `it must be one of ${values.map(show).join(", ")}` : `did you mean "${close}"?`;
    throw new GradmixError("config", `${name}: ${show(value)} is not known; ${hint}`);
  };
}

/** Accepts a value for which `fits` returns true. `what` describes such values in the message: "it must be …". */
export function valueThat(what: string, fits: (value: unknown) => boolean): OptionCheck {
  return (name, value) => {
    if (!fits(value))
      throw new GradmixError("config", `${name}: ${show(value)} does not fit; it must be ${what}`);
  };
}

export const boolean: OptionCheck = valueThat("true or false", (value) => typeof value === "boolean");
export const string: OptionCheck = valueThat("a string", (value) => typeof value === "string");
export const callback: OptionCheck = valueThat("a function", (value) => typeof value === "function");
/** Accepts an `AbortSignal`, also one of another realm, and anything else with the members of a `CancelSignal`. */
export const abortSignal: OptionCheck = valueThat("an AbortSignal", (value) => {
  if (typeof value !== "object" || value === null) return false;
  const aborted: unknown = Reflect.get(value, "aborted");
  const throwIfAborted: unknown = Reflect.get(value, "throwIfAborted");
  return typeof aborted === "boolean" && typeof throwIfAborted === "function";
});
/** Accepts a list; its items are checked elsewhere. */
export const list: OptionCheck = valueThat("a list", (value) => Array.isArray(value));
/** Accepts any object that is not null; its members are checked elsewhere. */
export const object: OptionCheck = valueThat(
  "an object",
  (value) => typeof value === "object" && value !== null,
);
/** Accepts an object that has these members, and whose members are not undefined. `what` describes such objects. */
export function objectWith(what: string, ...names: readonly string[]): OptionCheck {
  const isObject = valueThat(what, (value) => typeof value === "object" && value !== null);
  return (name, value) => {
    isObject(name, value);
    const missing = names.find((member) => Reflect.get(Object(value), member) === undefined);
    if (missing !== undefined)
      throw new GradmixError("config", `${name}: it has no ${missing}; it must be ${what}`);
  };
}

/**
 * Whether what an object holds are its members. A Map, a Set, a promise or a typed array has none, so that its contents would count as left out. (A
 * module that was imported whole has.)
 */
export function hasMembers(value: unknown): value is object {
  return ["[object Object]", "[object Module]"].includes(Object.prototype.toString.call(value));
}
/** Describes a value, and names the kind of an object without members: "a Map". */
export function describe(value: unknown): string {
  const isKind = typeof value === "object" && value !== null && !Array.isArray(value) && !hasMembers(value);
  if (!isKind) return show(value);
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  return `${/^[AEIOU]/.test(kind) ? "an" : "a"} ${kind}`;
}
/** Whether a value is a list or a typed array. */
export function isNumberList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}
/** Names the type of a typed array ("Int32Array"); shows any other value. */
export function showKind(value: unknown): string {
  return ArrayBuffer.isView(value) ? Object.prototype.toString.call(value).slice(8, -1) : show(value);
}
/** Accepts what `for await` can read, except text; `what` describes it. */
export function iterable(what: string): OptionCheck {
  return valueThat(
    what,
    (value) =>
      typeof value === "object" &&
      value !== null &&
      (Symbol.iterator in value || Symbol.asyncIterator in value),
  );
}
/** Accepts a list or a typed array; its numbers are checked elsewhere. */
export const numberList: OptionCheck = valueThat("a list of numbers", isNumberList);
/** Accepts every value; it is checked elsewhere. */
export const unchecked: OptionCheck = () => {};

/** Makes an option required: `checkOptions` refuses an object that lacks it. */
export function required(check: OptionCheck): OptionCheck {
  return Object.assign((name: string, value: unknown) => check(name, value), { required: true });
}

/** Accepts null, and every value that the check accepts. */
export function orNull(check: OptionCheck): OptionCheck {
  return (name, value) => {
    if (value !== null) check(name, value);
  };
}

/**
 * Describes any value on one line, for messages. Lists, objects and functions are only named by their kind, because `String` can fail on an object with its
 * own `toString`.
 */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  if (typeof value === "function") return "a function";
  return String(value);
}

/** The defaults, replaced by those options that are not undefined. */
export function withDefaults<D extends object, O extends object>(defaults: D, options: O | undefined): D & O {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  // `fromEntries` makes "__proto__" an ordinary member; an assignment would not.
  return Object.fromEntries([...Object.entries(defaults), ...given]) as D & O;
}
