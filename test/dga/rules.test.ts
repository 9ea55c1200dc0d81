/** Every rule keeps the guarantees of the interface, and its own. */
import {
  createMixer,
  createRule,
  currentWeights,
  exponentiatedGradient,
  movingAverage,
  normalisations,
  normalise,
  projectFloor,
  type Rule,
  type RuleOptions,
  rules,
  type RuleState,
  type Signal,
  sumOf,
  uniformWeights,
} from "#dist/dga/index.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { names, signal, simplexPoint } from "gradmix/testing";
import { measuredDomains } from "#dist/dga/rule.js";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const alphaOf = (state: RuleState): readonly number[] => state.memory["alpha"];

/** Random options of dga, with domains and a few signals. */
const runs = () =>
  fc.integer({ min: 1, max: 8 }).chain((k) =>
    fc.record({
      k: fc.constant(k),
      options: fc.record(
        {
          name: fc.constant("dga" as const),
          eta: fc.oneof(fc.double({ min: 0, max: 3, noNaN: true }), fc.constant(0)),
          beta: fc.oneof(fc.double({ min: 1e-3, max: 1, noNaN: true }), fc.constant(1)),
          normalise: fc.constantFrom("raw" as const, "clipped" as const, "cosine" as const),
          floor: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 0.99 / k, noNaN: true })),
        },
        { requiredKeys: ["name", "normalise"] },
      ),
      signals: fc.array(signal(k), { minLength: 1, maxLength: 6 }),
    }),
  );

function follow(rule: Rule, domains: readonly string[], signals: readonly Signal[]): RuleState[] {
  const states = [rule.init(domains)];
  for (const given of signals) states.push(rule.update(states[states.length - 1], given));
  return states;
}

describe("fixed rules", () => {
  test("uniform gives 1/k, static the given weights, importance sampling the shares of the histogram", () => {
    expect(rules.uniform().init(names(4)).weights).toEqual([0.25, 0.25, 0.25, 0.25]);
    expect(rules.static({ name: "static", weights: [0.25, 0.75] }).init(["a", "b"]).weights).toEqual([
      0.25, 0.75,
    ]);
    expect(rules.static({ name: "static", weights: { b: 0.75, a: 0.25 } }).init(["a", "b"]).weights).toEqual([
      0.25, 0.75,
    ]);
    expect(
      rules.importanceSampling({ name: "importanceSampling", histogram: [3, 0, 9] }).init(names(3)).weights,
    ).toEqual([0.25, 0, 0.75]);
    expect(
      rules
        .importanceSampling({ name: "importanceSampling", histogram: { domain2: 9, domain0: 3 } })
        .init(names(3)).weights,
    ).toEqual([0.25, 0, 0.75]);
  });

  test("invalid weights and histograms are refused in one line that names the domain", () => {
    const cases: [RuleOptions, RegExp][] = [
      [{ name: "static", weights: [0.5, 0.6] }, /^weights: they sum to 1\.1, not to 1$/],
      [{ name: "static", weights: [0.5] }, /^weights: 1 values for 2 domains$/],
      [{ name: "static", weights: { wiki: -1, code: 2 } }, /^weights: "wiki" has -1;/],
      [
        { name: "static", weights: { wiki: 0.5, coed: 0.5 } },
        /there is no domain "coed"; did you mean "code"\?/,
      ],
      [{ name: "static", weights: [0.5, "0.5"] as unknown as number[] }, /^weights: "code" has "0\.5";/],
      [
        { name: "static", weights: [0.5, { toString: null }] as unknown as number[] },
        /^weights: "code" has an object;/,
      ],
      [{ name: "static" } as unknown as RuleOptions, /^static: weights is missing$/],
      [{ name: "importanceSampling", histogram: [0, 0] }, /^histogram: all counts are 0/],
      [{ name: "importanceSampling", histogram: [NaN, 1] }, /^histogram: "wiki" has NaN;/],
      [{ name: "importanceSampling", histogram: [1, -1] }, /^histogram: "code" has -1;/],
      [{ name: "importanceSampling", histogram: { web: 1 } }, /there is no domain "web"/],
    ];
    for (const [options, message] of cases) {
      const error = errorOf(() => createRule(options).init(["wiki", "code"]));
      expect(error.code).toBe("config");
      expect(error.message).toMatch(message);
    }
  });
});

