/** Elementwise kernels. */
import type { Activation, BinaryKind, CompareKind, KernelParams, UnaryKind } from "../../kernels/index.ts";
import { sizeOf, stridesOf } from "../../../tensor/shape.ts";
import { elementwise as each, f32, type Launchers, operandsOf, stridedIndex, u32 } from "../context.ts";

/** f(x) and f′(x) as WGSL expressions of x. The slope at a kink is 0; NaN stays NaN. */
const unary: { readonly [K in UnaryKind]: readonly [value: string, slope: string] } = {
  neg: ["-x", "-1.0"],
  exp: ["exp_precise(x)", "exp_precise(x)"],
  // Drivers differ outside of the domain; the table requires IEEE 754.
  log: ["log_ieee(x)", "1.0 / x"],
  sqrt: ["sqrt_ieee(x)", "0.5 / sqrt_ieee(x)"],
  // The slope uses reciprocals, because powers of x would overflow, or be flushed to 0, at some x where the slope is a normal number.
  rsqrt: ["1.0 / sqrt_ieee(x)", "rsqrt_slope(x)"],
  square: ["x * x", "2.0 * x"],
  reciprocal: ["1.0 / x", "-(1.0 / x) * (1.0 / x)"],
  abs: ["abs(x)", "sign_of(x)"],
  tanh: ["tanh_safe(x)", "1.0 - tanh_safe(x) * tanh_safe(x)"],
  sigmoid: ["sigmoid(x)", "sigmoid(x) * sigmoid(-x)"],
  relu: ["keep_nan(x, max(x, 0.0))", "keep_nan(x, select(0.0, 1.0, x > 0.0))"],
  silu: ["silu(x)", "silu_slope(x)"],
  gelu: ["gelu(x)", "gelu_slope(x)"],
  sin: ["sin_precise(x)", "cos_precise(x)"],
  cos: ["cos_precise(x)", "-sin_precise(x)"],
  erf: ["erf(x)", "1.1283791670955126 * bell(x, 1.0)"],
  geluErf: ["gelu_erf(x)", "gelu_erf_slope(x)"],
  softplus: ["keep_nan(x, max(x, 0.0)) + log1p(exp_precise(-abs(x)))", "sigmoid(x)"],
  log1p: ["log1p(x)", "1.0 / (1.0 + x)"],
  expm1: ["expm1(x)", "exp_precise(x)"],
};

/**
 * Precise sin and cos, since WGSL guarantees them only to 2⁻¹¹. They subtract multiples of π/2 in three parts (Cody and Waite), which is good to single precision
 * for |x| up to some thousands. Beyond 1,000 they multiply by the significant bits of 2/π (Payne & Hanek 1983, in the form of ARM's optimized routines). Then they
 * use the polynomials of S. Moshier's Cephes library (sinf.c).
 */
