/**
 * The model: a decoder-only transformer in two configurations. Its layers are data in architecture.ts, and its forward pass is in transformer.ts.
 *
 * `llama` (the default): RMSNorm, rotary positions, SwiGLU, no biases, grouped key/value heads allowed. `gpt2`: LayerNorm, biases, learned positions,
 * GELU (tanh form).
 *
 * Query, key and value come from one packed linear layer, gate and up from another; the head is not tied to the embedding.
 */
import { wantTensor } from "../autograd/checks.ts";
import { exampleLosses } from "../autograd/ops/loss.ts";
import { GradmixError } from "../errors.ts";
import {
  assertOptions,
  boolean,
  checkOptions,
  integerIn,
  numberIn,
  oneOf,
  type OptionChecks,
  required,
  objectWith,
} from "../options.ts";
import { formatShape, sizeOf } from "../tensor/shape.ts";
import { scope, type Tensor } from "../tensor/tensor.ts";
import {
  defaultPreset,
  type Architecture,
  gptSpecs,
  headsMisfit,
  type PresetName,
  presetNames,
  traitsOf,
} from "./architecture.ts";
import type { Model, Source, TokenBatch } from "./model.ts";
import { createParameters, type Parameters, type ParameterSpec } from "./parameters.ts";
import { checkTokens, type TokenTensors, tokenTensors } from "./token-batch.ts";
import { hiddenStates, project, transformerOf } from "./transformer.ts";

/** Architecture of a GPT. */
export interface GPTConfig {
  /** Configuration of the layers: Llama's or GPT-2's. Default "llama". */
  readonly preset?: PresetName;
  /** Number of token ids, which are 0 … vocabSize − 1. */
  readonly vocabSize: number;
  /** Width of the residual stream. */
  readonly dim: number;
  /** Number of blocks of attention and MLP. */
  readonly layers: number;
  /** Number of attention heads, a divisor of `dim`. */
  readonly heads: number;
  /** Number of key/value heads, a divisor of `heads`. Default `heads`. "gpt2" requires `heads`. */
  readonly kvHeads?: number;
  /** Width of the MLP. Default: 8/3·dim rounded up to a multiple of 32 (llama), 4·dim (gpt2). */
  readonly hiddenDim?: number;
  /** Length of the longest sequence, in tokens. */
  readonly context: number;
  /** ε of the norms. Default 1e-5. */
  readonly normEps?: number;
  /** Base of the rotary angles (llama). Default 10,000. */
  readonly ropeTheta?: number;
}

/** A `GPTConfig` with all defaults filled in. */
export type ResolvedGPTConfig = Required<GPTConfig>;

/** Fills in the defaults of a configuration. Throws `config`, naming the field, for an invalid one. */
export function resolveGPTConfig(config: GPTConfig): ResolvedGPTConfig {
  return gptConfigFrom(config);
}

const size = integerIn(1);
const positive = numberIn({ min: 0, openMin: true });
const gptChecks: OptionChecks<GPTConfig> = {
  preset: oneOf(...presetNames),
  vocabSize: required(size),
  dim: required(size),
  layers: required(size),
  heads: required(size),
  kvHeads: size,
  hiddenDim: size,
  context: required(size),
  normEps: positive,
  ropeTheta: positive,
};

/** The same for a configuration from a file. Not part of the package's interface. */
export function gptConfigFrom(config: unknown): ResolvedGPTConfig {
  return architectureFrom(config).config;
}

function architectureFrom(config: unknown): Architecture {
  assertOptions("GPT", config, gptChecks);
  const preset = config.preset ?? defaultPreset;
  const traits = traitsOf(preset);
  const resolved: ResolvedGPTConfig = {
    preset,
    vocabSize: config.vocabSize,
    dim: config.dim,
    layers: config.layers,
    heads: config.heads,
    kvHeads: config.kvHeads ?? config.heads,
    hiddenDim: config.hiddenDim ?? traits.hiddenDim(config.dim),
    context: config.context,
    normEps: config.normEps ?? 1e-5,
    ropeTheta: config.ropeTheta ?? 10_000,
  };
  const misfit = headsMisfit(resolved, traits);
  if (misfit !== null) throw new GradmixError("config", `${misfit.field}: ${misfit.problem}`);
  return { config: resolved, traits };
}

/** Number of scalars in the model's parameters. */
export function parameterCount(config: GPTConfig): number {
  return parameterSpecs(config).reduce((n, { shape }) => n + sizeOf(shape), 0);
}

/** The specs of the parameters of a GPT. Throws `config` like `createGPT`. */
export function parameterSpecs(config: GPTConfig): ParameterSpec[] {
  return gptSpecs(architectureFrom(config));
}

export interface GPT extends Model {
  /** The configuration, with all defaults filled in. */
  readonly config: ResolvedGPTConfig;
  readonly parameters: Parameters;
  /** Computes logits [B, T, vocabSize] from tokens i32 [B, T], T ≤ context. */
  logits(tokens: Tensor): Tensor;
  /** The output of the last norm [B, T, dim], from which the head computes the logits. */
  hidden(tokens: Tensor): Tensor;
  /**
   * Loss of each example [B], summed over its counted tokens, in nats. The batch holds windows of tokens as arrays or as tensors i32 [B, T]; targets
   * < 0 do not count. Throws `shape` for windows longer than the context, and `data` for arrays with ids outside the vocabulary.
   */
  losses(batch: TokenBatch | TokenTensors): Tensor;
  /** Throws `data` for a source of windows that has tokens outside the vocabulary or is longer than the context. */
  check(source: Source, first?: number, end?: number): void;
  /** Frees the parameters. */
  dispose(): void;
}

/** Options of `createGPT`. */
export interface GPTOptions {
  /** Seed of the initial values. Default 0. */
  readonly seed?: number;
  /** Recomputes each block in the backward pass instead of saving its intermediates. Default false. */
  readonly checkpoint?: boolean;
}

/** Builds and initialises a model on the current backend. Throws `config` for an invalid configuration. */
export function createGPT(given: GPTConfig, options: GPTOptions = {}): GPT {
  const architecture = architectureFrom(given);
  const { config } = architecture;
  checkOptions("createGPT", options, { seed: integerIn(0), checkpoint: boolean });
  const parameters = createParameters(gptSpecs(architecture), options.seed ?? 0);
  const transformer = transformerOf(architecture, parameters, options.checkpoint ?? false);
  const hidden = (tokens: Tensor): Tensor => {
    wantTensor("gpt", "tokens", tokens);
    const time = tokens.shape[1] ?? 0;
    if (tokens.rank !== 2 || time < 1 || time > config.context)
      throw new GradmixError(
        "shape",
        `gpt: tokens ${formatShape(tokens.shape)} are not [batch, time] with time from 1 to ${config.context}`,
      );
    return hiddenStates(transformer, tokens);
  };
  const logits = (tokens: Tensor): Tensor => scope(() => project(hidden(tokens), transformer.head));
  return {
    config,
    parameters,
    logits,
    hidden,
    losses(batch) {
      return scope(() => {
        const { inputs, targets } = tokenTensors(batch, config.vocabSize);
        return exampleLosses(logits(inputs), targets);
      });
    },
    check(source, first, end) {
      objectWith(
        "a source of examples, such as windowsOf makes",
        "name",
        "count",
      )("gpt.check: source", source);
      checkTokens(source, config, first ?? 0, end ?? source.count);
    },
    dispose: () => parameters.dispose(),
  };
}
