/**
 * The histogram of a target over clusters: the share of its examples that is nearest to each centroid (CRISP; Grangier, Fan, Seto and Ablin 2025),
 * smoothed the more the fewer examples there are.
 *
 * Let n examples lie below a node of the tree of clusters, and n_c of them below its child c. The child's share of the node is estimated as
 *
 *     (n_c + a·m_c) / (n + a),   m_c: the child's share of the corpus below the node,
 *
 * the mean under a Dirichlet prior around the corpus. The strength a of each level is the one that makes left-out documents of the target most likely
 * given the others. So the shares of a target with few or scattered examples stay close to the corpus below the level that its examples distinguish.
 */
import { GradmixError } from "../../errors.ts";
import { checkRange, list, numberList, object } from "../../options.ts";
import { sumOf } from "./points.ts";

/** Shares of a target, in the order of the clusters. */
export interface ClusterShares {
  /** Share of each cluster [k], at least 0; they sum to 1. */
  readonly shares: Float64Array;
  /** Standard error of each share, √(s(1 − s)/effective) [k]: the error of sampling the target. The corpus is treated as known. */
  readonly standardErrors: Float64Array;
  /** Number of examples in each cluster [k]. */
  readonly counts: Float64Array;
  /** Number of examples that were counted: those in clusters that contain text of the corpus. */
  readonly examples: number;
  /**
   * Effective number of independent examples, with which the shares would be as uncertain: less than `examples` if those of one document are alike.
   * For a single document it is unknown, and equals `examples`.
   */
  readonly effective: number;
  /** Σ min(s, count/examples): the part of the shares that follows the examples; 1 without smoothing, and 0 without examples. */
  readonly own: number;
}

/**
 * A tree of clusters by levels, from the top: the children of node j are the nodes starts[j] … starts[j + 1] − 1 of the level below. A single level
 * with [0, k] has no tree.
 */
export type ClusterTree = readonly {
  /** Where the children of each node start in the level below, and after them where those of the last node end. */
  readonly starts: ArrayLike<number>;
}[];

/**
 * The strengths that are tried, from the weight of one example to practically infinite. Weaker ones would treat three examples of one kind as proof
 * that there are no others.
 */
const STRENGTHS = Array.from({ length: 31 }, (_, i) => 10 ** (i / 5));

/**
 * Estimates the shares of a target. `ids` has the cluster of each example of the target, `documents` the document of each example as any number, and
 * `sizes` the amount of text of the corpus in each cluster [k], in any unit. Examples in clusters without text are ignored. Throws `data` for invalid
 * cluster ids and for sizes that are negative or sum to 0, and `shape` for arrays whose lengths differ.
 */
export function clusterShares(
  ids: ArrayLike<number>,
  documents: ArrayLike<number>,
  sizes: ArrayLike<number>,
  levels?: ClusterTree,
): ClusterShares {
  numberList("clusterShares: ids", ids);
  numberList("clusterShares: documents", documents);
  numberList("clusterShares: sizes", sizes);
  const tree = levels ?? [{ starts: [0, sizes.length] }];
  list("clusterShares: tree", tree);
  for (const [i, level] of tree.entries()) object(`clusterShares: tree: ${i}`, level);
  const k = sizes.length;
  const parents = parentsOf(tree, k);
  if (documents.length !== ids.length)
    throw new GradmixError(
      "shape",
      `clusterShares: ${ids.length} examples and ${documents.length} documents`,
    );
  for (let i = 0; i < ids.length; i++)
    if (!Number.isInteger(ids[i]) || ids[i]! < 0 || ids[i]! >= k)
      throw new GradmixError("data", `clusterShares: example ${i} is in cluster ${ids[i]} of ${k}`);
  for (let c = 0; c < k; c++) checkRange(`clusterShares: sizes[${c}]`, sizes[c], { min: 0, max: Infinity });
  const total = sumOf(sizes);
  if (!(total > 0) || !Number.isFinite(total))
    throw new GradmixError("data", `clusterShares: the sizes of the clusters sum to ${total}`);

  const kept = Array.from(ids, (_, i) => i).filter((i) => sizes[ids[i]!]! > 0);
  const examples = groupExamples(
    kept.map((i) => ids[i]!),
    kept.map((i) => documents[i]!),
  );
  const counts = new Float64Array(k);
  for (const [cluster, count] of examples.flat()) counts[cluster]! += count;
  const shares = smoothed(examples, counts, sizes, parents);
  const effective = effectiveExamples(examples, counts, kept.length);
  return {
    shares,
    standardErrors: shares.map((s) => (effective === 0 ? NaN : Math.sqrt((s * (1 - s)) / effective))),
    counts,
    examples: kept.length,
    effective,
    own: kept.length === 0 ? 0 : shares.reduce((sum, s, c) => sum + Math.min(s, counts[c]! / kept.length), 0),
  };
}