export const PRECISE: string = `
// 32 × 32 bits: the lower and the upper word.
fn long_product(a: u32, b: u32) -> vec2u {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
  return vec2u(a * b, (a >> 16u) * (b >> 16u) + (mid >> 16u) + (cross >> 16u));
}
// Quarter turns of |x| ≥ 2, and what is left of an angle in −π/4 … π/4, as bits.
fn far_turns(x: f32) -> vec2u {
  var words = array<u32, 24>(
    0x000000a2u, 0x0000a2f9u, 0x00a2f983u, 0xa2f9836eu, 0xf9836e4eu, 0x836e4e44u, 0x6e4e4415u, 0x4e441529u,
    0x441529fcu, 0x1529fc27u, 0x29fc2757u, 0xfc2757d1u, 0x2757d1f5u, 0x57d1f534u, 0xd1f534ddu, 0xf534ddc0u,
    0x34ddc0dbu, 0xddc0db62u, 0xc0db6295u, 0xdb629599u, 0x6295993cu, 0x95993c43u, 0x993c4390u, 0x3c439041u);
  let bits = bitcast<u32>(x) & 0x7fffffffu;
  let at = (bits >> 26u) & 15u;
  let mantissa = ((bits & 0xffffffu) | 0x800000u) << ((bits >> 23u) & 7u);
  let middle = long_product(mantissa, words[at + 4u]);
  let low = middle.x + long_product(mantissa, words[at + 8u]).y;
  let high = middle.y + mantissa * words[at] + select(0u, 1u, low < middle.x);
  // The upper two bits are quarter turns; the rest is a fraction of one, above or below.
  let quarters = (high + 0x20000000u) >> 30u;
  let rest = bitcast<i32>(high - (quarters << 30u));
  let angle = (f32(rest) + f32(low) * 2.3283064365386963e-10) * 1.462918079267160e-9;
  return vec2u(quarters, bitcast<u32>(angle));
}
fn quarter_turns(x: f32, shift: i32) -> f32 {
  if (is_nan(x) || abs(x) == inf()) { return nan(); }
  var k = round(x * 0.6366197723675814);
  var r = ((x - k * 1.5703125) - k * 4.837512969970703e-4) - k * 7.549789954891882e-8;
  if (abs(x) >= 1000.0) {
    let far = far_turns(x);
    r = select(bitcast<f32>(far.y), -bitcast<f32>(far.y), x < 0.0);
    k = select(f32(far.x), -f32(far.x), x < 0.0);
  }
  let z = r * r;
  let s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  let turn = (i32(k) + shift) & 3;
  let value = select(s, c, (turn & 1) == 1);
  return select(value, -value, turn >= 2);
}
// (log(1 + f) − f + f²/2)/f² for 1 + f from √½ to √2.
fn log_rest(f: f32) -> f32 {
  var y = 7.0376836292e-2;
  y = y * f - 1.1514610310e-1;
  y = y * f + 1.1676998740e-1;
  y = y * f - 1.2420140846e-1;
  y = y * f + 1.4249322787e-1;
  y = y * f - 1.6668057665e-1;
  y = y * f + 2.0000714765e-1;
  y = y * f - 2.4999993993e-1;
  return f * (y * f + 3.3333331174e-1);
}
fn log_near(f: f32) -> f32 { return f + f * f * (log_rest(f) - 0.5); }
// The same for log, whose absolute error WGSL bounds by 2⁻²¹ around 1 (logf.c).
fn log_precise(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  var e = f32(i32(bits >> 23u) - 126);
  var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f000000u);
  if (m < 0.7071067811865476) { e -= 1.0; m += m; }
  let f = m - 1.0;
  let z = f * f;
  return f + ((log_rest(f) * z - 2.12194440e-4 * e) - 0.5 * z) + 0.693359375 * e;
}
fn sin_precise(x: f32) -> f32 { return quarter_turns(x, 0); }
fn cos_precise(x: f32) -> f32 { return quarter_turns(x, 1); }
`;

/** The driver's exp, which is precise enough for small results, except that NaN stays NaN. */
export const EXP_NAN: string = "fn exp_nan(x: f32) -> f32 { return select(exp(x), x, is_nan(x)); }";

