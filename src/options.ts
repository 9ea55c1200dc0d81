/**
 * The one check of options objects, for every public function that takes one: unknown names are refused with the nearest
 * known one, and each value is checked by the row of its name. A row per option is required by the type, so that an option
 * that is added without a check does not compile.
 */
import { GradmixError } from "./errors.ts";
import { nearest } from "./nearest.ts";

/** Throws `config`, naming the option, unless the value fits. It is not called for `undefined`, which means "the default". */
export interface OptionCheck {
  (name: string, value: unknown): void;
  /** `undefined` is refused: the option has no default. */
  readonly required?: boolean;
}

/** One check per option of `O`. */
export type OptionChecks<O extends object> = { readonly [K in keyof O]-?: OptionCheck };

/**
 * Throws `config` unless `options` is an object that has only the options in `checks`, each with a value that fits.
 * `where` is the function (or the place in a file) that the message names.
 */
export function checkOptions<O extends object>(where: string, options: O, checks: OptionChecks<O>): void {
  check(where, options, checks);
}

/** The same of what came from a file or a message, which are options from then on. */
export function assertOptions<O extends object>(
  where: string,
  given: unknown,
  checks: OptionChecks<O>,
): asserts given is O {
  check(where, given, checks);
}

function check(where: string, given: unknown, checks: Readonly<Record<string, OptionCheck>>): void {
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new GradmixError("config", `${where}: the options are ${show(given)}, not an object`);
  for (const name of Object.keys(given))
    if (!Object.hasOwn(checks, name)) throw unknownName(where, name, checks);
  // Passes of a training step check their options too: what is not checked makes no string.
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

/** The interval of a number: min ≤ value ≤ max, or < where an end is open. */
export interface Range {
  /** The lower end. */
  readonly min: number;
  /** The upper end. */
  readonly max: number;
  /** Leaves out the lower end. Default false. */
  readonly openMin?: boolean;
  /** Leaves out the upper end. Default false. */
  readonly openMax?: boolean;
  /** Takes only whole numbers. Default false. */
  readonly integer?: boolean;
}

/** Throws `config` unless the value is a number in the range. */
export function checkRange(name: string, value: unknown, range: Range): void {
  const { min, max, openMin = false, openMax = false, integer = false } = range;
  const fits =
    typeof value === "number" &&
    (openMin ? value > min : value >= min) &&
    (openMax ? value < max : value <= max) &&
    (!integer || Number.isInteger(value));
  if (!fits) {
    if (integer && max === Number.MAX_SAFE_INTEGER)
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

/** A number in a range; finite where the range has no end. */
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

/** A safe integer, min ≤ value ≤ max. */
export function integerIn(min: number, max: number = Number.MAX_SAFE_INTEGER): OptionCheck {
  return (name, value) => checkRange(name, value, { min, max, integer: true });
}

/** One of a few values. */
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

/** A value for which `fits` holds; `what` says in the message what it must be. */
export function valueThat(what: string, fits: (value: unknown) => boolean): OptionCheck {
  return (name, value) => {
    if (!fits(value))
      throw new GradmixError("config", `${name}: ${show(value)} does not fit; it must be ${what}`);
  };
}

export const boolean: OptionCheck = valueThat("true or false", (value) => typeof value === "boolean");
export const string: OptionCheck = valueThat("a string", (value) => typeof value === "string");
export const callback: OptionCheck = valueThat("a function", (value) => typeof value === "function");
/** A list; what is in it is checked elsewhere. */
export const abortSignal: OptionCheck = valueThat("an AbortSignal", (value) => value instanceof AbortSignal);
export const list: OptionCheck = valueThat("a list", (value) => Array.isArray(value));
/** Any object that is not null; what is in it is checked elsewhere. */
export const object: OptionCheck = valueThat(
  "an object",
  (value) => typeof value === "object" && value !== null,
);
/** A value that is checked elsewhere. */
export const unchecked: OptionCheck = () => {};

/** The same check, for an option that has no default. */
export function required(check: OptionCheck): OptionCheck {
  return Object.assign((name: string, value: unknown) => check(name, value), { required: true });
}

/** The same check, or null. */
export function orNull(check: OptionCheck): OptionCheck {
  return (name, value) => {
    if (value !== null) check(name, value);
  };
}

/** A value of any kind in a few words on one line, for messages. `String` would fail on an object that has its own `toString`. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  if (typeof value === "function") return "a function";
  return String(value);
}

/** The options over their defaults; one that is undefined is not given. */
export function withDefaults<D extends object, O extends object>(defaults: D, options: O | undefined): D & O {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  // Not by assignment, for which "__proto__" is no name.
  return Object.fromEntries([...Object.entries(defaults), ...given]) as D & O;
}
