/**
 * Prints a hash of the outputs of every kernel's cases on the cpu, a line of JSON per kernel: the child process of `wide-vectors.test.ts`. Arguments: the width of the vectors,
 * the number of threads, and the kernels (all).
 */
import { createHash } from "node:crypto";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { type KernelName, kernelNames } from "#dist/backends/kernels/index.js";
import { cases } from "./cases.ts";
import { bytesOf, runCase } from "./harness.ts";

const [bits, threads, ...chosen] = process.argv.slice(2);
const backend = await createCpuBackend({ threads: Number(threads), vectorBits: bits === "256" ? 256 : 128 });

/** Views start at an element that is a multiple of 8 (32 bytes), at one that is a multiple of 4 only, and at one that is neither. */
const MARGINS = [0, 4, 3];

async function hashes(kernel: KernelName): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const [at, c] of cases[kernel]().entries()) {
    if (c.family === "webgpu") continue;
    for (const margin of MARGINS) {
      const hash = createHash("sha256");
      for (const data of await runCase(backend, kernel, c, margin))
        if (data !== null) hash.update(bytesOf(data));
      found[`${at}: ${c.name}, views at element ${margin}`] = hash.digest("base64");
    }
  }
  return found;
}

for (const kernel of kernelNames)
  if (chosen.length === 0 || chosen.includes(kernel))
    process.stdout.write(`${JSON.stringify({ kernel, found: await hashes(kernel) })}\n`);
await backend.dispose();
