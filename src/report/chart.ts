/** Charts as SVG: panels beside each other, each with lines over one axis. Pure functions; equal input gives equal text. */

export interface Tick {
  readonly at: number;
  readonly text: string;
}

export interface Axis {
  readonly low: number;
  readonly high: number;
  /** Whether the axis is logarithmic. */
  readonly log?: boolean;
  readonly ticks: readonly Tick[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
  /** Ends of an interval around y. */
  readonly low?: number;
  readonly high?: number;
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** How a series is drawn: as a line (default), a line with dots, or dots alone. */
  readonly mark?: "line" | "dotted" | "dots";
  /** How intervals are drawn: shaded along the line (default), as a bar at each point, or filled without a line, as one of several stacked areas. */
  readonly spread?: "band" | "bar" | "area";
  /** Colour of the line. Default: the next of `colours`. */
  readonly colour?: string;
  /** Colour of the name beside the line, which needs more contrast than an area. Default: `colour`. */
  readonly ink?: string;
  /** Lengths of strokes and gaps. Default: a solid line. */
  readonly dash?: readonly number[];
}

export interface Panel {
  readonly title: string;
  readonly x: Axis;
  readonly xLabel: string;
  readonly y: Axis;
  readonly yLabel: string;
  readonly series: readonly Series[];
}

export const colours: readonly string[] = [
  "#4269d0",
  "#efb118",
  "#ff725c",
  "#6cc5b0",
  "#3ca951",
  "#ff8ab7",
  "#a463f2",
  "#97bbf5",
  "#9c6b4e",
  "#9498a0",
  "#1f1f1f",
];
/** Sizes in pixels of the plot and its margins. */
const size = { width: 380, height: 230, left: 56, top: 44, right: 54, bottom: 56, letter: 7.7 };

/** Ticks at four equal steps from `low` to `high`. */
export function evenAxis(low: number, high: number, text: (value: number) => string): Axis {
  return {
    low,
    high,
    ticks: Array.from({ length: 5 }, (_, i) => low + ((high - low) * i) / 4).map((at) => ({
      at,
      text: text(at),
    })),
  };
}

/** An axis with four to nine round ticks that extends a little beyond the values. */
export function axisAround(values: readonly number[]): Axis {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (!Number.isFinite(least) || !Number.isFinite(most)) return axisAround([0, 1]);
  const range = Math.max(most - least, 0.05);
  const power = 10 ** Math.floor(Math.log10(range / 4));
  const step = [1, 2, 5, 10].map((n) => n * power).find((one) => range / one <= 7) ?? range;
  // Series that start at 0 need no room below it.
  const first = least === 0 ? 0 : Math.floor((least - range * 0.03) / step);
  const last = Math.ceil((most + range * 0.03) / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step).map((at) => ({
    at,
    text: at.toFixed(digits).replace("-", "−"),
  }));
  return { low: first * step, high: last * step, ticks };
}

/** An axis of steps that starts at 0. */
export function stepAxis(steps: number): Axis {
  return evenAxis(0, Math.max(1, steps), (value) => String(Math.round(value)));
}

/** A logarithmic axis with these values as ticks. */
export function logAxis(values: readonly number[], text: (value: number) => string = String): Axis {
  return {
    low: Math.min(...values),
    high: Math.max(...values),
    log: true,
    ticks: values.map((at) => ({ at, text: text(at) })),
  };
}

/** An axis with names at 0, 1, 2, …. */
export function nameAxis(names: readonly string[]): Axis {
  return { low: -0.5, high: names.length - 0.5, ticks: names.map((text, at) => ({ at, text })) };
}

/** Widest figure that a page of text shows without making it smaller, in px. */
const MOST_WIDTH = 1000;

function widthOf({ series }: Panel): number {
  const longest = Math.max(0, ...series.map(({ name }) => name.length));
  return size.left + size.width + Math.max(size.right, longest * size.letter + 16);
}

/** Draws panels in rows of `columns`; by default two, or one if the names of the series are too long for two. */
export function drawPanels(
  panels: readonly Panel[],
  columns: number = 2 * Math.max(0, ...panels.map(widthOf)) <= MOST_WIDTH ? 2 : 1,
): string {
  const widths = panels.map(widthOf);
  const height = size.top + size.height + size.bottom;
  const rows = Math.ceil(panels.length / columns);
  const total = Math.ceil(
    Math.max(
      ...Array.from({ length: rows }, (_, row) =>
        widths.slice(row * columns, (row + 1) * columns).reduce((sum, width) => sum + width, 0),
      ),
    ),
  );
  const drawn = panels.map((panel, i) => {
    const row = Math.floor(i / columns);
    const left = widths.slice(row * columns, i).reduce((sum, width) => sum + width, size.left);
    return drawPanel(panel, left, row * height + size.top);
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${rows * height}" width="${total}" height="${rows * height}" font-family="system-ui, sans-serif" font-size="12">
<rect width="${total}" height="${rows * height}" fill="#ffffff"/>
${drawn.join("\n")}
</svg>
`;
}

function drawPanel({ title, x, xLabel, y, yLabel, series }: Panel, left: number, top: number): string {
  const across = (value: number): number => left + share(x, value) * size.width;
  const up = (value: number): number => top + (1 - Math.max(0, Math.min(1, share(y, value)))) * size.height;
  const bottom = top + size.height;
  const out: string[] = [
    `<text x="${left}" y="${top - 22}" font-weight="600" font-size="14">${escapeText(title)}</text>`,
    `<text x="${left}" y="${top - 7}" fill="#666">${escapeText(yLabel)}</text>`,
  ];
  for (const { at, text } of y.ticks)
    out.push(
      `<line x1="${left}" x2="${left + size.width}" y1="${px(up(at))}" y2="${px(up(at))}" stroke="#e5e5e5"/>`,
      `<text x="${left - 6}" y="${px(up(at) + 4)}" text-anchor="end" fill="#666">${escapeText(text)}</text>`,
    );
  for (const { at, text } of x.ticks)
    out.push(
      `<text x="${px(across(at))}" y="${bottom + 18}" text-anchor="middle" fill="#666">${escapeText(text)}</text>`,
    );
  out.push(
    `<text x="${left + size.width / 2}" y="${bottom + 36}" text-anchor="middle" fill="#666">${escapeText(xLabel)}</text>`,
  );
  const coloured = series.map((one, i) => ({ ...one, colour: one.colour ?? colours[i % colours.length]! }));
  for (const one of coloured) out.push(...spreadOf(one, across, up));
  for (const one of coloured) out.push(...markOf(one, across, up));
  for (const { name, colour, height } of labelsOf(coloured, up, bottom))
    out.push(
      `<text x="${left + size.width + 8}" y="${px(height + 4)}" fill="${colour}" font-weight="600">${escapeText(name)}</text>`,
    );
  return out.join("\n");
}

interface Coloured extends Series {
  readonly colour: string;
}
type Place = (value: number) => number;

function spreadOf({ points, spread = "band", colour }: Coloured, across: Place, up: Place): string[] {
  const known = points.flatMap(({ x, low, high }) =>
    low === undefined || high === undefined ? [] : [{ x: across(x), low: up(low), high: up(high) }],
  );
  if (spread === "bar")
    return known.map(
      ({ x, low, high }) =>
        `<line x1="${px(x)}" x2="${px(x)}" y1="${px(low)}" y2="${px(high)}" stroke="${colour}" stroke-opacity="0.5" stroke-width="2"/>`,
    );
  if (known.length < 2) return [];
  const outline = [
    ...known.map(({ x, high }) => `${px(x)},${px(high)}`),
    ...known.reverse().map(({ x, low }) => `${px(x)},${px(low)}`),
  ];
  const opacity = spread === "area" ? "" : ` fill-opacity="0.15"`;
  return [`<polygon points="${outline.join(" ")}" fill="${colour}"${opacity}/>`];
}

function markOf(
  { points, mark = "line", spread, colour, dash = [] }: Coloured,
  across: Place,
  up: Place,
): string[] {
  if (spread === "area") return [];
  const line = points.map(({ x, y }) => `${px(across(x))},${px(up(y))}`).join(" ");
  const dots = points.map(
    ({ x, y }) => `<circle cx="${px(across(x))}" cy="${px(up(y))}" r="3" fill="${colour}"/>`,
  );
  const path = `<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"${dash.length === 0 ? "" : ` stroke-dasharray="${dash.join(" ")}"`}/>`;
  return [...(mark === "dots" ? [] : [path]), ...(mark === "line" ? [] : dots)];
}

/** Places names at the ends of the lines and moves them apart if they overlap. */
function labelsOf(
  series: readonly Coloured[],
  up: Place,
  bottom: number,
): { name: string; colour: string; height: number }[] {
  const labels = series
    .flatMap(({ name, colour: own, ink: colour = own, points }) => {
      const end = points.at(-1);
      return end === undefined ? [] : [{ name, colour, height: up(end.y) }];
    })
    .sort((a, b) => a.height - b.height);
  let previousEnd = -Infinity;
  for (const label of labels) previousEnd = label.height = Math.max(label.height, previousEnd + 15);
  let next = bottom + 15;
  for (const label of labels.toReversed()) next = label.height = Math.min(label.height, next - 15);
  return labels;
}

function share({ low, high, log = false }: Axis, value: number): number {
  const scale = log ? Math.log : (x: number): number => x;
  return high === low ? 0.5 : (scale(value) - scale(low)) / (scale(high) - scale(low));
}

const px = (value: number): string => value.toFixed(1);

/** The text as XML: without the characters that it cannot contain, not even escaped. */
const escapeText = (text: string): string =>
  text
    .replaceAll(/[\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, "\uFFFD")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
