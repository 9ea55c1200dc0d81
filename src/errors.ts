/** The error type of gradmix and its codes. */

/** Which family an error belongs to. Callers can branch on it without reading the message. */
export type ErrorCode =
  | "shape" // operand shapes or dtypes do not fit
  | "disposed" // a tensor was used after its memory was given back
  | "busy" // another call on the same object has not ended yet
  | "memory" // a memory limit was reached
  | "backend" // a backend is missing, failed to start, or failed while running
  | "autograd" // a transformation cannot be applied (a rule is missing, a value is not tracked)
  | "config" // an option or a config key is unknown or out of range
  | "data" // a corpus, a tokenizer or a file of weights cannot be used
  | "checkpoint" // a saved state does not fit or is broken
  | "numeric" // a loss or a weight became NaN or infinite
  | "io"; // a file could not be read or written

/** The system's code of an error ("ENOENT"), "" for one that has none. Not part of the package's interface. */
export function errorCode(error: unknown): string {
  const { code } = Object(error) as { code?: unknown };
  return typeof code === "string" ? code : "";
}

/** The one error type that gradmix throws on purpose. Its message is one line that says what is wrong, where, and what to do. */
export class GradmixError extends Error {
  /** Kind of the error; see `ErrorCode`. */
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "GradmixError";
    this.code = code;
  }
}
