/**
 * k-means on the engine: distances are matrix products (`linear`), so that fitting and assigning run as fast as the backend multiplies.
 *
 * Lloyd's iteration (1957) from the seeding of Bahmani et al., "Scalable k-means++" (VLDB 2012). Everything is decided by the seed and the points: the bits do not depend on
 * the number of threads.
 */
import type { CancelSignal } from "../../cancel.ts";
import { argmax } from "../../autograd/ops/scan.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { max } from "../../autograd/ops/reduce.ts";
import { GradmixError } from "../../errors.ts";
import { abortSignal, checkOptions, integerIn, numberIn, required } from "../../options.ts";
import { foldIn, type Key, key, uniformAt } from "../../tensor/rng.ts";
import { scope, tensor } from "../../tensor/tensor.ts";

/** Points as rows of one array: n·dim numbers. */
export interface Points {
  readonly values: Float32Array;
  readonly dim: number;
}

export interface KMeansOptions {
  /** k. */
  readonly clusters: number;
  /** Lloyd's iterations, at most. Default 50. */
  readonly iterations?: number;
  /** Iterations end when the mean squared distance falls by less than this share of itself. Default 1e-5. */
  readonly tolerance?: number;
  /** Default 1. */
  readonly seed?: number;
  /** Aborted: the call rejects with its reason. */
  readonly signal?: CancelSignal;
}

export interface KMeansResult {
  /** [k · dim], row by row. */
  readonly centroids: Float32Array;
  /** The nearest centroid of each point [n]; of equally near ones the first. */
  readonly ids: Int32Array;
  /** Points of each cluster [k]. Clusters that became empty were given the points farthest from their centroids. */
  readonly sizes: Int32Array;
  /** Mean squared distance of the points to their nearest centroids. */
  readonly meanSquare: number;
  /** Updates of the centroids. */
  readonly iterations: number;
}

export const kMeansDefaults = { iterations: 50, tolerance: 1e-5, seed: 1 };

/** Scores that are held at once. */
const BLOCK = 1 << 22;
/** Updates beyond `iterations`, at most, where clusters that were empty have just got a point. */
const EXTRA = 10;
/** Rounds of the seeding; each draws about k/2 candidates. */
const ROUNDS = 5;

/**
 * Clusters points in Euclidean distance. Needs a backend (`init`). Throws `config` for options out of range and for more clusters than points, `data` for points that are
 * not finite.
 */
export async function kMeans(points: Points, options: KMeansOptions): Promise<KMeansResult> {
  checkOptions<KMeansOptions>("kMeans", options, {
    clusters: required(integerIn(1)),
    iterations: integerIn(1),
    tolerance: numberIn({ min: 0 }),
    seed: integerIn(0),
    signal: abortSignal,
  });
  const { clusters: k, iterations = kMeansDefaults.iterations, signal } = options;
  const { tolerance = kMeansDefaults.tolerance, seed = kMeansDefaults.seed } = options;
  const n = countOf(points);
  if (k > n) throw new GradmixError("config", `kMeans: ${k} clusters of ${n} points; ask for ${n} at most`);
  const squares = squaredNorms(points);
  let centroids = await seeding(points, squares, k, key(seed), signal);
  let before = Infinity;
  for (let updates = 0; ; updates++) {
    const { ids, distances } = await nearest(points, squares, { values: centroids, dim: points.dim }, signal);
    const meanSquare = sumOf(distances) / n;
    const sizes = new Int32Array(k);
    for (const id of ids) sizes[id]!++;
    const moved = repair(ids, distances, sizes);
    // A cluster that just got its point has no centroid of its own yet.
    const settled = updates >= iterations || (updates > 0 && before - meanSquare <= tolerance * before);
    if (settled && (moved === 0 || updates >= iterations + EXTRA))
      return { centroids, ids, sizes, meanSquare, iterations: updates };
    before = meanSquare;
    centroids = means(points, ids, sizes, centroids);
  }
}

/** The nearest centroid of each point, and the squared distance to it [n]. Throws as `kMeans`. */
export async function nearestCentroids(
  points: Points,
  centroids: Points,
  signal?: CancelSignal,
): Promise<{ readonly ids: Int32Array; readonly distances: Float32Array }> {
  countOf(points);
  if (countOf(centroids) === 0) throw new GradmixError("config", "nearestCentroids: there is no centroid");
  if (points.dim !== centroids.dim)
    throw new GradmixError(
      "shape",
      `nearestCentroids: points of ${points.dim} numbers, centroids of ${centroids.dim}`,
    );
  return nearest(points, squaredNorms(points), centroids, signal);
}

