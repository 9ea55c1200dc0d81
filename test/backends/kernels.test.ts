/** Every kernel of the table on every backend, against the double-precision reference. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { type KernelName, kernelNames, kernels } from "#dist/backends/kernels/index.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import type { TensorData } from "#dist/tensor/dtype.js";
import { kernelBackends } from "./all.ts";
import { cases } from "./cases.ts";
import { block, unused } from "./cuts.ts";
import { naiveElement } from "./naive.ts";
import { type Case, difference, runCase } from "./harness.ts";

const CALLS = 2 * block("webgpu", "SLOTS") + 1;

const PLAIN = { accumulate: false, activation: "none" } as const;
/** The widest B that is packed whole at this k is one column narrower; A beside it is too large, or not, for several columns of tasks to share it. */
const columnsAt = (k: number): number => Math.floor(block("cpu", "GEMM_PACKED") / k);
const [DEEP, SHARED] = [60_000, block("cpu", "GEMM_SHARED")];
const LARGE = [
  { m: 5, n: columnsAt(1100) + 9, k: 1100, transA: false, transB: true },
  { m: 5, n: columnsAt(1100) + 9, k: 1100, transA: true, transB: false },
  { m: Math.ceil(SHARED / DEEP) + 1, n: columnsAt(DEEP) + 9, k: DEEP, transA: false, transB: false },
  { m: Math.ceil(SHARED / DEEP) + 1, n: 70, k: DEEP, transA: true, transB: true },
];

/** Views start at an element that is a multiple of 4 (16 bytes) and at one that is not. */
const MARGINS = [0, 3];

const oracle = createReferenceBackend({ precision: "f64" });
const expected = new Map<KernelName, (TensorData | null)[][]>();

const known: { [K in KernelName]?: Case<K>[] } = {};
/** The cases of a kernel, made once for all backends. */
function casesOf<K extends KernelName>(kernel: K): readonly Case<K>[] {
  const made: Case<K>[] = known[kernel] ?? cases[kernel]();
  Object.assign(known, { [kernel]: made });
  return made;
}

/** The oracle's outputs for the cases of a kernel, computed once for all backends. */
async function oracleOutputs(kernel: KernelName): Promise<(TensorData | null)[][]> {
  const known = expected.get(kernel);
  if (known !== undefined) return known;
  const computed: (TensorData | null)[][] = [];
  for (const c of casesOf(kernel))
    computed.push(c.expected === undefined ? await runCase(oracle, kernel, c, 0) : c.expected());
  expected.set(kernel, computed);
  return computed;
}

async function compare(backend: Backend, kernel: KernelName, inTurns: boolean): Promise<void> {
  const wanted = await oracleOutputs(kernel);
  const wrong: string[] = [];
  for (const [at, c] of casesOf(kernel).entries()) {
    if (c.family !== undefined && c.family !== backend.name) continue;
    for (const margin of inTurns ? [MARGINS[at % MARGINS.length] ?? 0] : MARGINS) {
      const got = await runCase(backend, kernel, c, margin);
      const problem = difference(kernel, c, got, wanted[at]);
      if (problem !== null) wrong.push(`${problem}, views at element ${margin}`);
    }
  }
  expect(wrong).toEqual([]);
}

it("every kernel of the table has test cases", () => {
  expect(kernelNames).toEqual(Object.keys(kernels));
  expect(kernelNames.filter((kernel) => casesOf(kernel).length === 0)).toEqual([]);
});

it("the cases cross every size of block, tile and share in the backends", () => {
  for (const kernel of kernelNames) casesOf(kernel);
  expect(unused()).toEqual([]);
});

/**
 * Products whose operands are cut because they are large: B packed in ranges of columns, A too large to be packed for all tasks at once. Elements are
 * compared at the cuts and at random places with plain loops in doubles.
 */
it.each(LARGE)(
  "cpu: a product of $m × $n × $k, transposed $transA $transB",
  async (extents) => {
    const p = { ...extents, batch: 1, strideA: 0, strideB: 0, strideC: 0, alpha: 0.5, ...PLAIN };
    const { m, n, k } = p;
    const data = (count: number, step: number): Float32Array => {
      const made = new Float32Array(count);
      for (let at = 0; at < count; at++) made[at] = ((Math.imul(at, step) >>> 8) % 2001) / 1000 - 1;
      return made;
    };
    const [a, b, bias] = [data(m * k, 0x9e3779b1), data(k * n, 0x85ebca6b), data(n, 0xc2b2ae35)];
    const backend = await createCpuBackend({ threads: 2, vectorBits: "auto" });
    try {
      const place = (x: Float32Array) => {
        const buffer = backend.alloc(x.length, "f32");
        backend.write(buffer, 0, x);
        return { buffer, offset: 0, shape: [x.length], dtype: "f32" as const };
      };
      const c = place(new Float32Array(m * n));
      backend.run("gemm", p, { a: place(a), b: place(b), bias: place(bias) }, { c });
      const found = await backend.read(c.buffer, 0, m * n);
      const pick = (size: number, at: number): number => (at < 24 ? Math.floor((at * size) / 24) : size - 1);
      for (let i = 0; i < 25; i++)
        for (let j = 0; j < 25; j++) {
          const [row, col] = [pick(m, i), pick(n, j)];
          const want = naiveElement(p, a, b, bias, 0, [0, row, col]);
          const error = Math.abs(found[row * n + col] - want);
          if (!(error <= 2e-6 * k ** 0.5 + 1e-5 * Math.abs(want)))
            expect({ row, col, found: found[row * n + col] }).toEqual({ row, col, found: want });
        }
    } finally {
      await backend.dispose();
    }
  },
  60_000,
);

describe.each(kernelBackends)("$name", ({ create, marginsInTurns }) => {
  let backend: Backend;
  const ran = new Set<KernelName>();
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(async () => {
    await backend.dispose();
  });

  // Software Vulkan takes its time for the large products.
  it.each(kernelNames)(
    "%s",
    async (kernel) => {
      await compare(backend, kernel, marginsInTurns?.has(kernel) === true);
      ran.add(kernel);
      expect(backend.liveBytes).toBe(0);
    },
    180_000,
  );

  it("more calls than the GPU accepts at a time", async () => {
    const [one, sum] = [backend.alloc(1, "f32"), backend.alloc(1, "f32")];
    const view = (buffer: number) => ({ buffer, offset: 0, shape: [1], dtype: "f32" as const });
    backend.write(one, 0, [1]);
    backend.write(sum, 0, [0]);
    // A shader that is known to compile: one that is new runs alone.
    backend.run("accumulate", { scale: 0 }, { x: view(one) }, { y: view(sum) });
    await backend.read(sum, 0, 1);
    for (let n = 0; n < CALLS; n++)
      backend.run("accumulate", { scale: n }, { x: view(one) }, { y: view(sum) });
    expect([...(await backend.read(sum, 0, 1))]).toEqual([(CALLS * (CALLS - 1)) / 2]);
    for (const buffer of [one, sum]) backend.free(buffer);
  });

  it("ran every kernel of the table", () => {
    expect([...ran].sort()).toEqual([...kernelNames].sort());
  });
});
