import { drawPanels, logAxis } from "#dist/report/chart.js";
import { domainCount, predictedCost } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { linesOver } from "../figures.ts";
import { ALL_TEXT, methods, paperWith } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { meansTable, type Observation } from "../tables.ts";
import { cellOf, gridOf, type Run, seedsOf } from "./common.ts";

const counts = [4, 16, 64, 256, 1024, 4096];
const columns = counts.map((count) => count.toLocaleString("en"));
const compared = { "DGA (paper)": paperWith({}), "DGA, all text": ALL_TEXT } as const;
type Compared = keyof typeof compared;
const rows = Object.keys(compared) as Compared[];
/** Enough for four updates. */
const STEPS = 40;

const runsOf = (settings: Settings): Run[] =>
  gridOf(
    { rows: ["uniform", ...rows], columns, groups: ["inaugural"] },
    settings,
    (row, column, target, seed) =>
      cellOf(
        {
          method: row === "uniform" ? methods.uniform : compared[row],
          ...{ target, seed, steps: STEPS },
          text: { cut: { by: "pieces", count: counts[columns.indexOf(column)] } },
        },
        settings,
      ),
  );

/** CPU time of the steps over that of plain steps on the same domains, and what is predicted. */
function ratios(settings: Settings, results: Lookup): Observation[] {
  const runs = runsOf(settings);
  return runs.flatMap((run) => {
    const { row, column, group, cell } = run;
    const plain = runs.find(
      (other) => other.row === "uniform" && other.column === column && other.cell.seed === cell.seed,
    );
    const [own, base] = [results(cell), plain === undefined ? undefined : results(plain.cell)];
    if (row === "uniform" || own === undefined || base === undefined) return [];
    return [{ row, column, group, seed: cell.seed, value: own.cpuSeconds / base.cpuSeconds }];
  });
}

function predicted(settings: Settings): Observation[] {
  return runsOf(settings)
    .filter(({ row, cell }) => row !== "uniform" && cell.seed === seedsOf(settings)[0])
    .map(({ row, column, group, cell }) => ({
      row: `${row}, predicted`,
      ...{ column, group, seed: cell.seed },
      value: predictedCost(cell, domainCount(cell.text)),
    }));
}

export const cost: Experiment = {
  name: "cost",
  title: "What it costs",
  about: `This experiment shows what the measurements of a rule cost. The tables show the CPU time of training steps with all measurements of a rule, divided by that of plain steps. All text is cut into 4 to 4,096 domains; each run has ${STEPS} steps on one thread. The prediction is what the library counts before a run: the windows that pass through the model, and the share of a pass that inner products take.`,
  cells: (settings) =>
    // Runs that are divided by each other follow each other, so that the speed of the machine changes little between them.
    runsOf(settings)
      .sort((a, b) => columns.indexOf(a.column) - columns.indexOf(b.column) || a.cell.seed - b.cell.seed)
      .map(({ cell }) => cell),
  report(settings, results) {
    const all = [...ratios(settings, results), ...predicted(settings)];
    const shown = rows.flatMap((row) => [row, `${row}, predicted`]);
    const highest = Math.max(2, ...all.map(({ value }) => value));
    const powers = Array.from({ length: Math.ceil(Math.log2(highest)) + 1 }, (_, i) => 2 ** i);
    return {
      markdown: [
        "Time relative to plain training:",
        meansTable(all, { rows: shown, columns, corner: "domains", digits: 2 }),
      ].join("\n\n"),
      figures: [
        {
          name: "cost",
          caption: "CPU time of training steps relative to plain steps, against the number of domains",
          svg: drawPanels([
            {
              title: "What the alignments of k domains cost",
              ...{ xLabel: "domains", yLabel: "CPU time relative to plain training" },
              x: logAxis(counts),
              y: logAxis(powers, (value) => `${value}×`),
              series: linesOver(
                all,
                shown,
                columns.map((name, i) => ({ name, x: counts[i] })),
              ).map((one) => ({ ...one, mark: rows.some((row) => row === one.name) ? "dots" : "line" })),
            },
          ]),
        },
      ],
    };
  },
};
