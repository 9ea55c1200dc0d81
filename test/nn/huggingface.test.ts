/** Hugging Face folders: the round trip, the files that `transformers` expects, and folders from other sources. */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { GradmixError } from "gradmix";
import {
  createGPT,
  decodeSafetensors,
  encodeSafetensors,
  fromHuggingFace,
  type GPTConfig,
  type ModelFiles,
  type StoredTensor,
  toHuggingFace,
} from "gradmix/nn";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { batchOf, configs, ids, numbers, scrambled } from "./models.ts";
import { codeOf } from "../errors.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend();
  setCurrentMemory(backend);
});

const [llama, gpt2] = configs;
const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);
const parse = (bytes: Uint8Array | undefined): Record<string, unknown> => JSON.parse(text(bytes));
const bytesOf = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const folderOf = async (config: GPTConfig): Promise<ModelFiles> => toHuggingFace(await scrambled(config));
const weightsOf = (files: ModelFiles): Map<string, StoredTensor> =>
  decodeSafetensors(files.get("model.safetensors") ?? new Uint8Array());

/** The logits of a folder's model, for a fixed batch. */
async function logitsOf(files: ReadonlyMap<string, Uint8Array>): Promise<number[]> {
  const model = fromHuggingFace(files);
  const out = await numbers(model.logits(ids(batchOf(model.config, 2, 5).tokens)));
  model.dispose();
  return out;
}

/** The same folder in two shards and an index. */
function sharded(files: ModelFiles): ModelFiles {
  const all = [...weightsOf(files)];
  const parts = [all.slice(0, 7), all.slice(7)];
  const out: ModelFiles = new Map([["config.json", files.get("config.json") ?? expect.fail()]]);
  const map: Record<string, string> = {};
  parts.forEach((part, i) => {
    const shard = `model-0000${i + 1}-of-00002.safetensors`;
    out.set(shard, encodeSafetensors(new Map(part)));
    for (const [name] of part) map[name] = shard;
  });
  return out.set("model.safetensors.index.json", bytesOf({ metadata: { total_size: 1 }, weight_map: map }));
}

/** A folder with other weights, or with other keys in its configuration. */
function changed(
  files: ModelFiles,
  weights: (stored: Map<string, StoredTensor>) => Map<string, StoredTensor>,
  config: Record<string, unknown> = {},
): ModelFiles {
  return new Map([
    ["config.json", bytesOf({ ...parse(files.get("config.json")), ...config })],
    ["model.safetensors", encodeSafetensors(weights(weightsOf(files)))],
  ]);
}

const same = (stored: Map<string, StoredTensor>): Map<string, StoredTensor> => stored;

describe.each(backends)("on $name", ({ create }) => {
  it.each(configs)("$preset: the weights have the same bits after a round trip", async (config) => {
    const backend = await create();
    setCurrentMemory(backend);
    const model = await scrambled(config);
    const tokens = ids(batchOf(config, 3, 6).tokens);
    const again = fromHuggingFace(await toHuggingFace(model));
    expect(again.config).toEqual(model.config);
    expect(await numbers(again.parameters.value)).toEqual(await numbers(model.parameters.value));
    expect(await numbers(again.logits(tokens))).toEqual(await numbers(model.logits(tokens)));
    await backend.dispose();
  });
});

