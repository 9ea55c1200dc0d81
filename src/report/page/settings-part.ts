/** Settings, versions, data and cost of the runs; rows that differ between them come first. */
import type { PageData, RunData, Setting } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatCount, formatSeconds, formatShare } from "./format.ts";
import { type Part, runLabel, runOf } from "./view.ts";

export function settingsPart(): Part {
  const body = h("div");
  return {
    element: section("settings", "Cost and settings", body),
    show(view) {
      const { data } = view;
      body.replaceChildren(
        costs(data),
        ...(data.runs.length > 1 ? [h("h3", {}, "What differs between the runs"), differences(data)] : []),
        h(
          "details",
          {},
          h("summary", {}, `All settings of ${runLabel(data, view.run)}`),
          grid(
            ["", "", ""],
            runOf(view).settings.map(({ section, name, value }) => [section, name, value]),
          ),
        ),
      );
    },
  };
}

function grid(head: readonly string[], rows: readonly (readonly string[])[]): HTMLElement {
  return h(
    "div",
    { class: "wide" },
    h(
      "table",
      { class: "settings" },
      head.every((title) => title === "")
        ? null
        : h(
            "thead",
            {},
            h(
              "tr",
              {},
              head.map((title) => h("th", { scope: "col" }, title)),
            ),
          ),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          h(
            "tr",
            {},
            cells.map((cell, i) => h(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : {}, cell)),
          ),
        ),
      ),
    ),
  );
}

function costs(data: PageData): HTMLElement {
  const guarded = data.runs.some(({ cost }) => cost.guardShare > 0);
  const row = (run: RunData, i: number): readonly string[] => {
    const { training, evaluation, alignmentShare, guardShare, evaluationShare } = run.cost;
    const others = 1 + alignmentShare + guardShare;
    const counted = (share: number): string =>
      share === 0 ? "none" : `+${formatShare(share)}, about ${formatSeconds((training * share) / others)}`;
    return [
      runLabel(data, i),
      formatSeconds(training),
      counted(alignmentShare),
      ...(guarded ? [counted(guardShare)] : []),
      formatSeconds(evaluation),
      `+${formatShare(evaluationShare)}`,
      training > 0 ? formatCount(run.tokens / training) : "–",
      `${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")}`,
    ];
  };
  const head = [
    "run",
    guarded ? "training, with alignment and guards" : "training, with alignment",
    "alignment, counted",
    ...(guarded ? ["guards, counted"] : []),
    "evaluation",
    "evaluation, counted",
    "tokens per second",
    "steps",
  ];
  return h("div", { class: "costs" }, grid(head, data.runs.map(row)));
}

function differences(data: PageData): HTMLElement {
  const key = ({ section, name }: Setting): string => `${section}\n${name}`;
  const values = data.runs.map(
    ({ settings }) => new Map(settings.map((setting) => [key(setting), setting.value])),
  );
  const rows = [
    ...new Map(
      data.runs.flatMap(({ settings }) => settings.map((setting) => [key(setting), setting])),
    ).entries(),
  ]
    // The folder and the facts of the run show where a run writes, and its rule and seed.
    .filter(([, { section, name }]) => !["options: run", "run"].includes(section) || name === "folder")
    .filter(([found]) => new Set(values.map((own) => own.get(found))).size > 1)
    .map(([found, { name }]) => [name, ...values.map((own) => own.get(found) ?? "–")]);
  return grid(["", ...data.runs.map((_, i) => runLabel(data, i))], rows);
}
