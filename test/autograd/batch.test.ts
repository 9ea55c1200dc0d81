/**
 * Axis 0 is the batch, or the pass is refused: per-example numbers against the gradient of each loss alone, on random graphs that keep, move and mix
 * rows; `keepsBatch` of each op against its derivative; and common cases.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import {
  add,
  alignSink,
  broadcastTo,
  checkpoint,
  concat,
  crossEntropy,
  div,
  embedding,
  exampleLosses,
  eye,
  forwardDerivative,
  gather,
  gradients,
  GradmixError,
  type GradientSink,
  grad,
  jvp,
  layerNorm,
  linear,
  logSumExp,
  matmul,
  max,
  mean,
  mul,
  normSink,
  pad,
  perDomainSink,
  perExampleSink,
  reshape,
  rmsNorm,
  scope,
  segmentSink,
  sketchSink,
  slice,
  softmax,
  sqrt,
  square,
  stopGradient,
  sub,
  sum,
  sumSink,
  tanh,
  tensor,
  type Tensor,
  transpose,
} from "gradmix";
import type { Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { applySample, samples, upload } from "./samples.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend({ precision: "f64" });
  setCurrentMemory(backend);
});

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const random = (shape: readonly number[], seed: number): Tensor => tensor(values(size(shape), seed), shape);
const ids = (data: readonly number[], shape: readonly number[]): Tensor => tensor(data, shape, "i32");
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((s, x, n) => s + x * b[n], 0);
const refusal = (fn: () => unknown): string | null => {
  try {
    fn();
  } catch (error) {
    if (error instanceof GradmixError && error.code === "autograd") return error.message;
    throw error;
  }
  return null;
};

const [B, T, D] = [3, 2, 4];

interface Parameters {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly gain: Tensor;
  readonly table: Tensor;
}
const parametersOf = (width = D): Parameters => {
  const made = {
    weight: random([width, width], 1),
    bias: random([width], 2),
    gain: random([width], 3),
    table: random([5, width], 4),
  };
  for (const [name, p] of Object.entries(made)) p.name = name;
  return made;
};

/** Each loss's gradient, by a pass of its own into the sum: all parameters one after another. */
async function alone(loss: () => Tensor, parameters: readonly Tensor[], count: number): Promise<number[][]> {
  const rows: number[][] = [];
  for (let b = 0; b < count; b++) {
    const into = new Map(parameters.map((p) => [p, tensor(new Float64Array(p.size), p.shape)]));
    const weights = Array.from({ length: count }, (_, n) => (n === b ? 1 : 0));
    gradients(loss, { parameters, sink: sumSink({ gradientOf: (p) => into.get(p)! }), weights });
    rows.push((await Promise.all(parameters.map((p) => numbers(into.get(p)!)))).flat());
  }
  return rows;
}

const close = (got: readonly number[], want: readonly number[], what: string): void => {
  const scale = Math.max(1, ...want.map(Math.abs));
  expect(got.length, what).toBe(want.length);
  got.forEach((x, n) => {
    if (!(Math.abs(x - want[n]) <= 1e-9 * scale))
      expect.fail(`${what}: element ${n} is ${x}, not ${want[n]}`);
  });
};

/** Every per-example pass over the loss: what each says equals `alone`, or all refuse. Returns the refusal. */
async function allPasses(
  loss: () => Tensor,
  parameters: readonly Tensor[],
  count: number,
): Promise<string | null> {
  const run = (sink: GradientSink): string | null =>
    refusal(() => gradients(loss, { parameters, sink }).dispose());
  const direction = new Map(parameters.map((p, n) => [p, random(p.shape, 80 + n)]));
  const each = perExampleSink(count, parameters);
  const align = alignSink({ examples: count, direction: { given: (p) => direction.get(p)! } });
  const refused = run(each);
  expect(run(align) === null).toBe(refused === null);
  if (refused !== null) return refused;
  const want = await alone(loss, parameters, count);
  const rows = await Promise.all(parameters.map((p) => numbers(each.result().get(p)!)));
  for (let b = 0; b < count; b++) {
    const got = rows.flatMap((data) =>
      data.slice((b * data.length) / count, ((b + 1) * data.length) / count),
    );
    close(got, want[b], `example ${b}`);
  }
  const along = (await Promise.all(parameters.map((p) => numbers(direction.get(p)!)))).flat();
  const dots = want.map((g) => dot(g, along));
  close(Array.from((await align.result()).dots), dots, "dots");
  close(await numbers(forwardDerivative(loss, direction).derivatives), dots, "derivatives");
  return null;
}

