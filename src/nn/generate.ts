/** Text generation: one token at a time from the model's distribution. Deterministic in the seed. */
import { GradmixError } from "../errors.ts";
import { checkOptions, checkRange, integerIn, numberIn } from "../options.ts";
import { uniformAt } from "../tensor/rng.ts";
import { keep, scope, tensor } from "../tensor/tensor.ts";
import type { GPT } from "./gpt.ts";
import { seedKey } from "./parameters.ts";

/** Options of `generate` and `sampleToken`. */
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
 * Continues `prompt` (token ids, at least one) one token at a time. The model sees the last `context` tokens, and computes all of them anew for
 * every token (no cache of keys and values), so this suits samples from small models. Throws, at the first token, `config` for options out of
 * range and ids outside of the vocabulary; `numeric` when the model's logits are not numbers.
 */
export async function* generate(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<number, void, undefined> {
  const count = integerIn(0);
  checkOptions("generate", options, {
    maxTokens: count,
    temperature: numberIn({ min: 0 }),
    topK: count,
    seed: count,
    stop: count,
  });
  const { maxTokens = 100, temperature = 1, topK = 0, seed = 0, stop } = options;
  const { vocabSize, context } = model.config;
  const tokens = Array.from(prompt);
  if (tokens.length === 0) throw new GradmixError("config", "prompt: at least one token is needed");
  for (const id of tokens) checkRange("generate: prompt", id, { min: 0, max: vocabSize - 1, integer: true });
  const random = seedKey(seed);
  for (let i = 0; i < maxTokens; i++) {
    const seen = tokens.slice(-context);
    const logits = keep(
      scope(() => {
        const all = model.logits(tensor(seen, [1, seen.length], "i32"));
        return all.view([vocabSize], (seen.length - 1) * vocabSize);
      }),
    );
    const last = await logits.data().finally(() => logits.dispose());
    const next = sampleToken(last, temperature, topK, uniformAt(random, i));
    if (next === stop) return;
    tokens.push(next);
    yield next;
  }
}

/**
 * The token that the uniform number `u` in [0, 1) picks from softmax(logits/temperature) over the `topK` likeliest; 0 of them is all. With
 * temperature 0 the likeliest, the first of equal ones. Throws `numeric` when a logit is NaN or none is finite.
 */
export function sampleToken(logits: ArrayLike<number>, temperature: number, topK: number, u: number): number {
  const values = Array.from(logits);
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(top))
    throw new GradmixError(
      "numeric",
      `generate: the largest logit is ${top}; the model's weights are broken`,
    );
  if (temperature === 0) return values.indexOf(top);
  let ids = values.map((_, id) => id);
  if (topK > 0 && topK < ids.length)
    ids = ids.sort((a, b) => values[b]! - values[a]! || a - b).slice(0, topK);
  const weights = ids.map((id) => Math.exp((values[id]! - top) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let left = u * total;
  let pick = ids[0]!;
  for (const [i, weight] of weights.entries()) {
    if (weight === 0) continue;
    pick = ids[i]!;
    left -= weight;
    if (left < 0) break;
  }
  return pick;
}
