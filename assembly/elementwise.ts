// Kernels that treat each element on its own. The last elements of a range go through the same vector code, one at a
// time, so that an element's bits do not depend on its place.
import { gated4, logistic4, siluSlope4, unarySlope, unaryValue } from "./functions";
import { float, fma, int, ptr } from "./simd";

// Bytes from the start of the task's range to its end. Slot `slot` holds the elements, the next one those of a task.
// @ts-ignore: decorator
@inline function rangeBytes(p: usize, slot: i32, task: i32): usize {
  const block = int(p, slot + 1);
  return <usize>min(block, int(p, slot) - task * block) << 2;
}
// @ts-ignore: decorator
@inline function rangeStart(p: usize, slot: i32, task: i32): usize {
  return (<usize>task * <usize>int(p, slot + 1)) << 2;
}

// One export a kind: V8 compiles one function with all of them badly (three times slower). The numbers are places in the
// table's `unaryKinds`. Slots: 0 x, 1 y, 2 elements, 3 a task's.
// @ts-ignore: decorator
@inline function unary(kind: i32, p: usize, task: i32): void {
  const start = rangeStart(p, 2, task), bytes = rangeBytes(p, 2, task);
  const x = ptr(p, 0) + start, y = ptr(p, 1) + start;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, unaryValue(kind, v128.load(x + i)));
  for (; i < bytes; i += 4) v128.store_lane<f32>(y + i, unaryValue(kind, v128.load_splat<f32>(x + i)), 0);
}
export function unary_neg(p: usize, task: i32): void { unary(0, p, task); }
export function unary_exp(p: usize, task: i32): void { unary(1, p, task); }
export function unary_log(p: usize, task: i32): void { unary(2, p, task); }
export function unary_sqrt(p: usize, task: i32): void { unary(3, p, task); }
export function unary_rsqrt(p: usize, task: i32): void { unary(4, p, task); }
export function unary_square(p: usize, task: i32): void { unary(5, p, task); }
export function unary_reciprocal(p: usize, task: i32): void { unary(6, p, task); }
export function unary_abs(p: usize, task: i32): void { unary(7, p, task); }
export function unary_tanh(p: usize, task: i32): void { unary(8, p, task); }
export function unary_sigmoid(p: usize, task: i32): void { unary(9, p, task); }
export function unary_relu(p: usize, task: i32): void { unary(10, p, task); }
export function unary_silu(p: usize, task: i32): void { unary(11, p, task); }
export function unary_gelu(p: usize, task: i32): void { unary(12, p, task); }
export function unary_sin(p: usize, task: i32): void { unary(13, p, task); }
export function unary_cos(p: usize, task: i32): void { unary(14, p, task); }
export function unary_erf(p: usize, task: i32): void { unary(15, p, task); }
export function unary_geluErf(p: usize, task: i32): void { unary(16, p, task); }
export function unary_softplus(p: usize, task: i32): void { unary(17, p, task); }
export function unary_log1p(p: usize, task: i32): void { unary(18, p, task); }
export function unary_expm1(p: usize, task: i32): void { unary(19, p, task); }

// Slots: 0 x, 1 dy, 2 dx, 3 elements, 4 a task's.
// @ts-ignore: decorator
@inline function unaryVjp(kind: i32, p: usize, task: i32): void {
  const start = rangeStart(p, 3, task), bytes = rangeBytes(p, 3, task);
  const x = ptr(p, 0) + start, dy = ptr(p, 1) + start, dx = ptr(p, 2) + start;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16)
    v128.store(dx + i, f32x4.mul(unarySlope(kind, v128.load(x + i)), v128.load(dy + i)));
  for (; i < bytes; i += 4) {
    const slope = unarySlope(kind, v128.load_splat<f32>(x + i));
    v128.store_lane<f32>(dx + i, f32x4.mul(slope, v128.load_splat<f32>(dy + i)), 0);
  }
}
export function unaryVjp_neg(p: usize, task: i32): void { unaryVjp(0, p, task); }
export function unaryVjp_exp(p: usize, task: i32): void { unaryVjp(1, p, task); }
export function unaryVjp_log(p: usize, task: i32): void { unaryVjp(2, p, task); }
export function unaryVjp_sqrt(p: usize, task: i32): void { unaryVjp(3, p, task); }
export function unaryVjp_rsqrt(p: usize, task: i32): void { unaryVjp(4, p, task); }
export function unaryVjp_square(p: usize, task: i32): void { unaryVjp(5, p, task); }
export function unaryVjp_reciprocal(p: usize, task: i32): void { unaryVjp(6, p, task); }
export function unaryVjp_abs(p: usize, task: i32): void { unaryVjp(7, p, task); }
export function unaryVjp_tanh(p: usize, task: i32): void { unaryVjp(8, p, task); }
export function unaryVjp_sigmoid(p: usize, task: i32): void { unaryVjp(9, p, task); }
export function unaryVjp_relu(p: usize, task: i32): void { unaryVjp(10, p, task); }
export function unaryVjp_silu(p: usize, task: i32): void { unaryVjp(11, p, task); }
export function unaryVjp_gelu(p: usize, task: i32): void { unaryVjp(12, p, task); }
export function unaryVjp_sin(p: usize, task: i32): void { unaryVjp(13, p, task); }
export function unaryVjp_cos(p: usize, task: i32): void { unaryVjp(14, p, task); }
export function unaryVjp_erf(p: usize, task: i32): void { unaryVjp(15, p, task); }
export function unaryVjp_geluErf(p: usize, task: i32): void { unaryVjp(16, p, task); }
export function unaryVjp_softplus(p: usize, task: i32): void { unaryVjp(17, p, task); }
export function unaryVjp_log1p(p: usize, task: i32): void { unaryVjp(18, p, task); }
export function unaryVjp_expm1(p: usize, task: i32): void { unaryVjp(19, p, task); }

