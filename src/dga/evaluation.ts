/** The loss of a model on held-out examples. */
import type { CancelSignal } from "../cancel.ts";
import { assemble, type Dataset } from "../data/dataset.ts";
import { GradmixError } from "../errors.ts";
import type { Examples, Model } from "../nn/model.ts";
import { numberIn } from "../options.ts";
import { total } from "./measurements.ts";
import { lossesOf } from "./passes.ts";

/**
 * Mean loss per token over the first examples that hold `tokens` tokens, `batch` examples at a time. Throws `data` if the examples do not fit the
 * model or none of them has a token, and the signal's reason if it is aborted before a batch.
 */
export async function meanLoss<B extends Examples>(
  model: Model<NoInfer<B>>,
  source: Dataset<B>,
  tokens: number,
  batch: number,
  signal?: CancelSignal,
): Promise<number> {
  const { end, counted } = firstExamples(source, tokens);
  let summed = 0;
  for await (const losses of lossesInBatches(model, source, end, batch, signal)) summed += total(losses);
  return summed / counted;
}

/** The summed loss and the tokens of each of the first examples that hold `tokens` tokens. Throws like `meanLoss`. */
export async function exampleLosses<B extends Examples>(
  model: Model<NoInfer<B>>,
  source: Dataset<B>,
  tokens: number,
  batch: number,
  signal?: CancelSignal,
): Promise<{ readonly losses: number[]; readonly tokens: number[] }> {
  const { end } = firstExamples(source, tokens);
  const losses: number[] = [];
  for await (const batchLosses of lossesInBatches(model, source, end, batch, signal))
    losses.push(...batchLosses);
  return { losses, tokens: Array.from({ length: end }, (_, e) => source.tokensOf(e)) };
}

/** The number of first examples that together have at least `tokens` tokens, and the number of their tokens. */
function firstExamples<B extends Examples>(
  source: Dataset<B>,
  tokens: number,
): { readonly end: number; readonly counted: number } {
  // Infinity stands for all examples.
  numberIn({ min: 1, openMax: false })("evaluate: tokens", tokens);
  let end = 0;
  let counted = 0;
  while (end < source.count && counted < tokens) counted += source.tokensOf(end++);
  if (counted === 0) throw new GradmixError("data", `"${source.name}" has no tokens to evaluate a model on`);
  return { end, counted };
}

/** The summed losses of the first `end` examples, batch by batch. */
async function* lossesInBatches<B extends Examples>(
  model: Model<NoInfer<B>>,
  source: Dataset<B>,
  end: number,
  batch: number,
  signal?: CancelSignal,
): AsyncGenerator<Float64Array, void, undefined> {
  model.check?.(source, 0, end);
  for (let first = 0; first < end; first += batch) {
    signal?.throwIfAborted();
    const draws = Array.from({ length: Math.min(batch, end - first) }, (_, i) => ({
      domain: 0,
      window: first + i,
      epoch: 0,
    }));
    yield await lossesOf(model, assemble(draws, [source]));
  }
}