describe("random graphs", () => {
  type Step = (values: Tensor[], pick: (n: number) => number, p: Parameters) => Tensor;
  const axes = (t: Tensor): number[] => t.shape.map((_, axis) => axis);
  const any = (values: Tensor[], pick: (n: number) => number): Tensor =>
    values[values.length - 1 - pick(Math.min(3, values.length))];
  const shapes = (total: number): number[][] =>
    [[B, T, D], [B * T, D], [B, T * D], [T, B, D], [B, D, T], [D, B, T], [1, total], [total], [2, total / 2], [T * D, B]].filter(
      (shape) => size(shape) === total && shape.every(Number.isInteger),
    ); // prettier-ignore
  /** Possible operations of a step. Some throw for the present shape, and are left out. */
  const steps: readonly Step[] = [
    (v, pick) => tanh(any(v, pick)),
    (v, pick, p) => linear(any(v, pick), p.weight, p.bias),
    (v, pick, p) => linear(any(v, pick), p.weight),
    (v, pick, p) => layerNorm(any(v, pick), p.gain, p.bias),
    (v, pick, p) => rmsNorm(any(v, pick), p.gain),
    (v, pick) => {
      const x = any(v, pick);
      const to = shapes(x.size);
      return reshape(x, to[pick(to.length)]);
    },
    (v, pick) => {
      const x = any(v, pick);
      const to = shapes(x.size);
      return reshape(x, to[pick(to.length)]);
    },
    (v, pick) => {
      const x = any(v, pick);
      const perm = axes(x);
      const [i, j] = [pick(perm.length), pick(perm.length)];
      [perm[i], perm[j]] = [perm[j], perm[i]];
      return transpose(x, perm);
    },
    (v, pick) => {
      const x = any(v, pick);
      return [sum, mean, max][pick(3)](x, pick(x.rank), pick(2) === 0);
    },
    (v, pick) => add(any(v, pick), any(v, pick)),
    (v, pick) => mul(any(v, pick), any(v, pick)),
    (v, pick) => sub(any(v, pick), random([B, 1, 1], 7)),
    (v, pick) => matmul(any(v, pick), any(v, pick), { transposeB: pick(2) === 0, transposeA: pick(3) === 0 }),
    (v, pick) => softmax(any(v, pick)),
    (v, pick) => {
      const x = any(v, pick);
      return concat([x, x], pick(x.rank));
    },
    (v, pick) => {
      const x = any(v, pick);
      const axis = pick(x.rank);
      const sizes = x.shape.map((e, n) => (n === axis ? Math.max(1, e - 1) : e));
      return slice(x, axes(x).map((n) => (n === axis ? x.shape[n] - sizes[n] : 0)), sizes); // prettier-ignore
    },
    (v, pick) => {
      const x = any(v, pick);
      const axis = pick(x.rank);
      return pad(x, axes(x).map(() => 0), x.shape.map((e, n) => (n === axis ? e + 1 : e))); // prettier-ignore
    },
    (v, pick) => {
      const x = any(v, pick);
      return gather(x, ids(Array.from({ length: x.shape[0] }, (_, n) => (n + 1) % x.shape[0]), [x.shape[0]])); // prettier-ignore
    },
    (v, pick) => broadcastTo(any(v, pick), [B, T, D]),
    (v, pick) => stopGradient(any(v, pick)),
    (_, pick, p) => embedding(p.table, pick(2) === 0 ? ids([0, 1, 4], [B]) : ids([0, 3, 3, 2, 1, 0], [B, T])),
    // Ids without a batch axis, as many as there are examples; a weight used as data.
    (_, __, p) => embedding(p.table, ids([2, 0, 1], [B])),
    (_, __, p) => linear(eye(D), p.weight),
    (v, pick, p) => linear(any(v, pick), square(p.weight)),
    (v, pick, p) => mul(any(v, pick), p.gain),
    (v, pick) => checkpoint((x, y) => mul(tanh(x), y), any(v, pick), any(v, pick)),
    (v, pick) => {
      const x = any(v, pick);
      return grad((x) => sum(mul(tanh(x), x)))(x)[0];
    },
  ];

  it("per-example numbers equal those of each loss alone, or the pass is refused", async () => {
    const outcomes = { right: 0, refused: 0 };
    const programs = fc.array(
      fc.tuple(
        fc.nat(steps.length - 1),
        fc.infiniteStream(fc.nat(100)).map((s) => [...s.take(6)]),
      ),
      { minLength: 2, maxLength: 9 },
    );
    await fc.assert(
      fc.asyncProperty(programs, fc.nat(2), async (program, start) => {
        const p = parametersOf();
        const parameters = Object.values(p);
        const data = [random([B, T, D], 11), random([B * T, D], 12), random([B, D], 13)][start];
        const loss = (): Tensor => {
          const found = [linear(data, p.weight)];
          for (const [n, choices] of program) {
            let at = 0;
            const pick = (count: number): number => choices[at++ % choices.length] % Math.max(1, count);
            try {
              const made = scope(() => steps[n](found, pick, p));
              if (made.size <= 200 && made.rank > 0 && made.rank <= 4) found.push(made);
            } catch (error) {
              if (!(error instanceof GradmixError && error.code === "shape")) throw error;
            }
          }
          const x = found[found.length - 1];
          return sum(x, axes(x).slice(1));
        };
        const [count] = loss().shape;
        let refused: string | null;
        try {
          refused = await allPasses(loss, parameters, count);
        } catch (error) {
          // The checkpoint captured what it may not, or the loss stopped every gradient.
          if (error instanceof GradmixError && /depends on none/.test(error.message)) return;
          throw error;
        }
        outcomes[refused === null ? "right" : "refused"]++;
      }),
      { numRuns: 400 },
    );
    // Both outcomes must be frequent.
    expect(outcomes.right).toBeGreaterThan(60);
    expect(outcomes.refused).toBeGreaterThan(60);
  });
});

