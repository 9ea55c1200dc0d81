/**
 * The one table of the options of `gradmix train`: each key of `TrainConfig` with its flag, range, default and help, in one file per section.
 * Flags, the validation of config files, `--help` and the list of keys that a resumed run may change all come from it.
 */
import { alignmentOptions } from "./options/alignment.ts";
import { dataOptions } from "./options/data.ts";
import { mixingOptions } from "./options/mixing.ts";
import { modelOptions } from "./options/model.ts";
import { runOptions } from "./options/run.ts";
import type { Kind, OptionSpec, SectionTable } from "./options/spec.ts";
import { trainingOptions } from "./options/training.ts";
import type { TrainConfig } from "./train-config.ts";

export type { Kind } from "./options/spec.ts";

export const optionTable: { readonly [S in keyof TrainConfig]: SectionTable<S> } = {
  data: dataOptions,
  model: modelOptions,
  training: trainingOptions,
  mixing: mixingOptions,
  alignment: alignmentOptions,
  run: runOptions,
};

/** Headings of the groups in `--help`, in order. */
export const groups: Readonly<Record<keyof TrainConfig, string>> = {
  data: "Data:",
  model: "Model:",
  training: "Training:",
  mixing: "Mixing (how the domain weights move):",
  alignment: "Alignment (how the rules that need it compare domains with the target):",
  run: "Run:",
};

/** One row of the table with its path, for example "training.lr". */
export interface OptionRow extends Omit<OptionSpec<unknown>, "kind"> {
  kind: Kind;
  section: keyof TrainConfig;
  key: string;
  path: string;
}

/** The table as a list, in the order of `--help`. */
export function optionRows(): OptionRow[] {
  return Object.entries(optionTable).flatMap(([section, specs]) =>
    Object.entries(specs).map(([key, spec]: [string, OptionSpec<unknown>]) => ({
      ...spec,
      section: section as keyof TrainConfig,
      key,
      path: `${section}.${key}`,
    })),
  );
}

/** The flag of the option with this path; the path itself if there is no such option. */
export function flagOfPath(path: string): string {
  return optionRows().find((row) => row.path === path)?.flag ?? path;
}
