/**
 * Clusters of clusters: k-means at each level within each cluster of the level above. Levels of 64 × 64 × 64 give up to 262,144 leaves at the cost of
 * 3 · 64 distances per point and iteration. A single level is plain k-means. The tree is fitted to a sample; then any points can be assigned, as many
 * at a time as fit into memory.
 */
import type { CancelSignal } from "../../cancel.ts";
import { GradmixError } from "../../errors.ts";
import {
  abortSignal,
  callback,
  checkOptions,
  integerIn,
  list,
  numberIn,
  object,
  type OptionChecks,
  required,
  objectWith,
} from "../../options.ts";
import { foldIn, key } from "../../tensor/rng.ts";
import { kMeansDefaults } from "../defaults.ts";
import { type FitMemory, type FitState, kMeansOfPart } from "./kmeans.ts";
import { nearestOfPart } from "./nearest-centroids.ts";
import { type Points, rowsOf, checkLengths, countOf } from "./points.ts";

/** Options of `fitClusters`. */
export interface ClusterOptions {
  /** Clusters per cluster of the level above, from the top: [64, 64] makes up to 4,096 leaves. */
  readonly levels: readonly number[];
  /** Largest number of Lloyd's iterations. Default 50, as in `kMeans`. */
  readonly iterations?: number;
  /** Relative decrease of the mean squared distance below which a fit ends. Default 1e-5, as in `kMeans`. */
  readonly tolerance?: number;
  /** Seed of the initial centroids. Default 1, as in `kMeans`. */
  readonly seed?: number;
  /** Balance of the cluster sizes at each level, at least 1: no cluster gets more than ⌈balance · n / k⌉ of the n points of its parent. Default: no limit. */
  readonly balance?: number;
  /** Where the state is saved, so that a fit that was stopped can continue and ends with the same bits. Default: nowhere. */
  readonly memory?: FitMemory;
  /** Cancels the fit, which then throws the signal's reason. */
  readonly signal?: CancelSignal;
  /** Called after each fit with the number of clusters above the lowest level that have been divided, and the number known so far that have to be. */
  readonly onProgress?: (done: number, known: number) => void;
}

/** A tree of clusters that assigns points: plain data. */
export interface Clusters {
  /** Numbers per point. */
  readonly dim: number;
  /** The levels, from the top. The clusters of the last level are the leaves; points are assigned their indices. */
  readonly levels: readonly ClusterLevel[];
}

/** The clusters of one level. */
export interface ClusterLevel {
  /** Centroids [clusters · dim], row by row. */
  readonly centroids: Float32Array;
  /** Price of each cluster, added to the squared distance [clusters]. Left out if all are 0. */
  readonly prices?: Float32Array;
  /** The children of cluster j of the level above are the clusters starts[j] … starts[j + 1] − 1 of this level. At the top there is one parent. */
  readonly starts: Int32Array;
}

/** Number of leaves. */
export function leafCount(clusters: Clusters): number {
  checkClusters("leafCount: clusters", clusters);
  const { levels, dim } = clusters;
  const last = levels.at(-1);
  return last === undefined ? 0 : last.centroids.length / dim;
}

const checkClusters = objectWith("clusters of fitClusters", "dim", "levels");

export const clusterChecks: OptionChecks<ClusterOptions> = {
  levels: required(list),
  iterations: integerIn(1),
  tolerance: numberIn({ min: 0 }),
  seed: integerIn(0),
  balance: numberIn({ min: 1 }),
  memory: object,
  signal: abortSignal,
  onProgress: callback,
};

/**
 * Fits a tree of clusters to points. A cluster with fewer points than its level requires is divided into as many clusters as it has points. Needs a
 * backend (`init`). Throws like `kMeans`, also for more clusters at the top than points.
 */
