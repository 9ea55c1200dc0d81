/**
 * Every rule and combinator that moves against its formulas in plain code, over many updates in which some domains are not measured. The formulas use
 * no code of src/dga: sums are plain sums, and projections are found by bisection.
 */
import {
  type AdoOptions,
  combine,
  createRule,
  type DgaOptions,
  type DogeOptions,
  type DoremiOptions,
  type GrapeOptions,
  type Normalisation,
  type OdmOptions,
  type RnbOptions,
  type Rule,
  rules,
  type Signal,
} from "gradmix/dga";
import { names } from "gradmix/testing";
import { describe, expect, test } from "vitest";
import { random } from "./arbitraries.ts";
import { type Measured, naive } from "./naive-tracking.ts";
import { expectNear } from "../near.ts";

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const shares = (values: readonly number[]): number[] => values.map((v) => v / total(values));
const step = (alpha: readonly number[], direction: readonly number[], eta: number): number[] => {
  const top = Math.max(...direction);
  return shares(alpha.map((a, i) => a * Math.exp(eta * (direction[i] - top))));
};
const smooth = (alpha: readonly number[], c: number): number[] =>
  alpha.map((a) => (1 - c) * a + c / alpha.length);

/** The KL projection onto floors and caps: min(cap, max(floor, c·α)) with the c at which it sums to 1, by bisection. */
function project(alpha: readonly number[], floor: number, cap: number | readonly number[] = 1): number[] {
  const caps = alpha.map((_, i) => (typeof cap === "number" ? cap : cap[i]));
  const at = (c: number): number[] => alpha.map((a, i) => Math.min(caps[i], Math.max(floor, c * a)));
  if (alpha.every((a, i) => a >= floor && a <= caps[i])) return [...alpha];
  let [low, high] = [0, 1];
  while (total(at(high)) < 1) high *= 2;
  for (let i = 0; i < 100; i++) {
    const c = (low + high) / 2;
    if (total(at(c)) < 1) low = c;
    else high = c;
  }
  return at(high);
}

/** `change` of the measured ones' shares of what they have together; the others stay, and so does one alone. */
function among(
  alpha: readonly number[],
  measured: readonly boolean[],
  change: (part: number[], together: number, indices: number[]) => number[],
): number[] {
  const indices = [...alpha.keys()].filter((i) => measured[i]);
  if (indices.length < 2 && alpha.length > 1) return [...alpha];
  const together = total(indices.map((i) => alpha[i]));
  const part = change(
    indices.map((i) => alpha[i] / together),
    together,
    indices,
  );
  return alpha.map((a, i) => (measured[i] ? together * part[indices.indexOf(i)] : a));
}

/** The measurements of one step, with arbitrary numbers for domains that were not measured. */
interface Given {
  readonly measured: boolean[];
  readonly vectors: number[][];
  readonly target: number[];
  readonly alignments: number[];
  readonly norms: number[];
  readonly losses: number[];
  readonly reference: number[];
  readonly errors: (number | null)[];
  readonly targets: { name: string; alignments: number[]; norm: number; loss: number }[];
  readonly signal: Signal;
}

const dot = (a: readonly number[], b: readonly number[]): number => total(a.map((x, i) => x * b[i]));
const length = (a: readonly number[]): number => Math.sqrt(dot(a, a));
const targetNames = ["s", "t", "u"];

