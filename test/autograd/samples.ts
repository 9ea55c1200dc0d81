/** Inputs for every registered op, and the expected results, in plain JavaScript. */
import { apply, type Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import { foldIn, key, threefry2x32 } from "#dist/tensor/rng.js";
import { tensor, Tensor } from "#dist/tensor/tensor.js";
import { values } from "../backends/harness.ts";

export interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
  readonly dtype: "f32" | "i32";
}

export interface Sample {
  readonly inputs: () => readonly Numbers[] | readonly Tensor[];
  readonly attrs: unknown;
  /** Inputs to differentiate. Default: all of type f32. */
  readonly wrt?: readonly number[];
  /** The expected first output, computed in another way. Default: the op's composition is the oracle. */
  readonly expected?: (...inputs: number[][]) => number[];
}

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

let seed = 1;
/** Deterministic f32 values in [low, high). */
function f(shape: readonly number[], low = -1, high = 1): Numbers {
  return { shape, data: values(size(shape), seed++, low, high), dtype: "f32" };
}
function i(shape: readonly number[], data: readonly number[]): Numbers {
  return { shape, data, dtype: "i32" };
}

/** A sample with the same inputs in every call. */
function sample(
  inputs: readonly Numbers[],
  attrs: unknown = {},
  expected?: (...inputs: number[][]) => number[],
  wrt?: readonly number[],
): Sample {
  return { inputs: () => inputs, attrs, ...(expected && { expected }), ...(wrt && { wrt }) };
}

/** A sample of an op that only rules use: its inputs are the tensors that the public op saved, and one more of the given shape. */
function ruleSample(
  name: string,
  inputs: readonly Numbers[],
  attrs: unknown,
  ruleAttrs: unknown,
  last: readonly number[],
): Sample {
  const extra = f(last);
  return {
    inputs: () => {
      const op = ops[name] as Op<unknown>;
      const given = inputs.map(upload);
      const { saved = [] } = op.forward(given, attrs, op.infer(given, attrs));
      return [...saved, upload(extra)];
    },
    attrs: ruleAttrs,
    wrt: [-1],
    expected: () => [],
  };
}

export function upload(a: Numbers | Tensor): Tensor {
  return a instanceof Tensor ? a : tensor(a.data, a.shape, a.dtype);
}

export function applySample(op: Op<never>, inputs: readonly Tensor[], attrs: unknown): Tensor[] {
  return apply(op as Op<unknown>, inputs, attrs);
}

const each =
  (fn: (x: number) => number) =>
  (x: number[]): number[] =>
    x.map(fn);
const unary = (fn: (x: number) => number, low = -2, high = 2): Sample[] => [
  sample([f([2, 5], low, high)], {}, each(fn)),
];

