// Causal attention: forward, vjp and jvp.
//
// A task processes the queries of a head, or a part of them (vjp: all heads that share a key/value head). It packs keys and
// values into panels in its scratch (transposed ones for the scores, rows of 8 columns for sums over keys), then processes strips of 4 queries. The scores of a strip with all visible keys are stored
// in scratch as tiles, so every product runs in a 4×8 register tile and softmax needs no rescaling; nothing of size
// time × time is stored. The vjp processes blocks of QUERIES queries and KEY_CHUNK keys. Head sizes are padded to a multiple of 8
// with zeros.
//
// A tile is 4 queries × 8 keys in two halves of 4 keys, `step` bytes apart; the rows of a half are 16 bytes apart. All halves of
// a strip are at this distance, so a query's scores are vectors `step` bytes apart.
import {
  ATTENTION_KEYS as KEY_CHUNK, ATTENTION_NEAR as NEAR, ATTENTION_QUERIES as QUERIES, ATTENTION_STRIP as STRIP,
} from "../src/backends/cpu/blocks";
import { expClamped4, log4 } from "./functions";
import { expBelow4 } from "./math";
import { fma, scratch, sumLanes } from "./simd";
import { AttentionJvpSlots, AttentionSlots, AttentionVjpSlots } from "./slots";

const OUT_TILE: usize = 128; // bytes of an output tile [4][8]
const STRIP_STEP: usize = 16 * STRIP;
const BLOCK_STEP: usize = 16 * QUERIES;

// The loops below take two steps of the sum at a time. With longer bodies V8 spills accumulators, and so it does with arithmetic behind the loop, or with 6×8 tiles.

// Scores: row r of a tile = Σ_k a[r][k]·b[k][8]. `a` is in a row panel: `blocks` blocks [4 rows][8 columns], `next` bytes apart.
function product(a: usize, next: usize, blocks: i32, b: usize, tile: usize, step: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  for (; blocks > 0; blocks--) {
    const end = a + 32;
    do {
      let b0 = v128.load(b, 0), b1 = v128.load(b, 16);
      let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(a, 32); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(a, 64); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(a, 96); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      b0 = v128.load(b, 32); b1 = v128.load(b, 48);
      x = v128.load_splat<f32>(a, 4); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(a, 36); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(a, 68); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(a, 100); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      a += 8; b += 64;
    } while (a < end);
    a += next - 32;
  }
  const high = tile + step;
  v128.store(tile, c00, 0); v128.store(high, c01, 0); v128.store(tile, c10, 16); v128.store(high, c11, 16);
  v128.store(tile, c20, 32); v128.store(high, c21, 32); v128.store(tile, c30, 48); v128.store(high, c31, 48);
}

// Writes init[4][8] + Σ_keys p[query][key]·v[key][8] to 4 rows `ld` bytes apart; without `init` (0) the sum alone. Takes two keys at a time: `p` advances by
// 8 bytes, then to the next half tile.
function contract(p: usize, step: usize, v: usize, pairs: i32, init: usize, to: usize, ld: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  if (init != 0) {
    c00 = v128.load(init, 0); c01 = v128.load(init, 16); c10 = v128.load(init, 32); c11 = v128.load(init, 48);
    c20 = v128.load(init, 64); c21 = v128.load(init, 80); c30 = v128.load(init, 96); c31 = v128.load(init, 112);
  }
  let next: usize = 8;
  for (; pairs > 0; pairs--) {
    let b0 = v128.load(v, 0), b1 = v128.load(v, 16);
    let x = v128.load_splat<f32>(p, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 16); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 32); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 48); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(v, 32); b1 = v128.load(v, 48);
    x = v128.load_splat<f32>(p, 4); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 20); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 36); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 52); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    p += next; next = step - next; v += 64;
  }
  v128.store(to, c00); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30); v128.store(to, c31, 16);
}

