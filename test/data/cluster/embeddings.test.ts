/** Embeddings of texts: words, the projection against exact TF-IDF, the leading directions against a separate eigensolver, and the separation of topics. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import {
  countWords,
  embedTexts,
  FEATURES,
  fitEmbedder,
  hashOf,
  PROJECTED,
  wordsOf,
} from "#dist/data/cluster/embeddings.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../../backends/all.ts";
import { random } from "../../dga/arbitraries.ts";
import { expectNear } from "../../near.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await backends[1].create();
  setCurrentMemory(backend);
});
afterAll(() => backend.dispose());

/** Texts of 30 words, each of a topic's own words and of common ones. */
function topical(seed: number, texts: number, topics: number): { text: string; topic: number }[] {
  const next = random(seed);
  return Array.from({ length: texts }, (_, i) => ({
    topic: i % topics,
    text: Array.from({ length: 30 }, () =>
      next() < 0.4 ? `t${i % topics}w${Math.floor(20 * next())}` : `common${Math.floor(30 * next())}`,
    ).join(" "),
  }));
}

const dotOf = (values: Float32Array, dim: number, i: number, j: number): number => {
  let sum = 0;
  for (let d = 0; d < dim; d++) sum += values[i * dim + d] * values[j * dim + d];
  return sum;
};

describe("words", () => {
  test("are runs of letters and digits in lower case; scripts without spaces give pairs of letters", () => {
    expect([...wordsOf("The CAT's 42 a_b, naïve-été x")]).toEqual([
      "the",
      "cat",
      "42",
      "a_b",
      "naïve",
      "été",
    ]);
    expect([...wordsOf("東京都は 人")]).toEqual(["東京", "京都", "都は", "人"]);
    expect([...wordsOf("नमस्ते")]).toEqual(["नमस्ते"]);
    expect([...wordsOf(" .,;! ")]).toEqual([]);
  });

  test("are counted by their hashes, which are evenly distributed", () => {
    expect([...countWords("b a1 a1 bb").values()].toSorted((a, b) => a - b)).toEqual([1, 2]);
    const bins = new Float64Array(64);
    for (let i = 0; i < 64_000; i++) bins[hashOf(`w${i}`) & 63]++;
    // χ² of 63 degrees: 63 ± 11.
    expect(bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0)).toBeLessThan(63 + 6 * 11);
    expect(
      new Set(Array.from({ length: 1000 }, (_, i) => hashOf(`w${i}`) & (FEATURES - 1))).size,
    ).toBeGreaterThan(990);
  });
});

test("with all directions, inner products equal those of exact TF-IDF up to the random projection", async () => {
  const texts = topical(3, 60, 5).map(({ text }) => text);
  const embedder = await fitEmbedder(texts, { dim: 64 });
  const { values } = await embedTexts(embedder, texts);
  // 60 texts span 60 directions at most, so that 64 lose nothing.
  const bags = texts.map((text) => {
    const counts = new Map<string, number>();
    for (const word of text.split(" ")) counts.set(word, (counts.get(word) ?? 0) + 1);
    return counts;
  });
  const having = (word: string): number => bags.filter((bag) => bag.has(word)).length;
  const exact = bags.map((bag) => {
    const value = new Map(
      [...bag].map(([word, n]) => [word, (1 + Math.log(n)) * (Math.log(61 / (1 + having(word))) + 1)]),
    );
    const norm = Math.hypot(...value.values());
    return new Map([...value].map(([word, x]) => [word, x / norm]));
  });
  let worst = 0;
  let bias = 0;
  for (let i = 0; i < 60; i++)
    for (let j = 0; j < i; j++) {
      let dot = 0;
      for (const [word, x] of exact[i]) dot += x * (exact[j].get(word) ?? 0);
      const off = dotOf(values, 64, i, j) - dot;
      worst = Math.max(worst, Math.abs(off));
      bias += off / (30 * 59);
    }
  // 2,048 numbers: errors of about 1/45.
  expect(worst).toBeLessThan(0.13);
  expect(Math.abs(bias)).toBeLessThan(0.01);
});

test("the leading directions are orthonormal and hold as much as any other directions of the same number", async () => {
  const texts = topical(8, 200, 6).map(({ text }) => text);
  const dim = 6;
  const { directions } = await fitEmbedder(texts, { dim });
  for (let i = 0; i < dim; i++)
    for (let j = 0; j <= i; j++) expectNear(dotOf(directions, PROJECTED, i, j), i === j ? 1 : 0, 1e-5, 1);
  // The same with more: a subspace of the larger one cannot hold more, and the leading six hold nearly what its best six do.
  const more = await fitEmbedder(texts, { dim: 40 });
  for (let i = 0; i < dim; i++) {
    let held = 0;
    for (let j = 0; j < 40; j++) {
      let dot = 0;
      for (let d = 0; d < PROJECTED; d++)
        dot += directions[i * PROJECTED + d] * more.directions[j * PROJECTED + d];
      held += dot * dot;
    }
    expect(held).toBeGreaterThan(0.99);
  }
});

