/** The output of `gradmix compare`: the plan, the remaining time, and the table of results. */
import type { Difference, RuleResult } from "../report/comparison.ts";
import type { Interval } from "../runs/statistics.ts";
import { formatDuration, formatRows } from "./progress.ts";

/** Steps that the runs of a rule still have to do. */
export interface Ahead {
  readonly rule: string;
  readonly steps: number;
}

/**
 * Seconds that the remaining steps will take, from the seconds per step of each rule; the mean of the other rules is used for a rule without a
 * measurement. null if there is none at all.
 */
export function secondsAhead(ahead: readonly Ahead[], perStep: ReadonlyMap<string, number>): number | null {
  if (perStep.size === 0) return null;
  const usual = [...perStep.values()].reduce((sum, seconds) => sum + seconds, 0) / perStep.size;
  return ahead.reduce((sum, { rule, steps }) => sum + steps * (perStep.get(rule) ?? usual), 0);
}

/** Rounds a duration for people: `40 seconds`, `6 minutes`, `2.5 hours`. */
export function formatRoughly(seconds: number): string {
  if (seconds < 90)
    return `${Math.max(1, Math.round(seconds))} ${Math.round(seconds) > 1 ? "seconds" : "second"}`;
  const minutes = seconds / 60;
  return minutes < 90 ? `${Math.round(minutes)} minutes` : `${Number((minutes / 60).toPrecision(2))} hours`;
}

/** The position in a comparison. */
export interface Place {
  /** Number of finished runs, and of all runs. */
  readonly done: number;
  readonly runs: number;
  /** Name of the current run. */
  readonly name: string;
  readonly step: number;
  readonly steps: number;
  readonly targetLoss: number | null;
  readonly secondsLeft: number | null;
}

/** Formats a position: `run 3/12 dga/seed-1  step 120/240  target 2.101  4:10 left`. */
export function formatPlace({ done, runs, name, step, steps, targetLoss, secondsLeft }: Place): string {
  return [
    `run ${String(done + 1).padStart(String(runs).length)}/${runs} ${name}`,
    `step ${String(step).padStart(String(steps).length)}/${steps}`,
    ...(targetLoss === null ? [] : [`target ${targetLoss.toFixed(3)}`]),
    ...(secondsLeft === null ? [] : [`${formatDuration(secondsLeft)} left`]),
  ].join("  ");
}

/** One line per rule, in columns. */
export function formatTable(results: readonly RuleResult[], baseline: string): string {
  const rows = [
    ["rule", "seeds", "loss", "bits/byte", `minus ${baseline}`, "95 % interval", "cost", "time"],
    ...results.map(({ rule, loss, bitsPerByte, difference, cost, time }) => [
      rule,
      String(loss.count),
      withError(loss, false),
      bitsPerByte === null ? "–" : bitsPerByte.toFixed(3),
      difference === null ? "–" : withError(difference, true),
      intervalText(difference),
      times(cost),
      times(time),
    ]),
  ];
  return formatRows(rows);
}

const times = (ratio: number | null): string => (ratio === null ? "–" : `× ${ratio.toFixed(2)}`);

function intervalText(difference: Difference | null): string {
  if (difference === null) return "–";
  return difference.interval === null ? "none" : difference.interval.map((x) => number(x, true)).join(" to ");
}

/** Formats a mean and its standard error: `2.101 ± 0.012`. */
function withError({ mean, standardError }: Interval, sign: boolean): string {
  return standardError === null ? number(mean, sign) : `${number(mean, sign)} ± ${standardError.toFixed(3)}`;
}

function number(value: number, sign: boolean): string {
  const text = Math.abs(value).toFixed(3);
  if (Number(text) === 0) return text;
  return value < 0 ? `−${text}` : sign ? `+${text}` : text;
}
