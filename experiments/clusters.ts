/**
 * Divides windows of text into clusters with similar content, by a tree of spherical k-means on hashed tf-idf with eight branches per node. So 8, 64, 512 and 4,096
 * clusters are the depths 1 to 4 of one tree. A window costs eight products per level, whatever the number of clusters.
 */
import { randomOf } from "./random.ts";

export const BRANCHES = 8;
const BUCKETS = 1024;
const ROUNDS = 8;

/** One vector per row, in compressed form: row r has the entries offsets[r] … offsets[r + 1] − 1. Rows have the norm 1, or 0 if they are empty. */
export interface SparseRows {
  readonly offsets: Int32Array;
  readonly columns: Uint16Array;
  readonly values: Float32Array;
}

/** ln(rows / rows with the term), by bucket. */
export type Idf = Float32Array;

export interface Node {
  /** Mean of its members, scaled to the norm 1 [buckets]. */
  readonly centre: Float32Array;
  readonly members: Int32Array;
  /** Empty if the node has too few members, or is deep enough. */
  readonly children: readonly Node[];
}

const bucketOf = (token: number): number => (Math.imul(token, 0x9e3779b1) >>> 16) % BUCKETS;

/** Returns the tf-idf of windows of tokens; without `idf`, with the document frequencies of these windows. */
export function tfidf(windows: readonly ArrayLike<number>[], idf?: Idf): { rows: SparseRows; idf: Idf } {
  const counts = windows.map((window) => {
    const own = new Map<number, number>();
    for (let t = 0; t < window.length; t++) {
      const bucket = bucketOf(window[t]);
      own.set(bucket, (own.get(bucket) ?? 0) + 1);
    }
    return own;
  });
  const weights = idf ?? frequencies(counts);
  const offsets = new Int32Array(windows.length + 1);
  counts.forEach((own, r) => (offsets[r + 1] = offsets[r] + own.size));
  const columns = new Uint16Array(offsets[windows.length]);
  const values = new Float32Array(columns.length);
  counts.forEach((own, r) => {
    let at = offsets[r];
    for (const [bucket, count] of own) {
      columns[at] = bucket;
      values[at++] = (1 + Math.log(count)) * weights[bucket];
    }
    normalise(values.subarray(offsets[r], at));
  });
  return { rows: { offsets, columns, values }, idf: weights };
}

function frequencies(counts: readonly ReadonlyMap<number, number>[]): Idf {
  const found = new Float32Array(BUCKETS);
  for (const own of counts) for (const bucket of own.keys()) found[bucket]++;
  return found.map((n) => (n === 0 ? 0 : Math.log(counts.length / n)));
}

function normalise(vector: Float32Array): void {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  if (length > 0) for (let i = 0; i < vector.length; i++) vector[i] /= length;
}

/** Returns the tree over all rows, with `depth` levels below its root. */
export function clusterTree(rows: SparseRows, depth: number, seed: number): Node {
  const all = Int32Array.from({ length: rows.offsets.length - 1 }, (_, r) => r);
  return grow(rows, centreOf(rows, all), all, depth, randomOf(seed));
}

function grow(
  rows: SparseRows,
  centre: Float32Array,
  members: Int32Array,
  depth: number,
  random: () => number,
): Node {
  if (depth === 0 || members.length < BRANCHES) return { centre, members, children: [] };
  const children = kMeans(rows, members, BRANCHES, random).map((part) =>
    grow(rows, part.centre, part.members, depth - 1, random),
  );
  return { centre, members, children };
}

/** Returns the clusters at a depth, in the tree's order. A node that was not divided further is a cluster itself. */
export function clustersAt(node: Node, depth: number): Node[] {
  return depth === 0 || node.children.length === 0
    ? [node]
    : node.children.flatMap((child) => clustersAt(child, depth - 1));
}

