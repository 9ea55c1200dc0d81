/**
 * `--init-from`: the model with whose parameters a run starts, from another run, one of its checkpoints or a Hugging Face folder. The state of the
 * optimizer and the weights of the domains are not read.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { byteTokenizer, openTokenizer, type Tokenizer } from "../data/index.node.ts";
import { gptVocabularies } from "../data/gpt-vocabulary-table.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { GradmixError } from "../errors.ts";
import {
  createGPT,
  type GPT,
  type GPTConfig,
  gptConfigFrom,
  type ResolvedGPTConfig,
  resolveGPTConfig,
} from "../nn/gpt.ts";
import { fromHuggingFace, huggingFaceConfig } from "../nn/huggingface/read.ts";
import type { ByteSource } from "../nn/safetensors.ts";
import type { Layer } from "./config.ts";
import { fileSource } from "../node/files.ts";
import { optionTable } from "./options.ts";
import { vocabSizeOtherwise } from "./options/data.ts";
import { readRun } from "./run-folder.ts";
import { listCheckpoints, otherThanRun } from "./run-places.ts";
import type { DataConfig, ModelConfig } from "./train-config.ts";
import { isObject } from "../json.ts";
import { reason } from "../node/system-errors.ts";
import { readJson, configError } from "./values.ts";

export interface Start {
  /** The given path. */
  readonly path: string;
  /** Describes the model for the user. */
  readonly source: string;
  readonly config: ResolvedGPTConfig;
  /** Whether its head is tied to the embedding. The model that is made here has a head of its own, with the same values. */
  readonly tied: boolean;
  /** The tokenizer with which the model was trained; null if the folder has none. */
  readonly tokenizer: Tokenizer | null;
  /** `data.tokenizer` of the run, or the path of the file. */
  readonly tokenizerName: string | null;
  /** Size of the vocabulary if the run trained it with "bpe", or if it had no tokenizer. */
  readonly vocabSize: number | null;
  /** Makes the model on the current backend. */
  model(): GPT;
}

/** Finds the model at a path. Throws `config` if there is none, and the errors of its readers for invalid files. */
export function readStart(path: string): Start {
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  const checkpoint = isFile ? path : listCheckpoints(path).at(-1)?.path;
  if (checkpoint !== undefined) return fromCheckpoint(path, checkpoint);
  const named = (what: string, cause?: unknown): GradmixError =>
    configError(`--init-from: ${path} ${what}`, cause);
  const files = new Map<string, ByteSource>();
  try {
    for (const name of readdirSync(path))
      if (name === "config.json" || /\.safetensors(\.index\.json)?$/.test(name))
        files.set(name, fileSource(join(path, name)));
      // Its name is enough for the error, which explains how to convert it.
      else if (/^pytorch_model.*\.bin$/.test(name)) files.set(name, fileSource(join(path, name)));
  } catch (error) {
    throw named(otherThanRun(path) ?? `cannot be read (${reason(error)})`, error);
  }
  const hasWeights = [...files.keys()].some((name) => /\.(safetensors|json|bin)$/.test(name) && name !== "config.json"); // prettier-ignore
  if (!hasWeights || !files.has("config.json")) {
    const other = otherThanRun(path);
    if (other !== null) throw named(other);
  }
  if (!hasWeights)
    throw named(
      "holds no model; give a run's folder, one of its checkpoints, or a Hugging Face folder with config.json and model.safetensors",
    );
  const tokenizerName = join(path, "tokenizer.json");
  const tokenizer = existsSync(tokenizerName)
    ? openTokenizer(readJson(tokenizerName, `--init-from: ${tokenizerName}`))
    : null;
  return {
    path,
    source: path,
    ...inFolder(path, () => huggingFaceConfig(files)),
    tokenizer,
    tokenizerName: tokenizer === null ? null : tokenizerName,
    vocabSize: null,
    model: () => inFolder(path, () => fromHuggingFace(files)),
  };
}

/** Runs a task whose errors name files of a folder, and adds the folder to them. */
function inFolder<T>(path: string, task: () => T): T {
  try {
    return task();
  } catch (error) {
    if (!(error instanceof GradmixError) || error.code !== "data") throw error;
    throw new GradmixError(error.code, `--init-from: ${path}: ${error.message}`, { cause: error });
  }
}

function fromCheckpoint(path: string, file: string): Start {
  const { step, config, state, arrays } = readRun(file);
  const vocabSize = config.data.vocabSize ?? vocabSizeOtherwise;
  const tokenizer = savedTokenizer(state);
  const shape =
    savedModel(state) ?? resolveGPTConfig(modelOf(config.model, tokenizer?.vocabSize ?? vocabSize));
  const values = arrays["value"];
  return {
    path,
    source: `${path}, after step ${step}${bestBeside(path)}`,
    config: shape,
    tied: false,
    tokenizer,
    tokenizerName: config.data.tokenizer,
    vocabSize: ["bpe", "none"].includes(config.data.tokenizer) ? vocabSize : null,
    model() {
      const model = createGPT(shape);
      const { value } = model.parameters;
      if (!(values instanceof Float32Array) || values.length !== value.size) {
        model.dispose();
        throw new GradmixError(
          "checkpoint",
          `--init-from: ${file} has ${values?.length ?? 0} parameters, but a model of its configuration has ${value.size}`,
        );
      }
      value.write(values);
      return model;
    },
  };
}

