/** The rules other than DGA against the formulas of their papers, written out, and on losses with known gradients. */
import {
  type CombinatorOptions,
  combinators,
  combine,
  createMixer,
  createRule,
  restoreMixer,
  type Rule,
  rules,
  type RuleState,
  type Signal,
} from "gradmix/dga";
import { simplexPoint } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gaussian, random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const softmax = (logits: readonly number[]): number[] => {
  const e = logits.map((l) => Math.exp(l - Math.max(...logits)));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
};
const close = (found: readonly number[], wanted: readonly number[], digits = 12): void => {
  expect(found.length).toBe(wanted.length);
  found.forEach((x, i) => expectNear(x, wanted[i], 10 ** -digits));
};
const run = (rule: Rule, domains: readonly string[], signals: readonly Signal[]): RuleState =>
  signals.reduce((state, given) => rule.update(state, given), rule.init(domains));
const abc = ["a", "b", "c"];

describe("temperature", () => {
  test("is n^τ: sizes for 1, uniform for 0, XLM-R's 0.3 by default", () => {
    const weights = (exponent?: number): readonly number[] =>
      rules
        .temperature({
          name: "temperature",
          sizes: { a: 1, c: 100, b: 10 },
          ...(exponent === undefined ? {} : { exponent }),
        })
        .init(abc).weights;
    close(weights(1), [1 / 111, 10 / 111, 100 / 111]);
    close(weights(0), [1 / 3, 1 / 3, 1 / 3]);
    const p = [1, 10 ** 0.3, 100 ** 0.3];
    close(
      weights(),
      p.map((x) => x / (p[0] + p[1] + p[2])),
    );
  });
  test("refuses invalid sizes", () => {
    for (const [sizes, message] of [
      [{ a: 1, b: 2 }, /^sizes: there is no number for domain "c"; every domain needs one$/],
      [[1, 2], /^sizes: 2 values for 3 domains$/],
      [[1, NaN, 1], /^sizes: "b" has NaN;/],
    ] as const) {
      const error = errorOf(() => rules.temperature({ name: "temperature", sizes }).init(abc));
      expect(error.code).toBe("config");
      expect(error.message).toMatch(message);
    }
  });
});

describe("doge", () => {
  // Gradients (1, 0), (1, 1), (−3, 0): the sum is (−1, 1).
  const gradients = [
    [1, 0],
    [1, 1],
    [-3, 0],
  ];
  const gram = gradients.flatMap((g) => gradients.map((h) => g[0] * h[0] + g[1] * h[1]));
  test("towards all domains: ⟨gᵢ, Σg⟩ over the mean norm, between 0 and 5", () => {
    const mean = (1 + Math.SQRT2 + 3) / 3;
    const scores = [-1, 0, 3].map((s) => Math.min(5, Math.max(0, s / mean)));
    close(
      run(rules.doge({ name: "doge", eta: 0.7 }), abc, [{ gram }]).weights,
      softmax(scores.map((s) => 0.7 * s)),
    );
    const huge = gram.map((g) => 1e8 * g);
    close(
      run(rules.doge({ name: "doge", eta: 0.7 }), abc, [{ gram: huge }]).weights,
      softmax([0, 0, 0.7 * 5]),
    );
  });
  test("without a domain's own gradient, as in the authors' code", () => {
    const mean = (1 + Math.SQRT2 + 3) / 3;
    const scores = [-1 - 1, 0 - 2, 3 - 9].map((s) => Math.min(5, Math.max(0, s / mean)));
    close(
      run(rules.doge({ name: "doge", eta: 0.7, own: false }), abc, [{ gram }]).weights,
      softmax(scores.map((s) => 0.7 * s)),
    );
    // Three pairs of which two agree.
    const pairs = [4, 1, 0, 1, 9, 2, 0, 2, 16];
    close(
      run(rules.doge({ name: "doge", eta: 0.7, own: false }), abc, [{ gram: pairs }]).weights,
      softmax([1 / 3, 3 / 3, 2 / 3].map((s) => 0.7 * s)),
    );
    expect(errorOf(() => rules.doge({ name: "doge", own: "no" as unknown as boolean })).message).toMatch(
      /^doge: own: "no"/,
    );
  });
  test("towards a target, with smoothing", () => {
    const rule = rules.doge({
      name: "doge",
      towards: "target",
      eta: 2,
      smoothing: 0.3,
      start: [0.5, 0.25, 0.25],
    });
    const stepped = softmax([0.4, 0.1, 0].map((s, i) => (2 * s) / 2 + Math.log([0.5, 0.25, 0.25][i])));
    close(
      run(rule, abc, [{ alignments: [0.4, 0.1, -9], norms: [1, 2, 3] }]).weights,
      stepped.map((w) => 0.7 * w + 0.1),
    );
  });
  test("refuses a direction that it does not know, and a Gram matrix of another size", () => {
    expect(errorOf(() => rules.doge({ name: "doge", towards: "targets" as "target" })).message).toMatch(
      /^doge: towards: "targets" is not known; did you mean "target"\?/,
    );
    const rule = rules.doge();
    expect(errorOf(() => rule.update(rule.init(abc), { gram: [1, 2] })).message).toBe(
      "doge: a Gram matrix of 2 numbers for 3 domains",
    );
    expect(errorOf(() => rule.update(rule.init(abc), { gram: gram.with(8, -1) })).message).toContain('"c"');
  });
});

