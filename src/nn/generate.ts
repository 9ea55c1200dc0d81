/** Text generation: one token at a time from the model's distribution. Deterministic in the seed. */
import { GradmixError } from "../errors.ts";
import { key, uniformAt } from "../tensor/rng.ts";
import { keep, scope, tensor } from "../tensor/tensor.ts";
import type { GPT } from "./gpt.ts";

export interface GenerateOptions {
  /** Default 100. */
  readonly maxTokens?: number;
  /** Logits are divided by it; 0 always takes the likeliest token. Default 1. */
  readonly temperature?: number;
  /** Only the k likeliest tokens can come; 0 is all. Default 0. */
  readonly topK?: number;
  /** Default 0. */
  readonly seed?: number;
  /** Ends the text; it is not yielded. */
  readonly stop?: number;
}

/**
 * Continues `prompt` (token ids, at least one). The model sees the last `context` tokens. Throws `config` for options out of range, at the
 * first token.
 */
export async function* generate(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<number, void, undefined> {
  const { maxTokens = 100, temperature = 1, topK = 0, seed = 0, stop } = options;
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    throw new GradmixError(
      "config",
      `temperature: ${temperature} is out of range; it must be finite and at least 0`,
    );
  if (!Number.isInteger(topK) || topK < 0)
    throw new GradmixError("config", `topK: ${topK} is out of range; it must be an integer of at least 0`);
  if (prompt.length === 0) throw new GradmixError("config", "prompt: at least one token is needed");
  const tokens = Array.from(prompt);
  const random = key(seed);
  for (let i = 0; i < maxTokens; i++) {
    const seen = tokens.slice(-model.config.context);
    const logits = keep(scope(() => model.logits(tensor(seen, [1, seen.length], "i32"))));
    const all = await logits.data().finally(() => logits.dispose());
    const { vocabSize } = model.config;
    const last = all.subarray((seen.length - 1) * vocabSize);
    const next = sampleToken(last, temperature, topK, uniformAt(random, i));
    if (next === stop) return;
    tokens.push(next);
    yield next;
  }
}

/** The token that the uniform number `u` picks from softmax(logits/temperature) over the `topK` likeliest. */
export function sampleToken(logits: ArrayLike<number>, temperature: number, topK: number, u: number): number {
  const order = Array.from({ length: logits.length }, (_, i) => i).sort(
    (a, b) => logits[b] - logits[a] || a - b,
  );
  if (temperature === 0) return order[0];
  const kept = topK > 0 ? order.slice(0, topK) : order;
  const top = logits[kept[0]];
  const weights = kept.map((id) => Math.exp((logits[id] - top) / temperature));
  let left = u * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < kept.length; i++) {
    left -= weights[i];
    if (left < 0) return kept[i];
  }
  return kept[kept.length - 1];
}
