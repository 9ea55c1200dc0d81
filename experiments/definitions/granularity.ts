import { drawPanels, logAxis } from "#dist/report/chart.js";
import type { Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { axisOf, linesOver } from "../figures.ts";
import { ALL_TEXT, methods, paperWith } from "../methods.ts";
import { differencesTable, meansTable } from "../tables.ts";
import { cellOf, gridOf, observe, type Run, type TargetName, targets } from "./common.ts";

const counts = [8, 64, 512, 4096];
const columns = counts.map((count) => count.toLocaleString("en"));
const groups: readonly TargetName[] = ["inaugural", "travel", "court"];
const bases = Object.values(targets);

interface Compared {
  readonly method: Method;
  /** A batch of every domain costs too much beyond. */
  readonly most?: number;
  /** The same run stands for every number of clusters. */
  readonly always?: number;
}
const compared: Readonly<Record<string, Compared>> = {
  // However the text is cut, this draws from all of it evenly.
  "all text evenly": { method: methods.proportional, always: 8 },
  "importance sampling": { method: methods["importance sampling"] },
  "DGA (paper)": { method: paperWith({}), most: 64 },
  "DGA (paper), bases": { method: { ...paperWith({}), bases } },
  DGA: { method: ALL_TEXT },
  "DGA, bases": { method: { rule: { name: "dga" }, bases } },
};
const rows = Object.keys(compared);

const runsOf = (settings: Settings): Run[] =>
  gridOf({ rows, columns, groups }, settings, (row, column, target, seed) => {
    const { method, most = Infinity, always } = compared[row];
    const count = always ?? counts[columns.indexOf(column)];
    if (count > most) return null;
    return cellOf({ method, target, seed, text: { cut: { by: "clusters", count } } }, settings);
  });

export const granularity: Experiment = {
  name: "granularity",
  title: "Clusters and bases",
  about:
    "This experiment shows how the losses depend on the number of domains. All text is cut into 8, 64, 512 and up to 4,096 clusters of windows with similar content (a tree of k-means on hashed tf-idf). Importance sampling assigns each window of the target to a cluster (CRISP). DGA moves the weights of the clusters, or of bases (distribution reweighting). The bases are the shares of all text and the histograms of five targets over the clusters, including this target. 'DGA' is the rule of the default; it does not select windows here, because the clusters consist of windows. The paper shows this in figures 2 and 4.",
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const losses = observe(runsOf(settings), results, ({ loss }) => loss);
    const places = columns.map((name, i) => ({ name, x: counts[i] }));
    const corner = "clusters";
    return {
      markdown: [
        ...groups.flatMap((group) => [
          `Loss on held-out text of the target (${group}), nats per token:`,
          meansTable(
            losses.filter((o) => o.group === group),
            { rows, columns, corner },
          ),
        ]),
        "DGA on the clusters minus each of the others, over the targets, paired by target and seed; negative is better:",
        differencesTable(losses, { of: "DGA", rows, columns, corner }),
      ].join("\n\n"),
      figures: [
        {
          name: "granularity",
          caption: "Loss on the target against the number of clusters",
          svg: drawPanels(
            groups.map((group) => {
              const own = losses.filter((o) => o.group === group);
              const series = linesOver(own, rows, places);
              return {
                title: `Target: ${group}`,
                ...{ xLabel: corner, yLabel: "loss on the target, nats per token" },
                ...{ x: logAxis(counts), y: axisOf(series), series },
              };
            }),
          ),
        },
      ],
    };
  },
};
