/**
 * Models as Hugging Face folders: `LlamaForCausalLM` and `GPT2LMHeadModel` load what is written here and give the same logits.
 */
import { GradmixError } from "../errors.ts";
import { createGPT, type GPT, type GPTConfig, type ResolvedGPTConfig } from "./gpt.ts";
import { decodeSafetensors, encodeSafetensors, type StoredTensor } from "./safetensors.ts";

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
  const json = (value: unknown): Uint8Array =>
    new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
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

function configJson(config: ResolvedGPTConfig, endOfText: number | undefined): Record<string, unknown> {
  const special = endOfText === undefined ? {} : { bos_token_id: endOfText, eos_token_id: endOfText };
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

/** The model of a folder's files, on the current backend. Throws `data`, naming the file and what does not fit. */
export function fromHuggingFace(files: ReadonlyMap<string, Uint8Array>): GPT {
  const config = readConfig(files.get("config.json"));
  const bytes = files.get("model.safetensors");
  if (bytes === undefined) throw new GradmixError("data", "model.safetensors: the file is missing");
  const stored = decodeSafetensors(bytes);
  const model = createGPT(config);
  try {
    for (const { parameter, parts, transposed } of slots(model.config)) {
      const target = model.parameters.byName.get(parameter);
      if (target === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
      const values = new Float32Array(target.size);
      const cols = target.rank === 2 ? target.shape[1] : 1;
      let at = 0;
      for (const { name, rows } of parts) {
        const part = stored.get(name) ?? tiedHead(name, stored);
        if (part === undefined) throw new GradmixError("data", `model.safetensors: "${name}" is missing`);
        if (part.data.length !== rows * cols)
          throw new GradmixError(
            "data",
            `model.safetensors: "${name}" has the shape [${part.shape.join(", ")}]; config.json says ${rows} × ${cols}`,
          );
        values.set(transposed && target.rank === 2 ? transpose(part.data, cols, rows) : part.data, at);
        at += rows * cols;
      }
      target.write(values);
    }
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

/** Models with a tied head store the embedding only. */
function tiedHead(name: string, stored: ReadonlyMap<string, StoredTensor>): StoredTensor | undefined {
  if (name !== "lm_head.weight") return undefined;
  return stored.get("model.embed_tokens.weight") ?? stored.get("transformer.wte.weight");
}

function readConfig(bytes: Uint8Array | undefined): GPTConfig {
  if (bytes === undefined) throw new GradmixError("data", "config.json: the file is missing");
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new GradmixError("data", "config.json: it is not JSON");
  }
  const json = new Map<string, unknown>(Object.entries(parsed ?? {}));
  const number = (name: string, fallback?: number): number => {
    const value = json.get(name) ?? fallback;
    if (typeof value !== "number")
      throw new GradmixError(
        "data",
        `config.json: ${name} is ${JSON.stringify(json.get(name))}, not a number`,
      );
    return value;
  };
  const type = json.get("model_type");
  if (type === "llama")
    return {
      preset: "llama",
      vocabSize: number("vocab_size"),
      dim: number("hidden_size"),
      layers: number("num_hidden_layers"),
      heads: number("num_attention_heads"),
      kvHeads: number("num_key_value_heads", number("num_attention_heads")),
      hiddenDim: number("intermediate_size"),
      context: number("max_position_embeddings"),
      normEps: number("rms_norm_eps", 1e-6),
      ropeTheta: number("rope_theta", 10_000),
    };
  if (type === "gpt2")
    return {
      preset: "gpt2",
      vocabSize: number("vocab_size"),
      dim: number("n_embd"),
      layers: number("n_layer"),
      heads: number("n_head"),
      hiddenDim: number("n_inner", 4 * number("n_embd")),
      context: number("n_positions"),
      normEps: number("layer_norm_epsilon", 1e-5),
    };
  throw new GradmixError(
    "data",
    `config.json: model_type ${JSON.stringify(type)} cannot be read; "llama" and "gpt2" can`,
  );
}