// Writes init[4 keys][8] + Σ_queries p[query][4 keys]·b[query][8], over an even number of queries, to 4 rows `ld` bytes apart; without `init` (0) the sum alone.
function transposed(p: usize, b: usize, queries: i32, init: usize, to: usize, ld: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  if (init != 0) {
    c00 = v128.load(init, 0); c01 = v128.load(init, 16); c10 = v128.load(init, 32); c11 = v128.load(init, 48);
    c20 = v128.load(init, 64); c21 = v128.load(init, 80); c30 = v128.load(init, 96); c31 = v128.load(init, 112);
  }
  for (; queries > 0; queries -= 2) {
    let b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(p, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(b, 32); b1 = v128.load(b, 48);
    x = v128.load_splat<f32>(p, 16); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 20); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 24); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 28); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    p += 32; b += 64;
  }
  v128.store(to, c00); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30); v128.store(to, c31, 16);
}

// --- Packing. `from` is the first element of the first row, `stride` bytes between rows, `size` the head size.

// Reads a word of each cache line of `rows` rows of `bytes` bytes, and stores the sum at `sink`, so that the reads are not removed. They wait for nothing, so many lines
// arrive at a time. Without this, packing waits for few lines at a time, and stores of results for one after another.
function touch(from: usize, stride: usize, rows: i32, bytes: usize, sink: usize): void {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    const end = from + bytes - 4;
    for (let at = from; at < end; at += 64) sum += load<i32>(at);
    sum += load<i32>(end);
    from += stride;
  }
  store<i32>(sink, sum);
}

// Transposed panels of 8 rows, [panel][size padded to 8][8]; rows beyond `rows` are zero.
function packTransposed(from: usize, stride: usize, rows: i32, size: i32, to: usize): void {
  const padded = (size + 7) & ~7;
  for (let row = 0; row < rows; row += 4) {
    const count = rows - row, a = from + <usize>row * stride;
    let out = to + (<usize>(row & ~7) * <usize>padded << 2) + (<usize>(row & 4) << 2);
    let d = 0;
    if (count >= 4)
      for (; d + 4 <= size; d += 4) {
        const at = a + (<usize>d << 2);
        const r0 = v128.load(at), r1 = v128.load(at + stride);
        const r2 = v128.load(at + 2 * stride), r3 = v128.load(at + 3 * stride);
        const low0 = i32x4.shuffle(r0, r1, 0, 4, 1, 5), high0 = i32x4.shuffle(r0, r1, 2, 6, 3, 7);
        const low1 = i32x4.shuffle(r2, r3, 0, 4, 1, 5), high1 = i32x4.shuffle(r2, r3, 2, 6, 3, 7);
        v128.store(out, i64x2.shuffle(low0, low1, 0, 2));
        v128.store(out, i64x2.shuffle(low0, low1, 1, 3), 32);
        v128.store(out, i64x2.shuffle(high0, high1, 0, 2), 64);
        v128.store(out, i64x2.shuffle(high0, high1, 1, 3), 96);
        out += 128;
      }
    for (; d < padded; d++) {
      for (let r = 0; r < 4; r++) {
        const inside = r < count && d < size;
        const x: f32 = inside ? load<f32>(a + <usize>r * stride + (<usize>d << 2)) : 0;
        store<f32>(out + (<usize>r << 2), x);
      }
      out += 32;
    }
    // The other half of the last panel.
    if (count <= 4 && (row & 4) == 0)
      for (out -= <usize>padded << 5, d = 0; d < padded; d++, out += 32) v128.store(out, f32x4.splat(0), 16);
  }
}

// Row panels, [block of 8 columns][`panelRows` rows][8], times `scale`; rows beyond `rows` are zero.
function packRows(from: usize, stride: usize, rows: i32, size: i32, panelRows: i32, scale: f32, to: usize): void {
  const factor = f32x4.splat(scale);
  for (let d = 0; d < size; d += 8) {
    let source = from + (<usize>d << 2);
    if (d + 8 <= size)
      for (let r = 0; r < rows; r++, source += stride, to += 32) {
        v128.store(to, f32x4.mul(v128.load(source), factor));
        v128.store(to, f32x4.mul(v128.load(source, 16), factor), 16);
      }
    else
      for (let r = 0; r < rows; r++, source += stride, to += 32)
        for (let i = 0; i < 8; i++)
          store<f32>(to + (<usize>i << 2), d + i < size ? load<f32>(source + (<usize>i << 2)) * scale : 0);
    const missing = <usize>(panelRows - rows) << 5;
    if (missing > 0) memory.fill(to, 0, missing);
    to += missing;
  }
}

