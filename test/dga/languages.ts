/** Synthetic languages and tiny models of them, for tests of training. */
import { tokenWriter, type Windows, windowsOf } from "gradmix/data";
import { createGPT, type GPT } from "gradmix/nn";
import { foldIn, key, uniformAt } from "#dist/tensor/rng.js";

export const vocabSize = 24;
export const time = 16;

/** A language: each token is followed by one of three others, which differ between languages. */
export function language(seed: number, tokens: number): number[] {
  const rules = foldIn(key(17), seed);
  const walk = foldIn(key(18), seed);
  const out = [seed % vocabSize];
  for (let i = 1; i < tokens; i++) {
    const choice = Math.floor(uniformAt(walk, i) * 3);
    out.push(Math.floor(uniformAt(rules, (out[i - 1] ?? 0) * 3 + choice) * (vocabSize - 1)));
  }
  return out;
}

export function windows(name: string, documents: number[][], length: number = time): Windows {
  const writer = tokenWriter(vocabSize, vocabSize - 1);
  for (const document of documents) writer.document(document);
  return windowsOf(name, writer.finish(), length);
}

export const tiny = (seed = 1, preset: "llama" | "gpt2" = "llama"): GPT =>
  createGPT({ preset, vocabSize, dim: 16, layers: 1, heads: 2, context: time }, { seed });