/** Throws `shape` and `data`. */
function countOf({ values, dim }: Points): number {
  if (!(Number.isInteger(dim) && dim > 0) || values.length % dim !== 0)
    throw new GradmixError("shape", `points: ${values.length} numbers are not rows of ${dim}`);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new GradmixError(
      "data",
      `points: number ${bad % dim} of point ${Math.floor(bad / dim)} is ${values[bad]}; all must be finite`,
    );
  return values.length / dim;
}

function squaredNorms({ values, dim }: Points): Float32Array {
  const out = new Float32Array(values.length / dim);
  for (let i = 0, at = 0; i < out.length; i++) {
    let sum = 0;
    for (const end = at + dim; at < end; at++) sum += values[at]! * values[at]!;
    out[i] = sum;
  }
  return out;
}

/** argmaxⱼ x·cⱼ − ‖cⱼ‖²/2 is the nearest centroid. */
async function nearest(
  { values, dim }: Points,
  squares: Float32Array,
  centroids: Points,
  signal?: CancelSignal,
): Promise<{ ids: Int32Array; distances: Float32Array }> {
  const n = values.length / dim;
  const k = centroids.values.length / dim;
  const ids = new Int32Array(n);
  const distances = new Float32Array(n);
  const rows = Math.max(1, Math.floor(BLOCK / k));
  const halves = squaredNorms(centroids).map((square) => -square / 2);
  const [weight, bias] = [tensor(centroids.values, [k, dim]), tensor(halves, [k])];
  try {
    for (let from = 0; from < n; from += rows) {
      signal?.throwIfAborted();
      const to = Math.min(n, from + rows);
      const [best, score] = scope(() => {
        const scores = linear(tensor(values.subarray(from * dim, to * dim), [to - from, dim]), weight, bias);
        return [argmax(scores, 1), max(scores, 1)];
      });
      try {
        ids.set(await best.data(), from);
        const found = await score.data();
        // Rounding may leave a little less than nothing.
        for (let i = from; i < to; i++) distances[i] = Math.max(0, squares[i]! - 2 * found[i - from]!);
      } finally {
        best.dispose();
        score.dispose();
      }
    }
  } finally {
    weight.dispose();
    bias.dispose();
  }
  return { ids, distances };
}

/**
 * Gives every empty cluster the point that is farthest from its centroid, of those whose cluster keeps another one. Changes all three; gives the number of points that it
 * moved. A point that lies on its centroid stays.
 */
function repair(ids: Int32Array, distances: Float32Array, sizes: Int32Array): number {
  const empty = [...sizes.keys()].filter((j) => sizes[j] === 0);
  if (empty.length === 0) return 0;
  const order = Array.from(distances.keys()).sort((i, j) => distances[j]! - distances[i]! || i - j);
  let at = 0;
  let moved = 0;
  for (const j of empty) {
    while (at < order.length && sizes[ids[order[at]!]!]! < 2) at++;
    if (at === order.length || distances[order[at]!] === 0) break;
    const i = order[at++]!;
    sizes[ids[i]!]!--;
    ids[i] = j;
    sizes[j] = 1;
    distances[i] = 0;
    moved++;
  }
  return moved;
}

/** In doubles, in the order of the points. A cluster without points keeps its centroid. */
function means(
  { values, dim }: Points,
  ids: Int32Array,
  sizes: Int32Array,
  before: Float32Array,
): Float32Array {
  const sums = new Float64Array(sizes.length * dim);
  for (let i = 0, at = 0; i < ids.length; i++) {
    for (let to = ids[i]! * dim, end = to + dim; to < end; to++, at++) sums[to]! += values[at]!;
  }
  return before.map((old, d) => {
    const size = sizes[Math.floor(d / dim)]!;
    return size === 0 ? old : sums[d]! / size;
  });
}

/**
 * k-means‖: a first point by chance; then, ROUNDS times, each point with a chance in proportion to its squared distance to what was chosen so far, so that about k/2 are chosen
 * per round; of these candidates k by k-means++, each weighted with the points that it is nearest to.
 */
