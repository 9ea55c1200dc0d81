// Alignments of rows whose factor has many zeros, as behind a ReLU: products with a zero are left out.
import { SKIP_COLS } from "../src/backends/cpu/blocks";
import { fma, scratch, sumDoubles, swizzle, twoDoubles } from "./simd";
import { AlignNonzerosSlots, CountNonzerosSlots } from "./slots";

const PANEL: usize = SKIP_COLS * 4;

// Byte positions that move the lanes of a mask of 4 bits to the front, 16 bytes a mask.
const TO_FRONT = memory.data<u32>([
  0, 0, 0, 0,
  0x03020100, 0, 0, 0,
  0x07060504, 0, 0, 0,
  0x03020100, 0x07060504, 0, 0,
  0x0b0a0908, 0, 0, 0,
  0x03020100, 0x0b0a0908, 0, 0,
  0x07060504, 0x0b0a0908, 0, 0,
  0x03020100, 0x07060504, 0x0b0a0908, 0,
  0x0f0e0d0c, 0, 0, 0,
  0x03020100, 0x0f0e0d0c, 0, 0,
  0x07060504, 0x0f0e0d0c, 0, 0,
  0x03020100, 0x07060504, 0x0f0e0d0c, 0,
  0x0b0a0908, 0x0f0e0d0c, 0, 0,
  0x03020100, 0x0b0a0908, 0x0f0e0d0c, 0,
  0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0,
  0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
], 16);

// Lists what is not 0 of `k` elements: the values, and how many bytes of a panel lie before the row of each. Gives the bytes of either list. What is written
// beyond the end of a list stays within the room of k elements.
// @ts-ignore: decorator
@inline function listNonzeros(x: usize, k: i32, values: usize, places: usize): usize {
  let at = i32x4(0, PANEL, 2 * PANEL, 3 * PANEL), bytes: usize = 0, i = 0;
  for (; i + 4 <= k; i += 4) {
    const four = v128.load(x);
    const mask = i32x4.bitmask(f32x4.ne(four, f32x4.splat(0)));
    const front = v128.load(TO_FRONT + (<usize>mask << 4));
    v128.store(values + bytes, swizzle(four, front));
    v128.store(places + bytes, swizzle(at, front));
    at = i32x4.add(at, i32x4.splat(4 * PANEL));
    bytes += <usize>popcnt(mask) << 2;
    x += 16;
  }
  for (; i < k; i++) {
    const one = load<f32>(x);
    if (one != 0) {
      store<f32>(values + bytes, one);
      store<i32>(places + bytes, i * PANEL);
      bytes += 4;
    }
    x += 4;
  }
  return bytes;
}

// Adds Σ_c y[c] · Σ_i value_i · v[place_i][c], over the columns c of a panel, to two sums of doubles. It must stay a function: inlined, its accumulators do not
// all get a register of V8, and it takes twice as long. A function with two callers is not inlined.
function meetPanel(values: usize, places: usize, bytes: usize, v: usize, y: usize, sum: usize): void {
  let c0 = f32x4.splat(0), c1 = f32x4.splat(0), c2 = f32x4.splat(0), c3 = f32x4.splat(0);
  let c4 = f32x4.splat(0), c5 = f32x4.splat(0), c6 = f32x4.splat(0), c7 = f32x4.splat(0);
  const end = values + bytes;
  while (values < end) {
    const x = v128.load_splat<f32>(values), row = v + load<u32>(places);
    c0 = fma(x, v128.load(row), c0); c1 = fma(x, v128.load(row, 16), c1);
    c2 = fma(x, v128.load(row, 32), c2); c3 = fma(x, v128.load(row, 48), c3);
    c4 = fma(x, v128.load(row, 64), c4); c5 = fma(x, v128.load(row, 80), c5);
    c6 = fma(x, v128.load(row, 96), c6); c7 = fma(x, v128.load(row, 112), c7);
    values += 4; places += 4;
  }
  let s = f32x4.mul(c0, v128.load(y)), t = f32x4.mul(c1, v128.load(y, 16));
  s = fma(c2, v128.load(y, 32), s); t = fma(c3, v128.load(y, 48), t);
  s = fma(c4, v128.load(y, 64), s); t = fma(c5, v128.load(y, 80), t);
  s = fma(c6, v128.load(y, 96), s); t = fma(c7, v128.load(y, 112), t);
  v128.store(sum, f64x2.add(v128.load(sum), twoDoubles(f32x4.add(s, t))));
}

// As alignBlock, without the products with zeros of x: V must be finite, since 0·∞ is not 0. Scratch: a panel's columns of y; then of each row two sums, the bytes
// of its list, and its list.
export function alignNonzeros(p: AlignNonzerosSlots, task: i32): void {
  const n = p.n, k = p.k, pass = p.pass, most = p.rowsPerTask;
  const row0 = (task / p.columnBlocks) * most, block = task % p.columnBlocks, col0 = block * p.columnsPerTask;
  const rows = min(most, p.rows - row0), col1 = min(n, col0 + p.columnsPerTask);
  const last = scratch(p), sums = last + PANEL, lengths = sums + (<usize>most << 4), lists = lengths + (<usize>most << 2);
  const half = (<usize>pass << 2) + 16, each = 2 * half, ldy = <usize>n << 2;
  memory.fill(last, 0, lengths - last);
  for (let k0 = 0; k0 < k; k0 += pass) {
    let x = p.x + ((<usize>row0 * <usize>k + <usize>k0) << 2), list = lists;
    for (let r = 0; r < rows; r++) {
      store<i32>(lengths + (<usize>r << 2), <i32>listNonzeros(x, min(pass, k - k0), list, list + half));
      x += <usize>k << 2; list += each;
    }
    for (let j = col0; j < col1; j += SKIP_COLS) {
      const v = p.v + ((<usize>j * <usize>k + <usize>k0 * SKIP_COLS) << 2), width = <usize>min(SKIP_COLS, n - j) << 2;
      let y = p.y + ((<usize>row0 * <usize>n + <usize>j) << 2), sum = sums, length = lengths;
      list = lists;
      for (let r = 0; r < rows; r++) {
        const bytes = <usize>load<i32>(length);
        if (width == PANEL) meetPanel(list, list + half, bytes, v, y, sum);
        else {
          // Zeros follow the columns that are there: what follows them in memory could be ∞, which the zeros of a panel would make NaN.
          for (let o: usize = 0; o < width; o += 4) store<f32>(last + o, load<f32>(y + o));
          meetPanel(list, list + half, bytes, v, last, sum);
        }
        y += ldy; sum += 16; length += 4; list += each;
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
