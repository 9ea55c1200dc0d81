/** What a training run tells while it runs and when it ends, and where its files go. Plain data. */
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { TrainConfig } from "./train-config.ts";

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
  /** Wall time of this step. The only field that differs between two runs of one configuration. */
  seconds: number;
  /** The weights that this step's batch was drawn with; with bases, theirs. */
  weights: ReadonlyMap<string, number>;
  /** `loss` is null where the batch held nothing of the domain. With bases, or many domains, only those that it held, with what they weighed. */
  domains: ReadonlyMap<string, { weight?: number; loss: number | null; tokens: number; epochs: number }>;
  /** On steps that updated the weights: the domains (bases) that were measured. */
  alignments?: ReadonlyMap<
    string,
    { value: number; standardError: number | null; norm: number | null; effectiveSize?: number }
  >;
  /** On steps that evaluated. */
  evaluation?: Evaluation;
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
  cost: { alignment: number; evaluation: number };
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

export interface NamedWeights {
  final: ReadonlyMap<string, number>;
  averaged: ReadonlyMap<string, number>;
}

/** What `runTraining` says when it ends. */
export interface RunResult {
  step: number;
  tokens: number;
  loss: number;
  /** On the held-out target; null without a target. */
  targetLoss: number | null;
  /** Of the domains; with bases also theirs. */
  weights: NamedWeights & { bases?: NamedWeights };
  /** The signal ended it before the last step. */
  interrupted: boolean;
}

/** Where a run keeps its files; the command gives a folder (cli/run-folder.ts). All writes are whole or not at all. */
export interface RunStore {
  /** The state to continue from, with the configuration that led to it, or null for a fresh start. Reads only. */
  load(): { step: number; checkpoint: Checkpoint; config: TrainConfig } | null;
  /** Called once, when all input has been validated and before the first step: makes the folder. */
  begin(): void;
  /**
   * The state after `step` steps. Metrics are on disk before it is; of those a run that goes on from it keeps the lines up to the step `lines`, by default
   * `step`.
   */
  saveCheckpoint(step: number, checkpoint: Checkpoint, lines?: number): void;
  /** `name` is relative to the run folder, e.g. "model/config.json"; folders are made. */
  saveFile(name: string, contents: string | Uint8Array): void;
}

export interface RunHooks {
  /** Before the first step, when the run has evaluated there. */
  onStart(line: StartLine): void;
  /** After each step, in order. */
  onStep(metrics: StepMetrics): void;
  /** Before the first step of a resumed run that does something otherwise. */
  onResume(line: ResumeLine): void;
  /** Something worth a line: a tokenizer was trained, lines were skipped. */
  onEvent(line: string): void;
  /** Aborted: finish the step, save a checkpoint, return with `interrupted`. */
  signal: AbortSignal;
  store: RunStore;
}

export type RunTraining = (config: TrainConfig, hooks: RunHooks) => Promise<RunResult>;
