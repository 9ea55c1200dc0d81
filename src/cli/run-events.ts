/** The messages of a training run, its result, and the interface of its files. Plain data. */
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { ResumeLine, RunWeights, StartLine, StepMetrics } from "../runs/lines.ts";
import type { Best } from "./best.ts";
import type { GuardOutcome } from "./guarding.ts";
import type { TrainConfig } from "./train-config.ts";

/** The result of `runTraining`. */
export interface RunResult {
  step: number;
  tokens: number;
  loss: number;
  /** Loss on the held-out target; null without a target. */
  targetLoss: number | null;
  weights: RunWeights;
  /** Outcomes of the guards, the worst first; null without guards, and for a run that was interrupted. */
  guards: readonly GuardOutcome[] | null;
  /** The step whose model was kept; null without `--keep-best`, and before the first evaluation. */
  best: Best | null;
  /** Whether the signal ended the run before the last step. */
  interrupted: boolean;
}

/** The interface through which a run writes its files; the command implements it with a folder (cli/run-folder.ts). Every write is atomic. */
export interface RunStore {
  /** Reads the state from which the run continues, with the configuration that led to it; null for a new run. Writes nothing. */
  load(): { step: number; checkpoint: Checkpoint; config: TrainConfig } | null;
  /** Makes the folder. Called once, after all input has been validated and before the first step. */
  begin(): void;
  /**
   * Saves the state after `step` steps, once the metrics up to there are on disk. A run that continues from it keeps the lines of metrics up
   * to the step `lines`, by default `step`.
   */
  saveCheckpoint(step: number, checkpoint: Checkpoint, lines?: number): void;
  /** Writes a file. `name` is relative to the run folder, for example "model/config.json"; missing folders are created. */
  saveFile(name: string, contents: string | Uint8Array): void;
  /** Atomically replaces a folder of the run by one with these files. */
  saveFolder(name: string, files: ReadonlyMap<string, string | Uint8Array>): void;
  /** Removes a folder of the run, if it exists. */
  removeFolder(name: string): void;
}

export interface RunHooks {
  /** Called before the first step, if the run has evaluated the model there. */
  onStart(line: StartLine): void;
  /** Called after each step, in order. */
  onStep(metrics: StepMetrics): void;
  /** Called before the first step of a resumed run whose options or engine differ from those of the run so far. */
  onResume(line: ResumeLine): void;
  /** Called with a line for the user, for example that a tokenizer was trained or that lines were skipped. */
  onEvent(line: string): void;
  /** When it is aborted, the run finishes the step, saves a checkpoint and returns with `interrupted`. */
  signal: AbortSignal;
  store: RunStore;
}

export type RunTraining = (config: TrainConfig, hooks: RunHooks) => Promise<RunResult>;