/** Functions that the expressions use. tanh is implemented here, since that of some drivers overflows. */
export const MATH: string = `
${PRECISE}
// (e^r − 1 − r)/r², |r| ≤ ½·ln 2.
fn exp_rest(r: f32) -> f32 {
  var p = 1.9875691500e-4;
  p = p * r + 1.3981999507e-3;
  p = p * r + 8.3334519073e-3;
  p = p * r + 4.1665795894e-2;
  p = p * r + 1.6666665459e-1;
  return p * r + 5.0000001201e-1;
}
// WGSL lets the error of exp grow with x (expf.c). Scaled in two steps, so that the ends are right.
fn exp_precise(x: f32) -> f32 {
  let y = clamp(x, -104.0, 89.0);
  let k = round(y * 1.4426950408889634);
  let r = (y - k * 0.693359375) + k * 2.12194440e-4;
  let p = exp_rest(r) * r * r + (r + 1.0);
  let half = i32(k) / 2;
  let rest = i32(k) - half;
  return keep_nan(x, p * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((rest + 127) << 23u));
}
fn keep_nan(x: f32, y: f32) -> f32 { return select(y, x, is_nan(x)); }
fn sign_of(x: f32) -> f32 { return keep_nan(x, sign(x)); }
fn log_ieee(x: f32) -> f32 {
  if (is_nan(x) || x < 0.0) { return nan(); }
  if (x == 0.0) { return -inf(); }
  // Numbers below the normal ones, and ∞, are left to the driver.
  if (x < 1.1754944e-38 || x == inf()) { return log(x); }
  return log_precise(x);
}
fn sqrt_ieee(x: f32) -> f32 {
  if (is_nan(x) || x < 0.0) { return nan(); }
  return sqrt(x);
}
fn tanh_safe(x: f32) -> f32 {
  let t = exp(-2.0 * abs(x));
  // Near 0 the quotient cancels; the series does not.
  let small = x * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0 - x * x * (17.0 / 315.0))));
  return keep_nan(x, select(sign(x) * (1.0 - t) / (1.0 + t), small, abs(x) < 0.1));
}
fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return keep_nan(x, select(e / (1.0 + e), 1.0 / (1.0 + e), x >= 0.0));
}
fn rsqrt_slope(x: f32) -> f32 {
  let r = 1.0 / sqrt_ieee(x);
  return (-0.5 * r) * (r * r);
}
// Where a function or its slope has long been at its limit, x is held: its powers would make ∞·0.
fn held(x: f32, least: f32, most: f32) -> f32 { return keep_nan(x, clamp(x, least, most)); }
fn silu(x: f32) -> f32 { return held(x, -1e30, inf()) * sigmoid(x); }
fn silu_slope(x: f32) -> f32 {
  let s = sigmoid(x);
  return s * (1.0 + held(x, -100.0, 100.0) * (1.0 - s));
}
fn gelu(wide: f32) -> f32 {
  let x = held(wide, -16.0, inf());
  let y = min(x, 16.0);
  return 0.5 * x * (1.0 + tanh_safe(0.7978845608028654 * (y + 0.044715 * y * y * y)));
}
fn gelu_slope(wide: f32) -> f32 {
  let x = held(wide, -16.0, 16.0);
  let t = tanh_safe(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x);
}
fn log1p(x: f32) -> f32 {
  if (x > -0.29 && x < 0.41) { return log_near(x); }
  return log_ieee(1.0 + x);
}
fn expm1(x: f32) -> f32 {
  if (abs(x) < 0.34) { return x + x * x * exp_rest(x); }
  return exp_precise(x) - 1.0;
}
// e^{−scale·x²}: the leading 12 bits of x have an exact square.
fn bell(x: f32, scale: f32) -> f32 {
  let size = held(abs(x), 0.0, 16.0);
  let high = bitcast<f32>(bitcast<u32>(size) & 0xfffff000u);
  return exp_precise(-scale * (high * high)) * exp_precise(-scale * ((size - high) * (size + high)));
}
// erf z for 0 ≤ z ≤ 1, and e^{z²}·(1 − erf z) for z ≥ 1: fitted polynomials, with relative errors of 2e-9.
fn erf_near(z: f32) -> f32 {
  let s = z * z;
  var y = 7.853857823647559e-5;
  y = y * s - 8.010192541405559e-4;
  y = y * s + 5.188327748328447e-3;
  y = y * s - 2.6853810995817184e-2;
  y = y * s + 1.128358542919159e-1;
  y = y * s - 3.761262595653534e-1;
  return z * (y * s + 1.1283791065216064);
}
fn erf_tail(z: f32) -> f32 {
  let t = 1.0 / (z + 2.0);
  var y = -78.76156616210938;
  y = y * t + 127.5413818359375;
  y = y * t - 62.884578704833984;
  y = y * t + 3.108609914779663;
  y = y * t - 1.5969674587249756;
  y = y * t + 2.780158758163452;
  y = y * t + 2.816587209701538;
  y = y * t + 1.9747592210769653;
  y = y * t + 1.1283783912658691;
  return t * (y * t + 0.564189612865448);
}
fn erf(x: f32) -> f32 {
  let size = held(abs(x), 0.0, 16.0);
  if (size < 1.0) { return select(erf_near(size), -erf_near(size), x < 0.0); }
  let far = 1.0 - bell(size, 1.0) * erf_tail(size);
  return keep_nan(x, select(far, -far, x < 0.0));
}
// The normal distribution's share below x.
fn normal_share(x: f32) -> f32 {
  let z = 0.7071067811865476 * held(abs(x), 0.0, 16.0);
  if (z < 1.0) { return 0.5 + select(0.5, -0.5, x < 0.0) * erf_near(z); }
  let beyond = 0.5 * bell(x, 0.5) * erf_tail(z);
  return select(1.0 - beyond, beyond, x < 0.0);
}
fn gelu_erf(x: f32) -> f32 { return held(x, -16.0, inf()) * normal_share(x); }
fn gelu_erf_slope(wide: f32) -> f32 {
  let x = held(wide, -16.0, 16.0);
  return normal_share(x) + x * (0.3989422804014327 * bell(x, 0.5));
}
`;

