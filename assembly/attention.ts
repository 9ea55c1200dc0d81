// Causal attention, forward, vjp and jvp.
//
// A task takes one (batch item, key/value head[, part of the queries]). It packs keys and values into panels in its
// scratch, then walks strips of 6 queries: one strip's scores against all keys it may see stand in scratch as tiles
// [key block of 8][6][8], so both products run in a 6×8 register tile with constant offsets, and softmax over a whole strip
// needs no rescaling. The vjp walks blocks of STRIPS strips and at most KEY_CHUNK keys at a time. Head sizes are padded
// to a multiple of 8 with zeros. Nothing of size time × time exists.
import { expClamped4, logf } from "./functions";
import { float, fma, int, ptr, scratch, sumLanes } from "./simd";

const TILE: usize = 192; // bytes of a 6×8 tile
const STRIPS: usize = 4; // of queries in a block of the vjp
const QUERIES = 6 * <i32>STRIPS;
const KEY_CHUNK = 256; // keys, a multiple of 8

// tile[6][8] = Σ_k a[k][6] ⊗ b[k][8]; k is a multiple of 4.
function product(a: usize, b: usize, k: i32, tile: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  let c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  for (; k > 0; k -= 4) {
    let b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(a, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    x = v128.load_splat<f32>(a, 16); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    x = v128.load_splat<f32>(a, 20); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    b0 = v128.load(b, 32); b1 = v128.load(b, 48);
    x = v128.load_splat<f32>(a, 24); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 28); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 32); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(a, 36); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    x = v128.load_splat<f32>(a, 40); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    x = v128.load_splat<f32>(a, 44); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    b0 = v128.load(b, 64); b1 = v128.load(b, 80);
    x = v128.load_splat<f32>(a, 48); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 52); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 56); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(a, 60); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    x = v128.load_splat<f32>(a, 64); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    x = v128.load_splat<f32>(a, 68); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    b0 = v128.load(b, 96); b1 = v128.load(b, 112);
    x = v128.load_splat<f32>(a, 72); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 76); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 80); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(a, 84); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    x = v128.load_splat<f32>(a, 88); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    x = v128.load_splat<f32>(a, 92); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    a += 96; b += 128;
  }
  v128.store(tile, c00, 0); v128.store(tile, c01, 16); v128.store(tile, c10, 32); v128.store(tile, c11, 48);
  v128.store(tile, c20, 64); v128.store(tile, c21, 80); v128.store(tile, c30, 96); v128.store(tile, c31, 112);
  v128.store(tile, c40, 128); v128.store(tile, c41, 144); v128.store(tile, c50, 160); v128.store(tile, c51, 176);
}

