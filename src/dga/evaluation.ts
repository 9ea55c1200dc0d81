/** The loss of a model on held-out examples. */
import type { CancelSignal } from "../cancel.ts";
import { assemble, type Dataset } from "../data/dataset.ts";
import { GradmixError } from "../errors.ts";
import type { Examples, Model } from "../nn/model.ts";
import { numberIn } from "../options.ts";
import { total } from "./measurements.ts";
import { lossesOf } from "./passes.ts";

/**
 * Mean loss per token over the first examples that hold `tokens` tokens, `batch` of them at once. Throws `data` for examples that do not fit the model, and
 * where none of them has a token; and the reason of the signal when it is aborted before a batch.
 */
export async function meanLoss<B extends Examples>(
  model: Model<NoInfer<B>>,
  source: Dataset<B>,
  tokens: number,
  batch: number,
  signal?: CancelSignal,
): Promise<number> {
  // Infinity is all of them.
  numberIn({ min: 1, openMax: false })("evaluate: tokens", tokens);
  let end = 0;
  let counted = 0;
  while (end < source.count && counted < tokens) counted += source.tokensOf(end++);
  if (counted === 0) throw new GradmixError("data", `"${source.name}" has no tokens to evaluate a model on`);
  model.check?.(source, 0, end);
  let summed = 0;
  for (let first = 0; first < end; first += batch) {
    signal?.throwIfAborted();
    const draws = Array.from({ length: Math.min(batch, end - first) }, (_, i) => ({
      domain: 0,
      window: first + i,
      epoch: 0,
    }));
    summed += total(await lossesOf(model, assemble(draws, [source])));
  }
  return summed / counted;
}