describe("rnb", () => {
  test("is softmax(λ G q / ‖G q‖), independent of earlier updates", () => {
    const gram = [2, 1, 0, 1, 3, -1, 0, -1, 1];
    const q = [0.2, 0.3, 0.5];
    const v = [0, 1, 2].map((i) => q.reduce((sum, x, j) => sum + gram[3 * i + j] * x, 0));
    const norm = Math.hypot(...v);
    const rule = rules.rnb({ name: "rnb", target: { a: 0.2, b: 0.3, c: 0.5 }, lambda: 4 });
    const wanted = softmax(v.map((x) => (4 * x) / norm));
    close(run(rule, abc, [{ gram }]).weights, wanted);
    close(run(rule, abc, [{ gram: [9, 0, 0, 0, 1, 0, 0, 0, 1] }, { gram }]).weights, wanted);
    close(run(rule, abc, [{ gram: gram.map((g) => 1e300 * g) }]).weights, wanted);
    close(run(rule, abc, [{ gram: gram.map(() => 0) }]).weights, [1 / 3, 1 / 3, 1 / 3]);
  });
});

describe("doremi", () => {
  test("raises domains that are worse than the reference, clipped at 0, and mixes in a little of all domains", () => {
    const rule = rules.doremi();
    const state = run(rule, abc, [{ losses: [3, 2, 1], referenceLosses: [2, 2.5, 0.8] }]);
    const stepped = softmax([1, 0, 0.2]);
    close(
      state.weights,
      stepped.map((w) => 0.999 * w + 0.001 / 3),
    );
  });
  test("keeps the last excess of a domain that was not drawn", () => {
    const rule = rules.doremi({ name: "doremi", smoothing: 0 });
    const first = { losses: [3, 2, 1], referenceLosses: [2, 2, 1] };
    const state = run(rule, abc, [
      first,
      { losses: [0, 2, 1.5], referenceLosses: [0, 2, 1], tokens: [0, 8, 8] },
    ]);
    close(state.weights, softmax([1 + 1, 0, 0.5]));
  });
});

describe("odm", () => {
  test("is Exp3 with decaying exploration and importance-weighted rewards", () => {
    const rule = rules.odm();
    let rewards = [0, 0, 0];
    let weights = [1 / 3, 1 / 3, 1 / 3];
    let state = rule.init(abc);
    const next = random(3);
    for (let t = 1; t <= 20; t++) {
      const losses = [4 + next(), 2 + next(), 1 + next()];
      const tokens = [next() < 0.6 ? 8 : 0, next() < 0.6 ? 8 : 0, 8];
      rewards = rewards.map((r, i) => (tokens[i] > 0 ? 0.9 * r + (0.1 * losses[i]) / weights[i] : r));
      const epsilon = (s: number): number => Math.min(1 / 3, Math.sqrt(Math.log(3) / (3 * s)));
      const before = t === 1 ? 1 / 3 : epsilon(t - 1);
      weights = softmax(rewards.map((r) => before * r)).map((w) => (1 - 3 * epsilon(t)) * w + epsilon(t));
      state = rule.update(state, { losses, tokens });
      close(state.weights, weights);
    }
    expect(state.weights[0]).toBeGreaterThan(state.weights[2]);
  });
});

