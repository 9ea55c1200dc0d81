// Causal attention: forward, vjp and jvp.
//
// A task processes the queries of a head, or a part of them (vjp: all heads that share a key/value head). It packs keys and
// values into panels in its scratch (transposed ones for the scores, rows of 8 columns for sums over keys), then processes strips of 4 queries. The scores of a strip with all visible keys are stored
// in scratch as tiles, so every product runs in a 4×8 register tile and softmax needs no rescaling; nothing of size
// time × time is stored. The vjp processes blocks of QUERIES queries and KEY_CHUNK keys. Head sizes are padded to a multiple of 8
// with zeros.
//
// A tile is 4 queries × 8 keys, in rows of 32 bytes; the tiles of a strip are `step` bytes apart. Both halves of a row are computed before either is stored, so that V8
// can make one vector of them (`wide` in simd.ts).
import {
  ATTENTION_KEYS as KEY_CHUNK, ATTENTION_NEAR as NEAR, ATTENTION_QUERIES as QUERIES, ATTENTION_STRIP as STRIP,
} from "../src/backends/cpu/blocks";
import { expClamped4, log4 } from "./functions";
import { expBelow4 } from "./math";
import { fma, scratch, storePair, sumLanes, wide } from "./simd";
import { AttentionJvpSlots, AttentionSlots, AttentionVjpSlots } from "./slots";

const TILE: usize = 128; // bytes of a tile [4][8]
const BLOCK_STEP: usize = 32 * QUERIES;

// The narrow loops below take two steps of the sum at a time. With longer bodies V8 spills accumulators, and so it does with arithmetic behind the loop, or with 6×8 tiles.

// Writes init[4][8] + Σ_k a[row][k]·b[k][8], over an even number of `columns`, to 4 rows `ld` bytes apart. `a` is in blocks [4 rows][8 columns], `next` bytes apart.
function product(a: usize, next: usize, columns: i32, b: usize, init: usize, to: usize, ld: usize): void {
  let c00 = v128.load(init, 0), c01 = v128.load(init, 16), c10 = v128.load(init, 32), c11 = v128.load(init, 48);
  let c20 = v128.load(init, 64), c21 = v128.load(init, 80), c30 = v128.load(init, 96), c31 = v128.load(init, 112);
  for (; columns > 0; columns -= 8) {
    const end = a + (<usize>min(columns, 8) << 2);
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
  v128.store(to, c00); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30); v128.store(to, c31, 16);
}

// Like `product`, for two panels of b, `apart` bytes apart, and two tiles, `beside` bytes apart, or TILE bytes in `init`. Only where vectors are wide: in narrow ones
// it spills.
function wideProduct(a: usize, next: usize, columns: i32, b: usize, apart: usize, init: usize, to: usize, beside: usize, ld: usize): void {
  let c00 = v128.load(init, 0), c01 = v128.load(init, 16), c10 = v128.load(init, 32), c11 = v128.load(init, 48);
  let c20 = v128.load(init, 64), c21 = v128.load(init, 80), c30 = v128.load(init, 96), c31 = v128.load(init, 112);
  let d00 = v128.load(init, 128), d01 = v128.load(init, 144), d10 = v128.load(init, 160), d11 = v128.load(init, 176);
  let d20 = v128.load(init, 192), d21 = v128.load(init, 208), d30 = v128.load(init, 224), d31 = v128.load(init, 240);
  let d = b + apart;
  for (; columns > 0; columns -= 8) {
    const end = a + (<usize>min(columns, 8) << 2);
    do {
      const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(d), b3 = v128.load(d, 16);
      let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01); d00 = fma(x, b2, d00); d01 = fma(x, b3, d01);
      x = v128.load_splat<f32>(a, 32); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11); d10 = fma(x, b2, d10); d11 = fma(x, b3, d11);
      x = v128.load_splat<f32>(a, 64); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21); d20 = fma(x, b2, d20); d21 = fma(x, b3, d21);
      x = v128.load_splat<f32>(a, 96); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31); d30 = fma(x, b2, d30); d31 = fma(x, b3, d31);
      a += 4; b += 32; d += 32;
    } while (a < end);
    a += next - 32;
  }
  let far = to + beside;
  v128.store(to, c00); v128.store(to, c01, 16); v128.store(far, d00); v128.store(far, d01, 16); to += ld; far += ld;
  v128.store(to, c10); v128.store(to, c11, 16); v128.store(far, d10); v128.store(far, d11, 16); to += ld; far += ld;
  v128.store(to, c20); v128.store(to, c21, 16); v128.store(far, d20); v128.store(far, d21, 16); to += ld; far += ld;
  v128.store(to, c30); v128.store(to, c31, 16); v128.store(far, d30); v128.store(far, d31, 16);
}

