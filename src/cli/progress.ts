/** What `gradmix train` prints while it runs: on a terminal one line that is rewritten, elsewhere a plain line from time to time. */
import { eastAsianWidth } from "get-east-asian-width";
import { onOneLine } from "../errors.ts";
import { formatGuards } from "./guarding.ts";
import type { RunResult } from "./run-events.ts";
import type { Evaluation, StepMetrics } from "../runs/lines.ts";
import { shellWord } from "../shell-word.ts";
import { MAX_NAMES } from "./metrics.ts";

/** The stream to which output is written. */
export interface Screen {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number | undefined;
  /** True while the reader does not keep up; steps are then not shown. */
  readonly behind?: boolean;
}

/** The parts of the line that are not in one step's metrics. */
export interface ProgressState {
  totalSteps: number;
  /** Tokens per second and the seconds left, from the last steps; null before the first step. */
  speed: { tokensPerSecond: number; secondsLeft: number } | null;
  /** Held-out loss on the target at the last evaluation. */
  targetLoss: number | null;
}

/** For example `step 120/1000  loss 2.345  target 2.101  12.3k tok/s  3:05 left  code 62% prose 30% …`. */
export function formatProgress(metrics: StepMetrics, state: ProgressState, width: number = Infinity): string {
  const { totalSteps, speed, targetLoss } = state;
  const parts = [formatStep(metrics.step, totalSteps), `loss ${formatLoss(metrics.loss)}`];
  if (targetLoss !== null) parts.push(`target ${formatLoss(targetLoss)}`);
  if (speed !== null) {
    parts.push(`${formatCount(speed.tokensPerSecond)} tok/s`);
    if (metrics.step < totalSteps) parts.push(`${formatDuration(speed.secondsLeft)} left`);
  }
  parts.push(formatWeights(metrics.weights, 4, metrics.weights.size >= MAX_NAMES));
  return truncate(parts.join("  "), width);
}

function formatStep(step: number, totalSteps: number): string {
  return `step ${String(step).padStart(String(totalSteps).length)}/${totalSteps}`;
}

/** Formats the largest weights: `code 62% prose 30% +3`, where 3 more domains share the rest. `more`: there are domains beyond those in `weights`. */
export function formatWeights(
  weights: ReadonlyMap<string, number>,
  most: number = 4,
  more: boolean = false,
): string {
  const sorted = [...weights].sort(([, a], [, b]) => b - a);
  const named = sorted.slice(0, most).map(([name, weight]) => `${name} ${formatPercent(weight)}`);
  if (sorted.length > most) named.push(more ? "…" : `+${sorted.length - most}`);
  return named.join(" ");
}

function formatPercent(share: number): string {
  const percent = share * 100;
  return `${percent > 0 && percent < 0.5 ? "<1" : Math.round(percent)}%`;
}

function formatLoss(loss: number): string {
  return Number.isFinite(loss) ? loss.toFixed(3) : String(loss);
}

/** For example 950, 12.3k, 4.56M. */
export function formatCount(n: number): string {
  for (const [unit, size] of [
    ["T", 1e12],
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ] as const)
    if (n >= size * 0.9995) return `${(n / size).toPrecision(3)}${unit}`;
  return String(Math.round(n));
}

/** The number of lines that `--skip-bad-lines` left out, for example `1 bad line`. */
export function formatBadLines(n: number): string {
  return `${n} bad ${n === 1 ? "line" : "lines"}`;
}

/** For example 0:07, 3:05, 1:02:03. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  const pad = (n: number): string => String(n).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${pad(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/** Cuts a line so that a terminal does not wrap it, because a wrapped line cannot be rewritten. */
function truncate(line: string, width: number): string {
  if (displayWidth(line) < width) return line;
  let cut = "";
  let used = 0;
  // A letter and its combining marks are kept together.
  for (const { segment } of new Intl.Segmenter().segment(line)) {
    used += displayWidth(segment);
    if (used > width - 2) break;
    cut += segment;
  }
  return `${cut}…`;
}

/**
 * The number of columns of a text on a terminal. Marks above or below their letter have width 0. Marks beside it have width 1, as in the tables of
 * most terminals; a terminal that joins them uses fewer columns.
 */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text)
    if (!/^[\p{Mn}\p{Me}\p{Cf}]$/u.test(character))
      width += eastAsianWidth(character.codePointAt(0) ?? 0, { ambiguousAsWide: false });
  return width;
}

