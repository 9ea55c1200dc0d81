/** Where the tokens of one run went: requested and trained shares, and repetitions against their cap. */
import type { DomainData, RunData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatCount, formatShare, significant } from "./format.ts";
import { type Chart, chart, type Line } from "./lines.ts";
import { unpackFloats } from "./packing.ts";
import { theme } from "./screen.ts";
import { nameColour, type Part, rowOf, runOf, type View } from "./view.ts";

/** Number of bars and of lines of epochs; the table has all. */
const BARS = 16;
const EPOCH_LINES = 12;

export function tokensPart(): Part {
  const shares = h("figure", { "data-figure": "shares" });
  const epochs = h("figure", { "data-figure": "epochs" });
  let drawn: Chart | null = null;
  return {
    element: section("tokens", "Tokens and epochs", h("div", { class: "pair" }, shares, epochs)),
    show(view) {
      const run = runOf(view);
      shares.replaceChildren(...sharesOf(run, view.data.names));
      drawn?.destroy();
      drawn = epochsOf(view);
      epochs.replaceChildren(
        h("figcaption", {}, "Epochs: how often each domain's text was read"),
        drawn.element,
        h("p", { class: "note" }, capSentence(run, view.data.names)),
      );
    },
  };
}

function sharesOf({ domains, tokens }: RunData, names: readonly string[]): HTMLElement[] {
  const achieved = (domain: DomainData): number => (tokens === 0 ? 0 : domain.tokens / tokens);
  const known = domains.flatMap((domain) =>
    domain.averaged === null ? [] : [{ domain, requested: domain.averaged, achieved: achieved(domain) }],
  );
  const caption = h("figcaption", {}, "Share of the tokens: requested, and trained on");
  if (known.length === 0)
    return [caption, h("p", { class: "note" }, "The requested shares are known when the run has ended.")];
  const rows = [...known].sort(
    (one, other) => other.requested - one.requested || other.achieved - one.achieved,
  );
  const most = Math.max(...rows.flatMap(({ requested, achieved }) => [requested, achieved]));
  const widest = rows.reduce((one, other) =>
    Math.abs(other.requested - other.achieved) > Math.abs(one.requested - one.achieved) ? other : one,
  );
  const percent = (value: number): string => `${((100 * value) / most).toFixed(2)}%`;
  return [
    caption,
    h(
      "div",
      { class: "bars" },
      rows
        .slice(0, BARS)
        .map(({ domain, requested, achieved }) =>
          h(
            "div",
            { class: "bar-row" },
            h("span", { class: "name", title: names[domain.domain]! }, names[domain.domain]!),
            h(
              "span",
              { class: "track" },
              h("span", { class: "bar", style: `width: ${percent(achieved)}` }),
              h("span", { class: "tick", style: `left: ${percent(requested)}` }),
            ),
            h("span", { class: "value" }, `${formatShare(requested)} → ${formatShare(achieved)}`),
          ),
        ),
    ),
    h(
      "p",
      { class: "note" },
      `Bars show the tokens trained on, ticks the requested shares (the mean weights). The difference is largest for ${names[widest.domain.domain]}: ${formatShare(widest.requested)} requested, ${formatShare(widest.achieved)} trained on.`,
      rows.length > BARS ? ` The table below has the other ${rows.length - BARS}.` : "",
    ),
  ];
}

function epochsOf(view: View): Chart {
  const run = runOf(view);
  const { rows, tokens, values } = run.epochs;
  const epochs = unpackFloats(values);
  const shown = rows.slice(0, EPOCH_LINES);
  const lines = shown.map((name, i): Line => ({
    label: view.data.names[name]!,
    colour: nameColour(view.data, name, "line"),
    tokens,
    values: rowOf(epochs, tokens.length, i),
  }));
  const { warning } = theme();
  const cap = run.cap;
  return chart(lines, {
    height: 300,
    title: "Epochs",
    legend: "beside",
    format: (value) => significant(value, 3),
    ...(cap === null || !nearCap(lines, cap)
      ? {}
      : { level: { at: cap, label: `limit: ${epochsText(cap)}`, colour: warning } }),
    marks: shown.flatMap((name) => {
      const passed = run.domains.find(({ domain }) => domain === name)?.passed ?? null;
      return passed === null || cap === null ? [] : [{ tokens: passed, value: cap, colour: warning }];
    }),
  });
}

/** A cap far above all lines would compress them, so it is then only given in the sentence below the chart. */
function nearCap(lines: readonly Line[], cap: number): boolean {
  return Math.max(...lines.flatMap(({ values }) => values)) > cap / 10;
}

function capSentence({ cap, domains }: RunData, names: readonly string[]): string {
  if (cap === null) return "The rule does not limit repetitions.";
  const passed = domains.filter((domain) => domain.passed !== null);
  if (passed.length === 0) {
    const most = domains.reduce((one, other) => (epochsIn(other) > epochsIn(one) ? other : one));
    const closest =
      most.tokens === 0 ? "" : `; ${names[most.domain]} comes closest with ${significant(epochsIn(most), 3)}`;
    return `No domain is above the limit of ${epochsText(cap)}${closest}.`;
  }
  const places = passed
    .slice(0, 8)
    .map(({ domain, passed }) => `${names[domain]} (at ${formatCount(passed ?? 0)} tokens)`);
  const rest = passed.length > 8 ? ` and ${passed.length - 8} more` : "";
  return `Above the limit of ${epochsText(cap)}: ${places.join(", ")}${rest}.`;
}

function epochsText(count: number): string {
  return `${significant(count, 3)} ${count === 1 ? "epoch" : "epochs"}`;
}

export function epochsIn({ tokens, sampled }: DomainData): number {
  return sampled === 0 ? 0 : tokens / sampled;
}
