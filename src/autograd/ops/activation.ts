/** Elementwise functions of one tensor, and SwiGLU. */
import { run } from "../../backends/backend.ts";
import { type UnaryKind, unaryKinds } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, oneOf, type OptionChecks } from "../../options.ts";
import { formatShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise, keepsRows } from "../batch.ts";
import { allocate, apply1, linearIn, type None, none, type Op, type Spec, specOf, wantType } from "../op.ts";
import { wantLike, wantTensor } from "../checks.ts";
import { add, affine, clip, maximum, mul, sign } from "./arithmetic.ts";
import { slice } from "./shape.ts";

/** [x, t] → kind′(x) ⊙ t: the vjp and the jvp of an elementwise function. */
function slopeTimes(kind: UnaryKind, x: Tensor, t: Tensor): Tensor<"f32"> {
  return apply1(unaryVjpOp, [x, t], { kind });
}

const checkKind = oneOf(...unaryKinds);

export const unaryVjpOp: Op<{ kind: UnaryKind }, "x t", "y"> = {
  name: "unaryVjp",
  keepsBatch: keepsElementwise,
  infer([x, t], { kind }) {
    checkKind("unaryVjp: kind", kind);
    wantType("unaryVjp", "x", x, "f32");
    wantLike("unaryVjp", "t", t, x);
    return [specOf(x)];
  },
  forward([x, t], attrs, [spec]) {
    const dx = allocate(spec, x);
    run("unaryVjp", attrs, { x, dy: t }, { dx });
    return { outputs: [dx] };
  },
  compose([x, t], { kind }) {
    return [mul(slopes[kind](x), t)];
  },
};

function unaryOp(kind: UnaryKind): Op<None, "x", "y", "x"> {
  return {
    name: kind,
    keepsBatch: keepsElementwise,
    infer([x]) {
      wantType(kind, "x", x, "f32");
      return [specOf(x)];
    },
    forward([x], _, [spec]) {
      const y = allocate(spec, x);
      run("unary", { kind }, { x }, { y });
      return { outputs: [y], saved: [x] };
    },
    vjp([ct], { saved: [x] }) {
      return [ct === null ? null : slopeTimes(kind, x, ct)];
    },
    jvp([tangent], { inputs: [x] }) {
      return [tangent === null ? null : slopeTimes(kind, x, tangent)];
    },
  };
}

export const unaryOps: { readonly [K in UnaryKind]: Op<None, "x", "y", "x"> } = {
  neg: unaryOp("neg"),
  exp: unaryOp("exp"),
  log: unaryOp("log"),
  sqrt: unaryOp("sqrt"),
  rsqrt: unaryOp("rsqrt"),
  square: unaryOp("square"),
  reciprocal: unaryOp("reciprocal"),
  abs: unaryOp("abs"),
  tanh: unaryOp("tanh"),
  sigmoid: unaryOp("sigmoid"),
  relu: unaryOp("relu"),
  silu: unaryOp("silu"),
  gelu: unaryOp("gelu"),
  sin: unaryOp("sin"),
  cos: unaryOp("cos"),
  erf: unaryOp("erf"),
  geluErf: unaryOp("geluErf"),
  softplus: unaryOp("softplus"),
  log1p: unaryOp("log1p"),
  expm1: unaryOp("expm1"),
};

const unary =
  (kind: UnaryKind): ((x: Tensor) => Tensor<"f32">) =>
  (x) =>
    apply1(unaryOps[kind], [x], none);

