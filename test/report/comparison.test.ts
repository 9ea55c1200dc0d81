/** The text of a comparison: differences are paired by seed, and no sentence claims more than its interval. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  checkComparable,
  compareRules,
  conclusions,
  countedCost,
  type Found,
  type Outcome,
  type RuleResult,
} from "#dist/report/comparison.js";
import type { RunFacts, TextFacts } from "#dist/runs/facts.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

/** Losses by rule, one per seed; null for a run that is missing. */
type Losses = Readonly<Record<string, readonly (number | null)[]>>;

const outcomes = (losses: Losses, seconds: (rule: string) => number = () => 1): Outcome[] =>
  Object.entries(losses).flatMap(([rule, values]) =>
    values.flatMap((loss, seed) =>
      loss === null
        ? []
        : [
            {
              rule,
              target: null,
              seed,
              folder: `${rule}${seed}`,
              loss,
              bitsPerByte: loss / 2,
              cost: seconds(rule) / 4,
              seconds: seconds(rule),
            },
          ],
    ),
  );
const compared = (losses: Losses, baseline: string): Map<string, RuleResult> =>
  new Map(
    compareRules(outcomes(losses), Object.keys(losses), baseline).map((result) => [result.rule, result]),
  );

const loss = fc.double({ min: 1, max: 8, noNaN: true });
const three = fc.array(loss, { minLength: 3, maxLength: 3 });

describe("differences", () => {
  test("have the means, standard errors and intervals of the formulas", () => {
    const results = compared({ a: [3, 4, 6], b: [2.5, 3.8, 5] }, "a");
    expect(results.get("a")).toMatchObject({ difference: null, time: 1 });
    expectNear(results.get("a")?.loss.mean, 13 / 3, 1e-14);
    // Of −0.5, −0.2 and −1: s² = 0.49/3, and t(0.975, 2) = 4.302653.
    const error = Math.sqrt(((-0.5 + 1.7 / 3) ** 2 + (-0.2 + 1.7 / 3) ** 2 + (-1 + 1.7 / 3) ** 2) / 2 / 3);
    const { difference } = results.get("b") ?? {};
    expectNear(difference?.mean, -1.7 / 3, 1e-14);
    expectNear(difference?.standardError, error, 1e-12);
    expectNear(difference?.interval ?? [], [-1.7 / 3 - 4.302653 * error, -1.7 / 3 + 4.302653 * error], 1e-6);
    expectNear(results.get("b")?.bitsPerByte, 11.3 / 6, 1e-14);
  });

  test("effects of a seed that all rules share cancel", () => {
    fc.assert(
      fc.property(three, three, three, (a, b, shift) => {
        const moved = (values: readonly number[]): number[] => values.map((value, i) => value + shift[i]);
        const [then, now] = [compared({ a, b }, "a"), compared({ a: moved(a), b: moved(b) }, "a")].map(
          (all) => all.get("b")?.difference,
        );
        expectNear(now?.mean, then?.mean ?? NaN, 1e-9, 8);
        expectNear(now?.standardError, then?.standardError ?? NaN, 1e-9, 8);
      }),
    );
  });

  test("the other baseline changes their sign", () => {
    fc.assert(
      fc.property(three, three, (a, b) => {
        const there = compared({ a, b }, "a").get("b")?.difference;
        const back = compared({ a, b }, "b").get("a")?.difference;
        expectNear(back?.mean, -(there?.mean ?? NaN), 1e-12, 8);
        expectNear(back?.interval?.[0], -(there?.interval?.[1] ?? NaN), 1e-9, 80);
      }),
    );
  });

  test("only seeds that both rules have are paired, in any order", () => {
    const results = compareRules(outcomes({ a: [1, 2, 5], b: [null, 1, 3] }).reverse(), ["a", "b"], "a");
    expectNear(results[1].difference?.mean, -1.5, 1e-14);
    expect(results[1].difference?.count).toBe(2);
    expect(results[1].loss.count).toBe(2);
    expect(compared({ a: [1, null], b: [null, 1] }, "a").get("b")).toMatchObject({
      difference: null,
      time: null,
    });
    expect(compared({ a: [null], b: [1] }, "a").has("a")).toBe(false);
  });

  test("text that a guard reads adds to the cost of a rule; text that is only evaluated does not", () => {
    expect(countedCost({ alignment: 0.25, guard: 0.5, evaluation: 3 })).toBe(1.75);
    expect(countedCost({ alignment: 0.25, evaluation: 3 })).toBe(1.25);
  });

  test("time and cost are those of the paired runs", () => {
    const all = outcomes({ a: [1, 2], b: [1, 2] }, (rule) => (rule === "a" ? 4 : 5));
    expect(compareRules(all, ["a", "b"], "a").map(({ time }) => time)).toEqual([1, 1.25]);
    expect(compareRules(all, ["a", "b"], "a").map(({ cost }) => cost)).toEqual([1, 1.25]);
  });
});

