/** Every kernel of the table on every backend, against the double-precision reference. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { type KernelName, kernelNames, kernels } from "#dist/backends/kernels.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import type { TensorData } from "#dist/tensor/dtype.js";
import { kernelBackends } from "./all.ts";
import { cases } from "./cases.ts";
import { difference, runCase } from "./harness.ts";

/** Views start at an element that is a multiple of 4 (16 bytes) and at one that is not. */
const MARGINS = [0, 3];

const oracle = createReferenceBackend({ precision: "f64" });
const expected = new Map<KernelName, (TensorData | null)[][]>();

/** The oracle's outputs for the cases of a kernel, computed once for all backends. */
async function oracleOutputs(kernel: KernelName): Promise<(TensorData | null)[][]> {
  const known = expected.get(kernel);
  if (known !== undefined) return known;
  const computed: (TensorData | null)[][] = [];
  for (const c of cases[kernel]()) computed.push(await runCase(oracle, kernel, c, 0));
  expected.set(kernel, computed);
  return computed;
}

async function compare(backend: Backend, kernel: KernelName, inTurns: boolean): Promise<void> {
  const wanted = await oracleOutputs(kernel);
  const wrong: string[] = [];
  for (const [at, c] of cases[kernel]().entries())
    for (const margin of inTurns ? [MARGINS[at % MARGINS.length] ?? 0] : MARGINS) {
      const got = await runCase(backend, kernel, c, margin);
      const problem = difference(kernel, c, got, wanted[at]);
      if (problem !== null) wrong.push(`${problem}, views at element ${margin}`);
    }
  expect(wrong).toEqual([]);
}

it("every kernel of the table has cases", () => {
  expect(kernelNames).toEqual(Object.keys(kernels));
  expect(kernelNames.filter((kernel) => cases[kernel]().length === 0)).toEqual([]);
});

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

  it("ran every kernel of the table", () => {
    expect([...ran].sort()).toEqual([...kernelNames].sort());
  });
});