// Writes the scores of a strip to `blocks` tiles, `step` bytes apart. `a` is as in `product`; the panels of b are `panel` bytes apart.
function scores(a: usize, next: usize, columns: i32, b: usize, panel: usize, blocks: i32, zeros: usize, to: usize, step: usize): void {
  if (wide)
    for (; blocks >= 2; blocks -= 2) {
      wideProduct(a, next, columns, b, panel, zeros, to, step, 32);
      b += 2 * panel; to += 2 * step;
    }
  for (; blocks > 0; blocks--) {
    product(a, next, columns, b, zeros, to, 32);
    b += panel; to += step;
  }
}

// Writes sum[4 keys][8] + Σ_queries p[query][4 keys]·b[query][8], over an even number of queries, to 4 rows `ld` bytes apart. The rows of p are 32 bytes apart.
function transposed(p: usize, b: usize, queries: i32, sum: usize, to: usize, ld: usize): void {
  let c00 = v128.load(sum, 0), c01 = v128.load(sum, 16), c10 = v128.load(sum, 32), c11 = v128.load(sum, 48);
  let c20 = v128.load(sum, 64), c21 = v128.load(sum, 80), c30 = v128.load(sum, 96), c31 = v128.load(sum, 112);
  for (; queries > 0; queries -= 2) {
    let b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(p, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(b, 32); b1 = v128.load(b, 48);
    x = v128.load_splat<f32>(p, 32); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 36); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 40); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 44); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    p += 64; b += 64;
  }
  v128.store(to, c00); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30); v128.store(to, c31, 16);
}

// Like `transposed`, for two panels of b, `apart` bytes apart, whose sums are `aside` bytes apart, and their results `beside` bytes. Only where vectors are wide.
function wideTransposed(p: usize, b: usize, apart: usize, queries: i32, sum: usize, aside: usize, to: usize, beside: usize, ld: usize): void {
  let far = sum + aside;
  let c00 = v128.load(sum, 0), c01 = v128.load(sum, 16), c10 = v128.load(sum, 32), c11 = v128.load(sum, 48);
  let c20 = v128.load(sum, 64), c21 = v128.load(sum, 80), c30 = v128.load(sum, 96), c31 = v128.load(sum, 112);
  let d00 = v128.load(far, 0), d01 = v128.load(far, 16), d10 = v128.load(far, 32), d11 = v128.load(far, 48);
  let d20 = v128.load(far, 64), d21 = v128.load(far, 80), d30 = v128.load(far, 96), d31 = v128.load(far, 112);
  let d = b + apart;
  for (; queries > 0; queries--) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(d), b3 = v128.load(d, 16);
    let x = v128.load_splat<f32>(p, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01); d00 = fma(x, b2, d00); d01 = fma(x, b3, d01);
    x = v128.load_splat<f32>(p, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11); d10 = fma(x, b2, d10); d11 = fma(x, b3, d11);
    x = v128.load_splat<f32>(p, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21); d20 = fma(x, b2, d20); d21 = fma(x, b3, d21);
    x = v128.load_splat<f32>(p, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31); d30 = fma(x, b2, d30); d31 = fma(x, b3, d31);
    p += 32; b += 32; d += 32;
  }
  far = to + beside;
  v128.store(to, c00); v128.store(to, c01, 16); v128.store(far, d00); v128.store(far, d01, 16); to += ld; far += ld;
  v128.store(to, c10); v128.store(to, c11, 16); v128.store(far, d10); v128.store(far, d11, 16); to += ld; far += ld;
  v128.store(to, c20); v128.store(to, c21, 16); v128.store(far, d20); v128.store(far, d21, 16); to += ld; far += ld;
  v128.store(to, c30); v128.store(to, c31, 16); v128.store(far, d30); v128.store(far, d31, 16);
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
        const low = f32x4.mul(v128.load(source), factor), high = f32x4.mul(v128.load(source, 16), factor);
        storePair(to, low, high);
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

