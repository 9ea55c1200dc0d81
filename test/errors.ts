/** The error with which a call is refused. */
import { GradmixError } from "#dist/errors.js";

/** The GradmixError that `fn` throws, whose message is one line. Fails for none, and throws others on. */
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

/** Code and message of what `fn` throws; "no error" for nothing. */
export function codeOf(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    return error instanceof GradmixError ? `${error.code}: ${error.message}` : String(error);
  }
  return "no error";
}
