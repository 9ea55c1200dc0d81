/** dga's default: a mirror step around a prior on tracked alignments. rules-oracle.test.ts has the formulas; these tests check their consequences. */
import {
  combinators,
  createRule,
  dgaDefaults,
  type DgaOptions,
  paper,
  type Rule,
  rules,
  type RuleState,
  type Signal,
  sumOf,
  usualRepetitions,
} from "gradmix/dga";
import { histogram, names, signal, simplexPoint } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { contradictionIn, repetitionCaps } from "#dist/dga/rules/dga.js";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const make = (options: Partial<DgaOptions> = {}): Rule => rules.dga({ name: "dga", ...options });

function follow(rule: Rule, k: number, signals: readonly Signal[]): RuleState[] {
  const states = [rule.init(names(k))];
  for (const given of signals) states.push(rule.update(states[states.length - 1], given));
  return states;
}
const last = (states: readonly RuleState[]): readonly number[] => states[states.length - 1].weights;

const exact = (alignments: number[], more: Partial<Signal> = {}): Signal => ({
  alignments,
  standardErrors: alignments.map(() => 0),
  ...more,
});
/** The z-scores of 1 to 4, whose standard deviation is √(5/3). */
const z = [-1.5, -0.5, 0.5, 1.5].map((x) => x / Math.sqrt(5 / 3));
const shares = (values: readonly number[]): number[] => values.map((v) => v / sumOf(values));
const repeated = (given: Signal, times: number): Signal[] => new Array<Signal>(times).fill(given);

/** Signals of some updates with noise, a part of which measures only some of the domains. */
function noisy(seed: number, k: number, updates: number): Signal[] {
  const next = random(seed);
  return Array.from({ length: updates }, () => ({
    alignments: Array.from({ length: k }, (_, i) => (i % 3) + 2 * gaussian(next)),
    standardErrors: Array.from({ length: k }, () => 0.5 + next()),
    ...(next() < 0.5 ? {} : { tokens: Array.from({ length: k }, () => (next() < 0.5 ? 0 : 64)) }),
    targetExamples: 1 + Math.floor(300 * next()),
  }));
}

test("with η = 0 the weights do not change, whatever the prior", () => {
  const options = fc.record({
    seed: fc.nat(),
    k: fc.integer({ min: 2, max: 8 }),
    pull: fc.double({ min: 0, max: 1, noNaN: true }),
    beta: fc.constantFrom(1, 0.4),
    floored: fc.boolean(),
  });
  fc.assert(
    fc.property(options, ({ seed, k, pull, beta, floored }) => {
      const [prior, start] = [
        names(k).map((_, i) => i + 1),
        shares(names(k).map((_, i) => 1 + ((2 * i) % 3))),
      ];
      const own = { prior, start, pull, floor: floored ? 0.5 / k : 0 };
      const signals = noisy(seed, k, 8);
      const never = follow(make({ ...own, beta, eta: 0 }), k, signals);
      for (const { weights } of never) expect(weights).toEqual(never[0].weights);
      // A schedule that ends: what is averaged may still follow α, which stays.
      const scheduled = combinators.etaSchedule(make({ ...own, beta: 1 }), (t) => (t < 4 ? 1 : 0));
      const states = follow(scheduled, k, signals);
      for (const { weights } of states.slice(5)) expect(weights).toEqual(states[4].weights);
    }),
    { numRuns: 50 },
  );
});

