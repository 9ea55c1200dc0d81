// Elementary functions beyond math.ts, and the table's unary kinds with their slopes (f32x4).
import { exp2Near4, exp4, expClamped4, expm14, gated4, logistic4, tanh4 } from "./math";
import { constant, fma } from "./simd";

export { expClamped4, gated4, logistic4 } from "./math";

// ln(1 + m) − m + m²/2 for 1 + m in [√½, √2), a polynomial (Cephes logf); z = m².
// @ts-ignore: decorator
@inline function logPolynomial4(m: v128, z: v128): v128 {
  let y = f32x4.splat(7.0376836292e-2);
  y = fma(y, m, f32x4.splat(-1.1514610310e-1));
  y = fma(y, m, f32x4.splat(1.1676998740e-1));
  y = fma(y, m, f32x4.splat(-1.2420140846e-1));
  y = fma(y, m, f32x4.splat(1.4249322787e-1));
  y = fma(y, m, f32x4.splat(-1.6668057665e-1));
  y = fma(y, m, f32x4.splat(2.0000714765e-1));
  y = fma(y, m, f32x4.splat(-2.4999993993e-1));
  y = fma(y, m, f32x4.splat(3.3333331174e-1));
  return f32x4.mul(f32x4.mul(y, m), z);
}

// ln x, from its mantissa in [√½, √2). ln 0 = −∞, negative numbers give NaN, and subnormal numbers are exact.
export function log4(x: v128): v128 {
  const tiny = f32x4.lt(x, f32x4.splat(1.17549435e-38));
  const scaled = v128.bitselect(f32x4.mul(x, f32x4.splat(8388608)), x, tiny);
  const exponent = i32x4.shr_s(i32x4.sub(scaled, i32x4.splat(0x3f3504f3)), 23);
  const m = f32x4.sub(i32x4.sub(scaled, i32x4.shl(exponent, 23)), f32x4.splat(1));
  const e = f32x4.sub(f32x4.convert_i32x4_s(exponent), v128.and(tiny, f32x4.splat(23)));
  const z = f32x4.mul(m, m);
  let y = fma(e, f32x4.splat(-2.12194440e-4), logPolynomial4(m, z));
  y = fma(z, f32x4.splat(-0.5), y);
  y = fma(e, f32x4.splat(0.693359375), f32x4.add(m, y));
  // ∞ and NaN stay; 0 gives −∞ and negatives NaN.
  y = v128.bitselect(y, x, f32x4.lt(x, f32x4.splat(Infinity)));
  y = v128.bitselect(f32x4.splat(NaN), y, f32x4.lt(x, f32x4.splat(0)));
  return v128.bitselect(f32x4.splat(-Infinity), y, f32x4.eq(x, f32x4.splat(0)));
}

// ln(1 + x). Where 1 + x is in [√½, √2) it is the polynomial, so that no digit of a small x is lost.
function log1p4(x: v128): v128 {
  const z = f32x4.mul(x, x);
  const near = f32x4.add(x, fma(z, f32x4.splat(-0.5), logPolynomial4(x, z)));
  const isNear = v128.and(f32x4.gt(x, f32x4.splat(-0.29)), f32x4.lt(x, f32x4.splat(0.41)));
  return v128.bitselect(near, log4(f32x4.add(f32x4.splat(1), x)), isNear);
}

// e^{−scale·x²} for 0 ≤ x ≤ 16, of full relative accuracy: the leading 12 bits of x have an exact square.
// @ts-ignore: decorator
@inline function gauss4(x: v128, scale: f32): v128 {
  const high = v128.and(x, i32x4.splat(<i32>0xfffff000)), minus = f32x4.splat(-scale);
  const rest = f32x4.mul(f32x4.sub(x, high), f32x4.add(x, high));
  return f32x4.mul(exp4(f32x4.mul(f32x4.mul(high, high), minus)), exp4(f32x4.mul(rest, minus)));
}

