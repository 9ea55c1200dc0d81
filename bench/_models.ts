/** Models and batches that benchmarks share. */
import type { Capabilities } from "gradmix";
import { GradmixError } from "gradmix";

export interface Shape {
  readonly vocabSize: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  /** Windows and tokens in each. */
  readonly B: number;
  readonly T: number;
}

const shapes: Readonly<Record<string, Shape>> = {
  tiny: { vocabSize: 256, dim: 32, layers: 2, heads: 2, B: 8, T: 32 },
  /** The size at which mixtures are found on a CPU. */
  mixture: { vocabSize: 1024, dim: 96, layers: 3, heads: 4, B: 16, T: 64 },
  small: { vocabSize: 1024, dim: 256, layers: 6, heads: 8, B: 8, T: 256 },
  "124m": { vocabSize: 50_304, dim: 768, layers: 12, heads: 12, B: 8, T: 1024 },
};

export function shapeOf(name: string): Shape {
  const shape = shapes[name];
  if (shape === undefined) throw new GradmixError("config", `--model: there is no "${name}"`);
  return shape;
}

/** Rows and columns [out, in] of the weights of a block of gpt2 (query, key and value; out; up; down) and of the head. */
export function linearLayers({ dim, vocabSize }: Pick<Shape, "dim" | "vocabSize">): [number, number][] {
  return [
    [3 * dim, dim],
    [dim, dim],
    [4 * dim, dim],
    [dim, 4 * dim],
    [vocabSize, dim],
  ];
}

/** Floating-point operations of a step: 6 per parameter and token for the linear layers, 12·L·d·T/2 per token for causal attention. */
export function stepFlops({ vocabSize, dim, layers, B, T }: Shape, parameters: number): number {
  return B * T * (6 * (parameters - (vocabSize + T) * dim) + (12 * layers * dim * T) / 2);
}

/** Floating-point operations of a round of `microPeak`: the product's micro-kernel has a tile of 6 rows with relaxed SIMD, of 4 without, and twice as many columns if vectors have 256 bits. */
export const peakFlops = ({ simd, vectorBits = 128 }: Pick<Capabilities, "simd" | "vectorBits">): number =>
  2 * (simd === "relaxed" ? 6 : 4) * (vectorBits / 16) * 128;
