/**
 * Clusters of clusters: k-means at each level within each cluster of the level above. With levels of 64 × 64 × 64 that gives up to 262,144 leaves, at the cost of 3 · 64 distances per
 * point and iteration. One level is plain k-means. A sample fits the tree; then any points can be assigned, as many at a time as fit into memory.
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
  type OptionChecks,
  required,
} from "../../options.ts";
import { foldIn, key } from "../../tensor/rng.ts";
import { kMeans, kMeansDefaults, nearestCentroids, type Points, rowsOf } from "./kmeans.ts";

export interface ClusterOptions {
  /** Clusters per cluster of the level above, from the top: [64, 64] makes up to 4,096. */
  readonly levels: readonly number[];
  /** As in `kMeans`. */
  readonly iterations?: number;
  readonly tolerance?: number;
  readonly seed?: number;
  readonly signal?: CancelSignal;
  /** Told after each fit: how many of the clusters above the lowest level have been divided, and how many there will be as far as is known. */
  readonly onProgress?: (done: number, known: number) => void;
}

/** Plain data: what assigns points to clusters. */
export interface Clusters {
  readonly dim: number;
  /** From the top. The last level's clusters are the leaves, whose numbers points are assigned. */
  readonly levels: readonly ClusterLevel[];
}

export interface ClusterLevel {
  /** [clusters · dim]. */
  readonly centroids: Float32Array;
  /** Children of cluster j of the level above are clusters starts[j] up to, and not with, starts[j + 1] of this one. At the top there is one parent. */
  readonly starts: Int32Array;
}

/** Number of leaves. */
export function leafCount({ levels, dim }: Clusters): number {
  const last = levels.at(-1);
  return last === undefined ? 0 : last.centroids.length / dim;
}

export const clusterChecks: OptionChecks<ClusterOptions> = {
  levels: required(list),
  iterations: integerIn(1),
  tolerance: numberIn({ min: 0 }),
  seed: integerIn(0),
  signal: abortSignal,
  onProgress: callback,
};

/**
 * Fits a tree of clusters. A cluster with fewer points than its level asks for is divided into as many clusters as it has points. Needs a backend (`init`). Throws as
 * `kMeans`; more clusters at the top than there are points are refused.
 */
export async function fitClusters(
  points: Points,
  options: ClusterOptions,
): Promise<{ readonly clusters: Clusters; readonly ids: Int32Array }> {
  checkOptions("fitClusters", options, clusterChecks);
  const { levels: wanted, seed = kMeansDefaults.seed, onProgress, ...passed } = options;
  if (wanted.length === 0)
    throw new GradmixError("config", "fitClusters: levels is empty; give at least one");
  wanted.forEach((k, level) => integerIn(1)(`fitClusters: levels[${level}]`, k));
  const n = points.values.length / points.dim;
  if (wanted[0]! > n)
    throw new GradmixError(
      "config",
      `fitClusters: ${wanted[0]} clusters of ${n} points; ask for ${n} at most`,
    );
  const levels: ClusterLevel[] = [];
  let ids = new Int32Array(n);
  let parents = 1;
  let done = 0;
  for (const [level, k] of wanted.entries()) {
    const members = membersOf(ids, parents);
    const found: Float32Array[] = [];
    const starts = new Int32Array(parents + 1);
    const next = new Int32Array(n);
    for (const [parent, indices] of members.entries()) {
      const part = { values: rowsOf(points, indices), dim: points.dim };
      const count = Math.min(k, indices.length);
      starts[parent + 1] = starts[parent]! + count;
      if (count > 0) {
        const own = await kMeans(part, { ...passed, clusters: count, seed: seedOf(seed, level, parent) });
        found.push(own.centroids);
        indices.forEach((i, at) => (next[i] = starts[parent]! + own.ids[at]!));
      }
      done++;
      onProgress?.(done, done + members.length - parent - 1);
    }
    levels.push({ centroids: joined(found), starts });
    ids = next;
    parents = starts[parents]!;
  }
  return { clusters: { dim: points.dim, levels }, ids };
}

/** The leaf of each point [n], going down from the nearest cluster of each level to the nearest of its children. Needs a backend. Throws as `nearestCentroids`. */
export async function assignClusters(
  { dim, levels }: Clusters,
  points: Points,
  signal?: CancelSignal,
): Promise<Int32Array> {
  if (points.dim !== dim)
    throw new GradmixError("shape", `assignClusters: points of ${points.dim} numbers, clusters of ${dim}`);
  let ids = new Int32Array(points.values.length / dim);
  for (const { centroids, starts } of levels) {
    const next = new Int32Array(ids.length);
    for (const [parent, indices] of membersOf(ids, starts.length - 1).entries()) {
      const [from, to] = [starts[parent]!, starts[parent + 1]!];
      if (indices.length === 0) continue;
      const children = { values: centroids.subarray(from * dim, to * dim), dim };
      const own = await nearestCentroids({ values: rowsOf(points, indices), dim }, children, signal);
      indices.forEach((i, at) => (next[i] = from + own.ids[at]!));
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
  ids.forEach((id, i) => (out[id]![sizes[id]!++] = i));
  return out;
}

/** Another seed for every cluster that is divided. */
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
