// Softmax and cross-entropy over rows.
import { expClamped4, logf } from "./functions";
import { fma, int, ptr, sumLanes } from "./simd";

// NaN is passed over here; it comes back through the exponentials.
function rowMax(x: usize, bytes: usize): f32 {
  let m0 = f32x4.splat(-Infinity), m1 = m0;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    m0 = f32x4.pmax(m0, v128.load(x + i));
    m1 = f32x4.pmax(m1, v128.load(x + i, 16));
  }
  for (; i < bytes; i += 4) m0 = f32x4.pmax(m0, v128.load_splat<f32>(x + i));
  m0 = f32x4.pmax(m0, m1);
  return max(
    max(f32x4.extract_lane(m0, 0), f32x4.extract_lane(m0, 1)),
    max(f32x4.extract_lane(m0, 2), f32x4.extract_lane(m0, 3)),
  );
}

// Slots: 0 x, 1 y, 2 rows, 3 rows a task, 4 cols.
export function softmax(p: usize, task: i32): void {
  const bytes = <usize>int(p, 4) << 2;
  const first = task * int(p, 3), last = min(int(p, 2), first + int(p, 3));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes, y = ptr(p, 1) + <usize>r * bytes;
    const top = f32x4.splat(rowMax(x, bytes));
    let s = f32x4.splat(0), tail: f32 = 0;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const e = expClamped4(f32x4.sub(v128.load(x + i), top));
      v128.store(y + i, e);
      s = f32x4.add(s, e);
    }
    for (; i < bytes; i += 4) {
      const e = expClamped4(f32x4.sub(v128.load_splat<f32>(x + i), top));
      v128.store_lane<f32>(y + i, e, 0);
      tail += f32x4.extract_lane(e, 0);
    }
    const inverse: f32 = 1 / (sumLanes(s) + tail);
    for (i = 0; i + 16 <= bytes; i += 16) v128.store(y + i, f32x4.mul(v128.load(y + i), f32x4.splat(inverse)));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) * inverse);
  }
}

// Slots: 0 x, 1 y, 2 rows, 3 rows a task, 4 cols.
export function logSoftmax(p: usize, task: i32): void {
  const bytes = <usize>int(p, 4) << 2;
  const first = task * int(p, 3), last = min(int(p, 2), first + int(p, 3));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes, y = ptr(p, 1) + <usize>r * bytes;
    const peak = rowMax(x, bytes), top = f32x4.splat(peak);
    let s0 = f32x4.splat(0), s1 = s0, tail: f32 = 0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, expClamped4(f32x4.sub(v128.load(x + i), top)));
      s1 = f32x4.add(s1, expClamped4(f32x4.sub(v128.load(x + i, 16), top)));
    }
    for (; i < bytes; i += 4)
      tail += f32x4.extract_lane(expClamped4(f32x4.sub(v128.load_splat<f32>(x + i), top)), 0);
    // In two steps: the log-sum-exp itself is rounded at the size of the maximum.
    const log = logf(sumLanes(f32x4.add(s0, s1)) + tail), logs = f32x4.splat(log);
    for (i = 0; i + 16 <= bytes; i += 16)
      v128.store(y + i, f32x4.sub(f32x4.sub(v128.load(x + i), top), logs));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(x + i) - peak - log);
  }
}

// Slots: 0 y, 1 dy, 2 dx, 3 rows, 4 rows a task, 5 cols.
export function logSoftmaxVjp(p: usize, task: i32): void {
  const bytes = <usize>int(p, 5) << 2;
  const first = task * int(p, 4), last = min(int(p, 3), first + int(p, 4));
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, y = ptr(p, 0) + at, dy = ptr(p, 1) + at, dx = ptr(p, 2) + at;
    let s0 = f32x4.splat(0), s1 = s0, tail: f32 = 0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, v128.load(dy + i));
      s1 = f32x4.add(s1, v128.load(dy + i, 16));
    }
    for (; i < bytes; i += 4) tail += load<f32>(dy + i);
    const minus = f32x4.splat(-(sumLanes(f32x4.add(s0, s1)) + tail));
    for (i = 0; i + 16 <= bytes; i += 16)
      v128.store(dx + i, fma(expClamped4(v128.load(y + i)), minus, v128.load(dy + i)));
    for (; i < bytes; i += 4) {
      const d = fma(expClamped4(v128.load_splat<f32>(y + i)), minus, v128.load_splat<f32>(dy + i));
      v128.store_lane<f32>(dx + i, d, 0);
    }
  }
}

// Slots: 0 y, 1 dy, 2 dx, 3 rows, 4 rows a task, 5 cols.
export function softmaxVjp(p: usize, task: i32): void {
  const bytes = <usize>int(p, 5) << 2;
  const first = task * int(p, 4), last = min(int(p, 3), first + int(p, 4));
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, y = ptr(p, 0) + at, dy = ptr(p, 1) + at, dx = ptr(p, 2) + at;
    let s = f32x4.splat(0);
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) s = fma(v128.load(y + i), v128.load(dy + i), s);
    let mean = sumLanes(s);
    for (; i < bytes; i += 4) mean += load<f32>(y + i) * load<f32>(dy + i);
    for (i = 0; i + 16 <= bytes; i += 16)
      v128.store(dx + i, f32x4.mul(v128.load(y + i), f32x4.sub(v128.load(dy + i), f32x4.splat(mean))));
    for (; i < bytes; i += 4) store<f32>(dx + i, load<f32>(y + i) * (load<f32>(dy + i) - mean));
  }
}