describe("grape", () => {
  test("moves z towards the target that improves least, then α towards the domains that help z", () => {
    const rule = rules.grape({ name: "grape", targets: ["s", "t"], eta: 2, mu: 3, normalise: "raw" });
    const targets = [
      { name: "s", alignments: [1, 0.5, 0], norm: 1, loss: 2 },
      { name: "t", alignments: [-0.2, 0.1, 0.6], norm: 1, loss: 0.5 },
    ];
    const rates = targets.map(({ alignments, loss }) => alignments.map((a) => a / loss));
    const improvement = rates.map((row) => row.reduce((sum, r) => sum + r / 3, 0));
    const z = softmax(improvement.map((r) => -3 * r)).map((w) => 0.999 * w + 0.001 / 2);
    const state = run(rule, abc, [{ targets }]);
    close(state.memory["targets"], z);
    close(state.weights, softmax([0, 1, 2].map((i) => 2 * (z[0] * rates[0][i] + z[1] * rates[1][i]))));
  });
  test("clips the gradients of the domains and of log ℓ, rather than of ℓ", () => {
    const rule = rules.grape({ name: "grape", targets: ["s"], eta: 2 });
    // ‖∇log ℓ‖ is 6 / 4; of the domains' gradients the second is longer than 1.
    const targets = [{ name: "s", alignments: [0.9, 3, -0.3], norm: 6, loss: 4 }];
    const rates = [0.9 / 4 / 1.5, 3 / 4 / 1.5 / 2, -0.3 / 4 / 1.5];
    close(run(rule, abc, [{ targets, norms: [0.5, 2, 1] }]).weights, softmax(rates.map((r) => 2 * r)));
    // A larger loss makes ∇log ℓ short enough.
    const far = [{ ...targets[0], loss: 8 }];
    const plain = [0.9 / 8, 3 / 8 / 2, -0.3 / 8];
    close(run(rule, abc, [{ targets: far, norms: [0.5, 2, 1] }]).weights, softmax(plain.map((r) => 2 * r)));
  });
  test("with μ = 0 the weights of the targets do not change", () => {
    const rule = rules.grape({
      name: "grape",
      targets: ["s", "t"],
      mu: 0,
      targetWeights: { t: 0.8, s: 0.2 },
    });
    const target = { name: "s", alignments: [1, 0.5, 0], norm: 1, loss: 2 };
    const state = run(rule, abc, [
      { targets: [target, { ...target, name: "t", loss: 9 }], norms: [1, 1, 1] },
    ]);
    close(state.memory["targets"], [0.2, 0.8]);
  });
  test("with one target and a loss of 1 it is DGA", () => {
    fc.assert(
      fc.property(
        simplexPoint(3, { positive: true }),
        fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 3, maxLength: 3 }),
        (start, alignments) => {
          const norms = [2, 0.5, 3];
          const one = rules.grape({ name: "grape", targets: ["t"], eta: 0.7, beta: 0.4, start: [...start] });
          const same = rules.dga({
            name: "dga",
            normalise: "clipped",
            eta: 0.7,
            beta: 0.4,
            start: [...start],
          });
          const targets = [{ name: "t", alignments, norm: 4, loss: 1 }];
          expect(run(one, abc, [{ targets, norms }]).weights).toEqual(
            run(same, abc, [{ alignments, norms, targetNorm: 4 }]).weights,
          );
        },
      ),
    );
  });
  test("refuses unknown targets and invalid losses", () => {
    const rule = rules.grape({ name: "grape", targets: ["s"], normalise: "raw" });
    const target = { name: "s", alignments: [1, 2, 3], norm: 1, loss: 1 };
    const message = (targets: NonNullable<Signal["targets"]>): string =>
      errorOf(() => rule.update(rule.init(abc), { targets })).message;
    expect(message([])).toContain("0 targets were measured, not 1");
    expect(message([{ ...target, name: "x" }])).toContain('target 1 is "x", not "s"');
    expect(message([{ ...target, loss: 0 }])).toContain('target "s" has a loss of 0');
    for (const bad of [null, undefined, "1", NaN, -1, Infinity]) {
      expect(message([{ ...target, norm: bad as number }])).toContain(
        'target "s" has a loss of 1 and a gradient',
      );
      expect(message([{ ...target, loss: bad as number }])).toContain('target "s" has a loss of');
    }
    expect(message([{ ...target, alignments: [1, NaN, 1] }])).toContain('domain "b" is NaN');
    for (const targets of [[], "s", ["s", "s"], undefined])
      expect(errorOf(() => rules.grape({ name: "grape", targets: targets as string[] })).message).toMatch(
        /^grape: targets/,
      );
  });
});

