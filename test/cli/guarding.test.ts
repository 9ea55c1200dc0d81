/**
 * The guards of a run: the cost and the times of their evaluations, the messages, and the choice of domains; and the warning about domains that are
 * learnt by heart.
 */
import { costOf, formatCost } from "#dist/cli/cost.js";
import { createEpochWatch } from "#dist/cli/epoch-watch.js";
import { planEvaluations } from "#dist/cli/evaluations.js";
import { formatGuards, guardedSets, guardOutcomes, planGuard } from "#dist/cli/guarding.js";
import { combinators, createMixer, rules } from "gradmix/dga";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { language, windows } from "../dga/languages.ts";
import { errorOf } from "../errors.ts";

const rule = combinators.guard(rules.uniform(), { limits: { "*": 1.02 } });
const mixerOf = (updateEvery: number, updateAfter: number): ReturnType<typeof createMixer> =>
  createMixer({ domains: ["a"], rule, updateEvery, updateAfter });

describe("the plan of a guard", () => {
  const cases = fc.record({
    share: fc.double({ min: 0.001, max: 1, noNaN: true }),
    sets: fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 60 }),
    steps: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 20_000 })),
    batch: fc.integer({ min: 1, max: 64 }),
    context: fc.constantFrom(1, 16, 64, 1000),
    updateEvery: fc.integer({ min: 1, max: 40 }),
    updateAfter: fc.integer({ min: 0, max: 300 }),
  });
  test("counts the evaluations of a trainer with these options: before the first step, at updates, at the end", () => {
    fc.assert(
      fc.property(cases, ({ share, sets, updateEvery, updateAfter, ...run }) => {
        const plan = planGuard(share, sets, mixerOf(updateEvery, updateAfter), run);
        // As the trainer does it, step by step.
        let [times, last] = [1, 0];
        for (let step = updateEvery; step <= run.steps; step += updateEvery)
          if (step >= updateAfter && (step / updateEvery) % plan.every === 0)
            [times, last] = [times + 1, step];
        if (last !== run.steps) times++;
        expect(plan.times).toBe(times);
        const most = Math.ceil(plan.tokens / run.context);
        expect(plan.windows).toBe(sets.reduce((sum, count) => sum + Math.min(count, most), 0));
      }),
      { numRuns: 300 },
    );
  });
  test("keeps to the share, except for the minimum that can show a rise", () => {
    fc.assert(
      fc.property(cases, ({ share, sets, updateEvery, updateAfter, ...run }) => {
        const plan = planGuard(share, sets, mixerOf(updateEvery, updateAfter), run);
        const least = sets.reduce((sum, count) => sum + Math.min(count, Math.ceil(512 / run.context)), 0);
        const budget = share * 3 * run.batch * run.steps;
        expect(plan.times * plan.windows).toBeLessThanOrEqual(Math.max(budget * (1 + 1e-12), 4 * least));
        expect(plan.windows).toBeGreaterThanOrEqual(least);
      }),
      { numRuns: 300 },
    );
  });
  test("evaluates more often and on more text in a longer run", () => {
    const [short, long] = [240, 2400].map((steps) =>
      planGuard(0.1, [500, 500], mixerOf(10, 0), { steps, batch: 16, context: 64 }),
    );
    expect(long.times).toBeGreaterThan(short.times);
    expect(long.tokens).toBeGreaterThan(short.tokens);
  });
});

test("the line of costs names what the guard adds", () => {
  const mixer = mixerOf(10, 0);
  const facts = { steps: 100, batch: 4, context: 16 };
  const evaluations = planEvaluations(
    { share: null, every: 0, tokens: 64 },
    { ...facts, target: null, domains: [9, 9] },
  );
  const guard = { every: 2, tokens: 512, times: 6, windows: 20 };
  const of = { mixer, alignment: {}, bases: null, specs: [], targets: 0, ...facts, time: 16 };
  const cost = costOf(of, evaluations, guard);
  expect(cost.guard).toBe((6 * 20) / (3 * 4 * 100));
  expect(formatCost(cost, evaluations, rule.needs, guard)).toBe(
    "100 steps, 10 updates of the weights; guard +10 %, evaluation +0.7 % of training (guarded domains 6 times on up to 512 tokens each, the domains once on up to 64 tokens each)",
  );
  expect(costOf(of, evaluations).guard).toBe(0);
});

