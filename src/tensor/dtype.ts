import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";

/** Element types. Both are 4 bytes wide, so offsets and sizes are counted in elements everywhere. */
export type DType = "f32" | "i32";

/** Throws `shape` for what is not an element type. */
export function checkDType(dtype: unknown, op: string): asserts dtype is DType {
  if (dtype !== "f32" && dtype !== "i32")
    throw new GradmixError("shape", `${op}: the type ${show(dtype)} is not known; there are "f32" and "i32"`);
}

/** What a backend's read gives back. `Float64Array` comes only from the double-precision reference backend, which `init` does not start. */
export type TensorData = Float32Array | Float64Array | Int32Array;

/** The typed array of a type's elements. */
export interface DataOf {
  /** Of `f32`. */
  readonly f32: Float32Array;
  /** Of `i32`. */
  readonly i32: Int32Array;
}
