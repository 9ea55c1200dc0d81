/** Losses of several runs over tokens as one line with a band. Pure. */
import { mean, variance } from "../runs/statistics.ts";
import type { Curve, LossCurves } from "./page-data.ts";

/** One run's points: tokens ascending. */
export interface Points {
  readonly tokens: readonly number[];
  /** Nats per token. */
  readonly loss: readonly number[];
  /** Bits per byte for a nat per token; null where that is not known. */
  readonly bitsPerNat: number | null;
}

/** Mean and twice the standard error of the mean, null of one value. */
export function meanAndBand(values: readonly number[]): { mean: number; band: number | null } {
  const band = values.length < 2 ? null : 2 * Math.sqrt(variance(values) / values.length);
  return { mean: mean(values), band };
}

/**
 * The mean of the runs at every token count that one of them has, between the latest beginning and the earliest end, so that no run drops out midway. Between its points a
 * run is taken to go straight. null without points.
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

/** By straight lines between the points; `at` lies within them. */
export function valueAt({ tokens, loss }: Pick<Points, "tokens" | "loss">, at: number): number {
  const next = tokens.findIndex((one) => one >= at);
  const end = next < 0 ? tokens.length - 1 : next;
  const [x1, y1] = [tokens[end]!, loss[end]!];
  if (x1 === at || end === 0) return y1;
  const [x0, y0] = [tokens[end - 1]!, loss[end - 1]!];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

/** Tokens after which a curve is at `loss` or below for the first time, by straight lines; null where it never is. */
export function tokensUntil(
  { tokens, loss }: Pick<Points, "tokens" | "loss">,
  wanted: number,
): number | null {
  const at = loss.findIndex((value) => value <= wanted);
  if (at < 0) return null;
  const [x1, y1] = [tokens[at]!, loss[at]!];
  if (at === 0) return x1;
  const [x0, y0] = [tokens[at - 1]!, loss[at - 1]!];
  return y0 === y1 ? x1 : x0 + ((x1 - x0) * (y0 - wanted)) / (y0 - y1);
}

/** To six significant digits: a picture needs no more, and the text is short. */
export function rounded(value: number): number {
  return Number(value.toPrecision(6));
}
