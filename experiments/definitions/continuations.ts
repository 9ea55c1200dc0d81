import { drawPanels } from "#dist/report/chart.js";
import type { Accuracy, Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { methods } from "../methods.ts";
import { ALL, differencesTable, meansTable } from "../tables.ts";
import { cellOf, gridByTarget, namesOf, observe, type Run, tunedTargets } from "./common.ts";

const groups = tunedTargets;
const own = "DGA (default)";
const compared: Readonly<Record<string, Method>> = {
  uniform: methods.uniform,
  proportional: methods.proportional,
  "importance sampling": methods["importance sampling"],
  "DGA (paper)": methods["DGA (paper)"],
  [own]: methods[own],
};
const rows = namesOf(compared);
const kinds: Readonly<Record<keyof Accuracy, string>> = {
  document: "elsewhere in the same document",
  target: "another document of the target",
  domain: "another domain",
};
const QUESTIONS = 300;

const runsOf = (settings: Settings): Run[] =>
  gridByTarget({ rows, groups }, settings, (row, target, seed) =>
    cellOf({ method: compared[row], target, seed, questions: QUESTIONS }, settings),
  );

const percent = (share: number | null | undefined): number | null =>
  typeof share === "number" ? 100 * share : null;

export const continuations: Experiment = {
  name: "continuations",
  title: "What follows from a lower loss",
  about: `This experiment measures how many of up to ${QUESTIONS} questions a model answers correctly. A question shows half a window of held-out target text and four continuations of 32 tokens; the model chooses the one that it finds most likely. The three wrong continuations come from elsewhere in the same document, from other documents of the target, or from other domains. Guessing gives 25 %. The paper uses MMLU instead. A target with very short documents has no questions of the first kind.`,
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const runs = runsOf(settings);
    const losses = observe(runs, results, ({ loss }) => loss);
    const shares = Object.keys(kinds).map((kind) =>
      observe(runs, results, ({ accuracy }) => percent(accuracy?.[kind as keyof Accuracy])),
    );
    const axes = { rows, columns: groups, corner: "target" };
    const versus = { ...axes, columns: [...groups, ALL], of: own };
    return {
      markdown: [
        "Loss on held-out text of the target, nats per token:",
        meansTable(losses, axes),
        ...Object.values(kinds).flatMap((from, i) => [
          `Correct answers, per cent; wrong continuations from ${from}:`,
          meansTable(shares[i], { ...axes, digits: 1 }),
          "The default minus each of the others, paired by target and seed:",
          differencesTable(shares[i], { ...versus, digits: 1 }),
        ]),
      ].join("\n\n"),
      figures: [
        {
          name: "continuations",
          caption: "Correct answers in per cent, by target and by the source of the wrong continuations",
          svg: drawPanels(
            Object.values(kinds).map((from, i) =>
              dotsPanel(
                shares[i],
                { rows, columns: groups },
                { title: `Wrong continuations from ${from}`, xLabel: "target", yLabel: "found, %" },
              ),
            ),
          ),
        },
      ],
    };
  },
};
