/** The experiments' text processing (clusters, histograms, questions) on planted text with a known answer. */
import { type TokenStream, windowsOf } from "gradmix/data";
import { describe, expect, test } from "vitest";
import { BRANCHES, clusterOf, clustersAt, clusterTree, kMeans, tfidf } from "../../experiments/clusters.ts";
import { histogramOf } from "../../experiments/histogram.ts";
import { questionsOf } from "../../experiments/questions.ts";
import { randomOf } from "../../experiments/random.ts";
import { drawnWindows, firstTokens, joinStreams } from "../../experiments/text.ts";
import { expectNear } from "../near.ts";

const words = 40;
const windowLength = 24;

/** Windows of topics, each of which has words of its own, and some that all have. */
function planted(topics: number, each: number, seed: number): { windows: number[][]; topicOf: number[] } {
  const random = randomOf(seed);
  const topicOf = Array.from({ length: topics * each }, (_, i) => i % topics);
  const windows = topicOf.map((topic) =>
    Array.from({ length: windowLength }, () =>
      random() < 0.3 ? 900 + Math.floor(random() * 20) : topic * words + Math.floor(random() * words),
    ),
  );
  return { windows, topicOf };
}

describe("clusters", () => {
  test("k-means finds planted topics", () => {
    const { windows, topicOf } = planted(3, 30, 1);
    const { rows } = tfidf(windows);
    const parts = kMeans(rows, Int32Array.from(windows.keys()), 3, randomOf(2));
    for (const { members } of parts) expect(new Set(Array.from(members, (row) => topicOf[row])).size).toBe(1);
    expect(parts.map(({ members }) => members.length)).toEqual([30, 30, 30]);
  });

  test("each depth has every window once, in non-empty clusters within those above", () => {
    const { windows } = planted(20, 40, 3);
    const { rows } = tfidf(windows);
    const root = clusterTree(rows, 3, 1);
    let above = [root];
    for (const depth of [1, 2, 3]) {
      const clusters = clustersAt(root, depth);
      expect(clusters.length).toBeGreaterThan(above.length);
      expect(clusters.length).toBeLessThanOrEqual(BRANCHES ** depth);
      expect(Math.min(...clusters.map(({ members }) => members.length))).toBeGreaterThan(0);
      const all = clusters.flatMap(({ members }) => Array.from(members)).sort((a, b) => a - b);
      expect(all).toEqual([...windows.keys()]);
      for (const { members } of clusters)
        expect(above.filter((node) => members.every((row) => node.members.includes(row))).length).toBe(1);
      above = clusters;
    }
    expect(clustersAt(root, 1).length).toBe(BRANCHES);
  });

  test("a new window goes to the cluster that has its topic", () => {
    const { windows, topicOf } = planted(BRANCHES, 40, 5);
    const { rows, idf } = tfidf(windows);
    const root = clusterTree(rows, 1, 1);
    const fresh = planted(BRANCHES, 5, 6);
    const { rows: found } = tfidf(fresh.windows, idf);
    fresh.topicOf.forEach((topic, row) => {
      const { members } = clusterOf(root, 1, found, row);
      expect(Array.from(members, (member) => topicOf[member])).toContain(topic);
      // Two of eight topics may share a cluster: k-means finds a local minimum.
      expect(members.length).toBeLessThanOrEqual(80);
    });
  });

  test("if most windows are equal, the requested number of clusters is still filled", () => {
    const windows = Array.from({ length: 20 }, () => [1, 2, 3]);
    const { rows } = tfidf([...windows, [7]]);
    const parts = kMeans(
      rows,
      Int32Array.from({ length: 21 }, (_, i) => i),
      BRANCHES,
      randomOf(1),
    );
    expect(Math.min(...parts.map(({ members }) => members.length))).toBeGreaterThan(0);
  });
});

/** A language in which a word is followed by one of two. */
function language(seed: number, length: number, walk: number): TokenStream {
  const table = randomOf(seed);
  const followers = Array.from({ length: 50 }, () => [Math.floor(table() * 50), Math.floor(table() * 50)]);
  const random = randomOf(walk);
  const tokens = new Uint16Array(length);
  for (let t = 1; t < length; t++)
    tokens[t] = random() < 0.1 ? Math.floor(random() * 50) : followers[tokens[t - 1]][random() < 0.5 ? 0 : 1];
  return { tokens, documents: Float64Array.of(0, length) };
}

