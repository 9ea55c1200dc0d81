/**
 * Theorem 1 and the dynamics on bilevel problems with a closed form (docs/theory.md derives what is checked here).
 *
 * Domains have quadratic losses Lᵢ(θ) = ½(θ − cᵢ)ᵀAᵢ(θ − cᵢ) and the target is mix(α̃), so that θ*(α), the hypergradient and the linearised
 * dynamics of DGA are exact.
 */
import { type Rule, rules, type RuleState, uniformWeights } from "gradmix/dga";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gaussian, random } from "./arbitraries.ts";
import { expectNear } from "../near.ts";

type Vector = number[];
type Matrix = Vector[];

const range = (n: number): number[] => [...Array(n).keys()];
const dot = (a: Vector, b: Vector): number => a.reduce((sum, x, i) => sum + x * b[i], 0);
const apply = (m: Matrix, v: Vector): Vector => m.map((row) => dot(row, v));
const combine = (weights: ArrayLike<number>, vs: readonly Vector[]): Vector =>
  vs[0].map((_, j) => vs.reduce((sum, v, i) => sum + weights[i] * v[j], 0));
const minus = (a: Vector, b: Vector): Vector => a.map((x, i) => x - b[i]);
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0);

/** m⁻¹v by Gaussian elimination with pivoting. */
function solve(m: Matrix, v: Vector): Vector {
  const n = v.length;
  const rows = m.map((row, i) => [...row, v[i]]);
  for (let c = 0; c < n; c++) {
    const pivot = range(n - c)
      .map((i) => i + c)
      .reduce((best, i) => (Math.abs(rows[i][c]) > Math.abs(rows[best][c]) ? i : best), c);
    [rows[c], rows[pivot]] = [rows[pivot], rows[c]];
    for (let i = 0; i < n; i++) {
      if (i === c) continue;
      const factor = rows[i][c] / rows[c][c];
      for (let j = c; j <= n; j++) rows[i][j] -= factor * rows[c][j];
    }
  }
  return rows.map((row, i) => row[n] / row[i]);
}

interface Problem {
  readonly A: readonly Matrix[];
  readonly c: readonly Vector[];
  /** α̃. */
  readonly planted: Vector;
}

/** k domains in d ≥ k − 1 dimensions; eigenvalues of the Aᵢ between about 0.5 and 2. */
function problem(seed: number, k = 3, d = 4): Problem {
  const next = random(seed);
  const spd = (): Matrix => {
    const b = range(d).map(() => range(d).map(() => gaussian(next) / Math.sqrt(d)));
    return range(d).map((i) => range(d).map((j) => 0.3 * dot(b[i], b[j]) + (i === j ? 0.5 + next() : 0)));
  };
  const raw = range(k).map(() => 0.3 + next());
  const sum = raw.reduce((a, b) => a + b);
  return {
    A: range(k).map(spd),
    c: range(k).map(() => range(d).map(() => gaussian(next))),
    planted: raw.map((x) => x / sum),
  };
}

const gradients = ({ A, c }: Problem, theta: Vector): Vector[] =>
  A.map((a, i) => apply(a, minus(theta, c[i])));
const hessian = ({ A }: Problem, alpha: ArrayLike<number>): Matrix =>
  A[0].map((_, i) =>
    combine(
      alpha,
      A.map((a) => a[i]),
    ),
  );
/** θ*(α). */
const inner = (p: Problem, alpha: ArrayLike<number>): Vector =>
  solve(
    hessian(p, alpha),
    combine(
      alpha,
      p.A.map((a, i) => apply(a, p.c[i])),
    ),
  );
const targetLoss = ({ A, c, planted }: Problem, theta: Vector): number =>
  A.reduce((sum, a, i) => sum + 0.5 * planted[i] * dot(minus(theta, c[i]), apply(a, minus(theta, c[i]))), 0);

