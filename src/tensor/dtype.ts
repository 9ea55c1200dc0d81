/** Element types. Both are 4 bytes wide, so offsets and sizes are counted in elements everywhere. */
export type DType = "f32" | "i32";

/** What a read gives back. `Float64Array` comes only from the double-precision reference backend. */
export type TensorData = Float32Array | Float64Array | Int32Array;
