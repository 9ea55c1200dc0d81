/** Alignments row by row on the CPU: each way gives the result of plain loops, the choice follows from the zeros, and no zero hides an infinity of V. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend, startMachine } from "#dist/backends/cpu/index.js";
import { rowAlignments, type Way, wayOf } from "#dist/backends/cpu/kernels/row-alignments.js";
import type { CpuMachine } from "#dist/backends/cpu/runtime.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { type Case, difference, f, i, out, runCase, values } from "./harness.ts";

const WAYS: readonly Way[] = ["dense", "a", "b"];

let machines: CpuMachine[] = [];
beforeAll(async () => {
  const started = await Promise.all([
    startMachine({ threads: 1 }),
    startMachine({ threads: 1, simd: "plain" }),
    startMachine({ threads: 3 }),
  ]);
  machines = started.map(({ machine }) => machine);
});
afterAll(async () => {
  for (const machine of machines) machine.stop();
  await Promise.all(machines.flatMap(({ workers }) => workers.map((worker) => worker.stop())));
});

interface Problem {
  readonly rows: number;
  readonly m: number;
  readonly n: number;
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly v: readonly number[];
}

/** Puts the operands into memory and calls `use`. What follows a factor is not finite: no kernel may use it. */
function placed<T>(
  machine: CpuMachine,
  { rows, m, n, a, b, v }: Problem,
  use: (of: { a: number; b: number; m: number; n: number; rows: number }, v: number) => T,
): T {
  const put = (numbers: readonly number[]): number => {
    const at = machine.workspace(4 * (numbers.length + 40));
    machine
      .floats(at, numbers.length + 40)
      .fill(Infinity)
      .set(numbers);
    return at;
  };
  const [atA, atB, atV] = [put(a), put(b), put(v)];
  try {
    return use({ a: atA, b: atB, m, n, rows }, atV);
  } finally {
    machine.endRun();
  }
}

/** Each row's alignment. */
const aligned = (machine: CpuMachine, problem: Problem, way: Way): number[] =>
  placed(machine, problem, (of, v) => {
    const { at, columnBlocks } = rowAlignments(machine, of, v, way);
    const { rows } = problem;
    const words = machine.words(at, 2 * rows * columnBlocks);
    const partials = new Float64Array(words.slice().buffer);
    return Array.from({ length: rows }, (_, r) => {
      let sum = 0;
      for (let block = 0; block < columnBlocks; block++) sum += partials[block * rows + r];
      return sum;
    });
  });

/** The same by plain loops in doubles, and the sum of the products' sizes. */
function byLoops({ rows, m, n, a, b, v }: Problem): { sum: number; size: number }[] {
  return Array.from({ length: rows }, (_, r) => {
    let [sum, size] = [0, 0];
    for (let row = 0; row < m; row++)
      for (let column = 0; column < n; column++) {
        const term = a[r * m + row] * v[row * n + column] * b[r * n + column];
        sum += term;
        size += Math.abs(term);
      }
    return { sum, size };
  });
}

/** Zeros at random, in whole rows, in whole columns, in all places, in none. */
const patterns: readonly ((row: number, column: number, drawn: number) => boolean)[] = [
  () => false,
  () => true,
  (_row, _column, drawn) => drawn < 0.5,
  (_row, _column, drawn) => drawn < 0.95,
  (row) => row % 2 === 0,
  (_row, column) => column % 4 !== 3,
  (row, column) => (row + column) % 3 === 0,
];

function factor(rows: number, width: number, pattern: number, seed: number): number[] {
  const drawn = values(rows * width, seed + 1, 0, 1);
  return values(rows * width, seed).map((number, at) => {
    const zero = patterns[pattern]?.(Math.floor(at / width), at % width, drawn[at]) ?? false;
    // Both zeros are zeros.
    return zero ? (at % 5 === 0 ? -0 : 0) : number;
  });
}

interface Given {
  readonly rows: number;
  readonly m: number;
  readonly n: number;
  readonly turned: boolean;
  readonly patternA: number;
  readonly patternB: number;
}

const extents: fc.Arbitrary<Given> = fc.record({
  rows: fc.integer({ min: 0, max: 70 }),
  m: fc.integer({ min: 0, max: 300 }),
  n: fc.integer({ min: 0, max: 80 }),
  turned: fc.boolean(),
  patternA: fc.nat(patterns.length - 1),
  patternB: fc.nat(patterns.length - 1),
});

const problem = ({ rows, m, n, turned, patternA, patternB }: Given): Problem => {
  const [height, width] = turned ? [n, m] : [m, n];
  return {
    ...{ rows, m: height, n: width },
    a: factor(rows, height, patternA, 1),
    b: factor(rows, width, patternB, 3),
    v: values(height * width, 5),
  };
};

