import { drawPanels } from "#dist/report/chart.js";
import type { Cell } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { type MethodName, methods } from "../methods.ts";
import { mixturesOf, predictedBest } from "../mixtures.ts";
import type { Lookup } from "../results.ts";
import { ALL, differencesTable, meansTable } from "../tables.ts";
import {
  cellOf,
  eightDomains,
  gridByTarget,
  observe,
  type Run,
  seedsOf,
  STEPS,
  type TargetName,
  targets,
  tunedTargets,
} from "./common.ts";

const groups = tunedTargets;
const TRIED = 16;
/** By the name of a search: the steps of each tried mixture over those of a run. */
const searches: Readonly<Record<string, number>> = { "RegMix, 1 run": 1 / TRIED, "RegMix, 16 runs": 1 };
const others: readonly MethodName[] = ["uniform", "importance sampling", "DGA, all text", "DGA (default)"];
const rows = [...others, ...Object.keys(searches)];
const text = { domains: eightDomains };
const probes = groups.map((name) => targets[name]);

/** The mixtures that a search tries: the same runs serve every target, on whose training text they are evaluated. */
function tried(search: string, seed: number, settings: Settings): { weights: number[]; cell: Cell }[] {
  const steps = Math.max(1, Math.round((settings.steps ?? STEPS) * searches[search]));
  return mixturesOf(TRIED, eightDomains.length, seed).map((weights) => {
    const method = { rule: { name: "static", weights } };
    return {
      weights,
      cell: cellOf({ method, target: null, seed, text, probes }, { ...settings, steps }),
    };
  });
}

/** The run with the mixture that a search predicts to be best; null until all mixtures of the search have results. */
function final(
  search: string,
  target: TargetName,
  seed: number,
  settings: Settings,
  results: Lookup,
): Cell | null {
  const found = tried(search, seed, settings).map(({ weights, cell }) => ({
    weights,
    loss: results(cell)?.probes?.[targets[target]],
  }));
  const losses = found.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
  if (losses.length < found.length) return null;
  const weights = predictedBest(
    found.map((one) => one.weights),
    losses,
    seed,
  );
  return cellOf({ method: { rule: { name: "static", weights } }, target, seed, text }, settings);
}

const runsOf = (settings: Settings, results: Lookup): Run[] =>
  gridByTarget({ rows, groups }, settings, (row, target, seed) =>
    Object.hasOwn(searches, row)
      ? final(row, target, seed, settings, results)
      : cellOf({ method: methods[row as MethodName], target, seed, text }, settings),
  );

const triedCells = (settings: Settings): Cell[] =>
  Object.keys(searches).flatMap((search) =>
    seedsOf(settings).flatMap((seed) => tried(search, seed, settings).map(({ cell }) => cell)),
  );

export const mixtures: Experiment = {
  name: "mixtures",
  title: "A search over random mixtures",
  about: `This experiment compares DGA with the method of RegMix. RegMix draws ${TRIED} random mixtures of the eight domains (Dirichlet) and trains a short run with each. A regression (ridge, on the logarithms of the weights) predicts the losses on the target's training text. The final run uses the mixture with the lowest predicted loss. The search takes as many steps as one run (${STEPS / TRIED} per mixture), or as sixteen runs; the final run comes on top. DGA needs only one run. Only the default selects windows.`,
  cells: (settings, results) => [
    ...triedCells(settings),
    ...runsOf(settings, results).map(({ cell }) => cell),
  ],
  planned: (settings) => [
    ...triedCells(settings),
    ...runsOf(settings, () => undefined).map(({ cell }) => cell),
    // The runs with what is found, whatever it is.
    ...Object.keys(searches).flatMap((found) =>
      groups.flatMap((target) =>
        seedsOf(settings).map((seed) =>
          cellOf({ method: { rule: { name: "static", found } }, target, seed, text }, settings),
        ),
      ),
    ),
  ],
  report(settings, results) {
    const losses = observe(runsOf(settings, results), results, ({ loss }) => loss);
    const axes = { rows, columns: groups, corner: "target" };
    const versus = { ...axes, columns: [...groups, ALL], of: "DGA (default)" };
    return {
      markdown: [
        "Loss on held-out text of the target, nats per token:",
        meansTable(losses, axes),
        "The default minus each of the others, paired by target and seed; negative is better:",
        differencesTable(losses, versus),
      ].join("\n\n"),
      figures: [
        {
          name: "mixtures",
          caption: "Loss on the target with mixtures found by a search, and with DGA",
          svg: drawPanels([
            dotsPanel(
              losses,
              { rows, columns: groups },
              {
                title: "Searching and aligning",
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
