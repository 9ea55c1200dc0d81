/**
 * Gradient sinks: where weight gradients go when they leave the backward pass.
 *
 * In a GPT four things touch parameters: a linear weight, a bias, a norm gain, an embedding table. Each op that uses
 * a parameter hands its *factors* (inputs, output gradients) to the sink instead of forming the gradient, and the sink
 * decides what to make of them: the sum for training, one gradient per example or domain, alignments, norms.
 *
 * Axis 0 is the batch. A sink that tells examples apart attributes each row of a factor to the example it belongs to, the rows in equal shares in
 * the order of the examples: row by row for [B, …], and T rows to each example for a flattened batch [B·T, …]. That is right while nothing
 * between parameter and loss mixes examples, which `gradients` makes sure of (batch.ts).
 */
import type { Tensor } from "../tensor/tensor.ts";

/** What a backward pass hands the gradients of parameters to. A sink decides what is kept of them: their sum, or inner products and norms per example or per domain, or all of them. */
export interface GradientSink {
  /** Name of the sink, for error messages. */
  readonly name: string;
  /**
   * Does it tell examples apart? Then `gradients` refuses losses that mix them. false: it takes sums over the batch, of any loss. Default true.
   */
  readonly perExample?: boolean;
  /**
   * A backward pass begins, of so many examples; these are the parameters it may hand over. Throws when it cannot take them.
   */
  begin?(parameters: ReadonlySet<Tensor>, examples: number): void;
  /** It has ended, without an error. */
  end?(): void;
  /** dW [out, in] = Σ_rows dyᵀ x, with x [rows…, in] and dy [rows…, out]. */
  linear(parameter: Tensor, x: Tensor, dy: Tensor): void;
  /** db [width] = Σ_rows dy, with dy [rows…, width]. */
  bias(parameter: Tensor, dy: Tensor): void;
  /** dg [width] = Σ_rows dy ⊙ x̂, x̂ the normalised x; `stats` [rows, 2] from the norm kernel. */
  gain(parameter: Tensor, kind: "layer" | "rms", x: Tensor, stats: Tensor, dy: Tensor): void;
  /** dE [rows, width]: adds dy [rows…, width] into rows ids [rows…]. */
  embedding(parameter: Tensor, ids: Tensor, dy: Tensor): void;
  /** A contribution of an op that has no rule above, already summed over the batch. `gradient` has the parameter's shape. */
  dense(parameter: Tensor, op: string, gradient: Tensor): void;
}
