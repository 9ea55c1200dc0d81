// Vectorised elementary functions (f32x4), accurate to a few units in the last place.
import { constant, fma } from "./simd";

// The parts of e^x = e^r·2ⁿ: the reduction x = n·ln 2 + r (in two steps, as in Cephes), and a polynomial of degree 6 in r, the minimax one among those that begin with
// 1 + r. Its relative error is 3e-9, and Horner's rule has an error of 0.63 units in the last place.
const ROUND: f32 = 12582912; // adding 1.5·2²³ rounds to an integer, which is then in the low bits

const EXP = memory.data<f32>([
  1.3814539415e-3, 8.3687454462e-3, 4.1668388993e-2, 1.6666521132e-1, 4.9999994040e-1, // the polynomial
  1, 1.4426950408889634, -0.693359375, 2.12194440e-4, // 1, log₂e, −ln 2
  12582912, 12583039, // ROUND, and with the bias of an exponent
  -88, 88, -1e30,
]);
// @ts-ignore: decorator
@inline function ofExp(i: usize): v128 {
  return constant(EXP, i);
}

// (e^r − 1 − r)/r², |r| ≤ ½·ln 2.
// @ts-ignore: decorator
@inline function expPolynomial4(r: v128): v128 {
  return fma(fma(fma(fma(ofExp(0), r, ofExp(1)), r, ofExp(2)), r, ofExp(3)), r, ofExp(4));
}

// @ts-ignore: decorator
@inline function expRest4(x: v128, n: v128): v128 {
  const r = fma(n, ofExp(8), fma(n, ofExp(7), x)), one = ofExp(5);
  return fma(fma(expPolynomial4(r), r, one), r, one);
}

// e^x. It is scaled by 2ⁿ in two steps, so that subnormal results are exact; above 88.73 it is ∞, below −104 it is 0.
// NaN stays NaN (pmin and pmax return their first operand if the comparison is false).
export function exp4(x: v128): v128 {
  x = f32x4.pmax(f32x4.pmin(x, f32x4.splat(89)), f32x4.splat(-104));
  const shifted = fma(x, f32x4.splat(1.4426950408889634), f32x4.splat(ROUND));
  const y = expRest4(x, f32x4.sub(shifted, f32x4.splat(ROUND)));
  const i = i32x4.sub(shifted, i32x4.splat(0x4b400000));
  const half = i32x4.shr_s(i, 1), rest = i32x4.sub(i, half);
  const bias = i32x4.splat(127);
  const scaled = f32x4.mul(y, i32x4.shl(i32x4.add(half, bias), 23));
  return f32x4.mul(scaled, i32x4.shl(i32x4.add(rest, bias), 23));
}

// e^x − 1; near 0 it is the polynomial of e^x without its constant term 1.
// @ts-ignore: decorator
@inline export function expm14(x: v128): v128 {
  const near = fma(expPolynomial4(x), f32x4.mul(x, x), x);
  return v128.bitselect(near, f32x4.sub(exp4(x), f32x4.splat(1)), f32x4.lt(f32x4.abs(x), f32x4.splat(0.34)));
}

// e^x with one scaling step, for softmax and sigmoids: x is clamped to [−88, 88], and below −87.7 the result is exactly 0.
// @ts-ignore: decorator
@inline export function expClamped4(x: v128): v128 {
  return expNear4(f32x4.pmax(f32x4.pmin(x, ofExp(12)), ofExp(11)));
}

// Like expClamped4, for x that is at most 0 except for rounding, such as a score minus the maximum.
// @ts-ignore: decorator
@inline export function expBelow4(x: v128): v128 {
  return expNear4(f32x4.pmax(x, ofExp(11)));
}

// Like expClamped4, for x in [−88, 88].
// @ts-ignore: decorator
@inline function expNear4(x: v128): v128 {
  // The constant includes the bias of the exponent, so the low bits are those of 2ⁿ; the shift removes the others.
  const shifted = fma(x, ofExp(6), ofExp(10));
  const y = expRest4(x, f32x4.sub(shifted, ofExp(10)));
  return f32x4.mul(y, i32x4.shl(shifted, 23));
}

const EXP2 = memory.data<f32>([
  1.5321072798e-4, 1.3390218482e-3, 9.6185266810e-3, 5.5503623999e-2, 2.4022647832e-1, 0.6931471805599453, 1, // the polynomial
  12583039, // ROUND, with the bias of an exponent
]);
// @ts-ignore: decorator
@inline function ofExp2(i: usize): v128 {
  return constant(EXP2, i);
}

// 2^x for x in [−126, 126]. The reduction is exact; the polynomial is that of e^x with the powers of ln 2 in its coefficients.
// @ts-ignore: decorator
@inline export function exp2Near4(x: v128): v128 {
  const shifted = f32x4.add(x, ofExp2(7));
  const r = f32x4.sub(x, f32x4.sub(shifted, ofExp2(7)));
  const y = fma(fma(fma(fma(fma(fma(ofExp2(0), r, ofExp2(1)), r, ofExp2(2)), r, ofExp2(3)), r, ofExp2(4)), r, ofExp2(5)), r, ofExp2(6));
  return f32x4.mul(y, i32x4.shl(shifted, 23));
}

// tanh x: a short series near 0, where the quotient would cancel, otherwise 1 − 2/(e^{2x} + 1).
export function tanh4(x: v128): v128 {
  const size = f32x4.abs(x);
  const e = expClamped4(f32x4.add(size, size));
  const far = f32x4.sub(f32x4.splat(1), f32x4.div(f32x4.splat(2), f32x4.add(e, f32x4.splat(1))));
  const s = f32x4.mul(x, x);
  let y = f32x4.splat(-5.70498872745e-3);
  y = fma(y, s, f32x4.splat(2.06390887954e-2));
  y = fma(y, s, f32x4.splat(-5.37397155531e-2));
  y = fma(y, s, f32x4.splat(1.33314422036e-1));
  y = fma(y, s, f32x4.splat(-3.33332819422e-1));
  const near = fma(f32x4.mul(y, s), size, size);
  const positive = v128.bitselect(near, far, f32x4.lt(size, f32x4.splat(0.625)));
  return v128.or(positive, v128.and(x, i32x4.splat(<i32>0x80000000)));
}

// 1/(1 + e^{−x}). Below −88, where the exponential is clamped, it is exactly 0, so that its product with a large x is 0.
// @ts-ignore: decorator
@inline export function logistic4(x: v128): v128 {
  const s = f32x4.div(ofExp(5), f32x4.add(ofExp(5), expClamped4(f32x4.neg(x))));
  return v128.andnot(s, f32x4.lt(x, ofExp(11)));
}

// x·logistic(inner), for an `inner` that is as negative as x. At x = −∞ it gives the limit 0, not −∞·0.
// @ts-ignore: decorator
@inline export function gated4(x: v128, inner: v128): v128 {
  return f32x4.mul(f32x4.pmax(x, ofExp(13)), logistic4(inner));
}