describe("createRule", () => {
  test("suggests the nearest name", () => {
    for (const [given, meant] of [
      ["DGA", "dga"],
      ["unifrom", "uniform"],
      ["importance-sampling", "importanceSampling"],
      ["statics", "static"],
    ]) {
      const error = errorOf(() => createRule({ name: given } as unknown as RuleOptions));
      expect(error.code).toBe("config");
      expect(error.message).toBe(`rule: there is no rule "${given}"; did you mean "${meant}"?`);
    }
    const far = errorOf(() => createRule({ name: "constructor" } as unknown as RuleOptions));
    expect(far.message).toContain("the rules are uniform, static, temperature, importanceSampling, dga,");
    const none = errorOf(() => createRule({ eta: 1 } as unknown as RuleOptions));
    expect([none.code, none.message]).toEqual([
      "config",
      expect.stringMatching(/^rule: the options have no name of a rule; the rules are uniform, /),
    ]);
  });
});

describe("dga's options", () => {
  test.each<readonly [object, RegExp]>([
    [{ eta: -0.1 }, /^dga: eta: -0\.1 does not fit; it must be at least 0 and finite$/],
    [{ eta: NaN }, /^dga: eta: NaN /],
    [{ eta: Infinity }, /^dga: eta: Infinity /],
    [{ eta: "1" }, /^dga: eta: "1" does not fit/],
    [{ eta: null }, /^dga: eta: null /],
    [{ eta: { toString: null } }, /^dga: eta: an object does not fit/],
    [{ beta: 0 }, /^dga: beta: 0 does not fit; it must be more than 0 and at most 1$/],
    [{ beta: 1.01 }, /^dga: beta: 1\.01 /],
    [{ beta: NaN }, /^dga: beta: NaN /],
    [{ floor: -1e-9 }, /^dga: floor: -1e-9 /],
    [{ floor: 0.25 }, /^dga: floor: 0\.25 does not fit; it must be at least 0 and less than 0\.25$/],
    [{ floor: NaN }, /^dga: floor: NaN /],
    [{ normalise: "cos" }, /^dga: normalise: "cos" is not known; did you mean "cosine"\?$/],
    ...["pull", "uniformShare"].flatMap((name) =>
      [-0.1, 1.1, NaN].map(
        (bad) => [{ [name]: bad }, new RegExp(`^dga: ${name}: ${bad} does not fit`)] as const,
      ),
    ),
    [{ memory: 1 }, /^dga: memory: 1 does not fit; it must be at least 0 and less than 1$/],
    [{ memory: -0.1 }, /^dga: memory: -0\.1 /],
    [{ repetitions: 0 }, /^dga: repetitions: 0 does not fit/],
    [{ tokens: 0 }, /^dga: tokens: 0 does not fit/],
    [{ prior: [1, 1] }, /^prior: 2 values for 4 domains$/],
    [{ prior: [0, 0, 0, 0] }, /^prior: all counts are 0/],
    [{ prior: { domain0: -1 } }, /^prior: "domain0" has -1/],
    [{ sizes: { domain0: 1 }, tokens: 9 }, /^sizes: there is no number for domain "domain1"/],
    [{ start: [0.5, 0.5] }, /^start: 2 values for 4 domains$/],
    [{ start: { domain9: 1 } }, /^start: there is no domain "domain9"/],
    [{ etta: 1 }, /^dga: there is no option "etta"; did you mean "eta"\?$/],
  ])("%j is refused", (options, message) => {
    const error = errorOf(() => rules.dga({ name: "dga", ...options }).init(names(4)));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(message);
  });

  test("the ends of the ranges are allowed", () => {
    expect(() => rules.dga({ name: "dga", eta: 0, beta: 1, floor: 0 }).init(names(4))).not.toThrow();
    expect(() =>
      rules.dga({ name: "dga", beta: Number.MIN_VALUE, floor: 0.2499 }).init(names(4)),
    ).not.toThrow();
    expect(() => rules.dga({ name: "dga", floor: 0.3 }).init(["only"])).not.toThrow();
  });
});

