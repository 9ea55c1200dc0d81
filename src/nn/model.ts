/** What training asks of a model, whatever it is made of, and of the batches that the model takes. */
import type { Tensor } from "../tensor/tensor.ts";
import type { Parameters } from "./parameters.ts";

/**
 * A batch: plain data, one row per example. Every typed array in it holds `examples × something` numbers, example after example; numbers, strings and
 * booleans are the same for all of them. Batches that keep to this can be joined, cut and picked from without knowing what they mean.
 */
export interface Examples {
  /** Terms in each example's loss, at least 0: the counted tokens of a window, 1 for a row of a table. Its length is the number of examples. */
  readonly tokens: ArrayLike<number>;
}

/** Windows of tokens of equal length, which may be ragged: targets < 0 do not count. */
export interface TokenBatch extends Examples {
  /** Token ids, [examples · time]. */
  readonly inputs: Int32Array;
  /** Next tokens, [examples · time]; −1 where nothing counts. */
  readonly targets: Int32Array;
  /** T. */
  readonly time: number;
}

/** What a model may look at of a source of examples before any is drawn. */
export interface Source {
  /** Name of the source, for error messages. */
  readonly name: string;
  /** Examples in it. */
  readonly count: number;
}

/** What a trainer, an estimator and an evaluation ask of a model. `GPT` is one. */
export interface Model<B extends Examples = TokenBatch> {
  /** All parameters as views of one arena (`createParameters`). */
  readonly parameters: Parameters;
  /**
   * A batch → the summed loss of each example [examples]. It must depend on the parameters through ops alone, and example e's loss on row e alone
   * (`gradients` says which passes need that).
   */
  losses(batch: B): Tensor;
  /**
   * Throws `data`, naming the source, when its examples from `first` (default 0) to before `end` (default: all) do not fit the model. It is asked
   * before a run of every source that the model will see, and before an evaluation. Left out by models that can take whatever their batches can say.
   */
  check?(source: Source, first?: number, end?: number): void;
}
