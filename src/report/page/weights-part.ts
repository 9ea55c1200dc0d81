/** The mixture of one run over time: areas, a heat map, alignments. */
import type { RunData } from "../page-data.ts";
import { h, section } from "./dom.ts";
import { formatShare, significant } from "./format.ts";
import { type HeatMap, heatMap } from "./heat-map.ts";
import { type Chart, chart, type Line } from "./lines.ts";
import { multiples, type Panel, searchBox } from "./multiples.ts";
import { unpackFloats, unpackWeights } from "./packing.ts";
import { theme } from "./screen.ts";
import { domainColour } from "./theme.ts";
import { nameColour, type Part, rowOf, runLabel, runOf, type View } from "./view.ts";

export function weightsPart(): Part {
  const area = h("figure", { "data-figure": "weights" });
  const heatPlace = h("div");
  const heatTitle = h("h3", {}, "");
  const heatNote = h("p", { class: "note" });
  const aligned = multiples("Search an alignment");
  const alignedBlock = h(
    "div",
    {},
    h("h3", {}, "Alignment with the target"),
    h(
      "p",
      { class: "note" },
      "How much a step on the text of a domain lowers the target's loss, measured at updates of the weights. Bars are ± two standard errors, if they are known.",
    ),
    aligned.element,
  );
  const noAlignments = h("p", { class: "note" });
  let drawn: { chart: Chart; map: HeatMap } | null = null;
  let last: View | null = null;
  let query = "";
  const search = searchBox("Search the heat map", (text) => {
    query = text.toLowerCase();
    if (last !== null) showHeat(last);
  });
  const showHeat = (view: View): void => {
    drawn?.map.destroy();
    const map = heatOf(view, query);
    heatPlace.replaceChildren(map.element);
    if (drawn !== null) drawn = { ...drawn, map };
  };
  return {
    element: section(
      "weights",
      "Weights over time",
      area,
      heatTitle,
      heatNote,
      search,
      heatPlace,
      alignedBlock,
      noAlignments,
    ),
    show(view) {
      last = view;
      drawn?.chart.destroy();
      drawn?.map.destroy();
      const run = runOf(view);
      const stack = chart(stackOf(view), {
        height: 340,
        title: "Weights",
        format: formatShare,
        tick: (value) => `${Math.round(100 * value)} %`,
        stacked: true,
        legend: "beside",
      });
      const map = heatOf(view, query);
      drawn = { chart: stack, map };
      const of = view.data.runs.length > 1 ? `: ${runLabel(view.data, view.run)}` : "";
      area.replaceChildren(
        h("figcaption", {}, `Weights of the heaviest ${run.mixes}, as shares of the batches${of}`),
        stack.element,
      );
      heatPlace.replaceChildren(map.element);
      const [kept, all] = [run.weights.rows.length, countOf(run)];
      heatTitle.textContent = `Every ${run.mixes === "domains" ? "domain" : "basis"}, against the uniform weight`;
      // Before its first step, a run has no weights.
      heatNote.hidden = kept === all || kept === 0;
      heatNote.textContent = `${kept.toLocaleString("en")} of ${all.toLocaleString("en")}: a run with many domains keeps only the weights of the heaviest at every step. The table below has all.`;
      search.hidden = run.weights.rows.length < 13;
      const panels = alignmentPanels(view);
      alignedBlock.hidden = panels.length === 0;
      noAlignments.hidden = panels.length > 0;
      // A rule that measures alignments has none before its first update.
      noAlignments.textContent = `No alignments were measured${run.state === "done" ? "" : " so far"}.`;
      aligned.show(panels);
    },
  };
}

/** The names with colours, from the bottom up, and the others as the rest to 1. */
function stackOf(view: View): Line[] {
  const { data } = view;
  const { rows, tokens, values } = runOf(view).weights;
  const weights = unpackWeights(values);
  const lines = data.heaviest.flatMap((name, rank) => {
    const row = rows.indexOf(name);
    if (row < 0) return [];
    const own = rowOf(weights, tokens.length, row).map((value) => (Number.isNaN(value) ? 0 : value));
    return [{ label: data.names[name]!, colour: domainColour(theme(), rank, "area"), tokens, values: own }];
  });
  const count = countOf(runOf(view));
  if (count <= lines.length) return lines;
  const left = tokens.map((_, i) => Math.max(0, 1 - lines.reduce((sum, line) => sum + line.values[i]!, 0)));
  return [
    ...lines,
    { label: `${count - lines.length} others`, colour: theme().others, tokens, values: left },
  ];
}

/** Number of domains or bases, whichever have the weights. */
function countOf({ mixes, domains, weights }: RunData): number {
  return mixes === "domains" ? domains.length : weights.rows.length;
}

function heatOf(view: View, query: string): HeatMap {
  const run = runOf(view);
  const { rows, tokens, values } = run.weights;
  const weights = unpackWeights(values);
  const all = rows.map((name, i) => ({
    name: view.data.names[name]!,
    values: rowOf(weights, tokens.length, i),
  }));
  const found = all.filter(({ name }) => name.toLowerCase().includes(query));
  if (found.length > 0) return heatMap(found, tokens, countOf(run));
  const reason = all.length === 0 ? "No step is complete so far." : "No name contains this text.";
  return { element: h("p", { class: "readout" }, reason), destroy: () => {} };
}

function alignmentPanels(view: View): Panel[] {
  const { alignments } = runOf(view);
  if (alignments === null) return [];
  const { rows, tokens } = alignments;
  const [values, errors] = [unpackFloats(alignments.values), unpackFloats(alignments.errors)];
  return rows.map((name, i) => ({
    name: view.data.names[name]!,
    lines: [
      {
        label: view.data.names[name]!,
        colour: nameColour(view.data, name, "line"),
        tokens,
        values: rowOf(values, tokens.length, i),
        band: rowOf(errors, tokens.length, i).map((error) => 2 * error),
      },
    ],
    options: {
      height: 130,
      title: `Alignment of ${view.data.names[name]}`,
      format: (value: number) => significant(value, 2),
      spread: "bars",
      small: true,
      legend: "nowhere",
      level: { at: 0, label: "", colour: theme().muted },
    },
  }));
}