// Writes the rows of a tile [4][8], each times its factor, to rows `ld` bytes apart.
// @ts-ignore: decorator
@inline function scaleTile(tile: usize, factors: usize, to: usize, ld: usize): void {
  for (let r: usize = 0; r < <usize>STRIP; r++, tile += 32, to += ld) {
    const factor = v128.load_splat<f32>(factors + (r << 2));
    const low = f32x4.mul(v128.load(tile), factor), high = f32x4.mul(v128.load(tile, 16), factor);
    storePair(to, low, high);
  }
}

// --- Rows of scores. A pair of vectors holds 8 keys; those from `valid` on are masked.

// @ts-ignore: decorator
@inline function lowMask(valid: i32): v128 { return i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(valid)); }
// @ts-ignore: decorator
@inline function highMask(valid: i32): v128 { return i32x4.lt_s(i32x4(4, 5, 6, 7), i32x4.splat(valid)); }

// Puts −∞ in place of the scores of masked keys.
// @ts-ignore: decorator
@inline function hide(at: usize, valid: i32): void {
  const never = f32x4.splat(-Infinity);
  const low = v128.bitselect(v128.load(at), never, lowMask(valid)), high = v128.bitselect(v128.load(at, 16), never, highMask(valid));
  storePair(at, low, high);
}

// Replaces 8 scores by e^{score − top}, and adds these to `sum`.
// @ts-ignore: decorator
@inline function exponentials(at: usize, top: v128, sum: v128): v128 {
  const low = expBelow4(f32x4.sub(v128.load(at), top)), high = expBelow4(f32x4.sub(v128.load(at, 16), top));
  storePair(at, low, high);
  return f32x4.add(f32x4.add(sum, low), high);
}

// @ts-ignore: decorator
@inline function evens(a: v128, b: v128): v128 { return v128.shuffle<f32>(a, b, 0, 2, 4, 6); }
// @ts-ignore: decorator
@inline function odds(a: v128, b: v128): v128 { return v128.shuffle<f32>(a, b, 1, 3, 5, 7); }
// @ts-ignore: decorator
@inline function most(at: usize): v128 { return f32x4.pmax(v128.load(at), v128.load(at, 16)); }

// The unnormalised softmax of a strip's rows in place: row r gets e^{score − max} for keys up to first + r, and 0 beyond. Writes 1/Σ of each row to `inverse`, and returns
// the log-sum-exps. Keys are masked only in the last tile. `work` has room for a tile.
function softmaxStrip(strip: usize, first: i32, inverse: usize, work: usize): v128 {
  const last = strip + <usize>(first >> 3) * TILE, valid = (first & 4) + 1;
  hide(last, valid); hide(last + 32, valid + 1); hide(last + 64, valid + 2); hide(last + 96, valid + 3);
  let m00 = v128.load(last, 0), m01 = v128.load(last, 16), m10 = v128.load(last, 32), m11 = v128.load(last, 48);
  let m20 = v128.load(last, 64), m21 = v128.load(last, 80), m30 = v128.load(last, 96), m31 = v128.load(last, 112);
  for (let at = strip; at < last; at += TILE) {
    m00 = f32x4.pmax(v128.load(at, 0), m00); m01 = f32x4.pmax(v128.load(at, 16), m01);
    m10 = f32x4.pmax(v128.load(at, 32), m10); m11 = f32x4.pmax(v128.load(at, 48), m11);
    m20 = f32x4.pmax(v128.load(at, 64), m20); m21 = f32x4.pmax(v128.load(at, 80), m21);
    m30 = f32x4.pmax(v128.load(at, 96), m30); m31 = f32x4.pmax(v128.load(at, 112), m31);
  }
  v128.store(work, m00, 0); v128.store(work, m01, 16); v128.store(work, m10, 32); v128.store(work, m11, 48);
  v128.store(work, m20, 64); v128.store(work, m21, 80); v128.store(work, m30, 96); v128.store(work, m31, 112);
  const top0 = most(work), top1 = most(work + 32), top2 = most(work + 64), top3 = most(work + 96);
  const top01 = f32x4.pmax(evens(top0, top1), odds(top0, top1)), top23 = f32x4.pmax(evens(top2, top3), odds(top2, top3));
  const top = f32x4.pmax(evens(top01, top23), odds(top01, top23));
  const t0 = f32x4.splat(f32x4.extract_lane(top, 0)), t1 = f32x4.splat(f32x4.extract_lane(top, 1));
  const t2 = f32x4.splat(f32x4.extract_lane(top, 2)), t3 = f32x4.splat(f32x4.extract_lane(top, 3));
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let at = strip;
  do {
    s0 = exponentials(at, t0, s0);
    s1 = exponentials(at + 32, t1, s1);
    s2 = exponentials(at + 64, t2, s2);
    s3 = exponentials(at + 96, t3, s3);
    at += TILE;
  } while (at <= last);
  s0 = f32x4.add(evens(s0, s1), odds(s0, s1));
  s2 = f32x4.add(evens(s2, s3), odds(s2, s3));
  const sum = f32x4.add(evens(s0, s2), odds(s0, s2));
  v128.store(inverse, f32x4.div(f32x4.splat(1), sum));
  return f32x4.add(top, log4(sum));
}

