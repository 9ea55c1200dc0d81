/** Tables, charts, and the document that is generated from results. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parameterCount } from "gradmix/nn";
import { describe, expect, test } from "vitest";
import { drawPanels, logAxis, type Panel, stepAxis } from "#dist/report/chart.js";
import {
  type Cell,
  distinct,
  estimatedSeconds,
  keyOf,
  predictedCost,
  type Result,
} from "../../experiments/cell.ts";
import { experiments } from "../../experiments/definitions/index.ts";
import { type Experiment, usual } from "../../experiments/experiment.ts";
import { methods } from "../../experiments/methods.ts";
import { lossModel, mixturesOf, predictedBest } from "../../experiments/mixtures.ts";
import { randomOf } from "../../experiments/random.ts";
import { minutesOf, reportOf, sectionOf } from "../../experiments/report.ts";
import { type Line, readResults } from "../../experiments/results.ts";
import { ALL, differencesTable, meansTable, number, paired } from "../../experiments/tables.ts";
import { expectNear } from "../near.ts";

const root = join(import.meta.dirname, "../..");

describe("tables", () => {
  const of = (row: string, column: string, seed: number, value: number, group = "g") => ({
    ...{ row, column, group, seed, value },
  });
  const observations = [
    ...[of("a", "x", 1, 4), of("a", "x", 2, 5), of("b", "x", 1, 4.5), of("b", "x", 2, 5.7)],
    ...[of("a", "y", 1, 2), of("b", "y", 1, 1), of("b", "y", 2, 9), of("a", "y", 1, 3, "h")],
  ];
  const axes = { rows: ["a", "b"], columns: ["x", "y", ALL], corner: "" };

  test("means have intervals; a single value has none, and no value is a dash", () => {
    const table = meansTable(observations, { ...axes, rows: ["a", "c"], columns: ["x", "z"], digits: 2 });
    // t with one degree is 12.7062; the standard error is ½.
    expect(table.split("\n")).toEqual([
      "|  | x | z |",
      "| --- | ---: | ---: |",
      "| a | 4.50 ± 6.35 | – |",
      "| c | – | – |",
    ]);
    expect(meansTable([of("a", "x", 1, -0.0001)], { ...axes, rows: ["a"], columns: ["x"] })).toContain(
      "| 0.000 |",
    );
  });

  test("differences are paired, and values without a partner do not count", () => {
    const found = paired(observations, "a", "b");
    expectNear(
      found.map(({ value }) => value),
      [-0.5, -0.7, 1],
      1e-12,
    );
    expect(found[2]).toEqual(of("b", "y", 1, 1));
    const rows = differencesTable(observations, { ...axes, of: "a", digits: 2 })
      .split("\n")
      .slice(2);
    expect(rows).toEqual(["| b | −0.60 ± 1.27 | 1.00 | −0.07 ± 2.31 |"]);
    expect(number(-0.5, 1)).toBe("−0.5");
  });
});

describe("charts", () => {
  const panel: Panel = {
    title: "a < b & c",
    ...{ x: logAxis([1, 10, 100]), xLabel: "k", y: stepAxis(4), yLabel: "y" },
    series: [
      {
        name: "one",
        mark: "dotted",
        points: [1, 10, 100].map((x, i) => ({ x, y: i, low: i - 0.5, high: i + 0.5 })),
      },
      { name: "two", mark: "dots", spread: "bar", points: [{ x: 10, y: 3, low: 2, high: 4 }] },
      { name: "none", points: [] },
    ],
  };

  test("on a logarithmic axis equal ratios have equal distances; larger values are higher", () => {
    const svg = drawPanels([panel]);
    const dots = [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [
      Number(x),
      Number(y),
    ]);
    expect(dots.length).toBe(4);
    expectNear(dots[1][0] - dots[0][0], dots[2][0] - dots[1][0], 1e-3);
    expect(dots[0][1]).toBeGreaterThan(dots[1][1]);
    expect(dots[3][0]).toBe(dots[1][0]);
    expectNear(dots[0][1] - dots[1][1], dots[1][1] - dots[3][1] - (dots[0][1] - dots[1][1]), 1e-2);
    expect(svg).toContain("a &lt; b &amp; c");
    expect(svg.match(/<polygon/g)?.length).toBe(1);
    expect(svg.match(/stroke-opacity/g)?.length).toBe(1);
    expect(svg).toContain(">two</text>");
    expect(svg).not.toContain(">none</text>");
  });

  test("panels are placed in rows, beside and below each other", () => {
    const sizeOf = (svg: string): number[] =>
      (/viewBox="0 0 (\d+) (\d+)"/.exec(svg) ?? []).slice(1).map(Number);
    const [width, height] = sizeOf(drawPanels([panel]));
    const [three, twice] = sizeOf(drawPanels([panel, panel, panel], 2));
    expect([Math.round(three / width), twice]).toEqual([2, 2 * height]);
    // By default in two columns, or in one if the names of series would make the figure too wide for a page.
    expect(sizeOf(drawPanels([panel, panel, panel]))).toEqual([three, twice]);
    const long = { ...panel, series: [{ ...panel.series[0], name: "a name of thirty-six letters or more" }] };
    const [wide, alone] = sizeOf(drawPanels([long]));
    expect(sizeOf(drawPanels([long, long]))).toEqual([wide, 2 * alone]);
  });
});

describe("mixtures tried at random", () => {
  test("lie on the simplex to their last digit", () => {
    for (const weights of mixturesOf(50, 8, 1)) {
      expect(Math.round(weights.reduce((a, b) => a + b * 1e6, 0))).toBe(1e6);
      expect(Math.min(...weights)).toBeGreaterThanOrEqual(0);
    }
  });

  test("the prediction of a regression on sixteen mixtures is better than the best of them, if the loss has the form of the model", () => {
    const worth = [0.5, 0.2, 0.05, 0, 0, 0, 0, 0];
    const loss = (weights: readonly number[]): number =>
      4 - weights.reduce((sum, weight, i) => sum + worth[i] * Math.log(weight + 0.01), 0);
    for (const seed of [1, 2, 3]) {
      const tried = mixturesOf(16, 8, seed);
      const losses = tried.map(loss);
      expect(loss(predictedBest(tried, losses, seed))).toBeLessThan(Math.min(...losses));
      const { slopes } = lossModel(tried, losses);
      expect(slopes.indexOf(Math.min(...slopes))).toBe(0);
    }
  });
});

/** A result that a cell could have. */
function invented(cell: Cell): Result {
  const random = randomOf(Number.parseInt(keyOf(cell).slice(0, 8), 16));
  const loss = 4 + random();
  const k = cell.text.cut?.count ?? cell.text.domains.length;
  return {
    domains: k,
    loss: cell.text.target === null ? null : loss,
    curve: [120, 240].map((step) => ({ step, loss: loss + 240 - step })),
    weights:
      k > 32 ? null : [0, 240].map((step) => ({ step, weights: Array.from({ length: k }, () => 1 / k) })),
    epochs: 3 * random(),
    outside: 5 + random(),
    before: cell.before === undefined ? null : { loss: 5, outside: 5 },
    accuracy: cell.questions === undefined ? null : { document: null, target: random(), domain: random() },
    probes:
      cell.probes === undefined ? null : Object.fromEntries(cell.probes.map((name) => [name, 4 + random()])),
    cpuSeconds: 1 + random(),
    tokens: 245_760,
  };
}