/** Formats rows of equal length as a table, a line each: the first column is aligned to the left, the others to the right. */
export function formatRows(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, j) => Math.max(...rows.map((row) => displayWidth(row[j]!))));
  const pad = (text: string, width: number): string => " ".repeat(width - displayWidth(text));
  return rows
    .map((row) =>
      row
        .map((text, j) => (j === 0 ? text + pad(text, widths[j]!) : pad(text, widths[j]!) + text))
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** Formats the lines that are printed after a run. */
export function formatResult(result: RunResult, folder: string, page: string | null = null): string {
  const lines = [
    result.interrupted
      ? `stopped after step ${result.step}; continue with: gradmix train --resume ${shellWord(folder)}`
      : `done: ${result.step} ${result.step === 1 ? "step" : "steps"}, ${formatCount(result.tokens)} tokens`,
    `  loss     ${formatLoss(result.loss)}${result.targetLoss === null ? "" : `, held-out target ${formatLoss(result.targetLoss)}`}`,
    ...(result.best === null
      ? []
      : [
          `  best     held-out target ${formatLoss(result.best.targetLoss)} after step ${result.best.step}, kept in ${folder}/best`,
        ]),
    ...(result.guards === null ? [] : [`  guards   ${formatGuards(result.guards)}`]),
    `  weights  ${formatWeights(result.weights.final, 8)}`,
    `  files    ${folder}`,
    ...(page === null ? [] : [`  look     ${page}`]),
  ];
  return `${lines.join("\n")}\n`;
}

export interface Progress extends Pick<StatusLine, "line" | "end"> {
  /** Shows the quality of the model before the first step. */
  start(evaluation: Evaluation): void;
  step(metrics: StepMetrics): void;
}

/** A status line: on a terminal it is rewritten, elsewhere each text is a new line. */
export interface StatusLine {
  show(text: string): void;
  /** Prints a complete line, above the status line. */
  line(text: string): void;
  /** Ends the status line with a newline. */
  end(): void;
}

export function startStatusLine(screen: Screen): StatusLine {
  const terminal = screen.isTTY === true;
  let open = false;
  const erase = (): void => {
    if (open) screen.write("\r\u001b[2K");
    open = false;
  };
  return {
    show(text) {
      erase();
      screen.write(terminal ? truncate(text, screen.columns ?? 80) : `${text}\n`);
      open = terminal;
    },
    line(text) {
      erase();
      screen.write(`${onOneLine(text)}\n`);
    },
    end() {
      if (open) screen.write("\n");
      open = false;
    },
  };
}

/** A step is shown if this many milliseconds have passed since the last shown one, if it was evaluated, or if it is the last. */
const plainInterval = 1000;
const terminalInterval = 100;
/** The speed is averaged over about this many steps. */
const speedSteps = 20;

/** Starts the progress display of a run. `now` returns milliseconds. */
export function startProgress(
  screen: Screen,
  totalSteps: number,
  now: () => number = (): number => performance.now(),
): Progress {
  const terminal = screen.isTTY === true;
  const status = startStatusLine(screen);
  let shown = -Infinity;
  let targetLoss: number | null = null;
  const recent: { time: number; step: number; tokens: number }[] = [];
  return {
    start({ target }) {
      targetLoss = target;
      if (target === null || screen.behind === true) return;
      status.show(`${formatStep(0, totalSteps)}  target ${formatLoss(target)}`);
    },
    step(metrics) {
      const time = now();
      recent.push({ time, step: metrics.step, tokens: metrics.tokens });
      if (recent.length > speedSteps) recent.shift();
      targetLoss = metrics.evaluation?.target ?? targetLoss;
      if (screen.behind === true) return;
      const due = time - shown >= (terminal ? terminalInterval : plainInterval);
      if (!due && metrics.evaluation === undefined && metrics.step < totalSteps) return;
      shown = time;
      const speed = speedOf(recent, totalSteps);
      const width = terminal ? (screen.columns ?? 80) : Infinity;
      status.show(formatProgress(metrics, { totalSteps, speed, targetLoss }, width));
    },
    line: status.line,
    end: status.end,
  };
}

function speedOf(
  recent: readonly { time: number; step: number; tokens: number }[],
  totalSteps: number,
): ProgressState["speed"] {
  const first = recent[0];
  const last = recent.at(-1);
  if (first === undefined || last === undefined || last.time <= first.time) return null;
  const seconds = (last.time - first.time) / 1000;
  return {
    tokensPerSecond: (last.tokens - first.tokens) / seconds,
    secondsLeft: ((totalSteps - last.step) * seconds) / (last.step - first.step),
  };
}
