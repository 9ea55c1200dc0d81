/** Combines the losses of several runs over tokens into one line with a band. Pure. */
import { mean, variance } from "../runs/statistics.ts";
import type { Curve, LossCurves } from "./page-data.ts";

/** The points of one run, with tokens ascending. */
export interface Points {
  readonly tokens: readonly number[];
  /** Loss in nats per token. */
  readonly loss: readonly number[];
  /** Factor from nats per token to bits per byte; null if it is unknown. */
  readonly bitsPerNat: number | null;
}

/** Mean and twice the standard error of the mean; null with a single value. */
export function meanAndBand(values: readonly number[]): { mean: number; band: number | null } {
  const band = values.length < 2 ? null : 2 * Math.sqrt(variance(values) / values.length);
  return { mean: mean(values), band };
}

/**
 * The mean of the runs at every token count of one of them, between the latest start and the earliest end, so that no run drops out midway. Runs are
 * interpolated linearly. null without points.
 */
export function curvesOf(runs: readonly Points[]): LossCurves | null {
  const known = runs.filter(({ tokens }) => tokens.length > 0);
  if (known.length === 0) return null;
  const from = Math.max(...known.map(({ tokens }) => tokens[0]!));
  const to = Math.min(...known.map(({ tokens }) => tokens.at(-1) ?? 0));
  const all = [...new Set(known.flatMap(({ tokens }) => tokens))].filter((at) => at >= from && at <= to);
  const tokens = all.sort((a, b) => a - b);
  if (tokens.length === 0) return null;
  const curve = (scale: (run: Points) => number): Curve => {
    const found = tokens.map((at) => meanAndBand(known.map((run) => valueAt(run, at) * scale(run))));
    return {
      mean: found.map((one) => rounded(one.mean)),
      band: found.map(({ band }) => (band === null ? null : rounded(band))),
    };
  };
  return {
    tokens,
    nats: curve(() => 1),
    bits: known.every(({ bitsPerNat }) => bitsPerNat !== null) ? curve((run) => run.bitsPerNat ?? NaN) : null,
  };
}

/** Interpolates linearly between the points; `at` lies within their range. */
export function valueAt({ tokens, loss }: Pick<Points, "tokens" | "loss">, at: number): number {
  const next = tokens.findIndex((one) => one >= at);
  const end = next < 0 ? tokens.length - 1 : next;
  const [x1, y1] = [tokens[end]!, loss[end]!];
  if (x1 === at || end === 0) return y1;
  const [x0, y0] = [tokens[end - 1]!, loss[end - 1]!];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

/** Tokens after which a curve first reaches `level` or less, by linear interpolation; null if it never does. */
export function tokensUntil({ tokens, loss }: Pick<Points, "tokens" | "loss">, level: number): number | null {
  const at = loss.findIndex((value) => value <= level);
  if (at < 0) return null;
  const [x1, y1] = [tokens[at]!, loss[at]!];
  if (at === 0) return x1;
  const [x0, y0] = [tokens[at - 1]!, loss[at - 1]!];
  return y0 === y1 ? x1 : x0 + ((x1 - x0) * (y0 - level)) / (y0 - y1);
}

/** Rounds to six significant digits: a picture needs no more, and the text is shorter. */
export function rounded(value: number): number {
  return Number(value.toPrecision(6));
}