test("a histogram counts the target's windows by their language", () => {
  const domains = [language(1, 3000, 1), language(2, 500, 2), language(3, 6000, 3)];
  // 30 windows of the second, 10 of the third.
  const target = joinStreams([language(2, 30 * 16, 8), language(3, 10 * 16, 9)]);
  const [own, ...windows] = [target, ...domains].map((stream, i) => windowsOf(`stream ${i}`, stream, 16));
  const found = histogramOf(own, windows, 50);
  expectNear(found, [0, 0.75, 0.25], 0.05, 1);
  expectNear(
    found.reduce((a, b) => a + b, 0),
    1,
    1e-12,
  );
});

test("streams that are joined or cut keep the starts of documents", () => {
  const a = { tokens: Uint16Array.of(1, 2, 3, 4, 5), documents: Float64Array.of(0, 2, 5) };
  const b = { tokens: Uint16Array.of(6, 7, 8), documents: Float64Array.of(0, 3) };
  const joined = joinStreams([a, b]);
  expect([...joined.tokens]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect([...joined.documents]).toEqual([0, 2, 5, 8]);
  expect([...firstTokens(joined, 4).documents]).toEqual([0, 2, 4]);
  expect([...firstTokens(joined, 4).tokens]).toEqual([1, 2, 3, 4]);
  expect([...firstTokens(joined, 5).documents]).toEqual([0, 2, 5]);
  expect(firstTokens(joined, null)).toBe(joined);
});

test("drawn windows are complete windows of the text, each once and in order, and differ between seeds", () => {
  const stream = {
    tokens: Uint16Array.from({ length: 103 }, (_, t) => t),
    documents: Float64Array.of(0, 103),
  };
  const starts = (most: number, seed: number): number[] => {
    const { tokens, documents } = drawnWindows(stream, { most, time: 10, seed });
    const found = [...documents.slice(0, -1)].map((at) => tokens[at]);
    expect([...tokens]).toEqual(found.flatMap((start) => Array.from({ length: 10 }, (_, t) => start + t)));
    return found;
  };
  const drawn = Array.from({ length: 40 }, (_, seed) => starts(39, seed));
  for (const found of drawn) {
    expect(found).toHaveLength(3);
    expect(found).toEqual([...new Set(found)].sort((a, b) => a - b));
  }
  // All ten whole windows are drawn sooner or later, and the rest of three tokens never.
  expect(new Set(drawn.flat())).toEqual(new Set([0, 10, 20, 30, 40, 50, 60, 70, 80, 90]));
  expect(starts(1000, 1)).toHaveLength(10);
  expect(starts(39, 7)).toEqual(drawn[7]);
});

test("questions have the true continuation first, and the others come from the places that they name", () => {
  const time = 8;
  // Token = 1000·document + place, so that where a passage is from can be read off it.
  const stream = (documents: readonly number[], base: number): TokenStream => {
    const tokens = documents.flatMap((length, d) => Array.from({ length }, (_, at) => base + 1000 * d + at));
    const starts = [0, ...documents.map((_, d) => documents.slice(0, d + 1).reduce((a, b) => a + b))];
    return { tokens: Uint16Array.from(tokens), documents: Float64Array.from(starts) };
  };
  const target = stream([50, 60, 9, 80], 0);
  const others = [stream([40], 20_000), stream([45], 40_000)];
  const asked = questionsOf(target, others, time, 100);
  const documentOf = (tokens: ArrayLike<number>): number => Math.floor(tokens[0] / 1000);
  for (const [kind, questions] of Object.entries(asked)) {
    expect(questions.length, kind).toBeGreaterThan(5);
    for (const { prompt, continuations } of questions) {
      const [right, ...wrong] = continuations;
      expect(prompt.length + right.length).toBe(time + 1);
      expect(right[0]).toBe(prompt[prompt.length - 1] + 1);
      expect(wrong.length).toBe(3);
      for (const other of wrong) {
        expect(other.length).toBe(right.length);
        expect(other[0]).not.toBe(right[0]);
        const document = documentOf(other);
        if (kind === "document") expect(document).toBe(documentOf(right));
        else if (kind === "target")
          expect([document < 20, document === documentOf(right)]).toEqual([true, false]);
        else expect(document).toBeGreaterThanOrEqual(20);
      }
    }
  }
  expect(questionsOf(target, others, time, 100)).toEqual(asked);
  expect(questionsOf(target, others, time, 4).target.length).toBe(4);
});
