/** Losses against tokens: on the target, in training and on each domain, for all runs together. */
import type { GroupData, LossCurves, PageData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatLoss } from "./format.ts";
import { dots } from "./dots.ts";
import { type Chart, chart, type Line } from "./lines.ts";
import { multiples, type Panel } from "./multiples.ts";
import { theme } from "./screen.ts";
import { runStroke } from "./theme.ts";
import { inUnit, type Part, type Unit, unitNames, type View } from "./view.ts";

export function lossPart(): Part {
  const large = h("div", { class: "pair" });
  const domains = multiples("Search a domain's loss");
  const heading = h("h3", {}, "Held-out loss of each domain");
  const ends = h("div");
  const note = h("p", { class: "note" });
  let charts: readonly Chart[] = [];
  let last: View | null = null;
  let late = false;
  const zoom = h(
    "label",
    { class: "check" },
    h("input", {
      type: "checkbox",
      change: (event) => {
        late = (event.target as HTMLInputElement).checked;
        if (last !== null) showLarge(last);
      },
    }),
    " the second half only",
  );
  const showLarge = ({ data, unit }: View): void => {
    for (const one of charts) one.destroy();
    const found = [
      panelOf(data, "target", "Held-out loss on the target", unit, late),
      panelOf(data, "training", "Training loss, each run on its own mixture", "nats", late),
    ].flatMap((panel) => panel ?? []);
    charts = found.map(({ chart }) => chart);
    large.replaceChildren(...found.map(({ figure }) => figure));
  };
  return {
    element: section("loss", "Loss", note, zoom, large, heading, domains.element, ends),
    show(view) {
      last = view;
      const seeds = view.data.groups.some((group) => group.counted.length > 1);
      note.textContent = `${seeds ? "Lines are means over the seeds, bands two standard errors of them. " : ""}Drag across a chart to look closer, double-click to go back.`;
      showLarge(view);
      const panels = domainPanels(view);
      heading.hidden = panels.length === 0;
      const overTime = panels.some(({ lines }) => lines.some(({ tokens }) => tokens.length > 2));
      domains.element.hidden = !overTime;
      domains.show(overTime ? panels : []);
      ends.replaceChildren(...(overTime || panels.length === 0 ? [] : [endsOf(view)]));
    },
  };
}

function panelOf(
  { groups }: PageData,
  of: "target" | "training",
  title: string,
  unit: Unit,
  late: boolean,
): { figure: HTMLElement; chart: Chart } | null {
  const lines = groups.flatMap((group, i) => lineOf(group, i, group[of], unit) ?? []);
  if (lines.length === 0) return null;
  const { from, shown } = late ? secondHalf(lines) : { from: 0, shown: lines };
  const drawn = chart(shown, {
    height: 320,
    title: `${title}, ${unitNames[unit]}`,
    format: formatLoss,
    from,
  });
  return {
    figure: h(
      "figure",
      { "data-figure": of },
      h("figcaption", {}, `${title}, ${unitNames[unit]}`),
      drawn.element,
    ),
    chart: drawn,
  };
}

/** The points of the second half, so that only their values determine the axis. */
function secondHalf(lines: readonly Line[]): { from: number; shown: readonly Line[] } {
  const most = Math.max(...lines.map(({ tokens }) => tokens[tokens.length - 1]!));
  const shown = lines.map((line) => {
    const kept = line.tokens.flatMap((token, i) => (token >= most / 2 ? [i] : []));
    const pick = <T>(list: readonly T[]): T[] => kept.map((i) => list[i]!);
    return {
      ...line,
      tokens: pick(line.tokens),
      values: pick(line.values),
      ...(line.band === undefined ? {} : { band: pick(line.band) }),
    };
  });
  return { from: 0.5, shown };
}

function lineOf(group: GroupData, index: number, curves: LossCurves | null, unit: Unit): Line | null {
  const found = curves === null ? null : inUnit(curves, unit);
  if (curves === null || found === null) return null;
  const seeds = group.counted.length > 1 ? ` (${group.counted.length} seeds)` : "";
  return {
    label: `${group.label}${seeds}`,
    ...runStroke(theme(), index),
    tokens: curves.tokens,
    values: found.mean,
    band: found.band,
  };
}

/** Domains that were evaluated only at the end, or only at start and end: lines between these would show little more than that all losses fall. */
function endsOf({ data, unit }: View): HTMLElement {
  const rows = evaluatedDomains(data).map((domain) => ({
    name: data.names[domain]!,
    values: data.groups.map((group) => {
      const loss = lossOf(group, domain);
      const found = loss === null ? null : inUnit(loss, unit);
      return found?.mean.at(-1) ?? null;
    }),
  }));
  return h(
    "div",
    {},
    h(
      "p",
      { class: "note" },
      "Losses at the last evaluation. A larger --eval-share evaluates the domains more often and shows them over time.",
    ),
    dots(
      rows,
      data.groups.map(({ label }, i) => ({ label, colour: runStroke(theme(), i).colour })),
      formatLoss,
    ),
  );
}

/** Indices of the evaluated domains, ordered by weight, the largest first. */
function evaluatedDomains({ groups, heaviest, runs }: PageData): number[] {
  const evaluated = new Set(groups.flatMap(({ domains }) => domains.map(({ domain }) => domain)));
  const byWeight = new Set([...heaviest, ...runs.flatMap(({ weights }) => weights.rows), ...evaluated]);
  return [...byWeight].filter((domain) => evaluated.has(domain));
}

function lossOf({ domains }: GroupData, domain: number): LossCurves | null {
  return domains.find((one) => one.domain === domain)?.loss ?? null;
}

function domainPanels({ data, unit }: View): Panel[] {
  return evaluatedDomains(data).map((domain) => ({
    name: data.names[domain]!,
    lines: data.groups.flatMap((group, i) => lineOf(group, i, lossOf(group, domain), unit) ?? []),
    options: {
      height: 130,
      title: `Held-out loss of ${data.names[domain]}, ${unitNames[unit]}`,
      format: (value: number) => value.toFixed(2),
      small: true,
      legend: "nowhere",
    },
  }));
}
