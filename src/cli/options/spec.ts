/** What a row of the table of options says. */
import type { TrainConfig } from "../train-config.ts";

/** What values an option takes. */
export type Kind =
  | { type: "integer" | "number"; min: number; max: number; openMin?: boolean; openMax?: boolean }
  | { type: "bytes"; min: number; max: number }
  | { type: "choice"; choices: readonly string[] }
  | { type: "text" }
  | { type: "switch" }
  | { type: "globs" }
  | { type: "domains" }
  /** Numbers by domain, each as a `NAME=X` of a repeated flag ("<=" where `sign` says so), "*" for those that are not named. `all`: one number without a name stands for all. */
  | {
      type: "byName";
      sign: "=" | "<=";
      all: boolean;
      min: number;
      max: number;
      openMin?: boolean;
    }
  /** Domain → number ≥ 0; `sumsToOne` or any positive sum. */
  | { type: "shares"; sumsToOne: boolean }
  /** The path of a file; in a config file also the JSON object that it would hold. */
  | { type: "file" }
  /** A JSON object, or a list of objects; a text on the command line. */
  | { type: "json"; shape: "object" | "list" };

/** A kind, with what its values are once they are checked. */
export type Takes<V> = Kind & {
  /** Gives a value in the form that `TrainConfig` holds; one that was checked before stays. Throws `config`; `label` says where it was found. */
  readonly check: (value: unknown, label: string) => V;
};

export interface OptionSpec<V> {
  flag: string;
  /** Names of before, which go on working: of the flag, and of the key with its section. */
  formerly?: { flag?: string; path: string };
  /** What stands for the value in `--help`; switches have none. */
  value?: string;
  kind: Takes<NonNullable<V>>;
  /** null: decided from the rest; `auto` says how. */
  default: V;
  auto?: string;
  help: string;
  /** A resumed run may change it: it does not touch the numbers that training gives. */
  free?: boolean;
  /** A resumed run may change it where that makes sense, and its metrics say so. */
  said?: boolean;
}

/** A row for each member of `T`. */
export type SpecsOf<T> = { readonly [K in keyof T]-?: OptionSpec<T[K]> };

export type SectionTable<S extends keyof TrainConfig> = SpecsOf<TrainConfig[S]>;