// out[6][8] += Σ_keys p[key block][6][8 keys] · v[key][8].
function contract(p: usize, v: usize, blocks: i32, out: usize): void {
  let c00 = v128.load(out, 0), c01 = v128.load(out, 16), c10 = v128.load(out, 32), c11 = v128.load(out, 48);
  let c20 = v128.load(out, 64), c21 = v128.load(out, 80), c30 = v128.load(out, 96), c31 = v128.load(out, 112);
  let c40 = v128.load(out, 128), c41 = v128.load(out, 144), c50 = v128.load(out, 160), c51 = v128.load(out, 176);
  for (; blocks > 0; blocks--) {
    // Half a key block at a time.
    for (let half = 0; half < 2; half++) {
      let b0 = v128.load(v, 0), b1 = v128.load(v, 16);
      let x = v128.load_splat<f32>(p, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(p, 32); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(p, 64); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(p, 96); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      x = v128.load_splat<f32>(p, 128); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
      x = v128.load_splat<f32>(p, 160); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
      b0 = v128.load(v, 32); b1 = v128.load(v, 48);
      x = v128.load_splat<f32>(p, 4); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(p, 36); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(p, 68); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(p, 100); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      x = v128.load_splat<f32>(p, 132); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
      x = v128.load_splat<f32>(p, 164); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
      b0 = v128.load(v, 64); b1 = v128.load(v, 80);
      x = v128.load_splat<f32>(p, 8); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(p, 40); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(p, 72); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(p, 104); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      x = v128.load_splat<f32>(p, 136); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
      x = v128.load_splat<f32>(p, 168); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
      b0 = v128.load(v, 96); b1 = v128.load(v, 112);
      x = v128.load_splat<f32>(p, 12); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
      x = v128.load_splat<f32>(p, 44); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
      x = v128.load_splat<f32>(p, 76); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
      x = v128.load_splat<f32>(p, 108); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
      x = v128.load_splat<f32>(p, 140); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
      x = v128.load_splat<f32>(p, 172); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
      p += 16; v += 128;
    }
    p += TILE - 32;
  }
  v128.store(out, c00, 0); v128.store(out, c01, 16); v128.store(out, c10, 32); v128.store(out, c11, 48);
  v128.store(out, c20, 64); v128.store(out, c21, 80); v128.store(out, c30, 96); v128.store(out, c31, 112);
  v128.store(out, c40, 128); v128.store(out, c41, 144); v128.store(out, c50, 160); v128.store(out, c51, 176);
}

// out[4 keys][8] += Σ_queries p[query][key]·b[query][8]: `strips` strips of 6 queries, p stepping by `stride` bytes a strip.
function transposed(p: usize, stride: usize, b: usize, strips: i32, out: usize): void {
  let c00 = v128.load(out, 0), c01 = v128.load(out, 16), c10 = v128.load(out, 32), c11 = v128.load(out, 48);
  let c20 = v128.load(out, 64), c21 = v128.load(out, 80), c30 = v128.load(out, 96), c31 = v128.load(out, 112);
  for (; strips > 0; strips--) {
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
    b0 = v128.load(b, 64); b1 = v128.load(b, 80);
    x = v128.load_splat<f32>(p, 64); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 68); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 72); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 76); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(b, 96); b1 = v128.load(b, 112);
    x = v128.load_splat<f32>(p, 96); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 100); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 104); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 108); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(b, 128); b1 = v128.load(b, 144);
    x = v128.load_splat<f32>(p, 128); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 132); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 136); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 140); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    b0 = v128.load(b, 160); b1 = v128.load(b, 176);
    x = v128.load_splat<f32>(p, 160); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(p, 164); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(p, 168); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(p, 172); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    p += stride; b += TILE;
  }
  v128.store(out, c00, 0); v128.store(out, c01, 16); v128.store(out, c10, 32); v128.store(out, c11, 48);
  v128.store(out, c20, 64); v128.store(out, c21, 80); v128.store(out, c30, 96); v128.store(out, c31, 112);
}

// --- Packing. `from` is the first element of the first row, `stride` bytes between rows, `size` the head size.

// Transposed panels [row block of `lanes`][size padded to 8][lanes], times `scale`; rows beyond `rows` are zero.
function packTransposed(from: usize, stride: usize, rows: i32, size: i32, lanes: i32, scale: f32, to: usize): void {
  const padded = (size + 7) & ~7;
  const step = <usize>lanes << 2;
  for (let row = 0; row < rows; row += lanes) {
    for (let l = 0; l < lanes; l++) {
      const source = from + <usize>(row + l) * stride;
      let out = to + (<usize>l << 2), d = 0;
      if (row + l < rows)
        for (; d < size; d++) {
          store<f32>(out, load<f32>(source + (<usize>d << 2)) * scale);
          out += step;
        }
      for (; d < padded; d++) {
        store<f32>(out, 0);
        out += step;
      }
    }
    to += <usize>padded * step;
  }
}

// Row panels [block of 8 columns][rows padded to `multiple`][8].
function packRows(from: usize, stride: usize, rows: i32, size: i32, multiple: i32, to: usize): void {
  const padded = roundUp(rows, multiple);
  for (let d = 0; d < size; d += 8) {
    let source = from + (<usize>d << 2), r = 0;
    if (d + 8 <= size)
      for (; r < rows; r++) {
        v128.store(to, v128.load(source), 0);
        v128.store(to, v128.load(source, 16), 16);
        source += stride;
        to += 32;
      }
    else
      for (; r < rows; r++) {
        for (let i = 0; i < 8; i++)
          store<f32>(to + (<usize>i << 2), d + i < size ? load<f32>(source + (<usize>i << 2)) : 0);
        source += stride;
        to += 32;
      }
    memory.fill(to, 0, <usize>(padded - r) << 5);
    to += <usize>(padded - r) << 5;
  }
}

