/** Charts of lines over tokens, by uPlot, each with a legend that shows the values under the pointer, or else the last ones. */
import type { default as UPlot } from "uplot";
import { h } from "./dom.ts";
import { formatCount, significant } from "./format.ts";
import { offWidth, onWidth, theme } from "./screen.ts";

declare const uPlot: typeof UPlot;

export interface Line {
  readonly label: string;
  readonly colour: string;
  readonly dash?: readonly number[];
  /** Tokens, ascending. */
  readonly tokens: readonly number[];
  /** Values; NaN: none. */
  readonly values: readonly number[];
  /** How far the band extends above and below; null or NaN: none. */
  readonly band?: readonly (number | null)[];
}

export interface ChartOptions {
  readonly height: number;
  /** What the numbers are, for the axis and for screen readers. */
  readonly title: string;
  readonly format: (value: number) => string;
  /** Formats ticks of the axis, if `format` is too long for them. Default: three significant digits. */
  readonly tick?: (value: number) => string;
  /** How `band` is drawn: as an area along the line (default), or as a bar at each point, for lines where not every point has one. */
  readonly spread?: "area" | "bars";
  /** A horizontal line with a label. */
  readonly level?: { readonly at: number; readonly label: string; readonly colour: string };
  /** Position of the legend. "nowhere" if the names are shown elsewhere. Default "below". */
  readonly legend?: "below" | "beside" | "nowhere";
  /** Stacks the lines, the first at the bottom, and fills them; `values` are the parts. */
  readonly stacked?: boolean;
  /** Uses fewer ticks, for small charts. */
  readonly small?: boolean;
  /** Start of the shown part of the tokens, as a share of all. */
  readonly from?: number;
  /** Points to mark, for example where a line crosses a level. */
  readonly marks?: readonly { readonly tokens: number; readonly value: number; readonly colour: string }[];
}

export interface Chart {
  readonly element: HTMLElement;
  destroy(): void;
}

/** All lines at all tokens of any of them; null where a line has no point. */
function align(lines: readonly Line[]): { tokens: number[]; at: (line: Line) => Map<number, number> } {
  const tokens = [...new Set(lines.flatMap((line) => line.tokens))].sort((a, b) => a - b);
  return { tokens, at: (line) => new Map(line.tokens.map((token, i) => [token, i])) };
}

type Column = (number | null)[];

interface Columns {
  readonly tokens: number[];
  /** The drawn columns; the legend shows their values. */
  readonly drawn: readonly Column[];
  readonly shown: readonly Column[];
  /** Ends of the bands, for lines that have one. */
  readonly bands: readonly { readonly line: number; readonly low: Column; readonly high: Column }[];
}

const known = (value: number | null | undefined): number | null =>
  value === null || value === undefined || Number.isNaN(value) ? null : value;

function columnsOf(lines: readonly Line[], stacked: boolean): Columns {
  const { tokens, at } = align(lines);
  const shown = lines.map((line) => {
    const places = at(line);
    return tokens.map((token) => known(line.values[places.get(token) ?? -1]));
  });
  if (stacked) {
    const sums = tokens.map(() => 0);
    return {
      tokens,
      shown,
      drawn: shown.map((column) => column.map((value, i) => (sums[i]! += value ?? 0))),
      bands: [],
    };
  }
  const bands = lines.flatMap((line, i) => {
    const { band } = line;
    if (band === undefined || band.every((value) => known(value) === null)) return [];
    const places = at(line);
    const own = shown[i]!;
    const ends = (sign: number): Column =>
      tokens.map((token, j) => {
        const [middle, half] = [known(own[j]), known(band[places.get(token) ?? -1])];
        return middle === null || half === null ? null : middle + sign * half;
      });
    return [{ line: i, low: ends(-1), high: ends(1) }];
  });
  return { tokens, shown, drawn: shown, bands };
}

/** A chart that fills the width of its container. */
export function chart(lines: readonly Line[], options: ChartOptions): Chart {
  const columns = columnsOf(lines, options.stacked === true);
  const host = h("div", { class: "plot", role: "img", "aria-label": describe(lines, options) });
  const legend = options.legend === "nowhere" ? null : legendOf(lines, options);
  const element = h(
    "div",
    { class: options.legend === "beside" ? "chart beside" : "chart" },
    host,
    legend?.element ?? null,
  );
  legend?.tell(columns.shown.map(lastOf));
  let plot: UPlot | null = null;
  onWidth(host, (width) => {
    if (width === 0) return;
    if (plot === null) plot = draw(host, width, lines, columns, options, legend);
    else plot.setSize({ width, height: options.height });
  });
  return {
    element,
    destroy() {
      offWidth(host);
      plot?.destroy();
    },
  };
}

