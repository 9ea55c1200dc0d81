/** Stages of constant weights: they are the best of all divisions, and keep the tokens of the run. */
import { fitStages, type TrajectoryPiece } from "gradmix/export";
import { klDivergence } from "gradmix/dga";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { simplexPoint } from "gradmix/testing";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const trajectory = (most: number) =>
  fc.integer({ min: 2, max: 4 }).chain((k) =>
    fc.array(
      fc.record({
        tokens: fc.integer({ min: 1, max: 50 }),
        weights: simplexPoint(k).map((point) => Array.from(point)),
      }),
      { minLength: 1, maxLength: most },
    ),
  );

const mean = (pieces: readonly TrajectoryPiece[]): number[] => {
  const total = pieces.reduce((sum, { tokens }) => sum + tokens, 0);
  return pieces[0].weights.map(
    (_, d) => pieces.reduce((sum, { tokens, weights }) => sum + tokens * weights[d], 0) / total,
  );
};

/** Σ tokens·KL to the mean. */
const costOf = (pieces: readonly TrajectoryPiece[]): number => {
  const centre = mean(pieces);
  return pieces.reduce((sum, { tokens, weights }) => sum + tokens * klDivergence(weights, centre), 0);
};

/** The least cost over all ways to cut into at most `count` parts. */
function bruteForce(pieces: readonly TrajectoryPiece[], count: number): number {
  if (count === 1 || pieces.length === 1) return costOf(pieces);
  let best = costOf(pieces);
  for (let cut = 1; cut < pieces.length; cut++)
    best = Math.min(best, costOf(pieces.slice(0, cut)) + bruteForce(pieces.slice(cut), count - 1));
  return best;
}

/** The cost of the stages, with the pieces in each. */
function costOfStages(pieces: readonly TrajectoryPiece[], stages: ReturnType<typeof fitStages>): number {
  let [before, cost] = [0, 0];
  for (const { tokens, weights } of pieces) {
    const stage = stages.findLast(({ start }) => start <= before);
    cost += tokens * klDivergence(weights, stage?.weights ?? []);
    before += tokens;
  }
  return cost;
}

describe("fitStages", () => {
  test("is as good as the best of all possible cuts", () => {
    fc.assert(
      fc.property(trajectory(9), fc.integer({ min: 1, max: 4 }), (pieces, count) => {
        const stages = fitStages(pieces, count);
        expect(stages.length).toBeLessThanOrEqual(count);
        const total = pieces.reduce((sum, { tokens }) => sum + tokens, 0);
        expectNear(costOfStages(pieces, stages), bruteForce(pieces, count), 1e-9, total);
      }),
    );
  });

  test("each domain gets as many tokens as in the run; stages start in order, at ends of pieces", () => {
    fc.assert(
      fc.property(trajectory(30), fc.integer({ min: 1, max: 8 }), (pieces, count) => {
        const stages = fitStages(pieces, count);
        const total = pieces.reduce((sum, { tokens }) => sum + tokens, 0);
        const got = pieces[0].weights.map((_, d) =>
          stages.reduce(
            (sum, { start, weights }, s) => sum + ((stages[s + 1]?.start ?? total) - start) * weights[d],
            0,
          ),
        );
        expectNear(
          got,
          mean(pieces).map((x) => x * total),
          1e-9,
          total,
        );
        const ends = new Set([0]);
        for (const { tokens } of pieces) ends.add(Math.max(...ends) + tokens);
        expect(stages[0].start).toBe(0);
        stages.forEach(({ start }, s) => {
          expect(ends.has(start)).toBe(true);
          if (s > 0) expect(start).toBeGreaterThan(stages[s - 1].start);
        });
      }),
    );
  });

  test("finds the steps at which weights change, gives at most as many stages as there are different weights, and first joins long runs", () => {
    const [a, b, c] = [
      [0.7, 0.2, 0.1],
      [0.1, 0.8, 0.1],
      [0, 0, 1],
    ];
    const pieces = (...lengths: [readonly number[], number][]): TrajectoryPiece[] =>
      lengths.flatMap(([weights, n]) => Array.from({ length: n }, () => ({ tokens: 64, weights })));
    const three = pieces([a, 5], [b, 11], [c, 4]);
    expect(fitStages(three, 3)).toEqual([
      { start: 0, weights: a },
      { start: 5 * 64, weights: b },
      { start: 16 * 64, weights: c },
    ]);
    expect(fitStages(three, 9)).toEqual(fitStages(three, 3));
    // Two lengths beyond the number at which pieces are joined, with weights that never repeat.
    for (const n of [401, 1203]) {
      const drifting = Array.from({ length: n }, (_, t) => {
        const x = t < n / 3 ? 0.1 + t * 1e-6 : 0.8 - t * 1e-6;
        return { tokens: 10, weights: [x, 1 - x] };
      });
      const [, second] = fitStages(drifting, 2);
      expect(Math.abs(second.start - (n / 3) * 10)).toBeLessThanOrEqual((10 * n) / 400 + 10);
    }
  });

  test("refuses an invalid number of stages, and a run without tokens", () => {
    for (const count of [0, -1, 1.5, NaN])
      expect(errorOf(() => fitStages([{ tokens: 1, weights: [1] }], count)).code).toBe("config");
    for (const none of [[], [{ tokens: 0, weights: [1] }]])
      expect(errorOf(() => fitStages(none, 1)).code).toBe("config");
    const good = { tokens: 1, weights: [0.5, 0.5] };
    const bad: [TrajectoryPiece, string][] = [
      [{ tokens: -1, weights: [0.5, 0.5] }, "has -1 tokens"],
      [{ tokens: NaN, weights: [0.5, 0.5] }, "has NaN tokens"],
      [{ tokens: 1, weights: [1] }, "has 1 weights, but the first piece has 2"],
      [{ tokens: 1, weights: [NaN, 1] }, "has a weight of NaN; weights are finite and ≥ 0"],
      [{ tokens: 1, weights: [-0.5, 1.5] }, "has a weight of -0.5; weights are finite and ≥ 0"],
      [{ tokens: 1, weights: [2, 3] }, "has weights that sum to 5, not to 1"],
    ];
    for (const [piece, what] of bad)
      expect(errorOf(() => fitStages([good, piece], 1))).toMatchObject({
        code: "config",
        message: `fitStages: piece 1 of the trajectory ${what}`,
      });
  });
});
