/** Draws runs beside each other as an SVG: the loss on the target over steps, and the domain weights of the last run. */

export interface DrawnRun {
  readonly name: string;
  /** Loss on the held-out target, in nats a token. */
  readonly losses: readonly { readonly step: number; readonly loss: number }[];
  /** Weights that each step was drawn with. */
  readonly weights: readonly { readonly step: number; readonly weights: Readonly<Record<string, number>> }[];
}

const colours = [
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
];
const panel = { width: 380, height: 230, left: 56, top: 44, gap: 110 };

const escapeText = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A picture of 960 × 330. */
export function drawRuns(runs: readonly DrawnRun[], title: string): string {
  const steps = Math.max(1, ...runs.flatMap((run) => run.weights.map(({ step }) => step)));
  const losses = runs.flatMap((run) => run.losses.map(({ loss }) => loss));
  const last = runs.at(-1);
  const names = Object.keys(last?.weights[0]?.weights ?? {});
  const left = drawPanel({
    x: panel.left,
    title,
    label: "loss, nats a token",
    steps,
    range: nice(Math.min(...losses), Math.max(...losses)),
    series: runs.map((run) => ({ name: run.name, points: run.losses.map(({ step, loss }) => [step, loss]) })),
    dots: true,
  });
  const right = drawPanel({
    x: panel.left + panel.width + panel.gap,
    title: `Domain weights, ${last?.name ?? ""}`,
    label: "weight",
    steps,
    range: [0, 1],
    series: names.map((name) => ({
      name,
      points: (last?.weights ?? []).map(({ step, weights }) => [step, weights[name] ?? 0]),
    })),
    dots: false,
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1010 330" width="1010" height="330" font-family="system-ui, sans-serif" font-size="12">
<rect width="1010" height="330" fill="#ffffff"/>
${left}
${right}
</svg>
`;
}

interface Panel {
  x: number;
  title: string;
  label: string;
  steps: number;
  range: [number, number];
  series: { name: string; points: number[][] }[];
  dots: boolean;
}

function drawPanel({ x, title, label, steps, range: [low, high], series, dots }: Panel): string {
  const at = (step: number): number => x + (step / steps) * panel.width;
  const up = (value: number): number => panel.top + (1 - (value - low) / (high - low)) * panel.height;
  const out: string[] = [
    `<text x="${x}" y="${panel.top - 22}" font-weight="600" font-size="14">${escapeText(title)}</text>`,
    `<text x="${x}" y="${panel.top - 7}" fill="#666">${escapeText(label)}</text>`,
  ];
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    out.push(
      `<line x1="${x}" x2="${x + panel.width}" y1="${up(value).toFixed(1)}" y2="${up(value).toFixed(1)}" stroke="#e5e5e5"/>`,
      `<text x="${x - 6}" y="${(up(value) + 4).toFixed(1)}" text-anchor="end" fill="#666">${value.toFixed(2)}</text>`,
      `<text x="${at((steps * i) / 4).toFixed(1)}" y="${panel.top + panel.height + 18}" text-anchor="middle" fill="#666">${Math.round((steps * i) / 4)}</text>`,
    );
  }
  out.push(
    `<text x="${x + panel.width / 2}" y="${panel.top + panel.height + 36}" text-anchor="middle" fill="#666">step</text>`,
  );
  // Names beside the ends of the lines, pushed apart where they would lie on each other.
  const ends = series
    .map(({ name, points }, i) => ({ name, i, y: up(points.at(-1)?.[1] ?? low) }))
    .sort((a, b) => a.y - b.y);
  let floor = -Infinity;
  for (const end of ends) floor = end.y = Math.max(end.y, floor + 15);
  let ceiling = panel.top + panel.height + 15;
  for (const end of ends.reverse()) ceiling = end.y = Math.min(end.y, ceiling - 15);
  series.forEach(({ points }, i) => {
    const colour = colours[i % colours.length] ?? "#000";
    const line = points.map(([step = 0, value = 0]) => `${at(step).toFixed(1)},${up(value).toFixed(1)}`);
    out.push(`<polyline points="${line.join(" ")}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    if (dots)
      for (const point of line) {
        const [cx = "", cy = ""] = point.split(",");
        out.push(`<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`);
      }
  });
  for (const { name, i, y } of ends)
    out.push(
      `<text x="${x + panel.width + 8}" y="${(y + 4).toFixed(1)}" fill="${colours[i % colours.length] ?? "#000"}" font-weight="600">${escapeText(name)}</text>`,
    );
  return out.join("\n");
}

/** A little more room than the values take. */
function nice(low: number, high: number): [number, number] {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const margin = Math.max(0.05, (high - low) * 0.05);
  return [Math.floor((low - margin) * 10) / 10, Math.ceil((high + margin) * 10) / 10];
}
