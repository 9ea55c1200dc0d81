/** What a training run tells while it runs and when it ends, and where its files go. Plain data. */
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { ResumeLine, RunWeights, StartLine, StepMetrics } from "../runs/lines.ts";
import type { Best } from "./best.ts";
import type { GuardOutcome } from "./guarding.ts";
import type { TrainConfig } from "./train-config.ts";

/** What `runTraining` says when it ends. */
export interface RunResult {
  step: number;
  tokens: number;
  loss: number;
  /** On the held-out target; null without a target. */
  targetLoss: number | null;
  weights: RunWeights;
  /** What became of the guards, the worst first; null without guards, and for a run that was interrupted. */
  guards: readonly GuardOutcome[] | null;
  /** The step whose model was kept; null without `--keep-best`, and before the first evaluation. */
  best: Best | null;
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
  /** Replaces a folder of the run by one with these files, whole or not at all. */
  saveFolder(name: string, files: ReadonlyMap<string, string | Uint8Array>): void;
  /** Removes a folder of the run, if it is there. */
  removeFolder(name: string): void;
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