describe("what is written", () => {
  it("llama: names and shapes of LlamaForCausalLM", async () => {
    const shapes = Object.fromEntries(
      [...weightsOf(await folderOf(llama))].map(([n, { shape }]) => [n, shape]),
    );
    const block = {
      "input_layernorm.weight": [8],
      "self_attn.q_proj.weight": [8, 8],
      "self_attn.k_proj.weight": [4, 8],
      "self_attn.v_proj.weight": [4, 8],
      "self_attn.o_proj.weight": [8, 8],
      "post_attention_layernorm.weight": [8],
      "mlp.gate_proj.weight": [6, 8],
      "mlp.up_proj.weight": [6, 8],
      "mlp.down_proj.weight": [8, 6],
    };
    expect(shapes).toEqual({
      "model.embed_tokens.weight": [11, 8],
      ...Object.fromEntries(
        [0, 1].flatMap((i) => Object.entries(block).map(([n, shape]) => [`model.layers.${i}.${n}`, shape])),
      ),
      "model.norm.weight": [8],
      "lm_head.weight": [11, 8],
    });
  });

  it("gpt2: names of GPT2LMHeadModel, and the transposed shapes of its Conv1D", async () => {
    const shapes = Object.fromEntries(
      [...weightsOf(await folderOf(gpt2))].map(([n, { shape }]) => [n, shape]),
    );
    const block = {
      "ln_1.weight": [8],
      "ln_1.bias": [8],
      "attn.c_attn.weight": [8, 24],
      "attn.c_attn.bias": [24],
      "attn.c_proj.weight": [8, 8],
      "attn.c_proj.bias": [8],
      "ln_2.weight": [8],
      "ln_2.bias": [8],
      "mlp.c_fc.weight": [8, 12],
      "mlp.c_fc.bias": [12],
      "mlp.c_proj.weight": [12, 8],
      "mlp.c_proj.bias": [8],
    };
    expect(shapes).toEqual({
      "transformer.wte.weight": [11, 8],
      "transformer.wpe.weight": [6, 8],
      ...Object.fromEntries(
        [0, 1].flatMap((i) => Object.entries(block).map(([n, shape]) => [`transformer.h.${i}.${n}`, shape])),
      ),
      "transformer.ln_f.weight": [8],
      "transformer.ln_f.bias": [8],
      "lm_head.weight": [11, 8],
    });
  });

  it("configurations with every key that affects the result, and floats written as floats", async () => {
    const files = await folderOf({ ...llama, ropeTheta: 50_000, normEps: 1 });
    expect(text(files.get("config.json"))).toMatch(/"rms_norm_eps": 1\.0,\n {2}"rope_theta": 50000\.0,/);
    expect(parse(files.get("config.json"))).toEqual({
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      vocab_size: 11,
      hidden_size: 8,
      intermediate_size: 6,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 2,
      max_position_embeddings: 6,
      rms_norm_eps: 1,
      rope_theta: 50_000,
      hidden_act: "silu",
      attention_bias: false,
      mlp_bias: false,
      tie_word_embeddings: false,
      torch_dtype: "float32",
      bos_token_id: null,
      eos_token_id: null,
    });
    const other = await folderOf(gpt2);
    expect(text(other.get("config.json"))).toMatch(/"resid_pdrop": 0\.0,/);
    expect(parse(other.get("config.json"))).toEqual({
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      vocab_size: 11,
      n_embd: 8,
      n_inner: 12,
      n_layer: 2,
      n_head: 2,
      n_positions: 6,
      n_ctx: 6,
      layer_norm_epsilon: 1e-5,
      activation_function: "gelu_new",
      resid_pdrop: 0,
      embd_pdrop: 0,
      attn_pdrop: 0,
      tie_word_embeddings: false,
      torch_dtype: "float32",
      bos_token_id: null,
      eos_token_id: null,
    });
    expect([...files.keys()]).toEqual(["model.safetensors", "config.json"]);
  });

  it("a tokenizer, and the token that ends a text", async () => {
    const tokenizer = { model: { type: "BPE" } };
    const files = await toHuggingFace(createGPT(llama), { tokenizer, endOfText: 10 });
    expect(parse(files.get("tokenizer.json"))).toEqual(tokenizer);
    expect(parse(files.get("tokenizer_config.json"))).toEqual({
      tokenizer_class: "PreTrainedTokenizerFast",
      model_max_length: 6,
      bos_token: "<|endoftext|>",
      eos_token: "<|endoftext|>",
      clean_up_tokenization_spaces: false,
    });
    const ids = { bos_token_id: 10, eos_token_id: 10 };
    expect(parse(files.get("config.json"))).toMatchObject(ids);
    expect(parse(files.get("generation_config.json"))).toEqual({ ...ids, do_sample: true });
    // The end of text is called what the tokenizer calls it.
    const named = (file: unknown): Promise<ModelFiles> =>
      toHuggingFace(createGPT(llama), { tokenizer: file, endOfText: 10 });
    const added = await named({
      added_tokens: [
        { id: 3, content: "<s>" },
        { id: 10, content: "</s>" },
      ],
    });
    expect(parse(added.get("tokenizer_config.json"))).toMatchObject({ bos_token: "</s>", eos_token: "</s>" });
    const own = await named({ model: { vocab: { a: 0, "<eos>": 10 } } });
    expect(parse(own.get("tokenizer_config.json"))).toMatchObject({ eos_token: "<eos>" });
  });
});