export async function fitClusters(
  points: Points,
  options: ClusterOptions,
): Promise<{
  /** The clusters, which assign points. */
  readonly clusters: Clusters;
  /** Index of the leaf of each point [n]. */
  readonly ids: Int32Array;
}> {
  checkOptions("fitClusters", options, clusterChecks);
  const { levels: wanted, seed = kMeansDefaults.seed, onProgress, memory, ...passed } = options;
  if (wanted.length === 0)
    throw new GradmixError("config", "fitClusters: levels is empty; give at least one");
  wanted.forEach((k, level) => integerIn(1)(`fitClusters: levels[${level}]`, k));
  checkLengths(points);
  const n = countOf(points);
  if (wanted[0]! > n)
    throw new GradmixError(
      "config",
      `fitClusters: ${n} points cannot make ${wanted[0]} clusters; ask for at most ${n}`,
    );
  const levels: ClusterLevel[] = [];
  let ids = new Int32Array(n);
  let parents = 1;
  let done = 0;
  for (const [level, k] of wanted.entries()) {
    const members = membersOf(ids, parents);
    const found: Float32Array[] = [];
    const prices: Float32Array[] = [];
    const starts = new Int32Array(parents + 1);
    const next = new Int32Array(n);
    for (const [parent, indices] of members.entries()) {
      const count = Math.min(k, indices.length);
      starts[parent + 1] = starts[parent]! + count;
      if (count > 0) {
        const name = `${level}.${parent}`;
        const own = dividedOf(memory?.recall(name)) ?? (await divide(name, indices, count));
        found.push(own.centroids);
        prices.push(own.prices);
        for (let i = 0; i < indices.length; i++) next[indices[i]!] = starts[parent]! + own.ids[i]!;
      }
      done++;
      onProgress?.(done, done + members.length - parent - 1);
    }
    const centroids = joined(found);
    levels.push(
      passed.balance === undefined ? { centroids, starts } : { centroids, prices: joined(prices), starts },
    );
    ids = next;
    parents = starts[parents]!;
  }
  return { clusters: { dim: points.dim, levels }, ids };

  async function divide(name: string, indices: Int32Array, count: number): Promise<Divided> {
    const [level = 0, parent = 0] = name.split(".").map(Number);
    // If these are all points, no copy is needed.
    const own = indices.length === n ? points : { values: rowsOf(points, indices), dim: points.dim };
    const {
      centroids,
      ids: mine,
      prices,
    } = await kMeansOfPart(own, {
      ...passed,
      ...{ clusters: count, seed: seedOf(seed, level, parent) },
      ...(memory === undefined ? {} : { memory: within(memory, name) }),
    });
    memory?.remember(name, { numbers: [], arrays: [centroids, mine, prices] }, true);
    return { centroids, ids: mine, prices };
  }
}

/** A cluster of the level above, after it was divided. */
interface Divided {
  readonly centroids: Float32Array;
  readonly ids: Int32Array;
  readonly prices: Float32Array;
}

function dividedOf(state: FitState | undefined): Divided | null {
  const [centroids, ids, prices] = state?.arrays ?? [];
  return centroids instanceof Float32Array && ids instanceof Int32Array && prices instanceof Float32Array
    ? { centroids, ids, prices }
    : null;
}

/** The part of a memory that belongs to one of many fits. */
const within = (memory: FitMemory, name: string): FitMemory => ({
  recall: (own) => memory.recall(`${name}.${own}`),
  remember: (own, state, done) => memory.remember(`${name}.${own}`, state, done),
});

/**
 * Assigns each point to a leaf [n], by going from the nearest cluster of each level to the nearest of its children. Needs a backend (`init`). Throws
 * like `nearestCentroids`.
 */
export async function assignClusters(
  clusters: Clusters,
  points: Points,
  signal?: CancelSignal,
): Promise<Int32Array> {
  checkClusters("assignClusters: clusters", clusters);
  const { dim, levels } = clusters;
  checkLengths(points, ...levels.map(({ centroids }) => ({ values: centroids, dim })));
  if (points.dim !== dim)
    throw new GradmixError("shape", `assignClusters: points of ${points.dim} numbers, clusters of ${dim}`);
  let ids = new Int32Array(points.values.length / dim);
  for (const { centroids, starts, prices } of levels) {
    const next = new Int32Array(ids.length);
    for (const [parent, indices] of membersOf(ids, starts.length - 1).entries()) {
      const [from, to] = [starts[parent]!, starts[parent + 1]!];
      if (indices.length === 0) continue;
      const children = { values: centroids.subarray(from * dim, to * dim), dim };
      const subset = indices.length === ids.length ? points : { values: rowsOf(points, indices), dim };
      const own = await nearestOfPart(subset, children, signal, prices?.subarray(from, to));
      for (let i = 0; i < indices.length; i++) next[indices[i]!] = from + own.ids[i]!;
    }
    ids = next;
  }
  return ids;
}

/** The points of each cluster, in their order. */
function membersOf(ids: Int32Array, clusters: number): Int32Array[] {
  const sizes = new Int32Array(clusters);
  for (const id of ids) sizes[id]!++;
  const out = Array.from(sizes, (size) => new Int32Array(size));
  sizes.fill(0);
  for (let i = 0; i < ids.length; i++) out[ids[i]!]![sizes[ids[i]!]!++] = i;
  return out;
}

/** A different seed for every cluster that is divided. */
function seedOf(seed: number, level: number, parent: number): number {
  const [high, low] = foldIn(foldIn(key(seed), level), parent);
  return (high & 0x1fffff) * 2 ** 32 + low;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