describe("keepsBatch of an op", () => {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  /** Returns whether each block of input `slot` affects only its own block of the output, by tangents that are 0 outside of one block. */
  async function apart(
    op: Op<never>,
    all: readonly Tensor[],
    slot: number,
    attrs: unknown,
  ): Promise<boolean> {
    const x = all[slot];
    const f = (t: Tensor): Tensor[] =>
      applySample(
        op,
        all.map((other, n) => (n === slot ? t : other)),
        attrs,
      );
    const [out] = f(x);
    const blocks = gcd(x.shape.at(0) ?? 1, out.shape.at(0) ?? 1);
    if (blocks < 2) return false;
    const inBlock = (n: number, count: number, b: number): boolean => Math.floor((n * blocks) / count) === b;
    for (let b = 0; b < blocks; b++) {
      const tangent = values(x.size, 60 + b).map((value, n) => (inBlock(n, x.size, b) ? value : 0));
      const moved = await numbers(jvp(f, [x], [tensor(tangent, x.shape)]).tangents[0]);
      if (moved.some((value, n) => value !== 0 && !inBlock(n, moved.length, b))) return false;
    }
    return true;
  }

  // These ops may answer "no" although the given indices or places happen to keep rows.
  const careful = new Set(["gather", "scatterAdd", "embedding", "concat"]);

  it.each(Object.keys(ops).filter((name) => ops[name].constant !== true))("%s", async (name) => {
    for (const sample of samples[name]) {
      const all = sample.inputs().map(upload);
      const specs = all.map((t) => ({ shape: t.shape, dtype: t.dtype }));
      const op = ops[name] as Op<unknown>;
      const [output] = op.infer(specs, sample.attrs);
      for (const [slot, t] of all.entries()) {
        if (t.dtype !== "f32") continue;
        // Constants of a rule's own ops have no derivative.
        if (sample.wrt !== undefined && slot !== all.length - 1) continue;
        const kept = op.keepsBatch(slot, specs, output, sample.attrs);
        const truth = await apart(ops[name], all, slot, sample.attrs);
        // With one row, no rows can mix.
        if (gcd(t.shape.at(0) ?? 1, output.shape.at(0) ?? 1) < 2) continue;
        const what = `${name}, input ${slot} [${t.shape.join()}] to [${output.shape.join()}]`;
        if (kept || !careful.has(name)) expect(kept, what).toBe(truth);
      }
    }
  });
});