describe("folders from other programs", () => {
  it.each(configs)(
    "$preset: without the prefix of the base model, and with tensors that are not weights",
    async (config) => {
      const files = await folderOf(config);
      const base = changed(files, (stored) => {
        const out = new Map(
          [...stored].map(([name, t]) => [name.replace(/^(model|transformer)\./, ""), t] as const),
        );
        // The causal mask of GPT-2's checkpoints, the table of Llama's.
        out.set("h.0.attn.bias", { shape: [1, 1, 6, 6], data: new Float32Array(36) });
        out.set("layers.0.self_attn.rotary_emb.inv_freq", { shape: [1], data: new Float32Array(1) });
        return out;
      });
      expect(await logitsOf(base)).toEqual(await logitsOf(files));
    },
  );

  it.each(configs)("$preset: a head tied to the embedding", async (config) => {
    const files = await folderOf(config);
    const embedding = config.preset === "gpt2" ? "transformer.wte.weight" : "model.embed_tokens.weight";
    const withCopy = changed(files, (stored) =>
      stored.set("lm_head.weight", stored.get(embedding) ?? expect.fail()),
    );
    const without = (stored: Map<string, StoredTensor>): Map<string, StoredTensor> => {
      stored.delete("lm_head.weight");
      return stored;
    };
    const want = await logitsOf(withCopy);
    expect(await logitsOf(changed(files, without, { tie_word_embeddings: true }))).toEqual(want);
    expect(() => fromHuggingFace(changed(files, without))).toThrow(/"lm_head.weight" is missing/);
    // A missing key means different values.
    const silent = changed(files, without, { tie_word_embeddings: undefined });
    if (config.preset === "gpt2") expect(await logitsOf(silent)).toEqual(want);
    else expect(() => fromHuggingFace(silent)).toThrow(/"lm_head.weight" is missing/);
  });

  it("several files of weights, with or without their index", async () => {
    const files = await folderOf(llama);
    const shards = sharded(files);
    expect(await logitsOf(shards)).toEqual(await logitsOf(files));
    // One file by whatever name.
    const named = [...files].map(
      ([name, bytes]) => [name.replace("model.safe", "weights.safe"), bytes] as const,
    );
    expect(await logitsOf(new Map(named))).toEqual(await logitsOf(files));
    shards.delete("model.safetensors.index.json");
    expect(await logitsOf(shards)).toEqual(await logitsOf(files));
  });

  it("other files of weights beside the right one", async () => {
    const files = await folderOf(llama);
    const other = encodeSafetensors(new Map([["lora.a", { shape: [1], data: new Float32Array(1) }]]));
    const names = ["adapter_model.safetensors", "consolidated.safetensors"];
    const more: [string, Uint8Array][] = names.map((name) => [name, other]);
    expect(await logitsOf(new Map([...more, ...files]))).toEqual(await logitsOf(files));
    expect(await logitsOf(new Map([...more, ...sharded(files)]))).toEqual(await logitsOf(files));
  });

  it("a head that is stored although it is tied to the embedding", async () => {
    const files = await folderOf(llama);
    const copied = changed(
      files,
      (stored) => stored.set("lm_head.weight", stored.get("model.embed_tokens.weight") ?? expect.fail()),
      { tie_word_embeddings: true },
    );
    const model = fromHuggingFace(copied);
    const [head, embedding] = ["head.weight", "embedding.weight"].map((name) =>
      model.parameters.byName.get(name),
    );
    expect(await numbers(head ?? expect.fail())).toEqual(await numbers(embedding ?? expect.fail()));
  });

  it("F16 weights, beside a mask whose type cannot be read", async () => {
    const files = await folderOf(llama);
    const stored = weightsOf(files);
    // Quarters from −2 to 1.75 in both precisions.
    const bits = [0xc000, 0xbf00, 0xbe00, 0xbd00, 0xbc00, 0xba00, 0xb800, 0xb400, 0x0000];
    const quarters = [-2, -1.75, -1.5, -1.25, -1, -0.75, -0.5, -0.25, 0];
    const entries: [string, unknown][] = [];
    const halves: number[] = [];
    for (const [name, { shape, data }] of stored) {
      entries.push([
        name,
        { dtype: "F16", shape, data_offsets: [2 * halves.length, 2 * (halves.length + data.length)] },
      ]);
      data.forEach((_, i) => (data[i] = quarters[i % 9]));
      halves.push(...data.map((x) => bits[quarters.indexOf(x)]));
    }
    entries.push([
      "model.layers.0.self_attn.rotary_emb.inv_freq",
      { dtype: "BOOL", shape: [2], data_offsets: [2 * halves.length, 2 * halves.length + 2] },
    ]);
    halves.push(1);
    const header = bytesOf(Object.fromEntries(entries));
    const file = new Uint8Array(8 + header.length + 2 * halves.length);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(header, 8);
    file.set(new Uint8Array(Uint16Array.from(halves).buffer), 8 + header.length);
    expect(await logitsOf(new Map(files).set("model.safetensors", file))).toEqual(
      await logitsOf(changed(files, () => stored)),
    );
  });

  it("a key that is left out has the default of `transformers`", async () => {
    const [l, g] = [await folderOf(llama), await folderOf({ ...gpt2, hiddenDim: 32 })];
    const without = (files: ModelFiles, ...names: string[]): GPTConfig =>
      fromHuggingFace(changed(files, same, Object.fromEntries(names.map((name) => [name, undefined]))))
        .config;
    expect(without(l, "rms_norm_eps", "rope_theta")).toMatchObject({ normEps: 1e-6, ropeTheta: 10_000 });
    expect(without(g, "layer_norm_epsilon", "n_inner")).toMatchObject({ normEps: 1e-5, hiddenDim: 32 });
    // As many key/value heads as heads.
    const full = await folderOf({ ...llama, kvHeads: 4 });
    expect(without(full, "num_key_value_heads").kvHeads).toBe(4);
  });

  it("equivalent keys: defaults left out, rope_parameters, gelu under its other name", async () => {
    const files = await folderOf({ ...llama, ropeTheta: 500 });
    const want = await logitsOf(files);
    const variant = {
      rope_theta: undefined,
      head_dim: null,
      hidden_act: undefined,
      attention_bias: undefined,
    };
    const rope = { rope_parameters: { rope_type: "default", rope_theta: 500 } };
    expect(await logitsOf(changed(files, same, { ...variant, ...rope }))).toEqual(want);
    expect(await logitsOf(changed(files, same, { rope_scaling: null }))).toEqual(want);
    expect(fromHuggingFace(changed(files, same, variant)).config.ropeTheta).toBe(10_000);
    const other = await folderOf({ ...gpt2, hiddenDim: 32 });
    expect(
      await logitsOf(changed(other, same, { n_inner: null, activation_function: "gelu_pytorch_tanh" })),
    ).toEqual(await logitsOf(other));
  });
});

