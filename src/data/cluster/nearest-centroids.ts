/** The nearest centroid of each point, by matrix products on the engine that are never stored. */
import type { CancelSignal } from "../../cancel.ts";
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { empty, scope, tensor } from "../../tensor/tensor.ts";
import { type Points, countOf, checkLengths, squaredNorms } from "./points.ts";

/** Count of numbers in the points that the backend receives at once. */
const BLOCK = 1 << 22;

/** The nearest centroid of each point. */
export interface Nearest {
  /** Index of the nearest centroid [n]; of equally near ones the first. */
  readonly ids: Int32Array;
  /** Squared distance to it [n]. */
  readonly distances: Float32Array;
}

/**
 * Finds the nearest centroid of each point and the squared distance to it [n]; with `prices`, the centroid with the smallest sum of distance and
 * price. Needs a backend (`init`). Throws like `kMeans`.
 */
export async function nearestCentroids(
  points: Points,
  centroids: Points,
  signal?: CancelSignal,
  prices?: Float32Array,
): Promise<Nearest> {
  checkLengths(points, centroids);
  return nearestOfPart(points, centroids, signal, prices);
}

/** `nearestCentroids` of some of the points and centroids that `checkLengths` has seen. */
export async function nearestOfPart(
  points: Points,
  centroids: Points,
  signal?: CancelSignal,
  prices?: Float32Array,
): Promise<Nearest> {
  countOf(points);
  if (countOf(centroids) === 0) throw new GradmixError("config", "nearestCentroids: there is no centroid");
  if (points.dim !== centroids.dim)
    throw new GradmixError(
      "shape",
      `nearestCentroids: points of ${points.dim} numbers, centroids of ${centroids.dim}`,
    );
  return nearest(points, squaredNorms(points), centroids, signal, prices);
}

/** argmaxⱼ x·cⱼ − (‖cⱼ‖² + priceⱼ)/2 is the nearest centroid. */
export async function nearest(
  { values, dim }: Points,
  squares: Float32Array,
  centroids: Points,
  signal?: CancelSignal,
  prices?: Float32Array,
): Promise<Nearest> {
  const n = values.length / dim;
  const k = centroids.values.length / dim;
  const ids = new Int32Array(n);
  const distances = new Float32Array(n);
  const rows = Math.max(1, Math.floor(BLOCK / dim));
  const bias = squaredNorms(centroids).map((square, j) => -(square + (prices?.[j] ?? 0)) / 2);
  const [y, halves] = [tensor(centroids.values, [k, dim]), tensor(bias, [k])];
  try {
    for (let from = 0; from < n; from += rows) {
      signal?.throwIfAborted();
      const to = Math.min(n, from + rows);
      const { best, score } = scope(() => {
        const x = tensor(values.subarray(from * dim, to * dim), [to - from, dim]);
        const found = { best: empty([to - from], "i32"), score: empty([to - from]) };
        run(
          "nearest",
          { rows: to - from, count: k, width: dim },
          { x, y, bias: halves },
          { ids: found.best, scores: found.score },
        );
        return found;
      });
      try {
        ids.set(await best.data(), from);
        const found = await score.data();
        // Rounding may make a distance slightly negative.
        for (let i = from; i < to; i++)
          distances[i] = Math.max(0, squares[i]! - 2 * found[i - from]! - (prices?.[ids[i]!] ?? 0));
      } finally {
        best.dispose();
        score.dispose();
      }
    }
  } finally {
    y.dispose();
    halves.dispose();
  }
  return { ids, distances };
}