// Slots: 0 x, 1 y, 2 elements, 3 a task's; floats: 0 scale, 1 shift.
export function affine(p: usize, task: i32): void {
  const start = rangeStart(p, 2, task), bytes = rangeBytes(p, 2, task);
  const x = ptr(p, 0) + start, y = ptr(p, 1) + start;
  const scale = f32x4.splat(float(p, 0)), shift = f32x4.splat(float(p, 1));
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, fma(scale, v128.load(x + i), shift));
  for (; i < bytes; i += 4) v128.store_lane<f32>(y + i, fma(scale, v128.load_splat<f32>(x + i), shift), 0);
}

// Slots: 0 x, 1 y, 2 elements, 3 a task's; floats: 0 scale.
export function accumulate(p: usize, task: i32): void {
  const start = rangeStart(p, 2, task), bytes = rangeBytes(p, 2, task);
  const x = ptr(p, 0) + start, y = ptr(p, 1) + start;
  const scale = f32x4.splat(float(p, 0));
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, fma(scale, v128.load(x + i), v128.load(y + i)));
  for (; i < bytes; i += 4) {
    const sum = fma(scale, v128.load_splat<f32>(x + i), v128.load_splat<f32>(y + i));
    v128.store_lane<f32>(y + i, sum, 0);
  }
}

// Slots: 0 condition, 1 a, 2 b, 3 c, 4 elements, 5 a task's.
export function selectElements(p: usize, task: i32): void {
  const start = rangeStart(p, 4, task), bytes = rangeBytes(p, 4, task);
  const condition = ptr(p, 0) + start, a = ptr(p, 1) + start, b = ptr(p, 2) + start, c = ptr(p, 3) + start;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    const zero = i32x4.eq(v128.load(condition + i), i32x4.splat(0));
    v128.store(c + i, v128.bitselect(v128.load(b + i), v128.load(a + i), zero));
  }
  for (; i < bytes; i += 4) store<i32>(c + i, load<i32>((load<i32>(condition + i) != 0 ? a : b) + i));
}

// Slots: 0 x, 1 y, 2 elements, 3 a task's, 4 to f32 (0), to i32 (1), or a copy (2).
export function cast(p: usize, task: i32): void {
  const start = rangeStart(p, 2, task), bytes = rangeBytes(p, 2, task);
  const x = ptr(p, 0) + start, y = ptr(p, 1) + start;
  let i: usize = 0;
  if (int(p, 4) == 2) memory.copy(y, x, bytes);
  else if (int(p, 4) == 1) {
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

// Slots: 0 x, 1 y, 2 rows, 3 rows a task, 4 width.
export function swiglu(p: usize, task: i32): void {
  const bytes = <usize>int(p, 4) << 2;
  const first = task * int(p, 3), last = min(int(p, 2), first + int(p, 3));
  for (let r = first; r < last; r++) {
    const gate = ptr(p, 0) + <usize>r * bytes * 2, up = gate + bytes, y = ptr(p, 1) + <usize>r * bytes;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) v128.store(y + i, swigluValue(v128.load(gate + i), v128.load(up + i)));
    for (; i < bytes; i += 4) {
      const value = swigluValue(v128.load_splat<f32>(gate + i), v128.load_splat<f32>(up + i));
      v128.store_lane<f32>(y + i, value, 0);
    }
  }
}

// Slots: 0 x, 1 dy, 2 dx, 3 rows, 4 rows a task, 5 width.
export function swigluVjp(p: usize, task: i32): void {
  const bytes = <usize>int(p, 5) << 2;
  const first = task * int(p, 4), last = min(int(p, 3), first + int(p, 4));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes * 2, dx = ptr(p, 2) + <usize>r * bytes * 2;
    const dy = ptr(p, 1) + <usize>r * bytes;
    let i: usize = 0;
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

// Slots: 0 x, 1 dx, 2 dy, 3 rows, 4 rows a task, 5 width.
export function swigluJvp(p: usize, task: i32): void {
  const bytes = <usize>int(p, 5) << 2;
  const first = task * int(p, 4), last = min(int(p, 3), first + int(p, 4));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes * 2, dx = ptr(p, 1) + <usize>r * bytes * 2;
    const up = x + bytes, dUp = dx + bytes, dy = ptr(p, 2) + <usize>r * bytes;
    let i: usize = 0;
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
