/** Command lines of `gradmix train` that are made of usual options and others in their place. */
import { gathers } from "#dist/cli/flags.js";
import { optionRows } from "#dist/cli/options.js";

/** The options that may be given once. */
const single: ReadonlySet<string> = new Set(
  optionRows().flatMap(({ flag, value, kind }) => (value === undefined || gathers(kind) ? [] : [flag])),
);

/** The words without the values that a later one of the same option replaces. */
export function lastGiven(words: readonly string[]): string[] {
  const replaced = (at: number): boolean =>
    single.has(words[at] ?? "") && words.slice(at + 2).includes(words[at] ?? "");
  return words.filter((_, i) => !replaced(i) && !(i > 0 && replaced(i - 1)));
}
