/** A checkpoint of a trainer. */

export type CheckpointArray =
  Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | BigInt64Array;

/** Everything that a run needs to go on: small state as JSON, large state as arrays. */
export interface Checkpoint {
  json: Record<string, unknown>;
  arrays: Record<string, CheckpointArray>;
}