describe("dga", () => {
  test("is Algorithm 1: the mirror step on α, and the sampled weights are the average of the new α", () => {
    fc.assert(
      fc.property(runs(), ({ k, options, signals }) => {
        const { eta = 1, beta = 0.1, normalise: kind, floor = 0 } = options;
        let alpha = uniformWeights(k);
        let average = alpha;
        const states = follow(createRule(options), names(k), signals);
        signals.forEach((s, t) => {
          const direction = Array.from(s.alignments, (a, i) => {
            const [g, v] = [s.norms[i], s.targetNorm];
            if (kind === "raw") return a;
            if (kind === "clipped") return a * Math.min(1, 1 / g) * Math.min(1, 1 / v);
            return g === 0 || v === 0 ? 0 : Math.min(1, Math.max(-1, a / g / v));
          });
          alpha = projectFloor(exponentiatedGradient(alpha, direction, eta), floor);
          average = movingAverage(average, alpha, beta);
          const state = states[t + 1];
          state.weights.forEach((w, i) => expect(Math.abs(w - average[i])).toBeLessThanOrEqual(1e-6));
          alphaOf(state).forEach((w, i) => expect(Math.abs(w - alpha[i])).toBeLessThanOrEqual(1e-6));
          expect(state.updates).toBe(t + 1);
          // Rounding of huge directions is amplified by the exponent, so continue from the rule's own result.
          alpha = Float64Array.from(alphaOf(state));
          average = Float64Array.from(state.weights);
        });
      }),
      { numRuns: 300 },
    );
  });

  test("one step by hand: k = 2, α = ½, ½, a = (ln 3, 0), η = 1 gives α = ¾, ¼; sampled is 0.9·½ + 0.1·¾", () => {
    const rule = rules.dga({ name: "dga", eta: 1, beta: 0.1, normalise: "raw" });
    const state = rule.update(rule.init(["a", "b"]), { alignments: [Math.log(3), 0] });
    expectNear(alphaOf(state)[0], 0.75, 1e-15);
    expectNear(state.weights[0], 0.525, 1e-15);
  });

  test("stays on the simplex to 1e-12 over 10,000 updates, and keeps its support or its floor", () => {
    const k = 7;
    for (const floor of [0, 0.02])
      for (const normalise of normalisations) {
        const rule = rules.dga({ name: "dga", eta: 1.5, beta: 0.1, normalise, floor });
        const next = random(42);
        let state = rule.init(names(k));
        let worst = 0;
        let least = 1;
        for (let step = 0; step < 10_000; step++) {
          // Domain 0 is always the best and domain 6 the worst, now and then by absurd amounts.
          const scale = step % 997 === 0 ? 1e30 : 1;
          const values = Array.from({ length: k }, (_, i) => scale * (gaussian(next) - i / 4));
          state = rule.update(state, {
            alignments: values,
            preconditionedAlignments: values,
            preconditionedTargetNorm: 1,
            norms: values.map(Math.abs),
            targetNorm: 1,
          });
          worst = Math.max(worst, Math.abs(sumOf(state.weights) - 1), Math.abs(sumOf(alphaOf(state)) - 1));
          least = Math.min(least, ...state.weights, ...alphaOf(state));
        }
        expect(worst).toBeLessThanOrEqual(1e-12);
        expect(state.weights[0]).toBeGreaterThan(state.weights[k - 1]);
        if (floor > 0) expect(least).toBeGreaterThanOrEqual(floor);
        else expect(least).toBeGreaterThan(0);
      }
  });

  test("with η = 0 the weights never change, bit for bit", () => {
    fc.assert(
      fc.property(runs(), ({ k, options, signals }) => {
        const states = follow(createRule({ ...options, eta: 0 }), names(k), signals);
        for (const state of states) expect(state.weights).toEqual(states[0].weights);
      }),
    );
  });

  test("with β = 1 the sampled weights are α itself", () => {
    fc.assert(
      fc.property(runs(), ({ k, options, signals }) => {
        for (const state of follow(createRule({ ...options, beta: 1 }), names(k), signals))
          expect(state.weights).toEqual(alphaOf(state));
      }),
    );
  });

  test("β is the weight of the new value, rather than of the old one", () => {
    const after = (beta: number): number => {
      const rule = rules.dga({ name: "dga", beta, normalise: "raw" });
      return rule.update(rule.init(["a", "b"]), { alignments: [100, 0] }).weights[0];
    };
    expectNear(after(0.1), 0.55, 1e-12);
    expectNear(after(0.9), 0.95, 1e-12);
  });

  test("clipped and cosine do not depend on the scale of gradients above norm 1; cosine does not depend on any scale", () => {
    const scaled = fc.record({
      a: fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 }),
      norms: fc.array(fc.double({ min: 1, max: 9, noNaN: true }), { minLength: 4, maxLength: 4 }),
      scale: fc.double({ min: 1, max: 1e6, noNaN: true }),
    });
    fc.assert(
      fc.property(scaled, ({ a, norms, scale }) => {
        for (const kind of ["clipped", "cosine"] as const) {
          const rule = rules.dga({ name: "dga", normalise: kind, beta: 1 });
          const at = (s: number): readonly number[] =>
            rule.update(rule.init(names(4)), {
              alignments: a.map((x, i) => x * norms[i] * s * s),
              norms: norms.map((n) => n * s),
              targetNorm: s,
            }).weights;
          at(scale).forEach((w, i) => expectNear(w, at(1)[i], 1e-10));
        }
      }),
    );
  });

  test("clipping does not change gradients below norm 1; a zero gradient has cosine 0", () => {
    const step = (
      normalise: "raw" | "clipped" | "cosine",
      norms: number[],
      targetNorm: number,
    ): readonly number[] => {
      const rule = rules.dga({ name: "dga", normalise, beta: 1 });
      return rule.update(rule.init(["a", "b"]), { alignments: [0.2, 0.1], norms, targetNorm }).weights;
    };
    expect(step("clipped", [0.5, 0.9], 0.4)).toEqual(step("raw", [], 0));
    expect(step("cosine", [0, 0], 1)).toEqual([0.5, 0.5]);
    expect(step("cosine", [1, 1], 0)).toEqual([0.5, 0.5]);
    expect(step("cosine", [0, 1], 1)[0]).toBeLessThan(0.5);
  });

  test("a domain that was not measured keeps its α; the others share theirs as if they were alone", () => {
    const runsOf = fc.integer({ min: 2, max: 7 }).chain((k) =>
      fc.record({
        start: simplexPoint(k, { positive: true }),
        a: fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: k, maxLength: k }),
        tokens: fc.array(fc.constantFrom(0, 64), { minLength: k, maxLength: k }),
        junk: fc.constantFrom(NaN, Infinity, 0, -1e30),
      }),
    );
    fc.assert(
      fc.property(runsOf, ({ start, a, tokens, junk }) => {
        const k = a.length;
        const rule = rules.dga({ name: "dga", normalise: "raw", beta: 1, start: Array.from(start) });
        const state = rule.init(names(k));
        const given = a.map((x, i) => (tokens[i] > 0 ? x : junk));
        const next = rule.update(state, { alignments: given, tokens }).weights;
        const on = [...tokens.keys()].filter((i) => tokens[i] > 0);
        tokens.forEach((n, i) => {
          if (n === 0) expect(next[i]).toBe(state.weights[i]);
          expect(next[i]).toBeGreaterThan(0);
        });
        expect(Math.abs(sumOf(next) - 1)).toBeLessThanOrEqual(1e-12);
        if (on.length === 0) return;
        const total = sumOf(on.map((i) => state.weights[i]));
        const alone = exponentiatedGradient(
          normalise(on.map((i) => state.weights[i])),
          on.map((i) => a[i]),
          1,
        );
        on.forEach((i, j) => expect(Math.abs(next[i] - total * alone[j])).toBeLessThanOrEqual(1e-14));
      }),
    );
    const rule = rules.dga({ name: "dga", normalise: "raw" });
    const state = rule.init(["a", "b"]);
    expect(errorOf(() => rule.update(state, { alignments: [0, 0], tokens: [1, NaN] })).message).toContain(
      'tokens of domain "b" is NaN',
    );
  });

  test("a domain that starts at 0 stays at 0 without a floor and is raised with one", () => {
    const start = [0.5, 0.5, 0];
    const run = (floor: number): RuleState => {
      const rule = rules.dga({ name: "dga", normalise: "raw", floor, start });
      return rule.update(rule.init(names(3)), { alignments: [0, 0, 50] });
    };
    expect(run(0).weights[2]).toBe(0);
    expect(run(0.01).weights[2]).toBeGreaterThan(0.01);
  });
});