describe("where the weights move", () => {
  test.each([{ prior: [4, 3, 2, 1] }, { prior: [4, 3, 2, 1], eta: 0.4, pull: 0.3, uniformShare: 0 }, {}])(
    "domains that stay d spreads above the mean end at α₀·exp(η d/γ): %j",
    (options: Partial<DgaOptions>) => {
      const { prior, uniformShare = prior === undefined ? 0 : 0.01 } = options;
      const { eta = prior === undefined ? 0.5 : 0.1, pull = prior === undefined ? 0.05 : 0.1 } = options;
      const around = shares((prior as number[] | undefined) ?? [1, 1, 1, 1]).map(
        (share) => (1 - uniformShare) * share + uniformShare / 4,
      );
      const states = follow(make({ ...options, correction: 1 }), 4, repeated(exact([1, 2, 3, 4]), 400));
      const top = (eta / pull) * z[3];
      expectNear(last(states), shares(around.map((a, i) => a * Math.exp((eta / pull) * z[i] - top))), 1e-6);
    },
  );

  test("without differences beyond the errors, the weights return to the prior and stay there", () => {
    const start = { domain0: 0.7, domain1: 0.2, domain2: 0.1 };
    const rule = make({ start, prior: [1, 2, 5], uniformShare: 0.2 });
    const prior = shares([1, 2, 5]).map((share) => 0.8 * share + 0.2 / 3);
    const still: Signal = { alignments: [1, 2, 1.5], standardErrors: [9, 9, 9] };
    const states = follow(rule, 3, repeated(still, 300));
    expectNear(states[0].weights, [0.7, 0.2, 0.1], 1e-15);
    // Nearer with every update: the logarithms by a share of γ.
    const ratio = (state: RuleState): number => Math.log(state.weights[0] / state.weights[2]);
    const goal = Math.log(prior[0] / prior[2]);
    expectNear(ratio(states[1]) - goal, 0.9 * (ratio(states[0]) - goal), 1e-9);
    expectNear(last(states), prior, 1e-9);
    expectNear(
      last(follow(make({ prior: [1, 2, 5] }), 3, repeated(still, 50))),
      shares([1, 2, 5]).map((s) => 0.99 * s + 0.01 / 3),
      1e-12,
    );
  });

  test("a target of n examples counts by the factor n/(n + 100)", () => {
    for (const n of [1, 100, 900]) {
      const moved = (more: Partial<Signal>): number => {
        const [, { weights }] = follow(make({ eta: 1 }), 4, [exact([1, 2, 3, 4], more)]);
        return Math.log(weights[3] / weights[0]);
      };
      expectNear(moved({}), z[3] - z[0], 1e-6);
      expectNear(moved({ targetExamples: n }), (n / (n + 100)) * (z[3] - z[0]), 1e-6);
    }
    for (const targetExamples of [0, -1, NaN, "8", null] as unknown as number[]) {
      const error = errorOf(() => follow(make(), 2, [exact([1, 2], { targetExamples })]));
      expect(error.code).toBe("numeric");
      expect(error.message).toMatch(/^dga: targetExamples is .*; the weights stay as they are$/);
    }
  });

  test("with η = 0 the weights stay at their initial values, which are the prior", () => {
    const states = follow(make({ eta: 0 }), 3, noisy(1, 3, 20));
    for (const { weights } of states) expectNear(weights, [1 / 3, 1 / 3, 1 / 3], 1e-14);
  });
});

