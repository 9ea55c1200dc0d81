/** An option that is given twice: a list gathers its values, a switch may be repeated, and every other option of every command is refused. */
import { expect, test } from "vitest";
import { optionsByCommand, optionsOf, refusalOf } from "./command-line.ts";

/** The options that are lists, in the commands that have them. */
const lists: ReadonlySet<string> = new Set([
  ...["train", "compare", "histogram", "prepare"].flatMap((command) =>
    ["--domain", "--domains", "--target", "--targets"].map((flag) => `${command} ${flag}`),
  ),
  ...["--domain", "--domains", "--target"].map((flag) => `divide ${flag}`),
  ...["train", "compare", "mix"].flatMap((command) =>
    ["--floor", "--ceiling", "--guard"].map((flag) => `${command} ${flag}`),
  ),
  "histogram --mixture",
  "export --map",
]);

const all = [...optionsByCommand()].flatMap(([command, options]) =>
  options.map((option) => ({ command, ...option })),
);

test("the lists are options", () => {
  const known = new Set(all.map(({ command, flag }) => `${command} ${flag}`));
  for (const name of lists) expect(known).toContain(name);
});

test("an option with one value is refused if it is given twice, with both values and what to do", () => {
  for (const { command, flag, takesValue } of all) {
    if (!takesValue) continue;
    const twice = (separate: boolean): string | null =>
      refusalOf([command, ...(separate ? [flag, "5", flag, "3"] : [`${flag}=5`, `${flag}=3`])], {
        partial: true,
      });
    const expected = lists.has(`${command} ${flag}`) ? null : `${flag}: given twice (5, 3); give it once`;
    expect(twice(true), `${command} ${flag}`).toBe(expected);
    expect(twice(false), `${command} ${flag}`).toBe(expected);
    expect(refusalOf([command, flag, "5"], { partial: true }), `${command} ${flag} once`).toBe(null);
  }
});

test("a switch may be repeated, and of --x and --no-x the last one counts", () => {
  for (const { command, flag, takesValue } of all)
    if (!takesValue && flag !== "--help")
      expect(refusalOf([command, flag, flag], { partial: true }), `${command} ${flag}`).toBe(null);
  const quiet = (...words: string[]): unknown => optionsOf(["train", ...words])?.["quiet"];
  expect(quiet()).toBe(undefined);
  expect(quiet("--quiet", "--no-quiet")).toBe(false);
  expect(quiet("--no-quiet", "--quiet")).toBe(true);
});

test("a long value is shortened in the message", () => {
  const long = "x".repeat(500);
  expect(refusalOf(["train", "--rule-options", long, "--rule-options", "{}"], { partial: true })).toBe(
    `--rule-options: given twice (${"x".repeat(60)}…, {}); give it once`,
  );
});