const binary: { readonly [K in BinaryKind]: string } = {
  add: "x + y",
  sub: "x - y",
  mul: "x * y",
  div: "x / y",
  max: "keep_nan(x, keep_nan(y, max(x, y)))",
  min: "keep_nan(x, keep_nan(y, min(x, y)))",
  pow: "power(x, y)",
};

/**
 * powf, as in C: WGSL's pow takes no negative base, and loses digits as the exponent of the result grows. As in FreeBSD's e_powf.c (Sun Microsystems), the logarithm
 * of x is computed in two parts, of which the upper has so few bits that its product with the upper bits of y is exact.
 */
const POWER: string = `
fn head(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }
fn power_of(x: f32, y: f32) -> f32 {
  let small = x < 1.1754944e-38;
  var bits = bitcast<u32>(select(x, x * 16777216.0, small));
  var n = i32(bits >> 23u) - select(127, 151, small);
  // x = 2ⁿ·m, with m near 1 or near 1.5.
  let mantissa = bits & 0x7fffffu;
  bits = mantissa | 0x3f800000u;
  let middle = mantissa > 0x1cc471u && mantissa < 0x5db3d7u;
  if (mantissa >= 0x5db3d7u) { n += 1; bits -= 0x800000u; }
  let m = bitcast<f32>(bits);
  let near = select(1.0, 1.5, middle);
  let log_near = select(0.0, 5.84960938e-1, middle);
  // s = (m − near)/(m + near), log m/near = 2s + ⅔s³ + …
  let u = m - near;
  let v = 1.0 / (m + near);
  let s = u * v;
  let s_high = head(s);
  let sum_head = head(m + near);
  let s_low = v * ((u - s_high * sum_head) - s_high * (m - (sum_head - near)));
  let s2 = s * s;
  let r = s2 * s2 * (6.0000002384e-1 + s2 * (4.2857143283e-1 + s2 * (3.3333334327e-1 + s2 * (2.7272811532e-1
    + s2 * (2.3066075146e-1 + s2 * 2.0697501302e-1))))) + s_low * (s_high + s);
  let square = s_high * s_high;
  let t_high = head(3.0 + square + r);
  let t_low = r - ((t_high - 3.0) - square);
  let a = s_high * t_high;
  let b = s_low * t_high + t_low * s;
  // Times 2/(3·log 2).
  let c_high = head(a + b);
  let c_low = b - (c_high - a);
  let z_high = 9.6191406250e-1 * c_high;
  let z_low = -1.1736857402e-4 * c_high + c_low * 9.6179670095e-1 + select(0.0, 1.56322085e-6, middle);
  let whole = f32(n);
  let log_high = head(((z_high + z_low) + log_near) + whole);
  let log_low = z_low - (((log_high - whole) - log_near) - z_high);
  let y_high = head(y);
  let low = (y - y_high) * log_high + y * log_low;
  let high = y_high * log_high;
  if (high + low >= 128.5) { return inf(); }
  if (high + low <= -151.0) { return 0.0; }
  // 2^(high + low)
  let power = round(high + low);
  let rest = ((high - power) + low) * 0.6931471805599453;
  let half = i32(power) / 2;
  let other = i32(power) - half;
  let e = exp_rest(rest) * rest * rest + (rest + 1.0);
  return e * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((other + 127) << 23u);
}
fn power(x: f32, y: f32) -> f32 {
  if (y == 0.0 || x == 1.0) { return 1.0; }
  if (is_nan(x) || is_nan(y)) { return nan(); }
  let size = abs(x);
  if (abs(y) == inf()) {
    if (size == 1.0) { return 1.0; }
    return select(0.0, inf(), (size > 1.0) == (y > 0.0));
  }
  // From 2²⁴ on all numbers are even.
  let integer = floor(y) == y;
  let odd = integer && abs(y) < 16777216.0 && (i32(y) & 1) == 1;
  let turned = odd && (bitcast<u32>(x) >> 31u) == 1u;
  if (x < 0.0 && size != inf() && !integer) { return nan(); }
  var value = 0.0;
  if (size == 0.0 || size == inf()) { value = select(0.0, inf(), (size > 1.0) == (y > 0.0)); }
  else { value = power_of(size, y); }
  return select(value, -value, turned);
}
`;

