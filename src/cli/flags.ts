/** Options of the commands for commander. An option that takes a value is either a list, which gathers its values, or may be given once. */
import { type Command, Option } from "commander";
import type { Kind } from "./options.ts";
import { beginning } from "../errors.ts";
import { configError } from "./values.ts";

/** Whether the values of a repeated flag of this kind belong together. */
export function gathers({ type }: Kind): boolean {
  return type === "globs" || type === "domains" || type === "byName";
}

/** Makes an option whose values form a list. It is the only sort of option with a parser of its own. */
export function listOption(flags: string, help?: string): Option {
  return new Option(flags, help).argParser((value: string, before: string[] | undefined) => [
    ...(before ?? []),
    value,
  ]);
}

/**
 * Makes a command refuse a second value of every option that is not a list, because the first one would be lost. Switches may be repeated, and of
 * `--x` and `--no-x` the last one counts, so that a flag can be added to the end of a line. The options must already be added.
 */
export function refuseSecondValues(command: Command): void {
  for (const option of command.options) {
    if (!(option.required || option.optional) || option.parseArg !== undefined) continue;
    let first: string | null = null;
    command.on(`option:${option.name()}`, (value: string) => {
      if (first !== null)
        throw configError(
          `${option.long ?? option.name()}: given twice (${beginning(first, 60)}, ${beginning(value, 60)}); give it once`,
        );
      first = value;
    });
  }
}