describe("ado", () => {
  /** Domains whose losses fall as ε + b·n^−c. */
  const curve = (n: number): number[] => [1 + 400 * n ** -0.5, 2 + 4 * n ** -0.1, 3];
  test("prefers the domain that falls fastest by its fitted curve, and follows the paper's averages", () => {
    const rule = rules.ado();
    let state = rule.init(abc);
    let [credit, average] = [
      [1 / 3, 1 / 3, 1 / 3],
      [1 / 3, 1 / 3, 1 / 3],
    ];
    for (let t = 1; t <= 12; t++) {
      const n = 3000 * t;
      state = rule.update(state, { losses: curve(n), tokensSeen: [n / 3, n / 3, n / 3] });
      if (t < 5) {
        close(state.weights, [1 / 3, 1 / 3, 1 / 3]);
      } else {
        const speeds = [0.5 * 400 * n ** -0.5, 0.1 * 4 * n ** -0.1, 0];
        const shares = speeds.map((s, i) => Math.sqrt(credit[i]) * s);
        const sum = shares[0] + shares[1] + shares[2];
        // The third exponent is exact in the fit's grid (0.5 and 0.1 are multiples of 0.025).
        close(
          state.weights,
          average.map((a, i) => 0.9 * a + (0.1 * shares[i]) / sum),
          6,
        );
      }
      credit = credit.map((h, i) => 0.9 * h + 0.1 * state.weights[i]);
      average = average.map((a, i) => a + (state.weights[i] - a) / (t + 1));
    }
    const [a, b, c] = state.weights;
    expect(a).toBeGreaterThan(b);
    expect(b).toBeGreaterThan(c);
  });
  test("starts from the sizes of the domains, unless other initial weights are given", () => {
    const start = (options: object): readonly number[] =>
      rules.ado({ name: "ado", ...options }).init(abc).weights;
    close(start({ sizes: { a: 20, b: 30, c: 50 } }), [0.2, 0.3, 0.5]);
    close(start({ sizes: [1, 1, 998] }), [0.01, 0.01, 0.98]);
    close(start({ sizes: [20, 30, 50], start: [0.5, 0.25, 0.25] }), [0.5, 0.25, 0.25]);
    expect(errorOf(() => start({ sizes: [1, 0, 1] })).message).toMatch(/^sizes: "b" has 0;/);
  });
  test("multiplies the preference by a prior", () => {
    // Equal curves, policy all of the preference: ρ ∝ μ·h^s with h = μ.
    const rule = rules.ado({
      name: "ado",
      start: [0.5, 0.3, 0.2],
      policyRate: 1,
      creditRate: 1e-9,
      floor: 0,
    });
    const signals = Array.from({ length: 5 }, (_, t) => ({
      losses: abc.map(() => curve(3000 * (t + 1))[0]),
      tokensSeen: [3000 * (t + 1), 0, 0],
    }));
    const p = [0.5, 0.3, 0.2].map((m) => m ** 1.5);
    const sum = p[0] + p[1] + p[2];
    close(
      run(rule, abc, signals).weights,
      p.map((x) => x / sum),
      6,
    );
  });
  test("keeps its history bounded, and respects its floor", () => {
    const rule = rules.ado({ name: "ado", policyRate: 1, floor: 0.05 });
    let state = rule.init(abc);
    const size = JSON.stringify(rule.init(abc)).length;
    for (let t = 1; t <= 300; t++) {
      const n = 1000 * t;
      state = rule.update(state, { losses: curve(n), tokensSeen: [n, 0, 0], tokens: [8, t % 2 ? 8 : 0, 8] });
      expect(Math.min(...state.weights)).toBeGreaterThanOrEqual(0.05 - 1e-12);
    }
    expect(JSON.stringify(state).length).toBeLessThan(20 * size);
    expect(state.weights[0]).toBeGreaterThan(state.weights[2]);
  });
  test("keeps only points of the curve, even after the history is thinned", () => {
    const rule = rules.ado();
    let state = rule.init(abc);
    for (let t = 1; t <= 140; t++) {
      const n = 100 * t;
      state = rule.update(state, { losses: curve(n), tokensSeen: [n, 0, 0] });
      const [count] = state.memory["count"];
      const seen = state.memory["seen"].slice(0, count);
      expect(seen).toEqual([...new Set(seen)].toSorted((a, b) => a - b));
      expect(seen.at(-1)).toBe(n);
      seen.forEach((at, p) => expect(state.memory["losses"].slice(3 * p, 3 * p + 3)).toEqual(curve(at)));
    }
  });
  test("has no preference if losses rise", () => {
    const rule = rules.ado();
    const signals = Array.from({ length: 9 }, (_, t) => ({
      losses: [t, 2 * t, 3 * t],
      tokensSeen: [t + 1, 0, 0],
    }));
    close(run(rule, abc, signals).weights, [1 / 3, 1 / 3, 1 / 3]);
  });
});

