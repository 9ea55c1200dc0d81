/** Writes a model as the files of a Hugging Face folder, which `LlamaForCausalLM` or `GPT2LMHeadModel` loads with the same logits. */
import { GradmixError } from "../../errors.ts";
import { checkOptions, integerIn, object, unchecked } from "../../options.ts";
import type { GPT } from "../gpt.ts";
import { checkModel } from "../model.ts";
import { checkParameters } from "../parameters.ts";
import { encodeSafetensors, type StoredTensor } from "../safetensors.ts";
import { notFinite } from "../saved-parameters.ts";
import { configJson } from "./config.ts";
import { slots, storageOf, transpose } from "./layout.ts";
import { float32Of } from "../../tensor/tensor.ts";

/** The files of a folder: contents by file name. */
export type ModelFiles = Map<string, Uint8Array>;

/** Ids of special tokens, for Hugging Face's configuration. */
export interface SpecialTokens {
  /** Id of the end-of-text token, which is also the beginning-of-text token. Default: config.json has null for both. */
  readonly endOfText?: number;
}

/**
 * Makes the files of a model: `model.safetensors` (F32), `config.json` and, if `endOfText` is given, `generation_config.json`. `tokenizer` is the parsed
 * content of a `tokenizer.json`; if it is given, the files of the tokenizer are added. Do not take a step before it resolves. Throws `config` for options that do not fit, and
 * `numeric`, naming the parameter, if a value is not finite.
 */
export async function toHuggingFace(
  model: GPT,
  options: SpecialTokens & { readonly tokenizer?: unknown } = {},
): Promise<ModelFiles> {
  checkOptions("toHuggingFace", options, { endOfText: integerIn(0), tokenizer: unchecked });
  checkModel("toHuggingFace: model", model);
  checkParameters("toHuggingFace: model: parameters", model.parameters);
  object("toHuggingFace: model: config", model.config);
  const { byName, value } = model.parameters;
  // A single read of the arena, so that all values are from the same moment.
  const all = await float32Of(value);
  const stored = new Map<string, StoredTensor>();
  for (const { parameter, parts, transposed } of slots(storageOf(model.config))) {
    const source = byName.get(parameter);
    if (source === undefined) throw new GradmixError("data", `the model has no parameter "${parameter}"`);
    const start = source.offset - value.offset;
    const values = all.subarray(start, start + source.size);
    const bad = notFinite(values);
    if (bad !== null)
      throw new GradmixError("numeric", `toHuggingFace: "${parameter}" has ${bad}; lower the learning rate`);
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
