/** A plain training step of a GPT with the preset gpt2 on the current backend, on random tokens. */
import { meanGradient } from "gradmix/dga";
import { adamw, arenaLike, createGPT, type GPT, type TokenBatch } from "gradmix/nn";
import type { Shape } from "./_models.ts";

/** Makes the model of a shape. With `checkpoint`, blocks are recomputed in the backward pass. */
export const gptOf = ({ vocabSize, dim, layers, heads, T }: Shape, checkpoint = false): GPT =>
  createGPT({ preset: "gpt2", vocabSize, dim, layers, heads, context: T }, { checkpoint });

/** Makes windows of random tokens. */
export function windowsFor({ vocabSize, T }: Shape, examples: number): TokenBatch {
  let state = 1;
  const draw = (): number => (state = (state * 48271) % 2147483647) % vocabSize;
  return {
    inputs: Int32Array.from({ length: examples * T }, draw),
    targets: Int32Array.from({ length: examples * T }, draw),
    tokens: new Int32Array(examples).fill(T),
    time: T,
  };
}

/** Gradient of the mean loss and AdamW, of the model of this shape or of a given one. */
export function plainStep(shape: Shape, model: GPT = gptOf(shape)): () => Promise<void> {
  const optimizer = adamw(model.parameters);
  const gradient = arenaLike(model.parameters);
  const batch = windowsFor(shape, shape.B);
  return async () => {
    const losses = meanGradient(model, batch, gradient);
    const norm = optimizer.step(gradient.arena, 1e-3);
    await losses.data();
    await norm.data();
    losses.dispose();
    norm.dispose();
  };
}
