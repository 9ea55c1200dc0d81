/**
 * Writes and reads models as Hugging Face folders. `LlamaForCausalLM` and `GPT2LMHeadModel` load the written files and give the same logits.
 */
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn, show, unchecked } from "../options.ts";
import {
  boolean,
  faultOf,
  converted,
  map,
  number,
  object,
  oneOf,
  orNull,
  parse,
  problem,
  type Schema,
  string,
} from "../schema.ts";
import { formatShape, sameShape, type Shape } from "../tensor/shape.ts";
import {
  type Architecture,
  architectureOf,
  gptSpecs,
  type Layer,
  type LayerName,
  layersOf,
  pathOf,
  type PresetName,
  presetNames,
} from "./architecture.ts";
import { createGPT, type GPT, type GPTConfig, type ResolvedGPTConfig, resolveGPTConfig } from "./gpt.ts";
import { type ByteSource, encodeSafetensors, openSafetensors, type StoredTensor } from "./safetensors.ts";

/** The files of a folder: contents by file name. */
export type ModelFiles = Map<string, Uint8Array>;

/** Ids of special tokens, for Hugging Face's configuration. */
export interface SpecialTokens {
  /** Id of the end-of-text token, which is also the beginning-of-text token. Default: config.json has null for both. */
  readonly endOfText?: number;
}

/** How a parameter is stored: as parts with names, each of so many of its rows; transposed for GPT-2's Conv1D. */
interface Slot {
  readonly parameter: string;
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
  readonly transposed: boolean;
}

/** How `transformers` stores the models of one preset. */
interface Format {
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

/** The format of a preset; no other code in this module depends on the preset. */
function formatOf(preset: PresetName): Format {
  return formats[preset];
}

const HEAD = "lm_head";

/** The stored names of a layer, without ".weight" and ".bias". */
function storedNames(
  { name, block }: Pick<Layer, "name" | "block">,
  { base, blocks, names }: Format,
): readonly string[] {
  if (name === "head") return [HEAD];
  const place = typeof block === "number" ? `${base}${blocks}.${block}.` : base;
  return (names[name] ?? []).map((own) => place + own);
}

/** The architecture of a model and the format that it is stored in. */
interface Storage {
  readonly architecture: Architecture;
  readonly format: Format;
}

const storageOf = (config: ResolvedGPTConfig): Storage => ({
  architecture: architectureOf(config),
  format: formatOf(config.preset),
});

function slots({ architecture, format }: Storage): Slot[] {
  const { transposed } = format;
  return layersOf(architecture).flatMap((layer) => {
    const names = storedNames(layer, format);
    // If a layer has one stored name, its parts are stored as one tensor.
    const rows = names.length === 1 ? [layer.rows.reduce((a, b) => a + b, 0)] : layer.rows;
    const slot = (kind: "weight" | "bias"): Slot => ({
      parameter: `${pathOf(layer)}.${kind}`,
      parts: names.map((name, i) => ({ name: `${name}.${kind}`, rows: rows[i]! })),
      transposed: transposed && kind === "weight" && layer.kind === "linear" && layer.name !== "head",
    });
    return layer.bias ? [slot("weight"), slot("bias")] : [slot("weight")];
  });
}

function transpose(data: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = data[r * cols + c]!;
  return out;
}

/**
 * Makes the files of a model: `model.safetensors` (F32), `config.json` and, if `endOfText` is given, `generation_config.json`. `tokenizer` is the parsed
 * content of a `tokenizer.json`; if it is given, the files of the tokenizer are added. Throws `config` for options that do not fit.
 */
export async function toHuggingFace(
  model: GPT,
  options: SpecialTokens & { readonly tokenizer?: unknown } = {},
): Promise<ModelFiles> {
  checkOptions("toHuggingFace", options, { endOfText: integerIn(0), tokenizer: unchecked });
  const stored = new Map<string, StoredTensor>();
  const storage = storageOf(model.config);
  for (const { parameter, parts, transposed } of slots(storage)) {
    const source = model.parameters.byName.get(parameter);
    if (source === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
    const values = Float32Array.from(await source.data());
    const cols = source.rank === 2 ? source.shape[1]! : 1;
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
    ["config.json", json(configJson(storage, options.endOfText))],
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
          : {
              bos_token: tokenName(options.tokenizer, options.endOfText),
              eos_token: tokenName(options.tokenizer, options.endOfText),
            }),
        clean_up_tokenization_spaces: false,
      }),
    );
  }
  return files;
}