// Writes one row of a panel [rows][8] times `scale`, its first `columns` elements; the panel's own copy may change.
// @ts-ignore: decorator
@inline function storeRow(from: usize, to: usize, columns: i32, scale: v128): void {
  const low = f32x4.mul(v128.load(from), scale), high = f32x4.mul(v128.load(from, 16), scale);
  if (columns >= 8) {
    v128.store(to, low);
    v128.store(to, high, 16);
  } else {
    v128.store(from, low);
    v128.store(from, high, 16);
    for (let i = 0; i < columns; i++) store<f32>(to + (<usize>i << 2), load<f32>(from + (<usize>i << 2)));
  }
}

// @ts-ignore: decorator
@inline function roundUp(n: i32, multiple: i32): i32 {
  return ((n + multiple - 1) / multiple) * multiple;
}

// Lanes of a key block (first lane `lane`) whose key is below `valid`.
// @ts-ignore: decorator
@inline function keyMask(first: i32, valid: i32): v128 {
  return i32x4.lt_s(i32x4.add(i32x4.splat(first), i32x4(0, 1, 2, 3)), i32x4.splat(valid));
}

// Softmax of row `row` of a strip in place, unnormalised: e^{score − max} for keys below `valid`, 0 beyond. Leaves 1/Σ in
// `inverse` and returns the log-sum-exp.
function softmaxRow(strip: usize, row: i32, valid: i32, blocks: i32, inverse: usize): f32 {
  const start = strip + (<usize>row << 5);
  const full = valid >> 3;
  let at = start;
  let m0 = f32x4.splat(-Infinity), m1 = m0;
  for (let j = 0; j < full; j++) {
    m0 = f32x4.pmax(v128.load(at), m0);
    m1 = f32x4.pmax(v128.load(at, 16), m1);
    at += TILE;
  }
  for (let j = full; j < blocks; j++) {
    const x0 = v128.bitselect(v128.load(at), f32x4.splat(-Infinity), keyMask(j << 3, valid));
    const x1 = v128.bitselect(v128.load(at, 16), f32x4.splat(-Infinity), keyMask((j << 3) + 4, valid));
    v128.store(at, x0);
    v128.store(at, x1, 16);
    m0 = f32x4.pmax(x0, m0);
    m1 = f32x4.pmax(x1, m1);
    at += TILE;
  }
  m0 = f32x4.pmax(m0, m1);
  const top = max(
    max(f32x4.extract_lane(m0, 0), f32x4.extract_lane(m0, 1)),
    max(f32x4.extract_lane(m0, 2), f32x4.extract_lane(m0, 3)),
  );
  m0 = f32x4.splat(top);
  let s0 = f32x4.splat(0), s1 = s0;
  at = start;
  for (let j = 0; j < blocks; j++) {
    const e0 = expClamped4(f32x4.sub(v128.load(at), m0));
    const e1 = expClamped4(f32x4.sub(v128.load(at, 16), m0));
    v128.store(at, e0);
    v128.store(at, e1, 16);
    s0 = f32x4.add(s0, e0);
    s1 = f32x4.add(s1, e1);
    at += TILE;
  }
  const sum = sumLanes(f32x4.add(s0, s1));
  store<f32>(inverse, 1 / sum);
  return top + logf(sum);
}

// Slots, of all three: 0 qkv, then the operands named below, 8 time, 9 heads, 10 kvHeads, 11 headDim, 12 queries a task (a
// multiple of 6; forward and jvp), 13 parts a head; floats: 0 scale.

// @ts-ignore: decorator
@inline function rowBytes(p: usize): usize {
  return <usize>((int(p, 9) + 2 * int(p, 10)) * int(p, 11)) << 2;
}

