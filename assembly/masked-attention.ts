// Attention of queries [batch, heads, time, D] over keys and values [batch, kvHeads, keys, D] with an additive mask, a query at a time.
import { logf } from "./functions";
import { exp4 } from "./math";
import { float, fma, int, ptr, scratch, sumLanes } from "./simd";

// Slots: 0 q, 1 k, 2 v, 3 mask or 0, 4 o, 5 lse, 6 … what the kernel has besides, 12 time, 13 keys, 14 heads, 15 kvHeads, 16 headDim, 17 causal,
// 18 items of the mask, 19 heads of the mask, 20 queries a task, 21 tasks a head. Floats: 0 scale. Scratch: rows of keys, rounded up to four.

function dotRow(a: usize, b: usize, bytes: usize): f32 {
  let sum = f32x4.splat(0);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) sum = fma(v128.load(a + i), v128.load(b + i), sum);
  let total = sumLanes(sum);
  for (; i < bytes; i += 4) total += load<f32>(a + i) * load<f32>(b + i);
  return total;
}

// to += scale·x
function addScaled(to: usize, x: usize, scale: f32, bytes: usize): void {
  const factor = f32x4.splat(scale);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, fma(factor, v128.load(x + i), v128.load(to + i)));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(to + i) + scale * load<f32>(x + i));
}

// @ts-ignore: decorator
@inline function rowBytes(p: usize): usize {
  return <usize>int(p, 16) << 2;
}

// Where the row of a query (item·heads + head)·time + t is, in operands of its shape.
// @ts-ignore: decorator
@inline function queryAt(p: usize, head: i32, t: i32): usize {
  return <usize>(head * int(p, 12) + t) * rowBytes(p);
}

// Where the first key or value is that a query head reads.
function keysAt(p: usize, head: i32): usize {
  const heads = int(p, 14), kvHeads = int(p, 15);
  const kvHead = (head / heads) * kvHeads + ((head % heads) * kvHeads) / heads;
  return <usize>(kvHead * int(p, 13)) * rowBytes(p);
}

// How many keys, from the first, a query may see: with `causal` the last query sees all.
// @ts-ignore: decorator
@inline function seen(p: usize, t: i32): i32 {
  const keys = int(p, 13);
  return int(p, 17) ? max(0, min(keys, t + 1 + keys - int(p, 12))) : keys;
}

// row[s] = scale·⟨q, k_s⟩ + mask for the keys that are seen, −∞ up to the next multiple of four. Gives the largest.
function scoreRow(p: usize, head: i32, t: i32, count: i32, row: usize): f32 {
  const bytes = rowBytes(p), q = ptr(p, 0) + queryAt(p, head, t), scale = float(p, 0);
  let k = ptr(p, 1) + keysAt(p, head), mask: usize = 0;
  if (ptr(p, 3)) {
    const heads = int(p, 14), item = (head / heads) % int(p, 18), own = (head % heads) % int(p, 19);
    mask = ptr(p, 3) + (<usize>(((item * int(p, 19) + own) * int(p, 12) + t) * int(p, 13)) << 2);
  }
  let most: f32 = -Infinity;
  for (let s = 0; s < count; s++) {
    let score = scale * dotRow(q, k, bytes);
    if (mask) score += load<f32>(mask + (<usize>s << 2));
    store<f32>(row + (<usize>s << 2), score);
    most = max(most, score);
    k += bytes;
  }
  for (let s = count; s & 3; s++) store<f32>(row + (<usize>s << 2), -Infinity);
  return most;
}

// row = exp(row − shift); gives the sum.
function exponentials(row: usize, count: i32, shift: f32): f32 {
  const top = f32x4.splat(shift);
  let sum = f32x4.splat(0);
  for (let s = 0; s < count; s += 4) {
    const at = row + (<usize>s << 2), value = exp4(f32x4.sub(v128.load(at), top));
    v128.store(at, value);
    sum = f32x4.add(sum, value);
  }
  return sumLanes(sum);
}

