/** The forward pass of a GPT (gpt.ts): its blocks on the residual stream. Its layers and their shapes are in architecture.ts. */
import { checkpoint } from "../autograd/checkpoint.ts";
import { swiglu } from "../autograd/ops/activation.ts";
import { add } from "../autograd/ops/arithmetic.ts";
import { causalAttention } from "../autograd/ops/attention.ts";
import { embedding } from "../autograd/ops/embedding.ts";
import { linear } from "../autograd/ops/linear.ts";
import { addNorm, layerNorm, rmsNorm } from "../autograd/ops/norm.ts";
import { rope } from "../autograd/ops/rope.ts";
import { GradmixError } from "../errors.ts";
import { empty, scope, type Tensor } from "../tensor/tensor.ts";
import { type Architecture, type LayerName, pathOf } from "./architecture.ts";
import type { Parameters } from "./parameters.ts";

/** The parameters of a layer; it may have no bias. */
interface LayerParameters {
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
}

/** The layers of a block of attention and MLP. */
type BlockParameters = Readonly<Record<"norm1" | "qkv" | "out" | "norm2" | "up" | "down", LayerParameters>>;

/** A GPT with its parameters by their use. They are looked up once, since every pass uses all of them. */
export interface Transformer extends Architecture {
  readonly tokenTable: Tensor;
  /** null: positions are rotary. */
  readonly positionTable: Tensor | null;
  readonly blocks: readonly BlockParameters[];
  readonly lastNorm: LayerParameters;
  readonly head: LayerParameters;
  /** Whether the backward pass computes each block again instead of keeping its intermediates. */
  readonly recompute: boolean;
}

/** Finds the parameters of each layer. Throws `config` if one is missing. */
export function transformerOf(
  architecture: Architecture,
  parameters: Parameters,
  recompute: boolean,
): Transformer {
  const layer = (name: LayerName, block: number | null = null): LayerParameters => {
    const path = pathOf({ name, block });
    const weight = parameters.byName.get(`${path}.weight`);
    if (weight === undefined) throw new GradmixError("config", `the model has no parameter "${path}.weight"`);
    return { weight, bias: parameters.byName.get(`${path}.bias`) };
  };
  return {
    ...architecture,
    tokenTable: layer("embedding").weight,
    positionTable: architecture.traits.positions === "learned" ? layer("positions").weight : null,
    blocks: Array.from({ length: architecture.config.layers }, (_, block) => ({
      norm1: layer("norm1", block),
      qkv: layer("qkv", block),
      out: layer("out", block),
      norm2: layer("norm2", block),
      up: layer("up", block),
      down: layer("down", block),
    })),
    lastNorm: layer("norm"),
    head: layer("head"),
    recompute,
  };
}

/** A linear layer, with its activation in the same kernel. */
export function project(
  x: Tensor,
  { weight, bias }: LayerParameters,
  activation: "none" | "gelu" = "none",
): Tensor {
  return linear(x, weight, bias, { activation });
}

/** The output of the last norm [B, T, dim] from tokens i32 [B, T]. */
export function hiddenStates(transformer: Transformer, tokens: Tensor): Tensor {
  const { tokenTable, positionTable, blocks, lastNorm, recompute } = transformer;
  // The scope frees a block's intermediates as soon as no tape needs them.
  return scope(() => {
    let residual: Residual = {
      stream: embedding(tokenTable, tokens),
      more: positionTable === null ? null : embedding(positionTable, positionsOf(tokens)),
    };
    for (const block of blocks) {
      const before = residual;
      residual = scope(() => (recompute ? recomputedBlock : runBlock)(transformer, block, before));
      // Otherwise all of them would live until the last block.
      before.stream.dispose();
      before.more?.dispose();
    }
    return addThenNorm(transformer, residual, lastNorm)[0];
  });
}

/** The residual stream, and the output of a layer that the next norm adds to it in the same kernel. */
interface Residual {
  readonly stream: Tensor;
  readonly more: Tensor | null;
}

/** Adds the output of the last layer to the stream. Returns the norm of the sum, and the sum. */
function addThenNorm(
  { traits: { norm }, config: { normEps } }: Architecture,
  { stream, more }: Residual,
  { weight, bias }: LayerParameters,
): [norm: Tensor, sum: Tensor] {
  if (more !== null) return addNorm(norm, stream, more, weight, bias, normEps);
  return [
    norm === "layer" ? layerNorm(stream, weight, bias, normEps) : rmsNorm(stream, weight, normEps),
    stream,
  ];
}

function runBlock(architecture: Architecture, block: BlockParameters, before: Residual): Residual {
  const { heads, kvHeads, dim, ropeTheta } = architecture.config;
  const { positions, mlp } = architecture.traits;
  const [outer, x] = addThenNorm(architecture, before, block.norm1);
  let qkv = project(outer, block.qkv);
  if (positions === "rotary")
    qkv = rope(qkv, { heads: heads + kvHeads, headDim: dim / heads, theta: ropeTheta });
  const attended = project(causalAttention(qkv, { heads, kvHeads }), block.out);
  const [inner, sum] = addThenNorm(architecture, { stream: x, more: attended }, block.norm2);
  const hidden = mlp === "gelu" ? project(inner, block.up, "gelu") : swiglu(project(inner, block.up));
  return { stream: sum, more: project(hidden, block.down) };
}

/** `runBlock` under a checkpoint, whose input and output are the stream alone. */
function recomputedBlock(
  architecture: Architecture,
  block: BlockParameters,
  { stream, more }: Residual,
): Residual {
  const after = checkpoint(
    (given: Tensor) => {
      const { stream: x, more: last } = runBlock(architecture, block, { stream: given, more: null });
      return last === null ? x : add(x, last);
    },
    more === null ? stream : add(stream, more),
  );
  return { stream: after, more: null };
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
