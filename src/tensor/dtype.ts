import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";

/** Element type. Both types are 4 bytes wide, so offsets and sizes are counted in elements everywhere. */
export type DType = "f32" | "i32";

/** The largest finite f32. */
export const MOST: number = 3.4028234663852886e38;

/** Throws `shape` for a value that is not an element type. */
export function checkDType(dtype: unknown, op: string): asserts dtype is DType {
  if (dtype !== "f32" && dtype !== "i32")
    throw new GradmixError("shape", `${op}: the type ${show(dtype)} is not known; there are "f32" and "i32"`);
}

/** The result of a backend's read. `Float64Array` comes only from the double-precision reference backend, which `init` does not start. */
export type TensorData = Float32Array | Float64Array | Int32Array;

/** The typed array of a type's elements. */
export interface DataOf {
  /** Elements of an f32 tensor. */
  readonly f32: Float32Array;
  /** Elements of an i32 tensor. */
  readonly i32: Int32Array;
}
