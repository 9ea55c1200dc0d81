/** What `--init-from` means: a model to begin with, out of a run, one of its checkpoints or a Hugging Face folder. Its parameters only; nothing of its optimizer or weights. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { openTokenizer, type Tokenizer } from "../data/index.node.ts";
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
import { listCheckpoints, readRun } from "./run-folder.ts";
import type { DataConfig, ModelConfig } from "./train-config.ts";
import { isObject } from "../json.ts";
import { reason } from "../node/system-errors.ts";
import { readJson, wrong } from "./values.ts";

export interface Start {
  /** The path that was given. */
  readonly path: string;
  /** Which model that is, for the user. */
  readonly source: string;
  readonly config: ResolvedGPTConfig;
  /** The one that the model was trained with; null for a folder that has none. */
  readonly tokenizer: Tokenizer | null;
  /** What `data.tokenizer` was in the run, or the path of the file. */
  readonly tokenizerName: string | null;
  /** Size of the vocabulary that "bpe" trained. */
  readonly vocabSize: number | null;
  /** The model, on the current backend. */
  model(): GPT;
}

/** Throws `config` for a path that holds no model; what is wrong with its files in their own words. */
export function readStart(path: string): Start {
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  const checkpoint = isFile ? path : listCheckpoints(path).at(-1)?.path;
  if (checkpoint !== undefined) return fromCheckpoint(path, checkpoint);
  const files = new Map<string, ByteSource>();
  try {
    for (const name of readdirSync(path))
      if (name === "config.json" || /\.safetensors(\.index\.json)?$/.test(name))
        files.set(name, fileSource(join(path, name)));
      // Its name alone says what has to be done.
      else if (/^pytorch_model.*\.bin$/.test(name)) files.set(name, fileSource(join(path, name)));
  } catch (error) {
    throw wrong(`--init-from: ${path} cannot be read (${reason(error)})`, error);
  }
  if (![...files.keys()].some((name) => /\.(safetensors|json|bin)$/.test(name) && name !== "config.json"))
    throw wrong(
      `--init-from: ${path} holds no model; give a run's folder, one of its checkpoints, or a Hugging Face folder with config.json and model.safetensors`,
    );
  const tokenizerName = join(path, "tokenizer.json");
  const tokenizer = existsSync(tokenizerName)
    ? openTokenizer(readJson(tokenizerName, `--init-from: ${tokenizerName}`))
    : null;
  return {
    path,
    source: path,
    config: huggingFaceConfig(files),
    tokenizer,
    tokenizerName: tokenizer === null ? null : tokenizerName,
    vocabSize: null,
    model: () => fromHuggingFace(files),
  };
}

function fromCheckpoint(path: string, file: string): Start {
  const { step, config, state, arrays } = readRun(file);
  const tokenizer = savedTokenizer(state);
  const shape =
    savedModel(state) ??
    resolveGPTConfig(modelOf(config.model, tokenizer?.vocabSize ?? config.data.vocabSize));
  const values = arrays["value"];
  return {
    path,
    source: `${path}, after step ${step}${bestBeside(path)}`,
    config: shape,
    tokenizer,
    tokenizerName: config.data.tokenizer,
    vocabSize: config.data.vocabSize,
    model() {
      const model = createGPT(shape);
      const { value } = model.parameters;
      if (!(values instanceof Float32Array) || values.length !== value.size) {
        model.dispose();
        throw new GradmixError(
          "checkpoint",
          `--init-from: ${file} has ${values?.length ?? 0} parameters, a model of its configuration has ${value.size}`,
        );
      }
      value.write(values);
      return model;
    },
  };
}

/** The tokenizer of a checkpoint; null where the run knew none. */
export function savedTokenizer(state: Checkpoint["json"]): Tokenizer | null {
  const { tokenizer } = state;
  return tokenizer === null ? null : openTokenizer(tokenizer);
}

/** Throws `checkpoint` where `--tokenizer` names a file that is there and is not the tokenizer that the run began with. */
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

/** Where the best model of a run is kept, that is said too. */
function bestBeside(path: string): string {
  const folder = join(path, "best");
  return existsSync(join(folder, "best.json")) ? ` (its best step by the target is in ${folder})` : "";
}

/** What the options say of the model. */
export interface ModelPlan extends Readonly<ModelConfig> {
  /** Of its parameters. */
  readonly seed: number;
}

/** The model that the options describe. */
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

/** The model of a checkpoint, which its options alone do not tell when it came from elsewhere; null in checkpoints of before. */
export function savedModel(state: Checkpoint["json"]): ResolvedGPTConfig | null {
  const { model } = state;
  // The checkpoint's checksum says that it is what was written; the fields are checked all the same.
  return isObject(model) ? gptConfigFrom(model) : null;
}

/** The options that the model decides. */
const decided = ["preset", "dim", "layers", "heads", "kvHeads", "hiddenDim", "context"] as const;

/** What the model says of the options, under those that were given. */
export function startLayer(start: Start): Layer {
  const { tokenizerName, vocabSize } = start;
  return {
    values: new Map<string, unknown>([
      ...decided.map((key) => [`model.${key}`, start.config[key]] as const),
      ...(tokenizerName === null ? [] : [["data.tokenizer", tokenizerName] as const]),
      ...(vocabSize === null ? [] : [["data.vocabSize", vocabSize] as const]),
    ]),
    label: (key) => `${start.path}: ${key}`,
  };
}

/** Throws `config`, naming the option, unless the model and its tokenizer fit what the options say. */
export function checkStart(
  start: Start,
  data: Pick<DataConfig, "tokenizer" | "vocabSize">,
  model: Pick<ModelConfig, (typeof decided)[number]>,
): void {
  const { path, config, tokenizer, tokenizerName } = start;
  const refuse = (flag: string, given: unknown, theirs: string): GradmixError =>
    wrong(`${flag}: ${String(given)} does not fit --init-from ${path}, ${theirs}; leave ${flag} out`);
  for (const key of decided) {
    const given = model[key] ?? config[key];
    // Shorter windows than the model can take are no other model.
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
      throw wrong(
        `--init-from: ${path} has no tokenizer.json; name the one that its model was trained with by --tokenizer FILE`,
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
  const same =
    data.tokenizer.endsWith(".json") &&
    JSON.stringify(readJson(data.tokenizer, `--tokenizer ${data.tokenizer}`)) ===
      JSON.stringify(tokenizer.toJSON());
  if (!same) throw refuse("--tokenizer", data.tokenizer, "whose model was trained with another tokenizer");
}