/** The tokenizer of a checkpoint; null if the run had none. */
export function savedTokenizer(state: Checkpoint["json"]): Tokenizer | null {
  const { tokenizer } = state;
  return tokenizer === null ? null : openTokenizer(tokenizer);
}

/** Throws `checkpoint` if `--tokenizer` names an existing file that is not the tokenizer with which the run began. */
export function checkSameTokenizer(
  { tokenizer: name }: Pick<DataConfig, "tokenizer">,
  saved: Tokenizer | null,
): void {
  if (saved === null || !name.endsWith(".json") || !existsSync(name)) return;
  if (JSON.stringify(readJson(name, `--tokenizer ${name}`)) !== JSON.stringify(saved.toJSON()))
    throw new GradmixError(
      "checkpoint",
      `--resume: the tokenizer ${name} has changed since the run began; restore it, or start a new run`,
    );
}

/** The JSON of the tokenizer that `--tokenizer` names; null for one that is trained, or none. Throws `config` for a file that cannot be read. */
function namedTokenizer(name: string): unknown {
  if (name === "byte") return byteTokenizer().toJSON();
  if (gptVocabularies.includes(name)) return openTokenizer(name).toJSON();
  return name.endsWith(".json") ? readJson(name, `--tokenizer ${name}`) : null;
}

/** A hint that the run also kept its best model, if it did. */
function bestBeside(path: string): string {
  const folder = join(path, "best");
  return existsSync(join(folder, "best.json")) ? ` (its best step by the target is in ${folder})` : "";
}

/** The options of the model. */
export interface ModelPlan extends Readonly<ModelConfig> {
  /** Seed of the parameters. */
  readonly seed: number;
}

/** The configuration of the model that the options describe. */
export function modelOf(config: Readonly<ModelConfig>, vocabSize: number): GPTConfig {
  const { preset, dim, layers, heads, kvHeads, hiddenDim, context } = config;
  return {
    preset,
    vocabSize,
    dim,
    layers,
    heads,
    context,
    ...(kvHeads === null ? {} : { kvHeads }),
    ...(hiddenDim === null ? {} : { hiddenDim }),
  };
}

/**
 * The configuration of the model in a checkpoint, which the options do not determine if the model came from elsewhere; null in checkpoints of earlier
 * versions.
 */
export function savedModel(state: Checkpoint["json"]): ResolvedGPTConfig | null {
  const { model } = state;
  // The checksum proves that the file is unchanged, but the fields are still checked.
  return isObject(model) ? gptConfigFrom(model) : null;
}

/** The options that follow from the model. */
const decided = ["preset", "dim", "layers", "heads", "kvHeads", "hiddenDim", "context"] as const;

/** The options that follow from the model, as a layer below the given options. Without a tokenizer, the model says how many ids there are. */
export function startLayer(start: Start): Layer {
  const { tokenizer, tokenizerName, config } = start;
  const vocabSize = start.vocabSize ?? (tokenizer === null ? config.vocabSize : null);
  return {
    values: new Map<string, unknown>([
      ...decided.map((key) => [`model.${key}`, start.config[key]] as const),
      ...(tokenizerName === null ? [] : [["data.tokenizer", tokenizerName] as const]),
      ...(vocabSize === null ? [] : [["data.vocabSize", vocabSize] as const]),
    ]),
    label: (key) => `${start.path}: ${key}`,
  };
}

/** Throws `config`, naming the option, if the model or its tokenizer does not fit the options. */
export function checkStart(
  start: Start,
  data: Pick<DataConfig, "tokenizer" | "vocabSize">,
  model: Pick<ModelConfig, (typeof decided)[number]>,
): void {
  const { path, config, tokenizer, tokenizerName } = start;
  const refuse = (flag: string, given: unknown, theirs: string): GradmixError =>
    configError(`${flag}: ${String(given)} does not fit --init-from ${path}, ${theirs}; leave ${flag} out`);
  for (const key of decided) {
    const given = model[key] ?? config[key];
    // Windows may be shorter than the model allows.
    if (key === "context" ? model.context > config.context : given !== config[key])
      throw refuse(
        optionTable.model[key].flag,
        given,
        key === "context"
          ? `whose windows have at most ${config.context} tokens`
          : `whose model has ${String(config[key])}`,
      );
  }
  if (tokenizer === null) {
    if (data.tokenizer === "bpe")
      throw configError(
        `--init-from: ${path} has no tokenizer.json; name the tokenizer of its model with --tokenizer FILE`,
      );
    return;
  }
  if (data.tokenizer === tokenizerName) {
    if (data.tokenizer === "bpe" && data.vocabSize !== start.vocabSize)
      throw refuse(
        "--vocab-size",
        data.vocabSize,
        `whose vocabulary was trained with ${String(start.vocabSize)}`,
      );
    return;
  }
  const named = namedTokenizer(data.tokenizer);
  if (named === null || JSON.stringify(named) !== JSON.stringify(tokenizer.toJSON()))
    throw refuse("--tokenizer", data.tokenizer, "whose model was trained with another tokenizer");
}