/** Each comparison as an expression of integers that are in the order of the operands. */
const compare: { readonly [K in CompareKind]: string } = {
  equal: "x == y",
  notEqual: "x != y",
  less: "x < y",
  lessEqual: "x <= y",
  greater: "x > y",
  greaterEqual: "x >= y",
  and: "x != 0 && y != 0",
  or: "x != 0 || y != 0",
};

/** Returns the expressions with which a kernel of two operands finds the elements for `i`, with the declarations and the key of the constants that they contain. */
function walkTwo({
  shape,
  aStrides,
  bStrides,
}: Pick<KernelParams["binary"], "shape" | "aStrides" | "bStrides">): {
  readonly key: string;
  readonly declarations: string;
  readonly a: string;
  readonly b: string;
} {
  const packed = stridesOf(shape);
  const place = (strides: readonly number[]): string | null => {
    if (shape.every((extent, axis) => extent === 1 || strides[axis] === packed[axis])) return "i";
    return strides.every((stride) => stride === 0) ? "0u" : null;
  };
  const [a, b] = [place(aStrides), place(bStrides)];
  // One shader serves all shapes.
  if (a !== null && b !== null) return { key: `${a} ${b}`, declarations: "", a, b };
  return {
    key: `${shape.join()} ${aStrides.join()} ${bStrides.join()}`,
    declarations: `${stridedIndex("of_a", shape, aStrides)}\n${stridedIndex("of_b", shape, bStrides)}`,
    ...{ a: "of_a(i)", b: "of_b(i)" },
  };
}

/** Each activation of x as WGSL; it needs MATH. */
export const activated: { readonly [K in Activation]: string } = {
  none: "x",
  gelu: unary.gelu[0],
  relu: unary.relu[0],
  silu: unary.silu[0],
};

/** The slope of each activation at x as WGSL; it needs MATH. */
export const activationSlopes: { readonly [K in Activation]: string } = {
  none: "1.0",
  gelu: unary.gelu[1],
  relu: unary.relu[1],
  silu: unary.silu[1],
};

