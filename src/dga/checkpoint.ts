/** A checkpoint of a trainer. */

/** An array of a checkpoint. */
export type CheckpointArray =
  Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | BigInt64Array;

/** Everything that a run needs to go on: small state as JSON, large state as arrays. */
export interface Checkpoint {
  /** Small state: counters, the states of mixer and sampler. */
  json: Record<string, unknown>;
  /** Large state by name: parameters and moments of the optimizer. */
  arrays: Record<string, CheckpointArray>;
}
