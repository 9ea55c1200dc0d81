/**
 * 256-bit vectors give the bits of 128-bit ones, for every kernel of the table. Each width runs in a process of its own, since V8's pass stays on in the process that enabled it.
 * There the optimising compiler, to which the pass belongs, compiles each function at its first call (`--no-liftoff`), and not only once it has run for a while.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { missingVectors } from "#dist/backends/cpu/index.js";
import { kernelNames } from "#dist/backends/kernels/index.js";

const missing = missingVectors();

/** Runs bits.ts with these flags of V8, and returns what it printed. */
function bits(flags: readonly string[], width: 128 | 256, threads: number, ...kernels: string[]): string {
  const script = join(import.meta.dirname, "bits.ts");
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ["--no-liftoff", ...flags, script, String(width), String(threads), ...kernels],
    { encoding: "utf8", maxBuffer: 2 ** 28, timeout: 120_000 },
  );
  expect({ status, signal, stderr }).toMatchObject({ status: 0, signal: null });
  return stdout;
}

/** The hashes of the cases by kernel. */
function hashes(printed: string): Map<string, Record<string, string>> {
  const lines = printed
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line)) as {
    kernel: string;
    found: Record<string, string>;
  }[];
  return new Map(lines.map(({ kernel, found }) => [kernel, found]));
}

describe("256-bit vectors", () => {
  beforeEach(({ skip }) => {
    if (missing !== null) skip(`there are no 256-bit vectors: ${missing}`);
  });

  it("give the same bits as 128-bit ones, for every kernel and every number of threads", () => {
    const narrow = hashes(bits([], 128, 1));
    const wide = hashes(bits([], 256, 3));
    expect([...narrow.keys()]).toEqual(kernelNames);
    expect([...wide.keys()]).toEqual(kernelNames);
    const different: string[] = [];
    for (const [kernel, found] of narrow) {
      const others = wide.get(kernel) ?? {};
      expect(Object.keys(others)).toEqual(Object.keys(found));
      expect(Object.keys(found).length).toBeGreaterThan(0);
      for (const [name, hash] of Object.entries(found))
        if (others[name] !== hash) different.push(`${kernel}, ${name}`);
    }
    expect(different).toEqual([]);
  });

  it("are made by V8's pass: it packs instructions of a product", () => {
    const trace = "--trace-wasm-revectorize";
    expect(bits([trace], 256, 1, "gemm")).toMatch(/^Revec: .*PackNode .*F32x4Qfma/m);
    expect(bits([trace], 128, 1, "gemm")).not.toMatch(/^Revec: /m);
  });
});