test("a custom rule works in the mixer like a built-in one", () => {
  const greedy: Rule = {
    name: "greedy",
    needs: ["losses"],
    init: (domains) => ({
      rule: "greedy",
      domains,
      weights: Array.from(uniformWeights(domains.length)),
      updates: 0,
      memory: {},
    }),
    update: (state, { losses = [] }) => ({
      ...state,
      weights: Array.from(normalise(losses)),
      updates: state.updates + 1,
    }),
  };
  const mixer = createMixer({ domains: ["a", "b"], rule: greedy });
  expect(
    Array.from(
      currentWeights({ ...mixer.initial, rule: greedy.update(mixer.initial.rule, { losses: [3, 1] }) }),
    ),
  ).toEqual([0.75, 0.25]);
});

test("tokens say which domains were measured; invalid counts are refused with the name of the domain", () => {
  const rule = createRule({ name: "dga", normalise: "raw" });
  const state = rule.init(names(3));
  const measured = (tokens: number[]): readonly boolean[] | null =>
    measuredDomains("dga", state, { alignments: [1, 2, 3], tokens });
  expect(measured([1, 2, 3])).toBe(null);
  expect(measured([1, 0, 0.5])).toEqual([true, false, true]);
  expect(measuredDomains("dga", state, { alignments: [1, 2, 3] })).toBe(null);
  for (const bad of [-1, -1e-300, NaN, Infinity]) {
    const error = errorOf(() => rule.update(state, { alignments: [1, 2, 3], tokens: [1, bad, 3] }));
    expect(error.code).toBe("numeric");
    expect(error.message).toContain(`tokens of domain "${names(3)[1]}" is ${bad}`);
  }
  expect(errorOf(() => measured([1, 2])).message).toMatch(/tokens/);
});