describe("rowAlignments", () => {
  it("equals plain loops for every method, with the same bits for any number of threads", () => {
    fc.assert(
      fc.property(extents, (given) => {
        const made = problem(given);
        const wanted = byLoops(made);
        for (const way of WAYS) {
          const [relaxed, plain, three] = machines.map((machine) => aligned(machine, made, way));
          expect(three).toEqual(relaxed);
          for (const found of [relaxed, plain])
            for (const [r, { sum, size }] of wanted.entries())
              expect(Math.abs(found[r] - sum), `${way}, row ${r}`).toBeLessThanOrEqual(2e-6 * size);
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe("wayOf", () => {
  const choice = (made: Problem): { way: Way; share: number } =>
    placed(machines[0], made, (of) => wayOf(machines[0], of));
  const shares = (a: number, b: number, [rows, m, n] = [60, 128, 96]): Problem => ({
    ...{ rows, m, n },
    a: values(rows * m, 1, 0, 1).map((u) => (u < a ? 0 : u)),
    b: values(rows * n, 2, 0, 1).map((u) => (u < b ? 0 : u)),
    v: [],
  });

  it("skips the zeros of the factor that has more of them, and skips none if both have few", () => {
    expect(choice(shares(0.5, 0)).way).toBe("a");
    expect(choice(shares(0, 0.5)).way).toBe("b");
    expect(choice(shares(0.5, 0.7)).way).toBe("b");
    expect(choice(shares(0, 0))).toEqual({ way: "dense", share: 1 });
    expect(choice(shares(0.05, 0.05)).way).toBe("dense");
  });

  it("has a lower cost for more zeros", () => {
    const costs = [0.3, 0.5, 0.7, 0.9, 1].map((zeros) => choice(shares(zeros, 0)).share);
    expect(costs).toEqual(costs.toSorted((x, y) => y - x));
    expect(new Set(costs).size).toBe(costs.length);
    expect(costs.every((cost) => cost > 0 && cost < 1)).toBe(true);
  });

  it("has about the same cost if the zeros fill whole rows", () => {
    // Every second, fourth or eighth row is zero, or all others are; compared with as many zeros at random places.
    for (const period of [2, 4, 8])
      for (const zero of [true, false]) {
        const made = shares(0, 0, [512, 64, 64]);
        const a = made.a.map((value, at) => ((Math.floor(at / 64) % period === 0) === zero ? 0 : value));
        const likewise = choice(shares(zero ? 1 / period : 1 - 1 / period, 0, [512, 64, 64]));
        expect(Math.abs(choice({ ...made, a }).share - likewise.share)).toBeLessThan(0.25);
      }
  });

  it("is dense if there is nothing to multiply", () => {
    for (const [rows, m, n] of [
      [0, 5, 5],
      [5, 0, 5],
      [5, 5, 0],
    ] as const)
      expect(choice(shares(1, 1, [rows, m, n]))).toEqual({ way: "dense", share: 1 });
  });
});

describe("gemmSegmented", () => {
  const reference = createReferenceBackend({ precision: "f64" });
  const backends: Backend[] = [];
  beforeAll(async () => {
    backends.push(...(await Promise.all([1, 3].map((threads) => createCpuBackend({ threads })))));
  });
  afterAll(async () => {
    await Promise.all([reference, ...backends].map((backend) => backend.dispose()));
  });

  const [rows, m, n] = [40, 64, 48];
  /** One row per segment; a has a zero in every other place, so that its zeros are skipped where V allows it. */
  const alternating = (v: readonly number[]): Case<"gemmSegmented"> => ({
    name: "every other place of a is 0",
    params: {
      ...{ rows, m, n, segmentCount: rows, groupCount: 0, targetSegments: 0 },
      ...{ firstAccumulated: 0, accumulate: false },
    },
    inputs: {
      a: f(values(rows * m, 1).map((value, at) => (at % 2 === 0 ? 0 : value))),
      b: f(values(rows * n, 2)),
      segments: i(Array.from({ length: rows + 1 }, (_, row) => row)),
      groups: null,
      v: f(v),
    },
    outputs: { total: null, dots: out(rows), sumsq: out(rows), groupSumsq: null, vSumsq: out(1) },
  });

  it.each([
    ["NaN beside a zero", NaN, 0],
    ["NaN beside what is not zero", NaN, 1],
    ["an infinity beside a zero", Infinity, 2],
    ["an infinity beside what is not zero", -Infinity, 3],
    // Its square is beyond f32, it is not.
    ["a number whose square overflows", 3e30, 5],
  ])("gives the same alignments as the reference where V has %s", async (_name, value, row) => {
    const v = values(m * n, 3);
    v[row * n + 7] = value;
    const c = alternating(v);
    const wanted = await runCase(reference, "gemmSegmented", c, 0);
    for (const backend of backends) {
      const got = await runCase(backend, "gemmSegmented", c, 0);
      const large = { ...c, scale: Number.isFinite(value) ? 1e3 : 1 };
      expect(difference("gemmSegmented", large, got, wanted)).toBeNull();
    }
    const dots = wanted[1] ?? [];
    // 0·∞ is NaN: the reference says so, and what is compared is not empty.
    if (!Number.isFinite(value)) expect(dots.some((dot) => !Number.isFinite(dot))).toBe(true);
    if (row === 2) expect(dots.every((dot) => Number.isNaN(dot))).toBe(true);
  });
});