describe("other normalisations of dga", () => {
  test("adam is the cosine with the preconditioned target", () => {
    const rule = rules.dga({ name: "dga", normalise: "adam", eta: 3, beta: 1 });
    const signal = { preconditionedAlignments: [2, -1, 0], preconditionedTargetNorm: 4, norms: [1, 2, 3] };
    close(run(rule, abc, [signal]).weights, softmax([3 * 0.5, (3 * -1) / 8, 0]));
  });
});

describe("shrinkage", () => {
  const inner = rules.dga({ name: "dga", normalise: "raw", eta: 1, beta: 1 });
  const given = (alignments: number[], standardErrors: (number | null)[]): Signal => ({
    alignments,
    standardErrors,
  });
  test("is a + (aᵢ − ā)·τ²/(τ² + s²) with τ² by moments", () => {
    const [a, s] = [
      [1, 2, 6],
      [0.5, 1, 2],
    ];
    const spread = 7 - (0.25 + 1 + 4) / 3;
    const wanted = a.map((x, i) => 3 + ((x - 3) * spread) / (spread + s[i] ** 2));
    close(run(combinators.shrinkage(inner), abc, [given(a, s)]).weights, softmax(wanted));
  });
  test("without errors it changes nothing; if the errors exceed the spread, the weights do not move", () => {
    close(run(combinators.shrinkage(inner), abc, [given([1, 2, 6], [0, 0, 0])]).weights, softmax([1, 2, 6]));
    close(
      run(combinators.shrinkage(inner), abc, [given([1, 2, 6], [null, null, null])]).weights,
      softmax([1, 2, 6]),
    );
    close(run(combinators.shrinkage(inner), abc, [given([1, 2, 6], [9, 9, 9])]).weights, [
      1 / 3,
      1 / 3,
      1 / 3,
    ]);
  });
  test("reduces the squared error of noisy alignments", () => {
    const next = random(7);
    let [plain, shrunk] = [0, 0];
    const seen: Float64Array[] = [];
    const spy: Rule = {
      ...inner,
      update: (state, signal, change) =>
        inner.update(state, signal, (step) => {
          const changed = change?.(step) ?? step;
          seen.push(changed.direction);
          return changed;
        }),
    };
    for (let trial = 0; trial < 200; trial++) {
      const truth = Array.from({ length: 12 }, () => gaussian(next));
      const errors = truth.map((_, i) => (i % 3) + 0.2);
      const noisy = truth.map((x, i) => x + errors[i] * gaussian(next));
      const names = truth.map((_, i) => `d${i}`);
      run(combinators.shrinkage(spy), names, [given(noisy, errors)]);
      const now = seen[seen.length - 1];
      truth.forEach((x, i) => {
        plain += (noisy[i] - x) ** 2;
        shrunk += (now[i] - x) ** 2;
      });
    }
    expect(shrunk).toBeLessThan(0.6 * plain);
  });
  test("refuses invalid errors, naming the domain", () => {
    const rule = combinators.shrinkage(inner);
    const message = (signal: Signal): string => errorOf(() => rule.update(rule.init(abc), signal)).message;
    expect(message({ alignments: [1, 2, 3] })).toContain("no standardErrors");
    expect(message(given([1, 2, 3], [1, -1, 1]))).toContain('domain "b" is -1');
    expect(message(given([1, 2, 3], [1, 1]))).toContain("2 standardErrors for 3 domains");
  });
});

