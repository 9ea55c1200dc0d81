/** Draws runs beside each other: the loss on the target over steps, and the domain weights of the last run. */
import { axisAround, drawPanels, evenAxis, stepAxis } from "#dist/report/chart.js";

export interface DrawnRun {
  readonly name: string;
  /** Loss on the held-out target, in nats per token. */
  readonly losses: readonly { readonly step: number; readonly loss: number }[];
  /** Weights that each step was drawn with. */
  readonly weights: readonly { readonly step: number; readonly weights: Readonly<Record<string, number>> }[];
}

/** An SVG of two panels. */
export function drawRuns(runs: readonly DrawnRun[], title: string): string {
  const x = stepAxis(Math.max(...runs.flatMap((run) => run.weights.map(({ step }) => step))));
  const last = runs.at(-1);
  return drawPanels([
    {
      title,
      ...{ x, xLabel: "step", yLabel: "loss, nats per token" },
      y: axisAround(runs.flatMap((run) => run.losses.map(({ loss }) => loss))),
      series: runs.map(({ name, losses }) => ({
        name,
        points: losses.map(({ step, loss }) => ({ x: step, y: loss })),
        mark: "dotted",
      })),
    },
    {
      title: `Domain weights, ${last?.name ?? ""}`,
      ...{ x, xLabel: "step", yLabel: "weight" },
      y: evenAxis(0, 1, (value) => value.toFixed(2)),
      series: Object.keys(last?.weights[0]?.weights ?? {}).map((name) => ({
        name,
        points: (last?.weights ?? []).map(({ step, weights }) => ({ x: step, y: weights[name] ?? 0 })),
      })),
    },
  ]);
}
