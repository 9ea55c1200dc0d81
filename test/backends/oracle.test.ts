/**
 * The reference, the oracle of the other backends, against checks that share no code with it: finite differences, ⟨jvp(dx), dy⟩ = ⟨dx, vjp(dy)⟩,
 * textbook compositions, invariants and published numbers.
 */
import { describe, expect, it } from "vitest";
import {
  type AttentionParams,
  type Inputs,
  type KernelName,
  type KernelParams,
  type Outputs,
  unaryKinds,
} from "#dist/backends/kernels/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { threefry2x32 } from "#dist/tensor/rng.js";
import { evaluate, f, i, integers, type Operand, out, values } from "./harness.ts";
import { naiveAttention, naiveLse, naiveMaskedAttention, naiveStats } from "./naive.ts";
import { expectNear } from "../near.ts";

const backend = createReferenceBackend({ precision: "f64" });

/** The first output of a kernel in doubles. */
async function first<K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K, Operand | readonly number[]>,
  outputs: Outputs<K, number | readonly number[]>,
): Promise<number[]> {
  return (await evaluate(backend, kernel, params, inputs, outputs))[0];
}

const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, x, at) => sum + x * b[at], 0);
const combine = (a: readonly number[], b: readonly number[], scale: number): number[] =>
  a.map((x, at) => x + scale * b[at]);

/** Largest |a − b| over max(1, |b|). */
function gap(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, x, at) => {
    const error = Math.abs(x - b[at]) / Math.max(1, Math.abs(b[at]));
    return Number.isNaN(error) ? Infinity : Math.max(worst, error);
  }, 0);
}

type Map1 = (x: number[]) => Promise<number[]>;

/** The derivative of `forward` at x along dx, by central differences of fourth order. */
async function slope(forward: Map1, x: readonly number[], dx: readonly number[]): Promise<number[]> {
  const h = 1e-3;
  const [a, b, c, d] = await Promise.all([
    forward(combine(x, dx, 2 * h)),
    forward(combine(x, dx, h)),
    forward(combine(x, dx, -h)),
    forward(combine(x, dx, -2 * h)),
  ]);
  return b.map((up, at) => (8 * (up - c[at]) - (a[at] - d[at])) / (12 * h));
}

/** Checks vjp (and jvp where there is one) of `forward` at x in several random directions. */
async function checkDerivatives(
  forward: Map1,
  x: readonly number[],
  vjp: (dy: number[]) => Promise<number[]>,
  jvp?: (dx: number[]) => Promise<number[]>,
): Promise<void> {
  const size = (await forward([...x])).length;
  for (const seed of [11, 12, 13]) {
    const dx = values(x.length, seed);
    const dy = values(size, seed + 100);
    const numeric = await slope(forward, x, dx);
    const back = await vjp(dy);
    expect(Math.abs(dot(back, dx) - dot(dy, numeric))).toBeLessThan(1e-7 * (1 + Math.abs(dot(dy, numeric))));
    if (jvp === undefined) continue;
    const tangent = await jvp(dx);
    expect(gap(tangent, numeric)).toBeLessThan(1e-7);
    expect(Math.abs(dot(tangent, dy) - dot(dx, back))).toBeLessThan(1e-9 * (1 + Math.abs(dot(dx, back))));
  }
}