export const elementwise: Pick<
  Launchers,
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
  fill(context, { value }, _, { out: view }) {
    const out = view;
    const integer = out.dtype === "i32";
    const clamped = Number.isNaN(value) ? 0 : Math.min(2147483647, Math.max(-2147483648, Math.trunc(value)));
    each(context, sizeOf(out.shape), {
      key: `fill ${out.dtype}`,
      operands: operandsOf({}, { out }),
      scalars: { value: integer ? ["i32", clamped] : f32(value) },
      body: "  set_out(i, p.value);",
    });
  },
  stridedCopy(context, { shape, inStrides, inOffset, outStrides, outOffset }, { x }, { y }) {
    each(context, sizeOf(shape), {
      key: `stridedCopy ${x.dtype} ${shape.join()} ${inStrides.join()} ${outStrides.join()}`,
      operands: operandsOf({ x }, { y }),
      scalars: { read_at: u32(inOffset), write_at: u32(outOffset) },
      declarations: `${stridedIndex("source", shape, inStrides)}\n${stridedIndex("sink", shape, outStrides)}`,
      body: "  set_y(p.write_at + sink(i), x(p.read_at + source(i)));",
    });
  },
  unary(context, { kind }, { x }, { y }) {
    each(context, sizeOf(x.shape), {
      key: `unary ${kind}`,
      operands: operandsOf({ arg: x }, { y }),
      declarations: MATH,
      body: `  let x = arg(i);\n  set_y(i, ${unary[kind][0]});`,
    });
  },
  unaryVjp(context, { kind }, { x, dy }, { dx }) {
    each(context, sizeOf(x.shape), {
      key: `unaryVjp ${kind}`,
      operands: operandsOf({ arg: x, dy }, { dx }),
      declarations: MATH,
      body: `  let x = arg(i);\n  set_dx(i, (${unary[kind][1]}) * dy(i));`,
    });
  },
  binary(context, params, { a, b }, { c }) {
    const { kind, shape } = params;
    const way = walkTwo(params);
    each(context, sizeOf(shape), {
      key: `binary ${kind} ${way.key}`,
      operands: operandsOf({ a, b }, { c }),
      declarations: `${MATH}${kind === "pow" ? POWER : ""}\n${way.declarations}`,
      body: `  let x = a(${way.a});\n  let y = b(${way.b});\n  set_c(i, ${binary[kind]});`,
    });
  },
  compare(context, params, { a, b }, { c }) {
    const { kind, shape } = params;
    const way = walkTwo(params);
    const floats = a.dtype === "f32";
    each(context, sizeOf(shape), {
      key: `compare ${kind} ${floats ? "f32" : "i32"} ${way.key}`,
      operands: operandsOf({ a, b }, { c }),
      // In comparisons of floats, drivers may treat small numbers as 0, and NaN as anything. Comparisons of their bits are exact.
      declarations: `fn placed(x: f32) -> i32 {
  let bits = bitcast<i32>(x);
  return select(bits, -2147483647 - 1 - bits, bits < 0);
}
${way.declarations}`,
      body: floats
        ? `  let v = a(${way.a});
  let w = b(${way.b});
  let x = placed(v);
  let y = placed(w);
  set_c(i, select(0, 1, select(${compare[kind]}, ${kind === "notEqual"}, is_nan(v) || is_nan(w))));`
        : `  let x = a(${way.a});\n  let y = b(${way.b});\n  set_c(i, select(0, 1, ${compare[kind]}));`,
    });
  },
  affine(context, { scale, shift }, { x }, { y }) {
    each(context, sizeOf(x.shape), {
      key: "affine",
      operands: operandsOf({ x }, { y }),
      scalars: { scale: f32(scale), shift: f32(shift) },
      body: "  set_y(i, p.scale * x(i) + p.shift);",
    });
  },
  accumulate(context, { scale }, { x }, { y }) {
    each(context, sizeOf(x.shape), {
      key: "accumulate",
      operands: operandsOf({ x }, { y }),
      scalars: { scale: f32(scale) },
      body: "  set_y(i, y(i) + p.scale * x(i));",
    });
  },
  select(context, _, { condition, a, b }, { c }) {
    const { dtype } = c;
    each(context, sizeOf(condition.shape), {
      key: `select ${dtype}`,
      operands: operandsOf({ condition, a, b }, { c }),
      // The bits are selected, so that NaN is copied unchanged.
      body: `  set_c(i, bitcast<${dtype}>(select(bitcast<u32>(b(i)), bitcast<u32>(a(i)), condition(i) != 0)));`,
    });
  },
  cast(context, _, { x }, { y }) {
    const [from, to] = [x.dtype, y.dtype];
    each(context, sizeOf(x.shape), {
      key: `cast ${from} ${to}`,
      operands: operandsOf({ x }, { y }),
      body:
        from === to
          ? "  set_y(i, x(i));"
          : to === "f32"
            ? "  set_y(i, f32(x(i)));"
            : `  let v = x(i);
  if (is_nan(v)) { set_y(i, 0); }
  else if (v >= 2147483648.0) { set_y(i, 2147483647); }
  else if (v <= -2147483648.0) { set_y(i, -2147483647 - 1); }
  else { set_y(i, i32(trunc(v))); }`,
    });
  },
  swiglu(context, { rows, width }, { x }, { y }) {
    each(context, rows * width, {
      key: "swiglu",
      operands: operandsOf({ x }, { y }),
      scalars: { width: u32(width) },
      declarations: MATH,
      body: `  let at = (i / p.width) * 2u * p.width + i % p.width;
  let gate = x(at);
  set_y(i, silu(gate) * x(at + p.width));`,
    });
  },
  swigluVjp(context, { rows, width }, { x, dy }, { dx }) {
    each(context, rows * width, {
      key: "swigluVjp",
      operands: operandsOf({ x, dy }, { dx }),
      scalars: { width: u32(width) },
      declarations: MATH,
      body: `  let at = (i / p.width) * 2u * p.width + i % p.width;
  let gate = x(at);
  let up = x(at + p.width);
  let d = dy(i);
  set_dx(at, silu_slope(gate) * up * d);
  set_dx(at + p.width, silu(gate) * d);`,
    });
  },
  swigluJvp(context, { rows, width }, { x, dx }, { dy }) {
    each(context, rows * width, {
      key: "swigluJvp",
      operands: operandsOf({ x, dx }, { dy }),
      scalars: { width: u32(width) },
      declarations: MATH,
      body: `  let at = (i / p.width) * 2u * p.width + i % p.width;
  let gate = x(at);
  set_dy(i, silu_slope(gate) * x(at + p.width) * dx(at) + silu(gate) * dx(at + p.width));`,
    });
  },
};
