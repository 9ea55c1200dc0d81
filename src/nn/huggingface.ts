/**
 * Models as Hugging Face folders: `LlamaForCausalLM` and `GPT2LMHeadModel` load what is written here and give the same logits.
 */
import { GradmixError } from "../errors.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { createGPT, type GPT, type GPTConfig, type ResolvedGPTConfig, resolveGPTConfig } from "./gpt.ts";
import { type ByteSource, decodeSafetensors, encodeSafetensors, type StoredTensor } from "./safetensors.ts";

/** File name → contents. */
export type ModelFiles = Map<string, Uint8Array>;

export interface SpecialTokens {
  /** Id of the end-of-text token, which also begins a text. */
  readonly endOfText?: number;
}

/** How one of our parameters is stored: parts of it under names, each [rows], transposed for GPT-2's Conv1D. */
interface Slot {
  readonly parameter: string;
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
  readonly transposed: boolean;
}

function slots(config: ResolvedGPTConfig): Slot[] {
  const { preset, dim, heads, kvHeads, hiddenDim, vocabSize, context, layers } = config;
  const out: Slot[] = [];
  const whole = (parameter: string, name: string, rows: number, transposed = false): void => {
    out.push({ parameter, parts: [{ name, rows }], transposed });
  };
  if (preset === "llama") {
    const headDim = dim / heads;
    whole("embedding.weight", "model.embed_tokens.weight", vocabSize);
    for (let i = 0; i < layers; i++) {
      const [ours, theirs] = [`blocks.${i}.`, `model.layers.${i}.`];
      whole(`${ours}norm1.weight`, `${theirs}input_layernorm.weight`, dim);
      out.push({
        parameter: `${ours}qkv.weight`,
        parts: [
          { name: `${theirs}self_attn.q_proj.weight`, rows: heads * headDim },
          { name: `${theirs}self_attn.k_proj.weight`, rows: kvHeads * headDim },
          { name: `${theirs}self_attn.v_proj.weight`, rows: kvHeads * headDim },
        ],
        transposed: false,
      });
      whole(`${ours}out.weight`, `${theirs}self_attn.o_proj.weight`, dim);
      whole(`${ours}norm2.weight`, `${theirs}post_attention_layernorm.weight`, dim);
      out.push({
        parameter: `${ours}up.weight`,
        parts: [
          { name: `${theirs}mlp.gate_proj.weight`, rows: hiddenDim },
          { name: `${theirs}mlp.up_proj.weight`, rows: hiddenDim },
        ],
        transposed: false,
      });
      whole(`${ours}down.weight`, `${theirs}mlp.down_proj.weight`, dim);
    }
    whole("norm.weight", "model.norm.weight", dim);
  } else {
    whole("embedding.weight", "transformer.wte.weight", vocabSize);
    whole("positions.weight", "transformer.wpe.weight", context);
    for (let i = 0; i < layers; i++) {
      const [ours, theirs] = [`blocks.${i}.`, `transformer.h.${i}.`];
      for (const [norm, name] of [
        ["norm1", "ln_1"],
        ["norm2", "ln_2"],
      ]) {
        whole(`${ours}${norm}.weight`, `${theirs}${name}.weight`, dim);
        whole(`${ours}${norm}.bias`, `${theirs}${name}.bias`, dim);
      }
      const linears: [string, string, number][] = [
        ["qkv", "attn.c_attn", 3 * dim],
        ["out", "attn.c_proj", dim],
        ["up", "mlp.c_fc", hiddenDim],
        ["down", "mlp.c_proj", dim],
      ];
      for (const [linear, name, rows] of linears) {
        whole(`${ours}${linear}.weight`, `${theirs}${name}.weight`, rows, true);
        whole(`${ours}${linear}.bias`, `${theirs}${name}.bias`, rows);
      }
    }
    whole("norm.weight", "transformer.ln_f.weight", dim);
    whole("norm.bias", "transformer.ln_f.bias", dim);
  }
  whole("head.weight", "lm_head.weight", vocabSize);
  return out;
}

function transpose(data: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = data[r * cols + c];
  return out;
}

