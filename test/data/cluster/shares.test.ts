/**
 * Shares of a target over clusters: the estimate against a dense one, the effect of few and many examples, standard errors against repeated draws, and
 * pieces of texts.
 */
import fc from "fast-check";
import {
  clusterHistogram,
  clusterShares,
  type ClusterTree,
  cutTexts,
  fitTextClusters,
  groupTexts,
} from "gradmix/data";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../../backends/all.ts";
import { random } from "../../dga/arbitraries.ts";
import { codeOf } from "../../errors.ts";
import { expectNear } from "../../near.ts";

const sum = (values: Iterable<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

/** Three levels: 2 nodes, 5, and 11 leaves. */
const tree: ClusterTree = [{ starts: [0, 2] }, { starts: [0, 3, 5] }, { starts: [0, 4, 5, 7, 9, 11] }];
const leaves = 11;
/** For each leaf, the nodes from the top down to it. */
const paths = [
  ...Array.from({ length: 4 }, (_, c) => [0, 0, c]),
  [0, 1, 4],
  [0, 2, 5],
  [0, 2, 6],
  [1, 3, 7],
  [1, 3, 8],
  [1, 4, 9],
  [1, 4, 10],
];

interface Example {
  readonly cluster: number;
  readonly document: number;
}

/** The formulas of src/data/cluster/shares.ts, from the examples, with nothing counted before. */
function dense(
  examples: readonly Example[],
  sizes: readonly number[],
  of: readonly (readonly number[])[],
): number[] {
  const kept = examples.filter(({ cluster }) => sizes[cluster] > 0);
  const alone = new Set(kept.map(({ document }) => document)).size === 1;
  const group = (e: Example, i: number): number => (alone ? i : e.document);
  const depth = of[0].length;
  const node = (cluster: number, level: number): number => (level < 0 ? 0 : of[cluster][level]);
  const size = (level: number, j: number): number => sum(sizes.filter((_, c) => node(c, level) === j));
  const shareAt = (level: number, a: number, cluster: number, among: readonly Example[]): number => {
    const [j, parent] = [node(cluster, level), node(cluster, level - 1)];
    const own = among.filter((e) => node(e.cluster, level) === j).length;
    const all = among.filter((e) => node(e.cluster, level - 1) === parent).length;
    return (own + (a * size(level, j)) / size(level - 1, parent)) / (all + a);
  };
  const strengths = Array.from({ length: depth }, (_, level) => {
    const scores = Array.from({ length: 31 }, (_, i) => {
      const a = 10 ** (i / 5);
      return {
        a,
        score: sum(
          kept.map(
            (e, i) =>
            Math.log(shareAt(level, a, e.cluster, kept.filter((f, k) => group(f, k) !== group(e, i)))), // prettier-ignore
          ),
        ),
      };
    });
    const best = Math.max(...scores.map(({ score }) => score));
    // Among equally likely values, the strongest.
    return scores.findLast(({ score }) => score >= best - 1e-9 * Math.abs(best))?.a ?? NaN;
  });
  return sizes.map((own, c) =>
    own === 0 ? 0 : strengths.reduce((share, a, level) => share * shareAt(level, a, c, kept), 1),
  );
}

const example = fc.record({ cluster: fc.nat(leaves - 1), document: fc.nat(3) });
const sizesOf = fc.array(fc.constantFrom(0, 1, 3, 10), { minLength: leaves, maxLength: leaves });

describe("the estimate", () => {
  test("equals the formula, level by level, for any tree, documents and sizes", () => {
    fc.assert(
      fc.property(fc.array(example, { maxLength: 25 }), sizesOf, fc.boolean(), (examples, sizes, flat) => {
        fc.pre(sum(sizes) > 0);
        const {
          shares,
          counts,
          examples: n,
        } = clusterShares(
          examples.map(({ cluster }) => cluster),
          examples.map(({ document }) => document),
          sizes,
          ...(flat ? [] : [tree]),
        );
        const wanted = dense(examples, sizes, flat ? paths.map((_, c) => [c]) : paths);
        const total = sum(wanted);
        expectNear(shares, wanted.map((s) => s / total), 1e-9, 1); // prettier-ignore
        const kept = examples.filter(({ cluster }) => sizes[cluster] > 0);
        expect(n).toBe(kept.length);
        expect(Array.from(counts)).toEqual(
          sizes.map((_, c) => kept.filter(({ cluster }) => cluster === c).length),
        );
      }),
      { numRuns: 60 },
    );
  });

  test("equals the corpus without examples, and the examples if there are many", () => {
    const none = clusterShares([], [], [1, 0, 3]);
    expectNear(none.shares, [0.25, 0, 0.75], 1e-12);
    expect([none.own, none.examples]).toEqual([0, 0]);
    const next = random(3);
    const planted = [0.7, 0.25, 0.05];
    const ids = Array.from({ length: 30_000 }, () => {
      const u = next();
      return u < 0.7 ? 0 : u < 0.95 ? 1 : 2;
    });
    const many = clusterShares(ids, [...ids.keys()], [1, 1, 8]);
    expectNear(many.shares, planted, 0.01, 1);
    expect(many.own).toBeGreaterThan(0.999);
    // One percent of the examples' own counts is far more than the prior moves.
    expectNear(many.shares, many.counts.map((n) => n / 30_000), 1e-3, 1); // prettier-ignore
  });

  test("gives further text of the target a higher likelihood than the examples' own shares or the corpus, for any number of examples", () => {
    const next = random(11);
    const k = 48;
    const starts = Array.from({ length: 7 }, (_, j) => 8 * j);
    // Two of six branches, unevenly.
    const planted = Array.from({ length: k }, (_, c) => (c < 16 ? (1 + (c % 5)) ** 2 : 0.2));
    const total = sum(planted);
    const draw = (): number => {
      let u = next() * total;
      return planted.findIndex((share) => (u -= share) < 0);
    };
    const corpus = 1 / k;
    for (const n of [3, 15, 100, 2000]) {
      const loss = { tree: 0, flat: 0, raw: 0 };
      const repeats = 20;
      for (let r = 0; r < repeats; r++) {
        const ids = Array.from({ length: n }, draw);
        const documents = [...ids.keys()];
        const sizes = new Array<number>(k).fill(1);
        const own = clusterShares(ids, documents, sizes, [{ starts: [0, 6] }, { starts }]);
        const flat = clusterShares(ids, documents, sizes);
        planted.forEach((share, c) => {
          const p = share / total / repeats;
          loss.tree -= p * Math.log(own.shares[c]);
          loss.flat -= p * Math.log(flat.shares[c]);
          loss.raw -= p * Math.log(0.99 * (own.counts[c] / n) + 0.01 * corpus);
        });
      }
      expect(loss.tree, `${n} examples`).toBeLessThan(Math.min(loss.raw, -Math.log(corpus)) + 0.01);
      expect(loss.tree, `${n} examples`).toBeLessThan(loss.flat + 0.01);
    }
  });

  test.each([
    [
      "a cluster that there is not",
      [[3], [0], [1, 1, 1]],
      /^data: clusterShares: example 0 is in cluster 3 of 3$/,
    ],
    ["a fraction", [[0.5], [0], [1, 1]], /example 0 is in cluster 0.5 of 2/],
    [
      "documents of another number",
      [[0, 1], [0], [1, 1]],
      /^shape: clusterShares: 2 examples and 1 documents$/,
    ],
    ["a negative size", [[0], [0], [1, -1]], /^config: clusterShares: sizes\[1\]/],
    ["no text", [[0], [0], [0, 0]], /^data: clusterShares: the sizes of the clusters sum to 0$/],
    [
      "a tree of others",
      [[0], [0], [1, 1], [{ starts: [0, 3] }]],
      /^shape: clusterShares: a tree of 3 clusters, and 2 sizes$/,
    ],
    [
      "a level of others",
      [[0], [0], [1, 1], [{ starts: [0, 2] }, { starts: [0, 2] }]],
      /^shape: clusterShares: level 1 divides 1 nodes of 2$/,
    ],
  ] as const)("%s is refused", (_, args, message) => {
    expect(codeOf(() => clusterShares(...(args as unknown as Parameters<typeof clusterShares>)))).toMatch(
      message,
    );
  });
});

describe("standard errors", () => {
  test("equal the spread between targets, whether each document has one kind of text or all kinds", () => {
    const next = random(8);
    const planted = [0.5, 0.3, 0.2];
    const draw = (): number => {
      const u = next();
      return u < 0.5 ? 0 : u < 0.8 ? 1 : 2;
    };
    for (const alike of [false, true]) {
      const [documents, each, repeats] = [40, 5, 150];
      const found = Array.from({ length: repeats }, () => {
        const ids = Array.from({ length: documents }, () => {
          const kind = draw();
          return Array.from({ length: each }, () => (alike ? kind : draw()));
        });
        return clusterShares(ids.flat(), ids.flatMap((own, d) => own.map(() => d)), [5, 3, 2]); // prettier-ignore
      });
      const effective = sum(found.map((one) => one.effective)) / repeats;
      expectNear(effective, alike ? documents : documents * each, alike ? 0.05 : 0.1);
      for (const c of [0, 1, 2]) {
        // The error is that of the counts. Smoothing towards the corpus, which is the truth here, makes the shares even better.
        const raw = found.map(({ counts }) => counts[c] / (documents * each));
        const spread = Math.sqrt(sum(raw.map((share) => (share - planted[c]) ** 2)) / repeats);
        const told = sum(found.map(({ standardErrors }) => standardErrors[c])) / repeats;
        expectNear(told, spread, 0.2);
      }
    }
  });
});

describe("texts", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await backends[1].create();
    setCurrentMemory(backend);
  });
  afterAll(() => backend.dispose());

  test("are cut into equal pieces of about the requested length, and nothing is lost", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 9000 }), { maxLength: 5 }),
        fc.integer({ min: 1, max: 30_000 }),
        (lengths, asked) => {
          const texts = lengths.map((n, i) => String.fromCharCode(97 + i).repeat(n));
          const { pieces, documents } = cutTexts(texts, asked);
          const joined = texts.map((_, i) => pieces.filter((_, p) => documents[p] === i).join(""));
          expect(joined).toEqual(texts);
          const length = Math.min(20_000, Math.max(400, asked));
          for (const [p, piece] of pieces.entries()) {
            const whole = lengths[documents[p]];
            if (whole > length / 2) expect(piece.length).toBeGreaterThanOrEqual(length / 2 - 1);
            expect(piece.length).toBeLessThanOrEqual(Math.max(1.5 * length, 1));
          }
        },
      ),
    );
    expect(cutTexts(["", " \n"], 500).pieces).toEqual([]);
  });

  test("are assigned to the clusters of their topics, and grouped by topic", async () => {
    const next = random(4);
    const about = (topic: number): string =>
      Array.from({ length: 30 }, () =>
        next() < 0.6 ? `t${topic}w${Math.floor(12 * next())}` : `common${Math.floor(20 * next())}`,
      ).join(" ");
    const corpus = Array.from({ length: 120 }, (_, i) => about(i % 4));
    const found = await fitTextClusters(corpus, { levels: [4], dim: 8 });
    const target = [
      ...Array.from({ length: 30 }, () => about(0)),
      ...Array.from({ length: 10 }, () => about(1)),
    ];
    const { shares, counts } = await clusterHistogram(target, {
      ...found,
      sizes: [1, 1, 1, 1],
      characters: 300,
    });
    expect(Array.from(counts).sort((a, b) => b - a)).toEqual([30, 10, 0, 0]);
    expect(Math.max(...shares)).toBeGreaterThan(0.65);
    const groups = await groupTexts(target, found.embedder, { groups: 2, seed: 1 });
    expect(new Set(groups.subarray(0, 30)).size).toBe(1);
    expect(new Set(groups.subarray(30)).size).toBe(1);
    expect(groups[0]).not.toBe(groups[30]);
    await expect(
      clusterHistogram([" "], { ...found, sizes: [1, 1, 1, 1], characters: 300 }),
    ).rejects.toMatchObject({
      message: "clusterHistogram: the target has no text",
    });
    await expect(groupTexts(["a b"], found.embedder, { groups: 2, seed: 1 })).rejects.toMatchObject({
      message: "groupTexts: 1 texts cannot make 2 groups; ask for at most 1",
    });
  });
});
