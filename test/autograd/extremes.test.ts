/**
 * Values and gradients at the edges. Reductions with infinities: the elements that attain the result share the gradient. Functions of one and two
 * operands at 0, where a power or a logarithm is infinite; at the ends of `clip`; on the branch that `where` does not take.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  clip,
  erf,
  gelu,
  grad,
  linear,
  logSumExp,
  max,
  matmul,
  maximum,
  min,
  mul,
  ones,
  pow,
  sigmoid,
  silu,
  softplus,
  sum,
  tanh,
  tensor,
  type Tensor,
  where,
} from "gradmix";
import type { Backend } from "#dist/backends/backend.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";

const INF = Infinity;

describe.each(backends)("on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(() => backend.dispose());

  const both = async (fn: (x: Tensor) => Tensor, x: Tensor): Promise<[number[], number[]]> => [
    [...(await fn(x).data())],
    [...(await grad((t) => sum(fn(t)))(x)[0].data())],
  ];

  it.each([
    { rows: [[-INF, -INF]], value: -INF, slopes: [0.5, 0.5] },
    { rows: [[1, INF]], value: INF, slopes: [0, 1] },
    { rows: [[INF, INF]], value: INF, slopes: [0.5, 0.5] },
    { rows: [[-INF, INF]], value: INF, slopes: [0, 1] },
    { rows: [[-INF, 3]], value: 3, slopes: [0, 1] },
    { rows: [[3e38, -3e38]], value: Math.fround(3e38), slopes: [1, 0] },
  ])("logSumExp of $rows", async ({ rows, value, slopes }) => {
    expect(await both((x) => logSumExp(x, 1), tensor(rows))).toEqual([[value], slopes]);
  });

  it.each([
    [0, 3],
    [3, 0],
    [0, 0],
  ])("products with %i inputs and %i outputs have gradients", async (inputs, outputs) => {
    const x = ones([2, 4, inputs]);
    const gradientsOf = (f: (x: Tensor, w: Tensor) => Tensor, w: Tensor): Tensor[] =>
      grad((a: Tensor, b: Tensor) => sum(f(a, b)))(x, w);
    const forms: [(x: Tensor, w: Tensor) => Tensor, Tensor][] = [
      [linear, ones([outputs, inputs])],
      [matmul, ones([inputs, outputs])],
    ];
    for (const [f, w] of forms) {
      expect([...(await f(x, w).data())]).toEqual(new Array(8 * outputs).fill(0));
      const [dx, dw] = gradientsOf(f, w);
      expect([dx.shape, dw.shape]).toEqual([x.shape, w.shape]);
      expect([...(await dx.data()), ...(await dw.data())]).toEqual(new Array(8 * inputs).fill(0));
    }
  });

  it("logSumExp keeps NaN", async () => {
    const [[value]] = await both((x) => logSumExp(x, 0), tensor([1, NaN]));
    expect(value).toBe(NaN);
  });

  it("pow has the same slopes as PyTorch: at a base or exponent of 0, and for negative bases", async () => {
    // base, exponent, power, slope by the base, slope by the exponent
    const rows: readonly (readonly [number, number, number, number, number])[] = [
      [0, 0, 1, 0, 0],
      [0, 1, 0, 1, 0],
      [0, 2, 0, 0, 0],
      [0, 0.5, 0, INF, 0],
      [0, -1, INF, -INF, -INF],
      [2, 0, 1, 0, Math.log(2)],
      [NaN, 0, 1, 0, NaN],
      [1, NaN, 1, NaN, 0],
      [-2, 3, -8, 12, NaN],
      [-2, 2, 4, -4, NaN],
      [-2, 0, 1, 0, NaN],
      [-2, -1, -0.5, -0.25, NaN],
      [-2, 0.5, NaN, NaN, NaN],
      [INF, 0, 1, 0, INF],
      [INF, 1, INF, 1, INF],
    ];
    const [a, b] = [0, 1].map((n) => tensor(rows.map((row) => row[n])));
    const near = (got: ArrayLike<number>, column: number): void =>
      rows.forEach((row, n) => {
        const want = row[column];
        const close =
          Object.is(got[n], want) || got[n] === want || Math.abs(got[n] - want) <= 2e-6 * Math.abs(want);
        expect(close, `${row[0]} ** ${row[1]}: ${got[n]}, not ${want} (column ${column})`).toBe(true);
      });
    near(await pow(a, b).data(), 2);
    const [byBase, byExponent] = grad((x, y) => sum(pow(x, y)))(a, b);
    near(await byBase.data(), 3);
    near(await byExponent.data(), 4);
    // Seconds: b·(b − 1)·a^(b−2) of a² at 0, and of a³.
    const [twice] = grad((x) => sum(grad((t) => sum(pow(t, tensor([2, 3]))))(x)[0]))(tensor([0, 2]));
    expect([...(await twice.data())].map((x) => Math.round(1e4 * x) / 1e4)).toEqual([2, 12]);
  });

  // Values, slopes and second derivatives at −far and at far.
  it.each<[string, (x: Tensor) => Tensor, limits: readonly [low: number, high: number]]>([
    ["sigmoid", sigmoid, [0, 0]],
    ["tanh", tanh, [0, 0]],
    ["silu", silu, [0, 1]],
    ["gelu", gelu, [0, 1]],
    ["exact gelu", (x) => gelu(x, { approximate: "none" }), [0, 1]],
    ["erf", erf, [0, 0]],
    ["softplus", softplus, [0, 1]],
  ])("far from 0, %s has a limit as its slope, and curvature 0", async (_, fn, [low, high]) => {
    const far = [1e3, 1e5, 2e19, 3e38, INF];
    const x = tensor([...far.map((size) => -size), ...far]);
    const slope = (t: Tensor): Tensor => grad((u) => sum(fn(u)))(t)[0];
    const want = (a: number, b: number): number[] => far.map(() => a).concat(far.map(() => b));
    // The cpu's gelu holds x at −10, where the slope is −3e-36.
    const least = fn === gelu ? 1e-35 : 0;
    const plain = async (t: Tensor): Promise<number[]> =>
      Array.from(await t.data(), (value) => (Math.abs(value) <= least ? 0 : value));
    expect(await plain(slope(x))).toEqual(want(low, high));
    expect(await plain(grad((t) => sum(slope(t)))(x)[0])).toEqual(want(0, 0));
  });

  it("clip has the slope 1 between and at its limits, and 0 beyond", async () => {
    const x = tensor([-INF, -2, -1, 0, 0.5, 0.75, INF]);
    expect(await both((t) => clip(t, -1, 0.5), x)).toEqual([
      [-1, -1, -1, 0, 0.5, 0.5, 0.5],
      [0, 0, 1, 1, 1, 0, 0],
    ]);
    expect(await both((t) => clip(t, -INF, 0.5), x)).toEqual([
      [-INF, -2, -1, 0, 0.5, 0.5, 0.5],
      [1, 1, 1, 1, 1, 0, 0],
    ]);
    expect((await both((t) => clip(t, -1, 1), tensor([NaN])))[0]).toEqual([NaN]);
    expect(() => clip(x, 1, -1)).toThrow(/^clip: min 1 must be at most max -1/);
    expect(() => clip(x, NaN, 1)).toThrow(/^clip: min NaN must be/);
  });

  it("where gives the branch that is not taken no gradient, even if it holds NaN", async () => {
    const condition = tensor([1, 0, 1, 0], [4], "i32");
    const a = tensor([1, NaN, 2, INF]);
    const b = tensor([-INF, 3, NaN, 4]);
    const weights = tensor([5, 6, 7, 8]);
    expect([...(await where(condition, a, b).data())]).toEqual([1, 3, 2, 4]);
    const [byA, byB] = grad((x, y) => sum(mul(where(condition, x, y), weights)))(a, b);
    expect([...(await byA.data())]).toEqual([5, 0, 7, 0]);
    expect([...(await byB.data())]).toEqual([0, 6, 0, 8]);
    // Broadcast: the sum over the places where it was taken.
    const [byOne] = grad((y) => sum(mul(where(condition, a, y), weights)))(tensor([9]));
    expect([...(await byOne.data())]).toEqual([14]);
    // A number for each, and integers.
    expect([...(await where(condition, 1, 0).data())]).toEqual([1, 0, 1, 0]);
    const ids = tensor([3, 4, 5, 16777217], [4], "i32");
    const masked = where(condition, -1, ids);
    expect([masked.dtype, ...(await masked.data())]).toEqual(["i32", -1, 4, -1, 16777217]);
    expect(() => where(condition, 0.5, ids)).toThrow(/^where: 0.5 is not an integer of 32 bits/);
  });

  it("max, min and maximum divide the slope among equal infinities", async () => {
    expect(await both((x) => max(x, 0), tensor([INF, 1, INF]))).toEqual([[INF], [0.5, 0, 0.5]]);
    expect(await both((x) => min(x, 0), tensor([INF, INF]))).toEqual([[INF], [0.5, 0.5]]);
    expect(await both((x) => max(x, 0), tensor([-INF, -INF]))).toEqual([[-INF], [0.5, 0.5]]);
    const b = tensor([INF, INF, -INF]);
    expect(await both((x) => maximum(x, b), tensor([INF, 1, -INF]))).toEqual([
      [INF, INF, -INF],
      [0.5, 0, 0.5],
    ]);
  });
});