describe("derivatives", () => {
  it.each(unaryKinds)("unaryVjp %s", async (kind) => {
    // Away from the kinks of abs and relu, and inside the domain of log, sqrt, rsqrt and reciprocal.
    const x = values(40, 1, 0.3, 3).map((value, at) =>
      ["log", "log1p", "sqrt", "rsqrt", "reciprocal"].includes(kind) || at % 2 === 0 ? value : -value,
    );
    const rule = (d: number[]): Promise<number[]> => first("unaryVjp", { kind }, { x, dy: d }, { dx: 40 });
    await checkDerivatives((at) => first("unary", { kind }, { x: at }, { y: 40 }), x, rule, rule);
  });

  it("logSoftmaxVjp", async () => {
    const shape = { rows: 3, cols: 7 };
    const forward: Map1 = (x) => first("logSoftmax", shape, { x }, { y: 21 });
    const x = values(21, 1, -2, 2);
    const y = await forward(x);
    await checkDerivatives(forward, x, (dy) => first("logSoftmaxVjp", shape, { y, dy }, { dx: 21 }));
  });

  it("softmaxVjp", async () => {
    const shape = { rows: 3, cols: 7 };
    const forward: Map1 = (x) => first("softmax", shape, { x }, { y: 21 });
    const x = values(21, 1, -2, 2);
    const y = await forward(x);
    const rule = (d: number[]): Promise<number[]> => first("softmaxVjp", shape, { y, dy: d }, { dx: 21 });
    await checkDerivatives(forward, x, rule, rule);
  });

  it("swigluVjp, swigluJvp", async () => {
    const shape = { rows: 3, width: 5 };
    const x = values(30, 1, -3, 3);
    await checkDerivatives(
      (at) => first("swiglu", shape, { x: at }, { y: 15 }),
      x,
      (dy) => first("swigluVjp", shape, { x, dy }, { dx: 30 }),
      (dx) => first("swigluJvp", shape, { x, dx }, { dy: 15 }),
    );
  });

  it("crossEntropyVjp, crossEntropyJvp", async () => {
    const shape = { rows: 5, cols: 7 };
    const x = values(35, 1, -3, 3);
    const targets = i([0, 6, -1, 3, -100]);
    const lse = naiveLse(x, 7);
    await checkDerivatives(
      (at) => first("crossEntropy", shape, { logits: at, targets }, { losses: 5, lse: 5 }),
      x,
      (dy) => first("crossEntropyVjp", shape, { logits: x, targets, lse, dlosses: dy }, { dlogits: 35 }),
      (dx) => first("crossEntropyJvp", shape, { logits: x, targets, lse, dlogits: dx }, { dlosses: 5 }),
    );
  });

  describe.each(["layer", "rms"] as const)("%s norm", (kind) => {
    const [rows, width, eps] = [4, 6, 0.1];
    const x = values(rows * width, 1, -2, 3);
    const gain = values(width, 2, 0.5, 2);
    const bias = values(width, 3);
    const stats = naiveStats(x, width, kind, eps);
    const size = rows * width;
    const forward = (at: readonly number[], g: readonly number[], b: readonly number[]): Promise<number[]> =>
      first("norm", { kind, rows, width, eps }, { x: at, gain: g, bias: b }, { y: size, stats: 2 * rows });
    type Tangent = readonly number[] | null;
    const jvp = (dx: readonly number[], dgain: Tangent, dbias: Tangent): Promise<number[]> =>
      first("normJvp", { kind, rows, width }, { x, gain, stats, dx, dgain, dbias }, { dy: size });
    const none = new Array<number>(size).fill(0);

    it("gives mean and rstd", async () => {
      const all = await evaluate(
        backend,
        "norm",
        { kind, rows, width, eps },
        { x, gain, bias },
        { y: size, stats: 2 * rows },
      );
      expect(gap(all[1], stats)).toBeLessThan(1e-12);
      const want = x.map((value, at) => {
        const row = Math.floor(at / width);
        return (value - stats[2 * row]) * stats[2 * row + 1] * gain[at % width] + bias[at % width];
      });
      expect(gap(all[0], want)).toBeLessThan(1e-12);
    });

    it("in x", () =>
      checkDerivatives(
        (at) => forward(at, gain, bias),
        x,
        (dy) => first("normVjp", { kind, rows, width }, { x, gain, stats, dy }, { dx: size }),
        (dx) => jvp(dx, null, null),
      ));

    it("in the gain, summed over segments", () =>
      checkDerivatives(
        (at) => forward(x, at, bias),
        gain,
        async (dy) => {
          const params = { kind, rows, width, segmentCount: 2, outStride: width, accumulate: false };
          const parts = await first(
            "normGainGrad",
            params,
            { x, stats, dy, segments: i([0, 1, rows]) },
            { dgain: 2 * width },
          );
          return combine(parts.slice(0, width), parts.slice(width), 1);
        },
        (dgain) => jvp(none, dgain, null),
      ));

    it("in the bias, as a segment sum", () =>
      checkDerivatives(
        (at) => forward(x, gain, at),
        bias,
        (dy) =>
          first(
            "segmentSum",
            { rows, width, segmentCount: 1, outStride: width, accumulate: false },
            { x: dy, segments: i([0, rows]) },
            { out: width },
          ),
        (dbias) => jvp(none, null, dbias),
      ));
  });

  it.each([
    { batch: 2, time: 5, heads: 2, kvHeads: 1, headDim: 4, scale: 0.7 },
    { batch: 1, time: 6, heads: 4, kvHeads: 2, headDim: 2, scale: 1.3 },
  ])("attentionVjp, attentionJvp, $heads heads over $kvHeads", async (p: AttentionParams) => {
    const size = p.batch * p.time * p.heads * p.headDim;
    const x = values(p.batch * p.time * (p.heads + 2 * p.kvHeads) * p.headDim, 1);
    const { o, lse } = naiveAttention(p, x);
    await checkDerivatives(
      (at) => first("attention", p, { qkv: at }, { o: size, lse: lse.length }),
      x,
      (dy) => first("attentionVjp", p, { qkv: x, o, lse, dOut: dy }, { dqkv: x.length }),
      (dx) => first("attentionJvp", p, { qkv: x, o, lse, dqkv: dx }, { dOut: size }),
    );
  });

  it("rope: the vjp is the inverse, and the jvp is rope itself", async () => {
    const p = { batch: 2, time: 6, cols: 11, heads: 2, headDim: 4, theta: 100, offset: 3 };
    const rope = (inverse: boolean, x: readonly number[]): Promise<number[]> =>
      first("rope", { ...p, inverse }, { x }, { y: 132 });
    const x = values(132, 1);
    await checkDerivatives(
      (at) => rope(false, at),
      x,
      (dy) => rope(true, dy),
      (dx) => rope(false, dx),
    );
  });
});

