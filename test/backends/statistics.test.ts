/**
 * Statistics on every backend, in cases where a sum in single precision would lose digits: long sums of small numbers and a large one, and sums that
 * cancel.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { STATISTICS } from "#dist/backends/kernels/index.js";
import { kernelBackends } from "./all.ts";
import { evaluate, f, i, out, values } from "./harness.ts";

const COUNT = 16_000;
const noise = values(COUNT, 7);
const vectors: readonly { name: string; x: Float32Array; y: Float32Array }[] = [
  {
    name: "one large, many small",
    x: Float32Array.from({ length: COUNT }, (_, n) => (n === 0 ? 3e4 : 1)),
    y: Float32Array.from({ length: COUNT }, (_, n) => (n === 0 ? 3e4 : 1 + noise[n] / 8)),
  },
  {
    name: "a large one in the middle of each thousand",
    x: Float32Array.from({ length: COUNT }, (_, n) => (n % 1000 === 500 ? 1e4 : 0.3)),
    y: Float32Array.from({ length: COUNT }, (_, n) => (n % 1000 === 500 ? 1e4 : 0.7)),
  },
  {
    name: "large terms that cancel",
    x: Float32Array.from({ length: COUNT }, (_, n) => 1000 + noise[n]),
    y: Float32Array.from({ length: COUNT }, (_, n) => (n % 2 === 0 ? 1000 : -1000) + noise[COUNT - 1 - n]),
  },
  { name: "random", x: Float32Array.from(noise), y: Float32Array.from(values(COUNT, 8)) },
];

const sumOf = (x: Float32Array, y: Float32Array): number => {
  let [sum, lost] = [0, 0];
  x.forEach((v, n) => {
    const term = v * y[n];
    const next = sum + term;
    lost += Math.abs(sum) >= Math.abs(term) ? sum - next + term : term - next + sum;
    sum = next;
  });
  return sum + lost;
};

describe.each(kernelBackends)("$name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend.dispose());

  // Barriers are slow on a CPU.
  it.each(name.includes("workgroup") ? vectors.slice(0, 1) : vectors)("$name", async ({ x, y }) => {
    const [xx, yy, xy] = [sumOf(x, x), sumOf(y, y), sumOf(x, y)];
    const size = Math.sqrt(xx * yy);
    const near = (what: string, got: number | undefined, want: number, scale: number): void => {
      const error = Math.abs((got ?? NaN) - want) / scale;
      expect({ what, error: error <= STATISTICS ? "small" : error }).toEqual({ what, error: "small" });
    };
    const [[dot], [square]] = [
      await evaluate(backend, "dot", {}, { x, y }, { out: 1 }),
      await evaluate(backend, "sumSquares", {}, { x }, { out: 1 }),
    ].map(([found]) => found);
    near("dot", dot, xy, size);
    near("sumSquares", square, xx, xx);

    const rows = { rows: 1, width: COUNT };
    const [dots, squares] = await evaluate(backend, "alignRows", rows, { g: x, v: y }, { dots: 1, sumsq: 1 });
    near("alignRows dots", dots[0], xy, size);
    near("alignRows sumsq", squares[0], xx, xx);

    // As rows of a table, each of another id, in two segments of one group.
    const width = 100;
    const count = COUNT / width;
    const order = Int32Array.from({ length: count }, (_, r) => r);
    const [along, norms, group] = await evaluate(
      backend,
      "embeddingAlign",
      { rows: count, width, tableRows: count, segmentCount: 2, groupCount: 1 },
      { dy: x, ids: i(order), segments: i([0, 0, count]), groups: i([0, 2]), v: y },
      { dots: 2, sumsq: 2, groupSumsq: 1 },
    );
    near("embeddingAlign dots", along[1], xy, size);
    near("embeddingAlign sumsq", norms[1], xx, xx);
    near("embeddingAlign groupSumsq", group[0], xx, xx);

    // A gradient that is x itself: one row, whose other factor is 1.
    const [, wDots, wNorms, , vNorm] = await evaluate(
      backend,
      "gemmSegmented",
      {
        ...{ rows: 1, m: 1, n: COUNT, segmentCount: 1, groupCount: 0 },
        ...{ targetSegments: 0, firstAccumulated: 0, accumulate: false },
      },
      { a: f([1]), b: x, segments: i([0, 1]), v: y },
      { dots: out(1), sumsq: out(1), vSumsq: out(1) },
    );
    near("gemmSegmented dots", wDots[0], xy, size);
    near("gemmSegmented sumsq", wNorms[0], xx, xx);
    near("gemmSegmented vSumsq", vNorm[0], yy, yy);
  });
});