function lastOf(column: Column): number | null {
  return column.findLast((value) => value !== null) ?? null;
}

function describe(lines: readonly Line[], { title, format }: ChartOptions): string {
  const ends = lines.slice(0, 12).map(({ label, values }) => {
    const last = values.findLast((value) => !Number.isNaN(value));
    return `${label} ends at ${last === undefined ? "no value" : format(last)}`;
  });
  return `${title} against tokens: ${ends.join("; ")}`;
}

interface Legend {
  readonly element: HTMLElement;
  tell(values: readonly (number | null)[]): void;
}

/** The legend, in the order of the lines; for stacked lines the highest first, as they are drawn. */
function legendOf(lines: readonly Line[], { format, stacked = false }: ChartOptions): Legend {
  const values = lines.map(() => h("span", { class: "value" }));
  const items = lines.map((line, i) =>
    h(
      "li",
      {},
      swatch(line, stacked),
      h("span", { class: "name", title: line.label }, line.label),
      values[i]!,
    ),
  );
  return {
    element: h("ul", { class: "legend" }, stacked ? items.reverse() : items),
    tell(readValues) {
      readValues.forEach((value, i) => (values[i]!.textContent = value === null ? "–" : format(value)));
    },
  };
}

/** A sample of the line, or of the area. */
export function swatch({ colour, dash = [] }: Pick<Line, "colour" | "dash">, area = false): Node {
  const make = (tag: string, attributes: Readonly<Record<string, string>>): Element => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const svg = make("svg", {
    class: "swatch",
    viewBox: "0 0 26 10",
    width: "26",
    height: "10",
    "aria-hidden": "true",
  });
  svg.append(
    area
      ? make("rect", { width: "14", height: "10", x: "6", fill: colour })
      : make("line", {
          x1: "0",
          x2: "26",
          y1: "5",
          y2: "5",
          stroke: colour,
          "stroke-width": "2.5",
          "stroke-dasharray": dash.join(" "),
        }),
  );
  return svg;
}

function draw(
  host: HTMLElement,
  width: number,
  lines: readonly Line[],
  columns: Columns,
  options: ChartOptions,
  legend: Legend | null,
): UPlot {
  const stacked = options.stacked === true;
  // The highest of stacked lines is drawn first, and the lower ones over it.
  const order = stacked ? [...lines.keys()].reverse() : [...lines.keys()];
  const series: UPlot.Series[] = [
    {},
    ...order.map((i) => seriesOf(lines[i]!, columns.drawn[i]!, stacked)),
    ...columns.bands.flatMap(() => [hidden, hidden]),
  ];
  const data = [
    columns.tokens,
    ...order.map((i) => columns.drawn[i]),
    ...columns.bands.flatMap(({ low, high }) => [high, low]),
  ] as UPlot.AlignedData;
  const last = columns.shown.map(lastOf);
  return new uPlot(
    {
      width,
      height: options.height,
      series,
      bands:
        options.spread === "bars"
          ? []
          : columns.bands.map(({ line }, i) => ({
              series: [lines.length + 1 + 2 * i, lines.length + 2 + 2 * i],
              fill: translucent(lines[line]!.colour),
            })),
      legend: { show: false },
      padding: [10, 14, 0, 0],
      cursor: { points: { show: !stacked }, y: false, drag: { x: options.small !== true, y: false } },
      scales: {
        x: { time: false, range: rangeOfTokens(columns.tokens, options.from) },
        y: { range: rangeOfValues(options) },
      },
      axes: axesOf(options),
      hooks: {
        drawAxes: [(plot) => options.spread === "bars" && drawBars(plot, lines, columns)],
        draw: [(plot) => drawMarks(plot, options)],
        setCursor: [
          ({ cursor: { idx } }) =>
            legend?.tell(
              idx === null || idx === undefined
                ? last
                : columns.shown.map((column) => nearestTo(column, columns.tokens, idx)),
            ),
        ],
      },
    },
    data,
    host,
  );
}

const hidden: UPlot.Series = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };

