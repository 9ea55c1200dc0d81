/** The page's figures as separate SVG files, for papers and slides. Pure. */
import { axisAround, type Axis, drawPanels, evenAxis, type Panel, type Point, type Series } from "./chart.ts";
import type { GroupData, LossCurves, PageData, RunData } from "./page-data.ts";
import { formatCount } from "./page/format.ts";
import { unpackFloats, unpackWeights } from "./page/packing.ts";
import { domainColour, light, runStroke } from "./page/theme.ts";

/** Number of panels of domains per file. */
const PANELS = 12;

/** Files by name. Runs with the same name are distinguished by their position. */
export function figuresOf(data: PageData): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  const add = (name: string, panels: readonly (Panel | null)[], columns: number): void => {
    const known = panels.filter((panel) => panel !== null);
    if (known.length > 0) files.set(`${name}.svg`, drawPanels(known, columns));
  };
  add(
    "loss",
    [
      lossPanel(data.groups, "Held-out loss on the target", ({ target }) => target),
      lossPanel(data.groups, "Training loss, each on its own mixture", ({ training }) => training),
    ],
    2,
  );
  const evaluated = new Set(data.groups.flatMap(({ domains }) => domains.map(({ domain }) => domain)));
  const shown = [...new Set([...data.heaviest, ...evaluated])].filter((domain) => evaluated.has(domain));
  add(
    "domains",
    shown
      .slice(0, PANELS)
      .map((domain) =>
        lossPanel(
          data.groups,
          data.names[domain]!,
          ({ domains }) => domains.find((one) => one.domain === domain)?.loss ?? null,
        ),
      ),
    3,
  );
  data.runs.forEach((run, i) => {
    const name = data.runs.length === 1 ? "" : `-${i + 1}-${run.name.replaceAll(/[^\p{L}\p{N}._-]+/gu, "_")}`;
    add(`weights${name}`, [weightsPanel(data, run)], 1);
    add(`alignments${name}`, alignmentPanels(data, run), 3);
  });
  return files;
}

function tokensAxis(most: number): Axis {
  return evenAxis(0, Math.max(1, most), formatCount);
}

function lossPanel(
  groups: readonly GroupData[],
  title: string,
  of: (group: GroupData) => LossCurves | null,
): Panel | null {
  const series = groups.flatMap((group, i): Series[] => {
    const curves = of(group);
    if (curves === null) return [];
    const { mean, band } = curves.nats;
    const points = curves.tokens.map((x, j): Point => {
      const half = band[j] ?? null;
      return { x, y: mean[j]!, ...(half === null ? {} : { low: mean[j]! - half, high: mean[j]! + half }) };
    });
    return [
      { name: group.label, points, mark: points.length > 12 ? "line" : "dotted", ...runStroke(light, i) },
    ];
  });
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return null;
  return {
    title,
    x: tokensAxis(Math.max(...points.map(({ x }) => x))),
    xLabel: "tokens",
    y: axisAround(points.flatMap(({ y, low = y, high = y }) => [y, low, high])),
    yLabel: "nats per token",
    series,
  };
}

function weightsPanel({ names, heaviest }: PageData, run: RunData): Panel | null {
  const { rows, tokens, values } = run.weights;
  if (tokens.length === 0) return null;
  const weights = unpackWeights(values);
  const lower = tokens.map(() => 0);
  const area = (name: string, colour: string, ink: string, of: (column: number) => number): Series => ({
    name,
    colour,
    ink,
    spread: "area",
    points: tokens.map((x, i) => {
      const low = lower[i]!;
      lower[i] = Math.min(1, low + of(i));
      return { x, y: (low + lower[i]) / 2, low, high: lower[i] };
    }),
  });
  const series = heaviest.flatMap((name, rank) => {
    const row = rows.indexOf(name);
    if (row < 0) return [];
    const known = (column: number): number => weights[row * tokens.length + column]!;
    return [
      area(names[name]!, domainColour(light, rank, "area"), domainColour(light, rank, "line"), (i) =>
        Number.isNaN(known(i)) ? 0 : known(i),
      ),
    ];
  });
  const others = (run.mixes === "domains" ? run.domains.length : rows.length) - series.length;
  return {
    title: `Weights of the ${run.mixes}, ${run.name}`,
    x: tokensAxis(tokens[tokens.length - 1]!),
    xLabel: "tokens",
    y: evenAxis(0, 1, (value) => `${100 * value} %`),
    yLabel: "share of the batches",
    series:
      others > 0
        ? [...series, area(`${others} others`, light.others, light.muted, (i) => 1 - lower[i]!)]
        : series,
  };
}

function alignmentPanels({ names, heaviest }: PageData, { alignments, name: run }: RunData): Panel[] {
  if (alignments === null) return [];
  const { rows, tokens } = alignments;
  const [values, errors] = [unpackFloats(alignments.values), unpackFloats(alignments.errors)];
  return rows.slice(0, PANELS).map((name, row) => {
    const points = tokens.flatMap((x, i): Point[] => {
      const at = row * tokens.length + i;
      const [y, error] = [values[at]!, errors[at]!];
      if (Number.isNaN(y)) return [];
      return [{ x, y, ...(Number.isNaN(error) ? {} : { low: y - 2 * error, high: y + 2 * error }) }];
    });
    return {
      title: names[name]!,
      x: tokensAxis(tokens[tokens.length - 1]!),
      xLabel: "tokens",
      y: axisAround([0, ...points.flatMap(({ y, low = y, high = y }) => [y, low, high])]),
      yLabel: `alignment ± 2 standard errors, ${run}`,
      series: [
        {
          name: "",
          points,
          spread: "bar",
          mark: "dotted",
          colour: domainColour(light, heaviest.indexOf(name), "line"),
        },
      ],
    };
  });
}
