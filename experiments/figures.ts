/** Turns observations and results into the series of a chart. */
import {
  axisAround,
  colours,
  nameAxis,
  type Panel,
  type Point,
  type Series,
  stepAxis,
} from "#dist/report/chart.js";
import type { Run } from "./definitions/common.ts";
import type { Lookup } from "./results.ts";
import { interval } from "#dist/runs/statistics.js";
import { type Observation, paired } from "./tables.ts";

/** The colour of a method is the same in every figure. The two limits are never in one figure. */
const places: Readonly<Record<string, number>> = {
  "DGA (default)": 0,
  uniform: 1,
  "importance sampling": 2,
  "importance sampling, limit 8": 3,
  "importance sampling, default limit": 3,
  "DGA (paper)": 4,
};
const PLACES = 5;

export function colourOf(row: string, rows: readonly string[]): string {
  const others = rows.filter((one) => !Object.hasOwn(places, one));
  return colours[(places[row] ?? PLACES + others.indexOf(row)) % colours.length];
}

/** Mean, lowest and highest. */
function pointOf(x: number, values: readonly number[]): Point[] {
  if (values.length === 0) return [];
  return [{ x, y: interval(values).mean, low: Math.min(...values), high: Math.max(...values) }];
}

/** Returns one line per row over the columns, with a band from the lowest to the highest seed. */
export function linesOver(
  observations: readonly Observation[],
  rows: readonly string[],
  columns: readonly { readonly name: string; readonly x: number }[],
): Series[] {
  return rows.map((row) => ({
    name: row,
    colour: colourOf(row, rows),
    mark: "dotted",
    points: columns.flatMap(({ name, x }) =>
      pointOf(
        x,
        observations.filter((o) => o.row === row && o.column === name).map(({ value }) => value),
      ),
    ),
  }));
}

/** Returns dots beside each other at the name of each column, with one colour per row. */
export function dotsPanel(
  observations: readonly Observation[],
  axes: { readonly rows: readonly string[]; readonly columns: readonly string[] },
  words: Pick<Panel, "title" | "xLabel" | "yLabel">,
): Panel {
  const { rows, columns } = axes;
  const series = rows.map((row, r): Series => {
    const aside = (0.7 * (r - (rows.length - 1) / 2)) / rows.length;
    const places = columns.map((name, x) => ({ name, x: x + aside }));
    return {
      name: row,
      colour: colourOf(row, rows),
      mark: "dots",
      spread: "bar",
      points: linesOver(observations, [row], places)[0].points,
    };
  });
  return { ...words, x: nameAxis(columns), y: axisOf(series), series };
}

/** Returns an axis that contains all points and bands. */
export function axisOf(series: readonly Series[]): Panel["y"] {
  return axisAround(
    series.flatMap(({ points }) => points.flatMap(({ y, low = y, high = y }) => [y, low, high])),
  );
}

/** Loss on the target over steps: means over seeds, shaded from the lowest to the highest. */
export function curvesPanel(runs: readonly Run[], results: Lookup, title: string): Panel {
  const rows = [...new Set(runs.map(({ row }) => row))];
  const series = rows.map((row): Series => {
    const curves = runs.filter((run) => run.row === row).flatMap(({ cell }) => results(cell)?.curve ?? []);
    const steps = [...new Set(curves.map(({ step }) => step))].sort((a, b) => a - b);
    return {
      name: row,
      colour: colourOf(row, rows),
      points: steps.flatMap((step) =>
        pointOf(
          step,
          curves.filter((point) => point.step === step).map(({ loss }) => loss),
        ),
      ),
    };
  });
  const last = Math.max(1, ...series.flatMap(({ points }) => points.map(({ x }) => x)));
  return {
    title,
    xLabel: "step",
    yLabel: "loss on the target, nats per token",
    x: stepAxis(last),
    y: axisOf(series),
    series,
  };
}

/** Weights of one run over steps. */
export function weightsPanel(run: Run | undefined, results: Lookup, title: string): Panel {
  const found = run === undefined ? undefined : results(run.cell);
  const weights = found?.weights ?? [];
  const series = (run?.cell.text.domains ?? []).map((name, i): Series => ({
    name: name.replace(/^masc-/, ""),
    points: weights.map(({ step, weights: all }) => ({ x: step, y: all[i] })),
  }));
  const heavy = series.filter(({ points }) => points.some(({ y }) => y > 1 / series.length));
  const shown = series.length <= 8 ? series : heavy;
  return {
    title,
    ...{ xLabel: "step", yLabel: "weight" },
    x: stepAxis(weights.at(-1)?.step ?? 1),
    y: axisAround([0, ...shown.flatMap(({ points }) => points.map(({ y }) => y))]),
    series: shown,
  };
}

/** Panel of the differences of rows from one of them, on each text. */
export function differencesPanel(
  losses: readonly Observation[],
  question: { readonly title: string; readonly columns: object; readonly rows: readonly string[] },
  from: string,
): Panel {
  const rows = question.rows.filter((row) => row !== from);
  return dotsPanel(
    rows.flatMap((row) => paired(losses, row, from).map((difference) => ({ ...difference, row }))),
    { rows, columns: Object.keys(question.columns) },
    { title: question.title, xLabel: "target", yLabel: `loss minus that of ${from}, nats per token` },
  );
}
