/** The initial centroids of k-means: those of Bahmani et al., "Scalable k-means++" (VLDB 2012). */
import type { CancelSignal } from "../../cancel.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { foldIn, type Key, uniformAt } from "../../tensor/rng.ts";
import { scope, tensor } from "../../tensor/tensor.ts";
import { type Points, squaredNorms, rowsOf, sumOf } from "./points.ts";
import { nearest } from "./nearest-centroids.ts";

/** Largest number of points from which initial centroids are chosen: this many in total, or this many per centroid. */
const SEEDED = 1 << 16;
const SEEDED_EACH = 32;

/** Rounds of the seeding; each draws about k/2 candidates. */
const ROUNDS = 5;

/**
 * k-means‖ seeding: a first point at random; then, ROUNDS times, each point with probability in proportion to its squared distance to the points
 * chosen so far, so that about k/2 are chosen per round; finally k of these candidates by k-means++, each weighted by the number of points nearest to
 * it.
 */
export async function seeding(
  all: Points,
  allSquares: Float32Array,
  k: number,
  random: Key,
  signal?: CancelSignal,
): Promise<Float32Array> {
  const pool = Math.max(SEEDED, SEEDED_EACH * k);
  const points = allSquares.length <= pool ? all : sampleOf(all, pool, foldIn(random, ROUNDS + 2));
  const squares = points === all ? allSquares : squaredNorms(points);
  const n = squares.length;
  const rowsAt = (indices: readonly number[]): Float32Array => rowsOf(points, indices);
  const { dim } = points;
  const chosen = new Set([Math.min(n - 1, Math.floor(uniformAt(random, 0) * n))]);
  // Candidates are numbered in the order in which they are chosen.
  const { ids, distances } = await nearest(points, squares, { values: rowsAt([...chosen]), dim }, signal);
  for (let round = 1; round <= ROUNDS; round++) {
    const total = sumOf(distances);
    if (total === 0) break;
    const draws = foldIn(random, round);
    const most = Math.max(8, k / 2);
    const drawn: number[] = [];
    for (let i = 0; i < n; i++)
      if (!chosen.has(i) && uniformAt(draws, i) < (most * distances[i]!) / total) drawn.push(i);
    if (drawn.length === 0) continue;
    const added = await nearest(points, squares, { values: rowsAt(drawn), dim }, signal);
    for (let i = 0; i < n; i++) {
      if (added.distances[i]! >= distances[i]!) continue;
      distances[i] = added.distances[i]!;
      ids[i] = chosen.size + added.ids[i]!;
    }
    for (const i of drawn) chosen.add(i);
  }
  // If chance chose too few, the farthest points are added.
  const order =
    chosen.size >= k ? [] : [...distances.keys()].sort((i, j) => distances[j]! - distances[i]! || i - j);
  for (const i of order) {
    if (chosen.size >= k) break;
    ids[i] = chosen.size;
    chosen.add(i);
  }
  const candidates = { values: rowsAt([...chosen]), dim };
  const weights = new Float64Array(chosen.size);
  for (const id of ids) weights[id]!++;
  const last = foldIn(random, ROUNDS + 1);
  const own =
    weights.length > PRODUCTS
      ? drawCandidates(weights, k, last)
      : await chooseCandidates(candidates, weights, k, last, signal);
  return rowsOf(candidates, own);
}

/** One point from each of `count` equal parts of all points. */
function sampleOf(points: Points, count: number, random: Key): Points {
  const each = points.values.length / points.dim / count;
  const indices = Float64Array.from({ length: count }, (_, i) =>
    Math.floor((i + uniformAt(random, i)) * each),
  );
  return { values: rowsOf(points, indices), dim: points.dim };
}

/** Largest number of candidates for which all pairwise products are computed, to choose among them greedily. */
const PRODUCTS = 2048;
/** A squared distance below this share of the squared norms is rounding error. */
const ROUNDED = 1e-6;

/** Draws k of many candidates, which are already spread out, with probability in proportion to their weights (Efraimidis and Spirakis 2006). */
function drawCandidates(weights: Float64Array, k: number, random: Key): number[] {
  const keys = weights.map((weight, i) =>
    weight === 0 ? -Infinity : Math.log(uniformAt(random, i)) / weight,
  );
  return Array.from(weights.keys())
    .sort((i, j) => keys[j]! - keys[i]! || i - j)
    .slice(0, k)
    .sort((i, j) => i - j);
}

/**
 * Chooses k of the candidates by greedy weighted k-means++ (Arthur and Vassilvitskii 2007): for each place a few are drawn in proportion to weight
 * times squared distance to those chosen so far, and the one that leaves the smallest sum is taken.
 */
async function chooseCandidates(
  candidates: Points,
  weights: Float64Array,
  k: number,
  random: Key,
  signal?: CancelSignal,
): Promise<number[]> {
  const m = weights.length;
  const { values, dim } = candidates;
  const squares = squaredNorms(candidates);
  const trials = 2 + Math.floor(Math.log(k));
  const chosen: number[] = [];
  const isChosen = new Uint8Array(m);
  const mass = new Float64Array(m);
  let distances: Float64Array = new Float64Array(m).fill(Infinity);
  const y = tensor(values, [m, dim]);
  const all = scope(() => linear(y, y));
  try {
    const products = await all.data();
    while (chosen.length < k) {
      signal?.throwIfAborted();
      const first = chosen.length === 0;
      for (let i = 0; i < m; i++)
        mass[i] = isChosen[i] === 1 ? 0 : first ? weights[i]! : weights[i]! * distances[i]!;
      const draws = foldIn(random, chosen.length);
      const tried = new Set<number>();
      for (let trial = 0; trial < (first ? 1 : trials); trial++)
        tried.add(drawFrom(mass, uniformAt(draws, trial)));
      // Only copies of chosen points are left; any will do.
      tried.delete(-1);
      if (tried.size === 0) tried.add(isChosen.indexOf(0));
      const list = [...tried];
      let best: { i: number; distances: Float64Array; sum: number } | null = null;
      list.forEach((i) => {
        const own = new Float64Array(m);
        let sum = 0;
        for (let j = 0; j < m; j++) {
          const away = squares[i]! + squares[j]! - 2 * products[i * m + j]!;
          const square = away <= ROUNDED * (squares[i]! + squares[j]!) ? 0 : away;
          own[j] = square < distances[j]! ? square : distances[j]!;
          sum += weights[j]! * own[j]!;
        }
        if (best === null || sum < best.sum) best = { i, distances: own, sum };
      });
      if (best === null) break;
      const { i, distances: next }: { i: number; distances: Float64Array } = best;
      isChosen[i] = 1;
      chosen.push(i);
      distances = next;
    }
  } finally {
    y.dispose();
    all.dispose();
  }
  return chosen;
}

/** The index at which the running sum exceeds a share of the total; −1 if the total is 0. */
function drawFrom(mass: Float64Array, share: number): number {
  let total = 0;
  for (let i = 0; i < mass.length; i++) total += mass[i]!;
  if (total === 0) return -1;
  let left = share * total;
  let last = -1;
  for (let i = 0; i < mass.length; i++) {
    if (mass[i] === 0) continue;
    last = i;
    left -= mass[i]!;
    if (left < 0) break;
  }
  return last;
}
