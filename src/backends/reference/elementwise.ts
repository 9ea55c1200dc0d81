/** Elementwise kernels: fill, strided copy, unary, binary, SwiGLU and their derivatives. */
import { GradmixError } from "../../errors.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Activation, BinaryKind, CompareKind, UnaryKind } from "../kernels/index.ts";
import type { Data, Kernels } from "./kernel.ts";

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
// At infinities the formulas would give ∞·0, so the limits of the functions are returned.
const silu = (x: number): number => (x === -Infinity ? 0 : x * sigmoid(x));
const siluSlope = (x: number): number =>
  Math.abs(x) === Infinity ? Number(x > 0) : sigmoid(x) * (1 + x * (1 - sigmoid(x)));

function gelu(x: number): number {
  if (x === -Infinity) return 0;
  return 0.5 * x * (1 + Math.tanh(GELU_SCALE * (x + GELU_CUBIC * x ** 3)));
}

function geluSlope(x: number): number {
  if (Math.abs(x) === Infinity) return Number(x > 0);
  const t = Math.tanh(GELU_SCALE * (x + GELU_CUBIC * x ** 3));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x);
}

/** (1 − erf x)·e^{x²} for x ≥ 2, by its continued fraction. */
function erfTail(x: number): number {
  let rest = x;
  for (let n = 80; n > 0; n--) rest = x + n / 2 / rest;
  return 1 / (Math.sqrt(Math.PI) * rest);
}

/** The error function: a series of positive terms, or `erfTail` where the series would be long. */
function erf(x: number): number {
  if (Math.abs(x) >= 2) return Math.sign(x) * (1 - Math.exp(-x * x) * erfTail(Math.abs(x)));
  let [sum, term] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The standard normal distribution: its distribution function, and its density. */
const normalShare = (x: number): number =>
  x < -3 ? 0.5 * Math.exp((-x * x) / 2) * erfTail(-x * Math.SQRT1_2) : 0.5 * (1 + erf(x * Math.SQRT1_2));
const normalDensity = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const geluErf = (x: number): number => (x === -Infinity ? 0 : x * normalShare(x));
const geluErfSlope = (x: number): number =>
  Math.abs(x) === Infinity ? Number(x > 0) : normalShare(x) + x * normalDensity(x);

/** Each kind with its derivative. Kinks (abs, relu at 0) have the slope 0; NaN stays NaN. */
const unary: {
  readonly [K in UnaryKind]: readonly [value: (x: number) => number, slope: (x: number) => number];
} = {
  neg: [(x) => -x, () => -1],
  exp: [Math.exp, Math.exp],
  log: [Math.log, (x) => 1 / x],
  sqrt: [Math.sqrt, (x) => 0.5 / Math.sqrt(x)],
  rsqrt: [(x) => 1 / Math.sqrt(x), (x) => -0.5 / (x * Math.sqrt(x))],
  square: [(x) => x * x, (x) => 2 * x],
  reciprocal: [(x) => 1 / x, (x) => -1 / (x * x)],
  abs: [Math.abs, Math.sign],
  tanh: [Math.tanh, (x) => 1 - Math.tanh(x) ** 2],
  sigmoid: [sigmoid, (x) => sigmoid(x) * sigmoid(-x)],
  relu: [(x) => Math.max(x, 0), (x) => (x > 0 ? 1 : Number.isNaN(x) ? x : 0)],
  silu: [silu, siluSlope],
  gelu: [gelu, geluSlope],
  sin: [Math.sin, Math.cos],
  cos: [Math.cos, (x) => -Math.sin(x)],
  erf: [erf, (x) => (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x)],
  geluErf: [geluErf, geluErfSlope],
  softplus: [(x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), sigmoid],
  log1p: [Math.log1p, (x) => 1 / (1 + x)],
  expm1: [Math.expm1, Math.exp],
};

const binary: { readonly [K in BinaryKind]: (a: number, b: number) => number } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  max: Math.max,
  min: Math.min,
  // As in C: JavaScript gives NaN for some powers of ±1 for which C gives 1.
  pow: (a, b) => (a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b),
};

const compare: { readonly [K in CompareKind]: (a: number, b: number) => boolean } = {
  equal: (a, b) => a === b,
  notEqual: (a, b) => a !== b,
  less: (a, b) => a < b,
  lessEqual: (a, b) => a <= b,
  greater: (a, b) => a > b,
  greaterEqual: (a, b) => a >= b,
  and: (a, b) => a !== 0 && b !== 0,
  or: (a, b) => a !== 0 || b !== 0,
};

export function activate(kind: Activation, x: number): number {
  return kind === "none" ? x : unary[kind][0](x);
}

export function activationSlope(kind: Activation, x: number): number {
  return kind === "none" ? 1 : unary[kind][1](x);
}

