/** What a format of another trainer is, and what it is given to write. */
import type { Mixture } from "./mixture.ts";

/**
 * What a trainer's weights are shares of. `tokens`. `windows`: pieces of one length that text was cut or packed into, which are shares of tokens too. `documents`: rows of any length.
 * `epochs`: no shares; passes over each domain.
 */
export type Unit = "tokens" | "windows" | "documents" | "epochs";

/** A domain that the trainer is to draw from. */
export interface Entry {
  /** Name of the domain. */
  readonly name: string;
  /** Where the trainer finds its data. */
  readonly paths: readonly string[];
  /** Tokens that there are to train on; null where that is not known. */
  readonly tokens: number | null;
  /** As it is printed, in the format's unit. */
  readonly share: string;
  /** Of the training tokens, in the same stage. */
  readonly weight: number;
}

/** Weights that hold during a part of the user's own run. */
export interface PlannedStage {
  /** Training tokens of the user's own run that are seen before. */
  readonly start: number;
  /** Without the domains that are left out of this stage. */
  readonly entries: readonly Entry[];
}

/** Everything that a format writes from. */
export interface Plan {
  /** One, but for formats with stages. */
  readonly stages: readonly [PlannedStage, ...PlannedStage[]];
  /** Training tokens of the user's own run; its window in tokens, and windows in a step. */
  readonly tokens: number;
  /** Tokens in a window of that run. */
  readonly context: number;
  /** Windows in a step of that run. */
  readonly batch: number;
  /** What the shares count. */
  readonly unit: Unit;
  /** The mixture that the plan was made of. */
  readonly mixture: Mixture;
  /** Where the weights come from, a line each. */
  readonly about: readonly string[];
}

/** A file to write. */
export interface ExportedFile {
  /** Name of the file, without a folder. */
  readonly name: string;
  /** Contents of the file. */
  readonly text: string;
}

/** What a format makes of a plan. */
export interface FormatOutput {
  /** The files to write. */
  readonly files: readonly ExportedFile[];
  /** What this mixture loses in this format, or what is left to do, a line each. */
  readonly notes: readonly string[];
}

/** A format of another trainer. */
export interface ExportFormat {
  /** Name of the format, as in `--to`. */
  readonly name: string;
  /** The trainer, and what is written for it. */
  readonly title: string;
  /** What its weights count. */
  readonly unit: Unit;
  /** Can weights change during the run? */
  readonly stages: boolean;
  /** `none`: the trainer knows the domains by name. `one`: each needs one path. `many`: one or more. `optional`: written where they are given. */
  readonly paths: "none" | "optional" | "one" | "many";
  /** Can the format say how often a domain may be repeated? */
  readonly repetitions: boolean;
  /** The files have no comments: where the weights come from is written beside them. */
  readonly sidecar: boolean;
  /** Throws `config` for a mixture that the trainer would misread. */
  write(plan: Plan): FormatOutput;
}
