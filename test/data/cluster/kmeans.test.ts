/** k-means on every backend: against brute force in doubles, by the conditions of a solution, and on planted clusters. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { assignClusters, type Clusters, fitClusters, leafCount } from "#dist/data/cluster/tree.js";
import { type FitMemory, type FitState, kMeans } from "#dist/data/cluster/kmeans.js";
import { nearestCentroids } from "#dist/data/cluster/nearest-centroids.js";
import type { Points } from "#dist/data/cluster/points.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../../backends/all.ts";
import { gaussian, random } from "../../dga/arbitraries.ts";
import { expectNear } from "../../near.ts";

const rejected = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: unknown) => {
      const { code, message } = error as { code?: string; message: string };
      return `${code ?? ""}: ${message}`;
    },
  );

/** n points, point i around centre i mod k. */
function planted(seed: number, n: number, k: number, dim: number, noise: number): Points {
  const next = random(seed);
  const centres = Float32Array.from({ length: k * dim }, () => gaussian(next));
  const values = Float32Array.from(
    { length: n * dim },
    (_, at) => centres[(Math.floor(at / dim) % k) * dim + (at % dim)] + noise * gaussian(next),
  );
  return { values, dim };
}

const rowOf = ({ values, dim }: Points, i: number): Float32Array => values.subarray(i * dim, (i + 1) * dim);
const squareOf = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, value, d) => sum + (value - b[d]) ** 2, 0);

describe.each(backends)("on $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(() => backend.dispose());
  const runs = name.startsWith("webgpu") ? 3 : 20;

  test("the nearest centroid is the one found by brute force, across blocks", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(1e9),
        fc.integer({ min: 1, max: 70 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 33 }),
        async (seed, n, k, dim) => {
          const points = planted(seed, n, 5, dim, 1);
          const centroids = planted(seed + 1, k, k, dim, 0);
          const { ids, distances } = await nearestCentroids(points, centroids);
          for (let i = 0; i < n; i++) {
            const all = Array.from({ length: k }, (_, j) => squareOf(rowOf(points, i), rowOf(centroids, j)));
            const least = Math.min(...all);
            const size = 1e-5 * (1 + dim);
            expect(all[ids[i]] - least).toBeLessThan(size);
            expect(Math.abs(distances[i] - least)).toBeLessThan(size);
          }
        },
      ),
      { numRuns: runs },
    );
  });

  test("centroids are the means of their points, sizes count the points, and more updates never give a worse result", async () => {
    const points = planted(7, 300, 12, 9, 0.8);
    let before = Infinity;
    for (const iterations of [1, 2, 4, 50]) {
      const found = await kMeans(points, { clusters: 12, iterations, tolerance: 0, seed: 3 });
      expect(found.meanSquare).toBeLessThanOrEqual(before * (1 + 1e-6));
      before = found.meanSquare;
      const sizes = new Int32Array(12);
      for (const id of found.ids) sizes[id]++;
      expect(found.sizes).toEqual(sizes);
      expect(found.iterations).toBeLessThanOrEqual(iterations);
      if (iterations < 50) continue;
      // It has settled: nothing moves any more.
      expect(found.iterations).toBeLessThan(50);
      for (let j = 0; j < 12; j++) {
        const mean = new Float64Array(9);
        found.ids.forEach((id, i) => {
          if (id === j) for (let d = 0; d < 9; d++) mean[d] += points.values[i * 9 + d] / sizes[j];
        });
        expectNear(found.centroids.subarray(j * 9, (j + 1) * 9), mean, 1e-5, 1);
      }
      expectNear(
        found.meanSquare,
        [...found.ids].reduce(
          (sum, id, i) => sum + squareOf(rowOf(points, i), found.centroids.subarray(id * 9, (id + 1) * 9)),
          0,
        ) / 300,
        1e-4,
      );
    }
  });

  test("points of any scale are clustered as those near 1 are, or refused", async () => {
    const points = planted(3, 40, 4, 5, 0.1);
    const centroids = { values: points.values.slice(0, 20), dim: 5 };
    const scaled = ({ values, dim }: Points, by: number): Points => ({
      values: values.map((value) => value * by),
      dim,
    });
    const wanted = [
      (await kMeans(points, { clusters: 4 })).ids,
      (await nearestCentroids(points, centroids)).ids,
      (await fitClusters(points, { levels: [2, 4] })).ids,
    ];
    const { clusters } = await fitClusters(points, { levels: [2, 4] });
    const assigned = await assignClusters(clusters, points);
    const refusal =
      /points: the longest has a squared length of .*, which is too (large|small) for distances in f32; multiply all points by one number/;
    let accepted = 0;
    for (const exponent of [-149, -140, -100, -75, -60, -50, -40, -10, 10, 40, 55, 60, 63, 64, 80, 120]) {
      const by = 2 ** exponent;
      const all = scaled(points, by);
      const found = await Promise.allSettled([
        kMeans(all, { clusters: 4 }).then(({ ids }) => ids),
        nearestCentroids(all, scaled(centroids, by)).then(({ ids }) => ids),
        fitClusters(all, { levels: [2, 4] }).then(({ ids }) => ids),
      ]);
      for (const [i, one] of found.entries())
        if (one.status === "fulfilled") {
          accepted++;
          expect(one.value, `2^${exponent}`).toEqual(wanted[i]);
        } else expect(String(one.reason)).toMatch(refusal);
    }
    expect(accepted).toBeGreaterThanOrEqual(3 * 6);
    // Short points beside long ones are as near to each other as f32 tells.
    expect(await assignClusters(clusters, points)).toEqual(assigned);
    expect(await rejected(assignClusters(clusters, scaled(points, 2 ** 70)))).toMatch(refusal);
    expect((await assignClusters(clusters, scaled(points, 2 ** -140))).length).toBe(40);
  });

  test("well separated clusters are found", async () => {
    const [n, k] = [400, 25];
    const points = planted(5, n, k, 16, 0.02);
    const { ids } = await kMeans(points, { clusters: k });
    for (let i = k; i < n; i++) expect(ids[i]).toBe(ids[i % k]);
    expect(new Set(ids).size).toBe(k);
  });
});

