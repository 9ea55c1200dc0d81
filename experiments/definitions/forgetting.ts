import { drawPanels } from "#dist/report/chart.js";
import type { CombinatorOptions } from "gradmix/dga";
import type { Method, Result } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { ALL_TEXT, DEFAULT, methods, paperWith } from "../methods.ts";
import { ALL, differencesTable, meansTable } from "../tables.ts";
import { cellOf, gridByTarget, namesOf, observe, type Run, STEPS, type TargetName } from "./common.ts";

const groups: readonly TargetName[] = ["inaugural", "math", "travel"];
const floor = (method: Method): Method => ({
  ...method,
  combinators: [...(method.combinators ?? []), { name: "floor", least: 0.01 } satisfies CombinatorOptions],
});
/** No domain's loss on held-out text may rise by more than this. */
const LIMIT = 1.02;
const guard = (method: Method): Method => ({
  ...method,
  combinators: [
    ...(method.combinators ?? []),
    { name: "guard", limits: { "*": LIMIT } } satisfies CombinatorOptions,
  ],
});
const compared: Readonly<Record<string, Method>> = {
  uniform: methods.uniform,
  "importance sampling": methods["importance sampling"],
  "importance sampling, floor": floor(methods["importance sampling"]),
  "importance sampling, guard": guard(methods["importance sampling"]),
  "DGA (paper)": paperWith({}),
  "DGA (default)": DEFAULT,
  // With a floor or a guard, the default uses all text.
  "DGA (default), floor": floor(ALL_TEXT),
  "DGA (default), guard": guard(ALL_TEXT),
};
const rows = namesOf(compared);

const runsOf = (settings: Settings): Run[] =>
  gridByTarget({ rows, groups }, settings, (row, target, seed) =>
    cellOf({ method: compared[row], target, seed, before: settings.steps ?? STEPS }, settings),
  );

const outside = ({ before, outside }: Result): number | null =>
  before === null ? null : outside - before.outside;
const inside = ({ before, loss }: Result): number | null =>
  before === null || before.loss === null || loss === null ? null : loss - before.loss;

export const forgetting: Experiment = {
  name: "forgetting",
  title: "What is forgotten",
  about: `This experiment shows how much a model forgets of the text that it seldom reads. A model is trained for ${STEPS} steps with uniform weights, and then for as many steps with each method. (Then the default selects windows, unless it has a floor or a guard.) The tables show how much its loss changes on the target, and outside the target: on held-out text, as the mean over all 24 domains. A floor keeps at least 0.01 of the weight on each domain; a guard gives weight back to domains whose held-out loss rises by more than ${Math.round(100 * (LIMIT - 1))} %.`,
  cells: (settings) => runsOf(settings).map(({ cell }) => cell),
  report(settings, results) {
    const runs = runsOf(settings);
    const [onTarget, elsewhere] = [observe(runs, results, inside), observe(runs, results, outside)];
    const axes = { rows, columns: groups, corner: "target" };
    const versus = { ...axes, columns: [...groups, ALL], of: "DGA (default)" };
    return {
      markdown: [
        "Change of the loss on the target, nats per token:",
        meansTable(onTarget, axes),
        "Change of the loss outside the target; a positive change means forgetting:",
        meansTable(elsewhere, axes),
        "The default minus each of the others, outside the target, paired by target and seed:",
        differencesTable(elsewhere, versus),
      ].join("\n\n"),
      figures: [
        {
          name: "forgetting",
          caption: "Change of the loss on the target and outside it, by target",
          svg: drawPanels([
            dotsPanel(
              onTarget,
              { rows, columns: groups },
              { title: "On the target", xLabel: "target", yLabel: "change of the loss, nats per token" },
            ),
            dotsPanel(
              elsewhere,
              { rows, columns: groups },
              { title: "Outside", xLabel: "target", yLabel: "change of the loss, nats per token" },
            ),
          ]),
        },
      ],
    };
  },
};
