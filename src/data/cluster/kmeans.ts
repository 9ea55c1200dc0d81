/**
 * k-means on the engine: distances are matrix products that are never stored (nearest-centroids.ts), so fitting and assigning run at the backend's speed of
 * multiplication.
 *
 * Lloyd's iteration (1957) with the seeding of Bahmani et al. (seeding.ts). The result depends only on the seed and the points:
 * the bits do not depend on the number of threads.
 */
import type { CancelSignal } from "../../cancel.ts";
import { GradmixError } from "../../errors.ts";
import { abortSignal, checkOptions, integerIn, numberIn, object, required } from "../../options.ts";
import { key } from "../../tensor/rng.ts";
import { kMeansDefaults } from "../defaults.ts";
import { type Points, countOf, checkLengths, squaredNorms, sumOf } from "./points.ts";
import { nearest } from "./nearest-centroids.ts";
import { type Assigned, ROUGH_ROUNDS, ROUNDS_OF_PRICES, balanced, sizesOf } from "./balance.ts";
import { seeding } from "./seeding.ts";

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

/** Largest number of updates beyond `iterations`, if clusters that were empty have just been given a point. */
const EXTRA = 10;

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