/** d/dαⱼ L_spe(θ*(α)) = −g_speᵀ H(α)⁻¹ gⱼ, by implicit differentiation of Σ αᵢ∇Lᵢ(θ*) = 0. */
function hypergradient(p: Problem, alpha: ArrayLike<number>): Vector {
  const theta = inner(p, alpha);
  const gs = gradients(p, theta);
  const adjoint = solve(hessian(p, alpha), combine(p.planted, gs));
  return gs.map((g) => -dot(adjoint, g));
}

const problems = fc.record({ seed: fc.nat(1e6), k: fc.integer({ min: 2, max: 5 }) });

describe("Theorem 1", () => {
  test("the hypergradient is zero at the planted weights, and not elsewhere", () => {
    fc.assert(
      fc.property(problems, ({ seed, k }) => {
        const p = problem(seed, k, 6);
        for (const h of hypergradient(p, p.planted)) expect(Math.abs(h)).toBeLessThan(1e-9);
        const other = uniformWeights(k);
        fc.pre(distance(other, p.planted) > 0.1);
        const h = hypergradient(p, other);
        // On the simplex only differences count.
        expect(Math.max(...h) - Math.min(...h)).toBeGreaterThan(1e-6);
      }),
    );
  });

  test("the hypergradient equals finite differences", () => {
    fc.assert(
      fc.property(problems, ({ seed, k }) => {
        const p = problem(seed, k, 6);
        const alpha = Array.from(uniformWeights(k));
        const h = hypergradient(p, alpha);
        const differences = alpha.map((_, j) => {
          const at = (e: number): number =>
            targetLoss(
              p,
              inner(
                p,
                alpha.map((x, i) => (i === j ? x + e : x)),
              ),
            );
          return (at(1e-5) - at(-1e-5)) / 2e-5;
        });
        expectNear(h, differences, 1e-4);
      }),
    );
  });

  test("the planted weights are better than random others", () => {
    fc.assert(
      fc.property(problems, ({ seed, k }) => {
        const p = problem(seed, k, 6);
        const next = random(seed + 1);
        const least = targetLoss(p, inner(p, p.planted));
        const raw = range(k).map(() => 0.01 + next());
        const sum = raw.reduce((a, b) => a + b);
        expect(
          targetLoss(
            p,
            inner(
              p,
              raw.map((x) => x / sum),
            ),
          ),
        ).toBeGreaterThanOrEqual(least - 1e-12);
      }),
    );
  });
});

/** Steps of gradient descent between two updates, and their size. */
const [T_r, gamma] = [5, 0.2];

/** A round: T_r steps on the mixture, then an update with the raw alignments at the new θ, plus noise. */
function round(
  p: Problem,
  rule: Rule,
  state: RuleState,
  theta: Vector,
  options: { sign?: 1 | -1; exact?: boolean; noise?: () => number } = {},
): { state: RuleState; theta: Vector } {
  let now = theta;
  if (options.exact === true) now = inner(p, state.weights);
  else
    for (let n = 0; n < T_r; n++) {
      const step = combine(state.weights, gradients(p, now));
      now = now.map((x, j) => x - gamma * step[j]);
    }
  const gs = gradients(p, now);
  const goal = combine(p.planted, gs);
  const alignments = gs.map((g) => (options.sign ?? 1) * dot(g, goal) + (options.noise?.() ?? 0));
  return { state: rule.update(state, { alignments }), theta: now };
}

/**
 * The Jacobian of a round at (θ*(α̃), α̃), as a linear map on (u, v): u′ = Mu − (I − M)H⁻¹Gv with M = (I − γH)^T_r, then v′ = v + ηSGᵀHu′
 * with S = diag(α̃) − α̃α̃ᵀ.
 */
