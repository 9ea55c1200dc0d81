import { drawPanels, nameAxis } from "#dist/report/chart.js";
import type { Experiment, Settings } from "../experiment.ts";
import { axisOf, curvesPanel, linesOver, weightsPanel } from "../figures.ts";
import { type MethodName, methods } from "../methods.ts";
import { differencesTable, meansTable } from "../tables.ts";
import { cellOf, eightDomains, gridOf, namesOf, observe, type Run, type TargetName } from "./common.ts";

const caps: Readonly<Record<string, number | null>> = {
  "6,000": 6_000,
  "30,000": 30_000,
  "100,000": 100_000,
  "all tokens": null,
};
const columns = Object.keys(caps);
const groups: readonly TargetName[] = ["inaugural", "travel"];
const rows = namesOf(methods).filter((name) => !name.endsWith("text"));
/** Lines in the figures: eleven would hide each other. */
const drawn: readonly MethodName[] = [
  ...(["uniform", "importance sampling", "importance sampling, default limit"] as const),
  ...(["DGA (paper)", "DGA (default)"] as const),
];

const runsOf = (settings: Settings): Run[] =>
  gridOf({ rows, columns, groups }, settings, (row, column, target, seed) =>
    cellOf(
      {
        method: methods[row as MethodName],
        ...{ target, seed },
        text: { domains: eightDomains, cap: caps[column], targetTokens: 20_000 },
      },
      settings,
    ),
  );

export const fewTokens: Experiment = {
  name: "few-tokens",
  title: "Few generic tokens",
  about:
    'This experiment shows what happens if the domains have little text. Each of eight domains has at most 6,000, 30,000 or 100,000 training tokens, or all its tokens. The target has 20,000 tokens, and a run trains on 245,760 tokens. The paper shows this in figures 1, 3 and 5: importance sampling repeats the few tokens of the domains that it chooses, and memorises them. "Limit 8" means that it reads no domain more than 8 times. "Default limit" is the limit of `dga`: 4 times, or E + 3 times if a run that used all text equally often would read it E > 1 times.',
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const runs = runsOf(settings);
    const losses = observe(runs, results, ({ loss }) => loss);
    const epochs = observe(runs, results, (result, { group }) =>
      group === groups[0] ? result.epochs : null,
    );
    const byTarget = groups.map((group) => losses.filter((o) => o.group === group));
    const corner = "tokens per domain, at most";
    const places = columns.map((name, x) => ({ name, x }));
    const fewest = (group: string): Run[] =>
      runs.filter((run) => run.group === group && run.column === columns[0]);
    const weightsOf = (row: MethodName, column: string): Run | undefined =>
      runs.find((run) => run.group === groups[0] && run.row === row && run.column === column);
    return {
      markdown: [
        ...groups.flatMap((group, g) => [
          `Loss on held-out text of the target (${group}), nats per token:`,
          meansTable(byTarget[g], { rows, columns, corner }),
        ]),
        "The default minus each of the others, over both targets, paired by target and seed; negative is better:",
        differencesTable(losses, { of: "DGA (default)", rows, columns, corner }),
        `Epochs of the domain that was repeated most (${groups[0]}):`,
        meansTable(epochs, { rows, columns, corner, digits: 1 }),
      ].join("\n\n"),
      figures: [
        {
          name: "few-tokens",
          caption: "Final loss on the target, against the largest number of tokens per domain",
          svg: drawPanels(
            groups.map((group, g) => {
              const series = linesOver(byTarget[g], drawn, places);
              return {
                title: `Target: ${group}`,
                ...{ xLabel: corner, yLabel: "loss on the target, nats per token" },
                ...{ x: nameAxis(columns), y: axisOf(series), series },
              };
            }),
          ),
        },
        {
          name: "few-tokens-curves",
          caption: "Loss on the target over training, with 6,000 tokens per domain",
          svg: drawPanels(
            groups.map((group) =>
              curvesPanel(
                fewest(group).filter(({ row }) => drawn.some((name) => name === row)),
                results,
                `Target: ${group}, 6,000 tokens per domain`,
              ),
            ),
          ),
        },
        {
          name: "few-tokens-weights",
          caption: "Weights of the default with 6,000 tokens per domain and with all, and of the paper's",
          svg: drawPanels([
            weightsPanel(weightsOf("DGA (default)", "6,000"), results, "Default, 6,000 tokens per domain"),
            weightsPanel(weightsOf("DGA (default)", "all tokens"), results, "Default, all tokens"),
            weightsPanel(weightsOf("DGA (paper)", "all tokens"), results, "Paper, all tokens"),
          ]),
        },
      ],
    };
  },
};
