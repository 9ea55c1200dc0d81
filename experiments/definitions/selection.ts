import { drawPanels, type Panel } from "#dist/report/chart.js";
import type { Cell } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { methods } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { differencesTable, meansTable, paired } from "../tables.ts";
import { gridOfTexts, newTargets, observe, type Run, type Texts, textsOf } from "./common.ts";

const rows = [
  "importance sampling",
  "importance sampling, selected text",
  "DGA, all text",
  "DGA (default)",
] as const;
const own = "DGA (default)";

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

function sectionOf({ title, columns }: Question, settings: Settings, results: Lookup): string {
  const losses = observe(runsOf(columns, settings), results, ({ loss }) => loss);
  const axes = { rows, columns: [...Object.keys(columns), "all"] };
  return [
    `**${title}.** Loss on held-out text of each target, nats per token:`,
    meansTable(losses, { ...axes, corner: "method" }),
    "The default minus each of the others, paired by target and seed; negative is better:",
    differencesTable(losses, { ...axes, of: own, corner: "minus" }),
  ].join("\n\n");
}

function differencesPanel({ title, columns }: Question, settings: Settings, results: Lookup): Panel {
  const losses = observe(runsOf(columns, settings), results, ({ loss }) => loss);
  const others = rows.filter((row) => row !== "importance sampling");
  return dotsPanel(
    others.flatMap((row) =>
      paired(losses, row, "importance sampling").map((difference) => ({ ...difference, row })),
    ),
    { rows: others, columns: Object.keys(columns) },
    { title, xLabel: "target", yLabel: "loss minus that of importance sampling, nats per token" },
  );
}

export const selection: Experiment = {
  name: "selection",
  title: "Selection of windows",
  about:
    "By default, a run that needs only a part of a domain's text trains on the windows that resemble the target most ([rules.md](rules.md#selection-of-windows)). This experiment shows what that changes, for DGA and for importance sampling with the same limit on repetitions.",
  cells: (settings) => questions.flatMap(({ columns }) => runsOf(columns, settings)).map(({ cell }) => cell),
  report: (settings, results) => ({
    markdown: questions.map((question) => sectionOf(question, settings, results)).join("\n\n"),
    figures: [
      {
        name: "selection",
        caption: "Loss on each target minus that of importance sampling",
        svg: drawPanels([differencesPanel(questions[0], settings, results)]),
      },
    ],
  }),
};
