/** Arrays of a saved state, checked before anything is written to a device. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import { type Fault, faultOf, object, plainObject, type Schema } from "../schema.ts";

/** Throws `checkpoint`: "checkpoint: …". */
export function checkpointError(what: string): GradmixError {
  return new GradmixError("checkpoint", `checkpoint: ${what}`);
}

/** Errors of what a saved state holds. */
export const checkpointFault: Fault = faultOf({ source: "checkpoint", code: "checkpoint" });

/** What every saved state has; what is in it is checked by whom it is of. */
export interface SavedParts {
  readonly json: Readonly<Record<string, unknown>>;
  readonly arrays: Readonly<Record<string, unknown>>;
}

export const savedParts: Schema<SavedParts> = object<SavedParts>({ json: plainObject, arrays: plainObject });

/** The arrays that are wanted, by name, with what has as many values. Throws `checkpoint` unless all of them are there, of their sizes, f32 and finite. */
export function arraysOf(
  given: Readonly<Record<string, unknown>>,
  wanted: ReadonlyMap<string, { readonly size: number }>,
): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [name, { size }] of wanted) {
    const values = given[name];
    if (values === undefined) throw checkpointError(`it has no ${name}, which takes ${size} values`);
    if (!(values instanceof Float32Array))
      throw checkpointError(`${name} is ${kindOf(values)}, not a Float32Array`);
    if (values.length !== size)
      throw checkpointError(`${name} has ${values.length} values, the model has ${size}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw checkpointError(`${name} has ${values[bad]} at ${bad}`);
    out.set(name, values);
  }
  return out;
}

function kindOf(value: unknown): string {
  return ArrayBuffer.isView(value) ? Object.prototype.toString.call(value).slice(8, -1) : show(value);
}