function linearised(p: Problem, eta: number): (u: Vector, v: Vector) => [Vector, Vector] {
  const h = hessian(p, p.planted);
  const gs = gradients(p, inner(p, p.planted));
  return (u, v) => {
    const rest = solve(h, combine(v, gs)).map((x) => -x);
    let offset = minus(u, rest);
    for (let n = 0; n < T_r; n++)
      offset = minus(
        offset,
        apply(h, offset).map((x) => gamma * x),
      );
    const next = offset.map((x, j) => x + rest[j]);
    const pull = gs.map((g) => dot(g, apply(h, next)));
    const mean = dot(p.planted, pull);
    return [next, v.map((x, i) => x + eta * p.planted[i] * (pull[i] - mean))];
  };
}

/** How much a round grows a small displacement, in the long run: the spectral radius on the simplex's tangent. */
function growth(p: Problem, eta: number): number {
  const map = linearised(p, eta);
  const next = random(5);
  let u: Vector = p.c[0].map(() => gaussian(next));
  // Rounding must not leave the tangent either: off it there is a direction that no round changes.
  const tangent = (x: Vector): Vector => x.map((y) => y - x.reduce((a, b) => a + b) / x.length);
  let v: Vector = tangent(p.planted.map(() => gaussian(next)));
  let [log, counted] = [0, 0];
  for (let t = 0; t < 3000; t++) {
    [u, v] = map(u, v);
    const size = Math.hypot(...u, ...v);
    u = u.map((x) => x / size);
    v = tangent(v.map((x) => x / size));
    if (t >= 500) [log, counted] = [log + Math.log(size), counted + 1];
  }
  return Math.exp(log / counted);
}

const thresholds = new Map<Problem, number>();
/** The η at which the spectral radius passes 1, by bisection; once for each problem. */
function threshold(p: Problem): number {
  const known = thresholds.get(p);
  if (known !== undefined) return known;
  let [low, high] = [0, 1];
  while (growth(p, high) < 1) high *= 2;
  for (let i = 0; i < 20; i++) {
    const middle = (low + high) / 2;
    if (growth(p, middle) < 1) low = middle;
    else high = middle;
  }
  thresholds.set(p, low);
  return low;
}

/** Distance from α̃ in the end, at its largest over the last rounds. */
function settle(p: Problem, eta: number, start: Vector, rounds: number, sign: 1 | -1 = 1): number {
  const rule = rules.dga({ name: "dga", normalise: "raw", eta, beta: 1, start });
  let state = rule.init(start.map((_, i) => `d${i}`));
  let theta = inner(p, start);
  let worst = 0;
  for (let t = 0; t < rounds; t++) {
    ({ state, theta } = round(p, rule, state, theta, { sign }));
    if (t > rounds - 50) worst = Math.max(worst, distance(state.weights, p.planted));
  }
  return worst;
}

describe("DGA", () => {
  const numbered = [1, 2, 3, 4, 5, 6].map((seed) => [seed, problem(seed)] as const);
  test.each(numbered)(
    "converges to the planted weights below the predicted step size, and not above it (problem %i)",
    (_, p) => {
      const edge = threshold(p);
      expect(edge).toBeGreaterThan(0.01);
      const near = p.planted.map((x, i) => x + (i === 0 ? 1e-3 : i === 1 ? -1e-3 : 0));
      expect(settle(p, 0.9 * edge, near, 3000)).toBeLessThan(1e-6);
      expect(settle(p, 1.1 * edge, near, 3000)).toBeGreaterThan(1e-2);
      // From uniform weights, well inside the range.
      expect(settle(p, 0.3 * edge, Array.from(uniformWeights(3)), 6000)).toBeLessThan(1e-6);
    },
  );

  test.each(numbered)(
    "with the opposite sign, it moves away from them, to a worse loss (problem %i)",
    (_, p) => {
      const eta = 0.3 * threshold(p);
      const near = p.planted.map((x, i) => x + (i === 0 ? 1e-3 : i === 1 ? -1e-3 : 0));
      expect(settle(p, eta, near, 3000, -1)).toBeGreaterThan(0.2);
    },
  );

  test("a moving average of the weights does not help if the step size is too large", () => {
    const [[, p]] = numbered;
    const rule = rules.dga({ name: "dga", normalise: "raw", eta: 8 * threshold(p), beta: 0.1 });
    let state = rule.init(["a", "b", "c"]);
    let theta = inner(p, state.weights);
    let worst = 0;
    for (let t = 0; t < 2000; t++) {
      ({ state, theta } = round(p, rule, state, theta));
      if (t > 1900) worst = Math.max(worst, distance(state.weights, p.planted));
    }
    expect(worst).toBeGreaterThan(1e-2);
  });
});