// Writes the first `rows` rows and `columns` columns of a tile [4][8] to rows `ld` bytes apart.
function clipTile(tile: usize, rows: i32, columns: i32, to: usize, ld: usize): void {
  for (let r = min(STRIP, rows); r > 0; r--) {
    for (let i = min(8, columns) - 1; i >= 0; i--) store<f32>(to + (<usize>i << 2), load<f32>(tile + (<usize>i << 2)));
    tile += 32; to += ld;
  }
}

// --- Rows of scores. A vector holds keys first … first+3; those from `valid` on are masked.

// @ts-ignore: decorator
@inline function keyMask(first: i32, valid: i32): v128 {
  return i32x4.lt_s(i32x4.add(i32x4.splat(first), i32x4(0, 1, 2, 3)), i32x4.splat(valid));
}

// The scores, with −∞ for masked keys.
// @ts-ignore: decorator
@inline function visible(at: usize, valid: i32): v128 {
  const x = v128.bitselect(v128.load(at), f32x4.splat(-Infinity), keyMask(0, valid));
  v128.store(at, x);
  return x;
}

// @ts-ignore: decorator
@inline function exponential(at: usize, top: v128, sum: v128): v128 {
  const e = expBelow4(f32x4.sub(v128.load(at), top));
  v128.store(at, e);
  return f32x4.add(sum, e);
}

// @ts-ignore: decorator
@inline function evens(a: v128, b: v128): v128 { return v128.shuffle<f32>(a, b, 0, 2, 4, 6); }
// @ts-ignore: decorator
@inline function odds(a: v128, b: v128): v128 { return v128.shuffle<f32>(a, b, 1, 3, 5, 7); }

// The unnormalised softmax of a strip's rows in place: row r gets e^{score − max} for keys up to first + r, and 0 beyond. Writes 1/Σ of each row to `inverse`, and returns
// the log-sum-exps. Keys are masked only in the last half tile that is seen, whose first key is `first`.
function softmaxStrip(strip: usize, first: i32, inverse: usize): v128 {
  const tail = strip + <usize>(first >> 2) * STRIP_STEP, end = tail + STRIP_STEP;
  let m0 = visible(tail, 1), m1 = visible(tail + 16, 2), m2 = visible(tail + 32, 3), m3 = v128.load(tail, 48);
  for (let at = strip; at < tail; at += STRIP_STEP) {
    m0 = f32x4.pmax(v128.load(at), m0);
    m1 = f32x4.pmax(v128.load(at, 16), m1);
    m2 = f32x4.pmax(v128.load(at, 32), m2);
    m3 = f32x4.pmax(v128.load(at, 48), m3);
  }
  m0 = f32x4.pmax(evens(m0, m1), odds(m0, m1));
  m2 = f32x4.pmax(evens(m2, m3), odds(m2, m3));
  const top = f32x4.pmax(evens(m0, m2), odds(m0, m2));
  m0 = v128.shuffle<f32>(top, top, 0, 0, 0, 0);
  m1 = v128.shuffle<f32>(top, top, 1, 1, 1, 1);
  m2 = v128.shuffle<f32>(top, top, 2, 2, 2, 2);
  m3 = v128.shuffle<f32>(top, top, 3, 3, 3, 3);
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let at = strip;
  do {
    s0 = exponential(at, m0, s0);
    s1 = exponential(at + 16, m1, s1);
    s2 = exponential(at + 32, m2, s2);
    s3 = exponential(at + 48, m3, s3);
    at += STRIP_STEP;
  } while (at < end);
  s0 = f32x4.add(evens(s0, s1), odds(s0, s1));
  s2 = f32x4.add(evens(s2, s3), odds(s2, s3));
  const sum = f32x4.add(evens(s0, s2), odds(s0, s2));
  v128.store(inverse, f32x4.div(f32x4.splat(1), sum));
  return f32x4.add(top, log4(sum));
}

