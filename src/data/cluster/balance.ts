/** Assigns points to centroids so that no cluster is larger than allowed: prices of the clusters are added to the distances. */
import type { CancelSignal } from "../../cancel.ts";
import type { Points } from "./points.ts";
import { type Nearest, nearest } from "./nearest-centroids.ts";

/** The nearest centroid of each point, with the prices of the clusters. */
export interface Assigned extends Nearest {
  readonly prices: Float32Array;
}

/** Number of price updates: while centroids still move, and at the end. */
export const ROUGH_ROUNDS = 20;
export const ROUNDS_OF_PRICES = 200;

/**
 * The first step of a price (relative to the variance of the centroids, for a cluster with twice its allowed size), and the last step as a share of
 * the first.
 */
const PRICE_STEP = 0.5;
const LAST_STEP = 1e-4;

/**
 * Assigns points so that no cluster has more than `most`, by prices: those of overfull clusters rise, and those of clusters with room fall, at least
 * to 0, in ever smaller steps (along the subgradient of the transport problem's dual). If the rounds do not suffice, it returns the most even
 * assignment found.
 */
export async function balanced(
  points: Points,
  squares: Float32Array,
  centroids: Points,
  from: Float32Array,
  { most, rounds }: { readonly most: number; readonly rounds: number },
  signal?: CancelSignal,
): Promise<Assigned> {
  const step = PRICE_STEP * varianceOf(centroids);
  // At the optimal prices for a bound, points between clusters have a free choice. A bound between the even size and the given one leaves room for
  // them.
  const bound = (most + squares.length / from.length) / 2;
  let prices = from;
  let best: { found: Assigned; largest: number } | null = null;
  for (let round = 0; ; round++) {
    const { ids, distances } = await nearest(points, squares, centroids, signal, prices);
    const sizes = sizesOf(ids, from.length);
    const largest = sizes.reduce((a, b) => Math.max(a, b), 0);
    if (best === null || largest < best.largest) best = { found: { ids, distances, prices }, largest };
    if (best.largest <= most || round === rounds) return best.found;
    // Large steps at first, then ever smaller ones.
    const own = step * LAST_STEP ** Math.max(0, (2 * round) / rounds - 1);
    prices = prices.map((price, j) => Math.max(0, price + own * ((sizes[j] ?? 0) / bound - 1)));
  }
}

/** Mean squared distance of points to their mean. */
function varianceOf({ values, dim }: Points): number {
  const n = values.length / dim;
  const centre = new Float64Array(dim);
  for (let at = 0; at < values.length; at++) centre[at % dim]! += values[at]! / n;
  let sum = 0;
  for (let at = 0; at < values.length; at++) sum += (values[at]! - centre[at % dim]!) ** 2;
  return sum / n;
}

/** Number of points of each of k clusters. */
export function sizesOf(ids: Int32Array, k: number): Int32Array {
  const sizes = new Int32Array(k);
  for (const id of ids) sizes[id]!++;
  return sizes;
}