/** Σ index·strides for the index with row-major position `flat` in `shape`. */
function stridedOffset(flat: number, shape: readonly number[], strides: readonly number[]): number {
  let offset = 0;
  let rest = flat;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    offset += (rest % shape[axis]!) * strides[axis]!;
    rest = Math.floor(rest / shape[axis]!);
  }
  return offset;
}

/** Refuses addresses outside of an operand, which typed arrays would ignore silently. */
function inside(name: string, operand: string, index: number, data: Data): number {
  if (index < 0 || index >= data.length)
    throw new GradmixError(
      "shape",
      `${name}: "${operand}" is addressed at element ${index} of ${data.length}`,
    );
  return index;
}

/** Converts to i32: rounds towards zero; NaN becomes 0, and numbers out of range the nearest end (like WebAssembly's trunc_sat). */
function toInt32(x: number): number {
  if (Number.isNaN(x)) return 0;
  return Math.min(2147483647, Math.max(-2147483648, Math.trunc(x)));
}

export const elementwise: Kernels<
  | "fill"
  | "stridedCopy"
  | "unary"
  | "unaryVjp"
  | "binary"
  | "compare"
  | "affine"
  | "accumulate"
  | "select"
  | "cast"
  | "swiglu"
  | "swigluVjp"
  | "swigluJvp"
> = {
  fill: (p, _inputs, { out }) => {
    out.fill(out instanceof Int32Array ? toInt32(p.value) : p.value);
  },

  stridedCopy: (p, { x: input }, { y: out }) => {
    const size = sizeOf(p.shape);
    for (let i = 0; i < size; i++) {
      const from = p.inOffset + stridedOffset(i, p.shape, p.inStrides);
      const to = p.outOffset + stridedOffset(i, p.shape, p.outStrides);
      out[inside("stridedCopy", "out", to, out)] = input[inside("stridedCopy", "in", from, input)]!;
    }
  },

  unary: (p, { x }, { y }) => {
    const value = unary[p.kind][0];
    for (let i = 0; i < x.length; i++) y[i] = value(x[i]!);
  },

  unaryVjp: (p, { x, dy }, { dx }) => {
    const slope = unary[p.kind][1];
    for (let i = 0; i < x.length; i++) dx[i] = slope(x[i]!) * dy[i]!;
  },

  binary: (p, { a, b }, { c }) => {
    const apply = binary[p.kind];
    for (let i = 0; i < c.length; i++) {
      const ia = inside("binary", "a", stridedOffset(i, p.shape, p.aStrides), a);
      const ib = inside("binary", "b", stridedOffset(i, p.shape, p.bStrides), b);
      c[i] = apply(a[ia]!, b[ib]!);
    }
  },

  compare: (p, { a, b }, { c }) => {
    const holds = compare[p.kind];
    for (let i = 0; i < c.length; i++) {
      const ia = inside("compare", "a", stridedOffset(i, p.shape, p.aStrides), a);
      const ib = inside("compare", "b", stridedOffset(i, p.shape, p.bStrides), b);
      c[i] = holds(a[ia]!, b[ib]!) ? 1 : 0;
    }
  },

  affine: (p, { x }, { y }) => {
    for (let i = 0; i < x.length; i++) y[i] = p.scale * x[i]! + p.shift;
  },

  accumulate: (p, { x }, { y }) => {
    for (let i = 0; i < x.length; i++) y[i]! += p.scale * x[i]!;
  },

  select: (_, { condition, a, b }, { c }) => {
    for (let i = 0; i < c.length; i++) c[i] = condition[i] !== 0 ? a[i]! : b[i]!;
  },

  cast: (_, { x }, { y }) => {
    for (let i = 0; i < x.length; i++) y[i] = y instanceof Int32Array ? toInt32(x[i]!) : x[i]!;
  },

  swiglu: (p, { x }, { y }) => {
    for (let r = 0; r < p.rows; r++)
      for (let j = 0; j < p.width; j++) {
        const gate = 2 * r * p.width + j;
        y[r * p.width + j] = silu(x[gate]!) * x[gate + p.width]!;
      }
  },

  swigluVjp: (p, { x, dy }, { dx }) => {
    for (let r = 0; r < p.rows; r++)
      for (let j = 0; j < p.width; j++) {
        const gate = 2 * r * p.width + j;
        const up = gate + p.width;
        const d = dy[r * p.width + j]!;
        dx[gate] = siluSlope(x[gate]!) * x[up]! * d;
        dx[up] = silu(x[gate]!) * d;
      }
  },

  swigluJvp: (p, { x, dx }, { dy }) => {
    for (let r = 0; r < p.rows; r++)
      for (let j = 0; j < p.width; j++) {
        const gate = 2 * r * p.width + j;
        const up = gate + p.width;
        dy[r * p.width + j] = siluSlope(x[gate]!) * x[up]! * dx[gate]! + silu(x[gate]!) * dx[up]!;
      }
  },
};
