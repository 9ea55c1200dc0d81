/** The part of `gradmix compare --help` after the example. */
import type { OptionRow } from "./options.ts";

/** Heading of the command's own options in `--help`. */
export const compareGroup = "Comparison:";

export const compareDescription =
  "Train with several rules and seeds, one run after another, on the same text, and print how the held-out losses on the target differ.";

export const compareNotes = `
More examples:
  Take the options from a file, and compare on two targets in turn:
    $ gradmix compare config.json --targets exam='exam/*.md' \\
        --targets mail=mail.jsonl

  Continue a comparison that was stopped; add two more seeds:
    $ gradmix compare runs/question
    $ gradmix compare runs/question --seeds 5

The rules are those of gradmix train --rule, and proportional (temperature with
the exponent 1) and dga:paper. To compare settings of one rule, name them in the
config file, with options of its section "mixing":
    { "compare": { "rules": { "uniform": {}, "dga": {},
        "slow": { "rule": "dga", "eta": 0.1 } }, "seeds": 3 }, "data": {…} }
Other options of the section apply to the rules that have them.

Each run is a folder of gradmix train: DIR/RULE/seed-N[/TARGET].
The exit codes are those of gradmix train.
`;

/** An option of gradmix train with the help that applies in gradmix compare. */
export function comparisonRow(row: OptionRow): OptionRow {
  const other: Readonly<Record<string, Pick<OptionRow, "help"> & { auto: string }>> = {
    "data.target": {
      auto: "required, unless --targets is given",
      help: "the set of text on which held-out losses are compared, and which the rules use as their target. Repeatable",
    },
    "data.targets": {
      auto: "only --target",
      help: "one of several targets, which are compared in turn: its name and its files. Repeatable",
    },
    "data.seed": {
      auto: "the value of --seed",
      help: "seed that decides which documents are held out, in all runs",
    },
    "training.seed": { auto: "1", help: "the first seed" },
    "run.out": {
      auto: "runs/compare-DATE-TIME",
      help: "folder for the runs of the comparison and compare.json; must be empty",
    },
    "run.quiet": { auto: "false", help: "print only the table" },
  };
  return { ...row, ...other[row.path] };
}
