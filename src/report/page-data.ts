/**
 * What the page shows, as plain data that JSON carries. Numbers are rounded to what a picture needs, and long runs are thinned: see `BOUNDS`. Types alone, so that the page's own
 * script shares them.
 */

/** A list of numbers as text: base64 of little-endian 32-bit floats (NaN: not known), or of 16-bit codes of weights (`packWeights`). */
export type Packed = string;

/** In one unit: means over the runs of a group, and twice their standard error (null where one run alone is known). */
export interface Curve {
  readonly mean: readonly number[];
  readonly band: readonly (number | null)[];
}

/** Held-out loss against tokens. `bits` is null where nothing says how many bytes the text has. */
export interface LossCurves {
  /** Trained tokens. */
  readonly tokens: readonly number[];
  /** Per token. */
  readonly nats: Curve;
  /** Per byte. */
  readonly bits: Curve | null;
}

/** Runs of one configuration but for the seed. */
export interface GroupData {
  /** What tells it from the other groups. */
  readonly label: string;
  /** Indices of its runs. */
  readonly runs: readonly number[];
  /** null without a target, or where it was never evaluated. */
  readonly target: LossCurves | null;
  /** Of the batches, each of the run's own mixture: nats per token. */
  readonly training: LossCurves | null;
  /** By index of the domain. */
  readonly domains: readonly { readonly domain: number; readonly loss: LossCurves }[];
}

/** A domain (with bases: a basis, where only the weights are known) in one run. null: not known. */
export interface DomainData {
  readonly domain: number;
  /** At the end, and the mean over the steps. */
  readonly weight: number | null;
  readonly averaged: number | null;
  /** Tokens that there are to train on. */
  readonly size: number;
  /** Tokens that were trained on. */
  readonly tokens: number;
  /** Held-out loss when it was first and last evaluated, in nats per token, and bits per byte for a nat per token. */
  readonly lossAtStart: number | null;
  readonly loss: number | null;
  readonly bitsPerNat: number | null;
  /** Trained tokens of the run when the domain passed the cap of repetitions; null where it did not. */
  readonly passed: number | null;
}

/** Rows by time. */
export interface Matrix {
  /** Names, as indices into `PageData.names`. */
  readonly rows: readonly number[];
  /** Trained tokens at each column. */
  readonly tokens: readonly number[];
  /** Row after row. */
  readonly values: Packed;
}

export interface RunData {
  readonly name: string;
  readonly folder: string;
  readonly group: number;
  readonly seed: number;
  readonly state: "done" | "running" | "stopped";
  readonly step: number;
  readonly steps: number;
  readonly tokens: number;
  /** Names that the weights are of: "domains" or "bases". */
  readonly mixes: "domains" | "bases";
  /** Packed by `packWeights`; the heaviest first. */
  readonly weights: Matrix;
  /** With as many standard errors, both by `packFloats`. */
  readonly alignments: (Matrix & { readonly errors: Packed }) | null;
  /** Held-out losses of guarded domains against their references, with standard errors, by `packFloats`, and the limits of the rows. null without guards. */
  readonly guards: (Matrix & { readonly errors: Packed; readonly limits: readonly number[] }) | null;
  /** Epochs, of the domains with most of them, by `packFloats`. */
  readonly epochs: Matrix;
  /** How often a domain may be repeated; null where the rule sets no limit. */
  readonly cap: number | null;
  readonly domains: readonly DomainData[];
  /** Of the target: bits per byte for a nat per token. */
  readonly bitsPerNat: number | null;
  /** The held-out loss of the target when it was first and last evaluated, in nats per token. */
  readonly target: { readonly start: number; readonly end: number } | null;
  readonly cost: {
    /** Seconds, the alignments' included, and of evaluations. */
    readonly training: number;
    readonly evaluation: number;
    /** Shares of the training's computation, counted before the run. */
    readonly alignmentShare: number;
    /** Of the evaluations of guarded domains; 0 without a guard. */
    readonly guardShare: number;
    readonly evaluationShare: number;
  };
  readonly settings: readonly Setting[];
  /** The mixture as files of trainers. */
  readonly exports: readonly ExportedText[];
}

/** A row of the table of settings. */
export interface Setting {
  readonly section: string;
  readonly name: string;
  readonly value: string;
}

export interface ExportedText {
  /** Of the format. */
  readonly name: string;
  readonly text: string;
}

export interface PageData {
  readonly title: string;
  /** Of domains and bases, which the indices above mean. */
  readonly names: readonly string[];
  readonly runs: readonly RunData[];
  readonly groups: readonly GroupData[];
  /** Indices of the names that have a colour of their own, the heaviest over all runs first. */
  readonly heaviest: readonly number[];
  /** What was gained, in sentences. */
  readonly summary: readonly string[];
  /** What keeps the runs from being compared as they stand, in sentences. */
  readonly cautions: readonly string[];
}
