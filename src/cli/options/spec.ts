/** The type of a row in the table of options. */
import type { TrainConfig } from "../train-config.ts";

/** The kinds of values that an option can have. */
export type Kind =
  | { type: "integer" | "number"; min: number; max: number; openMin?: boolean; openMax?: boolean }
  | { type: "bytes"; min: number; max: number }
  | { type: "choice"; choices: readonly string[] }
  | { type: "text" }
  | { type: "switch" }
  | { type: "globs" }
  | { type: "domains" }
  /**
   * Numbers by domain, each as a `NAME=X` of a repeated flag ("<=" if `sign` says so); "*" stands for the domains that are not named. `all`:
   * one number without a name stands for all domains.
   */
  | {
      type: "byName";
      sign: "=" | "<=";
      all: boolean;
      min: number;
      max: number;
      openMin?: boolean;
    }
  /** Domain → number ≥ 0, either with `sumsToOne` or with any positive sum. */
  | { type: "shares"; sumsToOne: boolean }
  /** The path of a file; in a config file also the JSON object that the file would contain. */
  | { type: "file" }
  /** A JSON object, or a list of objects; on the command line it is text. */
  | { type: "json"; shape: "object" | "list" };

/** A kind together with the type of its values after the check. */
export type Takes<V> = Kind & {
  /**
   * Converts a value to the form that `TrainConfig` holds; a converted value stays the same. Throws `config`; `label` names the place of the
   * value in the error.
   */
  readonly check: (value: unknown, label: string) => V;
};

/** What is known of a run at one time. null: not yet. */
export interface KnownRun {
  readonly config: TrainConfig;
  /** Name of the backend that was started. */
  readonly backend: string | null;
  /** Whether any of the files consists of tokens. */
  readonly readsTokens: boolean | null;
}

/** Why something has no effect, in words that follow a colon; null if it has an effect, or if that is not known yet. */
export type Idle = string | null;

export interface OptionSpec<V> {
  flag: string;
  /** Former names, which are still accepted: of the flag, and of the key with its section. */
  formerly?: { flag?: string; path: string };
  /** Placeholder of the value in `--help`; switches have none. */
  value?: string;
  kind: Takes<NonNullable<V>>;
  /** The default. null: the value follows from other options, as `auto` explains. */
  default: V;
  auto?: string;
  /**
   * The value for which null stands, if it is always the same. So an option that was given can be told from one that was not, also in the
   * configuration that a run records.
   */
  otherwise?: NonNullable<V>;
  /** Why the option has no effect although it was given; for a list, the answer for each of its members. Only for options that are null, false or empty unless they are given. */
  idle?(known: KnownRun): Idle | readonly Idle[];
  help: string;
  /** The help in commands that read only files of text, if it differs. */
  helpForText?: string;
  /** A resumed run may change this option, because it does not affect the numbers of the training. */
  free?: boolean;
  /** A resumed run may change this option under certain conditions; its metrics record the change. */
  recorded?: boolean;
}

/** One row for each member of `T`. */
export type SpecsOf<T> = { readonly [K in keyof T]-?: OptionSpec<T[K]> };

export type SectionTable<S extends keyof TrainConfig> = SpecsOf<TrainConfig[S]>;
