/** The loss of a model on held-out windows. */
import { assembleBatch } from "../data/batch.ts";
import { checkWindows, type Windows } from "../data/tokens.ts";
import { checkRange } from "../options.ts";
import type { GPT } from "../nn/gpt.ts";
import { keep, scope } from "../tensor/tensor.ts";
import { sum, take, upload } from "./passes.ts";

/**
 * Mean loss per token over the first windows that hold `tokens` tokens, `batch` of them at once. Throws `data` for windows that do not fit the model, and
 * the reason of the signal when it is aborted before a batch.
 */
export async function meanLoss(
  model: GPT,
  windows: Windows,
  tokens: number,
  batch: number,
  signal?: AbortSignal,
): Promise<number> {
  checkRange("evaluate: tokens", tokens, { min: 1, max: Infinity, openMax: false });
  let end = 0;
  let counted = 0;
  while (end < windows.count && counted < tokens) counted += windows.tokensOf(end++);
  checkWindows(windows, model.config, 0, end);
  let summed = 0;
  for (let first = 0; first < end; first += batch) {
    signal?.throwIfAborted();
    const draws = Array.from({ length: Math.min(batch, end - first) }, (_, i) => ({
      domain: 0,
      window: first + i,
      epoch: 0,
    }));
    const rows = assembleBatch(draws, [windows]);
    const losses = keep(
      scope(() => {
        const { inputs, targets } = upload(rows);
        return model.losses(inputs, targets);
      }),
    );
    summed += sum(await take(losses));
  }
  return summed / counted;
}
