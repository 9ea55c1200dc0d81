// Attention of queries [batch, heads, time, D] over keys and values [batch, kvHeads, keys, D] with an additive mask, one query at a time.
import { logf } from "./functions";
import { exp4 } from "./math";
import { fma, scratch, sumLanes } from "./simd";
import { MaskedAttentionJvpSlots, MaskedAttentionSlots, MaskedAttentionVjpSlots } from "./slots";

// Scratch: rows of `keys` elements, rounded up to a multiple of four.

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
@inline function rowBytes(p: MaskedAttentionSlots): usize {
  return <usize>p.headDim << 2;
}

// Offset of the row of a query, (item·heads + head)·time + t, in operands of its shape.
// @ts-ignore: decorator
@inline function queryAt(p: MaskedAttentionSlots, head: i32, t: i32): usize {
  return <usize>(head * p.time + t) * rowBytes(p);
}

// Offset of the first key or value that a query head reads.
function keysAt(p: MaskedAttentionSlots, head: i32): usize {
  const heads = p.heads, kvHeads = p.kvHeads;
  const kvHead = (head / heads) * kvHeads + ((head % heads) * kvHeads) / heads;
  return <usize>(kvHead * p.keys) * rowBytes(p);
}

// Number of keys, from the first, that query t may see. With `causal` the last query sees all keys.
// @ts-ignore: decorator
@inline function visibleKeys(p: MaskedAttentionSlots, t: i32): i32 {
  const keys = p.keys;
  return p.causal ? max(0, min(keys, t + 1 + keys - p.time)) : keys;
}

// Writes row[s] = scale·⟨q, k_s⟩ + mask for the visible keys, and −∞ up to the next multiple of four. Returns the largest score.
function scoreRow(p: MaskedAttentionSlots, head: i32, t: i32, count: i32, row: usize): f32 {
  const bytes = rowBytes(p), q = p.q + queryAt(p, head, t), scale = p.scale;
  let k = p.k + keysAt(p, head), mask: usize = 0;
  if (p.mask) {
    const heads = p.heads, item = (head / heads) % p.maskBatch, own = (head % heads) % p.maskHeads;
    mask = p.mask + (<usize>(((item * p.maskHeads + own) * p.time + t) * p.keys) << 2);
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

// Writes row = exp(row − shift) and returns the sum.
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

// Writes the weights of a query, from its lse. Returns their number, which is 0 if the query sees no key.
function weightRow(p: MaskedAttentionSlots, head: i32, t: i32, row: usize): i32 {
  const lse = load<f32>(p.lse + (<usize>(head * p.time + t) << 2)), count = visibleKeys(p, t);
  if (count == 0 || lse == -Infinity) return 0;
  scoreRow(p, head, t, count, row);
  exponentials(row, count, lse);
  return count;
}

export function maskedAttention(p: MaskedAttentionSlots, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), head = task / p.parts;
  const first = (task % p.parts) * p.queriesPerTask, last = min(p.time, first + p.queriesPerTask);
  for (let t = first; t < last; t++) {
    const o = p.o + queryAt(p, head, t), lse = p.lse + (<usize>(head * p.time + t) << 2);
    const count = visibleKeys(p, t), most = scoreRow(p, head, t, count, row);
    memory.fill(o, 0, bytes);
    if (most == -Infinity) {
      store<f32>(lse, -Infinity);
      continue;
    }
    const sum = exponentials(row, count, most);
    let v = p.v + keysAt(p, head);
    for (let s = 0; s < count; s++) {
      addScaled(o, v, load<f32>(row + (<usize>s << 2)) / sum, bytes);
      v += bytes;
    }
    store<f32>(lse, most + logf(sum));
  }
}

// A task processes a key/value head with all queries that read it. Operands: 6 do, 7 dq, 8 dk, 9 dv.
export function maskedAttentionVjp(p: MaskedAttentionVjpSlots, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), time = p.time, heads = p.heads, kvHeads = p.kvHeads;
  const size = <usize>p.keys * bytes, own = <usize>task * size, scale = p.scale;
  memory.fill(p.dk + own, 0, size);
  memory.fill(p.dv + own, 0, size);
  const group = heads / kvHeads, start = (task / kvHeads) * heads + (task % kvHeads) * group;
  for (let head = start; head < start + group; head++)
    for (let t = 0; t < time; t++) {
      const at = queryAt(p, head, t), q = p.q + at, dOut = p.dOut + at, dq = p.dq + at;
      const mean = dotRow(dOut, p.o + at, bytes), count = weightRow(p, head, t, row);
      memory.fill(dq, 0, bytes);
      for (let s = 0; s < count; s++) {
        const key = own + <usize>s * bytes, weight = load<f32>(row + (<usize>s << 2));
        const slope = scale * weight * (dotRow(dOut, p.v + key, bytes) - mean);
        addScaled(dq, p.k + key, slope, bytes);
        addScaled(p.dk + key, q, slope, bytes);
        addScaled(p.dv + key, dOut, weight, bytes);
      }
    }
}

// Operands: the tangents 6 of q, 7 of k, 8 of v, 9 of o.
export function maskedAttentionJvp(p: MaskedAttentionJvpSlots, task: i32): void {
  const bytes = rowBytes(p), row = scratch(p), head = task / p.parts, keys = keysAt(p, head), scale = p.scale;
  const first = (task % p.parts) * p.queriesPerTask, last = min(p.time, first + p.queriesPerTask);
  for (let t = first; t < last; t++) {
    const at = queryAt(p, head, t), out = p.dOut + at, count = weightRow(p, head, t, row);
    memory.fill(out, 0, bytes);
    let mean: f32 = 0;
    for (let s = 0; s < count; s++) {
      const key = keys + <usize>s * bytes, weight = load<f32>(row + (<usize>s << 2));
      const slope =
        scale * (dotRow(p.dq + at, p.k + key, bytes) + dotRow(p.q + at, p.dk + key, bytes));
      mean += weight * slope;
      addScaled(out, p.v + key, weight * slope, bytes);
      addScaled(out, p.dv + key, weight, bytes);
    }
    addScaled(out, p.o + at, -mean, bytes);
  }
}
