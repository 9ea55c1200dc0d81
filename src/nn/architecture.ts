/**
 * The architecture of a GPT as data: its layers in the order of the forward pass, each with the shapes and the initial values of its parameters. The model, its
 * parameters and the files of Hugging Face are derived from this data, so a new preset is a row of a table.
 */
import { keysOf } from "../keys.ts";
import type { ResolvedGPTConfig } from "./gpt.ts";
import type { Init, ParameterSpec } from "./parameters.ts";

/** Name of an architecture: that of Llama, or that of GPT-2. */
export type PresetName = "llama" | "gpt2";

/** The differences between the architectures. */
export interface Traits {
  /** Kind of the norms: RMSNorm or LayerNorm. */
  readonly norm: "rms" | "layer";
  /** Whether norms, and linear layers except the head, have a bias. */
  readonly biases: boolean;
  /** How positions are encoded. "rotary": queries and keys are rotated; "learned": a table of learned vectors is added to the embedding. */
  readonly positions: "rotary" | "learned";
  readonly mlp: "swiglu" | "gelu";
  /** Whether several query heads may share a key/value head. */
  readonly groupedHeads: boolean;
  /** Default width of the hidden layer of the MLP, for a model of width `dim`. */
  readonly hiddenDim: (dim: number) => number;
}

/** The preset of a configuration that names none. */
export const defaultPreset: PresetName = "llama";

const presets: Readonly<Record<PresetName, Traits>> = {
  llama: {
    norm: "rms",
    biases: false,
    positions: "rotary",
    mlp: "swiglu",
    groupedHeads: true,
    hiddenDim: (dim) => Math.ceil((8 * dim) / 3 / 32) * 32,
  },
  gpt2: {
    norm: "layer",
    biases: true,
    positions: "learned",
    mlp: "gelu",
    groupedHeads: false,
    hiddenDim: (dim) => 4 * dim,
  },
};

export const presetNames: readonly PresetName[] = keysOf(presets);

/** The traits of a preset. All code that depends on the preset receives its traits. */
export function traitsOf(preset: PresetName): Traits {
  return presets[preset];
}

/** A configuration with the traits of its preset. A model, its parameters and its files are derived from it. */
export interface Architecture {
  readonly config: ResolvedGPTConfig;
  readonly traits: Traits;
}

export function architectureOf(config: ResolvedGPTConfig): Architecture {
  return { config, traits: traitsOf(config.preset) };
}

/** The problem of a number of heads that does not fit the width or the preset, with the field that causes it; null if both numbers fit. */
export function headsMisfit(
  { preset, dim, heads, kvHeads }: Pick<ResolvedGPTConfig, "preset" | "dim" | "heads" | "kvHeads">,
  { groupedHeads, positions }: Traits,
): {
  field: "heads" | "kvHeads";
  problem: string;
} | null {
  if (dim % heads !== 0) return { field: "heads", problem: `${heads} does not divide dim ${dim}` };
  if (heads % kvHeads !== 0)
    return { field: "kvHeads", problem: `${kvHeads} does not divide heads ${heads}` };
  if (!groupedHeads && kvHeads !== heads)
    return { field: "kvHeads", problem: `${preset} has no grouped heads; leave it out or use ${heads}` };
  if (positions === "rotary" && (dim / heads) % 2 !== 0)
    return {
      field: "heads",
      problem: `rotary positions need an even head width, not ${dim / heads} (dim ${dim} / heads ${heads})`,
    };
  return null;
}

/** A layer with parameters: a `weight`, and a `bias` if `bias` is true. */
export interface Layer {
  readonly kind: "embedding" | "linear" | "norm";
  /** Name of the layer inside its block, such as "qkv". */
  readonly name: LayerName;
  /** Index of its block; null for a layer before the first block, "after" for a layer after the last. */
  readonly block: number | "after" | null;
  /** Number of rows of the weight. A linear layer that packs several layers has a number for each: query, key and value; gate and up. */
  readonly rows: readonly number[];
  /** Number of columns of the weight [rows, columns]; null for the gain [rows] of a norm. */
  readonly columns: number | null;
  /** Initial values of the weight; biases are initialised with 0. */
  readonly init: Init;
  /** Whether the layer has a bias. */
  readonly bias: boolean;
}

/** Names of layers: first those outside blocks, then those of a block. */
export type LayerName =
  "embedding" | "positions" | "norm" | "head" | "norm1" | "qkv" | "out" | "norm2" | "up" | "down";

/** Prefix of the names of a layer's parameters, such as "blocks.0.qkv" or "head". */
export function pathOf({ name, block }: Pick<Layer, "name" | "block">): string {
  return typeof block === "number" ? `blocks.${block}.${name}` : name;
}

/** The layers of a model, in the order of the forward pass. */
export function layersOf({ config, traits }: Architecture): Layer[] {
  const { vocabSize, dim, layers, heads, kvHeads, hiddenDim, context } = config;
  const { biases, positions, mlp } = traits;
  const headDim = dim / heads;
  const normal: Init = { kind: "normal", deviation: 0.02 };
  // Projections into the residual stream have smaller initial values in deeper models (GPT-2).
  const residual: Init = { kind: "normal", deviation: 0.02 / Math.sqrt(2 * layers) };
  const table = (name: LayerName, rows: number): Layer => ({
    ...{ kind: "embedding", name, block: null },
    ...{ rows: [rows], columns: dim, init: normal, bias: false },
  });
  const norm = (name: LayerName, block: Layer["block"]): Layer => ({
    ...{ kind: "norm", name, block },
    ...{ rows: [dim], columns: null, init: { kind: "constant", value: 1 }, bias: biases },
  });
  const linear = (
    name: LayerName,
    block: Layer["block"],
    rows: readonly number[],
    columns: number,
    init: Init = normal,
  ): Layer => ({ kind: "linear", name, block, rows, columns, init, bias: biases && name !== "head" });
  const blockOf = (i: number): Layer[] => [
    norm("norm1", i),
    linear("qkv", i, [heads, kvHeads, kvHeads].map((count) => count * headDim), dim), // prettier-ignore
    linear("out", i, [dim], dim, residual),
    norm("norm2", i),
    linear("up", i, mlp === "swiglu" ? [hiddenDim, hiddenDim] : [hiddenDim], dim),
    linear("down", i, [dim], hiddenDim, residual),
  ];
  return [
    table("embedding", vocabSize),
    ...(positions === "learned" ? [table("positions", context)] : []),
    ...Array.from({ length: layers }, (_, i) => blockOf(i)).flat(),
    norm("norm", "after"),
    linear("head", "after", [vocabSize], dim),
  ];
}

/** The specifications of a model's parameters. Weight decay applies to matrices, including embeddings, and not to gains and biases. */
export function gptSpecs(architecture: Architecture): ParameterSpec[] {
  return layersOf(architecture).flatMap((layer) => {
    const { rows, columns, init, bias, block } = layer;
    const path = pathOf(layer);
    const height = rows.reduce((a, b) => a + b, 0);
    const place = block === null ? {} : { block };
    const weight: ParameterSpec = {
      name: `${path}.weight`,
      shape: columns === null ? [height] : [height, columns],
      init,
      decay: columns !== null,
      ...place,
    };
    if (!bias) return [weight];
    const zero: Init = { kind: "constant", value: 0 };
    return [weight, { name: `${path}.bias`, shape: [height], init: zero, decay: false, ...place }];
  });
}
