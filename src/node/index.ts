/**
 * File access of the library in Node: checkpoints of a trainer and parameters of a model.
 *
 * @module gradmix/node
 */
export { type CheckpointFile, readCheckpoint, writeCheckpoint } from "./checkpoint-file.ts";
export { readParameters, writeParameters } from "./parameters-file.ts";
export { writeMegatron, writeNanoGPT, type WriteTokensOptions } from "./write-tokens.ts";
