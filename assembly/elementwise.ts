// Elementwise kernels. The last elements of a range go through the same vector code one at a time, so that the bits of an
// element do not depend on its position.
import { gated4, logistic4, siluSlope4, unarySlope, unaryValue } from "./functions";
import { fma, storePair, wide } from "./simd";
import {
  AccumulateSlots, AffineSlots, CastSlots, SelectElementsSlots, SwigluJvpSlots, SwigluSlots, SwigluVjpSlots, UnarySlots, UnaryVjpSlots,
} from "./slots";

// Bytes from the start of the task's range to its end.
// @ts-ignore: decorator
@inline function rangeBytes(elements: i32, perTask: i32, task: i32): usize {
  return <usize>min(perTask, elements - task * perTask) << 2;
}
// @ts-ignore: decorator
@inline function rangeStart(perTask: i32, task: i32): usize {
  return (<usize>task * <usize>perTask) << 2;
}

// Kinds that are computed without a call. V8 (Node.js 24 to 26) ends the process if it has to join the results of calls.
// @ts-ignore: decorator
@inline function joins(kind: i32): bool {
  return kind == 0 || (kind >= 3 && kind <= 7) || (kind >= 9 && kind <= 12);
}

// There is one export per kind, because a single function with all kinds is three times slower in V8. The numbers are positions
// in the table's `unaryKinds`.
// @ts-ignore: decorator
@inline function unary(kind: i32, p: UnarySlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const x = p.x + start, y = p.y + start;
  let i: usize = 0;
  for (; wide && joins(kind) && i + 32 <= bytes; i += 32)
    storePair(y + i, unaryValue(kind, v128.load(x + i)), unaryValue(kind, v128.load(x + i, 16)));
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, unaryValue(kind, v128.load(x + i)));
  for (; i < bytes; i += 4) v128.store_lane<f32>(y + i, unaryValue(kind, v128.load_splat<f32>(x + i)), 0);
}
export function unary_neg(p: UnarySlots, task: i32): void { unary(0, p, task); }
export function unary_exp(p: UnarySlots, task: i32): void { unary(1, p, task); }
export function unary_log(p: UnarySlots, task: i32): void { unary(2, p, task); }
export function unary_sqrt(p: UnarySlots, task: i32): void { unary(3, p, task); }
export function unary_rsqrt(p: UnarySlots, task: i32): void { unary(4, p, task); }
export function unary_square(p: UnarySlots, task: i32): void { unary(5, p, task); }
export function unary_reciprocal(p: UnarySlots, task: i32): void { unary(6, p, task); }
export function unary_abs(p: UnarySlots, task: i32): void { unary(7, p, task); }
export function unary_tanh(p: UnarySlots, task: i32): void { unary(8, p, task); }
export function unary_sigmoid(p: UnarySlots, task: i32): void { unary(9, p, task); }
export function unary_relu(p: UnarySlots, task: i32): void { unary(10, p, task); }
export function unary_silu(p: UnarySlots, task: i32): void { unary(11, p, task); }
export function unary_gelu(p: UnarySlots, task: i32): void { unary(12, p, task); }
export function unary_sin(p: UnarySlots, task: i32): void { unary(13, p, task); }
export function unary_cos(p: UnarySlots, task: i32): void { unary(14, p, task); }
export function unary_erf(p: UnarySlots, task: i32): void { unary(15, p, task); }
export function unary_geluErf(p: UnarySlots, task: i32): void { unary(16, p, task); }
export function unary_softplus(p: UnarySlots, task: i32): void { unary(17, p, task); }
export function unary_log1p(p: UnarySlots, task: i32): void { unary(18, p, task); }
export function unary_expm1(p: UnarySlots, task: i32): void { unary(19, p, task); }