/** Gradients of three numbers, and all that follows from them. `all`: every domain is measured. */
function draw(next: () => number, k: number, all: boolean, tokensSeen: number[]): Given {
  const vector = (scale: number): number[] => [0, 1, 2].map(() => scale * (2 * next() - 1));
  const vectors = Array.from({ length: k }, () => vector(next() < 0.15 ? 0 : 3 * next()));
  const target = vector(2);
  const measured = vectors.map(() => all || next() < 0.6);
  const hidden = (values: readonly number[]): number[] =>
    values.map((value, i) => (measured[i] ? value : [NaN, 1e9, -1][i % 3]));
  const alignments = vectors.map((v) => dot(v, target));
  const norms = vectors.map(length);
  const losses = vectors.map(() => 4 * next());
  const reference = losses.map((loss) => loss + next() - 0.7);
  const errors = vectors.map(() => (next() < 0.2 ? null : 0.4 * next()));
  const targets = targetNames.map((name) => {
    const own = vector(3);
    return { name, alignments: vectors.map((v) => dot(v, own)), norm: length(own), loss: 0.5 + 3 * next() };
  });
  const gram = vectors.flatMap((a, i) =>
    vectors.map((b, j) => (measured[i] && measured[j] ? dot(a, b) : NaN)),
  );
  const tokens = measured.every(Boolean) && next() < 0.5 ? {} : { tokens: measured.map((m) => (m ? 8 : 0)) };
  const signal: Signal = {
    ...tokens,
    alignments: hidden(alignments),
    standardErrors: errors.map((error, i) => (measured[i] ? error : NaN)),
    preconditionedAlignments: hidden(alignments.map((a) => 3 * a)),
    preconditionedTargetNorm: 2 * length(target),
    norms: hidden(norms),
    targetNorm: length(target),
    losses: hidden(losses),
    referenceLosses: hidden(reference),
    gram,
    targets: targets.map((t) => ({ ...t, alignments: hidden(t.alignments) })),
    tokensSeen,
  };
  return { measured, vectors, target, alignments, norms, losses, reference, errors, targets, signal };
}

/** Runs a rule beside its formulas. `next` of the formulas gives the weights. */
function compare(rule: Rule, k: number, seed: number, follow: (given: Given, t: number) => number[]): void {
  const next = random(seed);
  let state = rule.init(names(k));
  const seen = new Array<number>(k).fill(0);
  for (let t = 1; t <= 12; t++) {
    for (let i = 0; i < k; i++) seen[i] += Math.floor(1000 * next());
    const given = draw(next, k, next() < 0.4, [...seen]);
    const wanted = follow(given, t);
    state = rule.update(state, given.signal);
    expectNear(state.weights, wanted, 1e-9);
    expect(state.updates).toBe(t);
  }
}
const sizes = [1, 2, 3, 5, 8];
const start = (k: number): number[] => shares(Array.from({ length: k }, (_, i) => 1 + ((i * 5) % 7)));

const cosine = (a: number, norm: number, target: number): number =>
  norm === 0 || target === 0 ? 0 : a / (norm * target);
const clip = (norm: number): number => Math.min(1, 1 / norm);
const clamp = (scores: readonly number[], norms: readonly number[]): number[] => {
  const mean = total(norms.map((norm) => norm)) / norms.length;
  return scores.map((score) => (mean === 0 ? 0 : Math.min(5, Math.max(0, score / mean))));
};

/** The exponents of the domains `on`. */
const directions: Readonly<Record<Normalisation, (g: Given, on: number[]) => number[]>> = {
  raw: (g, on) => on.map((i) => g.alignments[i]),
  clipped: (g, on) => on.map((i) => g.alignments[i] * clip(g.norms[i]) * clip(length(g.target))),
  cosine: (g, on) => on.map((i) => cosine(g.alignments[i], g.norms[i], length(g.target))),
  doge: (g, on) =>
    clamp(
      on.map((i) => g.alignments[i]),
      on.map((i) => g.norms[i]),
    ),
  adam: (g, on) =>
    on.map((i) => Math.max(-1, Math.min(1, 1.5 * cosine(g.alignments[i], g.norms[i], length(g.target))))),
};

