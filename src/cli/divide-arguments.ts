/** The arguments of `gradmix divide`, checked. */
import { likenessDefaults } from "../data/defaults.ts";
import type { OptionRow } from "./options.ts";
import { integerOption, type Raw, textOption, configError } from "./values.ts";

export interface DivideArguments {
  /** Path of a config file, whose other options are ignored. */
  readonly config: string | null;
  /** The given flags, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  /** The rows of the option table that the command accepts. */
  readonly rows: readonly OptionRow[];
  /** The folder to make. */
  readonly out: string;
  /** Number of parts per domain. */
  readonly parts: number;
}

/** The flags that `gradmix train` does not have, with their values and their help. */
export const divideFlags: readonly (readonly [flags: string, help: string])[] = [
  ["--out <DIR>", "folder for the parts (required); must not exist yet"],
  ["--parts <N>", `number of parts per domain (default: ${likenessDefaults.parts})`],
];

/** Whether an option of `gradmix train` determines which text is read and compared, and how. */
export function divideTakes({ section, path }: OptionRow): boolean {
  const others = ["data.targets", "data.endOfText", "data.tokenType", "data.dropContaminated"];
  return (section === "data" && !others.includes(path)) || path === "training.seed" || path === "run.quiet";
}

/** Checks what commander has parsed. Throws `config`, naming the flag. */
export function divideArguments(
  config: string | undefined,
  given: ReadonlyMap<string, Raw>,
  rows: readonly OptionRow[],
  options: Readonly<Record<string, unknown>>,
): DivideArguments {
  const out = textOption(options, "out");
  if (out === null) throw configError("gradmix divide needs a folder to make: add --out DIR");
  return {
    ...{ config: config ?? null, given, rows, out },
    parts: integerOption(options, "parts", 2, 100) ?? likenessDefaults.parts,
  };
}
