/** What a format of another trainer is, and what it is given to write. */
import type { Mixture } from "./mixture.ts";

/**
 * What a trainer's weights are shares of. `tokens`. `windows`: pieces of one length that text was cut or packed into, which are shares of tokens too. `documents`: rows of any length.
 * `epochs`: no shares; passes over each domain.
 */
export type Unit = "tokens" | "windows" | "documents" | "epochs";

/** A domain that the trainer is to draw from. */
export interface Entry {
  readonly name: string;
  readonly paths: readonly string[];
  readonly tokens: number | null;
  /** As it is printed, in the format's unit. */
  readonly share: string;
  /** Of the training tokens, in the same stage. */
  readonly weight: number;
}

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
  readonly context: number;
  readonly batch: number;
  readonly unit: Unit;
  readonly mixture: Mixture;
  /** Where the weights come from, a line each. */
  readonly about: readonly string[];
}

export interface ExportedFile {
  readonly name: string;
  readonly text: string;
}

export interface FormatOutput {
  readonly files: readonly ExportedFile[];
  /** What this mixture loses in this format, or what is left to do, a line each. */
  readonly notes: readonly string[];
}

export interface ExportFormat {
  readonly name: string;
  /** The trainer, and what is written for it. */
  readonly title: string;
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
