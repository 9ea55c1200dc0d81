/** The error with which a call is refused. */
import { GradmixError } from "#dist/errors.js";

/** Returns the GradmixError that `fn` throws, whose message must be one line. Fails if nothing is thrown, and rethrows other errors. */
export function errorOf(fn: () => unknown): GradmixError {
  try {
    fn();
  } catch (error) {
    if (error instanceof GradmixError) {
      if (error.message.includes("\n"))
        throw new Error(`more than one line: ${error.message}`, { cause: error });
      return error;
    }
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** Returns the code and the message of the error that `fn` throws; "no error" if it throws nothing. */
export function codeOf(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    return error instanceof GradmixError ? `${error.code}: ${error.message}` : String(error);
  }
  return "no error";
}