async function seeding(
  points: Points,
  squares: Float32Array,
  k: number,
  random: Key,
  signal?: CancelSignal,
): Promise<Float32Array> {
  const n = squares.length;
  const rowsAt = (indices: readonly number[]): Float32Array => rowsOf(points, indices);
  const { dim } = points;
  const chosen = new Set([Math.min(n - 1, Math.floor(uniformAt(random, 0) * n))]);
  let { distances } = await nearest(points, squares, { values: rowsAt([...chosen]), dim }, signal);
  for (let round = 1; round <= ROUNDS; round++) {
    const total = sumOf(distances);
    if (total === 0) break;
    const draws = foldIn(random, round);
    const most = Math.max(8, k / 2);
    const drawn = [...distances.keys()].filter(
      (i) => !chosen.has(i) && uniformAt(draws, i) < (most * distances[i]!) / total,
    );
    if (drawn.length === 0) continue;
    for (const i of drawn) chosen.add(i);
    const added = await nearest(points, squares, { values: rowsAt(drawn), dim }, signal);
    distances = distances.map((old, i) => Math.min(old, added.distances[i]!));
  }
  // Where chance left too few, the farthest points fill up.
  const order =
    chosen.size >= k ? [] : [...distances.keys()].sort((i, j) => distances[j]! - distances[i]! || i - j);
  for (const i of order) {
    if (chosen.size >= k) break;
    chosen.add(i);
  }
  const candidates = { values: rowsAt([...chosen]), dim };
  const { ids } = await nearest(points, squares, candidates, signal);
  const weights = new Float64Array(chosen.size);
  for (const id of ids) weights[id]!++;
  const own = chooseCandidates(candidates, weights, k, foldIn(random, ROUNDS + 1), signal);
  return rowsOf(candidates, own);
}

/** Multiply-adds that choosing among the candidates may take: beyond, fewer are tried for each place. */
const CHOOSING = 4e9;

/**
 * k of the candidates by greedy k-means++ (Arthur and Vassilvitskii 2007) with weights: for each place a few are drawn, in proportion to weight times squared distance to
 * what was chosen, and the one that leaves the smallest sum is taken.
 */
function chooseCandidates(
  candidates: Points,
  weights: Float64Array,
  k: number,
  random: Key,
  signal?: CancelSignal,
): number[] {
  const m = weights.length;
  const trials = Math.max(
    1,
    Math.min(2 + Math.floor(Math.log(k)), Math.floor(CHOOSING / (m * k * candidates.dim))),
  );
  const chosen: number[] = [];
  const taken = new Uint8Array(m);
  let distances: Float64Array = new Float64Array(m).fill(Infinity);
  while (chosen.length < k) {
    signal?.throwIfAborted();
    const first = chosen.length === 0;
    const mass = weights.map((weight, i) => (taken[i] === 1 ? 0 : first ? weight : weight * distances[i]!));
    const draws = foldIn(random, chosen.length);
    const tried = new Set(
      Array.from({ length: first ? 1 : trials }, (_, trial) => drawFrom(mass, uniformAt(draws, trial))),
    );
    // Copies of chosen points are left: any will do.
    tried.delete(-1);
    if (tried.size === 0) tried.add(taken.indexOf(0));
    let best: { i: number; distances: Float64Array; sum: number } | null = null;
    for (const i of tried) {
      const own = distancesWith(candidates, i, distances);
      const sum = own.reduce((total, square, j) => total + weights[j]! * square, 0);
      if (best === null || sum < best.sum) best = { i, distances: own, sum };
    }
    if (best === null) break;
    taken[best.i] = 1;
    chosen.push(best.i);
    ({ distances } = best);
  }
  return chosen;
}

/** The index at which the running sum passes a share of the whole; -1 where the whole is 0. */
function drawFrom(mass: Float64Array, share: number): number {
  const total = mass.reduce((sum, own) => sum + own, 0);
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

/** The squared distances with one more point chosen. */
function distancesWith({ values, dim }: Points, chosen: number, before: Float64Array): Float64Array {
  const at = chosen * dim;
  const out = new Float64Array(before.length);
  for (let i = 0, from = 0; i < out.length; i++, from += dim) {
    let sum = 0;
    for (let d = 0; d < dim; d++) {
      const away = values[from + d]! - values[at + d]!;
      sum += away * away;
    }
    out[i] = sum < before[i]! ? sum : before[i]!;
  }
  return out;
}

/** The points of these indices, in their order. */
export function rowsOf({ values, dim }: Points, indices: ArrayLike<number>): Float32Array {
  const out = new Float32Array(indices.length * dim);
  for (let i = 0; i < indices.length; i++)
    out.set(values.subarray(indices[i]! * dim, (indices[i]! + 1) * dim), i * dim);
  return out;
}

const sumOf = (numbers: Float32Array): number => numbers.reduce((sum, value) => sum + value, 0);