// @ts-ignore: decorator
@inline function unaryVjp(kind: i32, p: UnaryVjpSlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const x = p.x + start, dy = p.dy + start, dx = p.dx + start;
  let i: usize = 0;
  for (; wide && joins(kind) && i + 32 <= bytes; i += 32) {
    const low = f32x4.mul(unarySlope(kind, v128.load(x + i)), v128.load(dy + i));
    storePair(dx + i, low, f32x4.mul(unarySlope(kind, v128.load(x + i, 16)), v128.load(dy + i, 16)));
  }
  for (; i + 16 <= bytes; i += 16)
    v128.store(dx + i, f32x4.mul(unarySlope(kind, v128.load(x + i)), v128.load(dy + i)));
  for (; i < bytes; i += 4) {
    const slope = unarySlope(kind, v128.load_splat<f32>(x + i));
    v128.store_lane<f32>(dx + i, f32x4.mul(slope, v128.load_splat<f32>(dy + i)), 0);
  }
}
export function unaryVjp_neg(p: UnaryVjpSlots, task: i32): void { unaryVjp(0, p, task); }
export function unaryVjp_exp(p: UnaryVjpSlots, task: i32): void { unaryVjp(1, p, task); }
export function unaryVjp_log(p: UnaryVjpSlots, task: i32): void { unaryVjp(2, p, task); }
export function unaryVjp_sqrt(p: UnaryVjpSlots, task: i32): void { unaryVjp(3, p, task); }
export function unaryVjp_rsqrt(p: UnaryVjpSlots, task: i32): void { unaryVjp(4, p, task); }
export function unaryVjp_square(p: UnaryVjpSlots, task: i32): void { unaryVjp(5, p, task); }
export function unaryVjp_reciprocal(p: UnaryVjpSlots, task: i32): void { unaryVjp(6, p, task); }
export function unaryVjp_abs(p: UnaryVjpSlots, task: i32): void { unaryVjp(7, p, task); }
export function unaryVjp_tanh(p: UnaryVjpSlots, task: i32): void { unaryVjp(8, p, task); }
export function unaryVjp_sigmoid(p: UnaryVjpSlots, task: i32): void { unaryVjp(9, p, task); }
export function unaryVjp_relu(p: UnaryVjpSlots, task: i32): void { unaryVjp(10, p, task); }
export function unaryVjp_silu(p: UnaryVjpSlots, task: i32): void { unaryVjp(11, p, task); }
export function unaryVjp_gelu(p: UnaryVjpSlots, task: i32): void { unaryVjp(12, p, task); }
export function unaryVjp_sin(p: UnaryVjpSlots, task: i32): void { unaryVjp(13, p, task); }
export function unaryVjp_cos(p: UnaryVjpSlots, task: i32): void { unaryVjp(14, p, task); }
export function unaryVjp_erf(p: UnaryVjpSlots, task: i32): void { unaryVjp(15, p, task); }
export function unaryVjp_geluErf(p: UnaryVjpSlots, task: i32): void { unaryVjp(16, p, task); }
export function unaryVjp_softplus(p: UnaryVjpSlots, task: i32): void { unaryVjp(17, p, task); }
export function unaryVjp_log1p(p: UnaryVjpSlots, task: i32): void { unaryVjp(18, p, task); }
export function unaryVjp_expm1(p: UnaryVjpSlots, task: i32): void { unaryVjp(19, p, task); }

export function affine(p: AffineSlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const x = p.x + start, y = p.y + start;
  const scale = f32x4.splat(p.scale), shift = f32x4.splat(p.shift);
  let i: usize = 0;
  for (; wide && i + 32 <= bytes; i += 32)
    storePair(y + i, fma(scale, v128.load(x + i), shift), fma(scale, v128.load(x + i, 16), shift));
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, fma(scale, v128.load(x + i), shift));
  for (; i < bytes; i += 4) v128.store_lane<f32>(y + i, fma(scale, v128.load_splat<f32>(x + i), shift), 0);
}

export function accumulate(p: AccumulateSlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const x = p.x + start, y = p.y + start;
  const scale = f32x4.splat(p.scale);
  let i: usize = 0;
  for (; wide && i + 32 <= bytes; i += 32)
    storePair(y + i, fma(scale, v128.load(x + i), v128.load(y + i)), fma(scale, v128.load(x + i, 16), v128.load(y + i, 16)));
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, fma(scale, v128.load(x + i), v128.load(y + i)));
  for (; i < bytes; i += 4) {
    const sum = fma(scale, v128.load_splat<f32>(x + i), v128.load_splat<f32>(y + i));
    v128.store_lane<f32>(y + i, sum, 0);
  }
}

export function selectElements(p: SelectElementsSlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const condition = p.condition + start, a = p.a + start, b = p.b + start, c = p.c + start;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    const zero = i32x4.eq(v128.load(condition + i), i32x4.splat(0));
    v128.store(c + i, v128.bitselect(v128.load(b + i), v128.load(a + i), zero));
  }
  for (; i < bytes; i += 4) store<i32>(c + i, load<i32>((load<i32>(condition + i) != 0 ? a : b) + i));
}

export function cast(p: CastSlots, task: i32): void {
  const start = rangeStart(p.elementsPerTask, task), bytes = rangeBytes(p.elements, p.elementsPerTask, task);
  const x = p.x + start, y = p.y + start;
  let i: usize = 0;
  if (p.conversion == 2) memory.copy(y, x, bytes);
  else if (p.conversion == 1) {
    for (; i + 16 <= bytes; i += 16) v128.store(y + i, i32x4.trunc_sat_f32x4_s(v128.load(x + i)));
    for (; i < bytes; i += 4) v128.store_lane<i32>(y + i, i32x4.trunc_sat_f32x4_s(v128.load_splat<f32>(x + i)), 0);
  } else {
    for (; i + 16 <= bytes; i += 16) v128.store(y + i, f32x4.convert_i32x4_s(v128.load(x + i)));
    for (; i < bytes; i += 4) v128.store_lane<f32>(y + i, f32x4.convert_i32x4_s(v128.load_splat<i32>(x + i)), 0);
  }
}