/** Returns the cluster of a row at a depth: from the root down, the child with the nearest centre. */
export function clusterOf(root: Node, depth: number, rows: SparseRows, row: number): Node {
  let node = root;
  for (let level = 0; level < depth && node.children.length > 0; level++) {
    const { children } = node;
    node =
      children[
        nearest(
          rows,
          row,
          children.map(({ centre }) => centre),
        ).index
      ];
  }
  return node;
}

/** Divides at least `count` members into `count` parts, none of which is empty. */
export function kMeans(
  rows: SparseRows,
  members: Int32Array,
  count: number,
  random: () => number,
): { centre: Float32Array; members: Int32Array }[] {
  let centres = firstCentres(rows, members, count, random);
  let labels = new Int32Array(members.length);
  for (let round = 0; round < ROUNDS; round++) {
    const found = Array.from(members, (row) => nearest(rows, row, centres));
    const next = Int32Array.from(found, ({ index }) => index);
    fillEmpty(next, found, count);
    const settled = round > 0 && next.every((label, i) => label === labels[i]);
    labels = next;
    centres = partsOf(members, labels, count).map((part) => centreOf(rows, part));
    if (settled) break;
  }
  return partsOf(members, labels, count).map((part, c) => ({ centre: centres[c], members: part }));
}

function partsOf(members: Int32Array, labels: Int32Array, count: number): Int32Array[] {
  return Array.from({ length: count }, (_, c) => members.filter((_row, i) => labels[i] === c));
}

/** Gives each empty part the member that fits worst in its own part, from a part with other members. */
function fillEmpty(labels: Int32Array, found: readonly { readonly score: number }[], count: number): void {
  const sizes = new Int32Array(count);
  for (const label of labels) sizes[label]++;
  if (sizes.every((size) => size > 0)) return;
  const worst = [...labels.keys()].sort((a, b) => found[a].score - found[b].score);
  let at = 0;
  for (let c = 0; c < count; c++) {
    if (sizes[c] > 0) continue;
    while (sizes[labels[worst[at]]] < 2) at++;
    sizes[labels[worst[at]]]--;
    labels[worst[at++]] = c;
    sizes[c] = 1;
  }
}

/** k-means++ on a sample: the next centre is a member that is drawn in proportion to its distance from the earlier ones (D. Arthur, S. Vassilvitskii, 2007). */
function firstCentres(
  rows: SparseRows,
  members: Int32Array,
  count: number,
  random: () => number,
): Float32Array[] {
  const sample = Int32Array.from({ length: Math.min(512, members.length) }, (_, i, of = members.length) =>
    of <= 512 ? members[i] : members[Math.floor(random() * of)],
  );
  const centres: Float32Array[] = [];
  let next = sample[Math.floor(random() * sample.length)];
  while (centres.length < count) {
    centres.push(centreOf(rows, Int32Array.of(next)));
    const distances = Array.from(sample, (row) => Math.max(0, 1 - nearest(rows, row, centres).score));
    let left = random() * distances.reduce((a, b) => a + b, 0);
    const drawn = distances.findIndex((distance) => (left -= distance) < 0);
    next = sample[Math.max(0, drawn)];
  }
  return centres;
}

function centreOf(rows: SparseRows, members: Int32Array): Float32Array {
  const centre = new Float32Array(BUCKETS);
  for (const row of members)
    for (let e = rows.offsets[row]; e < rows.offsets[row + 1]; e++) centre[rows.columns[e]] += rows.values[e];
  normalise(centre);
  return centre;
}

function nearest(
  { offsets, columns, values }: SparseRows,
  row: number,
  centres: readonly Float32Array[],
): { index: number; score: number } {
  let best = { index: 0, score: -Infinity };
  for (let c = 0; c < centres.length; c++) {
    const centre = centres[c];
    let score = 0;
    for (let e = offsets[row]; e < offsets[row + 1]; e++) score += values[e] * centre[columns[e]];
    if (score > best.score) best = { index: c, score };
  }
  return best;
}
