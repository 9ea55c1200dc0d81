/** Commands that take some of the options of `gradmix train`, to read the same text, and run no rule. */
import { rulesWith } from "../dga/rules/index.ts";
import { commandLineLayer, fileLayer, type Layer } from "./config.ts";
import type { OptionRow } from "./options.ts";
import { configError, type Raw } from "./values.ts";

/** The layers of such a command: the command line, and a config file (null: none), whose other options are ignored. */
export function takenLayers(
  given: ReadonlyMap<string, Raw>,
  file: string | null,
  taken: readonly OptionRow[],
): Layer[] {
  const paths = new Set(taken.map(({ path }) => path));
  return [commandLineLayer(given), ...(file === null ? [] : [fileLayer(file)])].map(({ values, label }) => ({
    values: new Map([...values].filter(([key]) => paths.has(key))),
    label,
  }));
}

/** The layer that decides the rule: one that needs nothing, or, with several targets, one that accepts them. */
export function noRule(severalTargets: boolean): Layer {
  const [several = "uniform"] = rulesWith("severalTargets");
  return {
    values: new Map([["mixing.rule", severalTargets ? several : "uniform"]]),
    label: (key) => key,
  };
}

/** Throws `config` for `--tokenizer none` in a command that reads text only. */
export function checkTokenizes(layers: readonly Layer[]): void {
  const layer = layers.find(({ values }) => values.has("data.tokenizer"));
  if (layer?.values.get("data.tokenizer") === "none")
    throw configError("--tokenizer none: text needs a tokenizer: bpe, byte or a tokenizer.json");
}
