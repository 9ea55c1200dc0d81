/** What `gradmix compare --help` says after its example. */
import type { OptionRow } from "./options.ts";

/** Heading of its own options in `--help`. */
export const compareGroup = "Comparison:";

export const compareDescription =
  "Train with several rules and seeds, one run after another, on the same text, and print how the held-out losses on the target differ.";

export const compareNotes = `
More examples:
  The options of a run from a file, and two targets in turn:
    $ gradmix compare config.json --targets exam='exam/*.md' \\
        --targets mail=mail.jsonl

  Go on with a comparison that was stopped; take two more seeds:
    $ gradmix compare runs/question
    $ gradmix compare runs/question --seeds 5

Rules are those of gradmix train --rule, proportional (temperature with the
exponent 1) and dga:paper. Two settings of one rule have names in the config
file, with options of its section "mixing":
    { "compare": { "rules": { "uniform": {}, "dga": {},
        "slow": { "rule": "dga", "eta": 0.1 } }, "seeds": 3 }, "data": {…} }
Other options of mixing go to the rules that take them.

Each run is one of gradmix train, in DIR/RULE/seed-N or DIR/RULE/seed-N/TARGET.
Exit codes are those of gradmix train.
`;

/** An option of gradmix train as gradmix compare takes it. */
export function inComparison(row: OptionRow): OptionRow {
  const other: Readonly<Record<string, Pick<OptionRow, "help"> & { auto: string }>> = {
    "data.target": {
      auto: "required, or --targets",
      help: "the set of text whose held-out loss is compared, and that the rules that look at a target follow; repeatable",
    },
    "data.targets": {
      auto: "only --target",
      help: "several targets, which are compared in turn, each a name and its files; repeatable",
    },
    "data.seed": { auto: "as --seed", help: "decides which documents are held out, in all runs" },
    "training.seed": { auto: "1", help: "the first seed" },
    "run.out": {
      auto: "runs/compare-DATE-TIME",
      help: "the folder of the comparison, which must be empty: its runs and compare.json",
    },
    "run.quiet": { auto: "false", help: "print only the table" },
  };
  return { ...row, ...other[row.path] };
}
