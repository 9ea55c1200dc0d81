// Reductions. Long f32 sums run in chunks, so that rounding grows only with the number of chunks; sums of products for
// norms and alignments run in doubles.
import { SUM_ELEMENTS, SUM_ROWS as CHUNK_ROWS } from "../src/backends/cpu/blocks";
import { doubles, fma, fma64, sumDoubles } from "./simd";
import { AlignRowsSlots, DotPartialsSlots, DotTotalSlots, ReduceColumnsSlots, ReduceRowsSlots, SegmentColumnsSlots } from "./slots";

const CHUNK_BYTES: usize = SUM_ELEMENTS * 4;

// ⟨x, y⟩ of `bytes` bytes, in doubles.
export function dotRange(x: usize, y: usize, bytes: usize): f64 {
  let s0 = f64x2.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    s0 = fma64(doubles(x + i), doubles(y + i), s0);
    s1 = fma64(doubles(x + i + 8), doubles(y + i + 8), s1);
    s2 = fma64(doubles(x + i + 16), doubles(y + i + 16), s2);
    s3 = fma64(doubles(x + i + 24), doubles(y + i + 24), s3);
  }
  let sum = sumDoubles(f64x2.add(f64x2.add(s0, s1), f64x2.add(s2, s3)));
  for (; i < bytes; i += 4) sum += <f64>load<f32>(x + i) * <f64>load<f32>(y + i);
  return sum;
}

// ‖x‖² of `bytes` bytes, in doubles.
export function squareRange(x: usize, bytes: usize): f64 {
  let s0 = f64x2.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    const x0 = doubles(x + i), x1 = doubles(x + i + 8), x2 = doubles(x + i + 16), x3 = doubles(x + i + 24);
    s0 = fma64(x0, x0, s0);
    s1 = fma64(x1, x1, s1);
    s2 = fma64(x2, x2, s2);
    s3 = fma64(x3, x3, s3);
  }
  let sum = sumDoubles(f64x2.add(f64x2.add(s0, s1), f64x2.add(s2, s3)));
  for (; i < bytes; i += 4) sum += <f64>load<f32>(x + i) * <f64>load<f32>(x + i);
  return sum;
}

// @ts-ignore: decorator
@inline function combine(kind: i32, a: v128, b: v128): v128 {
  if (kind == 0) return f32x4.add(a, b);
  if (kind == 1) return f32x4.max(a, b);
  return f32x4.min(a, b);
}

// @ts-ignore: decorator
@inline function empty(kind: i32): v128 {
  if (kind == 0) return f32x4.splat(0);
  if (kind == 1) return f32x4.splat(-Infinity);
  return f32x4.splat(Infinity);
}

// @ts-ignore: decorator
@inline function rowRange(kind: i32, x: usize, bytes: usize): v128 {
  let a = empty(kind), b = a;
  let i: usize = 0;
  for (; i + 32 <= bytes; i += 32) {
    a = combine(kind, a, v128.load(x + i));
    b = combine(kind, b, v128.load(x + i, 16));
  }
  a = combine(kind, a, b);
  a = combine(kind, a, i32x4.shuffle(a, a, 2, 3, 0, 1));
  a = combine(kind, a, i32x4.shuffle(a, a, 1, 0, 3, 2));
  for (; i < bytes; i += 4) a = combine(kind, a, v128.load_splat<f32>(x + i));
  return a;
}

// Reduces the last axis.
export function reduceRows(p: ReduceRowsSlots, task: i32): void {
  const bytes = <usize>p.length << 2, kind = p.kind;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const x = p.x + <usize>r * bytes, y = p.y + (<usize>r << 2);
    if (kind == 1) v128.store_lane<f32>(y, rowRange(1, x, bytes), 0);
    else if (kind == 2) v128.store_lane<f32>(y, rowRange(2, x, bytes), 0);
    else {
      let sum: f64 = 0;
      for (let i: usize = 0; i < bytes; i += CHUNK_BYTES)
        sum += <f64>f32x4.extract_lane(rowRange(0, x + i, min(CHUNK_BYTES, bytes - i)), 0);
      store<f32>(y, <f32>sum);
    }
  }
}