// Replaces 8 scores p and their gradients d by p = e^{score − lse}, d = p·(d − delta).
// @ts-ignore: decorator
@inline function gradients(p: usize, d: usize, lse: v128, delta: v128): void {
  const low = expBelow4(f32x4.sub(v128.load(p), lse)), high = expBelow4(f32x4.sub(v128.load(p, 16), lse));
  const dLow = f32x4.mul(low, f32x4.sub(v128.load(d), delta)), dHigh = f32x4.mul(high, f32x4.sub(v128.load(d, 16), delta));
  storePair(p, low, high);
  storePair(d, dLow, dHigh);
}

// Like `gradients`, with zeros for keys from `valid` on.
// @ts-ignore: decorator
@inline function maskedGradients(p: usize, d: usize, lse: v128, delta: v128, valid: i32): void {
  const mask0 = lowMask(valid), mask1 = highMask(valid);
  const low = v128.and(mask0, expBelow4(f32x4.sub(v128.load(p), lse))), high = v128.and(mask1, expBelow4(f32x4.sub(v128.load(p, 16), lse)));
  const dLow = v128.and(mask0, f32x4.mul(low, f32x4.sub(v128.load(d), delta)));
  const dHigh = v128.and(mask1, f32x4.mul(high, f32x4.sub(v128.load(d, 16), delta)));
  storePair(p, low, high);
  storePair(d, dLow, dHigh);
}

// Applies `gradients` to the scores of a strip of a block. Row r sees the keys below `valid` + r; rows from `rows` on see none.
function scoreGradients(p: usize, d: usize, valid: i32, rows: i32, tiles: i32, lse: usize, deltas: usize): void {
  const l0 = v128.load_splat<f32>(lse), l1 = v128.load_splat<f32>(lse, 4);
  const l2 = v128.load_splat<f32>(lse, 8), l3 = v128.load_splat<f32>(lse, 12);
  const d0 = v128.load_splat<f32>(deltas), d1 = v128.load_splat<f32>(deltas, 4);
  const d2 = v128.load_splat<f32>(deltas, 8), d3 = v128.load_splat<f32>(deltas, 12);
  const whole = rows >= STRIP ? min(tiles, max(0, valid >> 3)) : 0;
  let tile = 0;
  for (; tile < whole; tile++) {
    gradients(p, d, l0, d0);
    gradients(p + 32, d + 32, l1, d1);
    gradients(p + 64, d + 64, l2, d2);
    gradients(p + 96, d + 96, l3, d3);
    p += BLOCK_STEP; d += BLOCK_STEP;
  }
  for (valid -= tile << 3; tile < tiles; tile++, valid -= 8) {
    maskedGradients(p, d, l0, d0, rows > 0 ? valid : 0);
    maskedGradients(p + 32, d + 32, l1, d1, rows > 1 ? valid + 1 : 0);
    maskedGradients(p + 64, d + 64, l2, d2, rows > 2 ? valid + 2 : 0);
    maskedGradients(p + 96, d + 96, l3, d3, rows > 3 ? valid + 3 : 0);
    p += BLOCK_STEP; d += BLOCK_STEP;
  }
}