describe.each(sizes)("of %i domains", (k) => {
  const kinds = Object.keys(directions) as (keyof typeof directions)[];
  test.each(
    kinds.flatMap((kind) =>
      [{}, { eta: 0.7, beta: 0.4, floor: 0.4 / k, start: start(k) }].map((o) => [kind, o] as const),
    ),
  )("dga %s %j", (normalise, options: Partial<DgaOptions>) => {
    const { eta = 1, beta = 0.1, floor = 0, start: from } = options;
    let alpha = project(
      from === undefined ? shares(new Array<number>(k).fill(1)) : (from as number[]),
      floor,
    );
    let weights = alpha;
    compare(createRule({ name: "dga", normalise, ...options }), k, k + 1, (given) => {
      const stepped = among(alpha, given.measured, (part, together, on) =>
        project(step(part, directions[normalise](given, on), eta), floor / together),
      );
      alpha = project(stepped, floor);
      weights = weights.map((w, i) => (1 - beta) * w + beta * alpha[i]);
      return weights;
    });
  });

  test.each<Partial<DgaOptions>>([
    {},
    { prior: start(k), tokens: 100, sizes: Array.from({ length: k }, (_, i) => (i === 0 ? 2 : 40)) },
    { eta: 0.7, pull: 0.3, memory: 0.5, beta: 0.4, floor: 0.4 / k, start: start(k) },
    {
      ...{ eta: 0.7, pull: 0.3, memory: 0.5, prior: start(k), uniformShare: 0.2 },
      ...{ start: shares(start(k).toReversed()), repetitions: 3, tokens: 1000 },
      sizes: Array.from({ length: k }, (_, i) => 100 + 450 * (i % 2)),
    },
    { pull: 0, memory: 0 },
    { pull: 1 },
    { correction: 3, prior: start(k), pull: 0.2 },
    { correction: 7, start: start(k) },
    { correction: 1, prior: start(k) },
  ])("dga tracked %j", (options) => {
    const around = options.prior !== undefined;
    const { beta = 1, floor = 0 } = options;
    const { eta = around ? 0.1 : 0.5, pull = around ? 0.1 : 0.05, memory = around ? 0.9 : 0.5 } = options;
    const uniform = shares(new Array<number>(k).fill(1));
    const begin = options.start as number[] | undefined;
    const { correction = around ? 20 : 1 } = options;
    let against = 0;
    let prior = around ? smooth(options.prior as number[], options.uniformShare ?? 0.01) : (begin ?? uniform);
    const { sizes: tokensOf, tokens = 1 } = options;
    const even = tokensOf === undefined ? 0 : tokens / total(tokensOf as number[]);
    const { repetitions = Math.max(4, 3 + even) } = options;
    const caps = uniform.map((_, i) =>
      tokensOf === undefined ? 1 : Math.min(1, (repetitions * (tokensOf as number[])[i]) / tokens),
    );
    /**
     * Within the caps. What is above them goes where there is room and, the more the caps leave to spare, to the largest weights instead; in proportion to the
     * caps where they leave no choice.
     */
    const limit = (alpha: readonly number[]): number[] => {
      if (total(caps) <= 1) return shares(caps);
      const kept = alpha.map((a, i) => Math.min(a, caps[i]));
      const room = kept.map((a, i) => caps[i] - a);
      const left = 1 - total(kept);
      const even = kept.map((a, i) => (left <= 1e-15 ? a : a + (left * room[i]) / total(room)));
      const share = Math.min(1, 1 / (total(caps) - 1));
      return share === 1 ? even : project(alpha, 0, caps).map((a, i) => share * even[i] + (1 - share) * a);
    };
    let alpha = project(begin ?? prior, floor);
    let weights = project(limit(alpha), floor);
    const history: Measured[] = [];
    compare(createRule({ name: "dga", ...options }), k, 9 * k + 1, (given) => {
      history.push({
        alignments: given.alignments,
        errors: given.errors,
        tokens: given.measured.map((m) => (m ? (given.signal.tokens === undefined ? 1 : 8) : 0)),
      });
      const { d } = naive(history, memory);
      const known = d.map((one) => !Number.isNaN(one));
      // How far the mixture of the measured domains is below their mean, beyond the slack, adds up.
      const weight = total(alpha.filter((_, i) => known[i]));
      const below = known.some(Boolean)
        ? -total(alpha.map((a, i) => (known[i] ? (a / weight) * d[i] : 0)))
        : 0;
      against = Math.max(0, against + below - 0.35);
      const factor = Math.min(correction, 1 + against);
      const log = alpha.map((a, i) => (1 - pull) * Math.log(a) + pull * Math.log(prior[i]));
      alpha = project(
        among(alpha, known, (_, together, on) => {
          // The pull also acts only among the known domains, within their total weight.
          const exponents = on.map((i) => log[i] + factor * eta * d[i]);
          const top = Math.max(...exponents);
          return project(shares(exponents.map((e) => Math.exp(e - top))), floor / together);
        }),
        floor,
      );
      prior = among(prior, known, (part, _, on) =>
        shares(on.map((i, j) => part[j] * Math.exp((factor - 1) * eta * d[i]))),
      );
      const sampled = project(limit(alpha), floor);
      weights = weights.map((w, i) => (1 - beta) * w + beta * sampled[i]);
      return weights;
    });
  });

  test.each<Partial<DogeOptions>>([
    {},
    { eta: 0.6, own: false, smoothing: 0.2, start: start(k) },
    { eta: 0.6, own: true },
    { eta: 0.8, towards: "target", smoothing: 0.1 },
  ])("doge %j", (options) => {
    const { towards = "domains", own = true, eta = 0.01, smoothing = 0 } = options;
    let alpha = options.start === undefined ? shares(new Array<number>(k).fill(1)) : start(k);
    compare(createRule({ name: "doge", ...options }), k, 2 * k, (given) => {
      alpha = among(alpha, given.measured, (part, _, on) => {
        const scores = on.map((i) =>
          towards === "target"
            ? given.alignments[i]
            : total(on.map((j) => (i === j && !own ? 0 : dot(given.vectors[i], given.vectors[j])))),
        );
        const direction = clamp(
          scores,
          on.map((i) => given.norms[i]),
        );
        return smooth(step(part, direction, eta), smoothing);
      });
      return alpha;
    });
  });

  test.each<Partial<RnbOptions>>([{}, { lambda: 3, target: start(k) }])("rnb %j", (options) => {
    const { lambda = 1 } = options;
    const q = options.target === undefined ? shares(new Array<number>(k).fill(1)) : start(k);
    let weights = shares(new Array<number>(k).fill(1));
    compare(createRule({ name: "rnb", ...options }), k, 3 * k, (given) => {
      weights = among(weights, given.measured, (part, _, on) => {
        const pulled = on.map((i) => total(on.map((j) => dot(given.vectors[i], given.vectors[j]) * q[j])));
        const norm = length(pulled);
        return step(shares(part.map(() => 1)), norm === 0 ? pulled : pulled.map((x) => x / norm), lambda);
      });
      return weights;
    });
  });

  test.each<Partial<DoremiOptions>>([{}, { eta: 0.6, smoothing: 0.2, start: start(k) }])(
    "doremi %j",
    (options) => {
      const { eta = 1, smoothing = 1e-3 } = options;
      let alpha = options.start === undefined ? shares(new Array<number>(k).fill(1)) : start(k);
      const excess = new Array<number>(k).fill(NaN);
      compare(createRule({ name: "doremi", ...options }), k, 4 * k, (given) => {
        given.measured.forEach((m, i) => {
          if (m) excess[i] = Math.max(0, given.losses[i] - given.reference[i]);
        });
        const ever = excess.map((e) => !Number.isNaN(e));
        alpha = among(alpha, ever, (part, _, on) =>
          smooth(
            step(
              part,
              on.map((i) => excess[i]),
              eta,
            ),
            smoothing,
          ),
        );
        return alpha;
      });
    },
  );

  test.each<Partial<OdmOptions>>([{}, { decay: 0.3 }, { decay: 0 }])("odm %j", (options) => {
    const { decay = 0.9 } = options;
    const rewards = new Array<number>(k).fill(0);
    const known = new Array<boolean>(k).fill(false);
    let weights = shares(new Array<number>(k).fill(1));
    // Update 0 explores only.
    const epsilon = (t: number): number =>
      t === 0 ? 1 / k : Math.min(1 / k, Math.sqrt(Math.log(k) / (k * t)));
    compare(createRule({ name: "odm", ...options }), k, 5 * k, (given, t) => {
      given.measured.forEach((m, i) => {
        if (!m) return;
        known[i] = true;
        rewards[i] = decay * rewards[i] + ((1 - decay) * given.losses[i]) / weights[i];
      });
      weights = among(weights, known, (part, together, on) => {
        const explore = Math.min(1 / part.length, epsilon(t) / together);
        const exploit = step(
          part.map(() => 1),
          on.map((i) => rewards[i]),
          epsilon(t - 1),
        );
        return exploit.map((w) => (1 - part.length * explore) * w + explore);
      });
      return weights;
    });
  });

  test.each<Partial<GrapeOptions>>([
    {},
    { eta: 0.6, mu: 2, smoothing: 0.1, beta: 0.3, normalise: "cosine", start: start(k) },
    { eta: 0.6, normalise: "raw", targetWeights: [0.5, 0.2, 0.3] },
  ])("grape %j", (options) => {
    const { eta = 1.5, mu = 5, smoothing = 1e-3, beta = 1, normalise = "clipped" } = options;
    let z = (options.targetWeights as number[] | undefined) ?? [1 / 3, 1 / 3, 1 / 3];
    let alpha = options.start === undefined ? shares(new Array<number>(k).fill(1)) : start(k);
    let weights = alpha;
    compare(createRule({ name: "grape", targets: targetNames, ...options }), k, 6 * k, (given) => {
      const rates = given.targets.map(({ alignments, norm, loss }) =>
        alignments.map((a, i) => {
          const [own, log] = [given.norms[i], norm / loss];
          if (normalise === "raw") return a / loss;
          return normalise === "cosine" ? cosine(a / loss, own, log) : (a / loss) * clip(own) * clip(log);
        }),
      );
      const on = [...alpha.keys()].filter((i) => given.measured[i]);
      if (on.length > 0) {
        const together = total(on.map((i) => alpha[i]));
        const lag = rates.map((row) => -total(on.map((i) => (alpha[i] / together) * row[i])));
        z = smooth(step(z, lag, mu), smoothing);
      }
      alpha = among(alpha, given.measured, (part, _, indices) =>
        step(
          part,
          indices.map((i) => total(z.map((weight, m) => weight * rates[m][i]))),
          eta,
        ),
      );
      weights = weights.map((w, i) => (1 - beta) * w + beta * alpha[i]);
      return weights;
    });
  });

  test.each(["raw", "cosine", "clipped", "doge", "adam"] as const)("shrinkage around dga %s", (normalise) => {
    let alpha = shares(new Array<number>(k).fill(1));
    const rule = combine(createRule({ name: "dga", normalise, beta: 1 }), [{ name: "shrinkage" }]);
    compare(rule, k, 7 * k, (given) => {
      alpha = among(alpha, given.measured, (part, _, on) => {
        const direction = directions[normalise](given, on);
        const mean = total(on.map((i) => given.norms[i])) / on.length;
        const scaled = on.map((i) => {
          const error = given.errors[i];
          const [own, target] = [given.norms[i], length(given.target)];
          if (error === null) return null;
          if (normalise === "raw") return error;
          if (normalise === "clipped") return error * clip(own) * clip(target);
          if (normalise === "doge") return mean === 0 ? null : error / mean;
          if (own === 0) return null;
          return error / own / (normalise === "adam" ? 2 : 1) / target;
        });
        const worst = Math.max(0, ...scaled.filter((error) => error !== null));
        const squares = scaled.map((error) => (error ?? worst) ** 2);
        const center = total(direction) / direction.length;
        const variance = total(direction.map((d) => (d - center) ** 2)) / (direction.length - 1);
        const spread = Math.max(0, variance - total(squares) / direction.length);
        const shrunk =
          direction.length < 2 || worst === 0
            ? direction
            : direction.map(
                (d, i) => center + (spread === 0 ? 0 : (spread / (spread + squares[i])) * (d - center)),
              );
        return step(part, shrunk, 1);
      });
      return alpha;
    });
  });

  test("η by schedule, then an average, bounds, warm-up", () => {
    for (const decay of ["linear", "cosine"] as const)
      for (const final of [undefined, 0.2]) {
        let alpha = shares(new Array<number>(k).fill(1));
        let weights = alpha;
        const [least, most] = [0.5 / k, Math.min(1, 1.6 / k)];
        const rule = combine(createRule({ name: "dga", normalise: "raw", beta: 1 }), [
          { name: "warmup", updates: 2 },
          { name: "etaSchedule", decay, updates: 6, ...(final === undefined ? {} : { final }) },
          { name: "ema", beta: 0.3 },
          { name: "floor", least },
          { name: "ceiling", most },
        ]);
        compare(rule, k, 8 * k, (given, t) => {
          const part = Math.min(1, (t - 1) / 6);
          const left = decay === "linear" ? 1 - part : 0.5 + 0.5 * Math.cos(Math.PI * part);
          const eta = (final ?? 0) + (1 - (final ?? 0)) * left;
          if (t > 2)
            alpha = among(alpha, given.measured, (own, _, on) => step(own, directions.raw(given, on), eta));
          weights = weights.map((w, i) => 0.7 * w + 0.3 * alpha[i]);
          return project(project(weights, least), 0, most);
        });
      }
  });
});

