/** Combinators keep the invariants around any rule, alone and nested, and have their documented effect. */
import {
  combinators,
  createMixer,
  klDivergence,
  projectBounds,
  projectFloor,
  restoreMixer,
  type Rule,
  rules,
  sumOf,
  update,
} from "gradmix/dga";
import {
  checkRule,
  type CheckRuleOptions,
  type Knobs,
  names,
  signal,
  simplexPoint,
  updateSequence,
} from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const inner = (knobs: Knobs = {}): Rule => rules.dga({ name: "dga", normalise: "raw", beta: 1, ...knobs });

describe("projectBounds", () => {
  const cases = fc.integer({ min: 1, max: 9 }).chain((k) =>
    fc
      .record({
        alpha: simplexPoint(k),
        low: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: k, maxLength: k }),
        high: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: k, maxLength: k }),
        middle: simplexPoint(k),
        rival: simplexPoint(k),
      })
      // Bounds around a point of the simplex, so that there is one between them.
      .map(({ low, high, middle, ...rest }) => ({
        ...rest,
        middle,
        floors: middle.map((m, i) => m * (low[i] < 0.3 ? 0 : low[i])),
        caps: middle.map((m, i) => m + (1 - m) * high[i]),
      })),
  );
  test("gives a point on the simplex within the bounds, and no other such point is closer in KL", () => {
    fc.assert(
      fc.property(cases, ({ alpha, floors, caps, middle, rival }) => {
        const out = projectBounds(alpha, floors, caps);
        expect(Math.abs(sumOf(out) - 1)).toBeLessThanOrEqual(1e-12);
        out.forEach((w, i) => {
          expect(w).toBeGreaterThanOrEqual(floors[i]);
          expect(w).toBeLessThanOrEqual(caps[i]);
        });
        // Feasible points on the way from the projection to the middle, and from there towards anywhere.
        const cost = klDivergence(out, alpha);
        for (const share of [1, 0.1, 0.001]) {
          const other = out.map((w, i) => w + share * (middle[i] - w));
          expect(cost).toBeLessThanOrEqual(klDivergence(other, alpha) + 1e-9);
          const mixed = other.map((w, i) => w + 0.1 * (rival[i] - w));
          if (mixed.every((w, i) => w >= floors[i] && w <= caps[i]))
            expect(cost).toBeLessThanOrEqual(klDivergence(mixed, alpha) + 1e-9);
        }
      }),
      { numRuns: 500 },
    );
  });
  test("equals projectFloor without caps, keeps the order, and refuses bounds without a point between them", () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 2, max: 9 })
          .chain((k) =>
            fc.tuple(simplexPoint(k, { positive: true }), fc.double({ min: 0, max: 1, noNaN: true })),
          ),
        ([alpha, share]) => {
          const k = alpha.length;
          const least = share / k;
          const found = projectBounds(alpha, new Float64Array(k).fill(least), new Float64Array(k).fill(1));
          projectFloor(alpha, least).forEach((w, i) =>
            expect(Math.abs(found[i] - w)).toBeLessThanOrEqual(1e-12),
          );
          const most = 1 / k + (1 - 1 / k) * share;
          const under = projectBounds(alpha, new Float64Array(k), new Float64Array(k).fill(most));
          for (let i = 0; i < k; i++)
            for (let j = 0; j < k; j++)
              if (alpha[i] > alpha[j]) expect(under[i]).toBeGreaterThanOrEqual(under[j] - 1e-12);
        },
      ),
    );
    expect(errorOf(() => projectBounds([1, 0], [0, 0], [0.4, 0.4])).message).toContain("caps to at least 1");
    expect(errorOf(() => projectBounds([1, 0], [0.6, 0.6], [1, 1])).message).toContain(
      "floors must sum to at most 1",
    );
    expect(errorOf(() => projectBounds([1, 0], [0.6, 0], [0.5, 1])).message).toContain("above its cap");
  });
});

const byName = (domains: readonly string[], of: (i: number) => number): Record<string, number> =>
  Object.fromEntries(domains.map((name) => [name, of(Number(name.replace("domain", "")))]));

