/** Values and gradients of reductions among infinities: the largest element decides, and what attains it shares the gradient. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { grad, logSumExp, max, maximum, min, sum, tensor, type Tensor } from "gradmix";
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

  it("logSumExp keeps NaN", async () => {
    const [[value]] = await both((x) => logSumExp(x, 0), tensor([1, NaN]));
    expect(value).toBe(NaN);
  });

  it("max, min and maximum among infinities", async () => {
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