// Adds the term of a row to its columns. Modes: 0 x, 1 x·y, 2 y·(x − mean)·rstd, 3 the maximum of x, 4 the minimum.
// @ts-ignore: decorator
@inline function term(mode: i32, sum: v128, x: v128, y: v128, mean: v128, rstd: v128): v128 {
  if (mode == 0) return f32x4.add(sum, x);
  if (mode == 1) return fma(x, y, sum);
  if (mode == 2) return fma(f32x4.mul(f32x4.sub(x, mean), rstd), y, sum);
  if (mode == 3) return f32x4.max(sum, x);
  return f32x4.min(sum, x);
}

// @ts-ignore: decorator
@inline function neutral(mode: i32): v128 {
  return mode == 3 ? f32x4.splat(-Infinity) : mode == 4 ? f32x4.splat(Infinity) : f32x4.splat(0);
}

// @ts-ignore: decorator
@inline function merge(mode: i32, a: v128, b: v128): v128 {
  return mode == 3 ? f32x4.max(a, b) : mode == 4 ? f32x4.min(a, b) : f32x4.add(a, b);
}

// @ts-ignore: decorator
@inline function fillColumns(out: usize, bytes: usize, value: v128): void {
  for (let i: usize = 0; i < bytes; i += 4) v128.store_lane<f32>(out + i, value, 0);
}

// out[columns] = rows first … last−1 of x (and y), merged in chunks of rows, and merged with out if `add` is true. `stride` bytes between rows.
// @ts-ignore: decorator
@inline function columnRange(
  mode: i32, x: usize, y: usize, stats: usize, stride: usize, first: i32, last: i32, out: usize, bytes: usize, add: bool,
): void {
  const zero = f32x4.splat(0);
  if (first >= last && !add) fillColumns(out, bytes, neutral(mode));
  for (let start = first; start < last; start += CHUNK_ROWS) {
    const end = min(last, start + CHUNK_ROWS);
    const top = <usize>start * stride, fresh = start == first && !add;
    let i: usize = 0;
    for (; i + 64 <= bytes; i += 64) {
      let c0 = neutral(mode), c1 = c0, c2 = c0, c3 = c0;
      let at = top + i;
      for (let r = start; r < end; r++) {
        const mean = mode == 2 ? v128.load_splat<f32>(stats + (<usize>r << 3)) : zero;
        const rstd = mode == 2 ? v128.load_splat<f32>(stats + (<usize>r << 3), 4) : zero;
        c0 = term(mode, c0, v128.load(x + at), mode == 1 || mode == 2 ? v128.load(y + at) : zero, mean, rstd);
        c1 = term(mode, c1, v128.load(x + at, 16), mode == 1 || mode == 2 ? v128.load(y + at, 16) : zero, mean, rstd);
        c2 = term(mode, c2, v128.load(x + at, 32), mode == 1 || mode == 2 ? v128.load(y + at, 32) : zero, mean, rstd);
        c3 = term(mode, c3, v128.load(x + at, 48), mode == 1 || mode == 2 ? v128.load(y + at, 48) : zero, mean, rstd);
        at += stride;
      }
      if (!fresh) {
        c0 = merge(mode, v128.load(out + i), c0); c1 = merge(mode, v128.load(out + i, 16), c1);
        c2 = merge(mode, v128.load(out + i, 32), c2); c3 = merge(mode, v128.load(out + i, 48), c3);
      }
      v128.store(out + i, c0); v128.store(out + i, c1, 16); v128.store(out + i, c2, 32); v128.store(out + i, c3, 48);
    }
    for (; i < bytes; i += 4) {
      let c = neutral(mode);
      let at = top + i;
      for (let r = start; r < end; r++) {
        const mean = mode == 2 ? v128.load_splat<f32>(stats + (<usize>r << 3)) : zero;
        const rstd = mode == 2 ? v128.load_splat<f32>(stats + (<usize>r << 3), 4) : zero;
        const other = mode == 1 || mode == 2 ? v128.load_splat<f32>(y + at) : zero;
        c = term(mode, c, v128.load_splat<f32>(x + at), other, mean, rstd);
        at += stride;
      }
      v128.store_lane<f32>(out + i, fresh ? c : merge(mode, v128.load_splat<f32>(out + i), c), 0);
    }
  }
}

