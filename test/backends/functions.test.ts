/**
 * Elementary functions against doubles: those of the CPU backend in units in the last place, and every kind and its slope on every backend at random f32
 * bit patterns.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { kernels, type UnaryKind, unaryKinds } from "#dist/backends/kernels/index.js";
import { kernelBackends } from "./all.ts";

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
const softplus = (x: number): number => (x > 40 ? x : Math.log1p(Math.exp(x)));
/** Gauss–Legendre quadrature of five nodes: on panels of ⅛ its error is below that of doubles. */
const NODES: readonly (readonly [place: number, weight: number])[] = [-1, -1, 0, 1, 1].map((side, n) => {
  const place = side === 0 ? 0 : (side / 3) * Math.sqrt(5 + (n % 4 === 0 ? 2 : -2) * Math.sqrt(10 / 7));
  const weight = side === 0 ? 128 / 225 : (322 + (n % 4 === 0 ? -13 : 13) * Math.sqrt(70)) / 900;
  return [place, weight];
});
/** The integral of its definition. */
function erf(x: number): number {
  const size = Math.min(Math.abs(x), 6.5);
  const panels = Math.max(1, Math.ceil(8 * size));
  const half = size / panels / 2;
  let sum = 0;
  for (let panel = 0; panel < panels; panel++)
    for (const [place, weight] of NODES) sum += weight * Math.exp(-(((2 * panel + 1 + place) * half) ** 2));
  return (Math.sign(x) * 2 * half * sum) / Math.sqrt(Math.PI);
}
const normalShare = (x: number): number => 0.5 * (1 + erf(x * Math.SQRT1_2));
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
  { kind: "erf", exact: (x) => erf(x), low: -5, high: 5, ulps: 4 },
  { kind: "erf", exact: (x) => erf(x), low: 1e-30, high: 20, ulps: 4 },
  { kind: "geluErf", exact: (x) => x * normalShare(x), low: -1, high: 20, ulps: 6 },
  { kind: "softplus", exact: softplus, low: -86, high: 100, ulps: 4 },
  { kind: "log1p", exact: Math.log1p, low: 1e-44, high: 3e38, ulps: 4 },
  { kind: "log1p", exact: Math.log1p, low: -1, high: 1, ulps: 4 },
  { kind: "expm1", exact: Math.expm1, low: 1e-44, high: 88.7, ulps: 5 },
  { kind: "expm1", exact: Math.expm1, low: -20, high: 2, ulps: 5 },
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
      backend.run("unary", { kind }, { x: view }, { y: view });
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

/** Far out, where x·Φ(x) by 1 + erf would have no digit left: by mpmath, to 30 digits. */
const TAIL: readonly (readonly [x: number, gelu: number])[] = [
  [-0.5, -0.15426876936299344],
  [-1, -0.15865525393145705],
  [-1.5, -0.1002108019032871],
  [-2, -0.045500263896358417],
  [-3, -0.0040496940948902835],
  [-5, -1.4332578593959695e-6],
  [-8, -4.9767684594174271e-15],
  [-10, -7.6198530241605263e-23],
  [-12.5, -4.6657053735971418e-35],
];

it.each(["relaxed", "plain"] as const)(
  "GELU by erf is precise for very negative numbers, %s SIMD",
  async (simd) => {
    const backend = await createCpuBackend({ threads: 1, simd });
    const buffer = backend.alloc(TAIL.length, "f32");
    const view = { buffer, offset: 0, shape: [TAIL.length], dtype: "f32" as const };
    backend.write(
      buffer,
      0,
      TAIL.map(([x]) => x),
    );
    backend.run("unary", { kind: "geluErf" }, { x: view }, { y: view });
    const got = await backend.read(buffer, 0, TAIL.length);
    await backend.dispose();
    for (const [n, [x, want]] of TAIL.entries())
      expect(Math.abs(got[n] - want) / ulp(want), `at ${x}`).toBeLessThanOrEqual(16);
  },
);

