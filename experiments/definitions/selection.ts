import { drawPanels } from "#dist/report/chart.js";
import type { Cell } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { differencesPanel } from "../figures.ts";
import { methods } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { gridOfTexts, lossSection, newTargets, observe, type Run, type Texts, textsOf } from "./common.ts";

const rows = [
  "importance sampling",
  "importance sampling, selected text",
  "DGA, all text",
  "DGA (default)",
] as const;

/** Texts that a run needs a third of, so that little can be selected. */
const less: Partial<Cell["text"]> = { cap: 30_000 };

interface Question {
  readonly title: string;
  readonly columns: Texts;
}

const questions: readonly Question[] = [
  { title: "24 domains with all their tokens", columns: textsOf({}) },
  newTargets,
  { title: "24 domains of 30,000 tokens", columns: textsOf(less) },
  {
    title:
      "As little text as the run reads: 10,000 tokens per domain. Targets and tokenizer are those of the second table",
    columns: Object.fromEntries(
      Object.entries(newTargets.columns).map(([name, text]) => [name, { ...text, cap: 10_000 }]),
    ),
  },
];

const runsOf = (columns: Texts, settings: Settings): Run[] =>
  gridOfTexts({ rows, columns }, settings, (row) => ({ method: methods[row] }));

const lossesOf = ({ columns }: Question, settings: Settings, results: Lookup) =>
  observe(runsOf(columns, settings), results, ({ loss }) => loss);

export const selection: Experiment = {
  name: "selection",
  title: "Selection of windows",
  about:
    "By default, a run that needs only a part of a domain's text trains on the windows that resemble the target most ([rules.md](rules.md#selection-of-windows)). This experiment shows what that changes, for DGA and for importance sampling with the same limit on repetitions.",
  cells: (settings) => questions.flatMap(({ columns }) => runsOf(columns, settings)).map(({ cell }) => cell),
  report: (settings, results) => ({
    markdown: questions
      .map((question) =>
        lossSection(
          lossesOf(question, settings, results),
          { ...question, rows },
          { of: "DGA (default)", subject: "The default" },
        ),
      )
      .join("\n\n"),
    figures: [
      {
        name: "selection",
        caption: "Loss on each target minus that of importance sampling",
        svg: drawPanels([
          differencesPanel(
            lossesOf(questions[0], settings, results),
            { ...questions[0], rows },
            "importance sampling",
          ),
        ]),
      },
    ],
  }),
};