// @ts-ignore: decorator
@inline function swigluValue(gate: v128, up: v128): v128 {
  return f32x4.mul(gated4(gate, gate), up);
}

export function swiglu(p: SwigluSlots, task: i32): void {
  const bytes = <usize>p.width << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const gate = p.x + <usize>r * bytes * 2, up = gate + bytes, y = p.y + <usize>r * bytes;
    let i: usize = 0;
    for (; wide && i + 32 <= bytes; i += 32) {
      const low = swigluValue(v128.load(gate + i), v128.load(up + i));
      storePair(y + i, low, swigluValue(v128.load(gate + i, 16), v128.load(up + i, 16)));
    }
    for (; i + 16 <= bytes; i += 16) v128.store(y + i, swigluValue(v128.load(gate + i), v128.load(up + i)));
    for (; i < bytes; i += 4) {
      const value = swigluValue(v128.load_splat<f32>(gate + i), v128.load_splat<f32>(up + i));
      v128.store_lane<f32>(y + i, value, 0);
    }
  }
}

export function swigluVjp(p: SwigluVjpSlots, task: i32): void {
  const bytes = <usize>p.width << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.x + <usize>r * bytes * 2, dx = p.dx + <usize>r * bytes * 2;
    const dy = p.dy + <usize>r * bytes;
    let i: usize = 0;
    for (; wide && i + 32 <= bytes; i += 32) {
      const gate = v128.load(x + i), other = v128.load(x + i, 16), d = v128.load(dy + i), e = v128.load(dy + i, 16);
      const low = f32x4.mul(siluSlope4(gate, logistic4(gate)), f32x4.mul(v128.load(x + bytes + i), d));
      const high = f32x4.mul(siluSlope4(other, logistic4(other)), f32x4.mul(v128.load(x + bytes + i, 16), e));
      storePair(dx + i, low, high);
      storePair(dx + bytes + i, f32x4.mul(gated4(gate, gate), d), f32x4.mul(gated4(other, other), e));
    }
    for (; i + 16 <= bytes; i += 16) {
      const gate = v128.load(x + i), d = v128.load(dy + i), s = logistic4(gate);
      v128.store(dx + i, f32x4.mul(siluSlope4(gate, s), f32x4.mul(v128.load(x + bytes + i), d)));
      v128.store(dx + bytes + i, f32x4.mul(gated4(gate, gate), d));
    }
    for (; i < bytes; i += 4) {
      const gate = v128.load_splat<f32>(x + i), d = v128.load_splat<f32>(dy + i), s = logistic4(gate);
      const up = v128.load_splat<f32>(x + bytes + i);
      v128.store_lane<f32>(dx + i, f32x4.mul(siluSlope4(gate, s), f32x4.mul(up, d)), 0);
      v128.store_lane<f32>(dx + bytes + i, f32x4.mul(gated4(gate, gate), d), 0);
    }
  }
}

// @ts-ignore: decorator
@inline function swigluTangent(gate: v128, up: v128, dGate: v128, dUp: v128): v128 {
  const s = logistic4(gate);
  return fma(f32x4.mul(siluSlope4(gate, s), up), dGate, f32x4.mul(gated4(gate, gate), dUp));
}

export function swigluJvp(p: SwigluJvpSlots, task: i32): void {
  const bytes = <usize>p.width << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.x + <usize>r * bytes * 2, dx = p.dx + <usize>r * bytes * 2;
    const up = x + bytes, dUp = dx + bytes, dy = p.dy + <usize>r * bytes;
    let i: usize = 0;
    for (; wide && i + 32 <= bytes; i += 32) {
      const low = swigluTangent(v128.load(x + i), v128.load(up + i), v128.load(dx + i), v128.load(dUp + i));
      const high = swigluTangent(v128.load(x + i, 16), v128.load(up + i, 16), v128.load(dx + i, 16), v128.load(dUp + i, 16));
      storePair(dy + i, low, high);
    }
    for (; i + 16 <= bytes; i += 16) {
      const d = swigluTangent(v128.load(x + i), v128.load(up + i), v128.load(dx + i), v128.load(dUp + i));
      v128.store(dy + i, d);
    }
    for (; i < bytes; i += 4) {
      const gate = v128.load_splat<f32>(x + i), dGate = v128.load_splat<f32>(dx + i);
      const d = swigluTangent(gate, v128.load_splat<f32>(up + i), dGate, v128.load_splat<f32>(dUp + i));
      v128.store_lane<f32>(dy + i, d, 0);
    }
  }
}
