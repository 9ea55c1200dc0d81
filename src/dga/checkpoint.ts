/** A checkpoint of a trainer. */

/** An array in a checkpoint. */
export type CheckpointArray =
  Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | BigInt64Array;

/** Everything that a run needs to continue: small state as JSON, large state as arrays. */
export interface Checkpoint {
  /** Small state: counters and the states of the mixer and the sampler. */
  json: Record<string, unknown>;
  /** Large state by name: the parameters and the moments of the optimizer. */
  arrays: Record<string, CheckpointArray>;
}