// Slots: 1 o, 2 lse. Tasks: (batch item, query head, part of the queries), the longest part first. Scratch floats:
// 2·headDim₈·time₈ + 6·headDim₈ + 6·time₈ + 48 + 8.
export function attention(p: usize, task: i32): void {
  const time = int(p, 8), heads = int(p, 9), kvHeads = int(p, 10), size = int(p, 11);
  const queries = int(p, 12), parts = int(p, 13);
  const part = parts - 1 - task % parts, pair = task / parts, b = pair / heads, h = pair % heads;
  const kvHead = (h * kvHeads) / heads;
  const stride = rowBytes(p), item = ptr(p, 0) + <usize>b * <usize>time * stride;
  const q = item + (<usize>(h * size) << 2);
  const k = item + (<usize>((heads + kvHead) * size) << 2);
  const v = item + (<usize>((heads + kvHeads + kvHead) * size) << 2);
  const outStride = <usize>(heads * size) << 2;
  const o = ptr(p, 1) + <usize>b * <usize>time * outStride + (<usize>(h * size) << 2);
  const lse = ptr(p, 2) + (<usize>(b * heads + h) * <usize>time << 2);

  const first = part * queries, last = min(time, first + queries);
  const padded = (size + 7) & ~7;
  const keyBlocks = (last + 7) >> 3;
  const keyPanel = <usize>padded << 5, valuePanel = <usize>keyBlocks << 8;
  const keys = scratch(p);
  const values = keys + <usize>keyBlocks * keyPanel;
  const query = values + <usize>keyBlocks * keyPanel;
  const tile = query + <usize>padded * 24;
  const inverse = tile + TILE;
  const strip = inverse + 32;
  packTransposed(k, stride, last, size, 8, 1, keys);
  packRows(v, stride, last, size, 8, values);

  for (let i = first; i < last; i += 6) {
    const rows = min(6, last - i);
    packTransposed(q + <usize>i * stride, stride, rows, size, 6, float(p, 0), query);
    const blocks = (i + rows + 7) >> 3;
    for (let j = 0; j < blocks; j++) product(query, keys + <usize>j * keyPanel, padded, strip + <usize>j * TILE);
    for (let r = 0; r < rows; r++)
      store<f32>(lse + (<usize>(i + r) << 2), softmaxRow(strip, r, i + r + 1, blocks, inverse + (<usize>r << 2)));
    for (let d = 0; d < size; d += 8) {
      memory.fill(tile, 0, TILE);
      contract(strip, values + <usize>(d >> 3) * valuePanel, blocks, tile);
      for (let r = 0; r < rows; r++) {
        const scale = v128.load_splat<f32>(inverse + (<usize>r << 2));
        const to = o + <usize>(i + r) * outStride + (<usize>d << 2);
        storeRow(tile + (<usize>r << 5), to, size - d, scale);
      }
    }
  }
}

