// Softmax and cross-entropy over rows.
import { logf } from "./functions";
import { expBelow4 } from "./math";
import { fma, storePair, sumLanes, sumPair, wide } from "./simd";
import {
  CrossEntropyJvpSlots, CrossEntropySlots, CrossEntropyVjpSlots, LogSoftmaxSlots, LogSoftmaxVjpSlots, SoftmaxSlots, SoftmaxVjpSlots,
} from "./slots";

// The maximum of a row. It ignores NaN, which the exponentials then propagate.
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

export function softmax(p: SoftmaxSlots, task: i32): void {
  const bytes = <usize>p.cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.x + <usize>r * bytes, y = p.y + <usize>r * bytes;
    const top = f32x4.splat(rowMax(x, bytes));
    let s = f32x4.splat(0), tail: f32 = 0;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const e = expBelow4(f32x4.sub(v128.load(x + i), top));
      v128.store(y + i, e);
      s = f32x4.add(s, e);
    }
    for (; i < bytes; i += 4) {
      const e = expBelow4(f32x4.sub(v128.load_splat<f32>(x + i), top));
      v128.store_lane<f32>(y + i, e, 0);
      tail += f32x4.extract_lane(e, 0);
    }
    const inverse: f32 = 1 / (sumLanes(s) + tail);
    for (i = 0; i + 16 <= bytes; i += 16) v128.store(y + i, f32x4.mul(v128.load(y + i), f32x4.splat(inverse)));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) * inverse);
  }
}

export function logSoftmax(p: LogSoftmaxSlots, task: i32): void {
  const bytes = <usize>p.cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.x + <usize>r * bytes, y = p.y + <usize>r * bytes;
    const peak = rowMax(x, bytes), top = f32x4.splat(peak);
    let s0 = f32x4.splat(0), s1 = s0, tail: f32 = 0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, expBelow4(f32x4.sub(v128.load(x + i), top)));
      s1 = f32x4.add(s1, expBelow4(f32x4.sub(v128.load(x + i, 16), top)));
    }
    for (; i < bytes; i += 4)
      tail += f32x4.extract_lane(expBelow4(f32x4.sub(v128.load_splat<f32>(x + i), top)), 0);
    // The maximum and the logarithm are subtracted one after the other, because their sum would be rounded at the magnitude of the maximum.
    const log = logf(sumLanes(sumPair(s0, s1)) + tail), logs = f32x4.splat(log);
    for (i = 0; wide && i + 32 <= bytes; i += 32)
      storePair(y + i, f32x4.sub(f32x4.sub(v128.load(x + i), top), logs), f32x4.sub(f32x4.sub(v128.load(x + i, 16), top), logs));
    for (; i + 16 <= bytes; i += 16)
      v128.store(y + i, f32x4.sub(f32x4.sub(v128.load(x + i), top), logs));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(x + i) - peak - log);
  }
}

export function logSoftmaxVjp(p: LogSoftmaxVjpSlots, task: i32): void {
  const bytes = <usize>p.cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, y = p.y + at, dy = p.dy + at, dx = p.dx + at;
    let s0 = f32x4.splat(0), s1 = s0, tail: f32 = 0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, v128.load(dy + i));
      s1 = f32x4.add(s1, v128.load(dy + i, 16));
    }
    for (; i < bytes; i += 4) tail += load<f32>(dy + i);
    const minus = f32x4.splat(-(sumLanes(f32x4.add(s0, s1)) + tail));
    for (i = 0; wide && i + 32 <= bytes; i += 32) {
      const low = fma(expBelow4(v128.load(y + i)), minus, v128.load(dy + i));
      storePair(dx + i, low, fma(expBelow4(v128.load(y + i, 16)), minus, v128.load(dy + i, 16)));
    }
    for (; i + 16 <= bytes; i += 16)
      v128.store(dx + i, fma(expBelow4(v128.load(y + i)), minus, v128.load(dy + i)));
    for (; i < bytes; i += 4) {
      const d = fma(expBelow4(v128.load_splat<f32>(y + i)), minus, v128.load_splat<f32>(dy + i));
      v128.store_lane<f32>(dx + i, d, 0);
    }
  }
}

