/** The arguments of `gradmix prepare`, checked. */
import type { GradmixError } from "../errors.ts";
import type { OptionRow } from "./options.ts";
import { checkChoice, integerOption, type Raw, textOption, configError } from "./values.ts";

/** Formats of token files, the default first. */
export const prepareFormats = ["megatron", "nanogpt"] as const;
export type PrepareFormat = (typeof prepareFormats)[number];

export interface PrepareArguments {
  /** Path of a config file, whose other options are ignored. */
  readonly config: string | null;
  /** The given flags, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  /** The rows of the option table that the command accepts. */
  readonly rows: readonly OptionRow[];
  /** The folder to make. */
  readonly out: string;
  readonly format: PrepareFormat;
  /** Number of worker threads; null: one per core. */
  readonly workers: number | null;
}

/** Whether an option of `gradmix train` determines which text is read, and how. */
export function prepareTakes({ section, path }: OptionRow): boolean {
  const others = ["data.heldOut", "data.seed", "data.endOfText", "data.tokenType", "data.dropContaminated"];
  return (section === "data" && !others.includes(path)) || path === "run.quiet";
}

/** The error for the option that leaves held-out text of the target out, by its name where it was given. */
export function cannotDrop(label: string): GradmixError {
  return configError(
    `${label}: gradmix prepare cannot compare the domains with the held-out text of the target, because only a run decides what it holds out; leave the option out, or train on the text itself`,
  );
}

/** Checks what commander has parsed. Throws `config`, naming the flag. */
export function prepareArguments(
  config: string | undefined,
  given: ReadonlyMap<string, Raw>,
  rows: readonly OptionRow[],
  options: Readonly<Record<string, unknown>>,
): PrepareArguments {
  if (options["dropContaminated"] !== undefined) throw cannotDrop("--drop-contaminated");
  const format = textOption(options, "format");
  const out = textOption(options, "out");
  if (out === null) throw configError("gradmix prepare needs a folder to make: add --out DIR");
  return {
    ...{ config: config ?? null, given, rows, out },
    format: format === null ? prepareFormats[0] : checkChoice(prepareFormats, format, "--format"),
    workers: integerOption(options, "workers", 1, 1024),
  };
}
