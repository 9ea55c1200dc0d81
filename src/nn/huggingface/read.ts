/** Makes a model from the files of a Hugging Face folder. Everything is checked before the model is made. */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import { formatShape, sameShape } from "../../tensor/shape.ts";
import { gptSpecs } from "../architecture.ts";
import { createGPT, type GPT } from "../gpt.ts";
import type { ByteSource } from "../safetensors.ts";
import { notFinite } from "../saved-parameters.ts";
import { type Format, type ReadConfig, readConfig } from "./config.ts";
import { baseName, embeddingFor, slots, type Storage, storageOf, transpose } from "./layout.ts";
import { bytesOf, openWeights, type Weights } from "./weights.ts";

/**
 * Makes a model on the current backend from the files of a folder: `config.json` and weights as `.safetensors` (F32, F16 or BF16), in one file or in shards.
 * The head may be a separate tensor or tied to the embedding; the model has a head of its own, with the values of the embedding if it was tied. Names may lack the prefix of the base model. Weights in a `ByteSource` are read tensor by
 * tensor. Throws `data`, naming the file, for a key or a tensor that does not fit, is missing, is unknown or cannot be computed here; this is checked
 * before the model is made. Throws `data` too, and makes no model, if a value is not finite.
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
        const weight = weights.find(tied ? embeddingFor(name, storage.format) : name);
        const { shape, data } = weight.read();
        const bad = notFinite(data);
        if (bad !== null) throw new GradmixError("data", `${weight.file}: "${weight.name}" has ${bad}`);
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
 * The configuration of the model in a folder, and whether its head is tied to the embedding. Throws the same errors as `fromHuggingFace` for configuration and shapes, but makes no model and reads no
 * weights.
 */
export function huggingFaceConfig(files: ReadonlyMap<string, Uint8Array | ByteSource>): ReadConfig {
  const { storage, tied } = openModel(files);
  return { config: storage.architecture.config, tied };
}

interface OpenModel {
  readonly storage: Storage;
  readonly tied: boolean;
  readonly weights: Weights;
}

/** Reads `config.json` and the headers of the weight files, and checks that they agree. */
function openModel(files: ReadonlyMap<string, Uint8Array | ByteSource>): OpenModel {
  const given: unknown = files;
  if (!(given instanceof Map))
    throw new GradmixError(
      "data",
      `fromHuggingFace: the files are ${show(given)}; a Map from file names to contents is needed`,
    );
  const json = files.get("config.json");
  const { config, tied } = readConfig(json === undefined ? undefined : bytesOf(json, "config.json"));
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