/** a [2, 3] with b [3], b [2, 1] and b [2, 3]; and a scalar a. */
function binary(fn: (a: number, b: number) => number, low = -1, high = 1): Sample[] {
  const shapes: [number[], number[], (n: number) => [number, number], number][] = [
    [[2, 3], [3], (n) => [n, n % 3], 6],
    [[2, 3], [2, 1], (n) => [n, Math.floor(n / 3)], 6],
    [[2, 3], [2, 3], (n) => [n, n], 6],
    [[], [4], (n) => [0, n], 4],
    [[2, 1, 2], [1, 3, 1], (n) => [Math.floor(n / 6) * 2 + (n % 2), Math.floor(n / 2) % 3], 12],
  ];
  return shapes.map(([a, b, at, count]) =>
    sample([f(a, low, high), f(b, low, high)], {}, (x, y) =>
      Array.from({ length: count }, (_, n) => {
        const [ia, ib] = at(n);
        return fn(x[ia], y[ib]);
      }),
    ),
  );
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const gelu = (x: number): number =>
  0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** The error function by its Maclaurin series, for small x. */
function erf(x: number): number {
  let [sum, term] = [0, x];
  for (let n = 0; n < 60; n++) {
    sum += term / (2 * n + 1);
    term *= -(x * x) / (n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const dropped =
  (rate: number, seed: number, stream: number) =>
  (x: number[]): number[] => {
    const [key0, key1] = foldIn(key(seed), stream);
    return x.map((value, n) => {
      const word = threefry2x32(key0, key1, 0, n >> 1)[n & 1];
      return (word >>> 8) / 2 ** 24 < rate ? 0 : value / (1 - rate);
    });
  };

/** Splits a list into rows of `cols` elements. */
const byRow =
  (cols: number, fn: (row: number[]) => number[]) =>
  (x: number[]): number[] =>
    Array.from({ length: x.length / cols }, (_, r) => fn(x.slice(r * cols, (r + 1) * cols))).flat();

const total = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0);

/** Zeros, with x[n] added at place(n). */
function scattered(count: number, x: readonly number[], place: (n: number) => number): number[] {
  const out = new Array<number>(count).fill(0);
  x.forEach((value, n) => (out[place(n)] += value));
  return out;
}

/** Reductions of [2, 3, 2] over axis 1, over axes 0 and 2 (kept), over all. */
const reductions = (fn: (xs: number[]) => number): Sample[] => {
  const at = (x: number[], a: number, b: number, c: number): number => x[a * 6 + b * 2 + c];
  return [
    sample([f([2, 3, 2])], { axes: [1], keepDims: false }, (x) =>
      [0, 1].flatMap((a) => [0, 1].map((c) => fn([0, 1, 2].map((b) => at(x, a, b, c))))),
    ),
    sample([f([2, 3, 2])], { axes: [0, 2], keepDims: true }, (x) =>
      [0, 1, 2].map((b) => fn([0, 1].flatMap((a) => [0, 1].map((c) => at(x, a, b, c))))),
    ),
    sample([f([2, 3, 2])], { axes: [0, 1, 2], keepDims: false }, (x) => [fn(x)]),
  ];
};

/** op(a)[m,k]·op(b)[k,n] of one item. */
function product(
  a: number[],
  b: number[],
  m: number,
  k: number,
  n: number,
  ta: boolean,
  tb: boolean,
): number[] {
  return Array.from({ length: m * n }, (_, e) => {
    const [r, c] = [Math.floor(e / n), e % n];
    let sum = 0;
    for (let l = 0; l < k; l++) sum += a[ta ? l * m + r : r * k + l] * b[tb ? c * k + l : l * n + c];
    return sum;
  });
}

function matmuls(): Sample[] {
  const out: Sample[] = [];
  const [m, k, n] = [2, 3, 4];
  for (const transposeA of [false, true])
    for (const transposeB of [false, true]) {
      const a = transposeA ? [k, m] : [m, k];
      const b = transposeB ? [n, k] : [k, n];
      const attrs = { transposeA, transposeB };
      const items = (x: number[], count: number, shared: boolean, item: number): number[] =>
        shared ? x : x.slice((x.length / count) * item, (x.length / count) * (item + 1));
      for (const [sharedA, sharedB] of [
        [false, false],
        [false, true],
        [true, false],
      ])
        out.push(
          sample([f(sharedA ? a : [2, ...a]), f(sharedB ? b : [2, ...b])], attrs, (x, y) =>
            [0, 1].flatMap((item) =>
              product(
                items(x, 2, sharedA, item),
                items(y, 2, sharedB, item),
                m,
                k,
                n,
                transposeA,
                transposeB,
              ),
            ),
          ),
        );
      out.push(sample([f(a), f(b)], attrs, (x, y) => product(x, y, m, k, n, transposeA, transposeB)));
    }
  return out;
}

const attention = (heads: number, kvHeads: number): [Numbers[], { heads: number; kvHeads: number }] => [
  [f([2, 4, (heads + 2 * kvHeads) * 2])],
  { heads, kvHeads },
];

/** 4 query heads over 2 key/value heads, 3 queries, 5 keys, in a batch of 2; with what follows q, k, v and the mask. */
const masked = (
  causal: boolean,
  mask: readonly number[] | null,
  more: readonly (readonly number[])[] = [],
): Sample => {
  const [q, kv] = [
    [2, 4, 3, 2],
    [2, 2, 5, 2],
  ];
  const hidden = (n: number, value: number): number =>
    n % 4 === 1 || (n >= 5 && n < 10) ? -Infinity : value;
  const made =
    mask === null ? [] : [f(mask)].map((m) => ({ ...m, data: m.data.map((x, n) => hidden(n, x)) }));
  return sample([f(q), f(kv), f(kv), ...made, ...more.map((shape) => f(shape))], {
    causal,
    masked: mask !== null,
  });
};
const maskedSamples = (more: readonly (readonly number[])[] = []): Sample[] => [
  masked(false, null, more),
  masked(true, null, more),
  masked(false, [2, 1, 3, 5], more),
  masked(true, [1, 4, 3, 5], more),
];

const norms = (): Sample[] => [
  sample([f([2, 3, 4])], { eps: 1e-5, gain: false, bias: false }),
  sample([f([2, 3, 4]), f([4])], { eps: 1e-5, gain: true, bias: false }),
  sample([f([2, 3, 4]), f([4])], { eps: 1e-2, gain: false, bias: true }),
  sample([f([2, 3, 4]), f([4]), f([4])], { eps: 1e-5, gain: true, bias: true }),
];

const addNorms = (): Sample[] =>
  norms().map(({ inputs, attrs }) => {
    const [x, ...rest] = inputs() as readonly Numbers[];
    return sample([x, f([2, 3, 4]), ...rest], attrs);
  });

const normRules = (): Sample[] =>
  (["layer", "rms"] as const).flatMap((kind) =>
    [false, true].map((gain) =>
      ruleSample(
        kind === "layer" ? "layerNorm" : "rmsNorm",
        gain ? [f([2, 3, 4]), f([4])] : [f([2, 3, 4])],
        { eps: 1e-5, gain, bias: false },
        { kind, gain },
        [2, 3, 4],
      ),
    ),
  );

const logits = (): Numbers[] => [f([2, 3, 5], -3, 3), i([2, 3], [0, 4, -1, 2, -1, 3])];

export const samples: { readonly [op: string]: readonly Sample[] } = {
  neg: unary((x) => -x),
  exp: unary(Math.exp),
  log: unary(Math.log, 0.2, 3),
  sqrt: unary(Math.sqrt, 0.2, 3),
  rsqrt: unary((x) => 1 / Math.sqrt(x), 0.2, 3),
  square: unary((x) => x * x),
  reciprocal: unary((x) => 1 / x, 0.3, 3),
  abs: unary(Math.abs),
  tanh: unary(Math.tanh),
  sigmoid: unary(sigmoid),
  relu: unary((x) => Math.max(x, 0)),
  silu: unary((x) => x * sigmoid(x)),
  gelu: unary(gelu),
  sin: unary(Math.sin),
  cos: unary(Math.cos),
  erf: unary(erf),
  geluErf: unary((x) => (x / 2) * (1 + erf(x * Math.SQRT1_2))),
  softplus: unary((x) => Math.log(1 + Math.exp(x))),
  log1p: unary((x) => Math.log(1 + x), -0.8, 3),
  expm1: unary((x) => Math.exp(x) - 1),
  add: binary((a, b) => a + b),
  sub: binary((a, b) => a - b),
  mul: binary((a, b) => a * b),
  div: binary((a, b) => a / b, 0.3, 2),
  pow: binary(Math.pow, 0.3, 2),
  clip: [
    sample(
      [f([2, 5], -2, 2)],
      { min: -0.75, max: 0.5 },
      each((x) => Math.min(Math.max(x, -0.75), 0.5)),
    ),
    sample(
      [f([7], -2, 2)],
      { min: 0.25, max: Infinity },
      each((x) => Math.max(x, 0.25)),
    ),
  ],
  ...Object.fromEntries(
    Object.entries<(a: number, b: number) => boolean>({
      equal: (a, b) => a === b,
      notEqual: (a, b) => a !== b,
      less: (a, b) => a < b,
      lessEqual: (a, b) => a <= b,
      greater: (a, b) => a > b,
      greaterEqual: (a, b) => a >= b,
    }).map(([name, holds]) => [
      name,
      [
        ...binary((a, b) => Number(holds(a, b))),
        sample([i([2, 3], [1, 2, 3, 3, 2, 1]), i([3], [2, 2, 2])], {}, (x, y) =>
          x.map((a, n) => Number(holds(a, y[n % 3]))),
        ),
      ],
    ]),
  ),
  logicalAnd: [sample([i([2, 2], [0, 0, 3, -1]), i([2], [0, 2])], {}, () => [0, 0, 0, 1])],
  logicalOr: [sample([i([2, 2], [0, 0, 3, -1]), i([2], [0, 2])], {}, () => [0, 1, 1, 1])],
  maximum: binary(Math.max),
  minimum: binary(Math.min),
  affine: [
    sample(
      [f([2, 3])],
      { scale: 1.5, shift: -0.5 },
      each((x) => 1.5 * x - 0.5),
    ),
  ],
  sign: [sample([f([2, 3])], {}, each(Math.sign))],
  where: [
    sample([i([3], [0, 1, -2]), i([3], [4, 5, 6]), i([3], [7, 8, 9])], {}, () => [7, 5, 6]),
    sample([i([2, 3], [0, 1, 2, 0, -1, 0]), f([2, 3]), f([2, 3])], {}, (c, a, b) =>
      c.map((yes, n) => (yes !== 0 ? a[n] : b[n])),
    ),
  ],
  cast: [
    sample([f([2, 3], -5, 5)], { dtype: "i32" }, each(Math.trunc)),
    sample(
      [i([2], [3, -4])],
      { dtype: "f32" },
      each((x) => x),
    ),
  ],
  stopGradient: [
    sample(
      [f([2, 3])],
      {},
      each((x) => x),
    ),
  ],
  reshape: [
    sample(
      [f([2, 3])],
      { shape: [3, 1, 2] },
      each((x) => x),
    ),
  ],
  broadcastTo: [
    sample([f([2, 1])], { shape: [3, 2, 2] }, (x) =>
      Array.from({ length: 12 }, (_, n) => x[Math.floor(n / 2) % 2]),
    ),
    sample([f([])], { shape: [3] }, ([x]) => [x, x, x]),
  ],
  sum: reductions(total),
  max: reductions((x) => Math.max(...x)),
  min: reductions((x) => Math.min(...x)),
  transpose: [
    sample([f([2, 3])], { perm: [1, 0] }, (x) => [0, 1, 2].flatMap((c) => [x[c], x[3 + c]])),
    sample([f([2, 3, 4])], { perm: [2, 0, 1] }, (x) =>
      Array.from({ length: 24 }, (_, n) => x[(Math.floor(n / 3) % 2) * 12 + (n % 3) * 4 + Math.floor(n / 6)]),
    ),
  ],
  slice: [
    sample([f([3, 4])], { starts: [1, 1], sizes: [2, 2] }, (x) => [x[5], x[6], x[9], x[10]]),
    sample([f([3, 2])], { starts: [1, 0], sizes: [2, 2] }, (x) => x.slice(2)),
    sample([f([3, 2])], { starts: [1, 1], sizes: [1, 1] }, (x) => [x[3]]),
  ],
  pad: [
    sample([f([1, 2])], { starts: [1, 1], shape: [3, 4] }, ([a, b]) => [0, 0, 0, 0, 0, a, b, 0, 0, 0, 0, 0]),
  ],
  concat: [
    sample([f([2, 1]), f([2, 2])], { axis: 1 }, (a, b) => [a[0], b[0], b[1], a[1], b[2], b[3]]),
    sample([f([1, 2]), f([2, 2]), f([1, 2])], { axis: 0 }, (a, b, c) => [...a, ...b, ...c]),
  ],
  softmax: [
    sample(
      [f([2, 4], -3, 3)],
      {},
      byRow(4, (row) => row.map((x) => Math.exp(x) / total(row.map(Math.exp)))),
    ),
  ],
  logSoftmax: [
    sample(
      [f([2, 4], -3, 3)],
      {},
      byRow(4, (row) => row.map((x) => x - Math.log(total(row.map(Math.exp))))),
    ),
  ],
  gather: [
    sample([f([4, 3]), i([2, 2], [3, 0, 3, 1])], {}, (t) =>
      [3, 0, 3, 1].flatMap((r) => t.slice(r * 3, r * 3 + 3)),
    ),
    sample([f([3]), i([2], [2, 2])], {}, (t) => [t[2], t[2]]),
    sample([f([3, 2, 2]), i([2], [1, 0])], {}, (t) => [...t.slice(4, 8), ...t.slice(0, 4)]),
  ],
  scatterAdd: [
    sample([f([2, 2, 2]), i([2, 2], [3, 0, 3, 1])], { rows: 5 }, (x) => [
      x[2], x[3], x[6], x[7], 0, 0, x[0] + x[4], x[1] + x[5], 0, 0,
    ]), // prettier-ignore
  ],
  takeAlongAxis: [
    sample([f([2, 4, 3]), i([2, 2, 3], [3, 0, 1, 3, 2, 1, 0, 0, 3, 1, 0, 2])], { axis: 1 }, (x, at) =>
      at.map((l, n) => x[Math.floor(n / 6) * 12 + l * 3 + (n % 3)]),
    ),
    sample([f([3]), i([4], [2, 0, 2, 1])], { axis: 0 }, (x, at) => at.map((l) => x[l])),
    sample([f([2, 3]), i([2, 1], [2, 0])], { axis: 1 }, (x) => [x[2], x[3]]),
  ],
  scatterAddAlongAxis: [
    sample(
      [f([2, 2, 3]), i([2, 2, 3], [3, 0, 1, 3, 2, 1, 0, 0, 3, 1, 0, 2])],
      { axis: 1, extent: 4 },
      (x, at) => scattered(24, x, (n) => Math.floor(n / 6) * 12 + at[n] * 3 + (n % 3)),
    ),
    sample([f([3]), i([3], [1, 0, 1])], { axis: 0, extent: 2 }, (x) => [x[1], x[0] + x[2]]),
  ],
  cumsum: [
    sample(
      [f([2, 4])],
      { axis: 1, reverse: false },
      byRow(4, (row) => row.map((_, l) => total(row.slice(0, l + 1)))),
    ),
    sample(
      [f([2, 4])],
      { axis: 1, reverse: true },
      byRow(4, (row) => row.map((_, l) => total(row.slice(l)))),
    ),
    sample([f([3, 2])], { axis: 0, reverse: false }, (x) => [
      x[0],
      x[1],
      x[0] + x[2],
      x[1] + x[3],
      x[0] + x[2] + x[4],
      x[1] + x[3] + x[5],
    ]),
    sample([f([2, 3, 2])], { axis: 1, reverse: true }, (x) =>
      x.map((_, n) =>
        x.reduce(
          (sum, y, m) =>
            m >= n && (m - n) % 2 === 0 && Math.floor(m / 6) === Math.floor(n / 6) ? sum + y : sum,
          0,
        ),
      ),
    ),
  ],
  argmax: [
    sample(
      [f([2, 5])],
      { axis: 1, keepDims: false },
      byRow(5, (row) => [row.indexOf(Math.max(...row))]),
    ),
    sample([f([3, 2])], { axis: 0, keepDims: true }, (x) =>
      [0, 1].map((c) => [0, 1, 2].reduce((best, r) => (x[2 * r + c] > x[2 * best + c] ? r : best))),
    ),
  ],
  topk: [
    sample(
      [f([2, 5])],
      { k: 3, axis: 1 },
      byRow(5, (row) =>
        row
          .map((_, l) => l)
          .sort((a, b) => row[b] - row[a])
          .slice(0, 3),
      ),
    ),
    sample([f([3, 2])], { k: 3, axis: 0 }, (x) => {
      const columns = [0, 1].map((c) => [0, 1, 2].sort((a, b) => x[2 * b + c] - x[2 * a + c]));
      return [0, 1, 2].flatMap((n) => columns.map((column) => column[n]));
    }),
  ],
  matmul: matmuls(),
  linear: [
    sample([f([2, 3, 4]), f([5, 4])], { activation: "none" }),
    sample([f([2, 3, 4]), f([5, 4]), f([5])], { activation: "none" }),
    sample([f([3, 4]), f([5, 4]), f([5])], { activation: "gelu" }),
    sample([f([2, 3, 4]), f([5, 4])], { activation: "silu" }),
    sample([f([2, 3, 4]), f([5, 4]), f([5])], { activation: "relu" }),
  ],
  embedding: [sample([f([4, 3]), i([2, 2], [3, 0, 3, 1])])],
  layerNorm: norms(),
  rmsNorm: norms(),
  addLayerNorm: addNorms(),
  addRmsNorm: addNorms(),
  rope: [
    sample([f([2, 3, 9])], { heads: 2, headDim: 4, theta: 100, offset: 0, inverse: false }, (x) =>
      Array.from(x, (value, n) => {
        const [row, c] = [Math.floor(n / 9), n % 9];
        if (c >= 8) return value;
        const [j, base] = [c % 4, n - (c % 4)];
        const angle = (row % 3) * 100 ** (-(2 * (j % 2)) / 4);
        const partner = x[base + ((j + 2) % 4)];
        return value * Math.cos(angle) + (j < 2 ? -1 : 1) * partner * Math.sin(angle);
      }),
    ),
    sample([f([2, 3, 4])], { heads: 1, headDim: 4, theta: 10000, offset: 5, inverse: true }, (x) =>
      Array.from(x, (value, n) => {
        const [row, j] = [Math.floor(n / 4), n % 4];
        const angle = -(5 + (row % 3)) * 10000 ** (-(2 * (j % 2)) / 4);
        return value * Math.cos(angle) + (j < 2 ? -1 : 1) * x[n - j + ((j + 2) % 4)] * Math.sin(angle);
      }),
    ),
  ],
  causalAttention: [attention(1, 1), attention(2, 2), attention(4, 2)].map(([inputs, attrs]) =>
    sample(inputs, attrs),
  ),
  attention: maskedSamples(),
  maskedAttentionVjp: maskedSamples([
    [2, 4, 3, 2],
    [2, 4, 3],
    [2, 4, 3, 2],
  ]),
  maskedAttentionJvp: maskedSamples([
    [2, 4, 3, 2],
    [2, 4, 3],
    [2, 4, 3, 2],
    [2, 2, 5, 2],
    [2, 2, 5, 2],
  ]),
  swiglu: [sample([f([2, 3, 6])])],
  crossEntropy: [sample(logits()), sample([f([3, 4]), i([3], [3, 1, 0])])],
  dropout: [
    sample([f([3, 5])], { rate: 0.3, seed: 7, stream: 2 }, dropped(0.3, 7, 2)),
    sample([f([4])], { rate: 0, seed: 1, stream: 0 }, (x) => x),
    sample([f([2, 3])], { rate: 0.75, seed: 2 ** 40, stream: 2 ** 35 }, dropped(0.75, 2 ** 40, 2 ** 35)),
  ],
  oneHot: [sample([i([2, 2], [2, -1, 0, 1])], { classes: 3 }, () => [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0])],
  unaryVjp: Object.entries({ erf: -2, geluErf: -2, softplus: -2, log1p: -0.5, expm1: -2, exp: -1, log: 0.3, sqrt: 0.3, rsqrt: 0.3, reciprocal: 0.3, gelu: -2, silu: -2, relu: -2, abs: -2, tanh: -2, sigmoid: -2, square: -2, neg: -2, sin: -2, cos: -2 }).map(
    ([kind, low]) => sample([f([2, 3], low, 2), f([2, 3])], { kind }),
  ), // prettier-ignore
  logSoftmaxVjp: [sample([f([2, 3]), f([2, 3])])],
  softmaxVjp: [sample([f([2, 3]), f([2, 3])])],
  swigluVjp: [ruleSample("swiglu", [f([2, 6])], {}, {}, [2, 3])],
  swigluJvp: [ruleSample("swiglu", [f([2, 6])], {}, {}, [2, 6])],
  normVjp: normRules(),
  normJvp: normRules(),
  attentionVjp: [attention(2, 2), attention(4, 2)].map(([inputs, attrs]) =>
    ruleSample("causalAttention", inputs, attrs, attrs, [2, 4, attrs.heads * 2]),
  ),
  attentionJvp: [attention(2, 2), attention(4, 2)].map(([inputs, attrs]) =>
    ruleSample("causalAttention", inputs, attrs, attrs, inputs[0].shape),
  ),
  crossEntropyVjp: [ruleSample("crossEntropy", logits(), {}, {}, [2, 3])],
  crossEntropyJvp: [ruleSample("crossEntropy", logits(), {}, {}, [2, 3, 5])],
};