/** The files of a model: weights, configuration, and the tokenizer when its `tokenizer.json` is given. */
export async function toHuggingFace(
  model: GPT,
  options: SpecialTokens & { readonly tokenizer?: unknown } = {},
): Promise<ModelFiles> {
  const stored = new Map<string, StoredTensor>();
  for (const { parameter, parts, transposed } of slots(model.config)) {
    const source = model.parameters.byName.get(parameter);
    if (source === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
    const values = Float32Array.from(await source.data());
    const cols = source.rank === 2 ? source.shape[1] : 1;
    let row = 0;
    for (const { name, rows } of parts) {
      const part = values.slice(row * cols, (row + rows) * cols);
      row += rows;
      if (source.rank === 1) stored.set(name, { shape: [rows], data: part });
      else if (transposed) stored.set(name, { shape: [cols, rows], data: transpose(part, rows, cols) });
      else stored.set(name, { shape: [rows, cols], data: part });
    }
  }
  const json = (value: unknown): Uint8Array => new TextEncoder().encode(jsonText(value));
  const files: ModelFiles = new Map([
    ["model.safetensors", encodeSafetensors(stored)],
    ["config.json", json(configJson(model.config, options.endOfText))],
  ]);
  if (options.endOfText !== undefined)
    files.set(
      "generation_config.json",
      json({ bos_token_id: options.endOfText, eos_token_id: options.endOfText, do_sample: true }),
    );
  if (options.tokenizer !== undefined) {
    files.set("tokenizer.json", json(options.tokenizer));
    files.set(
      "tokenizer_config.json",
      json({
        tokenizer_class: "PreTrainedTokenizerFast",
        model_max_length: model.config.context,
        ...(options.endOfText === undefined
          ? {}
          : { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" }),
        clean_up_tokenization_spaces: false,
      }),
    );
  }
  return files;
}

/** Keys whose values `transformers` wants as floats: its configurations check types, and take no 0 for 0.0. */
const FLOATS =
  /^( *"(?:rope_theta|rms_norm_eps|layer_norm_epsilon|resid_pdrop|embd_pdrop|attn_pdrop)": \d+)(,?)$/gm;

function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2).replace(FLOATS, "$1.0$2")}\n`;
}

function configJson(config: ResolvedGPTConfig, endOfText: number | undefined): Record<string, unknown> {
  // Without them `transformers` assumes ids of another tokenizer.
  const special = { bos_token_id: endOfText ?? null, eos_token_id: endOfText ?? null };
  if (config.preset === "llama")
    return {
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      vocab_size: config.vocabSize,
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
      tie_word_embeddings: false,
      torch_dtype: "float32",
      ...special,
    };
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: config.vocabSize,
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
    tie_word_embeddings: false,
    torch_dtype: "float32",
    ...special,
  };
}

/**
 * The model of a folder's files, on the current backend: `config.json` and one or several `.safetensors` (F32, F16 or BF16), with a head of
 * its own or tied to the embedding, with or without the prefix of the base model. Weights of a `ByteSource` are read tensor by tensor. Throws `data`, naming the file and what does not fit or
 * cannot be computed here.
 */
export function fromHuggingFace(files: ReadonlyMap<string, Uint8Array | ByteSource>): GPT {
  const { config, tied } = readConfig(files.get("config.json"));
  const names = slots(config).flatMap(({ parts }) => parts.map(({ name }) => name));
  const stored = readWeights(files, new Set(names.map(baseName)));
  const find = (name: string): StoredTensor | undefined =>
    stored.get(baseName(name)) ??
    (tied && name === "lm_head.weight"
      ? stored.get(config.preset === "llama" ? "embed_tokens.weight" : "wte.weight")
      : undefined);
  const model = createGPT(config);
  try {
    for (const { parameter, parts, transposed } of slots(config)) {
      const target = model.parameters.byName.get(parameter);
      if (target === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
      const values = new Float32Array(target.size);
      const flip = transposed && target.rank === 2;
      let at = 0;
      for (const { name, rows } of parts) {
        const part = find(name);
        if (part === undefined)
          throw new GradmixError("data", `model.safetensors: the tensor "${name}" is missing`);
        const ours = [rows, ...target.shape.slice(1)];
        const theirs = flip ? ours.toReversed() : ours;
        if (!sameShape(part.shape, theirs))
          throw new GradmixError(
            "data",
            `model.safetensors: "${name}" has the shape ${formatShape(part.shape)}; by config.json it is ${formatShape(theirs)}`,
          );
        values.set(flip ? transpose(part.data, theirs[0], theirs[1]) : part.data, at);
        at += part.data.length;
      }
      target.write(values);
    }
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

/** Names inside of the base model: checkpoints of it alone lack the prefix. */
const baseName = (name: string): string => name.replace(/^(?:model|transformer)\./, "");

/** The tensors of all `.safetensors` files by their base names; only `wanted` ones, as checkpoints also hold masks and tables. */
function readWeights(
  files: ReadonlyMap<string, Uint8Array | ByteSource>,
  wanted: ReadonlySet<string>,
): Map<string, StoredTensor> {
  const stored = new Map<string, StoredTensor>();
  const found = [...files].filter(([file]) => file.endsWith(".safetensors"));
  if (found.length === 0) throw new GradmixError("data", "model.safetensors: the file is missing");
  for (const [file, bytes] of found)
    for (const [name, tensor] of decodeSafetensors(bytes, file, (name) => wanted.has(baseName(name))))
      stored.set(baseName(name), tensor);
  return stored;
}

/** The configuration, and whether the head may be the embedding. Refuses what this model would compute otherwise. */
function readConfig(file: Uint8Array | ByteSource | undefined): { config: ResolvedGPTConfig; tied: boolean } {
  const wrong = (what: string): GradmixError => new GradmixError("data", `config.json: ${what}`);
  if (file === undefined) throw wrong("the file is missing");
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file.size);
  if (!(file instanceof Uint8Array)) file.read(0, bytes);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw wrong("it is not JSON");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw wrong("it is not an object");
  const json = new Map<string, unknown>(Object.entries(parsed));
  const show = (value: unknown): string => JSON.stringify(value) ?? "missing";
  const number = (name: string, fallback?: number): number => {
    const value = json.get(name) ?? fallback;
    if (typeof value !== "number") throw wrong(`${name} is ${show(json.get(name))}, not a number`);
    return value;
  };
  /** A key that is missing or null means the first of the values. */
  const only = (name: string, ...values: readonly unknown[]): void => {
    const value = json.get(name) ?? values[0];
    if (!values.includes(value))
      throw wrong(`${name} is ${show(value)}; only ${values.map(show).join(" or ")} can be computed`);
  };
  const resolve = (config: GPTConfig, tied: boolean): { config: ResolvedGPTConfig; tied: boolean } => {
    try {
      return { config: resolveGPTConfig(config), tied: (json.get("tie_word_embeddings") ?? tied) === true };
    } catch (error) {
      throw error instanceof GradmixError ? wrong(`it describes no model here: ${error.message}`) : error;
    }
  };
  const type = json.get("model_type");
  if (type === "llama") {
    const [dim, heads] = [number("hidden_size"), number("num_attention_heads")];
    only("hidden_act", "silu", "swish");
    only("attention_bias", false);
    only("mlp_bias", false);
    only("head_dim", dim / heads);
    return resolve(
      {
        preset: "llama",
        vocabSize: number("vocab_size"),
        dim,
        layers: number("num_hidden_layers"),
        heads,
        kvHeads: number("num_key_value_heads", heads),
        hiddenDim: number("intermediate_size"),
        context: number("max_position_embeddings"),
        normEps: number("rms_norm_eps", 1e-6),
        ropeTheta: ropeTheta(json, wrong),
      },
      false,
    );
  }
  if (type === "gpt2") {
    const dim = number("n_embd");
    only("activation_function", "gelu_new", "gelu_pytorch_tanh");
    only("scale_attn_weights", true);
    only("scale_attn_by_inverse_layer_idx", false);
    return resolve(
      {
        preset: "gpt2",
        vocabSize: number("vocab_size"),
        dim,
        layers: number("n_layer"),
        heads: number("n_head"),
        hiddenDim: number("n_inner", 4 * dim),
        context: number("n_positions"),
        normEps: number("layer_norm_epsilon", 1e-5),
      },
      true,
    );
  }
  throw wrong(`model_type is ${show(type)}; "llama" and "gpt2" can be read`);
}

/** The base of the rotary angles: `rope_theta`, beside the other keys or (transformers 5) in `rope_parameters`. */
function ropeTheta(json: ReadonlyMap<string, unknown>, wrong: (what: string) => GradmixError): number {
  let theta = json.get("rope_theta");
  for (const name of ["rope_scaling", "rope_parameters"]) {
    const value: unknown = json.get(name) ?? {};
    if (typeof value !== "object" || value === null) throw wrong(`${name} is not an object`);
    const inner = new Map<string, unknown>(Object.entries(value));
    const kind = inner.get("rope_type") ?? inner.get("type") ?? "default";
    if (kind !== "default")
      throw wrong(`${name} scales positions by ${JSON.stringify(kind)}; only "default" can be computed`);
    theta ??= inner.get("rope_theta");
  }
  theta ??= 10_000;
  if (typeof theta !== "number") throw wrong(`rope_theta is ${JSON.stringify(theta)}, not a number`);
  return theta;
}

/** What `config.json` says of the model. Throws as `fromHuggingFace` does. */
export function huggingFaceConfig(files: ReadonlyMap<string, Uint8Array | ByteSource>): ResolvedGPTConfig {
  return readConfig(files.get("config.json")).config;
}
