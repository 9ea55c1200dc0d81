/** How alignments are measured: the options, and their defaults. The help of the command shows them, so this file loads nothing of the engine. */
import type { EstimateOptions } from "./passes.ts";

/**
 * A way to measure alignments. `perDomain` takes one backward pass per domain, `segmented` one pass for all domains, `forward` one forward derivative
 * along the target's gradient, and `sketch` compares random projections.
 */
export type EstimatorName = "perDomain" | "segmented" | "forward" | "sketch";
/** Names of all estimators. */
export const estimatorNames: readonly EstimatorName[] = ["perDomain", "segmented", "forward", "sketch"];

/**
 * How a trainer measures alignments. One set of options can serve several rules, so an option that a rule has no use for is ignored: all of them for a rule
 * that compares no gradients; `estimator`, `domainExamples` and `bases` with `from: "step"`; `refreshEvery`, `measureEvery` and `probes` with `from: "batch"`;
 * `estimator` and `targetExamples` for a rule on a Gram matrix; and `bases` unless a basis mixes several domains.
 */
export interface AlignmentOptions {
  /** How alignments are measured with `from: "batch"`. Default "segmented". */
  readonly estimator?: EstimatorName;
  /**
   * What is aligned with the target: "step", the examples of the training steps themselves, for a few per cent of their cost, or "batch", a separate
   * batch of every domain. Default "step". The default is "batch" if an option is given that only a batch has (`estimator`, `domainExamples`,
   * `bases`), and for rules that need what steps do not measure (a Gram matrix, several targets).
   */
  readonly from?: "batch" | "step";
  /** With `from: "batch"`: examples of each domain in an alignment batch. Default 4. */
  readonly domainExamples?: number;
  /**
   * Examples of the target from which its gradient is computed. Default 8; with `from: "step"`, where the gradient is computed more often than every 10
   * steps, in proportion fewer (4 for every 5 steps), so that the cost per step stays.
   */
  readonly targetExamples?: number;
  /**
   * With `from: "step"`: training steps between two refreshes of the target's gradient, which is also refreshed after every weight update, so that no more
   * than the steps between two updates have an effect. Default 10.
   */
  readonly refreshEvery?: number;
  /**
   * With `from: "step"`: every how many steps the examples are measured, counted from the last weight update; the first step after an update is always
   * measured. A measurement costs a few per cent of
   * its step. In runs of some hundred steps, the noise of the target's gradient limits the precision more than the number of measured examples.
   * Default: that of the rule's `schedule`, else 2.
   */
  readonly measureEvery?: number;
  /**
   * With `from: "step"`: the largest number of domains per weight update that are measured although the steps hardly draw them (less than one measured
   * example expected). One example of each is measured, without training on it; these domains take turns. Without probes, a rule learns almost nothing
   * about a domain to which its prior gives almost no weight. Default: that of the rule's `schedule` (in proportion fewer if updates come more often
   * than the schedule says), else 0. Not possible with bases.
   */
  readonly probes?: number;
  /**
   * Share of the model's blocks, from 0 to 1, whose gradients are aligned: the last ones, in number rounded up, and the parameters after them, such as a
   * head. The passes over the target and over probes then end below these blocks. 1 aligns all parameters, 0 only those after the blocks. The specs of
   * the model's parameters say which blocks there are. Default: with `from: "step"` that of the rule's `schedule`, if this selects a matrix (a model
   * with blocks, and a head that is not tied to the embedding if the share is 0); else 1.
   */
  readonly blockShare?: number;
  /** Selects the parameters whose gradients are aligned, by name, in place of `blockShare`. */
  readonly parameters?: EstimateOptions["parameters"];
  /**
   * How bases are measured. "shared" (default) draws one batch of 16·domainExamples examples for all bases and weighs them by importance; "direct"
   * draws domainExamples examples from each basis. Bases that are single domains are always measured directly. A shared batch, and the training
   * steps, do not give the norm of a basis's gradient: cosines then divide by the root mean square over single examples' norms, which is larger.
   */
  readonly bases?: "shared" | "direct";
}

/** Defaults of the alignment options of `createTrainer`. That of `from` is not in this list: see `measuredFrom`. */
export const alignmentDefaults: Required<Omit<AlignmentOptions, "parameters" | "from">> = {
  estimator: "segmented",
  domainExamples: 4,
  targetExamples: 8,
  refreshEvery: 10,
  measureEvery: 2,
  probes: 0,
  blockShare: 1,
  bases: "shared",
};