describe("the correction of a prior that the measurements contradict", () => {
  /** With these priors, almost all weight is on the domain that helps least. */
  const wrong = fc.record({
    k: fc.integer({ min: 2, max: 9 }),
    share: fc.double({ min: 0.95, max: 0.99, noNaN: true }),
  });
  const signalOf = (k: number): Signal => exact(names(k).map((_, i) => (i === 0 ? 3 : i === k - 1 ? 0 : 2)));
  const priorOf = (k: number, share: number): number[] =>
    names(k).map((_, i) => (i === k - 1 ? share : (1 - share) / (k - 1)));

  test("moves the weights to the domain that helps, and the prior with them", () => {
    fc.assert(
      fc.property(wrong, ({ k, share }) => {
        const given = { prior: priorOf(k, share), eta: 0.05 };
        const states = [20, 1].map((correction) =>
          follow(make({ ...given, correction }), k, repeated(signalOf(k), 120)),
        );
        const [found, plain] = states.map((all) => last(all)[0]);
        expect(found).toBeGreaterThan(1.1 * plain);
        // When the domains no longer differ, the weights return to the prior that was corrected.
        const still: Signal = { ...signalOf(k), standardErrors: names(k).map(() => 1e6) };
        const [after, before] = [20, 1].map((correction) =>
          follow(make({ ...given, correction }), k, [...repeated(signalOf(k), 120), ...repeated(still, 300)]),
        );
        expectNear(last(before), last([make(given).init(names(k))]), 1e-6);
        expect(last(after)[0]).toBeGreaterThan(1.1 * last(before)[0]);
        expectNear(last(after), after[after.length - 1].memory["prior"], 1e-6);
      }),
      { numRuns: 40 },
    );
  });

  test("does not act while the mixture helps at least as much as the domains do on average", () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 2, max: 8 }), (seed, k) => {
        const next = random(seed);
        // A larger share for a domain that helps more; and for even weights, whatever helps.
        const level = names(k).map(() => next());
        for (const prior of [level, names(k).map(() => 1)]) {
          const signals = repeated(exact(level), 30);
          const [found, plain] = [20, 1].map((correction) => follow(make({ prior, correction }), k, signals));
          expect(found.map(({ weights }) => weights)).toEqual(plain.map(({ weights }) => weights));
        }
      }),
      { numRuns: 60 },
    );
  });

  test("a step grows at most by the factor", () => {
    const k = 4;
    for (const correction of [1, 2, 5]) {
      const states = follow(make({ prior: priorOf(k, 0.97), pull: 0, eta: 0.05, correction }), k, [
        ...repeated(signalOf(k), 60),
      ]);
      const moves = states.slice(1).map(({ weights }, t) => {
        const before = states[t].weights;
        return Math.log(weights[0] / weights[k - 1]) - Math.log(before[0] / before[k - 1]);
      });
      // The alignments 3, 2, 2 and 0 have a standard deviation of √(19/12), so the first is 3/√(19/12) spreads above the last.
      const one = 0.05 * (3 / Math.sqrt(19 / 12));
      if (correction < 5) expectNear(Math.max(...moves), one * correction, 1e-9);
      expect(Math.max(...moves)).toBeLessThan(one * correction + 1e-9);
    }
  });

  test("what contradicts the prior is read from a state, also through combinators; there is none without a correction", () => {
    const k = 4;
    const given = { prior: priorOf(k, 0.97) };
    const signals = repeated(signalOf(k), 12);
    const found = (rule: Rule): (number | null)[] => follow(rule, k, signals).map(contradictionIn);
    const plain = found(make(given));
    expect(plain[0]).toBe(0);
    expect(Math.max(...plain.map((value) => value ?? NaN))).toBeGreaterThan(0.5);
    expect(plain).toEqual(follow(make(given), k, signals).map(({ memory }) => memory["against"][0]));
    const around = combinators.floor(combinators.ema(make(given), 0.5), 0.01);
    expect(found(around)).toEqual(plain);
    expect(found(make({ ...given, correction: 1 }))).toEqual(plain.map(() => null));
    expect(found(rules.uniform())).toEqual(plain.map(() => null));
  });

  test("a saved state whose prior does not lie on the simplex is refused", () => {
    const rule = make({ prior: [1, 2] });
    const { memory } = rule.init(names(2));
    expect(rule.memoryFault?.(memory)).toBeNull();
    expect(rule.memoryFault?.({ ...memory, prior: [0.5, 0.6] })).toBe("prior does not lie on the simplex");
    expect(rule.memoryFault?.({ ...memory, against: [-1] })).toBe("against has a number below 0");
  });
});

describe("domains that an update does not measure", () => {
  test("continue with their running means; domains that were never measured keep their weight", () => {
    const rule = make({ start: [0.4, 0.3, 0.2, 0.1] });
    const first = exact([1, 3, NaN, NaN], { tokens: [8, 8, 0, 0] });
    const none = exact([NaN, NaN, NaN, NaN], { tokens: [0, 0, 0, 0] });
    const states = follow(rule, 4, [none, first, ...repeated(none, 5)]);
    expectNear(states[1].weights, [0.4, 0.3, 0.2, 0.1], 1e-15);
    for (let t = 2; t < states.length; t++) {
      expectNear(states[t].weights.slice(2), [0.2, 0.1], 1e-15);
      expect(states[t].weights[1]).toBeGreaterThan(states[t - 1].weights[1]);
    }
  });

  test("the numbers given for them have no effect", () => {
    const signals = noisy(3, 5, 12);
    const junk = signals.map((given) => ({
      ...given,
      alignments: Array.from(given.alignments ?? [], (a, i) => (given.tokens?.[i] === 0 ? NaN : a)),
      standardErrors: (given.standardErrors ?? []).map((e, i) => (given.tokens?.[i] === 0 ? -1 : e)),
    }));
    expect(follow(make(), 5, junk)).toEqual(follow(make(), 5, signals));
  });
});

