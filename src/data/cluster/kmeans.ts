/**
 * k-means on the engine: distances are matrix products that are never written (`nearest`), so that fitting and assigning run as fast as the backend multiplies.
 *
 * Lloyd's iteration (1957) from the seeding of Bahmani et al., "Scalable k-means++" (VLDB 2012). Everything is decided by the seed and the points: the bits do not depend on
 * the number of threads.
 */
import type { CancelSignal } from "../../cancel.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { abortSignal, checkOptions, integerIn, numberIn, object, required } from "../../options.ts";
import { foldIn, type Key, key, uniformAt } from "../../tensor/rng.ts";
import { empty, scope, tensor } from "../../tensor/tensor.ts";

/** Points as rows of one array: n·dim numbers. */
export interface Points {
  /** The points, row by row [n · dim]. */
  readonly values: Float32Array;
  /** Numbers per point. */
  readonly dim: number;
}

/** Options of `kMeans`. */
export interface KMeansOptions {
  /** k. */
  readonly clusters: number;
  /** Lloyd's iterations, at most. Default 50. */
  readonly iterations?: number;
  /** Iterations end when the mean squared distance falls by less than this share of itself. Default 1e-5. */
  readonly tolerance?: number;
  /** Default 1. */
  readonly seed?: number;
  /**
   * 1 or more: no cluster gets more than ⌈balance · n / k⌉ points, as far as prices can part them (copies of one point stay together; `sizes` says what came of it). Left out:
   * clusters are as large as they are.
   */
  readonly balance?: number;
  /** Where the state is kept after each iteration, so that a fit that was stopped goes on and ends with the same bits. */
  readonly memory?: FitMemory;
  /** Aborted: the call rejects with its reason. */
  readonly signal?: CancelSignal;
}

/** What a fit has computed so far: plain numbers and arrays. */
export interface FitState {
  /** Counts and other numbers of the fit. */
  readonly numbers: readonly number[];
  /** Centroids, assignments and other arrays of the fit. */
  readonly arrays: readonly (Float32Array | Int32Array)[];
}

/** Keeps states by name. A name that is remembered again is replaced; what `done` says is final. */
export interface FitMemory {
  /** The state with this name; undefined if there is none. */
  recall(name: string): FitState | undefined;
  /** Keeps a state under this name. `done` says that the fit of that name has ended. */
  remember(name: string, state: FitState, done: boolean): void;
}

/** What `kMeans` found. */
export interface KMeansResult {
  /** [k · dim], row by row. */
  readonly centroids: Float32Array;
  /** The nearest centroid of each point [n]; of equally near ones the first. */
  readonly ids: Int32Array;
  /** What a cluster costs beside the squared distance [k]: 0 without `balance`. Points are assigned where distance and price are least together. */
  readonly prices: Float32Array;
  /** Points of each cluster [k]. Clusters that became empty were given the points farthest from their centroids. */
  readonly sizes: Int32Array;
  /** Mean squared distance of the points to their nearest centroids. */
  readonly meanSquare: number;
  /** Updates of the centroids. */
  readonly iterations: number;
}

export const kMeansDefaults = { iterations: 50, tolerance: 1e-5, seed: 1 };

/** Numbers of points that the backend is given at once. */
const BLOCK = 1 << 22;
/** Points that centroids are first chosen from, at most: so many, or this many for each. */
const SEEDED = 1 << 16;
const SEEDED_EACH = 32;
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
    balance: numberIn({ min: 1 }),
    memory: object,
    signal: abortSignal,
  });
  const { clusters: k, iterations = kMeansDefaults.iterations, balance, memory, signal } = options;
  const { tolerance = kMeansDefaults.tolerance, seed = kMeansDefaults.seed } = options;
  const n = countOf(points);
  if (k > n) throw new GradmixError("config", `kMeans: ${k} clusters of ${n} points; ask for ${n} at most`);
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
    // Prices of centroids that still move need not be exact.
    let { ids, distances, prices } = await assign(state, ROUGH_ROUNDS);
    const meanSquare = sumOf(distances) / n;
    const sizes = sizesOf(ids, k);
    const moved = repair(ids, distances, sizes);
    // A cluster that just got its point has no centroid of its own yet.
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
      // They only rise while a balance is sought: where they rose too much, they come down again.
      prices: prices.map((price) => price / 2),
    };
    memory?.remember(
      STATE,
      { numbers: [state.updates, state.before], arrays: [state.centroids, state.prices] },
      false,
    );
  }
}

/** The name of the state of a `kMeans` in its memory. */
const STATE = "iteration";

interface State {
  readonly updates: number;
  readonly before: number;
  readonly centroids: Float32Array;
  readonly prices: Float32Array;
}

/** null where it is something else. */
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
 * The nearest centroid of each point, and the squared distance to it [n]. With `prices`, the centroid of which distance and price are least together. Throws as `kMeans`.
 */
