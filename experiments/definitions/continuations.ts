import { drawPanels } from "#dist/report/chart.js";
import type { Accuracy } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { type MethodName, methods } from "../methods.ts";
import { ALL, differencesTable, meansTable } from "../tables.ts";
import { cellOf, gridOf, observe, type Run, type TargetName } from "./common.ts";

const groups: readonly TargetName[] = ["inaugural", "math", "travel", "court"];
const rows: readonly MethodName[] = [
  ...(["uniform", "proportional", "importance sampling"] as const),
  ...(["DGA (paper)", "DGA (default)"] as const),
];
const kinds: Readonly<Record<keyof Accuracy, string>> = {
  document: "elsewhere in the same document",
  target: "another document of the target",
  domain: "another domain",
};
const QUESTIONS = 300;

const runsOf = (settings: Settings): Run[] =>
  gridOf({ rows, columns: [ALL], groups }, settings, (row, _column, target, seed) =>
    cellOf({ method: methods[row as MethodName], target, seed, questions: QUESTIONS }, settings),
  ).map((run) => ({ ...run, column: run.group }));

const percent = (share: number | null | undefined): number | null =>
  typeof share === "number" ? 100 * share : null;

export const continuations: Experiment = {
  name: "continuations",
  title: "What follows from a lower loss",
  about: `Beside the loss, the share of up to ${QUESTIONS} questions that a model answers rightly: half a window of held-out target text, and which of four continuations of 32 tokens is the true one. It takes the likeliest. The three others are from elsewhere in the same document, from other documents of the target, or from other domains; guessing gives 25 %. The paper has MMLU in this place. A target whose documents are too short has no questions of the first kind.`,
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const runs = runsOf(settings);
    const losses = observe(runs, results, ({ loss }) => loss);
    const shares = Object.keys(kinds).map((kind) =>
      observe(runs, results, ({ accuracy }) => percent(accuracy?.[kind as keyof Accuracy])),
    );
    const axes = { rows, columns: groups, corner: "target" };
    const versus = { ...axes, columns: [...groups, ALL], of: "DGA (default)" };
    return {
      markdown: [
        "Loss on held-out text of the target, nats per token:",
        meansTable(losses, axes),
        ...Object.values(kinds).flatMap((from, i) => [
          `True continuations found, per cent; the others are from ${from}:`,
          meansTable(shares[i], { ...axes, digits: 1 }),
          "The default less each of the others, paired by target and seed:",
          differencesTable(shares[i], { ...versus, digits: 1 }),
        ]),
      ].join("\n\n"),
      figures: [
        {
          name: "continuations",
          caption: "Per cent of true continuations found, by target and by where the others are from",
          svg: drawPanels(
            Object.values(kinds).map((from, i) =>
              dotsPanel(
                shares[i],
                { rows, columns: groups },
                { title: `Others from ${from}`, xLabel: "target", yLabel: "found, %" },
              ),
            ),
          ),
        },
      ],
    };
  },
};
