/** The results, in words and in a table of figures. */
import type { GroupData, PageData, RunData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatCount, formatLoss, formatSeconds, formatShare } from "./format.ts";
import { swatch } from "./lines.ts";
import { theme } from "./screen.ts";
import { runStroke } from "./theme.ts";
import type { Part } from "./view.ts";

export function summaryPart(): Part {
  const body = h("div");
  return {
    element: section("summary", "What was gained", body),
    show({ data }) {
      const [first, ...others] = data.summary;
      body.replaceChildren(
        ...(first === undefined ? [] : [h("p", { class: "lead" }, unbroken(first))]),
        ...others.map((sentence) => h("p", {}, unbroken(sentence))),
        ...data.cautions.map((sentence) => h("p", { class: "caution" }, sentence)),
        data.groups.length === 1 && data.runs.length === 1 ? tiles(data) : figures(data),
      );
    },
  };
}

/** Keeps a number and its sign on one line. */
function unbroken(sentence: string): string {
  return sentence.replaceAll(/ (?=[%±])|(?<=±) /g, "\u00a0");
}

/** The figures of one run. */
function tiles({ names, runs }: PageData): HTMLElement {
  const run = runs[0]!;
  const heaviest = run.weights.rows.slice(0, 1).flatMap((name) => {
    const found = run.domains.find(({ domain }) => domain === name)?.weight;
    return found === null || found === undefined ? [] : [{ name: names[name]!, weight: found }];
  });
  const bits = run.bitsPerNat;
  const items: (readonly [string, string])[] = [
    ...(run.target === null
      ? []
      : ([
          [formatLoss(run.target.end), "target loss, nats per token"],
          ...(bits === null
            ? []
            : [[formatLoss(run.target.end * bits), "target loss, bits per byte"] as const]),
          [formatShare(run.target.end / run.target.start - 1), "against the start"],
        ] as const)),
    [formatCount(run.tokens), "tokens trained on"],
    [formatSeconds(run.cost.training + run.cost.evaluation), "of training and evaluation"],
    ...heaviest.map(({ name, weight }) => [formatShare(weight), `weight of ${name}, the heaviest`] as const),
  ];
  return h(
    "dl",
    { class: "tiles" },
    items.map(([value, name]) => h("div", {}, h("dd", {}, value), h("dt", {}, name))),
  );
}

/** The figures of several runs: one row per group. */
function figures(data: PageData): HTMLElement {
  const best = Math.min(
    ...data.groups.map(({ end }) => (end === null || !end.compared ? Infinity : end.nats)),
  );
  const head = ["", "runs", "nats per token", "against the best", "bits per byte", "tokens", "time"];
  const rows = data.groups.map((group, i) => figuresOf(group, i, best, data.runs));
  return h(
    "div",
    {},
    h(
      "p",
      { class: "note above" },
      `Held-out loss on the target at the end, ± two standard errors over the seeds; tokens and time of one run.${data.groups.some(({ end }) => end?.compared === false) ? " Runs that have not reached their last step are not compared." : ""}`,
    ),
    h(
      "div",
      { class: "wide" },
      h(
        "table",
        { class: "figures" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((title) => h("th", { scope: "col" }, title)),
          ),
        ),
        h("tbody", {}, rows),
      ),
    ),
  );
}

function figuresOf(group: GroupData, index: number, best: number, runs: readonly RunData[]): HTMLElement {
  const { end, counted } = group;
  const members = counted.map((i) => runs[i]!);
  const mean = (of: (run: RunData) => number): number =>
    members.reduce((sum, run) => sum + of(run), 0) / members.length;
  const cells = [
    counted.length === group.runs.length
      ? String(counted.length)
      : `${counted.length} of ${group.runs.length}`,
    end === null ? "–" : withBand(end.nats, end.band),
    end === null || !end.compared ? "–" : end.nats === best ? "best" : `+${formatShare(end.nats / best - 1)}`,
    end?.bits === null || end === null ? "–" : formatLoss(end.bits),
    formatCount(mean(({ tokens }) => tokens)),
    formatSeconds(mean(({ cost }) => cost.training + cost.evaluation)),
  ];
  const { colour, dash } = runStroke(theme(), index);
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, swatch({ colour, dash }), " ", group.label),
    cells.map((cell) => h("td", {}, cell)),
  );
}

function withBand(value: number, band: number | null): string {
  return band === null ? formatLoss(value) : `${formatLoss(value)} ± ${formatLoss(band)}`;
}