// erf z for 0 ≤ z ≤ 1: z times a polynomial in z², fitted to a relative error of 1.2e-9.
// @ts-ignore: decorator
@inline function erfNear4(z: v128): v128 {
  const s = f32x4.mul(z, z);
  let y = f32x4.splat(7.853857823647559e-5);
  y = fma(y, s, f32x4.splat(-8.010192541405559e-4));
  y = fma(y, s, f32x4.splat(5.188327748328447e-3));
  y = fma(y, s, f32x4.splat(-2.6853810995817184e-2));
  y = fma(y, s, f32x4.splat(1.128358542919159e-1));
  y = fma(y, s, f32x4.splat(-3.761262595653534e-1));
  return f32x4.mul(z, fma(y, s, f32x4.splat(1.1283791065216064)));
}

// e^{z²}·(1 − erf z) for z ≥ 1: a polynomial in t = 1/(z + 2), fitted to a relative error of 2e-9.
// @ts-ignore: decorator
@inline function erfTail4(z: v128): v128 {
  const t = f32x4.div(f32x4.splat(1), f32x4.add(z, f32x4.splat(2)));
  let y = f32x4.splat(-78.76156616210938);
  y = fma(y, t, f32x4.splat(127.5413818359375));
  y = fma(y, t, f32x4.splat(-62.884578704833984));
  y = fma(y, t, f32x4.splat(3.108609914779663));
  y = fma(y, t, f32x4.splat(-1.5969674587249756));
  y = fma(y, t, f32x4.splat(2.780158758163452));
  y = fma(y, t, f32x4.splat(2.816587209701538));
  y = fma(y, t, f32x4.splat(1.9747592210769653));
  y = fma(y, t, f32x4.splat(1.1283783912658691));
  return f32x4.mul(t, fma(y, t, f32x4.splat(0.564189612865448)));
}

function erf4(x: v128): v128 {
  const size = f32x4.pmin(f32x4.abs(x), f32x4.splat(16)), one = f32x4.splat(1);
  const far = f32x4.sub(one, f32x4.mul(gauss4(size, 1), erfTail4(size)));
  const positive = v128.bitselect(erfNear4(size), far, f32x4.lt(size, one));
  return v128.or(positive, v128.and(x, i32x4.splat(<i32>0x80000000)));
}

// The distribution function of the standard normal, from |x| clamped to 16 and `bell` = e^{−x²/2}, with full relative accuracy in both tails.
// @ts-ignore: decorator
@inline function normalShare4(x: v128, size: v128, bell: v128): v128 {
  const z = f32x4.mul(size, f32x4.splat(0.7071067811865476)), half = f32x4.splat(0.5), one = f32x4.splat(1);
  const beyond = f32x4.mul(f32x4.mul(half, bell), erfTail4(z));
  const negative = f32x4.lt(x, f32x4.splat(0));
  const far = v128.bitselect(beyond, f32x4.sub(one, beyond), negative);
  const inner = f32x4.mul(half, erfNear4(z));
  const near = v128.bitselect(f32x4.sub(half, inner), f32x4.add(half, inner), negative);
  return v128.bitselect(near, far, f32x4.lt(z, one));
}

function geluErf4(x: v128): v128 {
  const size = f32x4.pmin(f32x4.abs(x), f32x4.splat(16));
  return f32x4.mul(f32x4.pmax(x, f32x4.splat(-16)), normalShare4(x, size, gauss4(size, 0.5)));
}

// Φ(x) + x·φ(x).
function geluErfSlope4(x: v128): v128 {
  x = held(x, 16);
  const size = f32x4.abs(x), bell = gauss4(size, 0.5);
  const density = f32x4.mul(bell, f32x4.splat(0.3989422804014327));
  return fma(x, density, normalShare4(x, size, bell));
}

// max(x, 0) + ln(1 + e^{−|x|}).
function softplus4(x: v128): v128 {
  return f32x4.add(f32x4.max(x, f32x4.splat(0)), log1p4(exp4(f32x4.neg(f32x4.abs(x)))));
}

export function logf(x: f32): f32 {
  return f32x4.extract_lane(log4(f32x4.splat(x)), 0);
}