/** For each level from the top, the parent of each of its nodes. */
function parentsOf(tree: ClusterTree, k: number): Int32Array[] {
  let nodes = 1;
  const parents = tree.map(({ starts }, level) => {
    if (starts.length !== nodes + 1 || starts[0] !== 0)
      throw new GradmixError(
        "shape",
        `clusterShares: level ${level} divides ${starts.length - 1} nodes of ${nodes}`,
      );
    nodes = starts[nodes]!;
    const own = new Int32Array(nodes);
    for (let j = 0; j + 1 < starts.length; j++) own.fill(j, starts[j], starts[j + 1]);
    return own;
  });
  if (nodes !== k)
    throw new GradmixError("shape", `clusterShares: a tree of ${nodes} clusters, and ${k} sizes`);
  return parents;
}

/** For each document, its clusters with the number of its examples in each. */
type Grouped = readonly (readonly (readonly [number, number])[])[];

function groupExamples(ids: readonly number[], documents: readonly number[]): Grouped {
  const groups = new Map<number, Map<number, number>>();
  ids.forEach((id, i) => {
    const own = groups.get(documents[i]!) ?? new Map<number, number>();
    groups.set(documents[i]!, own);
    own.set(id, (own.get(id) ?? 0) + 1);
  });
  return Array.from(groups.values(), (own) => [...own]);
}

function smoothed(
  examples: Grouped,
  counts: Float64Array,
  sizes: ArrayLike<number>,
  parents: readonly Int32Array[],
): Float64Array {
  // Upwards: the counts below each node. With a single document, its examples are left out one by one.
  let groups: Grouped =
    examples.length === 1
      ? examples[0]!.flatMap(([id, count]) => Array.from({ length: count }, () => [[id, 1] as const]))
      : examples;
  let level: LevelCounts = { counts, sizes: Float64Array.from(sizes) };
  const levels: Float64Array[] = [];
  for (const parent of parents.toReversed()) {
    const parentLevel: LevelCounts = {
      counts: upwards(level.counts, parent),
      sizes: upwards(level.sizes, parent),
    };
    const strength = likeliest(groups, level, parentLevel, parent);
    levels.unshift(
      Float64Array.from(parent, (j, c) => {
        const prior = parentLevel.sizes[j] === 0 ? 0 : level.sizes[c]! / parentLevel.sizes[j]!;
        return (level.counts[c]! + strength * prior) / (parentLevel.counts[j]! + strength);
      }),
    );
    groups = groups.map((own) => {
      const joined = new Map<number, number>();
      for (const [c, count] of own) joined.set(parent[c]!, (joined.get(parent[c]!) ?? 0) + count);
      return [...joined];
    });
    level = parentLevel;
  }
  // Downwards: the share of each node is that of its parent, divided.
  let shares = Float64Array.of(1);
  levels.forEach((own, level) => (shares = own.map((share, c) => share * shares[parents[level]![c]!]!)));
  const sum = sumOf(shares);
  return shares.map((share) => share / sum);
}

/** The counts below each node of a level. */
interface LevelCounts {
  readonly counts: Float64Array;
  readonly sizes: Float64Array;
}

function upwards(values: Float64Array, parent: Int32Array): Float64Array {
  const out = new Float64Array(parent.reduce((a, b) => Math.max(a, b), -1) + 1);
  values.forEach((value, c) => (out[parent[c]!]! += value));
  return out;
}

/** The strength under which left-out documents are most likely; the largest if the documents do not determine it. */
function likeliest(groups: Grouped, level: LevelCounts, parents: LevelCounts, parent: Int32Array): number {
  let [best, bestScore] = [STRENGTHS[STRENGTHS.length - 1]!, -Infinity];
  for (const strength of STRENGTHS.toReversed()) {
    let score = 0;
    for (const own of groups) {
      const ofParent = new Map<number, number>();
      for (const [c, count] of own) ofParent.set(parent[c]!, (ofParent.get(parent[c]!) ?? 0) + count);
      for (const [c, count] of own) {
        const j = parent[c]!;
        const others = parents.counts[j]! - (ofParent.get(j) ?? 0);
        const prior = level.sizes[c]! / parents.sizes[j]!;
        score += count * Math.log((level.counts[c]! - count + strength * prior) / (others + strength));
      }
    }
    // A difference within rounding does not justify less smoothing.
    if (score > bestScore + 1e-9 * Math.abs(score)) [best, bestScore] = [strength, score];
  }
  return best;
}

/**
 * The number of examples divided by the design effect: the variance of the shares between documents relative to that of as many independent examples,
 * summed over clusters; never more than the number of examples.
 */
function effectiveExamples(groups: Grouped, counts: Float64Array, n: number): number {
  const documents = groups.length;
  if (documents < 2) return n;
  let [between, independent] = [0, 0];
  counts.forEach((count) => (independent += (count / n) * (1 - count / n) * n));
  // Σ over documents of (n_dc − n_d·p_c)²: for the clusters of a document one by one, and for all others at once.
  const squares = counts.reduce((sum, count) => sum + (count / n) ** 2, 0);
  for (const own of groups) {
    const size = own.reduce((sum, [, count]) => sum + count, 0);
    let rest = squares;
    for (const [c, count] of own) {
      const p = counts[c]! / n;
      between += (count - size * p) ** 2;
      rest -= p * p;
    }
    between += size * size * Math.max(0, rest);
  }
  between *= documents / (documents - 1);
  return between <= independent ? n : n * (independent / between);
}
