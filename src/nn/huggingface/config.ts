/** The config.json of the models that `transformers` stores: the keys of each architecture, which are written, and which are read and checked. */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import {
  boolean,
  converted,
  number,
  object,
  oneOf,
  orNull,
  parse,
  problem,
  type Schema,
  string,
} from "../../schema.ts";
import { type LayerName, type PresetName, presetNames } from "../architecture.ts";
import { type GPTConfig, type ResolvedGPTConfig, resolveGPTConfig } from "../gpt.ts";

/** How `transformers` stores the models of one preset. */
export interface Format {
  readonly architecture: string;
  /** Prefix of the names of all tensors except the head. */
  readonly base: string;
  /** Name of the list of blocks in the names of tensors. */
  readonly blocks: string;
  /** Key of config.json with the number of blocks. */
  readonly blockCount: string;
  /** Stored names of each layer. A layer that packs several layers which are stored separately has a name for each. */
  readonly names: Readonly<Partial<Record<LayerName, readonly string[]>>>;
  /** Whether linear layers in blocks are stored as [in, out], like GPT-2's Conv1D. */
  readonly transposed: boolean;
  /** Whether the head is tied to the embedding if config.json does not specify it. */
  readonly tied: boolean;
  /** The keys of config.json that are specific to this architecture. */
  write(config: ResolvedGPTConfig): Record<string, unknown>;
  /** Reads a config.json. */
  readonly read: Schema<GPTConfig>;
}

/** Accepts a key of config.json only with the given values, because no others are supported. A key that is missing or null has the first value. */
function only(...values: readonly unknown[]): Schema<unknown> {
  return (value, at) => {
    const found = value ?? values[0];
    if (!values.includes(found))
      throw problem(at, `is ${show(found)}; only ${values.map(show).join(" or ")} is supported`);
    return found;
  };
}

/** Accepts a number; `otherwise` if the key is missing or null. */
const orElse = (otherwise: number): Schema<number> =>
  converted(orNull(number), (found) => found ?? otherwise);

/** The base of the rotary angles: the key `rope_theta`, or in transformers 5 the member of that name in `rope_parameters`. Default 10,000. */
const ropeTheta: Schema<number> = (value, at) => {
  const { rope_theta: theta, rope_scaling: scaling, rope_parameters: parameters } = ropeKeys(value, at);
  return theta ?? scaling ?? parameters ?? 10_000;
};

/** The base in an object that describes how positions are scaled; null if it has none. Refuses every scaling other than "default". */
const ropeScaling: Schema<number | null> = (value, at) => {
  const { rope_type: type, type: older, rope_theta: theta } = ropeFields(value, at);
  const kind = type ?? older ?? "default";
  if (kind !== "default") throw problem(at, `scales positions by "${kind}"; only "default" is supported`);
  return theta;
};
const ropeFields = object<{ rope_type: string | null; type: string | null; rope_theta: number | null }>({
  rope_type: orNull(string),
  type: orNull(string),
  rope_theta: orNull(number),
});
const ropeKeys = object<Record<"rope_theta" | "rope_scaling" | "rope_parameters", number | null>>({
  rope_theta: orNull(number),
  rope_scaling: orNull(ropeScaling),
  rope_parameters: orNull(ropeScaling),
});

const llamaNumbers = object<{
  vocab_size: number;
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number | null;
  intermediate_size: number;
  max_position_embeddings: number;
  rms_norm_eps: number;
}>({
  vocab_size: number,
  hidden_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  num_key_value_heads: orNull(number),
  intermediate_size: number,
  max_position_embeddings: number,
  rms_norm_eps: orElse(1e-6),
});

const llamaComputed = (headDim: number): Schema<unknown> =>
  object<Record<string, unknown>>({
    hidden_act: only("silu", "swish"),
    attention_bias: only(false),
    mlp_bias: only(false),
    head_dim: only(headDim),
    partial_rotary_factor: only(1),
  });

const gpt2Numbers = object<{
  vocab_size: number;
  n_embd: number;
  n_layer: number;
  n_head: number;
  n_inner: number | null;
  n_positions: number;
  layer_norm_epsilon: number;
}>({
  vocab_size: number,
  n_embd: number,
  n_layer: number,
  n_head: number,
  n_inner: orNull(number),
  n_positions: number,
  layer_norm_epsilon: orElse(1e-5),
});

const gpt2Computed = object<Record<string, unknown>>({
  activation_function: only("gelu_new", "gelu_pytorch_tanh"),
  scale_attn_weights: only(true),
  scale_attn_by_inverse_layer_idx: only(false),
  add_cross_attention: only(false),
});

