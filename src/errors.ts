/** The error type of gradmix and its codes. */

/** The kind of an error. Callers can branch on it without reading the message. */
export type ErrorCode =
  | "shape" // operand shapes or dtypes do not fit
  | "disposed" // a tensor was used after its memory was freed
  | "busy" // another call on the same object is still running
  | "memory" // a memory limit was reached
  | "backend" // a backend is missing, failed to start, or failed while running
  | "autograd" // a transformation cannot be applied (a rule is missing, a value is not tracked)
  | "config" // an option or a config key is unknown or out of range
  | "data" // a corpus, a tokenizer or a file of weights cannot be used
  | "checkpoint" // a saved state does not fit or is broken
  | "numeric" // a loss or a weight became NaN or infinite
  | "io"; // a file could not be read or written

/** The system's code of an error, such as "ENOENT"; "" for an error without a code. Not part of the package's interface. */
export function errorCode(error: unknown): string {
  const { code } = Object(error) as { code?: unknown };
  return typeof code === "string" ? code : "";
}

/**
 * The text as one line that a terminal shows as it is: line ends with the spaces around them become one space, and other control characters (also of
 * names and texts that a message quotes) are written as escapes of JSON. Not part of the package's interface.
 */
export function onOneLine(text: string): string {
  return text
    .replaceAll(/\s*[\r\n]\s*/g, " ")
    .replaceAll(
      /[\p{Cc}\p{Zl}\p{Zp}]/gu,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
}

/** The beginning of a text that is longer than `most` characters, for a message; another text as it is. Not part of the package's interface. */
export function beginning(text: string, most: number): string {
  // Half of a surrogate pair is no character.
  return text.length > most ? `${text.slice(0, most).replace(/[\uD800-\uDBFF]$/, "")}…` : text;
}

/**
 * The only error type that gradmix throws deliberately. Its message is one line that says what is wrong, where, and what to do; a report of several
 * faults is a list of such lines.
 */
export class GradmixError extends Error {
  /** Kind of the error; see `ErrorCode`. */
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string | readonly string[], options?: ErrorOptions) {
    super([message].flat().map(onOneLine).join("\n"), options);
    this.name = "GradmixError";
    this.code = code;
  }
}

/**
 * An error that also says, as data, which value caused it, so that nobody has to read that from the message: the names of members on the way to the
 * value, from the outside in. Not part of the package's interface.
 */
export class PlacedError extends GradmixError {
  /** For example ["losses", "code"]. */
  readonly place: readonly string[];
  constructor(
    code: ErrorCode,
    message: string | readonly string[],
    place: readonly string[],
    options?: ErrorOptions,
  ) {
    super(code, message, options);
    this.place = place;
  }
}