/** −x, elementwise. */
export const neg: (x: Tensor) => Tensor<"f32"> = unary("neg");
/** eˣ, elementwise. */
export const exp: (x: Tensor) => Tensor<"f32"> = unary("exp");
/** The natural logarithm, elementwise, of x > 0. */
export const log: (x: Tensor) => Tensor<"f32"> = unary("log");
/** The square root, elementwise, of x ≥ 0. */
export const sqrt: (x: Tensor) => Tensor<"f32"> = unary("sqrt");
/** 1/√x, elementwise, for x > 0. */
export const rsqrt: (x: Tensor) => Tensor<"f32"> = unary("rsqrt");
/** x², elementwise. */
export const square: (x: Tensor) => Tensor<"f32"> = unary("square");
/** 1/x, elementwise. */
export const reciprocal: (x: Tensor) => Tensor<"f32"> = unary("reciprocal");
/** |x|, elementwise; the slope at 0 is 0. */
export const abs: (x: Tensor) => Tensor<"f32"> = unary("abs");
/** The hyperbolic tangent, elementwise. */
export const tanh: (x: Tensor) => Tensor<"f32"> = unary("tanh");
/** The logistic function 1 / (1 + e⁻ˣ), elementwise. */
export const sigmoid: (x: Tensor) => Tensor<"f32"> = unary("sigmoid");
/** max(x, 0), elementwise; the slope at 0 is 0. */
export const relu: (x: Tensor) => Tensor<"f32"> = unary("relu");
/** x·sigmoid(x), elementwise. */
export const silu: (x: Tensor) => Tensor<"f32"> = unary("silu");
/** The sine of x radians, elementwise. */
export const sin: (x: Tensor) => Tensor<"f32"> = unary("sin");
/** The cosine of x radians, elementwise. */
export const cos: (x: Tensor) => Tensor<"f32"> = unary("cos");
/** The error function 2/√π·∫₀ˣ e^{−t²} dt, elementwise. */
export const erf: (x: Tensor) => Tensor<"f32"> = unary("erf");
/** log(1 + eˣ), elementwise, without overflow: max(x, 0) + log1p(e^{−|x|}). Its slope is the sigmoid. */
export const softplus: (x: Tensor) => Tensor<"f32"> = unary("softplus");
/** log(1 + x), elementwise, with full accuracy near 0; −∞ at −1 and NaN below. */
export const log1p: (x: Tensor) => Tensor<"f32"> = unary("log1p");
/** eˣ − 1, elementwise, with full accuracy near 0. */
export const expm1: (x: Tensor) => Tensor<"f32"> = unary("expm1");

/** Options of `gelu`. */
export interface GeluOptions {
  /** "tanh" is GPT-2's approximation; "none" is exact, x·Φ(x) with the normal distribution's Φ. Default "tanh". */
  readonly approximate?: "none" | "tanh";
}

const geluOptions: OptionChecks<GeluOptions> = { approximate: oneOf("none", "tanh") };

/**
 * GELU (Hendrycks & Gimpel 2016), elementwise. By default, and in `linear`, it is GPT-2's approximation ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))),
 * PyTorch's `approximate="tanh"`. With `approximate: "none"`, the default of PyTorch, it is exactly x·Φ(x). They differ by up to 5e-4. Throws `shape`
 * unless x is f32, and `config` for other options.
 */
export function gelu(x: Tensor, options: GeluOptions = {}): Tensor<"f32"> {
  wantTensor("gelu", "x", x);
  wantType("gelu", "x", x, "f32");
  checkOptions("gelu", options, geluOptions);
  return apply1(options.approximate === "none" ? unaryOps.geluErf : unaryOps.gelu, [x], none);
}

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

/** x held where a derivative has long reached its limit, in doubles too: squares and cubes of a larger x, and x itself if infinite, would give 0·∞. */
const near = (x: Tensor, most: number): Tensor => clip(x, -most, most);

/** The derivatives made of ops, for derivatives of derivatives. */
const slopes: { readonly [K in UnaryKind]: (x: Tensor) => Tensor } = {
  neg: (x) => affine(x, 0, -1),
  exp,
  log: reciprocal,
  sqrt: (x) => affine(rsqrt(x), 0.5, 0),
  rsqrt: (x) => affine(mul(reciprocal(x), rsqrt(x)), -0.5, 0),
  square: (x) => affine(x, 2, 0),
  reciprocal: (x) => affine(square(reciprocal(x)), -1, 0),
  abs: sign,
  tanh: (x) => affine(square(tanh(x)), -1, 1),
  sigmoid: (x) => mul(sigmoid(x), sigmoid(neg(x))),
  relu: (x) => maximum(sign(x), 0),
  // σ + x·σ·(1 − σ)
  silu: (given) => {
    const x = near(given, 800);
    return add(sigmoid(x), mul(x, mul(sigmoid(x), sigmoid(neg(x)))));
  },
  // ½(1 + t) + ½x(1 − t²)·s(1 + 3c·x²), with t = tanh(s(x + c·x³))
  gelu: (given) => {
    const x = near(given, 40);
    const squared = square(x);
    const t = tanh(affine(mul(x, affine(squared, GELU_CUBIC, 1)), GELU_SCALE, 0));
    const inner = affine(squared, 3 * GELU_CUBIC * GELU_SCALE, GELU_SCALE);
    const outer = mul(affine(x, 0.5, 0), affine(square(t), -1, 1));
    return add(affine(t, 0.5, 0.5), mul(outer, inner));
  },
  sin: cos,
  cos: (x) => neg(sin(x)),
  erf: (x) => affine(exp(neg(square(near(x, 40)))), 2 / Math.sqrt(Math.PI), 0),
  // Φ(x) + x·φ(x)
  geluErf: (given) => {
    const x = near(given, 40);
    const density = affine(exp(affine(square(x), -0.5, 0)), 1 / Math.sqrt(2 * Math.PI), 0);
    return add(affine(erf(affine(x, Math.SQRT1_2, 0)), 0.5, 0.5), mul(x, density));
  },
  softplus: sigmoid,
  log1p: (x) => reciprocal(affine(x, 1, 1)),
  expm1: exp,
};

