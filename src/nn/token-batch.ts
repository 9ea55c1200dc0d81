/** The inputs of a token model: batches of token ids as tensors, and sources of tokens that fit its vocabulary and its context. */
import { GradmixError } from "../errors.ts";
import { wantTensor } from "../autograd/checks.ts";
import { numberList, objectWith } from "../options.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import type { Source, TokenBatch } from "./model.ts";

/** A batch of tokens on the device: two tensors i32 [examples, time]; targets < 0 do not count. */
export interface TokenTensors {
  /** Ids of the tokens that the model reads. */
  readonly inputs: Tensor;
  /** Ids of the next tokens, which the model should predict. */
  readonly targets: Tensor;
}

/** The properties of a token model that are checked. */
interface TokenModel {
  readonly context: number;
  readonly vocabSize: number;
}

/** A source whose tokens can be checked: window i has the tokens i·time … (i + 1)·time of the stream (`Windows`). */
interface TokenSource extends Source {
  readonly stream: {
    readonly tokens: { readonly length: number; subarray(from: number, to: number): ArrayLike<number> };
    /** Upper bound of the token ids, if it is known. */
    readonly largest?: number;
  };
  readonly time: number;
}

const checkBatch = objectWith("a batch with inputs and targets", "inputs", "targets");

/**
 * The batch's tensors, in the current scope. Throws `shape` for arrays that do not form one batch, and `data`, naming the position, for ids outside
 * the vocabulary. Tensors are used as they are.
 */
export function tokenTensors(batch: TokenBatch | TokenTensors, vocabSize: number): TokenTensors {
  checkBatch("gpt: batch", batch);
  // A batch without counts is already on the device.
  if (!("tokens" in batch)) {
    wantTensor("gpt", "inputs", batch.inputs);
    wantTensor("gpt", "targets", batch.targets);
    return batch;
  }
  numberList("gpt: inputs", batch.inputs);
  numberList("gpt: targets", batch.targets);
  const { inputs, targets, tokens, time } = batch;
  if (!Number.isSafeInteger(time) || time < 1 || !Number.isInteger(inputs.length / time))
    throw new GradmixError("shape", `gpt: ${inputs.length} inputs are not windows of ${time}`);
  const examples = inputs.length / time;
  if (targets.length !== inputs.length || tokens.length !== examples)
    throw new GradmixError(
      "shape",
      `gpt: ${targets.length} targets and ${tokens.length} counts of tokens for ${examples} windows of ${time}`,
    );
  for (const [field, ids, least] of [
    ["inputs", inputs, 0],
    ["targets", targets, -Infinity],
  ] as const)
    for (let i = 0; i < ids.length; i++)
      if (ids[i]! < least || ids[i]! >= vocabSize)
        throw new GradmixError(
          "data",
          `gpt: ${field} hold token ${ids[i]}, at ${i}, which is not in the model's vocabulary of ${vocabSize}`,
        );
  const shape = [examples, time];
  return { inputs: tensor(inputs, shape, "i32"), targets: tensor(targets, shape, "i32") };
}

function isTokenSource(source: Source): source is TokenSource {
  return "stream" in source && "time" in source;
}

/**
 * Throws `data`, naming the source, if its windows from `first` (included) to `end` (excluded) do not fit the model: if there are none, they are
 * longer than the context, or a token is outside the vocabulary. Of a part of a source, the whole source is checked. If the tokens of a source cannot
 * be checked, only its number of examples is; its batches are checked when they are used.
 */
export function checkTokens(source: Source, model: TokenModel, first: number, end: number): void {
  const { name, count } = source;
  // Which examples of the whole are in the part may not be known yet.
  if (count >= 1 && source.of !== undefined) {
    checkTokens(source.of, model, 0, source.of.count);
    return;
  }
  if (isTokenSource(source) && source.time > model.context)
    throw new GradmixError(
      "data",
      `"${name}": windows of ${source.time} tokens are longer than the model's context of ${model.context}`,
    );
  if (count < 1) throw new GradmixError("data", `"${name}": it has no windows`);
  if (!isTokenSource(source)) return;
  const { stream, time } = source;
  if (stream.largest !== undefined && stream.largest < model.vocabSize) return;
  const last = Math.min(stream.tokens.length, end * time + 1);
  for (let from = first * time; from < last; from += BLOCK) {
    const ids = stream.tokens.subarray(from, Math.min(last, from + BLOCK));
    for (let i = 0; i < ids.length; i++)
      if (!(ids[i]! < model.vocabSize))
        throw new GradmixError(
          "data",
          `"${name}": token ${ids[i]}, number ${from + i} of its stream, is not in the model's vocabulary of ${model.vocabSize}; use the tokenizer that the model was made for`,
        );
  }
}

/** Number of tokens that are checked at a time. */
const BLOCK = 2 ** 16;
