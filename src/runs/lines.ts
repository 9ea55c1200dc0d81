/** The lines of metrics.jsonl and the weights of weights.json, as plain data. In the files, Maps are objects. */

/**
 * The line of a step in metrics.jsonl, in which Maps are objects. With more than 100 domains (or bases), `weights` and `alignments` hold the 100 with
 * the largest weights, `domains` those in the batch, and every ⌈k/100⌉-th domain is evaluated.
 */
export interface StepMetrics {
  /** Steps done, this one included. */
  step: number;
  /** Training tokens seen so far. */
  tokens: number;
  /** Mean loss per token of this step's batch, in nats. */
  loss: number;
  /** Norm of the gradient; null if it overflowed. */
  gradNorm: number | null;
  /** Loss scale of the step, with loss scaling. */
  lossScale?: number;
  /** Present if the gradient overflowed, so that the optimizer took no step (with loss scaling). */
  skipped?: true;
  lr: number;
  /** Wall time of this step in seconds, including its evaluation. Times are the only fields that differ between two runs of the same configuration. */
  seconds: number;
  /** The weights with which this step's batch was drawn; with bases, those of the bases. */
  weights: ReadonlyMap<string, number>;
  /** The domains. `loss` is null if the batch held nothing of the domain. With bases, or many domains, only the domains in the batch, with their weights. */
  domains: ReadonlyMap<string, { weight?: number; loss: number | null; tokens: number; epochs: number }>;
  /** On steps that updated the weights: the alignments of the domains (bases) that were measured, and the number of tokens. */
  alignments?: ReadonlyMap<
    string,
    {
      value: number;
      standardError: number | null;
      norm: number | null;
      /** Absent in runs of earlier versions. */
      tokens?: number;
      effectiveSize?: number;
    }
  >;
  /** With `alignments`: the norm of the target's gradient, and the number of examples of the target. */
  targetNorm?: number;
  targetExamples?: number;
  /** On steps after which guarded domains were evaluated: these domains, or with many of them the ones whose loss rose most. */
  guard?: ReadonlyMap<string, GuardMetrics>;
  /** Present on steps that evaluated. */
  evaluation?: Evaluation;
  /** On steps that evaluated: the part of `seconds` that the evaluation took. */
  evaluationSeconds?: number;
}

/** A guarded domain on its held-out windows, which are the same every time. */
export interface GuardMetrics {
  /** Mean loss per token, in nats. */
  loss: number;
  /** The loss at the start of the run, or that of the model of --reference. */
  reference: number;
  /** Standard error of the difference of these two; null if it is unknown. */
  standardError: number | null;
  /** λ, the strength of the guard; 0 if the domain's weight is that of the rule. null after the last step, which has no update. */
  multiplier: number | null;
}

/** Mean loss per token on the held-out sets, in nats. `target` is null without a target; `domains` is empty if only the target was evaluated. */
export interface Evaluation {
  target: number | null;
  domains: ReadonlyMap<string, number>;
}

/** The first line of metrics.jsonl in a run that evaluates before its first step. */
export interface StartLine {
  step: 0;
  event: "start";
  /** Wall time of the evaluation, in seconds. */
  seconds: number;
  /** The evaluation before the first step. */
  evaluation: Evaluation;
  /** Expected costs of the rule and the evaluations, as shares of the training's computation, counted before the run. */
  cost: { alignment: number; guard?: number; evaluation: number };
}

/** The options in which a resumed run differs from the run before, by name. */
export type RunChanges = Readonly<
  Record<string, { readonly from: string | number; readonly to: string | number }>
>;

/** A line of metrics.jsonl after step `step`, where a run was resumed with changes. */
export interface ResumeLine {
  step: number;
  event: "resumed";
  changes: RunChanges;
}

/** Any line of metrics.jsonl. */
export type MetricsLine = StartLine | StepMetrics | ResumeLine;

/** Weights by name, on the simplex. */
export interface NamedWeights {
  /** Weights after the last step, with which the next batch would be drawn. */
  final: ReadonlyMap<string, number>;
  /** Mean of the weights over all steps. */
  averaged: ReadonlyMap<string, number>;
}

/** Contents of weights.json: the weights of the domains; with bases also those of the bases. */
export type RunWeights = NamedWeights & { bases?: NamedWeights };