/** n·(−∂L/∂n) at `n` of the best ε + b·n^−c over the grid of c, with ε, b ≥ 0: of each set of the two that may be positive the least squares. */
function fitted(points: readonly (readonly [seen: number, loss: number])[], n: number): number {
  let best = { error: Infinity, speed: 0 };
  for (let g = 1; g <= 32; g++) {
    const c = (0.8 * g) / 32;
    const x = points.map(([seen]) => (seen / n) ** -c);
    const y = points.map(([, loss]) => loss);
    const m = points.length;
    const [sx, sy, sxx, sxy] = [total(x), total(y), dot(x, x), dot(x, y)];
    const determinant = m * sxx - sx * sx;
    const candidates = [
      [(sy * sxx - sx * sxy) / determinant, (m * sxy - sx * sy) / determinant],
      [0, sxy / sxx],
      [sy / m, 0],
    ];
    for (const [epsilon, b] of candidates) {
      const error = total(x.map((value, p) => (epsilon + b * value - y[p]) ** 2));
      if (epsilon >= 0 && b >= 0 && error < best.error) best = { error, speed: c * b };
    }
  }
  return best.speed;
}

describe("ado", () => {
  const cases: Partial<AdoOptions>[] = [
    {},
    {
      policyRate: 0.6,
      creditRate: 0.3,
      creditExponent: 0.9,
      floor: 0.05,
      minPoints: 3,
      start: [0.4, 0.3, 0.2, 0.1],
    },
    { policyRate: 1, floor: 0, sizes: [4, 1, 2, 3] },
  ];
  test.each(cases)("%j", (options) => {
    const k = 4;
    const { creditRate = 0.1, policyRate = 0.1, creditExponent: s = 0.5, minPoints = 5 } = options;
    const floor = options.floor ?? 0.01;
    const prior = shares(((options.start ?? options.sizes) as number[] | undefined) ?? [1, 1, 1, 1]);
    let [weights, credit, average] = [prior, prior, prior];
    let points: { seen: number; losses: (number | null)[] }[] = [];
    const rule = rules.ado({ name: "ado", ...options });
    let state = rule.init(names(k));
    const { prior: first, ...rest } = state.memory;
    expectNear(first, prior, 1e-15);
    const blank = { seen: new Array<number>(64).fill(0), losses: new Array<number>(64 * k).fill(-1) };
    expect(rest).toEqual({ credit: first, average: first, count: [0], ...blank });
    const next = random(17);
    const seen = [0, 0, 0, 0];
    // Past the 64 points that are kept, twice.
    for (let t = 1; t <= 110; t++) {
      // The first update comes before any text was seen.
      if (t > 1) for (let i = 0; i < k; i++) seen[i] += Math.floor(2000 * next());
      const n = total(seen);
      // One falls fast, one slowly, one with noise that hides its curve, one hardly ever.
      const losses = [
        0.2 + 300 * (n + 100) ** -0.6,
        1 + 9 * (n + 100) ** -0.15,
        3 + 2 * next(),
        2.5 - 0.004 * t,
      ].map((loss) => loss * (1 + 0.02 * next()));
      // The second is first measured late.
      const measured = [next() < 0.8, t > 20 && next() < 0.9, true, next() < 0.7];
      if (points.length === 64) points = points.filter((_, p) => p % 2 === 0);
      points.push({ seen: n, losses: losses.map((loss, i) => (measured[i] ? loss : null)) });
      const speeds = losses.map((_, i) => {
        const own = points.flatMap((p) => {
          const loss = p.losses[i];
          return loss === null || p.seen === 0 ? [] : [[p.seen, loss] as const];
        });
        return own.length < minPoints ? null : fitted(own, n);
      });
      const stepped = among(
        weights,
        speeds.map((speed) => speed !== null),
        (part, together, on) => {
          const preference = on.map((i) => prior[i] * credit[i] ** s * (speeds[i] ?? 0));
          if (total(preference) === 0) return part;
          const [rho, before] = [shares(preference), shares(on.map((i) => average[i]))];
          return project(
            rho.map((r, j) => policyRate * r + (1 - policyRate) * before[j]),
            floor / together,
          );
        },
      );
      weights = project(stepped, floor);
      credit = credit.map((h, i) => creditRate * weights[i] + (1 - creditRate) * h);
      average = average.map((a, i) => a + (weights[i] - a) / (t + 1));
      state = rule.update(state, {
        losses: losses.map((loss, i) => (measured[i] ? loss : NaN)),
        tokensSeen: [...seen],
        tokens: measured.map(Number),
      });
      expectNear(state.weights, weights, 1e-7);
    }
    expect(Math.max(...weights)).toBeGreaterThan(1.5 * Math.min(...weights));
  });
});