// Replaces scores p and their gradients d by p = e^{score − lse}, d = p·(d − delta).
// @ts-ignore: decorator
@inline function gradient4(p: usize, d: usize, lse: v128, delta: v128): void {
  const e = expBelow4(f32x4.sub(v128.load(p), lse));
  v128.store(p, e);
  v128.store(d, f32x4.mul(e, f32x4.sub(v128.load(d), delta)));
}

// Like gradient4, with zeros for keys from `valid` on.
// @ts-ignore: decorator
@inline function masked4(p: usize, d: usize, lse: v128, delta: v128, key: i32, valid: i32): void {
  const mask = keyMask(key, valid), e = v128.and(mask, expBelow4(f32x4.sub(v128.load(p), lse)));
  v128.store(p, e);
  v128.store(d, v128.and(mask, f32x4.mul(e, f32x4.sub(v128.load(d), delta))));
}

// Applies gradient4 to the scores of a strip of a block. Row r sees the keys below `valid` + r; rows from `rows` on see none.
function scoreGradients(p: usize, d: usize, valid: i32, rows: i32, halves: i32, lse: usize, deltas: usize): void {
  const l0 = v128.load_splat<f32>(lse), l1 = v128.load_splat<f32>(lse, 4);
  const l2 = v128.load_splat<f32>(lse, 8), l3 = v128.load_splat<f32>(lse, 12);
  const d0 = v128.load_splat<f32>(deltas), d1 = v128.load_splat<f32>(deltas, 4);
  const d2 = v128.load_splat<f32>(deltas, 8), d3 = v128.load_splat<f32>(deltas, 12);
  const whole = rows >= STRIP ? min(halves, max(0, valid >> 2)) : 0;
  let half = 0;
  for (; half < whole; half++) {
    gradient4(p, d, l0, d0);
    gradient4(p + 16, d + 16, l1, d1);
    gradient4(p + 32, d + 32, l2, d2);
    gradient4(p + 48, d + 48, l3, d3);
    p += BLOCK_STEP; d += BLOCK_STEP;
  }
  for (; half < halves; half++) {
    const key = half << 2;
    masked4(p, d, l0, d0, key, rows > 0 ? valid : 0);
    masked4(p + 16, d + 16, l1, d1, key, rows > 1 ? valid + 1 : 0);
    masked4(p + 32, d + 32, l2, d2, key, rows > 2 ? valid + 2 : 0);
    masked4(p + 48, d + 48, l3, d3, key, rows > 3 ? valid + 3 : 0);
    p += BLOCK_STEP; d += BLOCK_STEP;
  }
}

// Replaces one row of a strip's scores p and their tangents t by p = e^{score − lse}, t = p·(t − Σ p·t), with zeros from key `valid` on.
function scoreTangent(p: usize, t: usize, valid: i32, blocks: i32, lse: f32): void {
  const shift = f32x4.splat(lse), end = <usize>(2 * blocks) * STRIP_STEP;
  let sum = f32x4.splat(0);
  for (let at: usize = 0, key = 0; at < end; at += STRIP_STEP, key += 4) {
    const e = v128.and(keyMask(key, valid), expClamped4(f32x4.sub(v128.load(p + at), shift)));
    v128.store(p + at, e);
    sum = fma(e, v128.load(t + at), sum);
  }
  const mean = f32x4.splat(sumLanes(sum));
  for (let at: usize = 0; at < end; at += STRIP_STEP)
    v128.store(t + at, f32x4.mul(v128.load(p + at), f32x4.sub(v128.load(t + at), mean)));
}