describe("every combinator keeps the invariants", () => {
  const cases: [string, (domains: readonly string[], knobs: Knobs) => Rule, CheckRuleOptions][] = [
    [
      "ema",
      (_, { beta = 0.2, ...rest }) => combinators.ema(inner(rest), beta),
      { knobs: ["eta", "beta", "start"], promises: { mirror: true } },
    ],
    [
      "floor",
      (_, knobs) => combinators.floor(inner(knobs), 0.05),
      { promises: { floor: 0.05 }, knobs: ["eta"] },
    ],
    [
      "ceiling",
      (_, knobs) => combinators.ceiling(inner(knobs), 0.6),
      { promises: { ceiling: 0.6 }, domains: { least: 2, most: 8 }, knobs: ["eta"] },
    ],
    [
      "tokenBudget",
      (domains, knobs) =>
        combinators.tokenBudget(inner(knobs), { budgets: byName(domains, (i) => 60 + i), tokens: 100 }),
      { promises: { ceiling: 0.7, splits: false }, domains: { least: 2, most: 8 }, knobs: ["eta"] },
    ],
    [
      "repetitionCap",
      (domains, knobs) =>
        combinators.repetitionCap(inner(knobs), {
          sizes: byName(domains, (i) => 20 + i),
          repetitions: 3,
          tokens: 100,
        }),
      { promises: { ceiling: 0.9, splits: false }, domains: { least: 2, most: 8 }, knobs: ["eta"] },
    ],
    ["warmup", (_, knobs) => combinators.warmup(inner(knobs), 2), { knobs: ["eta", "start"] }],
    [
      "etaSchedule",
      (_, knobs) => combinators.etaSchedule(inner(knobs), (t) => 1 / (1 + t)),
      { knobs: ["eta", "start"] },
    ],
    [
      "nested",
      (_, { beta = 0.2, ...rest }) =>
        combinators.floor(combinators.ema(combinators.warmup(inner(rest), 1), beta), 0.02),
      { knobs: ["eta"], promises: { floor: 0.02 } },
    ],
    [
      "around fixed weights",
      () => combinators.ema(combinators.floor(rules.uniform(), 0.01), 0.5),
      { promises: { floor: 0.01 } },
    ],
  ];
  test.each(cases)("%s", (_, make, options) => {
    checkRule(make, { ...options, longRun: 2000, numRuns: 50 });
  });
});

const runs = fc.integer({ min: 1, max: 6 }).chain((k) => updateSequence(k, { mild: true }));
const last = (rule: Rule, signals: readonly ReturnType<typeof Object>[]): readonly number[] => {
  const given = signals as unknown as { alignments: number[] }[];
  let state = rule.init(names(given[0].alignments.length));
  for (const one of given) state = rule.update(state, one);
  return state.weights;
};

test("ema around dga without its own average equals dga's average", () => {
  fc.assert(
    fc.property(runs, (signals) => {
      expect(last(combinators.ema(inner(), 0.3), signals)).toEqual(last(inner({ beta: 0.3 }), signals));
    }),
  );
});

test("a constant schedule equals a smaller η; a warm-up uses only the signals after it", () => {
  fc.assert(
    fc.property(runs, (signals) => {
      const scheduled = last(
        combinators.etaSchedule(inner(), () => 0.5),
        signals,
      );
      last(inner({ eta: 0.5 }), signals).forEach((w, i) => expectNear(scheduled[i], w, 1e-12));
      const first = last(combinators.warmup(inner(), 1), signals);
      const rest = signals.slice(1);
      if (rest.length > 0) expect(first).toEqual(last(inner(), rest));
      else expect(first).toEqual(inner().init(names(first.length)).weights);
    }),
  );
  const rule = combinators.etaSchedule(inner(), () => 2);
  expect(errorOf(() => rule.update(rule.init(["a"]), { alignments: [1] })).message).toMatch(
    /^etaSchedule: factor of update 0: 2 /,
  );
});

test("a nested state can be saved and restored in a mixer; a state of another nesting is refused", () => {
  fc.assert(
    fc.property(fc.tuple(signal(3), signal(3)), ([one, two]) => {
      const mixer = createMixer({
        domains: names(3),
        rule: combinators.ema(combinators.floor(rules.dga(), 0.1), 0.5),
      });
      const state = update(mixer, mixer.initial, one);
      const restored = restoreMixer(mixer, JSON.parse(JSON.stringify(state)));
      expect(update(mixer, restored, two)).toEqual(update(mixer, state, two));
      const other = createMixer({
        domains: names(3),
        rule: combinators.floor(combinators.ema(rules.dga(), 0.5), 0.1),
      });
      expect(errorOf(() => restoreMixer(other, state)).message).toContain(
        'is "ema(floor(dga))": the state belongs to that rule',
      );
    }),
  );
});

test("caps that cannot be kept, and options out of range, are refused", () => {
  const caps = (budgets: Record<string, number>) => () =>
    combinators.tokenBudget(inner(), { budgets, tokens: 100 }).init(["web", "code"]);
  expect(errorOf(caps({ web: 40, code: 40 })).message).toContain(
    "all domains together can supply only 0.8 of the run's tokens",
  );
  expect(errorOf(caps({ web: 40, cod: 40 })).message).toContain('did you mean "code"?');
  expect(errorOf(caps({ web: 40, code: NaN })).message).toMatch(/^tokenBudget: budgets: "code" has NaN/);
  expect(errorOf(() => combinators.floor(inner(), 0.6).init(["a", "b"])).message).toMatch(
    /^floor: least: 0.6 /,
  );
  expect(errorOf(() => combinators.ceiling(inner(), 0.3).init(["a", "b"])).message).toMatch(
    /^ceiling: most: 0.3 /,
  );
  expect(errorOf(() => combinators.ema(inner(), 0)).message).toMatch(/^ema: beta: 0 /);
  expect(errorOf(() => combinators.warmup(inner(), 1.5)).message).toMatch(/^warmup: updates: 1.5 /);
});
