/** The arguments of `gradmix export`. */
import { Option } from "commander";
import type { ExportArguments } from "./export-command.ts";
import { listOption } from "./flags.ts";
import { textOption } from "./values.ts";

const flags: readonly (readonly [string, string])[] = [
  ["--to <FORMAT>", "the trainer; without this option, the command lists the formats"],
  [
    "--out <PATH>",
    "the file to write, or the folder if the format has several files (default: a single file goes to the standard output)",
  ],
  [
    "--weights <final|averaged>",
    "averaged: the mean over the run, which is the mixture on which the model was trained; final: the weights of the last step (default: averaged)",
  ],
  [
    "--stages <N>",
    "write weights that change over N stages, as close as possible to those of the run; for trainers with stages. Replaces --weights",
  ],
  [
    "--scale-to <TOKENS>",
    "length of your own run: tokens, such as 300B, or steps of --batch × --context tokens, such as 20000steps. Stages start at the same share of it (default: the length of this run)",
  ],
  [
    "--context <T>",
    "tokens per window of your own run, for stages and for --scale-to in steps (default: as in this run)",
  ],
  [
    "--batch <N>",
    "windows per step of your own run, for stages and for --scale-to in steps (default: as in this run)",
  ],
  [
    "--rows <documents|windows>",
    "for trainers that draw rows: whether a row of your data is a document or a window of fixed length. With documents, each weight is divided by the mean length of the domain's documents (default: the usual choice for the trainer)",
  ],
  [
    "--floor <X>",
    "smallest weight of a domain (default: none; a domain whose weight would print as 0 is left out)",
  ],
  ["--map <NAME=PATH>", "path of a domain's data for the trainer. Repeatable"],
  ["--map-file <FILE>", 'read these paths from a file: JSON {"NAME": "PATH"}, or lines NAME,PATH of a .csv'],
];

/** The options for commander. Every value is collected as text. */
export function exportOptions(): Option[] {
  return flags.map(([flag, help]) =>
    flag.startsWith("--map ") ? listOption(flag, help) : new Option(flag, help),
  );
}

/** Collects the values that were given. */
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