export async function nearestCentroids(
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

/** The nearest centroid of each point. */
export interface Nearest {
  /** Index of the centroid [n]; of equally near ones the first. */
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
        // Rounding may leave a little less than nothing.
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

/** Times that prices are changed: while centroids still move, and at last. */
const ROUGH_ROUNDS = 20;
const ROUNDS_OF_PRICES = 200;
/** The first step of a price, in the variance of the centroids and for a cluster that is full twice, and the share of it that the last step is. */
const PRICE_STEP = 0.5;
const LAST_STEP = 1e-4;

/**
 * Assigns points so that no cluster has more than `most`, by prices: those of clusters that have too many rise, and of those that have room fall, to 0 at least, in ever smaller steps (along the
 * subgradient of the transport problem's dual). Where the rounds do not suffice, the most even assignment that was found is given.
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
  // At the best prices for a bound, points that lie between clusters go where they like: for a bound between the even size and the one that is wanted there is room for them.
  const wanted = (most + squares.length / from.length) / 2;
  let prices = from;
  let best: { found: Assigned; largest: number } | null = null;
  for (let round = 0; ; round++) {
    const { ids, distances } = await nearest(points, squares, centroids, signal, prices);
    const sizes = sizesOf(ids, from.length);
    const largest = sizes.reduce((a, b) => Math.max(a, b), 0);
    if (best === null || largest < best.largest) best = { found: { ids, distances, prices }, largest };
    if (best.largest <= most || round === rounds) return best.found;
    // Far at first, then ever nearer.
    const own = step * LAST_STEP ** Math.max(0, (2 * round) / rounds - 1);
    prices = prices.map((price, j) => Math.max(0, price + own * ((sizes[j] ?? 0) / wanted - 1)));
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
  const out = before.slice();
  sizes.forEach((size, j) => {
    if (size > 0) for (let d = j * dim; d < (j + 1) * dim; d++) out[d] = sums[d]! / size;
  });
  return out;
}

/**
 * k-means‖: a first point by chance; then, ROUNDS times, each point with a chance in proportion to its squared distance to what was chosen so far, so that about k/2 are chosen
 * per round; of these candidates k by k-means++, each weighted with the points that it is nearest to.
 */
async function seeding(
  all: Points,
  allSquares: Float32Array,
  k: number,
  random: Key,
  signal?: CancelSignal,
): Promise<Float32Array> {
  const some = Math.max(SEEDED, SEEDED_EACH * k);
  const points = allSquares.length <= some ? all : sampleOf(all, some, foldIn(random, ROUNDS + 2));
  const squares = points === all ? allSquares : squaredNorms(points);
  const n = squares.length;
  const rowsAt = (indices: readonly number[]): Float32Array => rowsOf(points, indices);
  const { dim } = points;
  const chosen = new Set([Math.min(n - 1, Math.floor(uniformAt(random, 0) * n))]);
  // Candidates are numbered as they are chosen.
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
  // Where chance left too few, the farthest points fill up.
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

/** One point of each of so many even parts of all. */
function sampleOf(points: Points, count: number, random: Key): Points {
  const each = points.values.length / points.dim / count;
  const indices = Float64Array.from({ length: count }, (_, i) =>
    Math.floor((i + uniformAt(random, i)) * each),
  );
  return { values: rowsOf(points, indices), dim: points.dim };
}

/** Candidates, at most, of which all products with each other are made, to choose among them greedily. */
const PRODUCTS = 2048;
/** Of two points: what is left of their squared distance by rounding, in their squared norms, is nothing. */
const ROUNDED = 1e-6;

/** k of many candidates, which are spread out already, by chance in proportion to their weights (Efraimidis and Spirakis 2006). */
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
 * k of the candidates by greedy k-means++ (Arthur and Vassilvitskii 2007) with weights: for each place a few are drawn, in proportion to weight times squared distance to
 * what was chosen, and the one that leaves the smallest sum is taken.
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
  const taken = new Uint8Array(m);
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
        mass[i] = taken[i] === 1 ? 0 : first ? weights[i]! : weights[i]! * distances[i]!;
      const draws = foldIn(random, chosen.length);
      const tried = new Set<number>();
      for (let trial = 0; trial < (first ? 1 : trials); trial++)
        tried.add(drawFrom(mass, uniformAt(draws, trial)));
      // Copies of chosen points are left: any will do.
      tried.delete(-1);
      if (tried.size === 0) tried.add(taken.indexOf(0));
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
      taken[i] = 1;
      chosen.push(i);
      distances = next;
    }
  } finally {
    y.dispose();
    all.dispose();
  }
  return chosen;
}

/** The index at which the running sum passes a share of the whole; -1 where the whole is 0. */
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

/** The points of these indices, in their order. */
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
