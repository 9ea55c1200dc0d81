/** The interfaces of models for training and of the batches that they accept. */
import type { Tensor } from "../tensor/tensor.ts";
import { objectWith, type OptionCheck } from "../options.ts";
import type { Parameters } from "./parameters.ts";

/**
 * A batch: plain data with one row per example. Every typed array in it holds `examples × something` numbers, example after example; numbers, strings
 * and booleans are the same for all examples. Batches that follow this convention can be concatenated, cut and picked from without knowing their
 * meaning.
 */
export interface Examples {
  /**
   * Number of terms in each example's loss, at least 0: the counted tokens of a window, or 1 for a row of a table. The length of this list is the
   * number of examples.
   */
  readonly tokens: ArrayLike<number>;
}

/** A batch of token windows of equal length. Targets < 0 do not count, so windows may be ragged. */
export interface TokenBatch extends Examples {
  /** Token ids [examples · time]. */
  readonly inputs: Int32Array;
  /** Next tokens [examples · time]; −1 where nothing counts. */
  readonly targets: Int32Array;
  /** Tokens per window, T. */
  readonly time: number;
}

/** The properties of a source of examples that a model can check before any is drawn. */
export interface Source {
  /** Name of the source, for error messages. */
  readonly name: string;
  /** Number of examples. */
  readonly count: number;
  /** The source of which these examples are a part, such as that from which `selectWindows` selects. */
  readonly of?: Source;
}

/** The training step that a pass belongs to, for models that draw random numbers while they train, such as those with `dropout`. */
export interface TrainingPass {
  /** Number of the step, from 1. */
  readonly step: number;
  /**
   * Seed of the step's random numbers, an integer of at least 0. It follows from the seed of the trainer and from `step`, so a resumed run draws the same
   * numbers. A model with several uses of random numbers distinguishes them by the `stream` of `dropout`, or by `foldIn`.
   */
  readonly seed: number;
}

/** The interface of a model for trainers, estimators and evaluations. `GPT` implements it. */
export interface Model<B extends Examples = TokenBatch> {
  /** All parameters, as views of one arena (`createParameters`). */
  readonly parameters: Parameters;
  /**
   * Computes the summed loss of each example [examples]. It must depend on the parameters only through ops, and the loss of example e only on row e
   * (`gradients` says which passes need this). `training` is given in the pass that computes the gradient of a training step, and in no other: evaluations,
   * the target's gradient and the estimators of alignments measure the model as it is used, without dropout.
   */
  losses(batch: B, training?: TrainingPass): Tensor;
  /**
   * Throws `data`, naming the source, if its examples from `first` (default 0) to `end` (excluded; default: all) do not fit the model. It is called
   * before a run for every source that the model will see, and before an evaluation. Models that accept every possible batch leave it out.
   */
  check?(source: Source, first?: number, end?: number): void;
}

/** Accepts a model; its parameters are checked where they are used. */
export const checkModel: OptionCheck = objectWith("a model, such as createGPT makes", "parameters", "losses");