describe("on the cpu", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await backends[1].create();
    setCurrentMemory(backend);
  });
  afterAll(() => backend.dispose());

  test("the bits do not depend on the number of threads, but on the seed", async () => {
    const points = planted(2, 500, 40, 20, 1);
    const fit = (seed: number): ReturnType<typeof fitClusters> =>
      fitClusters(points, { levels: [5, 6], seed });
    const [one, again, other] = [await fit(1), await fit(1), await fit(2)];
    expect(again).toEqual(one);
    expect(other.ids).not.toEqual(one.ids);
    const three = await createCpuBackend({ threads: 3 });
    setCurrentMemory(three);
    expect(await fit(1)).toEqual(one);
    setCurrentMemory(backend);
    await three.dispose();
  });

  test("with as many different points as clusters, each point gets its own cluster, however often points repeat", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 12 }), fc.nat(1e9), async (k, seed) => {
        const next = random(seed);
        // One of them stands for nearly all points.
        const values = Float32Array.from([
          ...Array.from({ length: k }, (_, i) => i * i),
          ...Array.from({ length: 60 }, () => (next() < 0.9 ? 0 : Math.floor(next() * k) ** 2)),
        ]);
        const { ids, sizes, meanSquare } = await kMeans({ values, dim: 1 }, { clusters: k, seed });
        expect(sizes.every((size) => size > 0)).toBe(true);
        expectNear(meanSquare, 0, 1e-4, 1);
        ids.forEach((id, i) => expect(id).toBe(ids[Math.sqrt(values[i])]));
      }),
      { numRuns: 30 },
    );
  });

  test("with more clusters than different points, some clusters are empty", async () => {
    const found = await kMeans({ values: new Float32Array(12).fill(3), dim: 2 }, { clusters: 4 });
    expect(found.sizes.toSorted()).toEqual(Int32Array.of(0, 0, 0, 6));
    expect(found.centroids.every((value) => value === 3)).toBe(true);
  });

  test("in a tree, each cluster lies within its parent, and points are assigned as they were fitted", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(1e9),
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 }),
        async (seed, levels) => {
          const n = 80;
          const points = planted(seed, n, 10, 4, 0.5);
          const { clusters, ids } = await fitClusters(points, { levels, seed, iterations: 5 });
          expect(await assignClusters(clusters, points)).toEqual(ids);
          let parents = 1;
          for (const [level, { starts, centroids }] of clusters.levels.entries()) {
            expect(starts.length).toBe(parents + 1);
            for (let j = 0; j < parents; j++) {
              expect(starts[j + 1] - starts[j]).toBeGreaterThan(0);
              expect(starts[j + 1] - starts[j]).toBeLessThanOrEqual(levels[level]);
            }
            parents = starts[parents];
            expect(centroids.length).toBe(parents * 4);
          }
          expect(leafCount(clusters)).toBe(parents);
          expect(parents).toBeLessThanOrEqual(levels.reduce((a, b) => a * b, 1));
          expect(new Set(ids).size).toBe(parents);
        },
      ),
      { numRuns: 15 },
    );
  });

  test("balanced clusters respect their bound at every level, and new points are assigned by the same prices", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(1e9), fc.constantFrom(1.1, 1.5, 3), async (seed, balance) => {
        // Two thirds of the points are of one of the centres.
        const next = random(seed);
        const made = planted(seed, 240, 8, 5, 0.3);
        const values = Float32Array.from(made.values, (value, at) =>
          Math.floor(at / 5) % 3 === 0 ? value : (made.values[at % 5] ?? 0) + 0.3 * gaussian(next),
        );
        const points = { values, dim: 5 };
        const { clusters, ids } = await fitClusters(points, {
          levels: [4, 3],
          balance,
          seed,
          iterations: 10,
        });
        expect(await assignClusters(clusters, points)).toEqual(ids);
        const [top, leaves] = clusters.levels;
        const sizes = new Int32Array(12);
        for (const id of ids) sizes[id]++;
        for (let parent = 0; parent < 4; parent++) {
          const [from, to] = [leaves.starts[parent], leaves.starts[parent + 1]];
          const own = sizes.slice(from, to);
          const all = own.reduce((a, b) => a + b, 0);
          expect(all).toBeLessThanOrEqual(Math.ceil((balance * 240) / 4));
          expect(Math.max(...own)).toBeLessThanOrEqual(Math.ceil((balance * all) / own.length));
        }
        if (balance < 1.5) expect(top.prices?.some((price) => price > 0)).toBe(true);
      }),
      { numRuns: 5 },
    );
    // Copies of one point cannot be parted: the fit ends, and says what came of it.
    const copies = await kMeans({ values: new Float32Array(40), dim: 2 }, { clusters: 2, balance: 1 });
    expect(Math.max(...copies.sizes)).toBe(20);
  });

  test("a fit that is stopped at any point continues from its saved state to the same bits", async () => {
    const points = planted(11, 300, 20, 6, 0.7);
    const options = { levels: [4, 5], balance: 1.5, seed: 3 };
    const whole = await fitClusters(points, options);
    for (const stopAt of [1, 2, 5, 9, 20]) {
      const known = new Map<string, FitState>();
      let count = 0;
      const stop = new AbortController();
      const memory: FitMemory = {
        recall: (name) => known.get(name),
        remember(name, state) {
          // As a file would have it.
          known.set(name, structuredClone(state));
          if (++count === stopAt) stop.abort(new Error("stopped"));
        },
      };
      expect(await rejected(fitClusters(points, { ...options, memory, signal: stop.signal }))).toContain(
        "stopped",
      );
      const before = count;
      expect(await fitClusters(points, { ...options, memory })).toEqual(whole);
      // Finished iterations are not repeated.
      let again = 0;
      await fitClusters(points, { ...options, memory: { ...memory, remember: () => again++ } });
      expect({ again, more: count > before }).toEqual({ again: 0, more: true });
    }
  });

  test("clusters are also found among more points than the initial centroids are chosen from", async () => {
    const points = planted(5, 70_000, 6, 3, 0.01);
    const { ids, sizes } = await kMeans(points, { clusters: 6 });
    for (let i = 6; i < 70_000; i += 997) expect(ids[i]).toBe(ids[i % 6]);
    expect(Math.min(...sizes)).toBeGreaterThan(10_000);
  });

  test("very many clusters get random initial centroids, and each has points", async () => {
    const points = planted(9, 4000, 900, 8, 0.05);
    const found = await kMeans(points, { clusters: 900, iterations: 3 });
    expect(new Set(found.ids).size).toBe(900);
    // Far below what 900 points by chance leave: a third of the centres have none of them.
    expect(found.meanSquare).toBeLessThan(0.5);
  });

  test("invalid input is refused", async () => {
    const points = { values: Float32Array.of(1, 2, 3, 4), dim: 2 };
    expect(await rejected(kMeans(points, { clusters: 3 }))).toBe(
      "config: kMeans: 2 points cannot make 3 clusters; ask for at most 2",
    );
    expect(await rejected(kMeans({ values: Float32Array.of(1, NaN), dim: 2 }, { clusters: 1 }))).toBe(
      "data: points: number 1 of point 0 is NaN; all must be finite",
    );
    expect(await rejected(kMeans({ ...points, dim: 3 }, { clusters: 1 }))).toContain("not rows of 3");
    expect(await rejected(nearestCentroids(points, { values: Float32Array.of(1), dim: 1 }))).toContain(
      "points of 2 numbers, centroids of 1",
    );
    expect(await rejected(fitClusters(points, { levels: [] }))).toContain("levels is empty");
    expect(await rejected(fitClusters(points, { levels: [1, 0] }))).toContain("levels[1]");
    expect(await rejected(fitClusters(points, { levels: [9] }))).toContain("2 points cannot make 9 clusters");
    expect(await rejected(kMeans(points, { clusters: 1, balance: 0.9 }))).toContain("balance");
    const none: Clusters = { dim: 3, levels: [] };
    expect(await rejected(assignClusters(none, points))).toContain("points of 2 numbers, clusters of 3");
    const stopped = new AbortController();
    stopped.abort(new Error("stopped"));
    expect(await rejected(kMeans(points, { clusters: 1, signal: stopped.signal }))).toContain("stopped");
  });
});