// Reduces a middle axis: x is outer·length·inner.
export function reduceColumns(p: ReduceColumnsSlots, task: i32): void {
  const length = p.length, inner = p.inner, blocks = p.columnBlocks, kind = p.kind;
  const outer = task / blocks, column = (task % blocks) * p.columnsPerTask;
  const stride = <usize>inner << 2, bytes = <usize>min(p.columnsPerTask, inner - column) << 2;
  const x = p.x + (<usize>column << 2) + <usize>outer * <usize>length * stride;
  const y = p.y + (<usize>column << 2) + <usize>outer * stride;
  if (kind == 1) columnRange(3, x, 0, 0, stride, 0, length, y, bytes, false);
  else if (kind == 2) columnRange(4, x, 0, 0, stride, 0, length, y, bytes, false);
  else columnRange(0, x, 0, 0, stride, 0, length, y, bytes, false);
}

// Sums of rows by segment: plain (y and stats null), products (y given), or the gradient of a norm's gain (stats given).
export function segmentColumns(p: SegmentColumnsSlots, task: i32): void {
  const width = p.width, blocks = p.columnBlocks, column = (task % blocks) * p.columnsPerTask;
  const start = (task / blocks) * p.segmentsPerTask, end = min(p.segmentCount, start + p.segmentsPerTask);
  const stride = <usize>width << 2, bytes = <usize>min(p.columnsPerTask, width - column) << 2;
  const at = <usize>column << 2, x = p.x + at, y = p.y + at, stats = p.stats, add = p.accumulate != 0;
  for (let segment = start; segment < end; segment++) {
    const out = p.out + at + ((<usize>segment * <usize>p.outStride) << 2);
    const bounds = p.segments + (<usize>segment << 2), first = load<i32>(bounds), last = load<i32>(bounds, 4);
    if (stats) columnRange(2, x, y, stats, stride, first, last, out, bytes, add);
    else if (p.y) columnRange(1, x, y, 0, stride, first, last, out, bytes, add);
    else columnRange(0, x, 0, 0, stride, first, last, out, bytes, add);
  }
}

// Two rows at a time, so that v is read and converted once for both.
export function alignRows(p: AlignRowsSlots, task: i32): void {
  const bytes = <usize>p.width << 2, v = p.v;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r += 2) {
    // The last row may be its own partner.
    const q = min(r + 1, last - 1), g = p.g + <usize>r * bytes, h = p.g + <usize>q * bytes;
    let s0 = f64x2.splat(0), s1 = s0, t0 = s0, t1 = s0, u0 = s0, u1 = s0, w0 = s0, w1 = s0;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      let along = doubles(v + i), x = doubles(g + i), y = doubles(h + i);
      s0 = fma64(x, along, s0); t0 = fma64(x, x, t0); u0 = fma64(y, along, u0); w0 = fma64(y, y, w0);
      along = doubles(v + i + 8), x = doubles(g + i + 8), y = doubles(h + i + 8);
      s1 = fma64(x, along, s1); t1 = fma64(x, x, t1); u1 = fma64(y, along, u1); w1 = fma64(y, y, w1);
    }
    let dotR = sumDoubles(f64x2.add(s0, s1)), squareR = sumDoubles(f64x2.add(t0, t1));
    let dotQ = sumDoubles(f64x2.add(u0, u1)), squareQ = sumDoubles(f64x2.add(w0, w1));
    for (; i < bytes; i += 4) {
      const along = <f64>load<f32>(v + i), x = <f64>load<f32>(g + i), y = <f64>load<f32>(h + i);
      dotR += x * along; squareR += x * x;
      dotQ += y * along; squareQ += y * y;
    }
    store<f32>(p.dots + (<usize>r << 2), <f32>dotR); store<f32>(p.sumsq + (<usize>r << 2), <f32>squareR);
    store<f32>(p.dots + (<usize>q << 2), <f32>dotQ); store<f32>(p.sumsq + (<usize>q << 2), <f32>squareQ);
  }
}

export function dotPartials(p: DotPartialsSlots, task: i32): void {
  const block = p.elementsPerTask, start = (<usize>task * <usize>block) << 2;
  const bytes = <usize>min(block, p.elements - task * block) << 2;
  const sum = p.x == p.y ? squareRange(p.x + start, bytes) : dotRange(p.x + start, p.y + start, bytes);
  store<f64>(p.partials + (<usize>task << 3), sum);
}

export function dotTotal(p: DotTotalSlots, task: i32): void {
  let sum: f64 = 0;
  for (let i = 0; i < p.count; i++) sum += load<f64>(p.partials + (<usize>i << 3));
  store<f32>(p.out, <f32>sum);
}
