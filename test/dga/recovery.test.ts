/**
 * A GPT on a synthetic language of planted domains: the target is mix(α̃) of four languages, and DGA recovers α̃. Stated error: Σ |αᵢ − α̃ᵢ| < 0.2
 * at the end of each of five runs of 400 steps, less than 0.12 in the mean of the five (uniform weights: 0.5). Measured: 0.01 to 0.11, mean
 * 0.07, with alignments from batches; 0.03 to 0.15, mean 0.08, from the steps.
 */
import { init, shutdown } from "gradmix";
import { createMixer, createTrainer } from "gradmix/dga";
import { createSchedule } from "gradmix/nn";
import { afterAll, beforeAll, expect, test } from "vitest";
import { language, time, tiny, windows } from "./languages.ts";

beforeAll(async () => {
  await init({ backend: "cpu", threads: 2 });
});
afterAll(shutdown);

const languages = [1, 2, 3, 4];
const planted = [0.5, 0.3, 0.2, 0];
const domains = languages.map((seed) => windows(`language ${seed}`, [language(seed, 20_000)]));
/** Documents of one window each, in the planted shares; of the same languages, but later text. */
const target = windows(
  "target",
  planted.flatMap((share, i) => {
    const text = language(languages[i], 40_000).slice(25_000);
    return Array.from({ length: Math.round(share * 100) }, (_, d) =>
      text.slice(d * time, (d + 1) * time - 1),
    );
  }),
);

test.each([
  ["batch", 0.3],
  ["step", 0.2],
] as const)("the planted mixture is recovered over five seeds (alignments from a %s)", async (from, eta) => {
  const distances: number[] = [];
  for (let seed = 1; seed <= 5; seed++) {
    const trainer = createTrainer({
      model: tiny(seed),
      mixer: createMixer({
        domains: domains.map(({ name }) => name),
        rule: { name: "dga", normalise: "cosine", eta, beta: 0.1 },
        updateEvery: 4,
      }),
      domains,
      target,
      batch: 16,
      alignment: { from, domainExamples: 8, targetExamples: 40, measureEvery: 1 },
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 400 }),
      seed,
    });
    for (let i = 0; i < 400; i++) await trainer.step();
    const { final } = trainer.weights();
    distances.push(planted.reduce((sum, share, i) => sum + Math.abs(share - final[i]), 0));
    // The order is that of the plant, and the domain that is not in the target has almost no weight left.
    expect(final[0]).toBeGreaterThan(final[1]);
    expect(final[1]).toBeGreaterThan(final[2]);
    expect(final[3]).toBeLessThan(0.05);
    trainer.dispose();
    trainer.model.parameters.dispose();
  }
  expect(Math.max(...distances)).toBeLessThan(0.2);
  expect(distances.reduce((a, b) => a + b) / 5).toBeLessThan(0.12);
});

const even = [0.25, 0.25, 0.25, 0.25];
const evenly = windows(
  "even",
  languages.flatMap((seed) => {
    const text = language(seed, 40_000).slice(25_000);
    return Array.from({ length: 25 }, (_, d) => text.slice(d * time, (d + 1) * time - 1));
  }),
);

/** Σ |αᵢ − α̃ᵢ| of the last weights and of their mean over 400 steps, at the defaults; uniform weights are 0.5 from the plant. Measured with three seeds, in the mean: .13 to .18; .08 to .12; at the end: .17 to .24; .13 to .34 (up to .52 with eight seeds: differences between equal domains are noise). At the end around the right prior: .05 and .05; .15 and .16. */
test.each([
  ["the planted mixture, from nothing", target, planted, {}, { end: 0.5, mean: 0.3 }],
  ["uniform weights where the target is uniform", evenly, even, {}, { end: 0.5, mean: 0.25 }],
  ["the planted mixture, around it", target, planted, { prior: planted }, { end: 0.1, mean: 0.1 }],
  ["uniform weights, around them", evenly, even, { prior: even }, { end: 0.25, mean: 0.2 }],
] as const)("the default approaches %s", async (_, of, mixture, more, within) => {
  for (const seed of [1, 2]) {
    const trainer = createTrainer({
      model: tiny(seed),
      mixer: createMixer({ domains: domains.map(({ name }) => name), rule: { name: "dga", ...more } }),
      domains,
      target: of,
      batch: 16,
      schedule: createSchedule({ name: "constant", lr: 0.01, steps: 400 }),
      seed,
    });
    for (let i = 0; i < 400; i++) await trainer.step();
    const { final, averaged } = trainer.weights();
    const away = (weights: ArrayLike<number>): number =>
      mixture.reduce((sum, share, i) => sum + Math.abs(share - weights[i]), 0);
    expect(away(final)).toBeLessThan(within.end);
    expect(away(averaged)).toBeLessThan(within.mean);
    if (mixture === planted) {
      expect(averaged.indexOf(Math.max(...averaged))).toBe(0);
      expect(averaged[3]).toBeLessThan(0.1);
    }
    trainer.dispose();
    trainer.model.parameters.dispose();
  }
});