describe("folders that cannot be read", () => {
  const refused = (files: ReadonlyMap<string, Uint8Array>, message: string): void => {
    const live = backend.liveBytes;
    // Why a text is not JSON is said in the engine's words.
    expect(codeOf(() => fromHuggingFace(files)).replace(/is not JSON \(.*\)$/, "is not JSON")).toBe(
      `data: ${message}`,
    );
    expect(backend.liveBytes).toBe(live);
  };

  it.each<[GPTConfig, Record<string, unknown>, string]>([
    [llama, { model_type: "bert" }, 'model_type is "bert", not "llama" or "gpt2"'],
    [llama, { model_type: undefined }, 'model_type is missing; it must be "llama" or "gpt2"'],
    [llama, { hidden_size: "8" }, 'hidden_size is "8", not a finite number'],
    [llama, { vocab_size: undefined }, "vocab_size is missing; it must be a finite number"],
    [llama, { hidden_act: "gelu" }, 'hidden_act is "gelu"; only "silu" or "swish" is supported'],
    [llama, { attention_bias: true }, "attention_bias is true; only false is supported"],
    [llama, { tie_word_embeddings: "no" }, 'tie_word_embeddings is "no", not true or false'],
    [llama, { quantization_config: { bits: 4 } }, "quantization_config is an object; only null is supported"],
    [llama, { partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5; only 1 is supported"],
    [gpt2, { add_cross_attention: true }, "add_cross_attention is true; only false is supported"],
    [llama, { mlp_bias: true }, "mlp_bias is true; only false is supported"],
    [llama, { head_dim: 16 }, "head_dim is 16; only 2 is supported"],
    [
      llama,
      { rope_scaling: { rope_type: "llama3", factor: 8 } },
      'rope_scaling scales positions by "llama3"; only "default" is supported',
    ],
    [
      llama,
      { rope_parameters: { rope_type: "yarn" } },
      'rope_parameters scales positions by "yarn"; only "default" is supported',
    ],
    [
      llama,
      { rope_scaling: { type: "linear", factor: 2 } },
      'rope_scaling scales positions by "linear"; only "default" is supported',
    ],
    [llama, { rope_scaling: 2 }, "rope_scaling is 2, not an object"],
    [llama, { rope_theta: "x" }, 'rope_theta is "x", not a finite number'],
    [
      llama,
      { num_key_value_heads: 3 },
      "describes a model that gradmix does not have: kvHeads: 3 does not divide heads 4",
    ],
    [
      gpt2,
      { activation_function: "gelu" },
      'activation_function is "gelu"; only "gelu_new" or "gelu_pytorch_tanh" is supported',
    ],
    [
      gpt2,
      { scale_attn_by_inverse_layer_idx: true },
      "scale_attn_by_inverse_layer_idx is true; only false is supported",
    ],
    [
      gpt2,
      { n_layer: 0 },
      "describes a model that gradmix does not have: GPT: layers: 0 does not fit; it must be an integer of at least 1",
    ],
  ])("%#: %o with %o", async (config, keys, message) => {
    refused(changed(await folderOf(config), same, keys), `config.json: ${message}`);
  });

  it("missing and broken files", async () => {
    const files = await folderOf(llama);
    refused(new Map(), "config.json: the file is missing");
    refused(
      new Map([["config.json", files.get("config.json") ?? expect.fail()]]),
      "model.safetensors: the file is missing",
    );
    for (const bytes of [Uint8Array.of(123), Buffer.from('{"a": "\xff"}', "latin1")])
      refused(new Map(files).set("config.json", bytes), "config.json: is not JSON");
    for (const json of [[], null, 3, "x", true])
      refused(
        new Map(files).set("config.json", bytesOf(json)),
        `config.json: is ${Array.isArray(json) ? "a list" : JSON.stringify(json)}, not an object`,
      );
    refused(
      new Map(files).set("model.safetensors", new Uint8Array(3)),
      "model.safetensors: 3 bytes are not a safetensors file",
    );
  });

  it("shards that are missing, and indices that are broken", async () => {
    const files = await folderOf(llama);
    const name = "model.safetensors.index.json";
    const [one, two] = [1, 2].map((i) => `model-0000${i}-of-00002.safetensors`);
    const without = (...gone: string[]): ModelFiles => {
      const out = sharded(files);
      for (const file of gone) out.delete(file);
      return out;
    };
    refused(
      without(two),
      `${name}: the shard ${two} is missing; it holds 14 tensors, "model.layers.0.mlp.gate_proj.weight" among them`,
    );
    refused(without(name, two), `${two}: this shard of the weights is missing`);
    refused(without(name, one), `${one}: this shard of the weights is missing`);
    const whole = weightsOf(files);
    const gone = without(name).set(two, encodeSafetensors(new Map([...whole].slice(8))));
    refused(gone, '2 files of weights: the tensor "model.layers.0.mlp.gate_proj.weight" is missing');
    refused(
      new Map([...sharded(files), ...gone]),
      `${name}: the shard ${two} does not hold the tensor "model.layers.0.mlp.gate_proj.weight"`,
    );
    refused(
      without(name).set(two, encodeSafetensors(new Map([...whole].slice(6)))),
      `${two}: the tensor "model.layers.0.post_attention_layernorm.weight" is in ${one} too, as "model.layers.0.post_attention_layernorm.weight"`,
    );
    refused(sharded(files).set(name, bytesOf({})), `${name}: weight_map is missing; it must be an object`);
    refused(sharded(files).set(name, bytesOf([])), `${name}: is a list, not an object`);
    refused(sharded(files).set(name, Uint8Array.of(1)), `${name}: is not JSON`);
    refused(
      sharded(files).set(name, bytesOf({ weight_map: { a: 3 } })),
      `${name}: weight_map.a is 3, not a string`,
    );
    refused(
      new Map([
        ["config.json", files.get("config.json") ?? expect.fail()],
        ["pytorch_model.bin", new Uint8Array(3)],
      ]),
      "pytorch_model.bin: only .safetensors can be read; with Python, transformers.AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes them",
    );
  });

  it.each<[GPTConfig, string, string]>([
    [llama, "num_hidden_layers", "model.layers.0.self_attn.q_proj.bias"],
    [gpt2, "n_layer", "transformer.h.0.crossattention.c_attn.weight"],
  ])("$preset: layers and tensors that the configuration lacks", async (config, layers, extra) => {
    const files = await folderOf(config);
    for (const count of [1, 3, 3e7, 1e15])
      refused(
        changed(files, same, { [layers]: count }),
        `config.json: ${layers} is ${count}, but the weights have 2 layers`,
      );
    refused(
      changed(files, (stored) => stored.set(extra, { shape: [8], data: new Float32Array(8) })),
      `model.safetensors: this model has no parameter for the tensor "${extra}", without which it would compute something else`,
    );
    refused(
      changed(files, same, { tie_word_embeddings: true }),
      'model.safetensors: "lm_head.weight" is not the embedding, but config.json ties it to it (tie_word_embeddings); set it to false if the model has a head of its own',
    );
  });

  it("another value in place of any number: refused, or the same model, before memory is taken", async () => {
    const folders = await Promise.all([folderOf(llama), folderOf(gpt2)]);
    const want = await Promise.all(folders.map(logitsOf));
    const odd = fc.oneof(
      fc.constantFrom(0, -1, 0.5, 1e9, 2 ** 31, 2 ** 53, 1e30, "8", true, [], {}),
      fc.integer({ min: 1, max: 16 }),
    );
    // A number that sets no size may have any valid value.
    const free = /eps|theta|epsilon|max_position|pdrop|n_ctx|_token_id|torch_dtype|architectures/;
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(0, 1), fc.nat(40), odd, async (which, pick, value) => {
        const keys = Object.keys(parse(folders[which].get("config.json"))).filter((key) => !free.test(key));
        const files = changed(folders[which], same, { [keys[pick % keys.length]]: value });
        let logits: number[];
        try {
          logits = await logitsOf(files);
        } catch (error) {
          expect(error).toBeInstanceOf(GradmixError);
          return;
        }
        // Other numbers of heads give the same shapes; only those are another model.
        if (!/head/.test(keys[pick % keys.length])) expect(logits).toEqual(want[which]);
      }),
      { numRuns: 150 },
    );
  });

  it("values that are not finite, which are not written either", async () => {
    const files = await folderOf(gpt2);
    const name = "transformer.h.1.mlp.c_fc.weight";
    for (const value of [NaN, Infinity])
      refused(
        changed(files, (stored) => (stored.get(name)?.data.fill(value, 5, 6), stored)),
        `model.safetensors: "${name}" has ${value} at 5`,
      );
    const model = await scrambled(gpt2);
    model.parameters.byName.get("blocks.1.up.weight")?.view([1], 5).write([NaN]);
    await expect(toHuggingFace(model)).rejects.toMatchObject({
      code: "numeric",
      message: 'toHuggingFace: "blocks.1.up.weight" has NaN at 5; lower the learning rate',
    });
  });

  it("all parameters that are written are of one moment", async () => {
    const model = await scrambled(gpt2);
    const before = weightsOf(await toHuggingFace(model));
    const writing = toHuggingFace(model);
    model.parameters.value.write(new Float32Array(model.parameters.value.size));
    expect(weightsOf(await writing)).toEqual(before);
  });

  it("tensors that are missing or have another shape, even the transposed one", async () => {
    const files = await folderOf(gpt2);
    const name = "transformer.h.1.mlp.c_fc.weight";
    refused(
      changed(files, (stored) => {
        stored.delete(name);
        return stored;
      }),
      `model.safetensors: the tensor "${name}" is missing`,
    );
    refused(
      changed(files, (stored) => stored.set(name, { shape: [12, 8], data: new Float32Array(96) })),
      `model.safetensors: "${name}" has the shape [12, 8]; config.json asks for [8, 12]`,
    );
    refused(
      changed(files, same, { n_positions: 7 }),
      'model.safetensors: "transformer.wpe.weight" has the shape [6, 8]; config.json asks for [7, 8]',
    );
  });
});