const widthOf = (x: Spec): number => (x.shape.at(-1) ?? 0) / 2;
const swigluParams = (x: Spec): { rows: number; width: number } => ({
  rows: sizeOf(x.shape.slice(0, -1)),
  width: widthOf(x),
});

function swigluSpec(name: string, x: Spec): Spec {
  wantType(name, "x", x, "f32");
  if (x.shape.length === 0 || !Number.isInteger(widthOf(x)))
    throw new GradmixError(
      "shape",
      `${name}: the last axis of ${formatShape(x.shape)} does not split in two`,
    );
  return { shape: [...x.shape.slice(0, -1), widthOf(x)], dtype: "f32" };
}

export const swigluOp: Op<None, "x", "y", "x"> = {
  name: "swiglu",
  keepsBatch: keepsRows,
  infer([x]) {
    return [swigluSpec("swiglu", x)];
  },
  forward([x], _, [spec]) {
    const y = allocate(spec, x);
    run("swiglu", swigluParams(x), { x }, { y });
    return { outputs: [y], saved: [x] };
  },
  vjp([ct], { saved: [x] }) {
    return [ct === null ? null : apply1(swigluVjpOp, [x, ct], none)];
  },
  jvp([tangent], { inputs: [x] }) {
    return [tangent === null ? null : apply1(swigluJvpOp, [x, tangent], none)];
  },
  compose([x]) {
    const [gate, up] = halves(x);
    return [mul(silu(gate), up)];
  },
};

function halves(x: Tensor): [Tensor, Tensor] {
  const width = widthOf(x);
  const lead = x.shape.slice(0, -1);
  const zeros = lead.map(() => 0);
  return [slice(x, [...zeros, 0], [...lead, width]), slice(x, [...zeros, width], [...lead, width])];
}

/** Maps [x, ct] to the cotangent of x; linear in ct, with `swigluJvp` as its transpose. */
export const swigluVjpOp: Op<None, "x ct", "y", "x"> = {
  name: "swigluVjp",
  keepsBatch: keepsRows,
  infer([x, ct]) {
    wantLike("swigluVjp", "the cotangent", ct, swigluSpec("swigluVjp", x));
    return [specOf(x)];
  },
  forward([x, ct], _, [spec]) {
    const dx = allocate(spec, x);
    run("swigluVjp", swigluParams(x), { x, dy: ct }, { dx });
    return { outputs: [dx], saved: [x] };
  },
  ...linearIn(
    "swigluVjp",
    1,
    (constants, ct) => apply1(swigluVjpOp, [...constants, ct], none),
    (constants, ct) => apply1(swigluJvpOp, [...constants, ct], none),
  ),
};

/** Maps [x, tangent of x] to the tangent of y. */
export const swigluJvpOp: Op<None, "x tangent", "y", "x"> = {
  name: "swigluJvp",
  keepsBatch: keepsRows,
  infer([x, tangent]) {
    wantLike("swigluJvp", "the tangent", tangent, x);
    return [swigluSpec("swigluJvp", x)];
  },
  forward([x, tangent], _, [spec]) {
    const dy = allocate(spec, x);
    run("swigluJvp", swigluParams(x), { x, dx: tangent }, { dy });
    return { outputs: [dy], saved: [x] };
  },
  ...linearIn(
    "swigluJvp",
    1,
    (constants, t) => apply1(swigluJvpOp, [...constants, t], none),
    (constants, ct) => apply1(swigluVjpOp, [...constants, ct], none),
  ),
};

/** silu(x[…, :h]) ⊙ x[…, h:] (Shazeer 2020): x [batch, …, 2h] → [batch, …, h]. */
export function swiglu(x: Tensor): Tensor<"f32"> {
  return apply1(swigluOp, [x], none);
}
