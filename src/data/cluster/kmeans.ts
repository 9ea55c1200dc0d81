/**
 * k-means on the engine: distances are matrix products that are never stored (`nearest`), so fitting and assigning run at the backend's speed of
 * multiplication.
 *
 * Lloyd's iteration (1957) with the seeding of Bahmani et al., "Scalable k-means++" (VLDB 2012). The result depends only on the seed and the points:
 * the bits do not depend on the number of threads.
 */
import type { CancelSignal } from "../../cancel.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { abortSignal, checkOptions, integerIn, numberIn, object, required, show } from "../../options.ts";
import { foldIn, type Key, key, uniformAt } from "../../tensor/rng.ts";
import { empty, scope, tensor } from "../../tensor/tensor.ts";

/** Points as rows of one array. */
export interface Points {
  /** The points, row by row [n · dim]. */
  readonly values: Float32Array;
  /** Numbers per point. */
  readonly dim: number;
}

/** Options of `kMeans`. */
export interface KMeansOptions {
  /** Number of clusters k. */
  readonly clusters: number;
  /** Largest number of Lloyd's iterations. Default 50. */
  readonly iterations?: number;
  /** The fit ends when the mean squared distance falls by less than this share of itself. Default 1e-5. */
  readonly tolerance?: number;
  /** Seed of the initial centroids. Default 1. */
  readonly seed?: number;
  /**
   * Balance of the cluster sizes, at least 1: no cluster gets more than ⌈balance · n / k⌉ points, as far as prices can separate them (copies of a
   * point stay together; `sizes` has the result). Default: no limit.
   */
  readonly balance?: number;
  /** Where the state is saved after each iteration, so that a fit that was stopped can continue and ends with the same bits. Default: nowhere. */
  readonly memory?: FitMemory;
  /** Cancels the fit, which then rejects with the signal's reason. */
  readonly signal?: CancelSignal;
}

/** The state of a fit: plain numbers and arrays. */
export interface FitState {
  /** Counts and other numbers of the fit. */
  readonly numbers: readonly number[];
  /** Centroids, assignments and other arrays of the fit. */
  readonly arrays: readonly (Float32Array | Int32Array)[];
}

/** Stores states by name. Storing a name again replaces its state; a state stored with `done` is final. */
export interface FitMemory {
  /** The state with this name; undefined if there is none. */
  recall(name: string): FitState | undefined;
  /** Stores a state under this name. `done` means that the fit of this name has ended. */
  remember(name: string, state: FitState, done: boolean): void;
}

/** The result of `kMeans`. */
export interface KMeansResult {
  /** Centroids [k · dim], row by row. */
  readonly centroids: Float32Array;
  /** Index of the nearest centroid of each point [n]; of equally near ones the first. */
  readonly ids: Int32Array;
  /**
   * Price of each cluster [k], added to the squared distance: 0 without `balance`. Points are assigned to the cluster with the smallest sum of
   * distance and price.
   */
  readonly prices: Float32Array;
  /** Number of points of each cluster [k]. Clusters that became empty were given the points farthest from their centroids. */
  readonly sizes: Int32Array;
  /** Mean squared distance of the points to their nearest centroids. */
  readonly meanSquare: number;
  /** Number of updates of the centroids. */
  readonly iterations: number;
}

export const kMeansDefaults = { iterations: 50, tolerance: 1e-5, seed: 1 };

/** Count of numbers in the points that the backend receives at once. */
const BLOCK = 1 << 22;
/** Largest number of points from which initial centroids are chosen: this many in total, or this many per centroid. */
const SEEDED = 1 << 16;
const SEEDED_EACH = 32;
/** Largest number of updates beyond `iterations`, if clusters that were empty have just been given a point. */
const EXTRA = 10;
/** Rounds of the seeding; each draws about k/2 candidates. */
const ROUNDS = 5;

/**
 * Clusters points by Euclidean distance. Needs a backend (`init`). Throws `config` for options out of range and for more clusters than points, and
 * `data` for points that are not finite, or whose squared lengths are too large or too small for f32.
 */
export async function kMeans(points: Points, options: KMeansOptions): Promise<KMeansResult> {
  checkLengths(points);
  return kMeansOfPart(points, options);
}

