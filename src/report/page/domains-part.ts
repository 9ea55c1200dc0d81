/** The table of the domains of one run, and its mixture in the formats of trainers. */
import type { DomainData, ExportedText, RunData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatCount, formatLoss, formatShare, formatTimes, significant } from "./format.ts";
import { swatch } from "./lines.ts";
import { searchBox } from "./multiples.ts";
import { table, type TableColumn } from "./table.ts";
import { epochsIn } from "./tokens-part.ts";
import { nameColour, type Part, runOf, type View } from "./view.ts";

interface Row extends DomainData {
  readonly name: string;
  readonly colour: string;
  /** Share of the tokens of all text. */
  readonly proportional: number;
  readonly uniform: number;
  readonly achieved: number;
  readonly cap: number | null;
  readonly bits: boolean;
}

export function domainsPart(): Part {
  const list = table(columns, ({ name }: Row) => name);
  const search = searchBox("Search the table", (text) => list.search(text));
  const files = exportBox();
  return {
    element: section("domains", "Domains", search, list.element, files.element),
    show(view) {
      search.hidden = runOf(view).domains.length < 9;
      list.show(rowsOf(view));
      files.show(runOf(view).exports);
    },
  };
}

function rowsOf(view: View): Row[] {
  const run: RunData = runOf(view);
  const all = run.domains.reduce((sum, { size }) => sum + size, 0);
  return run.domains
    .map((domain) => ({
      ...domain,
      name: view.data.names[domain.domain]!,
      colour: nameColour(view.data, domain.domain, "area"),
      proportional: domain.size / all,
      uniform: 1 / run.domains.length,
      achieved: run.tokens === 0 ? 0 : domain.tokens / run.tokens,
      cap: run.cap,
      bits: view.unit === "bits",
    }))
    .sort((one, other) => (other.weight ?? 0) - (one.weight ?? 0));
}

const ofLoss = ({ loss, bits, bitsPerNat }: Row): number | null =>
  loss === null ? null : bits ? (bitsPerNat === null ? null : loss * bitsPerNat) : loss;
const ofChange = ({ loss, lossAtStart }: Row): number | null =>
  loss === null || lossAtStart === null || loss === lossAtStart ? null : loss / lossAtStart - 1;
const over = (value: number | null, divisor: number): number | null =>
  value === null || divisor === 0 ? null : value / divisor;
const or = (value: number | null, format: (value: number) => string): string =>
  value === null ? "–" : format(value);

const columns: readonly TableColumn<Row>[] = [
  {
    title: "domain",
    key: ({ name }) => name,
    cell: ({ name, colour }) =>
      h(
        "span",
        { class: "domain", title: name },
        swatch({ colour }, true),
        h("span", { class: "name" }, name),
      ),
  },
  {
    title: "weight",
    explanation:
      "The weight at the end; in a run that goes on, the weight with which the last batch was drawn",
    key: ({ weight }) => weight,
    cell: ({ weight }) => or(weight, formatShare),
  },
  {
    title: "averaged",
    explanation: "The mean of the weights over the steps",
    key: ({ averaged }) => averaged,
    cell: ({ averaged }) => or(averaged, formatShare),
  },
  {
    title: "× proportional",
    explanation: "The weight at the end, divided by the domain's share of all tokens",
    key: ({ weight, proportional }) => over(weight, proportional),
    cell: ({ weight, proportional }) => or(over(weight, proportional), formatTimes),
  },
  {
    title: "× uniform",
    explanation: "The weight at the end, divided by the uniform weight",
    key: ({ weight, uniform }) => over(weight, uniform),
    cell: ({ weight, uniform }) => or(over(weight, uniform), formatTimes),
  },
  {
    title: "tokens",
    explanation: "Tokens of the domain that were trained on",
    key: ({ tokens }) => tokens,
    cell: ({ tokens }) => formatCount(tokens),
  },
  {
    title: "of all",
    explanation: "Share of the tokens that were trained on",
    key: ({ achieved }) => achieved,
    cell: ({ achieved }) => formatShare(achieved),
  },
  {
    title: "selected",
    explanation: "Share of the domain's windows that were sampled: those that resemble the target most",
    key: ({ selected }) => selected ?? 1,
    cell: ({ selected }) => (selected === null ? "all" : formatShare(selected)),
  },
  {
    title: "epochs",
    explanation: "How often the selected text of the domain was read",
    key: epochsIn,
    cell: (row) =>
      row.passed === null
        ? significant(epochsIn(row), 3)
        : h(
            "strong",
            { class: "passed", title: `above the limit of ${row.cap ?? 0}` },
            `${significant(epochsIn(row), 3)} ▲`,
          ),
  },
  {
    title: "loss",
    explanation: "Held-out loss of the domain at its last evaluation, in the unit chosen above",
    key: ofLoss,
    cell: (row) => or(ofLoss(row), formatLoss),
  },
  {
    title: "change",
    explanation: "Change of the domain's loss since its first evaluation",
    key: ofChange,
    cell: (row) => or(ofChange(row), formatShare),
  },
];

/** The mixture in the format of a trainer, for copying. */
function exportBox(): { element: HTMLElement; show(exports: readonly ExportedText[]): void } {
  let shown: readonly ExportedText[] = [];
  const choice = h("select", {
    "aria-label": "Format of the trainer",
    change: () => draw(),
  }) as HTMLSelectElement;
  const text = h("textarea", {
    readonly: true,
    rows: 12,
    spellcheck: "false",
    "aria-label": "The mixture in this format",
  }) as HTMLTextAreaElement;
  const copy = h("button", {
    type: "button",
    click: () => {
      text.select();
      // Pages in an insecure context have no clipboard.
      const { clipboard } = navigator as { readonly clipboard?: Clipboard };
      if (clipboard === undefined) copy.textContent = "Selected";
      else
        void clipboard.writeText(text.value).then(
          () => (copy.textContent = "Copied"),
          () => (copy.textContent = "Selected"),
        );
    },
  });
  const draw = (): void => {
    text.value = shown.find(({ name }) => name === choice.value)?.text ?? "";
    copy.textContent = "Copy";
  };
  const element = h(
    "div",
    { class: "exports" },
    h("h3", {}, "Export the mixture"),
    h(
      "p",
      { class: "note" },
      "The output of gradmix export with the averaged weights. Replace PATH/OF/… by your paths; gradmix export --map inserts them.",
    ),
    h("div", { class: "controls" }, choice, copy),
    text,
  );
  return {
    element,
    show(exports) {
      const before = choice.value;
      shown = exports;
      element.hidden = exports.length === 0;
      choice.replaceChildren(
        ...exports.map(({ name }) => h("option", { value: name, selected: name === before }, name)),
      );
      draw();
    },
  };
}