/** Lines for all cells, those that follow from others' results too. */
function allLines(experiment: Experiment): Line[] {
  const found = new Map<string, Line>();
  for (;;) {
    const fresh = experiment
      .cells(usual, (cell) => found.get(keyOf(cell))?.result)
      .filter((cell) => !found.has(keyOf(cell)));
    if (fresh.length === 0) return [...found.values()];
    for (const cell of fresh)
      found.set(keyOf(cell), { key: keyOf(cell), text: "t", cell, result: invented(cell) });
  }
}

const frame = readFileSync(join(root, "docs/evidence.md"), "utf8");

describe.each(experiments.map((experiment) => [experiment.name, experiment] as const))(
  "%s",
  (name, experiment) => {
    const lines = allLines(experiment);

    test("reports all of its results as numbers", () => {
      const { markdown, figures } = sectionOf(experiment, lines);
      expect(markdown).not.toMatch(/NaN|undefined|So far|Infinity/);
      expect(markdown).toMatch(/\d ± \d/);
      expect(figures.length).toBeGreaterThan(0);
      for (const { svg, name: file } of figures) {
        expect(svg, file).not.toMatch(/NaN|undefined|Infinity/);
        expect(markdown).toContain(`evidence/${file}.svg`);
      }
      // In whatever order the runs finished.
      expect(sectionOf(experiment, lines.toReversed())).toEqual({ markdown, figures });
    });

    test("reports its progress with half of the results", () => {
      const { markdown, figures } = sectionOf(
        experiment,
        lines.filter((_, i) => i % 2 === 0),
      );
      expect(markdown).toMatch(/So far \d+ of \d+ runs are done/);
      for (const { svg } of figures) expect(svg).not.toMatch(/NaN|undefined|Infinity/);
    });

    test("takes at most an hour on two cores, with three seeds", () => {
      expect(new Set(lines.map(({ cell }) => cell.seed))).toEqual(new Set([1, 2, 3]));
      expect(minutesOf(experiment)).toBeLessThanOrEqual(60);
      // The planned cells are those that run.
      const seconds = lines.reduce((sum, { cell }) => sum + estimatedSeconds(cell), 0);
      expectNear(minutesOf(experiment), seconds / 120, 1, 60);
      expect(name).toMatch(/^[a-z-]+$/);
    });
  },
);

