/**
 * Gradient sinks: where weight gradients go when they leave the backward pass.
 *
 * In a GPT four things touch parameters: a linear weight, a bias, a norm gain, an embedding table. Each op that uses
 * a parameter hands its *factors* (inputs, output gradients) to the sink instead of forming the gradient, and the sink
 * decides what to make of them: the sum for training, one gradient an example or a domain, alignments, norms. Axis 0 of every
 * factor is the batch.
 */
import type { Tensor } from "../tensor/tensor.ts";

export interface GradientSink {
  readonly name: string;
  /** A backward pass begins; these are the parameters it may hand over. */
  begin?(parameters: ReadonlySet<Tensor>): void;
  /** It has ended, without an error. */
  end?(): void;
  /** dW [out, in] = Σ_rows dyᵀ x, with x [batch, …, in] and dy [batch, …, out]. */
  linear(parameter: Tensor, x: Tensor, dy: Tensor): void;
  /** db [width] = Σ_rows dy, with dy [batch, …, width]. */
  bias(parameter: Tensor, dy: Tensor): void;
  /** dg [width] = Σ_rows dy ⊙ x̂, x̂ the normalised x; `stats` [rows, 2] from the norm kernel. */
  gain(parameter: Tensor, kind: "layer" | "rms", x: Tensor, stats: Tensor, dy: Tensor): void;
  /** dE [rows, width]: adds dy [batch, …, width] into rows ids [batch, …]. */
  embedding(parameter: Tensor, ids: Tensor, dy: Tensor): void;
  /** A contribution of an op that has no rule above, already summed over the batch. `gradient` has the parameter's shape. */
  dense(parameter: Tensor, op: string, gradient: Tensor): void;
}
