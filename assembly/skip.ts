// Alignments of rows whose factor has many zeros, as behind a ReLU: products with a zero are left out.
//
// V is packed in panels of 48 columns, and one of 48, 32 or 16 for the columns that are left (`panelOf`). A row's nonzero elements are the bits of masks of 64, made once
// for all panels.
import { SKIP_COLS } from "../src/backends/cpu/blocks";
import { fma, scratch, sumDoubles, twoDoubles } from "./simd";
import { AlignNonzerosSlots, CountNonzerosSlots } from "./slots";

const PANEL: usize = SKIP_COLS * 4;

// Columns of the next panel, if so many columns are left.
// @ts-ignore: decorator
@inline function panelOf(left: i32): i32 {
  return left > 32 ? SKIP_COLS : left > 16 ? 32 : 16;
}

// Which of 16 elements are not 0, a bit each.
// @ts-ignore: decorator
@inline function nonzeros16(x: usize): u64 {
  const zero = f32x4.splat(0);
  const low = i16x8.narrow_i32x4_s(f32x4.ne(v128.load(x), zero), f32x4.ne(v128.load(x, 16), zero));
  const high = i16x8.narrow_i32x4_s(f32x4.ne(v128.load(x, 32), zero), f32x4.ne(v128.load(x, 48), zero));
  return <u64>(<u32>i8x16.bitmask(i8x16.narrow_i16x8_s(low, high)));
}

// Which of up to 64 elements are not 0.
function nonzeros(x: usize, count: i32): u64 {
  if (count == 64) return nonzeros16(x) | (nonzeros16(x + 64) << 16) | (nonzeros16(x + 128) << 32) | (nonzeros16(x + 192) << 48);
  let mask: u64 = 0, i = 0;
  for (; i + 16 <= count; i += 16) mask |= nonzeros16(x + (<usize>i << 2)) << i;
  for (; i < count; i++) if (load<f32>(x + (<usize>i << 2)) != 0) mask |= (<u64>1) << i;
  return mask;
}

// Adds the sum of four f32 to two sums of doubles.
// @ts-ignore: decorator
@inline function addDoubles(sum: usize, v: v128): void {
  v128.store(sum, f64x2.add(v128.load(sum), twoDoubles(v)));
}

function meetTile(tile: usize, y: usize, sum: usize): void {
  let s = f32x4.splat(0), t = s;
  for (let o: usize = 0; o < PANEL; o += 32) {
    s = fma(v128.load(tile + o), v128.load(y + o), s);
    t = fma(v128.load(tile + o, 16), v128.load(y + o, 16), t);
  }
  addDoubles(sum, f32x4.add(s, t));
}

// Adds Σ_c y[c] · Σ_i x_i · v[i][c], over the columns c of a panel and the i in the masks, to two sums of doubles: for panels of 48, 32 and 16 columns.
//
// These three depend on what the compiler of Node 20 does. They must not be inlined, and the loop over the masks must not be one of its own around the loop over their
// bits: either way the accumulators do not all get registers, and it takes twice as long. As in micro6 (gemm.ts), ways out that are never taken (words is not
// negative) keep loads from being moved in front of the arithmetic; in meet48, nothing but stores may stand behind the loop.
function meet48(x: usize, masks: usize, words: i32, v: usize, y: usize, sum: usize, tile: usize): void {
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), c2 = f32x4.splat(0), c3 = f32x4.splat(0);
  let c4 = f32x4.splat(0), c5 = f32x4.splat(0), c6 = f32x4.splat(0), c7 = f32x4.splat(0);
  let c8 = f32x4.splat(0), c9 = f32x4.splat(0), ca = f32x4.splat(0), cb = f32x4.splat(0);
  const end = masks + (<usize>words << 3);
  let mask = load<u64>(masks);
  masks += 8;
  while (true) {
    if (mask == 0) {
      if (masks == end) break;
      mask = load<u64>(masks);
      masks += 8; x += 256; v += 64 * 192;
      continue;
    }
    const i = <usize>ctz(mask);
    mask &= mask - 1;
    const s = v128.load_splat<f32>(x + (i << 2)), row = v + i * 192;
    c0 = fma(s, v128.load(row, 0), c0); c1 = fma(s, v128.load(row, 16), c1);
    c2 = fma(s, v128.load(row, 32), c2); c3 = fma(s, v128.load(row, 48), c3);
    if (words < 0) break;
    c4 = fma(s, v128.load(row, 64), c4); c5 = fma(s, v128.load(row, 80), c5);
    c6 = fma(s, v128.load(row, 96), c6); c7 = fma(s, v128.load(row, 112), c7);
    if (words < 0) break;
    c8 = fma(s, v128.load(row, 128), c8); c9 = fma(s, v128.load(row, 144), c9);
    ca = fma(s, v128.load(row, 160), ca); cb = fma(s, v128.load(row, 176), cb);
  }
  v128.store(tile, c0, 0); v128.store(tile, c1, 16); v128.store(tile, c2, 32); v128.store(tile, c3, 48);
  v128.store(tile, c4, 64); v128.store(tile, c5, 80); v128.store(tile, c6, 96); v128.store(tile, c7, 112);
  v128.store(tile, c8, 128); v128.store(tile, c9, 144); v128.store(tile, ca, 160); v128.store(tile, cb, 176);
  meetTile(tile, y, sum);
}