test("texts have unit length and are similar within a topic; a text without words is the zero vector", async () => {
  const all = topical(1, 120, 4);
  const embedder = await fitEmbedder(
    all.slice(0, 80).map(({ text }) => text),
    { dim: 16 },
  );
  // Texts that the fit has not seen.
  const unseen = all.slice(80);
  const { values, dim } = await embedTexts(embedder, [...unseen.map(({ text }) => text), "?!"]);
  expect(dim).toBe(16);
  unseen.forEach((_, i) => expectNear(dotOf(values, dim, i, i), 1, 1e-5));
  expect(values.subarray(unseen.length * dim).every((value) => value === 0)).toBe(true);
  let [within, between] = [0, 0];
  unseen.forEach((a, i) =>
    unseen.forEach((b, j) => {
      if (i === j) return;
      if (a.topic === b.topic) within += dotOf(values, dim, i, j) / (40 * 9);
      else between += dotOf(values, dim, i, j) / (40 * 30);
    }),
  );
  expect(within - between).toBeGreaterThan(0.3);
});

test("the result depends on the seed; single texts get the same vectors as all together", async () => {
  const texts = topical(4, 30, 3).map(({ text }) => text);
  const [one, same, other] = [
    await fitEmbedder(texts, { dim: 8, seed: 1 }),
    await fitEmbedder(texts, { dim: 8, seed: 1 }),
    await fitEmbedder(texts, { dim: 8, seed: 2 }),
  ];
  expect(same).toEqual(one);
  expect(other.directions).not.toEqual(one.directions);
  const { values } = await embedTexts(one, texts);
  await fc.assert(
    fc.asyncProperty(fc.nat(29), async (i) => {
      const own = await embedTexts(one, [texts[i]]);
      expectNear(own.values, values.subarray(i * 8, (i + 1) * 8), 1e-5, 1);
    }),
    { numRuns: 5 },
  );
});

/** A signal that is asked often; `onCall` has the number of times, from 1, and the turns that the event loop has had. */
function asked(onCall: (calls: number, turns: number) => void): { signal: AbortSignal; end: () => void } {
  const { signal } = new AbortController();
  let [calls, turns, ended] = [0, 0, false];
  const turn = (): void => {
    turns++;
    if (!ended) setImmediate(turn);
  };
  setImmediate(turn);
  vi.spyOn(signal, "throwIfAborted").mockImplementation(() => onCall(++calls, turns));
  return { signal, end: () => void (ended = true) };
}

test("a signal is heard between the rows while the directions are made orthonormal", async () => {
  const texts = topical(5, 520, 4).map(({ text }) => text);
  const dim = 512;
  // A call for each text, and one for the block of the covariance.
  const before = texts.length + 1;
  let [begun, at] = [0, 0];
  const { signal, end } = asked((calls, turns) => {
    if (calls === before + 1) begun = turns;
    at = calls;
    if (calls > before && turns >= begun + 2) throw new Error("stopped");
  });
  await expect(fitEmbedder(texts, { dim, signal })).rejects.toThrow("stopped");
  end();
  expect(at).toBeGreaterThan(before + 1);
  expect(at).toBeLessThanOrEqual(before + dim);
});

test("there are no more directions than texts with words; the other rows are 0 and take no time", async () => {
  const texts = [...topical(6, 20, 4).map(({ text }) => text), "", "!"];
  let most = 0;
  const { signal, end } = asked((calls) => void (most = calls));
  const { directions } = await fitEmbedder(texts, { dim: 1024, signal });
  end();
  for (let i = 0; i < 20; i++) expectNear(dotOf(directions, PROJECTED, i, i), 1, 1e-5);
  expect(directions.subarray(20 * PROJECTED).every((value) => value === 0)).toBe(true);
  expect(directions.length).toBe(1024 * PROJECTED);
  expect(most).toBe(texts.length + 1 + 13 * 20);
});

test("invalid input is refused", async () => {
  const refused = (promise: Promise<unknown>): Promise<unknown> =>
    promise.then(
      () => "no error",
      (error: unknown) => String(error),
    );
  expect(await refused(fitEmbedder(["", "!"]))).toContain("no text contains a word");
  expect(await refused(fitEmbedder([]))).toContain("no text contains a word");
  expect(await refused(fitEmbedder(["word"], { dim: 3000 }))).toContain("dim");
});
