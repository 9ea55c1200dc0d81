import { drawPanels, logAxis, type Panel } from "#dist/report/chart.js";
import type { Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { axisOf, colourOf, linesOver } from "../figures.ts";
import { defaultWith, methods, paperWith } from "../methods.ts";
import { meansTable, type Observation, paired } from "../tables.ts";
import { cellOf, eightDomains, gridOf, observe, type Run, type TargetName } from "./common.ts";

const groups: readonly TargetName[] = ["inaugural", "travel"];

/** A constant of one of the rules, over two decades. */
interface Swept {
  readonly of: string;
  readonly constant: string;
  readonly values: readonly number[];
  method(value: number): Method;
}

const paper = (constant: "eta" | "beta" | "updateEvery", values: readonly number[]): Swept => ({
  ...{ of: "DGA (paper)", constant, values },
  method: (value) => paperWith({ [constant]: value }),
});
const own = (constant: string, values: readonly number[]): Swept => ({
  ...{ of: "DGA, all text", constant, values },
  method: (value) => defaultWith({ [constant]: value }),
});

/** The default's constants stand here. */
const sweeps: readonly Swept[] = [
  paper("eta", [1, 3, 10, 30, 100]),
  own("eta", [0.02, 0.05, 0.1, 0.5, 2]),
  paper("updateEvery", [1, 3, 10, 30, 100]),
  own("updateEvery", [1, 3, 10, 30, 100]),
  paper("beta", [0.01, 0.03, 0.1, 0.3, 1]),
  own("pull", [0.01, 0.03, 0.1, 0.3, 1]),
  own("repetitions", [1, 8, 100]),
];
const references = ["uniform", "importance sampling"] as const;

function sweepRuns({ of, constant, values, method }: Swept, settings: Settings): Run[] {
  const columns = values.map(String);
  return gridOf({ rows: [`${of}, ${constant}`], columns, groups }, settings, (_row, column, target, seed) =>
    cellOf({ method: method(Number(column)), target, seed, text: { domains: eightDomains } }, settings),
  );
}

/** Methods that depend on none of the constants, at every value. */
function referenceRuns({ values }: Swept, settings: Settings): Run[] {
  const axes = { rows: references, columns: values.map(String), groups };
  return gridOf(axes, settings, (row, _column, target, seed) =>
    cellOf(
      {
        method: methods[row],
        ...{ target, seed },
        text: { domains: eightDomains },
      },
      settings,
    ),
  );
}

export const sensitivity: Experiment = {
  name: "sensitivity",
  title: "Sensitivity to the constants",
  about:
    "This experiment shows how much the constants matter. It varies the paper's η, T_r (`updateEvery`) and β, and the constants of the default, one at a time; the others keep their usual values. There are eight domains with all their tokens. The paper says little about this.",
  cells: (settings) => [
    ...sweeps.flatMap((sweep) => sweepRuns(sweep, settings)).map(({ cell }) => cell),
    ...sweeps
      .slice(0, 1)
      .flatMap((sweep) => referenceRuns({ ...sweep, values: [0] }, settings))
      .map(({ cell }) => cell),
  ],
  report(settings, results) {
    const parts = sweeps.map((sweep) => {
      const runs = [...sweepRuns(sweep, settings), ...referenceRuns(sweep, settings)];
      return { sweep, losses: observe(runs, results, ({ loss }) => loss) };
    });
    return {
      markdown: [
        "Loss on held-out text of each target by the value of a constant, nats per token, and the difference from uniform sampling, paired by target and seed:",
        ...parts.map(({ sweep, losses }) => tableOf(sweep, losses)),
      ].join("\n\n"),
      figures: groups.map((group) => ({
        name: `sensitivity-${group}`,
        caption: `Loss on the target (${group}) against each constant`,
        svg: drawPanels(
          parts.map(({ sweep, losses }) =>
            panelOf(
              sweep,
              losses.filter((o) => o.group === group),
            ),
          ),
        ),
      })),
    };
  },
};

function tableOf({ of, constant, values }: Swept, losses: readonly Observation[]): string {
  const row = `${of}, ${constant}`;
  const [under, versus] = ["minus uniform", paired(losses, row, "uniform")];
  return meansTable(
    [
      ...losses.filter((o) => o.row === row).map((o) => ({ ...o, row: o.group })),
      ...versus.map((o) => ({ ...o, row: under })),
    ],
    { rows: [...groups, under], columns: values.map(String), corner: row },
  );
}

function panelOf({ of, constant, values }: Swept, losses: readonly Observation[]): Panel {
  const rows = [...references, `${of}, ${constant}`];
  const places = values.map((x) => ({ name: String(x), x }));
  const series = linesOver(losses, rows, places).map((one, i) => ({
    ...one,
    ...(i < references.length ? {} : { name: of, colour: colourOf(of, [of]) }),
    mark: i < references.length ? ("line" as const) : ("dotted" as const),
  }));
  return {
    title: `${of}: ${constant}`,
    ...{ xLabel: constant, yLabel: "loss on the target, nats per token" },
    ...{ x: logAxis(values), y: axisOf(series), series },
  };
}