function meet32(x: usize, masks: usize, words: i32, v: usize, y: usize, sum: usize): void {
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), c2 = f32x4.splat(0), c3 = f32x4.splat(0);
  let c4 = f32x4.splat(0), c5 = f32x4.splat(0), c6 = f32x4.splat(0), c7 = f32x4.splat(0);
  const end = masks + (<usize>words << 3);
  let mask = load<u64>(masks);
  masks += 8;
  while (true) {
    if (mask == 0) {
      if (masks == end) break;
      mask = load<u64>(masks);
      masks += 8; x += 256; v += 64 * 128;
      continue;
    }
    const i = <usize>ctz(mask);
    mask &= mask - 1;
    const s = v128.load_splat<f32>(x + (i << 2)), row = v + i * 128;
    c0 = fma(s, v128.load(row, 0), c0); c1 = fma(s, v128.load(row, 16), c1);
    c2 = fma(s, v128.load(row, 32), c2); c3 = fma(s, v128.load(row, 48), c3);
    if (words < 0) break;
    c4 = fma(s, v128.load(row, 64), c4); c5 = fma(s, v128.load(row, 80), c5);
    c6 = fma(s, v128.load(row, 96), c6); c7 = fma(s, v128.load(row, 112), c7);
  }
  let s = f32x4.mul(c0, v128.load(y)), t = f32x4.mul(c1, v128.load(y, 16));
  s = fma(c2, v128.load(y, 32), s); t = fma(c3, v128.load(y, 48), t);
  s = fma(c4, v128.load(y, 64), s); t = fma(c5, v128.load(y, 80), t);
  s = fma(c6, v128.load(y, 96), s); t = fma(c7, v128.load(y, 112), t);
  addDoubles(sum, f32x4.add(s, t));
}

// Four accumulators would wait for each other, so elements are taken by turns into two sets of four.
function meet16(x: usize, masks: usize, words: i32, v: usize, y: usize, sum: usize): void {
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), c2 = f32x4.splat(0), c3 = f32x4.splat(0);
  let c4 = f32x4.splat(0), c5 = f32x4.splat(0), c6 = f32x4.splat(0), c7 = f32x4.splat(0);
  const end = masks + (<usize>words << 3);
  let mask = load<u64>(masks);
  masks += 8;
  while (true) {
    if (mask == 0) {
      if (masks == end) break;
      mask = load<u64>(masks);
      masks += 8; x += 256; v += 64 * 64;
      continue;
    }
    let i = <usize>ctz(mask);
    mask &= mask - 1;
    let s = v128.load_splat<f32>(x + (i << 2)), row = v + i * 64;
    c0 = fma(s, v128.load(row), c0); c1 = fma(s, v128.load(row, 16), c1);
    c2 = fma(s, v128.load(row, 32), c2); c3 = fma(s, v128.load(row, 48), c3);
    if (mask == 0) continue;
    i = <usize>ctz(mask);
    mask &= mask - 1;
    s = v128.load_splat<f32>(x + (i << 2)), row = v + i * 64;
    c4 = fma(s, v128.load(row), c4); c5 = fma(s, v128.load(row, 16), c5);
    c6 = fma(s, v128.load(row, 32), c6); c7 = fma(s, v128.load(row, 48), c7);
  }
  c0 = f32x4.add(c0, c4); c1 = f32x4.add(c1, c5); c2 = f32x4.add(c2, c6); c3 = f32x4.add(c3, c7);
  let s = f32x4.mul(c0, v128.load(y)), t = f32x4.mul(c1, v128.load(y, 16));
  s = fma(c2, v128.load(y, 32), s); t = fma(c3, v128.load(y, 48), t);
  addDoubles(sum, f32x4.add(s, t));
}