// out[r] = ⟨a_r, b_r⟩.
function rowDots(a: usize, b: usize, stride: usize, rows: i32, size: i32, out: usize): void {
  const bytes = <usize>size << 2;
  for (let r = 0; r < rows; r++) {
    let sum = f32x4.splat(0);
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) sum = fma(v128.load(a + i), v128.load(b + i), sum);
    let total = sumLanes(sum);
    for (; i < bytes; i += 4) total += load<f32>(a + i) * load<f32>(b + i);
    store<f32>(out + (<usize>r << 2), total);
    a += stride;
    b += stride;
  }
}

// --- Kernels. Below, d₈ and t₈ are headDim and time rounded up to multiples of 8.

// @ts-ignore: decorator
@inline function rowBytes(heads: i32, kvHeads: i32, size: i32): usize {
  return <usize>((heads + 2 * kvHeads) * size) << 2;
}

// Tasks: (batch item, query head, part of the queries), the longest part first. Scratch floats: 2·d₈·t₈ + 4·d₈ +
// 4·t₈ + 40.
export function attention(p: AttentionSlots, task: i32): void {
  const time = p.time, heads = p.heads, kvHeads = p.kvHeads, size = p.headDim;
  const queries = p.queriesPerTask, parts = p.parts;
  const part = parts - 1 - task % parts, pair = task / parts, b = pair / heads, h = pair % heads;
  const kvHead = (h * kvHeads) / heads;
  const stride = rowBytes(heads, kvHeads, size), item = p.qkv + <usize>b * <usize>time * stride;
  const q = item + (<usize>(h * size) << 2);
  const k = item + (<usize>((heads + kvHead) * size) << 2);
  const v = item + (<usize>((heads + kvHeads + kvHead) * size) << 2);
  const outStride = <usize>(heads * size) << 2;
  const o = p.o + <usize>b * <usize>time * outStride + (<usize>(h * size) << 2);
  const lse = p.lse + (<usize>(b * heads + h) * <usize>time << 2);

  const first = part * queries, last = min(time, first + queries);
  const padded = (size + 7) & ~7, keyBlocks = (last + 7) >> 3;
  const keyPanel = <usize>padded << 5, valuePanel = <usize>keyBlocks << 8, area = <usize>keyBlocks * keyPanel;
  const keys = scratch(p), values = keys + area;
  const query = values + area, tile = query + (<usize>padded << 4), inverse = tile + OUT_TILE;
  const strip = inverse + 32;
  if (<usize>time * stride <= <usize>NEAR) {
    // The first task of a window, for all its heads, whose rows share lines.
    if (task % (heads * parts) == 0) {
      touch(item, 0, 1, <usize>time * stride, tile);
      touch(p.o + <usize>b * <usize>time * outStride, 0, 1, <usize>time * outStride, tile);
    }
  } else {
    touch(k, stride, last, <usize>size << 2, tile);
    touch(v, stride, last, <usize>size << 2, tile);
    touch(q + <usize>first * stride, stride, last - first, <usize>size << 2, tile);
  }
  packTransposed(k, stride, last, size, keys);
  packRows(v, stride, last, size, keyBlocks << 3, 1, values);

  for (let i = first; i < last; i += STRIP) {
    const rows = min(STRIP, last - i);
    packRows(q + <usize>i * stride, stride, rows, size, STRIP, p.scale, query);
    for (let j = 0, blocks = (i + rows + 7) >> 3; j < blocks; j++)
      product(query, STRIP << 5, padded >> 3, keys + <usize>j * keyPanel, strip + <usize>(2 * j) * STRIP_STEP, STRIP_STEP);
    const sums = softmaxStrip(strip, i, inverse), to = lse + (<usize>i << 2);
    if (rows == STRIP) v128.store(to, sums);
    else {
      v128.store_lane<f32>(to, sums, 0);
      if (rows > 1) v128.store_lane<f32>(to + 4, sums, 1);
      if (rows > 2) v128.store_lane<f32>(to + 8, sums, 2);
    }
    const pairs = (i + rows + 1) >> 1, out = o + <usize>i * outStride;
    for (let d = 0; d < size; d += 8) {
      const whole = rows == STRIP && d + 8 <= size, at = out + (<usize>d << 2);
      const panel = values + <usize>(d >> 3) * valuePanel;
      contract(strip, STRIP_STEP, panel, pairs, 0, tile, 32);
      for (let r: usize = 0; r < <usize>STRIP; r++) {
        const row = tile + (r << 5), factor = v128.load_splat<f32>(inverse + (r << 2)), to = whole ? at + r * outStride : row;
        const low = f32x4.mul(v128.load(row), factor), high = f32x4.mul(v128.load(row, 16), factor);
        v128.store(to, low);
        v128.store(to, high, 16);
      }
      if (!whole) clipTile(tile, rows, size - d, at, outStride);
    }
  }
}

