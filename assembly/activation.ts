// Activations that products apply when they finish a tile. Kinds: 1 GELU (tanh form), 2 ReLU, 3 SiLU.
import { gated4 } from "./math";
import { fma } from "./simd";

// √(2/π) and the cubic coefficient of the tanh form (Hendrycks & Gimpel 2016).
const ROOT: f32 = 0.7978845608028654;
const CUBIC: f32 = 0.044715;

// ½·(1 + tanh u) is the logistic of 2u: one exponential, and no cancellation for negative x.
// @ts-ignore: decorator
@inline export function gelu4(x: v128): v128 {
  const cube = f32x4.mul(f32x4.mul(x, x), x);
  const inner = f32x4.mul(f32x4.splat(2 * ROOT), fma(f32x4.splat(CUBIC), cube, x));
  return gated4(x, inner);
}

// @ts-ignore: decorator
@inline function activate(x: v128, kind: i32): v128 {
  if (kind == 1) return gelu4(x);
  if (kind == 2) return f32x4.max(x, f32x4.splat(0));
  if (kind == 3) return gated4(x, x);
  return x;
}

// @ts-ignore: decorator
@inline function row(kind: i32, from: usize, to: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, activate(v128.load(from + i), kind));
  for (; i < bytes; i += 4) v128.store_lane<f32>(to + i, activate(v128.load_splat<f32>(from + i), kind), 0);
}

// Applies the activation to a row of numbers, possibly in place; kind 0 copies.
export function activateRow(kind: i32, from: usize, to: usize, bytes: usize): void {
  if (kind == 1) row(1, from, to, bytes);
  else if (kind == 2) row(2, from, to, bytes);
  else if (kind == 3) row(3, from, to, bytes);
  else row(0, from, to, bytes);
}
