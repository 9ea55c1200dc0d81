/**
 * Gradient sinks: where weight gradients go when they leave the backward pass.
 *
 * In a GPT, four kinds of ops touch parameters: a linear weight, a bias, a norm gain, and an embedding table. Each op that uses a parameter passes
 * its *factors* (inputs, output gradients) to the sink instead of forming the gradient, and the sink decides what to compute from them: the sum for
 * training, one gradient per example or domain, alignments, norms.
 *
 * Axis 0 is the batch. A sink that distinguishes examples attributes each row of a factor to its example. Rows are divided equally, in the order of
 * the examples: one row each for [B, …], and T rows each for a flattened batch [B·T, …]. This is correct as long as nothing between parameter and
 * loss mixes examples, which `gradients` ensures (batch.ts).
 */
import { GradmixError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Receives the gradients of parameters from a backward pass. A sink decides what is kept of them: their sum, or inner products and norms per example
 * or per domain, or all of them.
 */
export interface GradientSink {
  /** Name of the sink, for error messages. */
  readonly name: string;
  /**
   * Whether the sink distinguishes examples. If so, `gradients` refuses losses that mix them; if not, it receives sums over the batch, from any loss.
   * Default true.
   */
  readonly perExample?: boolean;
  /**
   * Whether a sink that distinguishes examples does so for this parameter. Values that depend only on parameters for which it does not are like data: they
   * may mix examples, and any op may use these parameters. Default: for all parameters.
   */
  distinguishes?(parameter: Tensor): boolean;
  /** Called at the start of a backward pass with the parameters that may follow and the number of examples. Throws if the sink cannot accept them. */
  begin?(parameters: ReadonlySet<Tensor>, examples: number): void;
  /** Called at the end of a pass without an error. */
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

const methods = ["linear", "bias", "gain", "embedding", "dense"] as const;

/** Throws `config` unless the sink has all methods that it needs. */
export function wantSink(sink: GradientSink): void {
  const missing = methods.filter((name) => typeof sink[name] !== "function");
  if (missing.length > 0)
    throw new GradmixError(
      "config",
      `gradients: sink: it has no method ${missing.join(", ")}; take one of sumSink, alignSink, perExampleSink, …, or write them all`,
    );
}