/** The text of a token in a `tokenizer.json`; "<|endoftext|>" if the file has no token with the id. */
function tokenName(tokenizer: unknown, id: number): string {
  const fields = (value: unknown): [string, unknown][] =>
    typeof value === "object" && value !== null ? Object.entries(value) : [];
  const of = (value: unknown, name: string): unknown => new Map(fields(value)).get(name);
  const added = fields(of(tokenizer, "added_tokens")).find(([, token]) => of(token, "id") === id);
  const content = added === undefined ? undefined : of(added[1], "content");
  if (typeof content === "string") return content;
  return fields(of(of(tokenizer, "model"), "vocab")).find(([, own]) => own === id)?.[0] ?? "<|endoftext|>";
}

/** Matches keys whose values must be floats: `transformers` checks types and does not accept 0 for 0.0. */
const FLOATS =
  /^( *"(?:rope_theta|rms_norm_eps|layer_norm_epsilon|resid_pdrop|embd_pdrop|attn_pdrop)": \d+)(,?)$/gm;

function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2).replace(FLOATS, "$1.0$2")}\n`;
}

function configJson(
  { architecture: { config }, format }: Storage,
  endOfText: number | undefined,
): Record<string, unknown> {
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

/**
 * Makes a model on the current backend from the files of a folder: `config.json` and weights as `.safetensors` (F32, F16 or BF16), in one file or in shards.
 * The head may be a separate tensor or tied to the embedding, and names may lack the prefix of the base model. Weights in a `ByteSource` are read tensor by
 * tensor. Throws `data`, naming the file, for a key or a tensor that does not fit, is missing, is unknown or cannot be computed here. All of this is checked
 * before the model is made.
 */
export function fromHuggingFace(files: ReadonlyMap<string, Uint8Array | ByteSource>): GPT {
  const { storage, weights, tied } = openModel(files);
  if (tied) checkTied(weights, storage.format);
  const model = createGPT(storage.architecture.config);
  try {
    for (const { parameter, parts, transposed } of slots(storage)) {
      const target = model.parameters.byName.get(parameter);
      if (target === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
      const values = new Float32Array(target.size);
      let at = 0;
      for (const { name } of parts) {
        const { shape, data } = weights.find(tied ? embeddingFor(name, storage.format) : name).read();
        values.set(transposed && shape.length === 2 ? transpose(data, shape[0]!, shape[1]!) : data, at);
        at += data.length;
      }
      target.write(values);
    }
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

/**
 * The configuration of the model in a folder. Throws the same errors as `fromHuggingFace` for configuration and shapes, but makes no model and reads no
 * weights.
 */
export function huggingFaceConfig(files: ReadonlyMap<string, Uint8Array | ByteSource>): ResolvedGPTConfig {
  return openModel(files).storage.architecture.config;
}

interface OpenModel {
  readonly storage: Storage;
  readonly tied: boolean;
  readonly weights: Weights;
}

/** Reads `config.json` and the headers of the weight files, and checks that they agree. */
function openModel(files: ReadonlyMap<string, Uint8Array | ByteSource>): OpenModel {
  const { config, tied } = readConfig(files.get("config.json"));
  const weights = openWeights(files);
  // The number of layers is checked first, because a number that is far too large would make the next loops expensive.
  const storage = storageOf(config);
  checkLayers(storage, weights);
  const shapes = new Map(gptSpecs(storage.architecture).map(({ name, shape }) => [name, shape]));
  const known = new Set<string>();
  for (const { parameter, parts, transposed } of slots(storage))
    for (const { name, rows } of parts) {
      known.add(baseName(name));
      const { file, shape } = weights.find(tied ? embeddingFor(name, storage.format) : name);
      const ours = [rows, ...(shapes.get(parameter) ?? []).slice(1)];
      const theirs = transposed && ours.length === 2 ? ours.toReversed() : ours;
      if (!sameShape(shape, theirs))
        throw new GradmixError(
          "data",
          `${file}: "${name}" has the shape ${formatShape(shape)}; config.json asks for ${formatShape(theirs)}`,
        );
    }
  for (const { file, name } of weights.list)
    if (!known.has(baseName(name)) && !IN_PASSING.test(name))
      throw new GradmixError(
        "data",
        `${file}: this model has no parameter for the tensor "${name}", without which it would compute something else`,
      );
  return { storage, tied, weights };
}

/** Matches tensors that some checkpoints store but that are constants: GPT-2's masks, Llama's table of rotary angles. */
const IN_PASSING = /(?:^|\.)attn\.(?:bias|masked_bias)$|\.rotary_emb\.inv_freq$/;

/** The tensor to read for a name if the head is tied: the embedding for the head, and the same name for all others. */
function embeddingFor(name: string, format: Format): string {
  if (name !== `${HEAD}.weight`) return name;
  const [embedding] = storedNames({ name: "embedding", block: null }, format);
  return `${embedding}.weight`;
}

/** Throws `data` if a tied head is stored as well and differs from the embedding. */
function checkTied(weights: Weights, format: Format): void {
  const head = weights.list.find(({ name }) => name === "lm_head.weight");
  if (head === undefined) return;
  const [own, shared] = [head.read(), weights.find(embeddingFor("lm_head.weight", format)).read()];
  if (!sameShape(own.shape, shared.shape) || own.data.some((value, i) => !Object.is(value, shared.data[i])))
    throw new GradmixError(
      "data",
      `${head.file}: "lm_head.weight" is not the embedding, but config.json ties it to it (tie_word_embeddings); set it to false if the model has a head of its own`,
    );
}

/** Throws `data` unless the names of the tensors have as many layers as the configuration. */
function checkLayers({ architecture, format }: Storage, { list }: Weights): void {
  const { layers } = architecture.config;
  const { blocks, blockCount } = format;
  const pattern = new RegExp(`^${blocks}\\.(\\d+)\\.`);
  const stored = list.reduce(
    (most, { name }) => Math.max(most, 1 + Number(pattern.exec(baseName(name))?.[1] ?? -1)),
    0,
  );
  if (stored !== layers)
    throw new GradmixError(
      "data",
      `config.json: ${blockCount} is ${layers}, but the weights have ${stored} layers`,
    );
}

/** A name without the prefix of the base model, which checkpoints of the base model alone do not have. */
const baseName = (name: string): string => name.replace(/^(?:model|transformer)\./, "");

/** A tensor in a file, which is read on request. */
interface Weight {
  readonly file: string;
  readonly name: string;
  readonly shape: Shape;
  read(): StoredTensor;
}

interface Weights {
  readonly list: readonly Weight[];
  /** Finds a tensor by its name, with or without the prefix of the base model. Throws `data` if it is missing. */
  find(name: string): Weight;
}

const WHOLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Opens the weights of a folder and reads only the headers of the files. Throws `data` for a tensor that two files contain. */
function openWeights(files: ReadonlyMap<string, Uint8Array | ByteSource>): Weights {
  const parts = weightFiles(files);
  const byName = new Map<string, Weight>();
  for (const [file, bytes] of parts) {
    const { shapes, read } = openSafetensors(bytes, file);
    for (const [name, shape] of shapes) {
      const other = byName.get(baseName(name));
      if (other !== undefined)
        throw new GradmixError(
          "data",
          `${file}: the tensor "${name}" is in ${other.file} too, as "${other.name}"`,
        );
      byName.set(baseName(name), { file, name, shape, read: () => read(name) });
    }
  }
  const where = parts.length === 1 ? parts[0]![0] : `${parts.length} files of weights`;
  return {
    list: [...byName.values()],
    find(name) {
      const weight = byName.get(baseName(name));
      if (weight === undefined) throw new GradmixError("data", `${where}: the tensor "${name}" is missing`);
      return weight;
    },
  };
}

/**
 * The files that contain the weights: one file, the shards of an index, or all .safetensors files, whichever is found first. Throws `data` for a shard that
 * is missing.
 */
function weightFiles(
  files: ReadonlyMap<string, Uint8Array | ByteSource>,
): readonly (readonly [string, Uint8Array | ByteSource])[] {
  const whole = files.get(WHOLE);
  if (whole !== undefined) return [[WHOLE, whole]];
  const index = files.get(INDEX);
  if (index !== undefined) return indexedShards(files, index);
  const found = [...files].filter(([file]) => file.endsWith(".safetensors"));
  const gone = found.map(([file]) => missingShard(file, files)).find((file) => file !== null);
  if (gone !== undefined) throw new GradmixError("data", `${gone}: this shard of the weights is missing`);
  if (found.length > 0) return found;
  const pickled = [...files.keys()].find((file) => /^pytorch_model.*\.bin(?:\.index\.json)?$/.test(file));
  throw new GradmixError(
    "data",
    pickled === undefined
      ? `${WHOLE}: the file is missing`
      : `${pickled}: only .safetensors can be read; with Python, transformers.AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes them`,
  );
}

/** For a name like "model-00001-of-00003.safetensors", the first of its shards that is missing, or null. */
function missingShard(file: string, files: ReadonlyMap<string, unknown>): string | null {
  const match = /^(.*-)(\d+)-of-(\d+)\.safetensors$/.exec(file);
  if (match === null) return null;
  const [, before, number = "", of] = match;
  // The loop stops at the first gap, so a count that is far too large costs no time.
  for (let i = 1; i <= Number(of); i++) {
    const shard = `${before}${String(i).padStart(number.length, "0")}-of-${of}.safetensors`;
    if (!files.has(shard)) return shard;
  }
  return null;
}

/** The shards that an index names. Throws `data` for a shard that is missing or lacks a tensor of the index. */
function indexedShards(
  files: ReadonlyMap<string, Uint8Array | ByteSource>,
  index: Uint8Array | ByteSource,
): readonly (readonly [string, Uint8Array | ByteSource])[] {
  const source = { source: INDEX, code: "data" } as const;
  const indexError = (what: string): GradmixError => faultOf(source)("", what);
  const { weight_map: shards } = parse(shardIndex, bytesOf(index), source);
  const tensors = new Map<string, string[]>();
  for (const [tensor, shard] of shards) {
    const list = tensors.get(shard);
    if (list === undefined) tensors.set(shard, [tensor]);
    else list.push(tensor);
  }
  return [...tensors].map(([shard, names]) => {
    const bytes = files.get(shard);
    if (bytes === undefined)
      throw indexError(
        `the shard ${shard} is missing; it holds ${names.length} tensors, "${names[0]}" among them`,
      );
    const { shapes } = openSafetensors(bytes, shard);
    const gone = names.find((name) => !shapes.has(name));
    if (gone !== undefined) throw indexError(`the shard ${shard} does not hold the tensor "${gone}"`);
    return [shard, bytes];
  });
}

/** Schema of an index of shards: the name of the file that contains each tensor. */
export const shardIndex: Schema<{ weight_map: ReadonlyMap<string, string> }> = object<{
  weight_map: ReadonlyMap<string, string>;
}>({ weight_map: map(string) });

function bytesOf(file: Uint8Array | ByteSource): Uint8Array {
  if (file instanceof Uint8Array) return file;
  const bytes = new Uint8Array(file.size);
  file.read(0, bytes);
  return bytes;
}

/** A config.json after all checks. */
interface ReadConfig {
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

function readConfig(bytes: Uint8Array | ByteSource | undefined): ReadConfig {
  if (bytes === undefined) throw new GradmixError("data", "config.json: the file is missing");
  return parse(huggingFaceJson, bytesOf(bytes), { source: "config.json", code: "data" });
}