const logistic = (x: number): number => {
  const e = Math.exp(-Math.abs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
};
const [ROOT, CUBIC] = [Math.sqrt(2 / Math.PI), 0.044715];
/** x·share(x) and its slope, whose limits at ±∞ are those of max(x, 0). */
const gated = (share: (x: number) => number, inner: (x: number) => number): [Exact, Exact] => [
  (x) => (x === -Infinity ? 0 : x * share(x)),
  (x) => (Math.abs(x) > 1e6 ? Number(x > 0) : share(x) + x * share(x) * share(-x) * inner(x)),
];
type Exact = (x: number) => number;
const exactly: { readonly [K in UnaryKind]: readonly [value: Exact, slope: Exact] } = {
  neg: [(x) => -x, () => -1],
  exp: [Math.exp, Math.exp],
  log: [Math.log, (x) => 1 / x],
  sqrt: [Math.sqrt, (x) => 0.5 / Math.sqrt(x)],
  rsqrt: [(x) => 1 / Math.sqrt(x), (x) => -0.5 / (x * Math.sqrt(x))],
  square: [(x) => x * x, (x) => 2 * x],
  reciprocal: [(x) => 1 / x, (x) => -1 / (x * x)],
  abs: [Math.abs, Math.sign],
  tanh: [Math.tanh, (x) => Math.cosh(x) ** -2],
  sigmoid: [logistic, (x) => logistic(x) * logistic(-x)],
  relu: [(x) => Math.max(x, 0), (x) => (x > 0 ? 1 : 0)],
  silu: gated(logistic, () => 1),
  gelu: gated(
    (x) => logistic(2 * ROOT * (x + CUBIC * x ** 3)),
    (x) => 2 * ROOT * (1 + 3 * CUBIC * x * x),
  ),
  sin: [Math.sin, Math.cos],
  cos: [Math.cos, (x) => -Math.sin(x)],
  erf: [erf, (x) => (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x)],
  geluErf: [
    // Below −10 it is under 1e-22, less than what 1 + erf gets wrong.
    (x) => (x < -10 ? 0 : x * normalShare(x)),
    (x) => normalShare(x) + (Math.abs(x) > 1e6 ? 0 : (x * Math.exp(-x * x * 0.5)) / Math.sqrt(2 * Math.PI)),
  ],
  softplus: [softplus, logistic],
  log1p: [Math.log1p, (x) => 1 / (1 + x)],
  expm1: [Math.expm1, Math.exp],
};

/** Random bit patterns, every exponent with its ends, both signs, and places where kinds change. */
function patterns(): Float32Array {
  const bits: number[] = [];
  for (let exponent = 0; exponent < 256; exponent++)
    for (const sign of [0, 0x80000000])
      for (const mantissa of [0, 1, 0x7fffff, 0x490fdb, ...Array.from({ length: 12 }, () => -1)]) {
        const n = bits.length;
        const random = (Math.imul(n ^ (n >>> 7), 0x9e3779b1) ^ Math.imul(n + 1, 0x85ebca6b)) >>> 9;
        bits.push((sign | (exponent << 23) | (mantissa < 0 ? random : mantissa)) >>> 0);
      }
  const named = [1e5, -1e5, 1e20, -1e20, 1e30, -1e13, 1e13, 88, -88, 88.7, -103, 16, -16, 1000, 1048576];
  const turns = Array.from({ length: 400 }, (_, n) => (n * 7919 * Math.PI) / 2);
  return Float32Array.of(...new Float32Array(Uint32Array.from(bits).buffer), ...named, ...turns);
}

const MOST = 3.4028234663852886e38;
const LEAST = 2 ** -126;

describe.each(kernelBackends)("logSoftmax over all of f32, $name", ({ name, create }) => {
  it("any value beside any other in rows of three", async () => {
    const backend = await create();
    const all = patterns().filter((v) => !name.startsWith("webgpu") || v === 0 || !(Math.abs(v) < LEAST));
    // Beside it one of the same size and one of any size.
    const x = Float32Array.from({ length: 3 * all.length }, (_, at) => {
      const [n, place] = [Math.floor(at / 3), at % 3];
      return place === 0 ? all[n] : place === 1 ? all[n] * 0.9 + 1 : all[(n * 7919 + 5) % all.length];
    });
    const [from, to] = [x, x].map((data) => {
      const buffer = backend.alloc(data.length, "f32");
      backend.write(buffer, 0, data);
      return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
    });
    backend.run("logSoftmax", { rows: all.length, cols: 3 }, { x: from }, { y: to });
    const got = await backend.read(to.buffer, 0, x.length);
    await backend.dispose();
    const { rtol, atol } = kernels.logSoftmax.tolerance;
    const wrong: string[] = [];
    for (let start = 0; start < x.length; start += 3) {
      const row = Array.from(x.subarray(start, start + 3));
      const top = Math.max(...row);
      const log = Math.log(row.reduce((sum, v) => sum + Math.exp(v - top), 0));
      for (const [j, v] of row.entries()) {
        const want = Math.fround(v - top - log);
        const close = Math.abs(got[start + j] - want) <= atol + rtol * Math.abs(want);
        if (!close && !Object.is(got[start + j], want))
          wrong.push(`${row.join()}: ${got[start + j]}, not ${want}`);
      }
    }
    expect(wrong.slice(0, 8)).toEqual([]);
  });
});

/** C's pow, where JavaScript's has NaN. */
const powOf = (x: number, y: number): number =>
  x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : x ** y;
const EXPONENTS = [
  ...[0, -0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1 / 3, 2.5, 7, 10, -10, 31, 63.5, 127, 1e-3, -1e-3, 1e-20],
  ...[16777215, 16777216, -16777217, 1e6 + 1, 1e9, 1e20, -1e30, 3e38, Infinity, -Infinity, NaN],
];

describe.each(kernelBackends)("pow over all of f32, $name", ({ name, create }) => {
  it("any base with any exponent", async () => {
    const backend = await create();
    const gpu = name.startsWith("webgpu");
    const near = Array.from({ length: 200 }, (_, n) => 1 + (n - 100) * (n % 2 === 0 ? 2 ** -23 : 2 ** -12));
    const bases = [...patterns(), ...near, -1, -0.5, -2, -3].filter(
      (x) => !gpu || x === 0 || !(Math.abs(x) < LEAST),
    );
    const place = (data: readonly number[]) => {
      const buffer = backend.alloc(data.length, "f32");
      backend.write(buffer, 0, data);
      return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
    };
    const [a, c] = [place(bases), place(bases)];
    const { rtol, atol } = kernels.binary.tolerance;
    const wrong: string[] = [];
    for (const exponent of EXPONENTS) {
      const y = Math.fround(exponent);
      const b = place([y]);
      const params = { kind: "pow", shape: [bases.length], aStrides: [1], bStrides: [0] } as const;
      backend.run("binary", params, { a, b }, { c });
      const got = await backend.read(c.buffer, 0, bases.length);
      backend.free(b.buffer);
      bases.forEach((base, i) => {
        const want = powOf(Math.fround(base), y);
        // A GPU may return 0 for these.
        if (gpu && Math.abs(y) < LEAST) return;
        const overflows = Math.abs(want) >= MOST * (1 - rtol) && got[i] === Math.sign(want) * Infinity;
        const close = Math.abs(got[i] - want) <= atol + rtol * Math.abs(want);
        const same = Object.is(got[i], Math.fround(want)) || got[i] === Math.fround(want);
        if (!close && !same && !overflows) wrong.push(`${base} ** ${y} = ${got[i]}, not ${want}`);
      });
    }
    await backend.dispose();
    expect(wrong.slice(0, 12)).toEqual([]);
  });
});

describe.each(kernelBackends)("every kind over all of f32, $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend.dispose());

  it.each(unaryKinds)("%s and its slope", async (kind) => {
    // A GPU may take what is below the normal numbers for 0.
    const x = patterns().filter((v) => !name.startsWith("webgpu") || v === 0 || !(Math.abs(v) < LEAST));
    const place = (data: Float32Array) => {
      const buffer = backend.alloc(data.length, "f32");
      backend.write(buffer, 0, data);
      return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
    };
    const [at, ones, y, slope] = [x, x.map(() => 1), x, x].map(place);
    backend.run("unary", { kind }, { x: at }, { y });
    backend.run("unaryVjp", { kind }, { x: at, dy: ones }, { dx: slope });
    for (const [n, kernel] of (["unary", "unaryVjp"] as const).entries()) {
      const got = await backend.read([y, slope][n].buffer, 0, x.length);
      const { rtol, atol } = kernels[kernel].tolerance;
      const wrong: string[] = [];
      x.forEach((v, i) => {
        const want = Number.isNaN(v) && kind !== "neg" ? NaN : exactly[kind][n](v);
        // Beyond the largest number, or next to it, it may be infinite.
        const overflows = Math.abs(want) >= MOST * (1 - rtol) && got[i] === Math.sign(want) * Infinity;
        const near = Math.abs(got[i] - want) <= atol + rtol * Math.abs(want);
        const both = (Number.isNaN(want) && Number.isNaN(got[i])) || got[i] === Math.fround(want);
        if (!near && !both && !overflows) wrong.push(`${kernel} ${kind}(${v}) = ${got[i]}, not ${want}`);
      });
      expect(wrong.slice(0, 8)).toEqual([]);
    }
    for (const { buffer } of [at, ones, y, slope]) backend.free(buffer);
  });
});