describe("common losses", () => {
  const x = (): Tensor => random([B, D], 21);
  const tokens = (): Tensor => ids([0, 3, 1, 2, 1, 0], [B, T]);
  const targets = (): Tensor => ids([0, 3, 1, -1, 2, 2], [B, T]);
  const normalised = (h: Tensor): Tensor => {
    const centred = sub(h, mean(h, 0, true));
    return div(centred, sqrt(add(mean(square(centred), 0, true), 1e-5)));
  };
  /** Results of each sink, of `forwardDerivative` and of the sum. */
  const passes = (loss: (p: Parameters) => Tensor, examples = B): [string, () => unknown][] => {
    const p = parametersOf();
    const parameters = Object.values(p);
    const into = (sink: () => GradientSink) => () => gradients(() => loss(p), { parameters, sink: sink() });
    const segments = [0, 1, examples];
    return [
      ["perExampleSink", into(() => perExampleSink(examples, parameters))],
      ["segmentSink", into(() => segmentSink({ segments, parameters }))],
      ["perDomainSink", into(() => perDomainSink(segments, parameters))],
      ["sketchSink", into(() => sketchSink({ segments, parameters, rank: 2 }))],
      ["alignSink", into(() => alignSink({ examples, direction: { first: 1 } }))],
      ["normSink", into(() => normSink({ examples }))],
      ["a sink that does not say", into(() => ({ name: "own", linear() {}, bias() {}, gain() {}, embedding() {}, dense() {} }))], // prettier-ignore
      ["forwardDerivative", () => forwardDerivative(() => loss(p), new Map(parameters.map((q) => [q, q])))],
    ];
  };

  it.each<[string, (p: Parameters) => Tensor, RegExp]>([
    [
      "batch norm",
      (p) => sum(tanh(normalised(linear(x(), p.weight))), 1),
      /sum \(\[3, 4\] → \[1, 4\]\) mixes the examples/,
    ],
    [
      "InfoNCE",
      (p) => {
        const z = linear(x(), p.weight);
        const scores = matmul(z, z, { transposeB: true });
        return sub(logSumExp(scores, 1), crossEntropy(scores, ids([0, 1, 2], [B])));
      },
      /matmul \(\[3, 4\] → \[3, 3\]\) mixes/,
    ],
    [
      "places without a batch axis",
      (p) =>
        exampleLosses(
          linear(
            add(
              embedding(p.table, ids([0, 1, 4, 0, 1, 2, 3, 3, 3], [3, 3])),
              embedding(p.table, ids([0, 1, 2], [3])),
            ),
            p.weight,
          ),
          ids([0, 3, 1, -1, 2, 2, 0, 0, 1], [3, 3]),
        ),
      /add \(\[3, 4\] → \[3, 3, 4\]\) mixes/,
    ],
    [
      "a mean that every loss shares",
      (p) => {
        const losses = sum(linear(x(), p.weight), 1);
        return add(losses, mean(losses));
      },
      /sum \(\[3\] → \[\]\) mixes/,
    ],
    [
      "time taken for the batch",
      (p) =>
        exampleLosses(
          linear(
            transpose(
              reshape(embedding(p.table, ids([0, 1, 2, 3, 4, 0, 1, 2, 3], [3, 3])), [3, 3, D]),
              [1, 0, 2],
            ),
            p.weight,
          ),
          ids([0, 3, 1, -1, 2, 2, 0, 0, 1], [3, 3]),
        ),
      /transpose \(\[3, 3, 4\] → \[3, 3, 4\]\) mixes/,
    ],
    [
      "the batch cut up otherwise",
      (p) => sum(reshape(linear(random([4, 3, D], 3), p.weight), [3, 4 * D]), 1),
      /reshape \(\[4, 3, 4\] → \[3, 16\]\) mixes/,
    ],
  ])(
    "%s: every pass that separates the examples is refused, and a sum of all examples trains",
    async (_, loss, message) => {
      for (const [name, pass] of passes(loss)) expect(refusal(pass), name).toMatch(message);
      const p = parametersOf();
      const parameters = Object.values(p);
      const into = new Map(parameters.map((q) => [q, tensor(new Float64Array(q.size), q.shape)]));
      gradients(() => loss(p), { parameters, sink: sumSink({ gradientOf: (q) => into.get(q)! }) });
      const want = grad((...[weight, bias, gain, table]: Tensor[]) =>
        sum(loss({ weight, bias, gain, table })),
      )(...parameters);
      for (const [n, q] of parameters.entries())
        close(await numbers(into.get(q)!), await numbers(want[n]), q.name ?? "");
    },
  );

  it("a parameter that an op changes before its use is refused by name in every sink; forward mode allows it", async () => {
    const loss = (p: Parameters): Tensor => sum(linear(x(), square(p.weight)), 1);
    for (const [name, pass] of passes(loss))
      if (name === "forwardDerivative") expect(refusal(pass)).toBe(null);
      else
        expect(refusal(pass), name).toMatch(
          /parameter weight is used by square, which has no per-example rule/,
        );
    const p = parametersOf();
    const v = random([D, D], 5);
    const [want] = [await alone(() => loss(p), [p.weight], B)];
    const { derivatives } = forwardDerivative(() => loss(p), new Map([[p.weight, v]]));
    const along = await numbers(v);
    close(await numbers(derivatives), want.map((g) => dot(g, along)), "derivatives"); // prettier-ignore
  });

  it.each<[string, (p: Parameters) => Tensor]>([
    [
      "whole",
      (p) =>
        exampleLosses(
          linear(layerNorm(linear(embedding(p.table, tokens()), p.weight, p.bias), p.gain), p.weight),
          targets(),
        ),
    ],
    [
      "flattened before every parameter",
      (p) => {
        const flat = layerNorm(
          linear(embedding(p.table, reshape(tokens(), [B * T])), p.weight, p.bias),
          p.gain,
        );
        return exampleLosses(reshape(linear(flat, p.weight), [B, T, D]), targets());
      },
    ],
    [
      "flattened in between",
      (p) => {
        const flat = reshape(embedding(p.table, tokens()), [B * T, D]);
        return exampleLosses(reshape(linear(rmsNorm(flat, p.gain), p.weight, p.bias), [B, T, D]), targets());
      },
    ],
  ])("a batch that is %s: every sink gives numbers per example for every parameter", async (_, loss) => {
    const p = parametersOf();
    const parameters = Object.values(p);
    expect(await allPasses(() => loss(p), parameters, B)).toBe(null);
    const want = await alone(() => loss(p), parameters, B);
    const v = new Map(parameters.map((q, n) => [q, random(q.shape, 30 + n)]));
    const along = (await Promise.all(parameters.map((q) => numbers(v.get(q)!)))).flat();
    // A sketch is linear: that of a segment is that of the whole batch with the other losses weighed by 0.
    const sketch = async (segments: number[], weights: number[]): Promise<number[]> => {
      const sink = sketchSink({ segments, parameters, rank: 3 });
      gradients(() => loss(p), { parameters, sink, weights });
      return Array.from(await sink.result());
    };
    const sketched = await sketch([0, 2, 3], [1, 1, 1]);
    close(sketched, [...(await sketch([0, 3], [1, 1, 0])), ...(await sketch([0, 3], [0, 0, 1]))], "sketch");
    const domains = perDomainSink([0, 2, 3], parameters);
    gradients(() => loss(p), { parameters, sink: domains });
    const rows = await Promise.all(parameters.map((q) => numbers(domains.result().get(q)!)));
    const first = rows.flatMap((data) => data.slice(0, data.length / 2));
    close(first, want[0].map((g, n) => g + want[1][n]), "domain"); // prettier-ignore
    const groups = alignSink({ examples: B, segments: [0, 2, 3], direction: { given: (q) => v.get(q)! } });
    gradients(() => loss(p), { parameters, sink: groups });
    const dots = (await groups.result()).dots;
    close([...dots], [dot(want[0], along) + dot(want[1], along), dot(want[2], along)], "segments");
  });

  it("every sink refuses a batch that has another size than the sink, for each kind of parameter", () => {
    const kinds: [string, (p: Parameters) => Tensor][] = [
      ["linear and bias", (p) => sum(linear(x(), p.weight, p.bias), 1)],
      ["gain", (p) => sum(rmsNorm(x(), p.gain), 1)],
      ["embedding", (p) => sum(embedding(p.table, tokens()), [1, 2])],
    ];
    for (const [kind, loss] of kinds)
      for (const [name, pass] of passes(loss, 2))
        if (name !== "forwardDerivative" && name !== "a sink that does not say")
          expect(pass, `${kind}, ${name}`).toThrow(/the batch has 3 examples, the sink was made for 2/);
    // With `examples`, examples outside of all segments are left out.
    const p = parametersOf();
    const some = segmentSink({ segments: [1, 2], examples: B, parameters: [p.bias] });
    gradients(() => sum(linear(x(), p.weight, p.bias), 1), { parameters: [p.bias], sink: some });
    expect(() => segmentSink({ segments: [1, 4], examples: B, parameters: [] })).toThrow(/none above 3/);
    expect(() => sketchSink({ segments: [1, 4], examples: B, parameters: [] })).toThrow(/none above 3/);
  });
});
