/** Arrays of a saved state, checked before anything is written to a device. */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { show } from "../options.ts";

/** Throws `checkpoint`: "checkpoint: …". */
export function wrongCheckpoint(what: string): GradmixError {
  return new GradmixError("checkpoint", `checkpoint: ${what}`);
}

/** A part of a saved state, such as its `json`. Throws `checkpoint` when it is not an object. */
export function recordOf(saved: unknown, name: "json" | "arrays"): Record<string, unknown> {
  const part: unknown = isObject(saved) ? saved[name] : undefined;
  if (!isObject(part)) throw wrongCheckpoint(`${name} is ${show(part)}, not an object`);
  return part;
}

/** A number of steps or tokens. Throws `checkpoint` unless it is an integer of at least 0. */
export function countOf(json: Readonly<Record<string, unknown>>, name: string): number {
  const value = json[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw wrongCheckpoint(`${name} is ${show(value)}`);
  return value;
}

/** The arrays that are wanted, by name, with what has as many values. Throws `checkpoint` unless all of them are there, of their sizes, f32 and finite. */
export function arraysOf(
  given: Readonly<Record<string, unknown>>,
  wanted: ReadonlyMap<string, { readonly size: number }>,
): Map<string, Float32Array> {
  const out = new Map<string, Float32Array>();
  for (const [name, { size }] of wanted) {
    const values = given[name];
    if (values === undefined) throw wrongCheckpoint(`it has no ${name}, which takes ${size} values`);
    if (!(values instanceof Float32Array))
      throw wrongCheckpoint(`${name} is ${kindOf(values)}, not a Float32Array`);
    if (values.length !== size)
      throw wrongCheckpoint(`${name} has ${values.length} values, the model has ${size}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw wrongCheckpoint(`${name} has ${values[bad]} at ${bad}`);
    out.set(name, values);
  }
  return out;
}

function kindOf(value: unknown): string {
  return ArrayBuffer.isView(value) ? Object.prototype.toString.call(value).slice(8, -1) : show(value);
}
