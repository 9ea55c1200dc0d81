/** Describes a format of another trainer and the data that it writes. */
import type { Mixture } from "./mixture.ts";

/**
 * What a trainer's weights are shares of: `tokens`; `windows`, pieces of equal length into which text was cut or packed, so that these are also
 * shares of tokens; `documents`, rows of any length. `epochs` are not shares but passes over each domain.
 */
export type Unit = "tokens" | "windows" | "documents" | "epochs";

/** A domain from which the trainer draws. */
export interface Entry {
  /** Name of the domain. */
  readonly name: string;
  /** Paths at which the trainer finds its data. */
  readonly paths: readonly string[];
  /** Tokens of its training text; null if unknown. */
  readonly tokens: number | null;
  /** Printed share, in the format's unit. */
  readonly share: string;
  /** Share of the training tokens of the same stage. */
  readonly weight: number;
}

/** Weights that hold during a part of the user's run. */
export interface PlannedStage {
  /** Training tokens of the user's run before the stage starts. */
  readonly start: number;
  /** The domains of this stage, without those that are left out. */
  readonly entries: readonly Entry[];
}

/** Everything from which a format is written. */
export interface Plan {
  /** The stages; a single one for formats without stages. */
  readonly stages: readonly [PlannedStage, ...PlannedStage[]];
  /** Training tokens of the user's run. */
  readonly tokens: number;
  /** Tokens per window of that run. */
  readonly context: number;
  /** Windows per step of that run. */
  readonly batch: number;
  /** What the shares count. */
  readonly unit: Unit;
  /** The mixture from which the plan was made. */
  readonly mixture: Mixture;
  /** Lines on where the weights come from. */
  readonly about: readonly string[];
}

/** A file to write. */
export interface ExportedFile {
  /** Name of the file, without a folder. */
  readonly name: string;
  /** Contents of the file. */
  readonly text: string;
}

/** The result of writing a plan in a format. */
export interface FormatOutput {
  /** The files to write. */
  readonly files: readonly ExportedFile[];
  /** Lines on what this mixture loses in this format, or what the user still has to do. */
  readonly notes: readonly string[];
}

/** A format of another trainer. */
export interface ExportFormat {
  /** Name of the format, as in `--to`. */
  readonly name: string;
  /** Name of the trainer and the kind of file. */
  readonly title: string;
  /** What the weights of the trainer count. */
  readonly unit: Unit;
  /** Whether weights can change during the run. */
  readonly stages: boolean;
  /** Where a stage can start: at any token, at a number of windows, or at a step. It decides whether the user's `context` and `batch` matter. */
  readonly stageStarts: "token" | "window" | "step";
  /**
   * Whether domains need paths. `none`: the trainer knows the domains by name. `one`: each needs exactly one path. `many`: each needs at least one.
   * `optional`: paths are written if they are given.
   */
  readonly paths: "none" | "optional" | "one" | "many";
  /** Whether the format can express how often a domain may be repeated. */
  readonly repetitions: boolean;
  /** Whether the files have no comments, so that the source of the weights is written to a separate file. */
  readonly sidecar: boolean;
  /** Writes a plan. Throws `config` for a mixture that the trainer would misread. */
  write(plan: Plan): FormatOutput;
}