test("all together take at most five hours on two cores, if shared runs are done once", () => {
  const planned = experiments.flatMap(
    (experiment) => experiment.planned?.(usual) ?? experiment.cells(usual, () => undefined),
  );
  const seconds = distinct(planned).reduce((sum, cell) => sum + estimatedSeconds(cell), 0);
  expect(seconds / 2 / 3600).toBeLessThanOrEqual(5);
});

test("the predicted cost is the one that the library computes before a run", () => {
  const [cell] = experiments[0].cells(usual, () => undefined);
  const cost = (name: keyof typeof methods, k: number): number =>
    predictedCost({ ...cell, method: methods[name] }, k);
  // (4k + 16) windows of 64 tokens every 10 steps of 16, the domains' with inner products; k gradients of 4 windows and their inner products.
  expectNear(cost("DGA (paper)", 24), 1 + (4 * 24 * (1 + 4 / 64) + 16) / 160, 1e-12);
  expectNear(cost("R&B", 24), 1 + (4 * 24 * 1.25) / 160, 1e-12);
  for (const name of ["uniform", "proportional", "importance sampling", "ODM"] as const)
    expect(cost(name, 24)).toBe(1);
  // 8 windows of the target, inner products of every second step, and one window of each of four domains that the steps hardly draw; all for the head only.
  const { dim } = cell.model;
  const embedding = cell.text.vocabulary * dim;
  const share =
    (embedding + dim) / (parameterCount({ vocabSize: cell.text.vocabulary, ...cell.model }) - embedding);
  const gradient = (1 + 2 * share) / 3;
  for (const k of [5, 4096])
    expectNear(cost("DGA (default)", k), 1 + (gradient * 12.25 + share * (80 + 4) * (4 / 64)) / 160, 1e-12);
});

test("the document keeps the text around the generated part, and is the same when it is generated again", async () => {
  const lines = allLines(experiments[0]);
  const { document, figures } = await reportOf(lines, frame);
  expect(document.split("## ")[0]).toBe(frame.split("## ")[0]);
  expect(document).toMatch(/\| uniform +\| +\d\.\d{3} ± /);
  expect(await reportOf(lines, document)).toEqual({ document, figures });
  await expect(reportOf(lines, "# Evidence")).rejects.toThrow("add them, to mark the part to write");
});

test("docs/evidence.md and its figures match the committed results", async () => {
  const { document, figures } = await reportOf(readResults(join(root, "experiments/results")), frame);
  expect(document).toBe(frame);
  const folder = join(root, "docs/evidence");
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  expect(files).toEqual(figures.map(({ name }) => `${name}.svg`).sort());
  for (const { name, svg } of figures) expect(readFileSync(join(folder, `${name}.svg`), "utf8")).toBe(svg);
});
