/** What a model of tokens takes: batches of token ids as tensors, and sources of tokens that fit its vocabulary and its context. */
import { GradmixError } from "../errors.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import type { Source, TokenBatch } from "./model.ts";

/** A batch of tokens that is on the device: both i32 [examples, time]; targets < 0 do not count. */
export interface TokenTensors {
  /** Ids of the tokens that the model reads. */
  readonly inputs: Tensor;
  /** Ids of the next tokens, which it should predict. */
  readonly targets: Tensor;
}

/** What a model of tokens says of itself. */
interface TokenModel {
  readonly context: number;
  readonly vocabSize: number;
}

/** A source that lets its tokens be seen: window i is tokens i·time … (i + 1)·time of the stream (`Windows`). */
interface TokenSource extends Source {
  readonly stream: {
    readonly tokens: { readonly length: number; subarray(from: number, to: number): ArrayLike<number> };
    /** No token is larger, where that is known. */
    readonly largest?: number;
  };
  readonly time: number;
}

/**
 * The batch's tensors, in the current scope. Throws `shape` for arrays that are not of one batch, and `data`, naming the place, for ids that are not in
 * the vocabulary. Tensors are taken as they are.
 */
export function tokenTensors(batch: TokenBatch | TokenTensors, vocabSize: number): TokenTensors {
  // What has no counts is on the device already.
  if (!("tokens" in batch)) return batch;
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
 * Throws `data`, naming the source, when its windows from `first` to before `end` do not fit the model: none at all, longer than the context, or with a token
 * that is not in the vocabulary. Of a source that does not let its tokens be seen only the number of examples is looked at; its batches are checked as
 * they come.
 */
export function checkTokens(source: Source, model: TokenModel, first: number, end: number): void {
  const { name, count } = source;
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

/** Tokens that are looked at, at a time. */
const BLOCK = 2 ** 16;