describe("attention and positions", () => {
  it.each([
    { batch: 1, time: 1, heads: 1, kvHeads: 1, headDim: 2, scale: 1 },
    { batch: 2, time: 33, heads: 4, kvHeads: 2, headDim: 8, scale: 0.35 },
    { batch: 1, time: 70, heads: 3, kvHeads: 1, headDim: 5, scale: 9 },
  ])("attention is softmax(scale·q kᵀ + causal)·v, $time × $time", async (p: AttentionParams) => {
    const qkv = values(p.batch * p.time * (p.heads + 2 * p.kvHeads) * p.headDim, 1);
    const want = naiveAttention(p, qkv);
    const [o, lse] = await evaluate(
      backend,
      "attention",
      p,
      { qkv },
      { o: want.o.length, lse: want.lse.length },
    );
    expect(gap(o, want.o)).toBeLessThan(1e-12);
    expect(gap(lse, want.lse)).toBeLessThan(1e-12);
  });

  const MASKS = [false, true].flatMap((causal) =>
    [
      {
        batch: 2,
        heads: 4,
        kvHeads: 2,
        time: 5,
        keys: 7,
        headDim: 3,
        scale: 0.7,
        maskBatch: 2,
        maskHeads: 1,
      },
      {
        batch: 1,
        heads: 2,
        kvHeads: 2,
        time: 6,
        keys: 4,
        headDim: 5,
        scale: 1.5,
        maskBatch: 1,
        maskHeads: 2,
      },
    ].map((p) => ({ ...p, causal })),
  );

  it.each(MASKS)(
    "attention with a mask is softmax(scale·q kᵀ + mask)·v, $time × $keys, causal $causal",
    async (p) => {
      const queries = p.batch * p.heads * p.time;
      const keys = p.batch * p.kvHeads * p.keys * p.headDim;
      const [q, k, v] = [queries * p.headDim, keys, keys].map((count, n) => values(count, n));
      const mask = values(p.maskBatch * p.maskHeads * p.time * p.keys, 9).map((x, n) =>
        x > 0.5 || Math.floor(n / p.keys) === 2 ? -Infinity : x,
      );
      for (const given of [
        { q, k, v, mask },
        { q, k, v, mask: null },
      ]) {
        const want = naiveMaskedAttention(p, given);
        const [o, lse] = await evaluate(backend, "maskedAttention", p, given, {
          o: want.o.length,
          lse: queries,
        });
        expect(gap(o, want.o)).toBeLessThan(1e-12);
        const seen = want.lse.map((x) => (x === -Infinity ? -1e9 : x));
        expect(
          gap(
            lse.map((x) => (x === -Infinity ? -1e9 : x)),
            seen,
          ),
        ).toBeLessThan(1e-12);
      }
    },
  );

  const p = { batch: 1, time: 9, cols: 8, heads: 1, headDim: 8, theta: 50, offset: 0 };

  it("rope: an offset gives the same positions as a longer row", async () => {
    const x = values(72, 1);
    const whole = await first("rope", { ...p, inverse: false }, { x }, { y: 72 });
    const later = await first(
      "rope",
      { ...p, time: 4, offset: 5, inverse: false },
      { x: x.slice(40) },
      { y: 32 },
    );
    expect(later).toEqual(whole.slice(40));
  });

  it("rope: positions start at 0 in every item of the batch", async () => {
    const x = values(72, 1);
    const alone = await first("rope", { ...p, inverse: false }, { x }, { y: 72 });
    const twice = await first("rope", { ...p, batch: 2, inverse: false }, { x: [...x, ...x] }, { y: 144 });
    expect(twice).toEqual([...alone, ...alone]);
  });

  it("rope turns pair i of position t by t·theta^(−2i/headDim), and back", async () => {
    const x = values(72, 1);
    const y = await first("rope", { ...p, inverse: false }, { x }, { y: 72 });
    expect(y.slice(0, 8)).toEqual(x.slice(0, 8));
    for (let t = 0; t < 9; t++)
      for (let pair = 0; pair < 4; pair++) {
        const [a, b] = [x[t * 8 + pair], x[t * 8 + pair + 4]];
        const angle = Math.atan2(b, a) + t / 50 ** (pair / 4);
        expectNear(y[t * 8 + pair], Math.hypot(a, b) * Math.cos(angle), 1e-12);
        expectNear(y[t * 8 + pair + 4], Math.hypot(a, b) * Math.sin(angle), 1e-12);
      }
    expect(gap(await first("rope", { ...p, inverse: true }, { x: y }, { y: 72 }), x)).toBeLessThan(1e-14);
  });

  it("rope: ⟨q at t, k at s⟩ depends on t − s only", async () => {
    const turned = async (seed: number): Promise<number[]> => {
      const row = values(8, seed);
      const x = Array.from({ length: 9 }, () => row).flat();
      return first("rope", { ...p, inverse: false }, { x }, { y: 72 });
    };
    const [q, k] = await Promise.all([turned(1), turned(2)]);
    const score = (t: number, s: number): number => dot(q.slice(t * 8, t * 8 + 8), k.slice(s * 8, s * 8 + 8));
    for (let t = 1; t < 9; t++) expectNear(score(t, t - 1), score(1, 0), 1e-12);
    expect(Math.abs(score(4, 0) - score(1, 0))).toBeGreaterThan(1e-3);
  });
});