function seriesOf({ label, colour, dash = [] }: Line, column: Column, stacked: boolean): UPlot.Series {
  // The border has the same colour, since thin areas would vanish between other lines.
  if (stacked) return { label, stroke: colour, width: 0.5, fill: colour, points: { show: false } };
  // A few points are drawn as points; a single one is not a line.
  const few = column.filter((value) => value !== null).length <= 12;
  return {
    label,
    stroke: colour,
    width: 2,
    dash: [...dash],
    spanGaps: true,
    points: { show: few, size: 6, fill: colour, stroke: colour, width: 0 },
  };
}

/** The value of a column nearest to a position in tokens. */
function nearestTo(column: Column, tokens: readonly number[], place: number): number | null {
  let best: number | null = null;
  let distance = Infinity;
  column.forEach((value, i) => {
    const far = Math.abs(tokens[i]! - tokens[place]!);
    if (value !== null && far < distance) [best, distance] = [value, far];
  });
  return best;
}

function rangeOfTokens(tokens: readonly number[], from = 0): UPlot.Range.Function {
  const most = tokens.at(-1) ?? 1;
  return (_, low, high) => {
    // A zoomed view keeps its range; the full view starts at 0.
    const all = low === null || (low <= tokens[0]! && high >= most);
    return all ? [most * from, Math.max(most, 1)] : [low, high];
  };
}

function rangeOfValues({ stacked = false, level }: ChartOptions): UPlot.Range.Function {
  return (_, low, high) => {
    if (stacked) return [0, 1];
    if (low === null || high === null) return [0, 1];
    const [least, most] = [Math.min(low, level?.at ?? low), Math.max(high, level?.at ?? high)];
    const room = (most - least || Math.abs(most) * 0.1 || 1) * 0.06;
    return [least === 0 ? 0 : least - room, most + room];
  };
}

function axesOf({ tick = (value) => significant(value, 3), small = false }: ChartOptions): UPlot.Axis[] {
  const { muted, rule } = theme();
  const font = `${small ? 11 : 12}px system-ui, sans-serif`;
  const common: UPlot.Axis = {
    stroke: muted,
    font,
    grid: { stroke: rule, width: 1 },
    ticks: { show: false },
  };
  return [
    {
      ...common,
      grid: { show: false },
      space: small ? 56 : 70,
      size: small ? 22 : 26,
      gap: 6,
      values: (_, splits) => splits.map((value) => formatCount(value)),
      ...(small ? {} : { label: "tokens", labelSize: 20, labelGap: 0, labelFont: font }),
    },
    {
      ...common,
      space: small ? 28 : 36,
      size: (_, values) =>
        Math.max(34, ...(values ?? []).map((text) => text.length * (small ? 6.2 : 7) + 12)),
      gap: 6,
      values: (_, splits) => splits.map((value) => tick(value)),
    },
  ];
}

/** Draws bars from the lower to the upper end at each point, behind the lines. */
function drawBars(plot: UPlot, lines: readonly Line[], { tokens, bands }: Columns): void {
  const { ctx } = plot;
  ctx.save();
  ctx.lineWidth = 2 * uPlot.pxRatio;
  ctx.globalAlpha = 0.4;
  for (const { line, low, high } of bands) {
    ctx.strokeStyle = lines[line]!.colour;
    ctx.beginPath();
    tokens.forEach((token, i) => {
      const [from, to] = [known(low[i]), known(high[i])];
      if (from === null || to === null) return;
      const x = plot.valToPos(token, "x", true);
      ctx.moveTo(x, plot.valToPos(from, "y", true));
      ctx.lineTo(x, plot.valToPos(to, "y", true));
    });
    ctx.stroke();
  }
  ctx.restore();
}

function drawMarks(plot: UPlot, { level, marks = [] }: ChartOptions): void {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  ctx.save();
  if (level !== undefined) {
    const y = plot.valToPos(level.at, "y", true);
    ctx.strokeStyle = level.colour;
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.fillStyle = level.colour;
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "bottom";
    ctx.fillText(level.label, bbox.left + 4 * ratio, y - 2 * ratio);
  }
  for (const { tokens, value, colour } of marks) {
    const [x, y] = [plot.valToPos(tokens, "x", true), plot.valToPos(value, "y", true)];
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
    ctx.lineWidth = 2 * ratio;
    ctx.strokeStyle = colour;
    ctx.fillStyle = theme().background;
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}

function translucent(colour: string): string {
  return `${colour}2e`;
}