// Replaces one row of a strip's scores p and their tangents t by p = e^{score − lse}, t = p·(t − Σ p·t), with zeros from key `valid` on.
function scoreTangent(p: usize, t: usize, valid: i32, tiles: i32, lse: f32): void {
  const shift = f32x4.splat(lse), end = <usize>tiles * TILE;
  let sum = f32x4.splat(0);
  for (let at: usize = 0; at < end; at += TILE, valid -= 8) {
    const low = v128.and(lowMask(valid), expClamped4(f32x4.sub(v128.load(p + at), shift)));
    const high = v128.and(highMask(valid), expClamped4(f32x4.sub(v128.load(p + at, 16), shift)));
    v128.store(p + at, low);
    v128.store(p + at, high, 16);
    sum = fma(high, v128.load(t + at, 16), fma(low, v128.load(t + at), sum));
  }
  const mean = f32x4.splat(sumLanes(sum));
  for (let at: usize = 0; at < end; at += TILE) {
    const low = f32x4.mul(v128.load(p + at), f32x4.sub(v128.load(t + at), mean));
    const high = f32x4.mul(v128.load(p + at, 16), f32x4.sub(v128.load(t + at, 16), mean));
    v128.store(t + at, low);
    v128.store(t + at, high, 16);
  }
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
// 4·t₈ + 136.
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
  const query = values + area, tile = query + (<usize>padded << 4), zeros = tile + 2 * TILE, inverse = zeros + 2 * TILE;
  const strip = inverse + 32;
  memory.fill(zeros, 0, 2 * TILE);
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
    scores(query, STRIP << 5, padded, keys, keyPanel, (i + rows + 7) >> 3, zeros, strip, TILE);
    const sums = softmaxStrip(strip, i, inverse, tile), to = lse + (<usize>i << 2);
    if (rows == STRIP) v128.store(to, sums);
    else {
      v128.store_lane<f32>(to, sums, 0);
      if (rows > 1) v128.store_lane<f32>(to + 4, sums, 1);
      if (rows > 2) v128.store_lane<f32>(to + 8, sums, 2);
    }
    const columns = (i + rows + 1) & ~1, out = o + <usize>i * outStride;
    let d = 0;
    if (wide && rows == STRIP)
      for (; d + 16 <= size; d += 16) {
        const at = out + (<usize>d << 2);
        wideProduct(strip, TILE, columns, values + <usize>(d >> 3) * valuePanel, valuePanel, zeros, tile, TILE, 32);
        scaleTile(tile, inverse, at, outStride);
        scaleTile(tile + TILE, inverse, at + 32, outStride);
      }
    for (; d < size; d += 8) {
      const whole = rows == STRIP && d + 8 <= size, at = out + (<usize>d << 2);
      product(strip, TILE, columns, values + <usize>(d >> 3) * valuePanel, zeros, tile, 32);
      scaleTile(tile, inverse, whole ? at : tile, whole ? outStride : 32);
      if (!whole) clipTile(tile, rows, size - d, at, outStride);
    }
  }
}

