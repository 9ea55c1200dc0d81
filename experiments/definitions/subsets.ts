import { drawPanels } from "#dist/report/chart.js";
import type { Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { methods } from "../methods.ts";
import { randomOf, shuffled } from "../random.ts";
import { ALL, differencesTable, meansTable, number, type Observation, paired } from "../tables.ts";
import { allDomains, cellOf, gridOf, namesOf, observe, type Run, tunedTargets } from "./common.ts";

const groups = tunedTargets;
const counts = [4, 8];
const columns = counts.map(String);
const compared: Readonly<Record<string, Method>> = {
  uniform: methods.uniform,
  "importance sampling": methods["importance sampling"],
  "importance sampling, usual cap": methods["importance sampling, usual cap"],
  "DGA (default)": methods["DGA (default)"],
};
const rows = namesOf(compared);
const others = rows.filter((row) => row !== "uniform");

const runsOf = (settings: Settings): Run[] =>
  gridOf({ rows, columns, groups }, settings, (row, column, target, seed) =>
    cellOf(
      { method: compared[row], target, seed, text: { domains: drawnDomains(Number(column), seed) } },
      settings,
    ),
  );

/** The same seed draws the same domains, and more of them for a larger count. */
function drawnDomains(count: number, seed: number): string[] {
  const drawn = new Set(shuffled(allDomains, randomOf(seed)).slice(0, count));
  return allDomains.filter((name) => drawn.has(name));
}

/** How often a method ends above uniform weights, and how far at most. */
function worst(differences: readonly Observation[], row: string): string {
  const above = differences.filter((o) => o.row === row && o.value > 0).map(({ value }) => value);
  const most = above.length === 0 ? "" : `, by ${number(Math.max(...above), 3)} at most`;
  return `- ${row}: ${above.length} of ${differences.filter((o) => o.row === row).length} runs${most}`;
}

export const subsets: Experiment = {
  name: "subsets",
  title: "Few domains, drawn at random",
  about:
    'Each seed draws four and eight of the 24 domains at random, with all their tokens. So most targets resemble none of the domains, and some domains have too little text for the whole run. "Usual cap" limits the repetitions of importance sampling as the default of `dga` does.',
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const losses = observe(runsOf(settings), results, ({ loss }) => loss);
    const axes = { rows, columns: [...columns, ALL], corner: "domains" };
    const fromUniform = others.flatMap((row) => paired(losses, row, "uniform").map((o) => ({ ...o, row })));
    return {
      markdown: [
        "Loss on held-out text of the target, over four targets and the draws, nats per token:",
        meansTable(losses, axes),
        "The default minus each of the others, paired by target and draw; negative is better:",
        differencesTable(losses, { ...axes, of: "DGA (default)" }),
        "Runs that end above uniform weights on the same domains:",
        others.map((row) => worst(fromUniform, row)).join("\n"),
      ].join("\n\n"),
      figures: [
        {
          name: "subsets",
          caption: "Loss on the target minus that of uniform weights, by number of domains and method",
          svg: drawPanels([
            dotsPanel(
              fromUniform,
              { rows: others, columns },
              {
                title: "Domains drawn at random",
                xLabel: "domains",
                yLabel: "loss minus that of uniform weights, nats per token",
              },
            ),
          ]),
        },
      ],
    };
  },
};