// sin(x + quarter·π/2) in doubles: Cody–Waite reduction (fdlibm's constants; good to |x| ≈ 10⁹), polynomials for f32 results.
export function sinQuarter(x: v128, quarter: f64): v128 {
  const n = f64x2.nearest(f64x2.mul(x, f64x2.splat(0.6366197723675814)));
  let r = f64x2.sub(x, f64x2.mul(n, f64x2.splat(1.57079632673412561417)));
  r = f64x2.sub(r, f64x2.mul(n, f64x2.splat(6.07710050650619224932e-11)));
  const z = f64x2.mul(r, r);
  let s = f64x2.add(f64x2.mul(z, f64x2.splat(2.7183114939898219e-6)), f64x2.splat(-1.9839334836096633e-4));
  s = f64x2.add(f64x2.mul(z, s), f64x2.splat(8.333329385889463e-3));
  s = f64x2.add(f64x2.mul(z, s), f64x2.splat(-0.16666666641626524));
  s = f64x2.add(f64x2.mul(f64x2.mul(z, r), s), r);
  let c = f64x2.add(f64x2.mul(z, f64x2.splat(2.439044879627741e-5)), f64x2.splat(-1.388676377460993e-3));
  c = f64x2.add(f64x2.mul(z, c), f64x2.splat(0.04166662332373906));
  c = f64x2.add(f64x2.mul(z, c), f64x2.splat(-0.499999997251031));
  c = f64x2.add(f64x2.mul(z, c), f64x2.splat(1));
  // The quadrant, as an integer in the low bits: adding 1.5·2⁵².
  const q = f64x2.add(f64x2.add(n, f64x2.splat(quarter)), f64x2.splat(6755399441055744));
  const odd = i64x2.sub(i64x2.splat(0), v128.and(q, i64x2.splat(1)));
  const sign = i64x2.shl(v128.and(q, i64x2.splat(2)), 62);
  return v128.xor(v128.bitselect(c, s, odd), sign);
}

// @ts-ignore: decorator
@inline function upper(x: v128): v128 {
  return i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
}

// 2/π in windows of 32 bits, each 8 bits further.
const TWO_OVER_PI = memory.data<u32>([
  0x000000a2, 0x0000a2f9, 0x00a2f983, 0xa2f9836e, 0xf9836e4e, 0x836e4e44, 0x6e4e4415, 0x4e441529,
  0x441529fc, 0x1529fc27, 0x29fc2757, 0xfc2757d1, 0x2757d1f5, 0x57d1f534, 0xd1f534dd, 0xf534ddc0,
  0x34ddc0db, 0xddc0db62, 0xc0db6295, 0xdb629599, 0x6295993c, 0x95993c43, 0x993c4390, 0x3c439041,
]);

// An angle below 2π that has the sine and the cosine of x, |x| ≥ 2: 24 bits of x times the 96 bits of 2/π that matter (Payne & Hanek 1983, in the form
// of ARM's optimized routines).
function smallAngle(x: f32): f64 {
  const bits = reinterpret<u32>(x) & 0x7fffffff;
  if (bits >= 0x7f800000) return NaN;
  const at = TWO_OVER_PI + <usize>(((bits >> 26) & 15) << 2);
  const mantissa = ((bits & 0xffffff) | 0x800000) << ((bits >> 23) & 7);
  const high = <u64>(mantissa * load<u32>(at)) << 32;
  const turns = (high | ((<u64>mantissa * <u64>load<u32>(at, 32)) >> 32)) + <u64>mantissa * <u64>load<u32>(at, 16);
  // The upper two bits count quarter turns, rounded to the nearest; the rest is a signed fraction of a quarter turn.
  const quarters = (turns + (<u64>1 << 61)) >> 62;
  const rest = <f64>(<i64>(turns - (quarters << 62))) * 1.5707963267948966 * 2.168404344971009e-19; // π/2·2⁻⁶²
  const angle = <f64>(quarters & 3) * 1.5707963267948966 + rest;
  return x < 0 ? -angle : angle;
}

