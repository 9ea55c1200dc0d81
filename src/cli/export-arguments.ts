/** What can be typed after `gradmix export`. */
import { Option } from "commander";
import type { ExportArguments } from "./export-command.ts";
import { textOption } from "./values.ts";

const flags: readonly (readonly [string, string])[] = [
  ["--to <FORMAT>", "the trainer; without it, a list of the formats"],
  [
    "--out <PATH>",
    "the file to write, or the folder where there are several; without it, one file goes to the standard output",
  ],
  [
    "--weights <final|averaged>",
    "averaged: the mean over the run, which are the shares that the model was trained on; final: those of the last step (default: averaged)",
  ],
  [
    "--stages <N>",
    "instead: weights that change, in the N stages closest to the run's, for trainers that have stages",
  ],
  [
    "--scale-to <TOKENS>",
    "length of your own run, such as 300B, or 20000steps of --batch × --context tokens; stages start at the same share of it (default: the length of this run)",
  ],
  ["--context <T>", "tokens in a window of your own run (default: as in this run)"],
  ["--batch <N>", "windows in a step of your own run (default: as in this run)"],
  [
    "--rows <documents|windows>",
    "what the rows of your data are, for trainers that draw rows: documents, whose weights are divided by their mean length, or windows of one length (default: what is usual for the trainer)",
  ],
  [
    "--floor <X>",
    "no domain's weight is below this; without it, domains whose weight would print as 0 are left out",
  ],
  ["--map <NAME=PATH>", "where the trainer finds the data of a domain; repeatable"],
  ["--map-file <FILE>", 'the same from a file: JSON {"NAME": "PATH"}, or lines NAME,PATH of a .csv'],
];

/** As commander wants them. Every value is collected as text. */
export function exportOptions(): Option[] {
  return flags.map(([flag, help]) => {
    const option = new Option(flag, help);
    return flag.startsWith("--map ")
      ? option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value])
      : option;
  });
}

/** What was given. */
export function exportArguments(
  run: string | undefined,
  options: Readonly<Record<string, unknown>>,
): ExportArguments {
  const text = (name: string): string | null => textOption(options, name);
  const { map } = options;
  return {
    run: run ?? null,
    to: text("to"),
    out: text("out"),
    weights: text("weights"),
    stages: text("stages"),
    scaleTo: text("scaleTo"),
    context: text("context"),
    batch: text("batch"),
    rows: text("rows"),
    floor: text("floor"),
    map: Array.isArray(map) ? map.map(String) : [],
    mapFile: text("mapFile"),
  };
}