export function softmaxVjp(p: SoftmaxVjpSlots, task: i32): void {
  const bytes = <usize>p.cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, y = p.y + at, dy = p.dy + at, dx = p.dx + at;
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

export function crossEntropy(p: CrossEntropySlots, task: i32): void {
  const cols = p.cols, bytes = <usize>cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.logits + <usize>r * bytes, out = <usize>r << 2;
    const peak = rowMax(x, bytes), top = f32x4.splat(peak);
    let s0 = f32x4.splat(0), s1 = s0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = f32x4.add(s0, expBelow4(f32x4.sub(v128.load(x + i), top)));
      s1 = f32x4.add(s1, expBelow4(f32x4.sub(v128.load(x + i, 16), top)));
    }
    let sum = sumLanes(sumPair(s0, s1));
    for (; i < bytes; i += 4)
      sum += f32x4.extract_lane(expBelow4(f32x4.sub(v128.load_splat<f32>(x + i), top)), 0);
    const log = logf(sum);
    store<f32>(p.lse + out, peak + log);
    const target = load<i32>(p.targets + out);
    let loss: f32 = 0;
    if (target >= cols) loss = NaN;
    // The loss is not lse − logit, because lse is rounded at the magnitude of the maximum, and the loss may be much smaller.
    else if (target >= 0) loss = peak - load<f32>(x + (<usize>target << 2)) + log;
    store<f32>(p.losses + out, loss);
  }
}

// @ts-ignore: decorator
@inline function fillRow(to: usize, bytes: usize, value: f32): void {
  for (let i: usize = 0; i < bytes; i += 4) store<f32>(to + i, value);
}

export function crossEntropyVjp(p: CrossEntropyVjpSlots, task: i32): void {
  const cols = p.cols, bytes = <usize>cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.logits + <usize>r * bytes, dx = p.dlogits + <usize>r * bytes, at = <usize>r << 2;
    const target = load<i32>(p.targets + at);
    if (target < 0 || target >= cols) {
      fillRow(dx, bytes, target < 0 ? 0 : NaN);
      continue;
    }
    const shift = f32x4.splat(load<f32>(p.lse + at)), d = f32x4.splat(load<f32>(p.dlosses + at));
    const hit = <usize>target << 2;
    const hitProb = expBelow4(f32x4.sub(v128.load_splat<f32>(x + hit), shift));
    let i: usize = 0;
    for (; wide && i + 32 <= bytes; i += 32) {
      const low = f32x4.mul(expBelow4(f32x4.sub(v128.load(x + i), shift)), d);
      storePair(dx + i, low, f32x4.mul(expBelow4(f32x4.sub(v128.load(x + i, 16), shift)), d));
    }
    for (; i + 16 <= bytes; i += 16)
      v128.store(dx + i, f32x4.mul(expBelow4(f32x4.sub(v128.load(x + i), shift)), d));
    for (; i < bytes; i += 4) {
      const prob = expBelow4(f32x4.sub(v128.load_splat<f32>(x + i), shift));
      v128.store_lane<f32>(dx + i, f32x4.mul(prob, d), 0);
    }
    v128.store_lane<f32>(dx + hit, f32x4.mul(f32x4.sub(hitProb, f32x4.splat(1)), d), 0);
  }
}

export function crossEntropyJvp(p: CrossEntropyJvpSlots, task: i32): void {
  const cols = p.cols, bytes = <usize>cols << 2;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.logits + <usize>r * bytes, t = p.dlogits + <usize>r * bytes, at = <usize>r << 2;
    const target = load<i32>(p.targets + at);
    if (target < 0 || target >= cols) {
      store<f32>(p.dlosses + at, target < 0 ? 0 : NaN);
      continue;
    }
    const shift = f32x4.splat(load<f32>(p.lse + at));
    let s0 = f32x4.splat(0), s1 = s0;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      s0 = fma(expBelow4(f32x4.sub(v128.load(x + i), shift)), v128.load(t + i), s0);
      s1 = fma(expBelow4(f32x4.sub(v128.load(x + i, 16), shift)), v128.load(t + i, 16), s1);
    }
    let sum = sumLanes(sumPair(s0, s1));
    for (; i < bytes; i += 4) {
      const prob = expBelow4(f32x4.sub(v128.load_splat<f32>(x + i), shift));
      sum += f32x4.extract_lane(prob, 0) * load<f32>(t + i);
    }
    store<f32>(p.dlosses + at, sum - load<f32>(t + (<usize>target << 2)));
  }
}