// Largest |x| for which Cody and Waite's reduction keeps all digits.
const FAR: f32 = 1048576;

function sinQuarter4(x: v128, quarter: f64): v128 {
  let first = f64x2.promote_low_f32x4(x), second = f64x2.promote_low_f32x4(upper(x));
  if (v128.any_true(f32x4.ge(f32x4.abs(x), f32x4.splat(FAR)))) {
    const x0 = f32x4.extract_lane(x, 0), x1 = f32x4.extract_lane(x, 1);
    const x2 = f32x4.extract_lane(x, 2), x3 = f32x4.extract_lane(x, 3);
    if (abs(x0) >= FAR) first = f64x2.replace_lane(first, 0, smallAngle(x0));
    if (abs(x1) >= FAR) first = f64x2.replace_lane(first, 1, smallAngle(x1));
    if (abs(x2) >= FAR) second = f64x2.replace_lane(second, 0, smallAngle(x2));
    if (abs(x3) >= FAR) second = f64x2.replace_lane(second, 1, smallAngle(x3));
  }
  const low = f32x4.demote_f64x2_zero(sinQuarter(first, quarter));
  const high = f32x4.demote_f64x2_zero(sinQuarter(second, quarter));
  return i8x16.shuffle(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}

// The kinds in the order of the table's `unaryKinds`.
// @ts-ignore: decorator
@inline export function unaryValue(kind: i32, x: v128): v128 {
  if (kind == 0) return f32x4.neg(x);
  if (kind == 1) return exp4(x);
  if (kind == 2) return log4(x);
  if (kind == 3) return f32x4.sqrt(x);
  if (kind == 4) return f32x4.div(f32x4.splat(1), f32x4.sqrt(x));
  if (kind == 5) return f32x4.mul(x, x);
  if (kind == 6) return f32x4.div(f32x4.splat(1), x);
  if (kind == 7) return f32x4.abs(x);
  if (kind == 8) return tanh4(x);
  if (kind == 9) return logistic4(x);
  if (kind == 10) return f32x4.max(x, f32x4.splat(0));
  if (kind == 11) return gated4(x, x);
  if (kind == 12) return gelu4(x);
  if (kind == 13) return sinQuarter4(x, 0);
  if (kind == 14) return sinQuarter4(x, 1);
  if (kind == 15) return erf4(x);
  if (kind == 16) return geluErf4(x);
  if (kind == 17) return softplus4(x);
  if (kind == 18) return log1p4(x);
  return expm14(x);
}

// @ts-ignore: decorator
@inline export function unarySlope(kind: i32, x: v128): v128 {
  const one = f32x4.splat(1);
  if (kind == 0) return f32x4.splat(-1);
  if (kind == 1) return exp4(x);
  if (kind == 2) return f32x4.div(one, x);
  if (kind == 3) return f32x4.div(f32x4.splat(0.5), f32x4.sqrt(x));
  // The slope uses reciprocals, because powers of x would overflow, or lose digits as subnormal numbers, at some x where the slope does not.
  if (kind == 4) {
    const r = f32x4.div(one, f32x4.sqrt(x));
    return f32x4.mul(f32x4.mul(f32x4.splat(-0.5), r), f32x4.mul(r, r));
  }
  if (kind == 5) return f32x4.add(x, x);
  if (kind == 6) {
    const r = f32x4.div(one, x);
    return f32x4.neg(f32x4.mul(r, r));
  }
  if (kind == 7) {
    const unit = v128.or(v128.and(x, i32x4.splat(<i32>0x80000000)), one);
    return v128.bitselect(unit, x, f32x4.gt(f32x4.abs(x), f32x4.splat(0)));
  }
  if (kind == 8) {
    const t = tanh4(x);
    return f32x4.sub(one, f32x4.mul(t, t));
  }
  if (kind == 9) {
    // The slope is even. Of −|x|, the exponential has no bound at which the slope of a large x would not be 0.
    const e = exp4(f32x4.neg(f32x4.abs(x)));
    const s = f32x4.div(one, f32x4.add(one, e));
    return f32x4.mul(f32x4.mul(e, s), s);
  }
  if (kind == 10) return reluSlope4(x);
  if (kind == 11) return siluSlope4(x, logistic4(x));
  if (kind == 12) return geluSlope4(x);
  if (kind == 13) return sinQuarter4(x, 1);
  if (kind == 14) return sinQuarter4(x, 2);
  if (kind == 15)
    return f32x4.mul(f32x4.splat(1.1283791670955126), gauss4(f32x4.pmin(f32x4.abs(x), f32x4.splat(16)), 1));
  if (kind == 16) return geluErfSlope4(x);
  if (kind == 17) return logistic4(x);
  if (kind == 18) return f32x4.div(one, f32x4.add(one, x));
  return exp4(x);
}

// x clamped to ±`most`, where the slope is already 0 or 1, because powers of a larger x would give ∞·0. NaN stays NaN.
// @ts-ignore: decorator
@inline function held(x: v128, most: f32): v128 {
  return f32x4.pmin(f32x4.pmax(x, f32x4.splat(-most)), f32x4.splat(most));
}

// d silu/dx = s·(1 + x·(1 − s)), with s the logistic of x.
// @ts-ignore: decorator
@inline export function siluSlope4(x: v128, s: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.mul(s, fma(held(x, 100), f32x4.sub(one, s), one));
}

// 1, the bounds of x, and the coefficients of GELU's power and of its slope.
const GELU = memory.data<f32>([1, -10, 10, -0.1029432395800235, -2.302208198144325, 0.21406444881780075, 1.5957691216057308]);
// @ts-ignore: decorator
@inline function ofGelu(i: usize): v128 {
  return constant(GELU, i);
}

// GELU in the tanh form (Hendrycks & Gimpel 2016). With u = √(2/π)·(x + 0.044715x³) and s = 1/(1 + e^{−2u}), it is x·s: one exponential, and no cancellation for
// negative x. Its slope is s + x·(2u)′·s·(1 − s). Both compute s from x clamped to ±10, beyond which s is less than 2⁻¹²⁵ or 1.
// @ts-ignore: decorator
@inline export function geluHeld(x: v128): v128 {
  return f32x4.pmin(f32x4.pmax(x, ofGelu(1)), ofGelu(2));
}
// e^{−2u} as 2ᵗ: −2u·log₂e is one polynomial in x, at most 126 in size.
// @ts-ignore: decorator
@inline export function geluPower(x: v128): v128 {
  const slope = fma(ofGelu(3), f32x4.mul(x, x), ofGelu(4));
  return exp2Near4(f32x4.mul(x, slope));
}
// @ts-ignore: decorator
@inline export function geluShare(power: v128): v128 {
  return f32x4.div(ofGelu(0), f32x4.add(ofGelu(0), power));
}
// GELU of x from its share s. Below −10, where it is less than 2⁻¹²² in size, x is held there, so that its product with the share is not large.
// @ts-ignore: decorator
@inline export function geluFrom(x: v128, share: v128): v128 {
  return f32x4.mul(f32x4.pmax(x, ofGelu(1)), share);
}
// @ts-ignore: decorator
@inline export function geluSlopeFrom(x: v128, power: v128, share: v128): v128 {
  const slope = f32x4.mul(x, fma(ofGelu(5), f32x4.mul(x, x), ofGelu(6)));
  return fma(f32x4.mul(slope, share), f32x4.mul(power, share), share);
}

// @ts-ignore: decorator
@inline export function gelu4(x: v128): v128 {
  return geluFrom(x, geluShare(geluPower(geluHeld(x))));
}
// @ts-ignore: decorator
@inline export function geluSlope4(x: v128): v128 {
  x = geluHeld(x);
  const power = geluPower(x);
  return geluSlopeFrom(x, power, geluShare(power));
}

// d relu/dx, which is 0 at 0.
// @ts-ignore: decorator
@inline export function reluSlope4(x: v128): v128 {
  return v128.bitselect(x, v128.and(f32x4.gt(x, f32x4.splat(0)), f32x4.splat(1)), f32x4.ne(x, x));
}
