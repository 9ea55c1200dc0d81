/** Options of the model, and of the model whose parameters it starts from. */
import { defaultPreset, presetNames } from "../../nn/architecture.ts";
import { choice, text, integer } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

export const modelOptions: SectionTable<"model"> = {
  preset: {
    flag: "--preset",
    value: "llama|gpt2",
    kind: choice(presetNames),
    default: defaultPreset,
    help: "llama: RMSNorm, RoPE, SwiGLU, no biases; gpt2: LayerNorm, biases, learned positions, GELU",
  },
  dim: { flag: "--dim", value: "N", kind: integer(1, 65_536), default: 128, help: "width of the model" },
  layers: { flag: "--layers", value: "N", kind: integer(1, 1024), default: 4, help: "transformer blocks" },
  heads: {
    flag: "--heads",
    value: "N",
    kind: integer(1, 1024),
    default: 4,
    help: "attention heads; must divide --dim",
  },
  kvHeads: {
    flag: "--kv-heads",
    value: "N",
    kind: integer(1, 1024),
    default: null,
    auto: "as many as heads",
    help: "key/value heads; must divide --heads (llama only)",
  },
  hiddenDim: {
    flag: "--hidden-dim",
    value: "N",
    kind: integer(1, 1_048_576),
    default: null,
    auto: "derived from the width",
    help: "hidden width of the MLP",
  },
  context: {
    flag: "--context",
    value: "T",
    kind: integer(2, 65_536),
    default: 128,
    help: "tokens per training window",
  },
  initFrom: {
    flag: "--init-from",
    value: "PATH",
    kind: text,
    default: null,
    auto: "random parameters",
    help: "start from the parameters of another model: the folder of a run (its last checkpoint; RUN/best is the model that --keep-best kept), one checkpoint, or a Hugging Face folder. The run then uses the tokenizer of that model, and its values for the options above",
  },
};
