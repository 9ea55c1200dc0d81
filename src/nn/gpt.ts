/**
 * The model: a decoder-only transformer in two configurations.
 *
 * `llama` (the default): RMSNorm, rotary positions, SwiGLU, no biases, grouped key/value heads allowed. `gpt2`: LayerNorm, biases, learned positions,
 * GELU (tanh form).
 *
 * Query, key and value come from one packed linear layer, gate and up from another; the head is not tied to the embedding.
 */
import { checkpoint } from "../autograd/checkpoint.ts";
import { wantTensor } from "../autograd/checks.ts";
import { add } from "../autograd/ops/arithmetic.ts";
import { causalAttention } from "../autograd/ops/attention.ts";
import { embedding } from "../autograd/ops/embedding.ts";
import { linear } from "../autograd/ops/linear.ts";
import { exampleLosses } from "../autograd/ops/loss.ts";
import { addNorm, layerNorm, rmsNorm } from "../autograd/ops/norm.ts";
import { rope } from "../autograd/ops/rope.ts";
import { swiglu } from "../autograd/ops/activation.ts";
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
import { empty, scope, type Tensor } from "../tensor/tensor.ts";
import {
  defaultPreset,
  type Architecture,
  gptSpecs,
  headsMisfit,
  type LayerName,
  pathOf,
  type PresetName,
  presetNames,
  traitsOf,
} from "./architecture.ts";
import type { Model, Source, TokenBatch } from "./model.ts";
import { createParameters, type Parameters, type ParameterSpec } from "./parameters.ts";
import { checkTokens, type TokenTensors, tokenTensors } from "./token-batch.ts";

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

/** The residual stream and the output of a layer, which the next norm adds to the stream in the same kernel. */
interface Residual {
  readonly stream: Tensor;
  readonly more: Tensor | null;
}

/** The parameters of a layer; it may have no bias. */
interface LayerParameters {
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
}

/** Builds and initialises a model on the current backend. Throws `config` for an invalid configuration. */
export function createGPT(given: GPTConfig, options: GPTOptions = {}): GPT {
  const architecture = architectureFrom(given);
  const { config, traits } = architecture;
  checkOptions("createGPT", options, { seed: integerIn(0), checkpoint: boolean });
  const { heads, kvHeads, dim, layers, normEps, ropeTheta, context } = config;
  const parameters = createParameters(gptSpecs(architecture), options.seed ?? 0);
  const { norm, positions, mlp } = traits;
  const headDim = dim / heads;
  const get = (name: string): Tensor => {
    const parameter = parameters.byName.get(name);
    if (parameter === undefined) throw new GradmixError("config", `the model has no parameter "${name}"`);
    return parameter;
  };
  // Looked up once: every pass uses all of them.
  const layerOf = (name: LayerName, block: number | null = null): LayerParameters => {
    const path = pathOf({ name, block });
    return { weight: get(`${path}.weight`), bias: parameters.byName.get(`${path}.bias`) };
  };
  const blocks = Array.from({ length: layers }, (_, block) => ({
    norm1: layerOf("norm1", block),
    qkv: layerOf("qkv", block),
    out: layerOf("out", block),
    norm2: layerOf("norm2", block),
    up: layerOf("up", block),
    down: layerOf("down", block),
  }));
  const tokenTable = layerOf("embedding").weight;
  const positionTable = positions === "learned" ? layerOf("positions").weight : null;
  const [lastNorm, head] = [layerOf("norm"), layerOf("head")];

  const project = (
    x: Tensor,
    { weight, bias }: LayerParameters,
    activation: "none" | "gelu" = "none",
  ): Tensor => linear(x, weight, bias, { activation });
  const normalise = (x: Tensor, { weight, bias }: LayerParameters): Tensor =>
    norm === "layer" ? layerNorm(x, weight, bias, normEps) : rmsNorm(x, weight, normEps);

  /** Adds the output of the layer to the stream. Returns the norm of the sum, and the sum. */
  const joined = ({ stream, more }: Residual, layer: LayerParameters): [norm: Tensor, sum: Tensor] =>
    more === null
      ? [normalise(stream, layer), stream]
      : addNorm(norm, stream, more, layer.weight, layer.bias, normEps);

  const runBlock = (before: Residual, block: number): Residual => {
    const { norm1, qkv: first, out, norm2, up, down } = blocks[block]!;
    const [outer, x] = joined(before, norm1);
    let qkv = project(outer, first);
    if (positions === "rotary") qkv = rope(qkv, { heads: heads + kvHeads, headDim, theta: ropeTheta });
    const more = project(causalAttention(qkv, { heads, kvHeads }), out);
    const [inner, mixed] = joined({ stream: x, more }, norm2);
    const hidden = mlp === "gelu" ? project(inner, up, "gelu") : swiglu(project(inner, up));
    return { stream: mixed, more: project(hidden, down) };
  };

  const recomputed = ({ stream, more }: Residual, block: number): Residual => {
    const x = checkpoint(
      (given: Tensor) => {
        const after = runBlock({ stream: given, more: null }, block);
        return after.more === null ? after.stream : add(after.stream, after.more);
      },
      more === null ? stream : add(stream, more),
    );
    return { stream: x, more: null };
  };

  const hidden = (tokens: Tensor): Tensor => {
    wantTensor("gpt", "tokens", tokens);
    if (tokens.rank !== 2 || tokens.shape[1]! > context || tokens.shape[1]! < 1)
      throw new GradmixError(
        "shape",
        `gpt: tokens ${formatShape(tokens.shape)} are not [batch, time] with time from 1 to ${context}`,
      );
    // The scope frees a block's intermediates as soon as no tape needs them.
    return scope(() => {
      let residual: Residual = {
        stream: embedding(tokenTable, tokens),
        more: positionTable === null ? null : embedding(positionTable, positionsOf(tokens)),
      };
      for (let i = 0; i < layers; i++) {
        const before = residual;
        residual = scope(() => (options.checkpoint === true ? recomputed : runBlock)(before, i));
        // Otherwise all of them would live until the last block.
        before.stream.dispose();
        before.more?.dispose();
      }
      return joined(residual, lastNorm)[0];
    });
  };
  const logits = (tokens: Tensor): Tensor => scope(() => project(hidden(tokens), head));

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

/** Positions 0 … T−1 of every example. They keep the batch axis, so that their gradients stay per example. */
function positionsOf(tokens: Tensor): Tensor {
  const [batch, time] = [tokens.shape[0]!, tokens.shape[1]!];
  const ids = new Int32Array(batch * time);
  for (let i = 0; i < ids.length; i++) ids[i] = i % time;
  const out = empty([batch, time], "i32", tokens.memory);
  out.write(ids);
  return out;
}
