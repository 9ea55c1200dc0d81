import { drawPanels } from "#dist/report/chart.js";
import type { Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { methods, WITHOUT_PRIOR } from "../methods.ts";
import { ALL, differencesTable, meansTable } from "../tables.ts";
import { cellOf, gridByTarget, namesOf, observe, type Run, STEPS, tunedTargets } from "./common.ts";

const groups = tunedTargets;
/** How many times as long as the runs of the other experiments. */
const TIMES = 4;
const compared: Readonly<Record<string, Method>> = {
  "importance sampling": methods["importance sampling"],
  "importance sampling, default limit": methods["importance sampling, default limit"],
  "DGA (default)": methods["DGA (default)"],
  "DGA (default), no histogram": WITHOUT_PRIOR,
};
const rows = namesOf(compared);

const runsOf = (settings: Settings): Run[] =>
  gridByTarget({ rows, groups }, settings, (row, target, seed) =>
    cellOf({ method: compared[row], target, seed, steps: TIMES * STEPS }, settings),
  );

export const longer: Experiment = {
  name: "longer",
  title: "Longer runs",
  about: `This experiment shows which differences remain in longer runs. It repeats the runs of the first experiment with ${TIMES} times as many steps (${TIMES * STEPS}, 24 domains with all their tokens). Without a histogram, a run spends its first steps on finding the mixture. "Default limit" limits the repetitions of importance sampling as the default of \`dga\` does, so that the rest of the difference is due to the gradients.`,
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const losses = observe(runsOf(settings), results, ({ loss }) => loss);
    const axes = { rows, columns: [...groups, ALL], corner: "method" };
    return {
      markdown: [
        "Loss on held-out text of each target, nats per token:",
        meansTable(losses, { ...axes, columns: groups }),
        "The default minus each of the others, paired by target and seed; negative is better:",
        differencesTable(losses, { ...axes, of: "DGA (default)" }),
      ].join("\n\n"),
      figures: [
        {
          name: "longer",
          caption: `Loss on each target after ${TIMES * STEPS} steps, by method`,
          svg: drawPanels([
            dotsPanel(
              losses,
              { rows, columns: groups },
              {
                title: `${TIMES * STEPS} steps`,
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
