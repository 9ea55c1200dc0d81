// Vectorised elementary functions (f32x4), accurate to a few units in the last place.
import { fma } from "./simd";

// The parts of e^x = e^r·2ⁿ: the reduction x = n·ln 2 + r (in two steps, as in Cephes), and a polynomial of degree 6 in r, the minimax one among those that begin with
// 1 + r. Its relative error is 3e-9, and Horner's rule has an error of 0.63 units in the last place.
const ROUND: f32 = 12582912; // adding 1.5·2²³ rounds to an integer, which is then in the low bits

// (e^r − 1 − r)/r², |r| ≤ ½·ln 2.
// @ts-ignore: decorator
@inline function expPolynomial4(r: v128): v128 {
  let y = fma(f32x4.splat(1.3814539415e-3), r, f32x4.splat(8.3687454462e-3));
  y = fma(y, r, f32x4.splat(4.1668388993e-2));
  y = fma(y, r, f32x4.splat(1.6666521132e-1));
  return fma(y, r, f32x4.splat(4.9999994040e-1));
}

// @ts-ignore: decorator
@inline function expRest4(x: v128, n: v128): v128 {
  let r = fma(n, f32x4.splat(-0.693359375), x);
  r = fma(n, f32x4.splat(2.12194440e-4), r);
  const one = f32x4.splat(1);
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
  return expNear4(f32x4.pmax(f32x4.pmin(x, f32x4.splat(88)), f32x4.splat(-88)));
}

// Like expClamped4, for x that is at most 0 except for rounding, such as a score minus the maximum.
// @ts-ignore: decorator
@inline export function expBelow4(x: v128): v128 {
  return expNear4(f32x4.pmax(x, f32x4.splat(-88)));
}

// Like expClamped4, for x in [−88, 88].
// @ts-ignore: decorator
@inline function expNear4(x: v128): v128 {
  // The constant includes the bias of the exponent, so the low bits are those of 2ⁿ; the shift removes the others.
  const shifted = fma(x, f32x4.splat(1.4426950408889634), f32x4.splat(ROUND + 127));
  const y = expRest4(x, f32x4.sub(shifted, f32x4.splat(ROUND + 127)));
  return f32x4.mul(y, i32x4.shl(shifted, 23));
}

// 2^x for x in [−126, 126]. The reduction is exact; the polynomial is that of e^x with the powers of ln 2 in its coefficients.
// @ts-ignore: decorator
@inline export function exp2Near4(x: v128): v128 {
  const shifted = f32x4.add(x, f32x4.splat(ROUND + 127));
  const r = f32x4.sub(x, f32x4.sub(shifted, f32x4.splat(ROUND + 127)));
  let y = fma(f32x4.splat(1.5321072798e-4), r, f32x4.splat(1.3390218482e-3));
  y = fma(y, r, f32x4.splat(9.6185266810e-3));
  y = fma(y, r, f32x4.splat(5.5503623999e-2));
  y = fma(y, r, f32x4.splat(2.4022647832e-1));
  y = fma(y, r, f32x4.splat(0.6931471805599453));
  return f32x4.mul(fma(y, r, f32x4.splat(1)), i32x4.shl(shifted, 23));
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
  const s = f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), expClamped4(f32x4.neg(x))));
  return v128.andnot(s, f32x4.lt(x, f32x4.splat(-88)));
}

// x·logistic(inner), for an `inner` that is as negative as x. At x = −∞ it gives the limit 0, not −∞·0.
// @ts-ignore: decorator
@inline export function gated4(x: v128, inner: v128): v128 {
  return f32x4.mul(f32x4.pmax(x, f32x4.splat(-1e30)), logistic4(inner));
}
