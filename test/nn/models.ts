/** Tiny models and batches that the tests of nn share. */
import { tensor, type Tensor } from "gradmix";
import { createGPT, type GPT, type GPTConfig, type GPTOptions } from "gradmix/nn";
import { integers, values } from "../backends/harness.ts";

export const configs: readonly GPTConfig[] = [
  { preset: "llama", vocabSize: 11, dim: 8, layers: 2, heads: 4, kvHeads: 2, hiddenDim: 6, context: 6 },
  { preset: "gpt2", vocabSize: 11, dim: 8, layers: 2, heads: 2, hiddenDim: 12, context: 6 },
];

/** Adds noise to every parameter, because gains of one and biases of zero would hide mistakes. */
async function scramble(model: GPT, deviation = 0.4): Promise<void> {
  for (const [n, parameter] of model.parameters.list.entries()) {
    const before = await parameter.data();
    const noise = values(parameter.size, 100 + n);
    parameter.write(Array.from(before, (x, i) => Math.fround(x + deviation * noise[i])));
  }
}

export async function scrambled(config: GPTConfig, options: GPTOptions = {}): Promise<GPT> {
  const model = createGPT(config, options);
  await scramble(model);
  return model;
}

export interface TokenBatch {
  readonly tokens: number[][];
  /** Whether some targets do not count. */
  readonly targets: number[][];
}

export function batchOf(config: GPTConfig, examples: number, time: number, seed = 1): TokenBatch {
  const rows = (from: number): number[][] =>
    Array.from({ length: examples }, (_, b) => integers(time, from + b, 0, config.vocabSize));
  const targets = rows(seed + 50).map((row, b) => row.map((id, t) => (t > 0 && (t + b) % 4 === 0 ? -1 : id)));
  return { tokens: rows(seed), targets };
}

/** [rows, columns] of integers as a tensor. */
export function ids(rows: readonly (readonly number[])[]): Tensor {
  return tensor(rows.flat(), [rows.length, rows[0].length], "i32");
}

export const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((s, x, n) => s + x * b[n], 0);

/** Checks |got − want| ≤ tolerance·max(1, largest |want|) for every element, and names the first that fails. */
export function differs(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): string | null {
  if (got.length !== want.length) return `${got.length} values, not ${want.length}`;
  const scale = Math.max(1, ...Array.from(want, Math.abs));
  for (let n = 0; n < want.length; n++)
    if (!(Math.abs(got[n] - want[n]) <= tolerance * scale)) return `value ${n} is ${got[n]}, not ${want[n]}`;
  return null;
}
