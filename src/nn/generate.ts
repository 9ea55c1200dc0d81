/** Text generation: one token at a time from the model's distribution. Deterministic in the seed. */
import { GradmixError } from "../errors.ts";
import { checkOptions, checkRange, integerIn, numberIn, numberList, objectWith } from "../options.ts";
import { uniformAt } from "../tensor/rng.ts";
import { keep, scope, tensor } from "../tensor/tensor.ts";
import type { GPT } from "./gpt.ts";
import { seedKey } from "./parameters.ts";

/** Options of `generate` and `sampleToken`. */
export interface GenerateOptions {
  /** Largest number of tokens to generate. Default 100. */
  readonly maxTokens?: number;
  /** Divisor of the logits; with 0 the likeliest token is always taken. Default 1. */
  readonly temperature?: number;
  /** Number of likeliest tokens to choose from; 0 means all. Default 0. */
  readonly topK?: number;
  /** Seed of the random choices. Default 0. */
  readonly seed?: number;
  /** Token that ends the text; it is not yielded. Default: none. */
  readonly stop?: number;
}

const count = integerIn(0);
const checkTemperature = numberIn({ min: 0 });
const checkTopK = count;
const checkUniform = numberIn({ min: 0, max: 1, openMax: true });

/**
 * Continues `prompt` (token ids, at least one) one token at a time. The model sees the last `context` tokens and computes all of them again for every
 * token (there is no cache of keys and values), so this is meant for samples from small models. Throws, at the first token, `config` for options out
 * of range and ids outside the vocabulary, and `numeric` if the model's logits are not finite numbers.
 */
export async function* generate(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<number, void, undefined> {
  checkOptions("generate", options, {
    maxTokens: count,
    temperature: checkTemperature,
    topK: checkTopK,
    seed: count,
    stop: count,
  });
  objectWith("a GPT, such as createGPT makes", "config", "logits", "parameters")("generate: model", model);
  numberList("generate: prompt", prompt);
  const { maxTokens = 100, temperature = 1, topK = 0, seed = 0, stop } = options;
  const { vocabSize, context } = model.config;
  const tokens = Array.from(prompt);
  if (tokens.length === 0) throw new GradmixError("config", "prompt: at least one token is needed");
  for (const id of tokens) checkRange("generate: prompt", id, { min: 0, max: vocabSize - 1, integer: true });
  if (stop !== undefined) checkRange("generate: stop", stop, { min: 0, max: vocabSize - 1, integer: true });
  const random = seedKey(seed);
  for (let i = 0; i < maxTokens; i++) {
    const seen = tokens.slice(-context);
    const logits = keep(
      scope(() => {
        const all = model.logits(tensor(seen, [1, seen.length], "i32"));
        return all.part([vocabSize], (seen.length - 1) * vocabSize);
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
 * The token that the uniform number `u` in [0, 1) selects from softmax(logits/temperature) over the `topK` likeliest (0 means all). With temperature
 * 0 it is the likeliest token, the first of equal ones. Throws `config` for arguments out of range, and `numeric` if a logit is NaN or none is finite.
 */
export function sampleToken(logits: ArrayLike<number>, temperature: number, topK: number, u: number): number {
  numberList("sampleToken: logits", logits);
  checkTemperature("sampleToken: temperature", temperature);
  checkTopK("sampleToken: topK", topK);
  checkUniform("sampleToken: u", u);
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