// Slots: 0 logits, 1 targets, 2 losses, 3 lse, 4 rows, 5 rows a task, 6 cols.
export function crossEntropy(p: usize, task: i32): void {
  const cols = int(p, 6), bytes = <usize>cols << 2;
  const first = task * int(p, 5), last = min(int(p, 4), first + int(p, 5));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes, out = <usize>r << 2;
    const peak = rowMax(x, bytes), top = f32x4.splat(peak);
    let s0 = f32x4.splat(0), s1 = s0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, expClamped4(f32x4.sub(v128.load(x + i), top)));
      s1 = f32x4.add(s1, expClamped4(f32x4.sub(v128.load(x + i, 16), top)));
    }
    let sum = sumLanes(f32x4.add(s0, s1));
    for (; i < bytes; i += 4)
      sum += f32x4.extract_lane(expClamped4(f32x4.sub(v128.load_splat<f32>(x + i), top)), 0);
    const log = logf(sum);
    store<f32>(ptr(p, 3) + out, peak + log);
    const target = load<i32>(ptr(p, 1) + out);
    let loss: f32 = 0;
    if (target >= cols) loss = NaN;
    // Not lse − logit: lse is rounded at the size of the maximum, and the loss may be small.
    else if (target >= 0) loss = peak - load<f32>(x + (<usize>target << 2)) + log;
    store<f32>(ptr(p, 2) + out, loss);
  }
}

// @ts-ignore: decorator
@inline function fillRow(to: usize, bytes: usize, value: f32): void {
  for (let i: usize = 0; i < bytes; i += 4) store<f32>(to + i, value);
}

// Slots: 0 logits, 1 targets, 2 lse, 3 dlosses, 4 dlogits, 5 rows, 6 rows a task, 7 cols.
export function crossEntropyVjp(p: usize, task: i32): void {
  const cols = int(p, 7), bytes = <usize>cols << 2;
  const first = task * int(p, 6), last = min(int(p, 5), first + int(p, 6));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes, dx = ptr(p, 4) + <usize>r * bytes, at = <usize>r << 2;
    const target = load<i32>(ptr(p, 1) + at);
    if (target < 0 || target >= cols) {
      fillRow(dx, bytes, target < 0 ? 0 : NaN);
      continue;
    }
    const shift = f32x4.splat(load<f32>(ptr(p, 2) + at)), d = f32x4.splat(load<f32>(ptr(p, 3) + at));
    const hit = <usize>target << 2;
    const hitProb = expClamped4(f32x4.sub(v128.load_splat<f32>(x + hit), shift));
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16)
      v128.store(dx + i, f32x4.mul(expClamped4(f32x4.sub(v128.load(x + i), shift)), d));
    for (; i < bytes; i += 4) {
      const prob = expClamped4(f32x4.sub(v128.load_splat<f32>(x + i), shift));
      v128.store_lane<f32>(dx + i, f32x4.mul(prob, d), 0);
    }
    v128.store_lane<f32>(dx + hit, f32x4.mul(f32x4.sub(hitProb, f32x4.splat(1)), d), 0);
  }
}

// Slots: 0 logits, 1 targets, 2 lse, 3 dlogits, 4 dlosses, 5 rows, 6 rows a task, 7 cols.
export function crossEntropyJvp(p: usize, task: i32): void {
  const cols = int(p, 7), bytes = <usize>cols << 2;
  const first = task * int(p, 6), last = min(int(p, 5), first + int(p, 6));
  for (let r = first; r < last; r++) {
    const x = ptr(p, 0) + <usize>r * bytes, t = ptr(p, 3) + <usize>r * bytes, at = <usize>r << 2;
    const target = load<i32>(ptr(p, 1) + at);
    if (target < 0 || target >= cols) {
      store<f32>(ptr(p, 4) + at, target < 0 ? 0 : NaN);
      continue;
    }
    const shift = f32x4.splat(load<f32>(ptr(p, 2) + at));
    let s0 = f32x4.splat(0), s1 = s0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = fma(expClamped4(f32x4.sub(v128.load(x + i), shift)), v128.load(t + i), s0);
      s1 = fma(expClamped4(f32x4.sub(v128.load(x + i, 16), shift)), v128.load(t + i, 16), s1);
    }
    let sum = sumLanes(f32x4.add(s0, s1));
    for (; i < bytes; i += 4) {
      const prob = expClamped4(f32x4.sub(v128.load_splat<f32>(x + i), shift));
      sum += f32x4.extract_lane(prob, 0) * load<f32>(t + i);
    }
    store<f32>(ptr(p, 4) + at, sum - load<f32>(t + (<usize>target << 2)));
  }
}
