/** Checks the arguments of `gradmix histogram` that `gradmix train` does not have. */
import { Option } from "commander";
import { listOption } from "./flags.ts";
import type { HistogramArguments } from "./histogram-command.ts";
import type { OptionRow } from "./options.ts";
import { integerOption, textOption, configError } from "./values.ts";

/** The flags with their values, and their help. */
const flags: readonly (readonly [flags: string, help: string])[] = [
  ["--out <FILE>", "write the shares of the target as JSON, for --histogram and --weights of gradmix train"],
  [
    "--bases <FILE>",
    "write bases (.json or .csv) for --bases of gradmix train: the shares of each target, and those of all text (corpus)",
  ],
  [
    "--groups <N>",
    "with --bases: divide the documents of the targets into N groups by topic, and add a basis for each group",
  ],
  [
    "--mixture <NAME=A:X,B:Y>",
    "with --bases: add a basis that mixes X parts of target A and Y parts of B. Repeatable",
  ],
];

/** The options for commander. Every value is collected as text. */
export function histogramOptions(): Option[] {
  return flags.map(([flag, help]) =>
    flag.startsWith("--mixture ") ? listOption(flag, help) : new Option(flag, help),
  );
}

/** Whether an option of `gradmix train` determines which text is read, and how. */
export function histogramTakes({ section, path }: OptionRow): boolean {
  return (
    section === "data" || ["model.context", "model.initFrom", "training.seed", "run.quiet"].includes(path)
  );
}

/** A row with the help that applies in this command. */
export function histogramRow(row: OptionRow): OptionRow {
  if (row.path !== "data.targets") return row;
  const { auto: _auto, ...rest } = row;
  return { ...rest, auto: "none", help: "one of several targets: its name and its files. Repeatable" };
}

/** Converts the options that commander has read. Throws `config`, naming the flag. */
export function histogramArguments(
  options: Readonly<Record<string, unknown>>,
): Pick<HistogramArguments, "out" | "bases" | "groups" | "mixtures"> {
  const given = (name: string): string | null => textOption(options, name);
  const { mixture } = options;
  return {
    out: given("out"),
    bases: given("bases"),
    groups: integerOption(options, "groups", 1, 1_000_000),
    mixtures: mixturesOf(Array.isArray(mixture) ? mixture.map(String) : []),
  };
}

function mixturesOf(texts: readonly string[]): ReadonlyMap<string, ReadonlyMap<string, number>> {
  const mixtures = new Map<string, ReadonlyMap<string, number>>();
  for (const text of texts) {
    const [, name = "", parts = ""] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    const shares = new Map<string, number>();
    for (const part of parts.split(",")) {
      const [, target = "", amount = "1"] =
        /^\s*([^:]+?)\s*(?::\s*(\d+(?:\.\d+)?|\.\d+)\s*)?$/.exec(part) ?? [];
      if (target === "" || !(Number(amount) > 0))
        throw configError(
          `--mixture: "${text}" is not NAME=A:X,B:Y, parts of targets by name, such as both=exam:2,essays:1`,
        );
      if (shares.has(target)) throw configError(`--mixture: "${text}" names the target "${target}" twice`);
      shares.set(target, Number(amount));
    }
    if (mixtures.has(name)) throw configError(`--mixture: two mixtures have the name "${name}"`);
    mixtures.set(name, shares);
  }
  return mixtures;
}