// Copies `width` columns of rows of y into a panel's width, with zeros behind them: what follows them in memory could be ∞, which the zeros of a panel would make NaN.
function copyColumns(y: usize, ldy: usize, rows: i32, width: i32, panel: i32, to: usize): void {
  const bytes = <usize>width << 2, step = <usize>panel << 2;
  memory.fill(to, 0, <usize>rows * step);
  for (let r = 0; r < rows; r++) {
    let o: usize = 0;
    for (; o + 16 <= bytes; o += 16) v128.store(to + o, v128.load(y + o));
    for (; o < bytes; o += 4) store<f32>(to + o, load<f32>(y + o));
    y += ldy; to += step;
  }
}

// As alignBlock, without the products with zeros of x: V must be finite, since 0·∞ is not 0. Scratch: a tile; then of each row two sums, the columns of y that do not fill
// a panel, and the masks.
export function alignNonzeros(p: AlignNonzerosSlots, task: i32): void {
  const n = p.n, k = p.k, pass = p.pass, most = p.rowsPerTask;
  const row0 = (task / p.columnBlocks) * most, block = task % p.columnBlocks, col0 = block * p.columnsPerTask;
  const rows = min(most, p.rows - row0), col1 = min(n, col0 + p.columnsPerTask);
  const tile = scratch(p), sums = tile + PANEL, last = sums + (<usize>most << 4), masks = last + <usize>most * PANEL;
  const ldx = <usize>k << 2, ldy = <usize>n << 2, each = <usize>((pass + 63) >> 6) << 3;
  memory.fill(sums, 0, <usize>most << 4);
  for (let k0 = 0; k0 < k; k0 += pass) {
    const kc = min(pass, k - k0), words = (kc + 63) >> 6;
    const x0 = p.x + ((<usize>row0 * <usize>k + <usize>k0) << 2);
    for (let r = 0; r < rows; r++)
      for (let i = 0; i < kc; i += 64)
        store<u64>(masks + <usize>r * each + (<usize>i >> 3), nonzeros(x0 + <usize>r * ldx + (<usize>i << 2), min(64, kc - i)));
    for (let j = col0; j < col1; j += SKIP_COLS) {
      const panel = panelOf(n - j), width = min(panel, n - j);
      const v = p.v + ((<usize>j * <usize>k + <usize>k0 * panel) << 2);
      let y = p.y + ((<usize>row0 * <usize>n + <usize>j) << 2), stepY = ldy;
      if (width < panel) {
        if (k0 == 0) copyColumns(y, ldy, rows, width, panel, last);
        y = last; stepY = <usize>panel << 2;
      }
      let x = x0, mask = masks, sum = sums;
      for (let r = 0; r < rows; r++) {
        if (panel == SKIP_COLS) meet48(x, mask, words, v, y, sum, tile);
        else if (panel == 32) meet32(x, mask, words, v, y, sum);
        else meet16(x, mask, words, v, y, sum);
        x += ldx; mask += each; y += stepY; sum += 16;
      }
    }
  }
  const partials = p.partials + ((<usize>block * <usize>p.rows + <usize>row0) << 3);
  for (let r = 0; r < rows; r++) store<f64>(partials + (<usize>r << 3), sumDoubles(v128.load(sums + (<usize>r << 4))));
}

// How many elements of some rows are not 0. If those are not all the rows, they lie at steps of the golden ratio, so that no period of the rows matters.
export function countNonzeros(p: CountNonzerosSlots, task: i32): void {
  const rows = p.rows, sampled = p.sampled;
  const factor = task == 0 ? p.a : p.b, bytes = <usize>(task == 0 ? p.m : p.n) << 2;
  let counts = i32x4.splat(0), count = 0;
  for (let i = 0; i < sampled; i++) {
    const row = sampled < rows ? <usize>((<u64>(<u32>i * 0x9e3779b9) * <u64>rows) >> 32) : <usize>i;
    const at = factor + row * bytes;
    let o: usize = 0;
    for (; o + 16 <= bytes; o += 16) counts = i32x4.sub(counts, f32x4.ne(v128.load(at + o), f32x4.splat(0)));
    for (; o < bytes; o += 4) if (load<f32>(at + o) != 0) count++;
  }
  count += i32x4.extract_lane(counts, 0) + i32x4.extract_lane(counts, 1);
  count += i32x4.extract_lane(counts, 2) + i32x4.extract_lane(counts, 3);
  store<i32>(p.counts + (<usize>task << 2), count);
}