describe("products", () => {
  const matrix = (m: number, n: number, seed: number): number[][] =>
    Array.from({ length: m }, (_, row) => values(n, seed * 1000 + row));
  const transpose = (a: readonly (readonly number[])[]): number[][] =>
    a[0].map((_, j) => a.map((row) => row[j]));

  it.each([
    [false, false],
    [false, true],
    [true, false],
    [true, true],
  ])("gemm with transA %s, transB %s", async (transA, transB) => {
    const [a, b, c] = [matrix(3, 4, 1), matrix(4, 5, 2), matrix(3, 5, 3)];
    const bias = values(5, 4);
    const params = {
      m: 3, n: 5, k: 4, transA, transB, batch: 1, strideA: 0, strideB: 0, strideC: 15, alpha: 2, accumulate: true,
      activation: "none" as const,
    }; // prettier-ignore
    const got = await first(
      "gemm",
      params,
      { a: (transA ? transpose(a) : a).flat(), b: (transB ? transpose(b) : b).flat(), bias },
      { c: c.flat() },
    );
    const columns = transpose(b);
    const want = a.flatMap((row, r) => columns.map((column, j) => 2 * dot(row, column) + bias[j] + c[r][j]));
    expect(gap(got, want)).toBeLessThan(1e-14);
  });

  it("gemm: an activation and its slope, items with strides; data between the items is kept", async () => {
    const a = values(20, 1);
    const b = values(6, 2);
    const gaps = values(17, 3);
    const params = {
      m: 2, n: 2, k: 3, transA: false, transB: false, batch: 3, strideA: 7, strideB: 0, strideC: 6, alpha: 1,
      accumulate: false, activation: "relu" as const,
    }; // prettier-ignore
    const [c, slope] = await evaluate(
      backend,
      "gemm",
      params,
      { a, b },
      { c: gaps.slice(0, 16), slope: gaps.slice(0, 16) },
    );
    for (let item = 0; item < 3; item++)
      for (let at = 0; at < 6; at++) {
        const place = item * 6 + at;
        if (place >= 16) continue;
        const [row, column] = [Math.floor(at / 2), at % 2];
        const want =
          at < 4
            ? dot(a.slice(item * 7 + row * 3, item * 7 + row * 3 + 3), [
                b[column],
                b[2 + column],
                b[4 + column],
              ])
            : gaps[place];
        expectNear(slope[place], at < 4 ? Number(want > 0) : want, 1e-14);
        expectNear(c[place], at < 4 ? Math.max(0, want) : want, 1e-14);
      }
  });

  const [rows, m, n] = [12, 3, 4];
  const a = values(rows * m, 1);
  const b = values(rows * n, 2);
  const segments = [1, 4, 4, 7, 8, 11];
  /** aᵀb over some rows, by the gemm kernel. */
  const gradient = (start: number, end: number): Promise<number[]> =>
    first(
      "gemm",
      {
        m, n, k: end - start, transA: true, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0, alpha: 1,
        accumulate: false, activation: "none",
      }, // prettier-ignore
      { a: a.slice(start * m, end * m), b: b.slice(start * n, end * n) },
      { c: m * n },
    );

  it.each([false, true])("gemmSegmented equals one gemm per segment, direction given %s", async (given) => {
    const w = await Promise.all([0, 1, 2, 3, 4].map((s) => gradient(segments[s], segments[s + 1])));
    const v = given ? values(m * n, 5) : combine(w[0], w[1], 1);
    const before = values(m * n, 6);
    const [total, dots, sumsq, groupSumsq, vSumsq] = await evaluate(
      backend,
      "gemmSegmented",
      {
        rows,
        m,
        n,
        segmentCount: 5,
        groupCount: 2,
        targetSegments: 2,
        firstAccumulated: 2,
        accumulate: true,
      },
      { a, b, segments: i(segments), groups: i([1, 3, 5]), v: given ? v : null },
      { total: before, dots: 5, sumsq: 5, groupSumsq: 2, vSumsq: 1 },
    );
    const wantTotal = [before, w[2], w[3], w[4]].reduce((sum, part) => combine(sum, part, 1));
    expect(gap(total, wantTotal)).toBeLessThan(1e-14);
    expect(
      gap(
        dots,
        w.map((part, s) => (given || s >= 2 ? dot(part, v) : 0)),
      ),
    ).toBeLessThan(1e-13);
    expect(
      gap(
        sumsq,
        w.map((part) => dot(part, part)),
      ),
    ).toBeLessThan(1e-13);
    const groups = [combine(w[1], w[2], 1), combine(w[3], w[4], 1)];
    expect(
      gap(
        groupSumsq,
        groups.map((part) => dot(part, part)),
      ),
    ).toBeLessThan(1e-13);
    expect(gap(vSumsq, [dot(v, v)])).toBeLessThan(1e-13);
  });

  it("embeddingAlign equals one scatterAdd per segment", async () => {
    const [width, tableRows] = [3, 4];
    const dy = values(rows * width, 7);
    const ids = integers(rows, 8, -1, tableRows + 1);
    const v = values(tableRows * width, 9);
    const scattered = (start: number, end: number): Promise<number[]> =>
      first(
        "scatterAdd",
        { rows: end - start, width, tableRows, accumulate: false },
        { x: dy.slice(start * width, end * width), ids: i(ids.slice(start, end)) },
        { out: tableRows * width },
      );
    const w = await Promise.all([0, 1, 2, 3, 4].map((s) => scattered(segments[s], segments[s + 1])));
    const [dots, sumsq, groupSumsq] = await evaluate(
      backend,
      "embeddingAlign",
      { rows, width, tableRows, segmentCount: 5, groupCount: 2 },
      { dy, ids: i(ids), segments: i(segments), groups: i([0, 2, 5]), v },
      { dots: 5, sumsq: 5, groupSumsq: 2 },
    );
    expect(
      gap(
        dots,
        w.map((part) => dot(part, v)),
      ),
    ).toBeLessThan(1e-13);
    expect(
      gap(
        sumsq,
        w.map((part) => dot(part, part)),
      ),
    ).toBeLessThan(1e-13);
    const groups = [combine(w[0], w[1], 1), combine(combine(w[2], w[3], 1), w[4], 1)];
    expect(
      gap(
        groupSumsq,
        groups.map((part) => dot(part, part)),
      ),
    ).toBeLessThan(1e-13);
  });

  it("gather and scatterAdd are transposes of each other", async () => {
    const [width, tableRows] = [3, 5];
    const ids = i(integers(rows, 3, 0, tableRows));
    const [x, y] = [values(tableRows * width, 4), values(rows * width, 5)];
    const gathered = await first(
      "gather",
      { rows, width, tableRows },
      { table: x, ids },
      { out: rows * width },
    );
    const params = { rows, width, tableRows, accumulate: false };
    const spread = await first("scatterAdd", params, { x: y, ids }, { out: tableRows * width });
    expectNear(dot(gathered, y), dot(x, spread), 1e-12);
  });

  it("segmentSum, alignRows, dot, sumSquares and reduce equal sums written out", async () => {
    const [x, y] = [values(12, 1), values(12, 2)];
    const params = { rows: 4, width: 3, segmentCount: 2, outStride: 4, accumulate: true };
    const sums = await first(
      "segmentSum",
      params,
      { x, y, segments: i([0, 1, 3]) },
      { out: [10, 20, 30, 99, 40, 50, 60] },
    );
    const z = x.map((value, at) => value * y[at]);
    const want = [10 + z[0], 20 + z[1], 30 + z[2], 99, 40 + z[3] + z[6], 50 + z[4] + z[7], 60 + z[5] + z[8]];
    expect(gap(sums, want)).toBeLessThan(1e-14);

    const v = [1, -2, 3];
    const [dots, sumsq] = await evaluate(
      backend,
      "alignRows",
      { rows: 4, width: 3 },
      { g: x, v },
      { dots: 4, sumsq: 4 },
    );
    for (let r = 0; r < 4; r++) {
      expectNear(dots[r], x[3 * r] - 2 * x[3 * r + 1] + 3 * x[3 * r + 2], 1e-14);
      expectNear(sumsq[r], x[3 * r] ** 2 + x[3 * r + 1] ** 2 + x[3 * r + 2] ** 2, 1e-14);
    }
    expectNear((await first("dot", {}, { x, y }, { out: 1 }))[0], dot(x, y), 1e-14);
    expectNear((await first("sumSquares", {}, { x }, { out: 1 }))[0], dot(x, x), 1e-14);

    const shape = { outer: 2, length: 3, inner: 2 };
    for (const [kind, fold] of [
      ["sum", (p: number, q: number) => p + q],
      ["max", Math.max],
      ["min", Math.min],
    ] as const) {
      const got = await first("reduce", { kind, ...shape }, { x }, { y: 4 });
      const written = [0, 1, 6, 7].map((at) => fold(fold(x[at], x[at + 2]), x[at + 4]));
      expect(gap(got, written)).toBeLessThan(1e-14);
    }
    const empty = async (kind: "sum" | "max" | "min"): Promise<number[]> =>
      first("reduce", { kind, outer: 1, length: 0, inner: 1 }, { x: [] }, { y: 1 });
    expect([await empty("sum"), await empty("max"), await empty("min")]).toEqual([
      [0],
      [-Infinity],
      [Infinity],
    ]);
  });
});