describe("noise and the moving average", () => {
  /** Two domains, the inner problem solved exactly at each update: κ = η·α̃₁α̃₂·‖g₁ − g₂‖² is the only number that matters. */
  const p = problem(3, 2, 3);
  const [s, gap] = [
    p.planted[0] * p.planted[1],
    ((gs) => dot(minus(gs[0], gs[1]), minus(gs[0], gs[1])))(gradients(p, inner(p, p.planted))),
  ];
  const sigma = 1e-3;
  const simulated = new Map<string, number>();
  /** The variance of a long run; once for each pair. */
  const simulate = (kappa: number, beta: number): number => {
    const key = `${kappa} ${beta}`;
    const known = simulated.get(key) ?? varianceOf(kappa, beta);
    simulated.set(key, known);
    return known;
  };
  const varianceOf = (kappa: number, beta: number): number => {
    const eta = kappa / (s * gap);
    const rule = rules.dga({ name: "dga", normalise: "raw", eta, beta, start: p.planted });
    const next = random(11);
    let state = rule.init(["a", "b"]);
    let theta = inner(p, p.planted);
    let [sum, squares, count] = [0, 0, 0];
    for (let t = 0; t < 60_000; t++) {
      ({ state, theta } = round(p, rule, state, theta, { exact: true, noise: () => sigma * gaussian(next) }));
      if (t < 500) continue;
      const x = state.weights[0] - p.planted[0];
      [sum, squares, count] = [sum + x, squares + x * x, count + 1];
    }
    return squares / count - (sum / count) ** 2;
  };
  /** Var = (2 − β)·σ_ξ² / (κ(4 − 2β − βκ)), σ_ξ² = 2(η α̃₁α̃₂ σ)². */
  const predict = (kappa: number, beta: number): number => {
    const eta = kappa / (s * gap);
    return ((2 - beta) * 2 * (eta * s * sigma) ** 2) / (kappa * (4 - 2 * beta - beta * kappa));
  };
  test.each([
    [0.2, 1],
    [0.2, 0.3],
    [1, 1],
    [1, 0.3],
    [1.6, 1],
    [1.6, 0.5],
    [1.6, 0.1],
  ])("the variance of the weights is the predicted one (κ = %f, β = %f)", (kappa, beta) => {
    expect(simulate(kappa, beta) / predict(kappa, beta)).toBeGreaterThan(0.88);
    expect(simulate(kappa, beta) / predict(kappa, beta)).toBeLessThan(1.12);
  });

  test("the average reduces it by (2 − β)(2 − κ)/(4 − 2β − βκ): a lot for large steps, little for small ones", () => {
    for (const [kappa, beta] of [
      [1.6, 0.1],
      [1, 0.1],
      [0.2, 0.1],
    ]) {
      const ratio = ((2 - beta) * (2 - kappa)) / (4 - 2 * beta - beta * kappa);
      expectNear(predict(kappa, beta) / predict(kappa, 1), ratio, 1e-12);
      expect(ratio).toBeLessThan(1);
    }
    expect(simulate(1.6, 0.1)).toBeLessThan(0.3 * simulate(1.6, 1));
    expect(simulate(0.2, 0.1)).toBeGreaterThan(0.8 * simulate(0.2, 1));
  });
});
