/**
 * Layers, the GPT, its optimizers and its files.
 *
 * @module gradmix/nn
 */
export type { Examples, Model, Source, TokenBatch, TrainingPass } from "./model.ts";
export type { TokenTensors } from "./token-batch.ts";
export type { AdamOptions, AdamWOptions, SGDOptions } from "./optimizer-options.ts";
export {
  type Adam,
  adam,
  type AdamW,
  adamw,
  type Optimizer,
  type OptimizerStepOptions,
  type Preconditioner,
  sgd,
} from "./optimizer.ts";
export { restoreOptimizer, type SavedOptimizer, saveOptimizer } from "./optimizer-state.ts";
export {
  type Arena,
  arenaLike,
  assign,
  createParameters,
  type Init,
  type Parameters,
  type ParameterSpec,
} from "./parameters.ts";
export type { PresetName } from "./architecture.ts";
export {
  createGPT,
  type GPT,
  type GPTConfig,
  type GPTOptions,
  parameterCount,
  type ResolvedGPTConfig,
  resolveGPTConfig,
} from "./gpt.ts";
export { loadParameters, type NamedParameters, saveParameters } from "./saved-parameters.ts";
export { generate, type GenerateOptions, sampleToken } from "./generate.ts";
export { fromHuggingFace } from "./huggingface/read.ts";
export { type ModelFiles, type SpecialTokens, toHuggingFace } from "./huggingface/write.ts";
export { type ByteSource, decodeSafetensors, encodeSafetensors, type StoredTensor } from "./safetensors.ts";
export {
  createSchedule,
  usualWarmup,
  type Schedule,
  type ScheduleName,
  type ScheduleOptions,
} from "./schedules.ts";