describe("small kernels by hand", () => {
  it("unary values", async () => {
    const at = async (kind: (typeof unaryKinds)[number], x: number): Promise<number> =>
      (await first("unary", { kind }, { x: [x] }, { y: 1 }))[0];
    expect(await at("neg", 2)).toBe(-2);
    expect(await at("square", -3)).toBe(9);
    expect(await at("reciprocal", 4)).toBe(0.25);
    expect(await at("rsqrt", 4)).toBe(0.5);
    expect(await at("abs", -3)).toBe(3);
    expect(await at("relu", -3)).toBe(0);
    expect(await at("relu", 3)).toBe(3);
    expect(await at("sqrt", 9)).toBe(3);
    expect(await at("log", Math.E)).toBe(1);
    expect(await at("exp", 1)).toBe(Math.E);
    expectNear(await at("sigmoid", Math.log(3)), 0.75, 1e-15);
    expectNear(await at("silu", Math.log(3)), 0.75 * Math.log(3), 1e-15);
    expectNear(await at("tanh", Math.log(2)), 0.6, 1e-15);
    expectNear(await at("sin", Math.PI / 6), 0.5, 1e-15);
    expectNear(await at("cos", Math.PI / 3), 0.5, 1e-15);
    // GPT-2's tanh approximation, written with tanh(z) = 2σ(2z) − 1; 0.8412 is PyTorch's value at 1, as printed.
    expectNear(await at("gelu", 1), 0.8412, 1e-4);
    for (const x of [-2, 0.7, 1, 3]) {
      const z = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x);
      expectNear(await at("gelu", x), x / (1 + Math.exp(-2 * z)), 1e-14);
    }
  });

  it("binary broadcasts by strides, and writes over an operand", async () => {
    const params = { kind: "sub", shape: [2, 3], aStrides: [3, 1], bStrides: [1, 0] } as const;
    expect(await first("binary", params, { a: [1, 2, 3, 4, 5, 6], b: [10, 20] }, { c: 6 })).toEqual([
      -9, -8, -7, -16, -15, -14,
    ]);
    const flat = async (kind: "add" | "mul" | "div" | "max" | "min"): Promise<number[]> =>
      first(
        "binary",
        { kind, shape: [2], aStrides: [1], bStrides: [1] },
        { a: [6, -3], b: [2, 4] },
        { c: 2 },
      );
    expect(await flat("add")).toEqual([8, 1]);
    expect(await flat("mul")).toEqual([12, -12]);
    expect(await flat("div")).toEqual([3, -0.75]);
    expect(await flat("max")).toEqual([6, 4]);
    expect(await flat("min")).toEqual([2, -3]);
  });

  it("stridedCopy transposes into part of the output", async () => {
    const params = { shape: [3, 2], inStrides: [1, 3], inOffset: 1, outStrides: [4, 1], outOffset: 2 };
    const got = await first(
      "stridedCopy",
      params,
      { x: [0, 1, 2, 3, 4, 5, 6] },
      { y: new Array<number>(13).fill(9) },
    );
    expect(got).toEqual([9, 9, 1, 4, 9, 9, 2, 5, 9, 9, 3, 6, 9]);
  });

  it("fill, affine, accumulate, select, cast, clipScale, gather, softmax", async () => {
    expect(await first("fill", { value: 2.5 }, {}, { out: 2 })).toEqual([2.5, 2.5]);
    expect(await first("affine", { scale: 2, shift: -1 }, { x: [1, 3] }, { y: 2 })).toEqual([1, 5]);
    expect(await first("accumulate", { scale: 2 }, { x: [1, 3] }, { y: [10, 20] })).toEqual([12, 26]);
    expect(
      await first("select", {}, { condition: i([1, 0, -1]), a: [1, 2, 3], b: [4, 5, 6] }, { c: 3 }),
    ).toEqual([1, 5, 3]);
    const [toInt] = await evaluate(backend, "cast", {}, { x: f([1.9, -1.9]) }, { y: out(2, "i32") });
    expect(toInt).toEqual([1, -1]);
    expect(await first("clipScale", { maxNorm: 3 }, { sumsq: [36] }, { scale: 1 })).toEqual([0.5]);
    expect(await first("clipScale", { maxNorm: 3 }, { sumsq: [4] }, { scale: 1 })).toEqual([1]);
    for (const sumsq of [Infinity, NaN])
      expect(await first("clipScale", { maxNorm: 3 }, { sumsq: [sumsq] }, { scale: 1 })).toEqual([0]);
    const table = { rows: 3, width: 2, tableRows: 2 };
    expect(await first("gather", table, { table: [1, 2, 3, 4], ids: i([1, 2, 0]) }, { out: 6 })).toEqual([
      3,
      4,
      NaN,
      NaN,
      1,
      2,
    ]);
    const spread = async (accumulate: boolean): Promise<number[]> =>
      first(
        "scatterAdd",
        { ...table, accumulate },
        { x: [1, 2, 3, 4, 5, 6], ids: i([1, 2, 1]) },
        { out: [10, 20, 30, 40] },
      );
    expect(await spread(true)).toEqual([10, 20, 36, 48]);
    expect(await spread(false)).toEqual([0, 0, 6, 8]);
    const soft = await first(
      "softmax",
      { rows: 1, cols: 3 },
      { x: [1000, 1000 + Math.log(2), -Infinity] },
      { y: 3 },
    );
    expect(gap(soft, [1 / 3, 2 / 3, 0])).toBeLessThan(1e-12);
  });

  it("cross-entropy: −log softmax, ignored targets and targets beyond the columns", async () => {
    const logits = values(12, 1, -80, 80);
    const [losses, lse] = await evaluate(
      backend,
      "crossEntropy",
      { rows: 4, cols: 3 },
      { logits, targets: i([2, -1, 3, 0]) },
      { losses: 4, lse: 4 },
    );
    const want = naiveLse(logits, 3);
    expect(gap(lse, want)).toBeLessThan(1e-14);
    expectNear(losses[0], want[0] - logits[2], 1e-12);
    expect(losses[1]).toBe(0);
    expect(losses[2]).toBeNaN();
    expectNear(losses[3], want[3] - logits[9], 1e-12);
  });

  it.each(["adam", "adamw"] as const)(
    "%s: with a constant gradient, every bias-corrected moment equals that of the gradient itself",
    async (kernel) => {
      const grad = [0.5, -2, 1e-3];
      // Decay coupled to the gradient would not leave it constant.
      const weightDecay = kernel === "adamw" ? 0.1 : 0;
      const params = { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-3, weightDecay };
      let state = [[1, 2, 3], [0, 0, 0], [0, 0, 0]]; // prettier-ignore
      let want = [1, 2, 3];
      for (let step = 1; step <= 20; step++) {
        const [value, m, v] = state;
        const inputs = { grad, gradScale: [3] };
        state = await evaluate(backend, kernel, { ...params, step }, inputs, { value, m, v });
        want = want.map((x, at) => {
          const g = 3 * grad[at];
          return x - 0.01 * (g / (Math.abs(g) + 1e-3)) - 0.01 * weightDecay * x;
        });
        expect(gap(state[0], want)).toBeLessThan(1e-12);
      }
      const [first, second] = [1 - 0.9 ** 20, 1 - 0.99 ** 20];
      expect(gap(state[1], grad.map((g) => 3 * g * first))).toBeLessThan(1e-12); // prettier-ignore
      expect(gap(state[2], grad.map((g) => 9 * g * g * second))).toBeLessThan(1e-12); // prettier-ignore
    },
  );

  it.each(["sgd", "adam", "adamw"] as const)("%s: a scale of 0 changes nothing", async (kernel) => {
    const inputs = { grad: [1, Infinity, NaN], gradScale: [0] };
    const state = [[1, 2, 3], [4, 5, 6], [7, 8, 9]] as const; // prettier-ignore
    const [value, m, v] = state.map((part) => [...part]);
    const got =
      kernel === "sgd"
        ? await evaluate(
            backend,
            kernel,
            { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 },
            inputs,
            { value, velocity: m },
          )
        : await evaluate(
            backend,
            kernel,
            { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, step: 3 },
            inputs,
            { value, m, v },
          );
    expect(got).toEqual(state.slice(0, got.length));
  });

  it("adam: weight decay is added to the gradient, so with a gradient of 0 every value takes the same step", async () => {
    const params = { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-12, weightDecay: 0.5, step: 1 };
    const zero = [0, 0, 0];
    const [value, m, v] = await evaluate(
      backend,
      "adam",
      params,
      { grad: zero },
      { value: [1, -2, 30], m: zero, v: zero },
    );
    expect(gap(value, [0.99, -1.99, 29.99])).toBeLessThan(1e-10);
    expect(gap(m, [0.05, -0.1, 1.5])).toBeLessThan(1e-12);
    expect(gap(v, [0.0025, 0.01, 2.25])).toBeLessThan(1e-12);
  });

  it("sgd: the velocity is a geometric sum, Nesterov's is one step ahead, and weight decay shrinks the values", async () => {
    const still = { lr: 0.1, momentum: 0, nesterov: false, weightDecay: 0 };
    expect(await first("sgd", still, { grad: [1, -2], gradScale: [3] }, { value: [5, 5] })).toEqual([
      4.7, 5.6,
    ]);
    const [shrunk] = await evaluate(
      backend,
      "sgd",
      { ...still, weightDecay: 0.5 },
      { grad: [0, 0] },
      { value: [2, -4] },
    );
    expect(gap(shrunk, [1.9, -3.8])).toBeLessThan(1e-15);
    for (const nesterov of [false, true]) {
      let state = [[0], [0]];
      let [value, velocity] = [0, 0];
      for (let t = 1; t <= 10; t++) {
        const before = { value: state[0], velocity: state[1] };
        state = await evaluate(backend, "sgd", { ...still, momentum: 0.5, nesterov }, { grad: [1] }, before);
        // 1 + 1/2 + 1/4 + … of t terms; Nesterov's has one more.
        velocity = 2 - 0.5 ** (t - 1);
        value -= 0.1 * (nesterov ? 2 - 0.5 ** t : velocity);
      }
      expect(gap(state[0], [value])).toBeLessThan(1e-14);
      expect(gap(state[1], [velocity])).toBeLessThan(1e-14);
    }
  });
});