describe("sentences", () => {
  test("call a rule lower or higher exactly if its interval does not contain 0", () => {
    fc.assert(
      fc.property(three, three, three, (base, b, c) => {
        const results = compareRules(outcomes({ base, b, c }), ["base", "b", "c"], "base");
        const text = conclusions(results, "base").join("\n");
        for (const { rule, difference } of results) {
          if (difference === null || difference.interval === null) continue;
          const [low, high] = difference.interval;
          const direction = new RegExp(
            `\\b${rule} is [\\d.]+ nats per token (below|above) base \\(95 %`,
          ).exec(text)?.[1];
          expect(direction).toBe(high < 0 ? "below" : low > 0 ? "above" : undefined);
          const open = new RegExp(`do not distinguish [^:]*\\b${rule}\\b[^:]* from base`).test(text);
          expect(open).toBe(low <= 0 && high >= 0);
        }
      }),
    );
  });

  test("give no interval for one seed", () => {
    expect(conclusions(compareRules(outcomes({ a: [3], b: [2.5] }), ["a", "b"], "a"), "a")).toEqual([
      "b ended 0.500 nats per token below a. One seed gives no interval: another seed may reverse this.",
    ]);
    expect(conclusions(compareRules(outcomes({ a: [3] }), ["a"], "a"), "a")).toEqual([]);
    // No difference is said that would print as 0.
    const close = compareRules(
      outcomes({ a: [3], b: [3], c: [3.0004], d: [2.9996] }),
      ["a", "b", "c", "d"],
      "a",
    );
    expect(conclusions(close, "a")).toEqual([
      "b ended level with a, c ended less than 0.001 nats per token above a and d ended less than 0.001 nats per token below a. One seed gives no interval: another seed may reverse these.",
    ]);
  });

  test("contain the numbers of the interval", () => {
    const results = compareRules(
      outcomes({ a: [3, 4], b: [2, 3.001], c: [9, 4], d: [9, 3] }),
      ["a", "b", "c", "d"],
      "a",
    );
    expect(conclusions(results, "a")).toEqual([
      "b is 1.000 nats per token below a (95 % interval 0.993 to 1.006).",
      "These 2 seeds do not distinguish c and d from a: the intervals of the differences contain 0.",
    ]);
  });
});

test("a sentence counts the seeds of the rules that it names", () => {
  const losses: Losses = {
    base: [3, 3.1, 3.2],
    lower: [2, 2.101, 2.199],
    vague: [2.5, 4, null],
    wide: [9, null, 1],
    whole: [2, 4, 3],
  };
  const results = compareRules(outcomes(losses), Object.keys(losses), "base");
  expect(conclusions(results, "base").slice(1)).toEqual([
    "These 3 seeds do not distinguish whole from base: the interval of the difference contains 0.",
    "These 2 seeds do not distinguish vague and wide from base: the intervals of the differences contain 0.",
  ]);
});

describe("what can be compared", () => {
  const text: TextFacts = {
    files: 1,
    documents: 2,
    tokens: 30,
    heldOutTokens: 4,
    heldOutBytes: 5,
    sha256: "aa",
  };
  const facts: RunFacts = {
    version: 1,
    gradmix: "1",
    node: "v20",
    backend: "cpu",
    simd: "relaxed",
    precision: "f32",
    threads: 1,
    rule: "uniform",
    seed: 1,
    dataSeed: 1,
    steps: 6,
    batch: 2,
    context: 8,
    parameters: 99,
    vocabSize: 257,
    repetitions: null,
    evaluatedTokens: 3,
    cost: { alignment: 0, evaluation: 0 },
    domains: new Map([
      ["a", text],
      ["b", text],
    ]),
    target: text,
    targets: new Map(),
    bases: null,
  };
  const against = (change: Partial<RunFacts>): string =>
    codeOf(() =>
      checkComparable([
        { folder: "one", facts },
        { folder: "two", facts: { ...facts, ...change } } satisfies Found,
      ]),
    );

  test("runs that differ in rule, seed, machine and cost can be compared", () => {
    expect(
      against({ rule: "dga", seed: 2, threads: 8, repetitions: 4, cost: { alignment: 1, evaluation: 1 } }),
    ).toBe("no error");
  });

  test.each<[Partial<RunFacts>, string]>([
    [{ steps: 7 }, "its steps is 7, not 6"],
    [{ batch: 3 }, "its batch is 3, not 2"],
    [{ context: 9 }, "its context is 9, not 8"],
    [{ parameters: 98 }, "its parameters is 98, not 99"],
    [{ vocabSize: 256 }, "its vocabSize is 256, not 257"],
    [{ evaluatedTokens: 2 }, "its evaluatedTokens is 2, not 3"],
    [{ dataSeed: 2 }, "its dataSeed is 2, not 1"],
    [{ target: { ...text, heldOutTokens: 3 } }, "the text of the target, or its tokenization, differs"],
    [
      {
        domains: new Map([
          ["a", text],
          ["b", { ...text, sha256: "bb" }],
        ]),
      },
      'the text of domain "b", or its tokenization, differs',
    ],
    [
      {
        domains: new Map([
          ["b", text],
          ["a", text],
        ]),
      },
      "its domains are in another order",
    ],
  ])("runs cannot be compared: %j", (change, what) => {
    expect(against(change)).toContain(`data: two cannot be compared with one: ${what}`);
  });
});