/** `kMeans` of some of the points that `checkLengths` has seen. Those can be as short as they like beside the others. */
export async function kMeansOfPart(points: Points, options: KMeansOptions): Promise<KMeansResult> {
  checkOptions<KMeansOptions>("kMeans", options, {
    clusters: required(integerIn(1)),
    iterations: integerIn(1),
    tolerance: numberIn({ min: 0 }),
    seed: integerIn(0),
    balance: numberIn({ min: 1 }),
    memory: object,
    signal: abortSignal,
  });
  const { clusters: k, iterations = kMeansDefaults.iterations, balance, memory, signal } = options;
  const { tolerance = kMeansDefaults.tolerance, seed = kMeansDefaults.seed } = options;
  const n = countOf(points);
  if (k > n)
    throw new GradmixError(
      "config",
      n === 0
        ? "kMeans: there are no points"
        : `kMeans: ${n} points cannot make ${k} clusters; ask for at most ${n}`,
    );
  const squares = squaredNorms(points);
  const most = balance === undefined ? null : Math.ceil((balance * n) / k);
  const known = memory?.recall(STATE);
  let state: State = (known === undefined ? null : stateOf(known)) ?? {
    updates: 0,
    before: Infinity,
    centroids: await seeding(points, squares, k, key(seed), signal),
    prices: new Float32Array(k),
  };
  const assign = async ({ centroids, prices }: State, rounds: number): Promise<Assigned> => {
    const all = { values: centroids, dim: points.dim };
    return most === null
      ? { ...(await nearest(points, squares, all, signal)), prices }
      : balanced(points, squares, all, prices, { most, rounds }, signal);
  };
  for (;;) {
    const { updates, before, centroids } = state;
    // While centroids still move, prices need not be exact.
    let { ids, distances, prices } = await assign(state, ROUGH_ROUNDS);
    const meanSquare = sumOf(distances) / n;
    const sizes = sizesOf(ids, k);
    const moved = repair(ids, distances, sizes);
    // A cluster that was just given its point does not have its own centroid yet.
    const settled = updates >= iterations || (updates > 0 && before - meanSquare <= tolerance * before);
    if (settled && (moved === 0 || updates >= iterations + EXTRA)) {
      if (most === null) return { centroids, ids, prices, sizes, meanSquare, iterations: updates };
      ({ ids, distances, prices } = await assign({ ...state, prices }, ROUNDS_OF_PRICES));
      return {
        ...{ centroids, ids, prices, sizes: sizesOf(ids, k) },
        ...{ meanSquare: sumOf(distances) / n, iterations: updates },
      };
    }
    state = {
      updates: updates + 1,
      before: meanSquare,
      centroids: means(points, ids, sizes, centroids),
      // Prices mostly rise during balancing; those that rose too far must be able to fall again.
      prices: prices.map((price) => price / 2),
    };
    memory?.remember(
      STATE,
      { numbers: [state.updates, state.before], arrays: [state.centroids, state.prices] },
      false,
    );
  }
}

/** Name of the state of a `kMeans` in its memory. */
const STATE = "iteration";

interface State {
  readonly updates: number;
  readonly before: number;
  readonly centroids: Float32Array;
  readonly prices: Float32Array;
}

/** The parts of a state; null if it is not the state of this fit. */
function stateOf({ numbers: [updates, before], arrays: [centroids, prices] }: FitState): State | null {
  if (updates === undefined || before === undefined) return null;
  return centroids instanceof Float32Array && prices instanceof Float32Array
    ? { updates, before, centroids, prices }
    : null;
}

function sizesOf(ids: Int32Array, k: number): Int32Array {
  const sizes = new Int32Array(k);
  for (const id of ids) sizes[id]!++;
  return sizes;
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

/** Number of points. Throws `shape` and `data`. */
export function countOf(points: Points): number {
  object("points", points);
  const { values, dim } = points;
  if (!(values instanceof Float32Array))
    throw new GradmixError("data", `points: values: ${show(values)} does not fit; it must be a Float32Array`);
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

/** The squared lengths that f32 can compare: four times the larger one is finite, and a 2⁻²⁴ of the smaller one is normal. */
const LONGEST = 2 ** 124;
const SHORTEST = 2 ** -100;

/**
 * Throws like `countOf`, and `data` for points with a squared length that is too large for f32, and if all are too short for it. Distances would then be
 * infinite or 0, and every point would be as near to one centroid as to another.
 */
export function checkLengths(...all: readonly Points[]): void {
  let longest = 0;
  for (const points of all) {
    countOf(points);
    for (const square of squaredNorms(points)) longest = Math.max(longest, square);
  }
  if (longest <= LONGEST && (longest >= SHORTEST || longest === 0)) {
    // Squares that underflow look like points that are all 0.
    if (longest > 0 || all.every(({ values }) => values.every((value) => value === 0))) return;
  }
  throw new GradmixError(
    "data",
    `points: the longest has a squared length of ${longest}, which is too ${longest > LONGEST ? "large" : "small"} for distances in f32; multiply all points by one number, so that it comes near 1`,
  );
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

/** The nearest centroid of each point. */
export interface Nearest {
  /** Index of the nearest centroid [n]; of equally near ones the first. */
  readonly ids: Int32Array;
  /** Squared distance to it [n]. */
  readonly distances: Float32Array;
}

interface Assigned extends Nearest {
  readonly prices: Float32Array;
}

/** argmaxⱼ x·cⱼ − (‖cⱼ‖² + priceⱼ)/2 is the nearest centroid. */
async function nearest(
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

/** Number of price updates: while centroids still move, and at the end. */
const ROUGH_ROUNDS = 20;
const ROUNDS_OF_PRICES = 200;
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
async function balanced(
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

/**
 * Gives every empty cluster the point that is farthest from its centroid, among those whose cluster keeps another point. Changes all three arrays and
 * returns the number of moved points. A point on its centroid stays.
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

/** Means of the clusters, computed in doubles in the order of the points. A cluster without points keeps its centroid. */
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
  const out = before.slice();
  sizes.forEach((size, j) => {
    if (size > 0) for (let d = j * dim; d < (j + 1) * dim; d++) out[d] = sums[d]! / size;
  });
  return out;
}

/**
 * k-means‖ seeding: a first point at random; then, ROUNDS times, each point with probability in proportion to its squared distance to the points
 * chosen so far, so that about k/2 are chosen per round; finally k of these candidates by k-means++, each weighted by the number of points nearest to
 * it.
 */
async function seeding(
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

/** The points with these indices, in their order. */
export function rowsOf({ values, dim }: Points, indices: ArrayLike<number>): Float32Array {
  const out = new Float32Array(indices.length * dim);
  for (let i = 0; i < indices.length; i++)
    out.set(values.subarray(indices[i]! * dim, (indices[i]! + 1) * dim), i * dim);
  return out;
}

function sumOf(numbers: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < numbers.length; i++) sum += numbers[i]!;
  return sum;
}