// The weights of a query from its lse; gives how many there are, 0 where it sees nothing.
function weightRow(p: usize, head: i32, t: i32, row: usize): i32 {
  const lse = load<f32>(ptr(p, 5) + (<usize>(head * int(p, 12) + t) << 2)), count = seen(p, t);
  if (count == 0 || lse == -Infinity) return 0;
  scoreRow(p, head, t, count, row);
  exponentials(row, count, lse);
  return count;
}

export function maskedAttention(p: usize, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), head = task / int(p, 21);
  const first = (task % int(p, 21)) * int(p, 20), last = min(int(p, 12), first + int(p, 20));
  for (let t = first; t < last; t++) {
    const o = ptr(p, 4) + queryAt(p, head, t), lse = ptr(p, 5) + (<usize>(head * int(p, 12) + t) << 2);
    const count = seen(p, t), most = scoreRow(p, head, t, count, row);
    memory.fill(o, 0, bytes);
    if (most == -Infinity) {
      store<f32>(lse, -Infinity);
      continue;
    }
    const sum = exponentials(row, count, most);
    let v = ptr(p, 2) + keysAt(p, head);
    for (let s = 0; s < count; s++) {
      addScaled(o, v, load<f32>(row + (<usize>s << 2)) / sum, bytes);
      v += bytes;
    }
    store<f32>(lse, most + logf(sum));
  }
}

// A task takes a key/value head with all queries that read it. 6 do, 7 dq, 8 dk, 9 dv.
export function maskedAttentionVjp(p: usize, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), time = int(p, 12), heads = int(p, 14), kvHeads = int(p, 15);
  const size = <usize>int(p, 13) * bytes, own = <usize>task * size, scale = float(p, 0);
  memory.fill(ptr(p, 8) + own, 0, size);
  memory.fill(ptr(p, 9) + own, 0, size);
  const group = heads / kvHeads, start = (task / kvHeads) * heads + (task % kvHeads) * group;
  for (let head = start; head < start + group; head++)
    for (let t = 0; t < time; t++) {
      const at = queryAt(p, head, t), q = ptr(p, 0) + at, dOut = ptr(p, 6) + at, dq = ptr(p, 7) + at;
      const mean = dotRow(dOut, ptr(p, 4) + at, bytes), count = weightRow(p, head, t, row);
      memory.fill(dq, 0, bytes);
      for (let s = 0; s < count; s++) {
        const key = own + <usize>s * bytes, weight = load<f32>(row + (<usize>s << 2));
        const slope = scale * weight * (dotRow(dOut, ptr(p, 2) + key, bytes) - mean);
        addScaled(dq, ptr(p, 1) + key, slope, bytes);
        addScaled(ptr(p, 8) + key, q, slope, bytes);
        addScaled(ptr(p, 9) + key, dOut, weight, bytes);
      }
    }
}

// 6 tangent of q, 7 of k, 8 of v, 9 of o.
export function maskedAttentionJvp(p: usize, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), head = task / int(p, 21), keys = keysAt(p, head), scale = float(p, 0);
  const first = (task % int(p, 21)) * int(p, 20), last = min(int(p, 12), first + int(p, 20));
  for (let t = first; t < last; t++) {
    const at = queryAt(p, head, t), out = ptr(p, 9) + at, count = weightRow(p, head, t, row);
    memory.fill(out, 0, bytes);
    let mean: f32 = 0;
    for (let s = 0; s < count; s++) {
      const key = keys + <usize>s * bytes, weight = load<f32>(row + (<usize>s << 2));
      const slope =
        scale * (dotRow(ptr(p, 6) + at, ptr(p, 1) + key, bytes) + dotRow(ptr(p, 0) + at, ptr(p, 7) + key, bytes));
      mean += weight * slope;
      addScaled(out, ptr(p, 2) + key, weight * slope, bytes);
      addScaled(out, ptr(p, 8) + key, weight, bytes);
    }
    addScaled(out, ptr(p, 4) + at, -mean, bytes);
  }
}
