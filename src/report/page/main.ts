/** The page's script: shows the data that is stored in the page and, if a server sends updates, the new data. */
import type { PageData, RunData } from "../page-data.ts";
import { h } from "./dom.ts";
import { domainsPart } from "./domains-part.ts";
import { guardsPart } from "./guards-part.ts";
import { lossPart } from "./loss-part.ts";
import { onTheme } from "./screen.ts";
import { settingsPart } from "./settings-part.ts";
import { summaryPart } from "./summary-part.ts";
import { tokensPart } from "./tokens-part.ts";
import { type Part, runLabel, type Unit, unitNames, type View } from "./view.ts";
import { weightsPart } from "./weights-part.ts";

/** Delay between an answer of the server and the next request. */
const POLL_MILLISECONDS = 2000;

const text = document.getElementById("data")?.textContent ?? "";
let view: View = { data: JSON.parse(text) as PageData, run: 0, unit: "nats" };

const parts: readonly Part[] = [
  summaryPart(),
  lossPart(),
  weightsPart(),
  guardsPart(),
  tokensPart(),
  domainsPart(),
  settingsPart(),
];
const title = h("h1", {}, "");
const status = h("p", { class: "status", role: "status" });
const runs = h("select", {
  id: "run",
  change: () => {
    view = { ...view, run: Number(runChoice.value) };
    show();
  },
});
const runChoice = runs as HTMLSelectElement;
const runBox = h("label", { class: "pick" }, "Mixture of ", runs);

const unitBox = h(
  "fieldset",
  { class: "units" },
  h("legend", {}, "Losses in"),
  (["nats", "bits"] as const).map((unit: Unit) =>
    h(
      "label",
      {},
      h("input", {
        type: "radio",
        name: "unit",
        value: unit,
        checked: unit === view.unit,
        change: () => {
          view = { ...view, unit };
          show();
        },
      }),
      ` ${unitNames[unit]}`,
    ),
  ),
);

function show(): void {
  const { data } = view;
  title.textContent = data.title;
  runChoice.replaceChildren(
    ...data.runs.map((_, i) => h("option", { value: i, selected: i === view.run }, runLabel(data, i))),
  );
  runBox.hidden = data.runs.length < 2;
  for (const part of parts) part.show(view);
}

/** Asks the server for updates again and again; a run that has ended may continue. */
async function follow(version: string): Promise<void> {
  let next = version;
  let updated: PageData | null = null;
  try {
    const answer = await fetch(`data?after=${encodeURIComponent(version)}`);
    if (answer.ok && answer.status !== 204) {
      updated = (await answer.json()) as PageData;
      next = answer.headers.get("ETag") ?? "";
      view = { ...view, data: updated };
    }
    status.textContent = answer.ok
      ? progressOf(view.data.runs[0]!)
      : `gradmix watch cannot read the run; the page shows the last data it received. ${(await answer.text()).trim()}`;
  } catch {
    status.textContent = "gradmix watch no longer answers; the page shows the last data it received.";
  }
  setTimeout(() => void follow(next), POLL_MILLISECONDS);
  // Last, so that an error in it is not taken for one of the server, and does not end the updates.
  if (updated !== null) show();
}

function progressOf({ state, step, steps }: RunData): string {
  const [done, planned] = [step.toLocaleString("en"), steps.toLocaleString("en")];
  if (state === "running") return `The run continues: step ${done} of ${planned}. This page follows it.`;
  return state === "done"
    ? `The run has ended after ${done} steps.`
    : `The run was stopped after ${done} of ${planned} steps.`;
}

document
  .getElementById("page")
  ?.replaceChildren(
    h(
      "header",
      {},
      h("p", { class: "kind" }, "gradmix report"),
      title,
      status,
      h("div", { class: "controls" }, unitBox, runBox),
    ),
    ...parts.map(({ element }) => element),
  );
show();
onTheme(show);
if (document.body.dataset["live"] !== undefined) void follow("");
