/** The lines of metrics.jsonl and the weights of weights.json, as plain data. In the files Maps are objects. */

/**
 * One line of metrics.jsonl, in which Maps are objects: what a step did. Of more than 100 domains (or bases) `weights` and `alignments` hold the 100 heaviest, `domains` those
 * that the batch held, and every ⌈k/100⌉-th domain is evaluated.
 */
export interface StepMetrics {
  /** Steps done, this one included. */
  step: number;
  /** Training tokens seen so far. */
  tokens: number;
  /** Mean loss per token of this step's batch, in nats. */
  loss: number;
  /** null where it overflowed. */
  gradNorm: number | null;
  /** With loss scaling: the scale of the step. */
  lossScale?: number;
  /** With loss scaling, where the gradient overflowed: the optimizer took no step. */
  skipped?: true;
  lr: number;
  /** Wall time of this step, its evaluation included. Times are the only fields that differ between two runs of one configuration. */
  seconds: number;
  /** The weights that this step's batch was drawn with; with bases, theirs. */
  weights: ReadonlyMap<string, number>;
  /** `loss` is null where the batch held nothing of the domain. With bases, or many domains, only those that it held, with what they weighed. */
  domains: ReadonlyMap<string, { weight?: number; loss: number | null; tokens: number; epochs: number }>;
  /** On steps that updated the weights: the domains (bases) that were measured, and on how many tokens. */
  alignments?: ReadonlyMap<
    string,
    {
      value: number;
      standardError: number | null;
      norm: number | null;
      /** Runs of earlier versions have none. */
      tokens?: number;
      effectiveSize?: number;
    }
  >;
  /** With `alignments`: the norm of the target's gradient, and of how many examples the target is. */
  targetNorm?: number;
  targetExamples?: number;
  /** On steps after which guarded domains were evaluated: those, of many the ones whose loss rose most. */
  guard?: ReadonlyMap<string, GuardMetrics>;
  /** On steps that evaluated. */
  evaluation?: Evaluation;
  /** On steps that evaluated: the part of `seconds` that the evaluation took. */
  evaluationSeconds?: number;
}

/** A guarded domain on its held-out windows, the same ones each time. */
export interface GuardMetrics {
  /** Mean loss per token. */
  loss: number;
  /** The same at the start of the run, or of the model of --reference. */
  reference: number;
  /** Of the difference of these two; null where it is not known. */
  standardError: number | null;
  /** λ: how hard the guard pulls; 0 where the domain's weight is the rule's. null after the last step, where the rule was not asked any more. */
  multiplier: number | null;
}

/** Mean loss per token on the held-out sets. `target` is null without one; `domains` is empty where the target alone was evaluated. */
export interface Evaluation {
  target: number | null;
  domains: ReadonlyMap<string, number>;
}

/** The first line of metrics.jsonl in a run that evaluates before its first step. */
export interface StartLine {
  step: 0;
  event: "start";
  /** Wall time of the evaluation. */
  seconds: number;
  /** Before the first step. */
  evaluation: Evaluation;
  /** What the rule and the evaluations will take, as shares of the training's computation, counted before the run. */
  cost: { alignment: number; guard?: number; evaluation: number };
}

/** What a resumed run does otherwise than the run before it, by name. */
export type RunChanges = Readonly<
  Record<string, { readonly from: string | number; readonly to: string | number }>
>;

/** A line of metrics.jsonl after step `step`, where a run was resumed and does something otherwise. */
export interface ResumeLine {
  step: number;
  event: "resumed";
  changes: RunChanges;
}

/** Any line of metrics.jsonl. */
export type MetricsLine = StartLine | StepMetrics | ResumeLine;

/** By name, on the simplex. */
export interface NamedWeights {
  /** What the last step's batch was drawn with. */
  final: ReadonlyMap<string, number>;
  /** The mean over all steps. */
  averaged: ReadonlyMap<string, number>;
}

/** weights.json: of the domains; with bases also theirs. */
export type RunWeights = NamedWeights & { bases?: NamedWeights };
