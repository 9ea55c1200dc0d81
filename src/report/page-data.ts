/**
 * The contents of the page, as plain data that can be stored as JSON. Numbers are rounded to the precision of a picture, and long runs are thinned:
 * see `BOUNDS`. Only types, so that the page's own script can use them.
 */

/** A list of numbers as text: base64 of little-endian 32-bit floats (NaN: unknown), or of 16-bit codes of weights (`packWeights`). */
export type Packed = string;

/** Losses in one unit: means over the runs of a group, and twice their standard errors (null with a single run). */
export interface Curve {
  readonly mean: readonly number[];
  readonly band: readonly (number | null)[];
}

/** Held-out loss against tokens. `bits` is null if the number of bytes of the text is unknown. */
export interface LossCurves {
  /** Trained tokens. */
  readonly tokens: readonly number[];
  /** Loss in nats per token. */
  readonly nats: Curve;
  /** Loss in bits per byte. */
  readonly bits: Curve | null;
}

/** Runs whose configurations differ only in the seed. */
export interface GroupData {
  /** What distinguishes the group from the others. */
  readonly label: string;
  /** Indices of the runs of the group. */
  readonly runs: readonly number[];
  /** Indices of the runs that the curves and figures are of: those that have reached their last step; if there are none, all. */
  readonly counted: readonly number[];
  /** Loss on the target; null without a target, or if it was never evaluated. */
  readonly target: LossCurves | null;
  /** Loss on the target at the end; null like `target`. */
  readonly end: GroupEnd | null;
  /** Training loss in nats per token, on batches drawn from each run's own mixture. */
  readonly training: LossCurves | null;
  /** Losses on domains, by index of the domain. */
  readonly domains: readonly { readonly domain: number; readonly loss: LossCurves }[];
}

/** The figures of the counted runs of a group at the last tokens that all of them have. */
export interface GroupEnd {
  /** Whether the loss can be compared with that of other groups: a run that goes on does not end with its present loss. */
  readonly compared: boolean;
  /** Mean loss in nats per token, twice its standard error (null with a single run), and the loss in bits per byte (null if it is unknown). */
  readonly nats: number;
  readonly band: number | null;
  readonly bits: number | null;
}

/** A domain in one run (with bases: a basis, of which only the weights are known). null means unknown. */
export interface DomainData {
  readonly domain: number;
  /** Weights at the end, and their mean over the steps. */
  readonly weight: number | null;
  readonly averaged: number | null;
  /** Tokens of its training text. */
  readonly size: number;
  /** Share of its windows that the run was trained on; null: all. */
  readonly selected: number | null;
  /** Tokens of the text that the run was trained on, once. */
  readonly sampled: number;
  /** Tokens trained on. */
  readonly tokens: number;
  /** Held-out loss at the first and last evaluation in nats per token, and the factor from nats per token to bits per byte. */
  readonly lossAtStart: number | null;
  readonly loss: number | null;
  readonly bitsPerNat: number | null;
  /** Trained tokens of the run when the domain exceeded the limit on repetitions; null if it did not. */
  readonly passed: number | null;
}

/** Values by name (row) and time (column). */
export interface Matrix {
  /** The row names, as indices into `PageData.names`. */
  readonly rows: readonly number[];
  /** Trained tokens at each column. */
  readonly tokens: readonly number[];
  /** The values, row after row. */
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
  /** What the weights belong to: "domains" or "bases". */
  readonly mixes: "domains" | "bases";
  /** Weights packed by `packWeights`, the largest first. */
  readonly weights: Matrix;
  /** Alignments and their standard errors, both packed by `packFloats`. */
  readonly alignments: (Matrix & { readonly errors: Packed }) | null;
  /**
   * Held-out losses of guarded domains relative to their references, with standard errors, packed by `packFloats`, and the limit of each row. null
   * without guards.
   */
  readonly guards: (Matrix & { readonly errors: Packed; readonly limits: readonly number[] }) | null;
  /** Epochs of the domains with the most epochs, packed by `packFloats`. */
  readonly epochs: Matrix;
  /** How many times a domain may be repeated; null if the rule has no limit. */
  readonly cap: number | null;
  readonly domains: readonly DomainData[];
  /** Factor from nats per token to bits per byte for the target. */
  readonly bitsPerNat: number | null;
  /** Held-out loss of the target at the first and last evaluation, in nats per token. */
  readonly target: { readonly start: number; readonly end: number } | null;
  readonly cost: {
    /** Seconds of training including alignments, and seconds of evaluations. */
    readonly training: number;
    readonly evaluation: number;
    /** Share of the training's computation, counted before the run. */
    readonly alignmentShare: number;
    /** Share for evaluations of guarded domains; 0 without a guard. */
    readonly guardShare: number;
    readonly evaluationShare: number;
  };
  readonly settings: readonly Setting[];
  /** The mixture in the formats of trainers. */
  readonly exports: readonly ExportedText[];
}

/** A row of the table of settings. */
export interface Setting {
  readonly section: string;
  readonly name: string;
  readonly value: string;
}

export interface ExportedText {
  /** Name of the format. */
  readonly name: string;
  readonly text: string;
}

export interface PageData {
  readonly title: string;
  /** Names of domains and bases, to which the indices above refer. */
  readonly names: readonly string[];
  readonly runs: readonly RunData[];
  readonly groups: readonly GroupData[];
  /** Indices of the names that have a colour of their own, ordered by weight over all runs, the largest first. */
  readonly heaviest: readonly number[];
  /** The results, in sentences. */
  readonly summary: readonly string[];
  /** Reasons why the runs cannot be compared directly, in sentences. */
  readonly cautions: readonly string[];
}