// Tasks: (batch item, key/value head); the query heads that share it are processed one after another. Scratch floats: 5·d₈·t₈ +
// 3·QUERIES·d₈ + QUERIES + 2·QUERIES·KEY_CHUNK.
export function attentionVjp(p: AttentionVjpSlots, task: i32): void {
  const time = p.time, heads = p.heads, kvHeads = p.kvHeads, size = p.headDim;
  const b = task / kvHeads, kvHead = task % kvHeads;
  const stride = rowBytes(heads, kvHeads, size), offset = <usize>b * <usize>time * stride;
  const item = p.qkv + offset, dItem = p.dqkv + offset;
  const kAt = <usize>((heads + kvHead) * size) << 2, vAt = <usize>((heads + kvHeads + kvHead) * size) << 2;
  const outStride = <usize>(heads * size) << 2;
  const scale = p.scale;

  const padded = (size + 7) & ~7, keyBlocks = (time + 7) >> 3;
  const keyPanel = <usize>padded << 5, rowPanel = <usize>keyBlocks << 8, area = <usize>keyBlocks * keyPanel;
  const stripPanel = <usize>padded << 4; // a strip's dq as output tiles
  const block = <usize>(QUERIES * padded) << 2;
  const queryPanel: usize = QUERIES << 5; // 8 columns of a block of queries
  const keysT = scratch(p), valuesT = keysT + area, keyRows = valuesT + area;
  const dKeys = keyRows + area, dValues = dKeys + area;
  const queryRows = dValues + area, doRows = queryRows + block;
  const dQueries = doRows + block, deltas = dQueries + block;
  const probs = deltas + (QUERIES << 2), dScores = probs + <usize>((QUERIES * KEY_CHUNK) << 2);

  const near = <usize>time * stride <= <usize>NEAR, bytes = <usize>size << 2;
  if (!near) {
    touch(item + kAt, stride, time, bytes, deltas);
    touch(item + vAt, stride, time, bytes, deltas);
  } else if (kvHead == 0) {
    const window = <usize>time * stride, outWindow = <usize>time * outStride, outFrom = <usize>b * outWindow;
    touch(item, 0, 1, window, deltas);
    touch(p.o + outFrom, 0, 1, outWindow, deltas);
    touch(p.dOut + outFrom, 0, 1, outWindow, deltas);
    touch(dItem, 0, 1, window, deltas);
  }
  packTransposed(item + kAt, stride, time, size, keysT);
  packTransposed(item + vAt, stride, time, size, valuesT);
  packRows(item + kAt, stride, time, size, keyBlocks << 3, scale, keyRows);

  const group = heads / kvHeads, firstHead = kvHead * group, lastHead = firstHead + group - 1;
  for (let h = firstHead; h <= lastHead; h++) {
    const qAt = <usize>(h * size) << 2;
    const outAt = <usize>b * <usize>time * outStride + qAt;
    const o = p.o + outAt, dOut = p.dOut + outAt;
    const lse = p.lse + (<usize>(b * heads + h) * <usize>time << 2);

    for (let i = 0; i < time; i += QUERIES) {
      const rows = min(QUERIES, time - i), strips = (rows + 3) >> 2;
      const dqAt = dItem + qAt + <usize>i * stride;
      const qFrom = item + qAt + <usize>i * stride, doFrom = dOut + <usize>i * outStride;
      if (!near) {
        touch(qFrom, stride, rows, bytes, probs);
        touch(doFrom, outStride, rows, bytes, probs);
        touch(o + <usize>i * outStride, outStride, rows, bytes, probs);
      }
      packRows(qFrom, stride, rows, size, QUERIES, scale, queryRows);
      packRows(doFrom, outStride, rows, size, QUERIES, 1, doRows);
      rowDots(o + <usize>i * outStride, doFrom, outStride, rows, size, deltas);

      for (let j = 0; j < i + rows; j += KEY_CHUNK) {
        const ends = j + KEY_CHUNK >= i + rows;
        const first = j >> 3, chunkBlocks = (min(KEY_CHUNK, i + rows - j) + 7) >> 3;
        for (let s = 0; s < strips; s++) {
          const query = STRIP * s;
          // Number of keys that the strip's last query may see.
          const keys = min(KEY_CHUNK, i + min(query + STRIP, rows) - j), blocks = (keys + 7) >> 3;
          const p0 = probs + (<usize>query << 4), d0 = dScores + (<usize>query << 4);
          for (let n = 0; n < blocks; n++) {
            const panel = <usize>(first + n) * keyPanel, at = <usize>(2 * n) * BLOCK_STEP;
            const row = <usize>query << 5;
            product(queryRows + row, queryPanel, padded >> 3, keysT + panel, p0 + at, BLOCK_STEP);
            product(doRows + row, queryPanel, padded >> 3, valuesT + panel, d0 + at, BLOCK_STEP);
          }
          scoreGradients(
            p0, d0, i + query + 1 - j, rows - query, (keys + 3) >> 2,
            lse + (<usize>(i + query) << 2), deltas + (<usize>query << 2),
          );
          for (let d = 0; d < padded; d += 8) {
            const rowsAt = keyRows + <usize>(d >> 3) * rowPanel + (<usize>first << 8);
            const at = dQueries + <usize>s * stripPanel + <usize>(d >> 3) * OUT_TILE;
            const to = dqAt + <usize>query * stride + (<usize>d << 2);
            const whole = ends && query + STRIP <= rows && d + 8 <= size;
            contract(d0, BLOCK_STEP, rowsAt, (keys + 1) >> 1, j > 0 ? at : 0, whole ? to : at, whole ? stride : 32);
            if (ends && !whole) clipTile(at, rows - query, size - d, to, stride);
          }
        }
        for (let n = 0; n < 2 * chunkBlocks; n++) {
          const key = j + (n << 2);
          // The first strip with a query that sees these keys.
          const query = max(0, (key - i) & ~3), count = STRIP * strips - query;
          const from = <usize>n * BLOCK_STEP + (<usize>query << 4);
          // The first and the last of the sums over blocks of queries and over heads.
          const begins = h == firstHead && key >= i, ends = h == lastHead && i + rows == time;
          for (let d = 0; d < padded; d += 8) {
            const panel = <usize>(d >> 3) * rowPanel + (<usize>key << 5), dk = dKeys + panel, dv = dValues + panel;
            const queryAt = <usize>(d >> 3) * queryPanel + (<usize>query << 5);
            const to = dItem + <usize>key * stride + (<usize>d << 2);
            const whole = ends && key + 4 <= time && d + 8 <= size, ld = whole ? stride : 32;
            transposed(probs + from, doRows + queryAt, count, begins ? 0 : dv, whole ? to + vAt : dv, ld);
            transposed(dScores + from, queryRows + queryAt, count, begins ? 0 : dk, whole ? to + kAt : dk, ld);
            if (!ends || whole) continue;
            clipTile(dv, time - key, size - d, to + vAt, stride);
            clipTile(dk, time - key, size - d, to + kAt, stride);
          }
        }
      }
    }
  }
}