const limited = fc.integer({ min: 1, max: 8 }).chain((k) =>
  fc.record({
    k: fc.constant(k),
    sizes: fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: k, maxLength: k }),
    tokens: fc.integer({ min: 1, max: 20_000 }),
    repetitions: fc.constantFrom(undefined, 0.5, 4),
    normalise: fc.constantFrom("tracked" as const, "raw" as const),
    beta: fc.constantFrom(undefined, 0.3),
    prior: fc.option(histogram(k), { nil: undefined }),
    signals: fc.array(signal(k), { minLength: 1, maxLength: 6 }),
  }),
);

describe("repetitions", () => {
  test("stay below the limit for any signals: by default 4, or 3 more than if all text were used equally often; none for the paper's rule. If the limit is impossible, every domain is repeated equally", () => {
    fc.assert(
      fc.property(limited, ({ k, sizes, tokens, repetitions, normalise, beta, prior, signals }) => {
        const options: Partial<DgaOptions> = {
          ...{ normalise, sizes, tokens },
          ...(repetitions === undefined ? {} : { repetitions }),
          ...(beta === undefined ? {} : { beta }),
          ...(prior === undefined ? {} : { prior }),
        };
        const all = sumOf(sizes);
        const usual = Math.max(4, 3 + tokens / all);
        const most = repetitions ?? (normalise === "tracked" ? usual : Infinity);
        for (const { weights } of follow(make(options), k, signals)) {
          if (sumOf(sizes.map((size) => Math.min(1, (most * size) / tokens))) <= 1 && most < Infinity)
            expectNear(
              weights,
              sizes.map((size) => size / all),
              1e-9,
            );
          else
            weights.forEach((weight, i) =>
              expect(weight * tokens).toBeLessThanOrEqual(most * sizes[i] * (1 + 1e-12) + 1e-12),
            );
          expect(Math.abs(sumOf(weights) - 1)).toBeLessThanOrEqual(1e-12);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("are ignored if sizes or tokens are unknown, and do not affect the tracked α", () => {
    const caps = (options: Partial<DgaOptions>): unknown =>
      repetitionCaps({ name: "dga", ...options }, ["a", "b"]);
    expect(caps({ sizes: [1, 2] })).toBe(null);
    expect(caps({ tokens: 10 })).toBe(null);
    expect(caps({ sizes: [1, 2], tokens: 10, normalise: "cosine" })).toBe(null);
    expect(caps({ sizes: { b: 2, a: 1 }, tokens: 3 })).toEqual([1, 1]);
    expect(caps({ sizes: { b: 20, a: 1 }, tokens: 10 })).toEqual([0.4, 1]);
    expect(caps({ sizes: [1, 2], tokens: 30, prior: [1, 1] })).toEqual([13 / 30, 26 / 30]);
    expect(caps({ sizes: [1, 2], tokens: 10, normalise: "raw", repetitions: 2 })).toEqual([0.2, 0.4]);
    const free = follow(make(), 4, repeated(exact([1, 2, 3, 4]), 20));
    const held = follow(make({ sizes: [10, 10, 10, 1], tokens: 10 }), 4, repeated(exact([1, 2, 3, 4]), 20));
    expect(held.map(({ memory }) => memory["alpha"])).toEqual(free.map(({ memory }) => memory["alpha"]));
    expectNear(last(held)[3], 0.4, 1e-12);
  });
});

describe("the floor, the start and the state", () => {
  const settings = fc.integer({ min: 2, max: 6 }).chain((k) =>
    fc.record({
      k: fc.constant(k),
      seed: fc.nat(1e6),
      floor: fc.double({ min: 0, max: 0.99 / k, noNaN: true }),
      start: simplexPoint(k),
      prior: fc.option(simplexPoint(k), { nil: undefined }),
      beta: fc.constantFrom(1, 0.3),
    }),
  );

  test("no weight is below the floor, whatever the start and the prior; without a floor, a domain at 0 stays there", () => {
    fc.assert(
      fc.property(settings, ({ k, seed, floor, start, prior, beta }) => {
        const options = {
          ...{ floor, beta, start: Array.from(start) },
          ...(prior === undefined ? {} : { prior: Array.from(prior) }),
        };
        for (const { weights, memory } of follow(make(options), k, noisy(seed, k, 8))) {
          for (const weight of [...weights, ...memory["alpha"]]) expect(weight).toBeGreaterThanOrEqual(floor);
          expect(Math.abs(sumOf(weights) - 1)).toBeLessThanOrEqual(1e-12);
          if (floor === 0) start.forEach((weight, i) => expect(weights[i] > 0).toBe(weight > 0));
        }
      }),
      { numRuns: 200 },
    );
  });

  test("a saved state continues to the same bits", () => {
    fc.assert(
      fc.property(settings, fc.nat(7), ({ k, seed, start, beta }, at) => {
        const signals = noisy(seed, k, 8);
        const options = { beta, start: Array.from(start), sizes: names(k).map((_, i) => 5 + i), tokens: 50 };
        const whole = follow(make(options), k, signals);
        let state = JSON.parse(JSON.stringify(whole[at])) as RuleState;
        expect(make(options).memoryFault?.(state.memory)).toBe(null);
        for (const given of signals.slice(at)) state = make(options).update(state, given);
        expect(state).toEqual(whole[8]);
      }),
      { numRuns: 50 },
    );
  });

  test("the initial memory is one without measurements", () => {
    expect(make().init(["a", "b"]).memory).toEqual({
      alpha: [0.5, 0.5],
      means: [0, 0],
      tokens: [0, 0],
      variances: [0, 0],
      noise: [0, 0],
    });
  });
});

describe("the paper's form", () => {
  test("is the form that its options say, and the same as the rule with explicit options", () => {
    expect(paper()).toEqual({ name: "dga", normalise: "raw", eta: 1, beta: 0.1 });
    expect(paper({ eta: 3 })).toEqual({ name: "dga", normalise: "raw", eta: 3, beta: 0.1 });
    const explicit = {
      name: "dga",
      normalise: "raw",
      eta: 2,
      beta: 0.1,
      pull: 0,
      memory: 0,
      floor: 0,
    } as const;
    fc.assert(
      fc.property(fc.array(signal(4), { minLength: 1, maxLength: 5 }), (signals) => {
        const [wanted, found] = [explicit, paper({ eta: 2 })].map((o) => follow(createRule(o), 4, signals));
        expect(found).toEqual(wanted);
      }),
      { numRuns: 50 },
    );
    expect(errorOf(() => paper({ eta: -1 })).message).toMatch(/^paper: eta: -1 does not fit/);
  });

  test("the defaults are as documented", () => {
    expect(dgaDefaults).toEqual({
      ...{ normalise: "tracked", floor: 0, uniformShare: 0.01 },
      aroundPrior: { eta: 0.1, beta: 1, pull: 0.1, memory: 0.9, correction: 20 },
      withoutPrior: { eta: 0.5, beta: 1, pull: 0.05, memory: 0.5, correction: 1 },
      untracked: { eta: 1, beta: 0.1, pull: 0, memory: 0, correction: 1 },
      repetitions: { least: 4, beyondEven: 3 },
      schedules: {
        aroundPrior: { probes: 4, blockShare: 0 },
        withoutPrior: { updateEvery: 5, measureEvery: 1 },
      },
    });
  });

  test("the usual limit on repetitions: 4 while there is enough text, and always room to choose", () => {
    expect(usualRepetitions([100, 300], 10)).toBe(4);
    expect(usualRepetitions([100, 300], 400)).toBe(4);
    expect(usualRepetitions([100, 300], 600)).toBe(4.5);
    const positive = fc.integer({ min: 1, max: 1e6 });
    fc.assert(
      fc.property(fc.array(positive, { minLength: 1, maxLength: 20 }), positive, (sizes, tokens) => {
        const most = usualRepetitions(sizes, tokens);
        expect(most).toBeGreaterThanOrEqual(4);
        // The limit never leaves the weights without a choice.
        expect(sumOf(sizes.map((size) => (most * size) / tokens))).toBeGreaterThan(1);
        // The limits follow the unit of the text, such as tokens or windows.
        expectNear(
          usualRepetitions(
            sizes.map((size) => 64 * size),
            64 * tokens,
          ),
          most,
          1e-12 * most,
        );
      }),
    );
  });
});