// Slots: 1 o, 2 lse, 3 do, 4 dqkv. Tasks: (batch item, key/value head); the query heads that share it follow one another.
// Scratch floats: 5·headDim₈·time₈ + STRIPS·(2·6·headDim₈ + 2·headDim₈·6 + 2·6·KEY_CHUNK + 6·headDim₈ + 16).
export function attentionVjp(p: usize, task: i32): void {
  const time = int(p, 8), heads = int(p, 9), kvHeads = int(p, 10), size = int(p, 11);
  const b = task / kvHeads, kvHead = task % kvHeads;
  const stride = rowBytes(p), offset = <usize>b * <usize>time * stride;
  const item = ptr(p, 0) + offset, dItem = ptr(p, 4) + offset;
  const kAt = <usize>((heads + kvHead) * size) << 2, vAt = <usize>((heads + kvHeads + kvHead) * size) << 2;
  const outStride = <usize>(heads * size) << 2;
  const scale = float(p, 0);

  const padded = (size + 7) & ~7;
  const keyBlocks = (time + 7) >> 3;
  const keyPanel = <usize>padded << 5, rowPanel = <usize>keyBlocks << 8;
  const area = <usize>keyBlocks * keyPanel;
  const stripPanel = <usize>padded * 24; // 6 queries
  const queryPanel: usize = STRIPS * TILE; // 8 columns of a block of queries
  const keysT = scratch(p), valuesT = keysT + area, keyRows = valuesT + area;
  const dKeys = keyRows + area, dValues = dKeys + area;
  const queryT = dValues + area, doT = queryT + STRIPS * stripPanel;
  const queryRows = doT + STRIPS * stripPanel, doRows = queryRows + STRIPS * stripPanel;
  const dQueries = doRows + STRIPS * stripPanel;
  const deltas = dQueries + STRIPS * stripPanel;
  const probs = deltas + STRIPS * 64;
  const chunkStride: usize = <usize>(KEY_CHUNK >> 3) * TILE; // bytes a strip
  const dScores = probs + STRIPS * chunkStride;

  packTransposed(item + kAt, stride, time, size, 8, 1, keysT);
  packTransposed(item + vAt, stride, time, size, 8, 1, valuesT);
  packRows(item + kAt, stride, time, size, 8, keyRows);
  memory.fill(dKeys, 0, 2 * area);

  for (let h = 0; h < heads; h++) {
    if ((h * kvHeads) / heads != kvHead) continue;
    const qAt = <usize>(h * size) << 2;
    const outAt = <usize>b * <usize>time * outStride + qAt;
    const o = ptr(p, 1) + outAt, dOut = ptr(p, 3) + outAt;
    const lse = ptr(p, 2) + (<usize>(b * heads + h) * <usize>time << 2);

    for (let i = 0; i < time; i += QUERIES) {
      const rows = min(QUERIES, time - i), strips = (rows + 5) / 6;
      const qFrom = item + qAt + <usize>i * stride, doFrom = dOut + <usize>i * outStride;
      packTransposed(qFrom, stride, rows, size, 6, scale, queryT);
      packTransposed(doFrom, outStride, rows, size, 6, 1, doT);
      packRows(qFrom, stride, rows, size, QUERIES, queryRows);
      packRows(doFrom, outStride, rows, size, QUERIES, doRows);
      rowDots(o + <usize>i * outStride, doFrom, outStride, rows, size, deltas);
      memory.fill(dQueries, 0, <usize>strips * stripPanel);

      for (let j = 0; j < i + rows; j += KEY_CHUNK) {
        const first = j >> 3;
        const chunkBlocks = (min(KEY_CHUNK, i + rows - j) + 7) >> 3;
        for (let s = 0; s < strips; s++) {
          // Key blocks that the strip's last query may see.
          const blocks = min(chunkBlocks, (max(0, min(i + 6 * s + 6, i + rows) - j) + 7) >> 3);
          const p0 = probs + <usize>s * chunkStride, d0 = dScores + <usize>s * chunkStride;
          for (let n = 0; n < blocks; n++) {
            const panel = <usize>(first + n) * keyPanel;
            product(queryT + <usize>s * stripPanel, keysT + panel, padded, p0 + <usize>n * TILE);
            product(doT + <usize>s * stripPanel, valuesT + panel, padded, d0 + <usize>n * TILE);
          }
          for (let r = 0; r < 6; r++) {
            const query = 6 * s + r;
            if (query < rows) {
              const at = <usize>(i + query) << 2;
              const delta = load<f32>(deltas + (<usize>query << 2));
              scoreGradient(p0, d0, r, i + query + 1 - j, blocks, load<f32>(lse + at), delta);
            } else clearRow(p0, d0, r, blocks);
          }
          for (let d = 0; d < padded; d += 8) {
            const rowsAt = keyRows + <usize>(d >> 3) * rowPanel + (<usize>first << 8);
            contract(d0, rowsAt, blocks, dQueries + <usize>s * stripPanel + <usize>(d >> 3) * TILE);
          }
        }
        for (let n = 0; n < chunkBlocks; n++) {
          const key = j + (n << 3);
          // The first strip with a query that sees this key block.
          const s = key <= i ? 0 : (key - i) / 6;
          const from = <usize>s * chunkStride + <usize>n * TILE;
          for (let d = 0; d < padded; d += 8) {
            const panel = <usize>(d >> 3) * rowPanel + (<usize>key << 5);
            const queryAt = <usize>(d >> 3) * queryPanel + <usize>s * TILE;
            transposed(probs + from, chunkStride, doRows + queryAt, strips - s, dValues + panel);
            transposed(probs + from + 16, chunkStride, doRows + queryAt, strips - s, dValues + panel + 128);
            transposed(dScores + from, chunkStride, queryRows + queryAt, strips - s, dKeys + panel);
            transposed(dScores + from + 16, chunkStride, queryRows + queryAt, strips - s, dKeys + panel + 128);
          }
        }
      }
      for (let r = 0; r < rows; r++) {
        const from = dQueries + <usize>(r / 6) * stripPanel + (<usize>(r % 6) << 5);
        const to = dItem + qAt + <usize>(i + r) * stride;
        for (let d = 0; d < size; d += 8)
          storeRow(from + <usize>(d >> 3) * TILE, to + (<usize>d << 2), size - d, f32x4.splat(scale));
      }
    }
  }
  for (let d = 0; d < size; d += 8) {
    const panel = <usize>(d >> 3) * rowPanel;
    for (let r = 0; r < time; r++) {
      const to = dItem + <usize>r * stride + (<usize>d << 2), from = panel + (<usize>r << 5);
      storeRow(dKeys + from, to + kAt, size - d, f32x4.splat(scale));
      storeRow(dValues + from, to + vAt, size - d, f32x4.splat(1));
    }
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

// Row `row` of two strips, in place: p = e^{score − lse}, d = p·(d − delta); zero from key `valid` on.
function scoreGradient(p: usize, d: usize, row: i32, valid: i32, blocks: i32, lse: f32, delta: f32): void {
  p += <usize>row << 5;
  d += <usize>row << 5;
  const shift = f32x4.splat(lse), mean = f32x4.splat(delta);
  let j = 0;
  for (const full = min(blocks, max(0, valid >> 3)); j < full; j++) {
    const e0 = expClamped4(f32x4.sub(v128.load(p), shift)), e1 = expClamped4(f32x4.sub(v128.load(p, 16), shift));
    v128.store(p, e0);
    v128.store(p, e1, 16);
    v128.store(d, f32x4.mul(e0, f32x4.sub(v128.load(d), mean)));
    v128.store(d, f32x4.mul(e1, f32x4.sub(v128.load(d, 16), mean)), 16);
    p += TILE;
    d += TILE;
  }
  for (; j < blocks; j++) {
    const k0 = keyMask(j << 3, valid), k1 = keyMask((j << 3) + 4, valid);
    const e0 = v128.and(k0, expClamped4(f32x4.sub(v128.load(p), shift)));
    const e1 = v128.and(k1, expClamped4(f32x4.sub(v128.load(p, 16), shift)));
    v128.store(p, e0);
    v128.store(p, e1, 16);
    v128.store(d, v128.and(k0, f32x4.mul(e0, f32x4.sub(v128.load(d), mean))));
    v128.store(d, v128.and(k1, f32x4.mul(e1, f32x4.sub(v128.load(d, 16), mean))), 16);
    p += TILE;
    d += TILE;
  }
}

function clearRow(p: usize, d: usize, row: i32, blocks: i32): void {
  p += <usize>row << 5;
  d += <usize>row << 5;
  for (let j = 0; j < blocks; j++) {
    memory.fill(p, 0, 32);
    memory.fill(d, 0, 32);
    p += TILE;
    d += TILE;
  }
}

// Slots: 1 o, 2 lse, 3 dqkv, 4 do. Tasks as in `attention`. With S the scaled scores: do = (P ⊙ (dS − Σ P·dS))·v + P·dv.
// Scratch floats: 4·headDim₈·time₈ + 12·headDim₈ + 12·time₈ + 48.
export function attentionJvp(p: usize, task: i32): void {
  const time = int(p, 8), heads = int(p, 9), kvHeads = int(p, 10), size = int(p, 11);
  const queries = int(p, 12), parts = int(p, 13);
  const part = parts - 1 - task % parts, pair = task / parts, b = pair / heads, h = pair % heads;
  const kvHead = (h * kvHeads) / heads;
  const stride = rowBytes(p), offset = <usize>b * <usize>time * stride;
  const item = ptr(p, 0) + offset, dItem = ptr(p, 3) + offset;
  const qAt = <usize>(h * size) << 2;
  const kAt = <usize>((heads + kvHead) * size) << 2, vAt = <usize>((heads + kvHeads + kvHead) * size) << 2;
  const outStride = <usize>(heads * size) << 2;
  const dOut = ptr(p, 4) + <usize>b * <usize>time * outStride + qAt;
  const lse = ptr(p, 2) + (<usize>(b * heads + h) * <usize>time << 2);
  const scale = float(p, 0);

  const first = part * queries, last = min(time, first + queries);
  const padded = (size + 7) & ~7;
  const keyBlocks = (last + 7) >> 3;
  const keyPanel = <usize>padded << 5, valuePanel = <usize>keyBlocks << 8;
  const area = <usize>keyBlocks * keyPanel;
  const keys = scratch(p), dKeys = keys + area, values = dKeys + area, dValues = values + area;
  const query = dValues + area, dQuery = query + <usize>padded * 24;
  const tile = dQuery + <usize>padded * 24;
  const probs = tile + TILE, tangents = probs + <usize>keyBlocks * TILE;
  packTransposed(item + kAt, stride, last, size, 8, 1, keys);
  packTransposed(dItem + kAt, stride, last, size, 8, 1, dKeys);
  packRows(item + vAt, stride, last, size, 8, values);
  packRows(dItem + vAt, stride, last, size, 8, dValues);

  for (let i = first; i < last; i += 6) {
    const rows = min(6, last - i);
    packTransposed(item + qAt + <usize>i * stride, stride, rows, size, 6, scale, query);
    packTransposed(dItem + qAt + <usize>i * stride, stride, rows, size, 6, scale, dQuery);
    const blocks = (i + rows + 7) >> 3;
    for (let j = 0; j < blocks; j++) {
      const at = <usize>j * TILE, panel = <usize>j * keyPanel;
      product(query, keys + panel, padded, probs + at);
      product(query, dKeys + panel, padded, tangents + at);
      product(dQuery, keys + panel, padded, tile);
      for (let n: usize = 0; n < TILE; n += 16)
        v128.store(tangents + at + n, f32x4.add(v128.load(tangents + at + n), v128.load(tile + n)));
    }
    for (let r = 0; r < rows; r++)
      scoreTangent(probs, tangents, r, i + r + 1, blocks, load<f32>(lse + (<usize>(i + r) << 2)));
    for (let d = 0; d < size; d += 8) {
      const panel = <usize>(d >> 3) * valuePanel;
      memory.fill(tile, 0, TILE);
      contract(tangents, values + panel, blocks, tile);
      contract(probs, dValues + panel, blocks, tile);
      for (let r = 0; r < rows; r++) {
        const to = dOut + <usize>(i + r) * outStride + (<usize>d << 2);
        storeRow(tile + (<usize>r << 5), to, size - d, f32x4.splat(1));
      }
    }
  }
}

// Row `row` of two strips, in place: p = e^{score − lse}, t = p·(t − Σ p·t); zero from key `valid` on.
function scoreTangent(p: usize, t: usize, row: i32, valid: i32, blocks: i32, lse: f32): void {
  p += <usize>row << 5;
  t += <usize>row << 5;
  const shift = f32x4.splat(lse);
  let s0 = f32x4.splat(0), s1 = s0;
  for (let j = 0; j < blocks; j++) {
    const at = <usize>j * TILE;
    const k0 = keyMask(j << 3, valid), k1 = keyMask((j << 3) + 4, valid);
    const e0 = v128.and(k0, expClamped4(f32x4.sub(v128.load(p + at), shift)));
    const e1 = v128.and(k1, expClamped4(f32x4.sub(v128.load(p + at, 16), shift)));
    v128.store(p + at, e0);
    v128.store(p + at, e1, 16);
    s0 = fma(e0, v128.load(t + at), s0);
    s1 = fma(e1, v128.load(t + at, 16), s1);
  }
  const mean = f32x4.splat(sumLanes(f32x4.add(s0, s1)));
  for (let j = 0; j < blocks; j++) {
    const at = <usize>j * TILE;
    v128.store(t + at, f32x4.mul(v128.load(p + at), f32x4.sub(v128.load(t + at), mean)));
    v128.store(t + at, f32x4.mul(v128.load(p + at, 16), f32x4.sub(v128.load(t + at, 16), mean)), 16);
  }
}