const formats: Readonly<Record<PresetName, Format>> = {
  llama: {
    architecture: "LlamaForCausalLM",
    base: "model.",
    blocks: "layers",
    blockCount: "num_hidden_layers",
    names: {
      embedding: ["embed_tokens"],
      norm1: ["input_layernorm"],
      qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      out: ["self_attn.o_proj"],
      norm2: ["post_attention_layernorm"],
      up: ["mlp.gate_proj", "mlp.up_proj"],
      down: ["mlp.down_proj"],
      norm: ["norm"],
    },
    transposed: false,
    tied: false,
    write: (config) => ({
      hidden_size: config.dim,
      intermediate_size: config.hiddenDim,
      num_hidden_layers: config.layers,
      num_attention_heads: config.heads,
      num_key_value_heads: config.kvHeads,
      head_dim: config.dim / config.heads,
      max_position_embeddings: config.context,
      rms_norm_eps: config.normEps,
      rope_theta: config.ropeTheta,
      hidden_act: "silu",
      attention_bias: false,
      mlp_bias: false,
    }),
    read(value, at) {
      const json = llamaNumbers(value, at);
      const { hidden_size: dim, num_attention_heads: heads } = json;
      llamaComputed(dim / heads)(value, at);
      return {
        preset: "llama",
        vocabSize: json.vocab_size,
        dim,
        layers: json.num_hidden_layers,
        heads,
        kvHeads: json.num_key_value_heads ?? heads,
        hiddenDim: json.intermediate_size,
        context: json.max_position_embeddings,
        normEps: json.rms_norm_eps,
        ropeTheta: ropeTheta(value, at),
      };
    },
  },
  gpt2: {
    architecture: "GPT2LMHeadModel",
    base: "transformer.",
    blocks: "h",
    blockCount: "n_layer",
    names: {
      embedding: ["wte"],
      positions: ["wpe"],
      norm1: ["ln_1"],
      qkv: ["attn.c_attn"],
      out: ["attn.c_proj"],
      norm2: ["ln_2"],
      up: ["mlp.c_fc"],
      down: ["mlp.c_proj"],
      norm: ["ln_f"],
    },
    transposed: true,
    tied: true,
    write: (config) => ({
      n_embd: config.dim,
      n_inner: config.hiddenDim,
      n_layer: config.layers,
      n_head: config.heads,
      n_positions: config.context,
      n_ctx: config.context,
      layer_norm_epsilon: config.normEps,
      activation_function: "gelu_new",
      resid_pdrop: 0,
      embd_pdrop: 0,
      attn_pdrop: 0,
    }),
    read(value, at) {
      const json = gpt2Numbers(value, at);
      gpt2Computed(value, at);
      return {
        preset: "gpt2",
        vocabSize: json.vocab_size,
        dim: json.n_embd,
        layers: json.n_layer,
        heads: json.n_head,
        hiddenDim: json.n_inner ?? 4 * json.n_embd,
        context: json.n_positions,
        normEps: json.layer_norm_epsilon,
      };
    },
  },
};

/** The format of a preset. Nothing else in this folder depends on the preset. */
export function formatOf(preset: PresetName): Format {
  return formats[preset];
}

/** The contents of config.json for a model whose head is stored separately. */
export function configJson(
  config: ResolvedGPTConfig,
  endOfText: number | undefined,
): Record<string, unknown> {
  const format = formatOf(config.preset);
  return {
    architectures: [format.architecture],
    model_type: config.preset,
    vocab_size: config.vocabSize,
    ...format.write(config),
    tie_word_embeddings: false,
    torch_dtype: "float32",
    // If these keys are missing, `transformers` assumes the ids of another tokenizer.
    bos_token_id: endOfText ?? null,
    eos_token_id: endOfText ?? null,
  };
}

/** A config.json after all checks. */
export interface ReadConfig {
  readonly config: ResolvedGPTConfig;
  /** Whether the head is tied to the embedding. */
  readonly tied: boolean;
}

/** Schema of config.json. Refuses keys for which this model would compute different results. */
export const huggingFaceJson: Schema<ReadConfig> = (value, at) => {
  const { model_type: preset, tie_word_embeddings: tied } = configKeys(value, at);
  const format = formatOf(preset);
  const config = format.read(value, at);
  try {
    return { config: resolveGPTConfig(config), tied: tied ?? format.tied };
  } catch (error) {
    throw error instanceof GradmixError
      ? problem(at, `describes a model that gradmix does not have: ${error.message}`)
      : error;
  }
};

const configKeys = object<{
  quantization_config: unknown;
  model_type: PresetName;
  tie_word_embeddings: boolean | null;
}>({
  quantization_config: only(null),
  model_type: oneOf(...presetNames),
  tie_word_embeddings: orNull(boolean),
});

/** Reads and checks a config.json. Throws `data`, naming the key. */
export function readConfig(bytes: Uint8Array | undefined): ReadConfig {
  if (bytes === undefined) throw new GradmixError("data", "config.json: the file is missing");
  return parse(huggingFaceJson, bytes, { source: "config.json", code: "data" });
}