// Tasks as in `attention`. With S the scaled scores: do = (P ⊙ (dS − Σ P·dS))·v + P·dv, and dS = [dq, q]·[k, dk]ᵀ is one
// product of twice the depth. Scratch floats: 4·d₈·t₈ + 8·d₈ + 8·t₈ + 32.
export function attentionJvp(p: AttentionJvpSlots, task: i32): void {
  const time = p.time, heads = p.heads, kvHeads = p.kvHeads, size = p.headDim;
  const queries = p.queriesPerTask, parts = p.parts;
  const part = parts - 1 - task % parts, pair = task / parts, b = pair / heads, h = pair % heads;
  const kvHead = (h * kvHeads) / heads;
  const stride = rowBytes(heads, kvHeads, size), offset = <usize>b * <usize>time * stride;
  const item = p.qkv + offset, dItem = p.dqkv + offset;
  const qAt = <usize>(h * size) << 2;
  const kAt = <usize>((heads + kvHead) * size) << 2, vAt = <usize>((heads + kvHeads + kvHead) * size) << 2;
  const outStride = <usize>(heads * size) << 2;
  const dOut = p.dOut + <usize>b * <usize>time * outStride + qAt;
  const lse = p.lse + (<usize>(b * heads + h) * <usize>time << 2);
  const scale = p.scale;

  const first = part * queries, last = min(time, first + queries);
  const padded = (size + 7) & ~7, keyBlocks = (last + 7) >> 3;
  const keyPanel = <usize>padded << 5, valuePanel = <usize>keyBlocks << 8, area = <usize>keyBlocks * keyPanel;
  const keys = scratch(p), values = keys + 2 * area, dValues = values + area; // keys: panels of k and dk in turn
  const dQuery = dValues + area, query = dQuery + (<usize>padded << 4), tile = query + (<usize>padded << 4);
  const probs = tile + OUT_TILE, tangents = probs + <usize>(2 * keyBlocks) * STRIP_STEP;
  for (let j = 0; j < keyBlocks; j++) {
    const at = <usize>(8 * j) * stride, to = keys + <usize>(2 * j) * keyPanel, rows = min(8, last - 8 * j);
    packTransposed(item + kAt + at, stride, rows, size, to);
    packTransposed(dItem + kAt + at, stride, rows, size, to + keyPanel);
  }
  packRows(item + vAt, stride, last, size, keyBlocks << 3, 1, values);
  packRows(dItem + vAt, stride, last, size, keyBlocks << 3, 1, dValues);

  for (let i = first; i < last; i += STRIP) {
    const rows = min(STRIP, last - i), blocks = (i + rows + 7) >> 3;
    packRows(dItem + qAt + <usize>i * stride, stride, rows, size, STRIP, scale, dQuery);
    packRows(item + qAt + <usize>i * stride, stride, rows, size, STRIP, scale, query);
    for (let j = 0; j < blocks; j++) {
      const at = <usize>(2 * j) * STRIP_STEP, panel = keys + <usize>(2 * j) * keyPanel;
      product(query, STRIP << 5, padded >> 3, panel, probs + at, STRIP_STEP);
      product(dQuery, STRIP << 5, padded >> 2, panel, tangents + at, STRIP_STEP);
    }
    for (let r = 0; r < rows; r++) {
      const row = <usize>r << 4;
      scoreTangent(probs + row, tangents + row, i + r + 1, blocks, load<f32>(lse + (<usize>(i + r) << 2)));
    }
    const pairs = (i + rows + 1) >> 1, out = dOut + <usize>i * outStride;
    for (let d = 0; d < size; d += 8) {
      const whole = rows == STRIP && d + 8 <= size, at = out + (<usize>d << 2);
      const panel = <usize>(d >> 3) * valuePanel;
      contract(tangents, STRIP_STEP, values + panel, pairs, 0, tile, 32);
      contract(probs, STRIP_STEP, dValues + panel, pairs, tile, whole ? at : tile, whole ? outStride : 32);
      if (!whole) clipTile(tile, rows, size - d, at, outStride);
    }
  }
}
