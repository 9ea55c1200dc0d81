/**
 * Weights of many domains over time as a picture: one row per domain, the largest weight at the top, one column per point in time. Drawn on a canvas,
 * because uPlot has no such chart.
 */
import { h } from "./dom.ts";
import { formatCount, formatShare, formatTimes, significant } from "./format.ts";
import { offWidth, onWidth, theme } from "./screen.ts";
import { heat } from "./theme.ts";

export interface HeatRow {
  readonly name: string;
  /** Values over time; NaN: unknown. */
  readonly values: readonly number[];
}

export interface HeatMap {
  readonly element: HTMLElement;
  destroy(): void;
}

/** Sizes in pixels. */
const rowHeights = { least: 1, most: 20, whole: 560, labelled: 11 } as const;

/** The logarithm of a weight relative to the uniform one, as a share of the colour scale: from a hundredth (or less) to a hundred times. */
function shade(weight: number, uniform: number, decades: Decades): number {
  return (Math.log10(weight / uniform) - decades.low) / (decades.high - decades.low);
}

interface Decades {
  readonly low: number;
  readonly high: number;
}

/** The powers of ten that enclose all weights relative to the uniform one; at most three of them below it. */
function decadesOf(rows: readonly HeatRow[], uniform: number): Decades {
  let [least, most] = [1, 1];
  for (const { values } of rows)
    for (const value of values)
      if (value > 0) {
        least = Math.min(least, value / uniform);
        most = Math.max(most, value / uniform);
      }
  const low = Math.max(-3, Math.floor(Math.log10(least) + 1e-9));
  return { low: Math.min(-1, low), high: Math.max(1, Math.ceil(Math.log10(most) - 1e-9)) };
}

/** Draws the map. `count` is the number of all names, so that the uniform weight is 1/count. */
export function heatMap(rows: readonly HeatRow[], tokens: readonly number[], count: number): HeatMap {
  const uniform = 1 / count;
  const decades = decadesOf(rows, uniform);
  const canvas = h("canvas", {}) as HTMLCanvasElement;
  const place = h(
    "div",
    {
      class: "heat",
      role: "img",
      "aria-label": `Weights of ${rows.length} domains over time; the table below has the weights at the end`,
    },
    canvas,
  );
  const readout = h("p", { class: "readout", "aria-live": "off" }, "Point at the picture to read a weight.");
  const height = Math.max(
    rowHeights.least,
    Math.min(rowHeights.most, rowHeights.whole / Math.max(1, rows.length)),
  );
  let gutter = 0;
  onWidth(place, (width) => {
    gutter = gutterOf(width, height);
    paint(canvas, { rows, tokens, uniform, decades, width, height, gutter });
  });
  canvas.addEventListener("pointermove", (event) => {
    const row = rows[Math.floor(event.offsetY / height)];
    const share = (event.offsetX - gutter) / (canvas.clientWidth - gutter);
    const last = tokens[tokens.length - 1]!;
    const column = columnAt(tokens, Math.max(0, Math.min(1, share)) * last);
    if (row === undefined) return;
    const value = row.values[column]!;
    const known = Number.isNaN(value)
      ? "not among the heaviest, whose weights are kept"
      : `${formatShare(value)}, ${formatTimes(value / uniform)} uniform`;
    readout.textContent = `${row.name} at ${formatCount(tokens[column]!)} tokens: ${known}`;
  });
  return {
    element: h(
      "div",
      {},
      h("div", { class: "heat-scroll" }, place),
      h("div", { class: "heat-foot" }, readout, scale(decades)),
    ),
    destroy: () => offWidth(place),
  };
}

/** Width for names at the left. */
function gutterOf(width: number, height: number): number {
  return height < rowHeights.labelled ? 0 : Math.min(190, Math.round(width * 0.3));
}

/** The last column that has started. */
function columnAt(tokens: readonly number[], at: number): number {
  const next = tokens.findIndex((token) => token > at);
  return next < 0 ? tokens.length - 1 : Math.max(0, next - 1);
}

interface Picture {
  readonly rows: readonly HeatRow[];
  readonly tokens: readonly number[];
  readonly uniform: number;
  readonly decades: Decades;
  readonly width: number;
  readonly height: number;
  readonly gutter: number;
}

function paint(canvas: HTMLCanvasElement, picture: Picture): void {
  const { rows, width, height, gutter } = picture;
  const ratio = devicePixelRatio;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(rows.length * height * ratio));
  canvas.style.height = `${rows.length * height}px`;
  const context = canvas.getContext("2d");
  if (context === null) return;
  const across = canvas.width - Math.round(gutter * ratio);
  const image = context.createImageData(Math.max(1, across), canvas.height);
  fill(image, picture);
  context.putImageData(image, canvas.width - across, 0);
  if (gutter === 0) return;
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.fillStyle = theme().ink;
  context.textBaseline = "middle";
  rows.forEach(({ name }, i) =>
    context.fillText(fitting(context, name, (gutter - 8) * ratio), 0, (i + 0.5) * height * ratio),
  );
}

function fill({ data, width, height }: ImageData, { rows, tokens, uniform, decades }: Picture): void {
  const last = tokens[tokens.length - 1]!;
  const columns = Array.from({ length: width }, (_, x) => columnAt(tokens, ((x + 0.5) / width) * last));
  const unknown = rgbOf(theme().unknown);
  for (let y = 0; y < height; y++) {
    const { values } = rows[Math.min(rows.length - 1, Math.floor((y * rows.length) / height))]!;
    for (let x = 0; x < width; x++) {
      const value = values[columns[x]!]!;
      const colour = Number.isNaN(value) ? unknown : heat(value === 0 ? 0 : shade(value, uniform, decades));
      const at = 4 * (y * width + x);
      [data[at], data[at + 1], data[at + 2], data[at + 3]] = [...colour, 255];
    }
  }
}

function rgbOf(colour: string): readonly [number, number, number] {
  const part = (at: number): number => Number.parseInt(colour.slice(at, at + 2), 16);
  return [part(1), part(3), part(5)];
}

/** The text, shortened so that it fits. */
function fitting(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let kept = text.length;
  while (kept > 1 && context.measureText(`${text.slice(0, kept)}…`).width > width) kept--;
  return `${text.slice(0, kept)}…`;
}

/** The legend of the colours. */
function scale({ low, high }: Decades): HTMLElement {
  const powers = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  const stops = Array.from({ length: 17 }, (_, i) => `rgb(${heat(i / 16).join(" ")})`);
  return h(
    "div",
    { class: "heat-scale" },
    h("div", { class: "heat-bar", style: `background: linear-gradient(to right, ${stops.join(", ")})` }),
    h(
      "div",
      { class: "heat-ticks" },
      powers.map((power) => h("span", {}, power === 0 ? "uniform" : `×${significant(10 ** power, 1)}`)),
    ),
  );
}