describe("random", () => {
  const bits = async (count: number, key0: number, key1: number, offset: number): Promise<number[]> =>
    (
      await evaluate(backend, "random", { kind: "bits", key0, key1, offset }, {}, { out: out(count, "i32") })
    )[0];
  const draw = (kind: "uniform" | "normal", count: number, offset = 0): Promise<number[]> =>
    first("random", { kind, key0: 1, key1: 2, offset }, {}, { out: count });

  // The published known answers of Threefry-2x32, 20 rounds (Random123), as in JAX's tests.
  it.each([
    [
      [0, 0, 0, 0],
      [0x6b200159, 0x99ba4efe],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x1cb996fc, 0xbb002be7],
    ],
    [
      [0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3],
      [0xc4923a9c, 0x483df7a0],
    ],
  ])("threefry2x32 %j", ([key0, key1, counter0, counter1], want) => {
    expect(threefry2x32(key0, key1, counter0, counter1)).toEqual(want);
  });

  it("element i is word i & 1 of the block with counter (0, offset + (i >> 1))", async () => {
    expect((await bits(2, 0, 0, 0)).map((word) => word >>> 0)).toEqual([0x6b200159, 0x99ba4efe]);
    const got = await bits(7, 5, 6, 40);
    const want = [40, 41, 42, 43].flatMap((counter) => threefry2x32(5, 6, 0, counter)).slice(0, 7);
    expect(got.map((word) => word >>> 0)).toEqual(want);
  });

  it("uniform numbers are the top 24 bits; normal numbers come from them by Box–Muller", async () => {
    const [uniform, normal] = [await draw("uniform", 8, 3), await draw("normal", 8, 3)];
    const words = (await bits(8, 1, 2, 3)).map((word) => word >>> 0);
    expect(uniform).toEqual(words.map((word) => Math.floor(word / 256) / 2 ** 24));
    for (let at = 0; at < 8; at += 2) {
      const radius = Math.sqrt(-2 * Math.log(uniform[at] + 2 ** -24));
      expectNear(normal[at], radius * Math.cos(2 * Math.PI * uniform[at + 1]), 1e-14);
      expectNear(normal[at + 1], radius * Math.sin(2 * Math.PI * uniform[at + 1]), 1e-14);
    }
  });

  it("the moments are those of the uniform and the normal distribution", async () => {
    const count = 40_000;
    const moment = (x: readonly number[], power: number): number =>
      x.reduce((sum, value) => sum + value ** power, 0) / count;
    const uniform = await draw("uniform", count);
    // Five standard errors each.
    expect(Math.abs(moment(uniform, 1) - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / count));
    expect(Math.abs(moment(uniform, 2) - 1 / 3)).toBeLessThan(5 * Math.sqrt(4 / 45 / count));
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    const normal = await draw("normal", count);
    expect(Math.abs(moment(normal, 1))).toBeLessThan(5 * Math.sqrt(1 / count));
    expect(Math.abs(moment(normal, 2) - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
    expect(Math.abs(moment(normal, 4) - 3)).toBeLessThan(5 * Math.sqrt(96 / count));
  });
});
