/** The CPU backend gives the same bits for any number of threads, for every kernel of the table. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { kernelNames } from "#dist/backends/kernels/index.js";
import type { TensorData } from "#dist/tensor/dtype.js";
import { cases } from "./cases.ts";
import { bytesOf, runCase } from "./harness.ts";

let backends: Backend[] = [];
beforeAll(async () => {
  backends = await Promise.all([1, 2, 5].map((threads) => createCpuBackend({ threads })));
});
afterAll(async () => {
  await Promise.all(backends.map((backend) => backend.dispose()));
});

const sameBits = (a: TensorData | null, b: TensorData | null): boolean =>
  a === null || b === null ? a === b : bytesOf(a).equals(bytesOf(b));

it.each(kernelNames)("%s", async (kernel) => {
  const different: string[] = [];
  for (const c of cases[kernel]()) {
    if (c.family === "webgpu") continue;
    const [one, ...others] = await Promise.all(backends.map((backend) => runCase(backend, kernel, c, 0)));
    for (const other of others) if (!other.every((data, o) => sameBits(data, one[o]))) different.push(c.name);
  }
  expect(different).toEqual([]);
});