describe("combine", () => {
  const rule = createRule({ name: "static", weights: [0.7, 0.2, 0.1] });
  const weights = (list: CombinatorOptions[], facts = {}): readonly number[] =>
    combine(rule, list, facts).init(abc).weights;
  test("applies combinators in order, by name", () => {
    const made = combine(rules.dga(), [
      { name: "shrinkage" },
      { name: "etaSchedule", decay: "cosine", updates: 10 },
      { name: "ema", beta: 0.5 },
      { name: "ceiling", most: 0.6 },
    ]);
    expect(made.name).toBe("ceiling(ema(etaSchedule(shrinkage(dga))))");
    expect(made.needs).toContain("standardErrors");
    close(weights([{ name: "ceiling", most: 0.6 }]), [0.6, 0.4 * (2 / 3), 0.4 / 3]);
    close(weights([{ name: "floor", least: 0.2 }]), [0.6, 0.2, 0.2]);
  });
  test("passes the facts of the run to them", () => {
    const cap: CombinatorOptions = { name: "repetitionCap", repetitions: 2 };
    // The excess of 0.2 goes to rooms of 0.8 and 0.9, or as the ratio 2 : 1. The spare supply is 1.5.
    const even = [0.2 + 0.2 * (0.8 / 1.7), 0.1 + 0.2 * (0.9 / 1.7)];
    close(weights([cap], { sizes: { a: 25, b: 100, c: 100 }, tokens: 100 }), [
      0.5,
      1 / 3 + (even[0] - 1 / 3) / 1.5,
      1 / 6 + (even[1] - 1 / 6) / 1.5,
    ]);
    expect(errorOf(() => weights([cap])).message).toBe("combinators[0]: repetitionCap: it needs sizes");
    const budget: CombinatorOptions = { name: "tokenBudget", budgets: { a: 40, b: 100, c: 100 } };
    // Now the excess is 0.3, and the spare supply 1.4.
    close(weights([budget], { tokens: 100 }), [
      0.4,
      0.4 + (0.2 + 0.3 * (0.8 / 1.7) - 0.4) / 1.4,
      0.2 + (0.1 + 0.3 * (0.9 / 1.7) - 0.2) / 1.4,
    ]);
  });
  test("a schedule of η falls to its final value", () => {
    const scheduled = combine(rules.dga({ name: "dga", normalise: "raw", eta: 1, beta: 1 }), [
      { name: "etaSchedule", decay: "linear", updates: 2, final: 0.5 },
    ]);
    const alignments = [1, 0, -1];
    close(
      run(scheduled, abc, [{ alignments }, { alignments }, { alignments }]).weights,
      softmax(alignments.map((a) => a * (1 + 0.75 + 0.5))),
    );
  });
  test("schedules and shrinks any kind of alignments that the rule steps on", () => {
    const adam = rules.dga({ name: "dga", normalise: "adam", eta: 2, beta: 1 });
    const half: CombinatorOptions = { name: "etaSchedule", decay: "linear", updates: 1, final: 0.5 };
    const signal = { preconditionedAlignments: [0.8, 0.4, 0], preconditionedTargetNorm: 1, norms: [1, 1, 1] };
    // The factor is 1 at the first update and ½ from the second on.
    close(run(combine(adam, [half]), abc, [signal, signal]).weights, softmax([2.4, 1.2, 0]));
    const errors = { ...signal, standardErrors: [9, 9, 9] };
    close(run(combine(adam, [{ name: "shrinkage" }]), abc, [errors]).weights, [1 / 3, 1 / 3, 1 / 3]);
    const several = rules.grape({ name: "grape", targets: ["t"], eta: 2, normalise: "raw" });
    const targets = [{ name: "t", alignments: [0.8, 0.4, 0], norm: 1, loss: 1 }];
    close(run(combine(several, [half]), abc, [{ targets }, { targets }]).weights, softmax([2.4, 1.2, 0]));
  });
  test("refuses to schedule or shrink signals that the rule does not step on", () => {
    const message = (inner: Rule, name: "etaSchedule" | "shrinkage"): string =>
      errorOf(() =>
        combine(inner, [name === "shrinkage" ? { name } : { name, decay: "linear" as const, updates: 3 }]),
      ).message;
    expect(message(rules.odm(), "etaSchedule")).toMatch(
      /^combinators\[0\]: etaSchedule: the rule "odm" has no step size η;/,
    );
    expect(message(rules.doge(), "shrinkage")).toContain('the rule "doge" uses gram for its step');
    expect(message(rules.grape({ name: "grape", targets: ["t"] }), "shrinkage")).toContain(
      "uses targets for its step",
    );
    // Fixed weights stay what they are.
    close(weights([{ name: "shrinkage" }]), [0.7, 0.2, 0.1]);
  });
  test.each<[unknown, RegExp]>([
    [
      { name: "flor", least: 0.1 },
      /^combinators\[0\]: there is no combinator "flor"; did you mean "floor"\?$/,
    ],
    [
      { name: "floor", most: 0.1 },
      /^combinators\[0\]: floor: there is no option "most"; its options are least$/,
    ],
    [{ name: "ceiling", most: 2 }, /^combinators\[0\]: ceiling: most: 2 does not fit/],
    [
      { name: "etaSchedule", decay: "steep", updates: 3 },
      /^combinators\[0\]: etaSchedule: decay: "steep" is not known/,
    ],
    [{}, /^combinators\[0\]: the options have no name of a combinator; the combinators are ema,/],
    ["ema", /^combinators\[0\]: "ema" has no name of a combinator/],
  ])("%j is refused", (options, message) => {
    const error = errorOf(() => combine(rule, [options as CombinatorOptions]));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(message);
  });
});

