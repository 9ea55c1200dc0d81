/** Lines of metrics.jsonl: complete for few domains, abbreviated for many. */
import { createBases, type TrainStep, uniformWeights } from "gradmix/dga";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createMetrics, evaluated, MAX_NAMES } from "#dist/cli/metrics.js";
import type { StepMetrics } from "#dist/runs/lines.js";
import { formatJson } from "#dist/json.js";

const named = (letter: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${letter}${i}`);

const seen = (): { tokens: number; epochs: number } => ({ tokens: 5, epochs: 0.5 });

/** A step on k domains that trained on those in `held`, with n weights. */
function step(k: number, weights: Float64Array, held: readonly number[], measured = true): TrainStep {
  const n = weights.length;
  return {
    step: 1,
    tokens: 10,
    loss: 2,
    gradNorm: 1,
    lossScale: null,
    skipped: false,
    lr: 0.1,
    weights,
    domainWeights: uniformWeights(k),
    trained: held.map((domain) => ({ domain, loss: domain, ...seen() })),
    alignments: measured
      ? {
          alignments: Float64Array.from({ length: n }, (_, i) => i),
          tokens: Float64Array.from({ length: n }, (_, i) => i % 2),
          targetNorm: 1,
          losses: new Float64Array(n),
          targetLoss: 1,
        }
      : null,
    heldOut: null,
  };
}

/** As metrics.jsonl says it. */
const written = (line: StepMetrics): Record<string, unknown> =>
  JSON.parse(formatJson(line)) as Record<string, unknown>;

test("a line has all domains if there are few, with null for those without examples in the batch", () => {
  const line = written(
    createMetrics(["a", "b", "c"], null, seen, 7)(step(3, uniformWeights(3), [2]), null, 0.25),
  );
  expect(line).toEqual({
    step: 1,
    tokens: 10,
    loss: 2,
    gradNorm: 1,
    lr: 0.1,
    seconds: 0.25,
    weights: { a: 1 / 3, b: 1 / 3, c: 1 / 3 },
    domains: {
      a: { loss: null, tokens: 5, epochs: 0.5 },
      b: { loss: null, tokens: 5, epochs: 0.5 },
      c: { loss: 2, tokens: 5, epochs: 0.5 },
    },
    alignments: { b: { value: 1, standardError: null, norm: null, tokens: 1 } },
    targetNorm: 1,
    targetExamples: 7,
  });
});

test("with loss scaling, a line holds the scale and says whether the step was skipped", () => {
  const metricsOf = createMetrics(["a"], null, seen, null);
  const plain = step(1, uniformWeights(1), [0], false);
  expect(metricsOf(plain, null, 1)).not.toHaveProperty("lossScale");
  const good = metricsOf({ ...plain, lossScale: 1024 }, null, 1);
  expect(good).toMatchObject({ gradNorm: 1, lossScale: 1024 });
  expect(good).not.toHaveProperty("skipped");
  expect(metricsOf({ ...plain, gradNorm: Infinity, lossScale: 1024, skipped: true }, null, 1)).toMatchObject({
    gradNorm: null,
    lossScale: 1024,
    skipped: true,
  });
});

describe("many domains", () => {
  const k = 50_000;
  test("a line holds the heaviest weights and the domains that were trained on", () => {
    const weights = new Float64Array(k).fill(1);
    const heavy = Array.from({ length: MAX_NAMES - 1 }, (_, i) => 7 + 501 * i);
    for (const i of heavy) weights[i] = 2;
    const metricsOf = createMetrics(named("d", k), null, seen, null);
    const line = metricsOf(step(k, weights, [3, 49_999]), null, 1);
    // Among equally light domains, the first ones are listed.
    expect([...line.weights.keys()]).toEqual([0, ...heavy].map((i) => `d${i}`));
    expect(written(line)["domains"]).toEqual({
      d3: { weight: 1 / k, loss: 3, tokens: 5, epochs: 0.5 },
      d49999: { weight: 1 / k, loss: 49_999, tokens: 5, epochs: 0.5 },
    });
    expect([...(line.alignments ?? new Map<string, unknown>()).keys()]).toEqual(
      heavy.filter((i) => i % 2 === 1).map((i) => `d${i}`),
    );
    expect(formatJson(line).length).toBeLessThan(200 * MAX_NAMES);
    // The next weights have other heaviest.
    const next = metricsOf(step(k, weights.toReversed(), [], false), null, 1);
    expect([...next.weights.keys()]).toContain(`d${k - 1 - 7}`);
    expect(next.domains.size).toBe(0);
    expect(next.alignments).toBeUndefined();
  });

  test("with bases, the weights are those of the bases", () => {
    const names = named("d", 4);
    const bases = createBases({ left: [0.5, 0.5, 0, 0], right: [0, 0, 0, 1] }, names);
    const line = written(createMetrics(names, bases, seen, 7)(step(4, uniformWeights(2), [1]), null, 1));
    expect(line["weights"]).toEqual({ left: 0.5, right: 0.5 });
    expect(line["domains"]).toEqual({ d1: { weight: 0.25, loss: 1, tokens: 5, epochs: 0.5 } });
  });

  test("of many domains, an evenly spaced selection is evaluated; of few, all", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300_000 }), (k) => {
        const chosen = evaluated(k);
        expect(chosen.length).toBeLessThanOrEqual(MAX_NAMES);
        expect(chosen.length).toBeGreaterThan(Math.min(k, MAX_NAMES) / 2);
        expect(chosen[0]).toBe(0);
        expect(new Set(chosen.slice(1).map((i, at) => i - chosen[at])).size).toBeLessThan(2);
        expect(chosen.at(-1)).toBeLessThan(k);
        if (k <= MAX_NAMES) expect(chosen.length).toBe(k);
      }),
    );
  });
});