test("the outcome of guards is put into words: the worst domain first, with errors; a domain that no guard would change counts as held", () => {
  const limits = { "*": 1.02, c: 1 };
  const found = {
    losses: [3.03, 3.3, 3.01, null],
    references: [3, 3, 3, null],
    standardErrors: [0.003, 0.03, 0.01, null],
  };
  const outcomes = guardOutcomes({ limits, share: 0.1 }, ["a", "b", "c", "d"], found);
  expect(outcomes.map(({ name }) => name)).toEqual(["b", "c", "a"]);
  expect(formatGuards(outcomes)).toBe("2 of 3 held; did not hold: b +10 % ± 1 (limit +2 %)");
  expect(formatGuards(outcomes.slice(1))).toBe(
    "all 2 held; nearest to its limit: c +0.3 % ± 0.3 (limit +0 %, within twice its error)",
  );
  expect(formatGuards(outcomes.slice(2))).toBe("held; nearest to its limit: a +1 % ± 0.1 (limit +2 %)");
  expect(formatGuards([{ name: "a", limit: 1.01, ratio: 0.9996, error: 0.000086 }])).toBe(
    "held; nearest to its limit: a −0.04 % ± 0.009 (limit +1 %)",
  );
  const many = Array.from({ length: 7 }, (_, i) => ({ name: `d${i}`, limit: 1, ratio: 2, error: null }));
  expect(formatGuards(many)).toBe(
    "0 of 7 held; did not hold: d0 +100 % (limit +0 %), d1 +100 % (limit +0 %), d2 +100 % (limit +0 %), d3 +100 % (limit +0 %), d4 +100 % (limit +0 %) and 2 more",
  );
  expect(guardOutcomes({ limits: { b: 1.5 }, share: 0.1 }, ["a", "b", "c", "d"], found)).toHaveLength(1);
});

test("of the domains without held-out text, one that is named is refused, and the others are reported", () => {
  const train = windows("a", [language(1, 200)]);
  const [full, none] = [
    { train, heldOut: train },
    { train, heldOut: null },
  ];
  const lines: string[] = [];
  const sets = (limits: Record<string, number>, domains: (typeof full | typeof none)[]): unknown =>
    guardedSets({ limits, share: 0.1 }, ["a", "b"], domains, (line) => lines.push(line));
  expect(sets({ "*": 1 }, [full, none])).toEqual([train, null]);
  expect(lines).toEqual(["not guarded, because they have no held-out text: b"]);
  expect(sets({ b: 1 }, [none, full])).toEqual([null, train]);
  expect(errorOf(() => sets({ "*": 1, b: 1 }, [full, none]))).toMatchObject({
    code: "data",
    message:
      '--guard: domain "b" has no held-out text, which a guard needs; give it more documents, or raise --held-out',
  });
  expect(errorOf(() => sets({ "*": 1 }, [none, none])).message).toMatch(
    /^--guard: no domain has held-out text/,
  );
});

test("a domain beyond its epochs is reported once, when its held-out loss rises, even if the run is resumed in between", () => {
  const epochs = new Map([["a", 0], ["b", 0]]); // prettier-ignore
  const of = (name: string): number => epochs.get(name) ?? 0;
  const start = createEpochWatch(4, of);
  const note = (watch: typeof start, a: number, b: number): string[] =>
    watch.note("evaluation", new Map([["a", a], ["b", b]])); // prettier-ignore
  expect(note(start, 3, 3)).toEqual([]);
  expect(note(start, 3.1, 3.1)).toEqual([]);
  epochs.set("a", 4).set("b", 4.5);
  // At exactly this count, or without a rise, there is no warning.
  expect(note(start, 3.2, 3.1)).toEqual([]);
  epochs.set("a", 4.01);
  const watch = createEpochWatch(4, of, start.saved());
  expect(note(watch, 3.25, 3.05)).toEqual([
    'domain "a" has been read 4.0 times and its held-out loss rises (3.200, then 3.250): the model memorises it; --ceiling "a=X" or --repetition-cap limits this',
  ]);
  // Losses on other text are not compared.
  expect(watch.note("guard", new Map([["b", 9]]))).toEqual([]);
  expect(note(watch, 3.3, 3.06)).toHaveLength(1);
  expect(note(createEpochWatch(4, of, watch.saved()), 9, 9)).toEqual([]);
});