test("a saved memory that no update can produce is refused", () => {
  const cases: [Rule, Readonly<Record<string, number[]>>, string][] = [
    [
      rules.grape({ name: "grape", targets: ["s", "t"] }),
      { targets: [0.5, 0.6] },
      "targets does not lie on the simplex",
    ],
    [
      rules.grape({ name: "grape", targets: ["s"] }),
      { alpha: [1.5, -0.5, 0] },
      "alpha does not lie on the simplex",
    ],
    [rules.doremi(), { excess: [0, -0.5, 0] }, "an excess loss is negative"],
    [rules.odm(), { known: [0, 1, 0.5] }, "an entry of known is neither 0 nor 1"],
    [rules.ado(), { count: [65] }, "count is 65"],
    [rules.ado(), { count: [0.5] }, "count is 0.5"],
    [rules.ado(), { prior: [0.5, -0.1, 0.6] }, "an entry of prior is negative"],
  ];
  for (const [rule, changed, fault] of cases) {
    const mixer = createMixer({ domains: abc, rule });
    const { initial } = mixer;
    expect(restoreMixer(mixer, JSON.parse(JSON.stringify(initial)))).toEqual(initial);
    const memory = { ...initial.rule.memory, ...changed };
    const error = errorOf(() => restoreMixer(mixer, { ...initial, rule: { ...initial.rule, memory } }));
    expect(error.code).toBe("checkpoint");
    expect(error.message).toContain(fault);
  }
});
