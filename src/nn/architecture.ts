/**
 * What a GPT is made of, as data: its layers in the order of the forward pass, each with the shape and the first values of its parameters. The model itself, its
 * parameters and the files of Hugging Face follow from here, so that a preset is a row of a table.
 */
import { keysOf } from "../keys.ts";
import type { ResolvedGPTConfig } from "./gpt.ts";
import type { Init, ParameterSpec } from "./parameters.ts";

/** Name of an architecture: Llama's, or that of GPT-2. */
export type PresetName = "llama" | "gpt2";

/** How the architectures differ. */
export interface Traits {
  readonly norm: "rms" | "layer";
  /** Linear layers, but for the head, and norms add a bias. */
  readonly biases: boolean;
  /** "rotary": queries and keys are rotated; "learned": a table is added to the embedding. */
  readonly positions: "rotary" | "learned";
  readonly mlp: "swiglu" | "gelu";
  /** Several query heads may share a key/value head. */
  readonly groupedHeads: boolean;
  /** Width inside the MLP where none is given. */
  readonly hiddenDim: (dim: number) => number;
}

/** Where no preset is named. */
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

/** The only look-up of a preset: what is built of one receives its traits. */
export function traitsOf(preset: PresetName): Traits {
  return presets[preset];
}

/** What a model, its parameters and its files are built of: a configuration with the traits of its preset. */
export interface Architecture {
  readonly config: ResolvedGPTConfig;
  readonly traits: Traits;
}

export function architectureOf(config: ResolvedGPTConfig): Architecture {
  return { config, traits: traitsOf(config.preset) };
}

/** What of the heads does not fit the width or the preset, or null. */
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

/** A layer with parameters: a `weight`, and maybe a `bias`. */
export interface Layer {
  readonly kind: "embedding" | "linear" | "norm";
  /** Inside of its block: "qkv". */
  readonly name: LayerName;
  /** Index of its block; null before the first; "after" the last. */
  readonly block: number | "after" | null;
  /** Rows of the weight; of a linear layer that packs several, those of each: query, key and value; gate and up. */
  readonly rows: readonly number[];
  /** Columns of the weight [rows, columns]; null for a norm's gain [rows]. */
  readonly columns: number | null;
  /** Of the weight; biases begin with 0. */
  readonly init: Init;
  readonly bias: boolean;
}

/** Layers outside of blocks, then those of a block. */
export type LayerName =
  "embedding" | "positions" | "norm" | "head" | "norm1" | "qkv" | "out" | "norm2" | "up" | "down";

/** What the names of a layer's parameters begin with: "blocks.0.qkv", "head". */
export function pathOf({ name, block }: Pick<Layer, "name" | "block">): string {
  return typeof block === "number" ? `blocks.${block}.${name}` : name;
}

/** The layers of a model, in the order of the forward pass. */
export function layersOf({ config, traits }: Architecture): Layer[] {
  const { vocabSize, dim, layers, heads, kvHeads, hiddenDim, context } = config;
  const { biases, positions, mlp } = traits;
  const headDim = dim / heads;
  const normal: Init = { kind: "normal", deviation: 0.02 };
  // Projections back into the residual stream start smaller with depth (GPT-2).
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

/** The parameters of a model. Weight decay applies to matrices. */
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