// Tasks: (batch item, key/value head); the query heads that share it are processed one after another. Scratch floats: 5·d₈·t₈ +
// 3·QUERIES·d₈ + QUERIES + 2·QUERIES·KEY_CHUNK + 64.
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
  const zeros = deltas + (QUERIES << 2), probs = zeros + 2 * TILE, dScores = probs + <usize>((QUERIES * KEY_CHUNK) << 2);

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
  memory.fill(zeros, 0, 2 * TILE);

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
          const p0 = probs + (<usize>query << 5), d0 = dScores + (<usize>query << 5);
          const row = <usize>query << 5, panels = <usize>first * keyPanel;
          scores(queryRows + row, queryPanel, padded, keysT + panels, keyPanel, blocks, zeros, p0, BLOCK_STEP);
          scores(doRows + row, queryPanel, padded, valuesT + panels, keyPanel, blocks, zeros, d0, BLOCK_STEP);
          scoreGradients(
            p0, d0, i + query + 1 - j, rows - query, blocks,
            lse + (<usize>(i + query) << 2), deltas + (<usize>query << 2),
          );
          const whole = ends && query + STRIP <= rows, columns = (keys + 1) & ~1, chunk = keyRows + (<usize>first << 8);
          const to = dqAt + <usize>query * stride, sums = dQueries + <usize>s * stripPanel;
          let d = 0;
          if (wide && (whole || !ends))
            for (; d + 16 <= size; d += 16) {
              const panel = chunk + <usize>(d >> 3) * rowPanel, at = sums + (<usize>d << 4), init = j > 0 ? at : zeros;
              wideProduct(d0, BLOCK_STEP, columns, panel, rowPanel, init, whole ? to + (<usize>d << 2) : at, whole ? 32 : TILE, whole ? stride : 32);
            }
          for (; d < padded; d += 8) {
            const panel = chunk + <usize>(d >> 3) * rowPanel, at = sums + (<usize>d << 4), there = to + (<usize>d << 2);
            const direct = whole && d + 8 <= size;
            product(d0, BLOCK_STEP, columns, panel, j > 0 ? at : zeros, direct ? there : at, direct ? stride : 32);
            if (ends && !direct) clipTile(at, rows - query, size - d, there, stride);
          }
        }
        for (let n = 0; n < 2 * chunkBlocks; n++) {
          const key = j + (n << 2);
          // The first strip with a query that sees these keys.
          const query = max(0, (key - i) & ~3), count = STRIP * strips - query;
          const from = <usize>(n >> 1) * BLOCK_STEP + (<usize>query << 5) + (<usize>(n & 1) << 4);
          // The first and the last of the sums over blocks of queries and over heads.
          const begins = h == firstHead && key >= i, aside = begins ? TILE : rowPanel;
          const ends = h == lastHead && i + rows == time, whole = ends && key + 4 <= time;
          let d = 0;
          if (wide && (whole || !ends))
            for (; d + 16 <= size; d += 16) {
              const panel = <usize>(d >> 3) * rowPanel + (<usize>key << 5), dk = dKeys + panel, dv = dValues + panel;
              const queryAt = <usize>(d >> 3) * queryPanel + (<usize>query << 5);
              const to = dItem + <usize>key * stride + (<usize>d << 2), beside = whole ? 32 : rowPanel, ld = whole ? stride : 32;
              wideTransposed(probs + from, doRows + queryAt, queryPanel, count, begins ? zeros : dv, aside, whole ? to + vAt : dv, beside, ld);
              wideTransposed(dScores + from, queryRows + queryAt, queryPanel, count, begins ? zeros : dk, aside, whole ? to + kAt : dk, beside, ld);
            }
          for (; d < padded; d += 8) {
            const panel = <usize>(d >> 3) * rowPanel + (<usize>key << 5), dk = dKeys + panel, dv = dValues + panel;
            const queryAt = <usize>(d >> 3) * queryPanel + (<usize>query << 5);
            const to = dItem + <usize>key * stride + (<usize>d << 2);
            const direct = whole && d + 8 <= size, ld = direct ? stride : 32;
            transposed(probs + from, doRows + queryAt, count, begins ? zeros : dv, direct ? to + vAt : dv, ld);
            transposed(dScores + from, queryRows + queryAt, count, begins ? zeros : dk, direct ? to + kAt : dk, ld);
            if (!ends || direct) continue;
            clipTile(dv, time - key, size - d, to + vAt, stride);
            clipTile(dk, time - key, size - d, to + kAt, stride);
          }
        }
      }
    }
  }
}

// Tasks as in `attention`. With S the scaled scores: do = (P ⊙ (dS − Σ P·dS))·v + P·dv, and dS = [dq, q]·[k, dk]ᵀ is one
// product of twice the depth. Scratch floats: 4·d₈·t₈ + 8·d₈ + 8·t₈ + 128.
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
  const zeros = tile + 2 * TILE, probs = zeros + 2 * TILE, tangents = probs + <usize>keyBlocks * TILE;
  memory.fill(zeros, 0, 2 * TILE);
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
    scores(query, STRIP << 5, padded, keys, 2 * keyPanel, blocks, zeros, probs, TILE);
    scores(dQuery, STRIP << 5, 2 * padded, keys, 2 * keyPanel, blocks, zeros, tangents, TILE);
    for (let r = 0; r < rows; r++) {
      const row = <usize>r << 5;
      scoreTangent(probs + row, tangents + row, i + r + 1, blocks, load<f32>(lse + (<usize>(i + r) << 2)));
    }
    const columns = (i + rows + 1) & ~1, out = dOut + <usize>i * outStride;
    let d = 0;
    if (wide && rows == STRIP)
      for (; d + 16 <= size; d += 16) {
        const panel = <usize>(d >> 3) * valuePanel;
        wideProduct(tangents, TILE, columns, values + panel, valuePanel, zeros, tile, TILE, 32);
        wideProduct(probs, TILE, columns, dValues + panel, valuePanel, tile, out + (<usize>d << 2), 32, outStride);
      }
    for (; d < size; d += 8) {
      const whole = rows == STRIP && d + 8 <= size, at = out + (<usize>d << 2);
      const panel = <usize>(d >> 3) * valuePanel;
      product(tangents, TILE, columns, values + panel, zeros, tile, 32);
      product(probs, TILE, columns, dValues + panel, tile, whole ? at : tile, whole ? outStride : 32);
      if (!whole) clipTile(tile, rows, size - d, at, outStride);
    }
  }
}
