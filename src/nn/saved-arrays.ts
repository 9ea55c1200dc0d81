/** Checks the arrays of a saved state before any of them is written to a device. */
import { GradmixError } from "../errors.ts";
import { showKind } from "../options.ts";
import { type Fault, faultOf, object, plainObject, type Schema } from "../schema.ts";

/** Makes a `checkpoint` error with the message "checkpoint: …". */
export function checkpointError(what: string): GradmixError {
  return new GradmixError("checkpoint", `checkpoint: ${what}`);
}

/** Makes the errors of a saved state, for the schemas. */
export const checkpointFault: Fault = faultOf({ source: "checkpoint", code: "checkpoint" });

/** The two parts of every saved state. Their members are checked by the code that restores the state. */
export interface SavedParts {
  readonly json: Readonly<Record<string, unknown>>;
  readonly arrays: Readonly<Record<string, unknown>>;
}

export const savedParts: Schema<SavedParts> = object<SavedParts>({ json: plainObject, arrays: plainObject });

/**
 * The arrays of a saved state by name. `wanted` has the required names and sizes. Throws `checkpoint` unless each of them is a Float32Array of its size with
 * finite values.
 */
export function arraysOf(
  given: Readonly<Record<string, unknown>>,
  wanted: ReadonlyMap<string, { readonly size: number }>,
): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [name, { size }] of wanted) {
    const values = given[name];
    if (values === undefined) throw checkpointError(`it has no ${name}, which takes ${size} values`);
    if (!(values instanceof Float32Array))
      throw checkpointError(`${name} is ${showKind(values)}, not a Float32Array`);
    if (values.length !== size)
      throw checkpointError(`${name} has ${values.length} values, the model has ${size}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw checkpointError(`${name} has ${values[bad]} at ${bad}`);
    out.set(name, values);
  }
  return out;
}
