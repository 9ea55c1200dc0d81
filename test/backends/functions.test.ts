/** Elementary functions of the CPU backend over their whole range, in units in the last place of the exact value. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import type { UnaryKind } from "#dist/backends/kernels.js";

const COUNT = 20_001;

/** COUNT values from `low` to `high`; geometric when both are positive. */
function range(low: number, high: number): Float32Array {
  const at = (t: number): number => (low > 0 ? low * (high / low) ** t : low + (high - low) * t);
  return Float32Array.from({ length: COUNT }, (_, i) => at(i / (COUNT - 1)));
}

/** The spacing of f32 numbers at `x`; that of subnormal numbers below the least normal one. */
function ulp(x: number): number {
  return 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(x) || 2 ** -149)) - 23);
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const gelu = (x: number): number => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));

/** `floor`: below it (the value of a result near a zero or an underflow) errors are counted in its ulp. */
const functions: readonly {
  kind: UnaryKind;
  exact: (x: number) => number;
  low: number;
  high: number;
  ulps: number;
  floor?: number;
}[] = [
  { kind: "exp", exact: Math.exp, low: -87, high: 88.7, ulps: 2 },
  { kind: "exp", exact: Math.exp, low: -110, high: -86, ulps: 2 },
  { kind: "log", exact: Math.log, low: 1e-44, high: 3e38, ulps: 2 },
  { kind: "log", exact: Math.log, low: 0.5, high: 2, ulps: 2, floor: 2 ** -10 },
  { kind: "tanh", exact: Math.tanh, low: -12, high: 12, ulps: 3 },
  { kind: "tanh", exact: Math.tanh, low: 1e-30, high: 100, ulps: 3 },
  { kind: "sigmoid", exact: sigmoid, low: -85, high: 100, ulps: 4 },
  { kind: "silu", exact: (x) => x * sigmoid(x), low: -80, high: 100, ulps: 5 },
  { kind: "gelu", exact: gelu, low: -3, high: 100, ulps: 20 },
  { kind: "gelu", exact: gelu, low: -100, high: 0, ulps: 20, floor: 0.01 },
  { kind: "sin", exact: Math.sin, low: -1000, high: 1000, ulps: 1, floor: 2 ** -10 },
  { kind: "cos", exact: Math.cos, low: 1e-6, high: 1e6, ulps: 1, floor: 2 ** -10 },
];

describe.each(["relaxed", "plain"] as const)("%s SIMD", (simd) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await createCpuBackend({ threads: 1, simd });
  });
  afterAll(() => backend.dispose());

  it.each(functions)(
    "$kind from $low to $high within $ulps ulp",
    async ({ kind, exact, ulps, floor, ...ends }) => {
      const x = range(ends.low, ends.high);
      const buffer = backend.alloc(COUNT, "f32");
      const view = { buffer, offset: 0, shape: [COUNT], dtype: "f32" as const };
      backend.write(buffer, 0, x);
      backend.run("unary", { kind }, [view], [view]);
      const got = await backend.read(buffer, 0, COUNT);
      backend.free(buffer);
      let worst = 0;
      let where = 0;
      for (let i = 0; i < COUNT; i++) {
        const want = exact(x[i]);
        const error = Math.abs(got[i] - want) / ulp(Math.max(Math.abs(want), floor ?? 0));
        if (!(error <= worst)) [worst, where] = [error, x[i]];
      }
      expect(worst, `at ${where}`).toBeLessThanOrEqual(ulps);
    },
  );
});
