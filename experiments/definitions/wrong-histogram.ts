import { drawPanels } from "#dist/report/chart.js";
import type { Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { methods, WITHOUT_PRIOR, WITHOUT_PROBES } from "../methods.ts";
import { differencesTable, meansTable } from "../tables.ts";
import {
  cellOf,
  gridOf,
  namesOf,
  observe,
  type Run,
  type TargetName,
  targets,
  tunedTargets,
} from "./common.ts";

const groups = tunedTargets;
/** The target whose histogram a run has in place of its own. */
const instead: Partial<Record<TargetName, TargetName>> = {
  inaugural: "court",
  math: "travel",
  travel: "inaugural",
  court: "math",
};
const columns = ["its own", "of another target"] as const;
const compared: Readonly<Record<string, Method>> = {
  uniform: methods.uniform,
  "importance sampling": methods["importance sampling"],
  "DGA (default)": methods["DGA (default)"],
  "DGA, all text": methods["DGA, all text"],
  "DGA, all text, without probes": WITHOUT_PROBES,
  "DGA (default), no histogram": WITHOUT_PRIOR,
};
const rows = namesOf(compared);
/** The methods without a histogram are the same in both columns. */
const without = new Set(["uniform", "DGA (default), no histogram"]);

const runsOf = (settings: Settings): Run[] =>
  gridOf({ rows, columns, groups }, settings, (row, column, target, seed) => {
    const other = instead[target];
    const method = compared[row];
    const own = column === columns[0] || other === undefined || without.has(row);
    return cellOf(
      { method: own ? method : { ...method, histogramOf: targets[other] }, target, seed },
      settings,
    );
  });

export const wrongHistogram: Experiment = {
  name: "wrong-histogram",
  title: "A wrong histogram",
  about:
    "This experiment shows how far the gradients correct a wrong histogram. It repeats the runs of the first experiment (24 domains with all their tokens), once with the histogram of the target, and once with that of another target: inaugural with that of court, math with that of travel, travel with that of inaugural, and court with that of math. The rows of all text are the default with `--select 1`, and the one without probes also has `--align-probes 0`.",
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const losses = observe(runsOf(settings), results, ({ loss }) => loss);
    const axes = { rows, columns: [...columns], corner: "histogram" };
    return {
      markdown: [
        "Loss on held-out text of the target, over four targets, nats per token:",
        meansTable(losses, axes),
        "The default minus each of the others, paired by target and seed; negative is better:",
        differencesTable(losses, { ...axes, of: "DGA (default)" }),
      ].join("\n\n"),
      figures: [
        {
          name: "wrong-histogram",
          caption: "Loss on each target with the histogram of another target, by method",
          svg: drawPanels([
            dotsPanel(
              losses.filter(({ column }) => column === columns[1]).map((o) => ({ ...o, column: o.group })),
              { rows, columns: groups },
              {
                title: "With the histogram of another target",
                xLabel: "target",
                yLabel: "loss on the target, nats per token",
              },
            ),
          ]),
        },
      ],
    };
  },
};
