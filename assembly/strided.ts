// Kernels that read or write with strides. The launcher merges axes into rows of `length` elements, and up to five outer axes
// whose strides give the first element of each row.
import { storePair, wide } from "./simd";
import { BinarySlots, CompareSlots, CopyRowsSlots, CopyTilesSlots } from "./slots";

// The offset of row `row`, in elements; extents and strides are arrays of `rank` integers.
// @ts-ignore: decorator
@inline function rowOffset(row: i32, rank: i32, extents: usize, strides: usize): i32 {
  let offset = 0;
  for (let axis = rank - 1; axis > 0; axis--) {
    const extent = load<i32>(extents + (<usize>axis << 2)), rest = row / extent;
    offset += (row - rest * extent) * load<i32>(strides + (<usize>axis << 2));
    row = rest;
  }
  return rank > 0 ? offset + row * load<i32>(strides) : offset;
}

export function copyRows(p: CopyRowsSlots, task: i32): void {
  const length = p.length, inStep = p.fromStep, outStep = p.toStep, rank = p.rank;
  const columnBlocks = p.columnBlocks, column = (task % columnBlocks) * p.columnsPerTask;
  const columns = min(p.columnsPerTask, length - column);
  const first = (task / columnBlocks) * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  const bytes = <usize>columns << 2;
  for (let r = first; r < last; r++) {
    let from = p.from + (<usize>(rowOffset(r, rank, p.extents, p.strides0) + column * inStep) << 2);
    let to = p.to + (<usize>(rowOffset(r, rank, p.extents, p.strides1) + column * outStep) << 2);
    if (outStep == 1 && inStep == 1) {
      let i: usize = 0;
      for (; i + 16 <= bytes; i += 16) v128.store(to + i, v128.load(from + i));
      for (; i < bytes; i += 4) store<i32>(to + i, load<i32>(from + i));
    } else if (outStep == 1 && inStep == 0) {
      const x = v128.load_splat<i32>(from);
      let i: usize = 0;
      for (; i + 16 <= bytes; i += 16) v128.store(to + i, x);
      for (; i < bytes; i += 4) v128.store_lane<i32>(to + i, x, 0);
    } else {
      for (let i = 0; i < columns; i++) {
        store<i32>(to, load<i32>(from));
        from += <usize>inStep << 2;
        to += <usize>outStep << 2;
      }
    }
  }
}

// Transposes: to[r·toRow + c] = from[c·fromColumn + r] for each index of the outer axes, in tiles of 4×4.
export function copyTiles(p: CopyTilesSlots, task: i32): void {
  const rows = p.rows, columns = p.columns, rank = p.rank, blocks = p.rowBlocks;
  const outer = task / blocks, first = (task % blocks) * p.rowsPerTask, last = min(rows, first + p.rowsPerTask);
  const from = p.from + (<usize>rowOffset(outer, rank, p.extents, p.strides0) << 2);
  const to = p.to + (<usize>rowOffset(outer, rank, p.extents, p.strides1) << 2);
  const inColumn = <usize>p.fromColumn << 2, outRow = <usize>p.toRow << 2;
  let c = 0;
  for (; c + 4 <= columns; c += 4) {
    const source = from + <usize>c * inColumn, target = to + (<usize>c << 2);
    let r = first;
    for (; r + 4 <= last; r += 4) {
      const s = source + (<usize>r << 2), t = target + <usize>r * outRow;
      const a = v128.load(s), b = v128.load(s + inColumn);
      const d = v128.load(s + 2 * inColumn), e = v128.load(s + 3 * inColumn);
      const low0 = i32x4.shuffle(a, b, 0, 4, 1, 5), high0 = i32x4.shuffle(a, b, 2, 6, 3, 7);
      const low1 = i32x4.shuffle(d, e, 0, 4, 1, 5), high1 = i32x4.shuffle(d, e, 2, 6, 3, 7);
      v128.store(t, i64x2.shuffle(low0, low1, 0, 2));
      v128.store(t + outRow, i64x2.shuffle(low0, low1, 1, 3));
      v128.store(t + 2 * outRow, i64x2.shuffle(high0, high1, 0, 2));
      v128.store(t + 3 * outRow, i64x2.shuffle(high0, high1, 1, 3));
    }
    for (; r < last; r++)
      for (let i: usize = 0; i < 4; i++)
        store<i32>(target + <usize>r * outRow + (i << 2), load<i32>(source + i * inColumn + (<usize>r << 2)));
  }
  for (; c < columns; c++)
    for (let r = first; r < last; r++) {
      const x = load<i32>(from + <usize>c * inColumn + (<usize>r << 2));
      store<i32>(to + <usize>r * outRow + (<usize>c << 2), x);
    }
}

// The result of two elements: a kind of `binary`, by its position in the table's `binaryKinds`, or of `compare`. There is one export per kind, as in elementwise.ts.
// @ts-ignore: decorator
@inline function combine(kind: i32, a: v128, b: v128): v128 {
  if (kind == 0) return f32x4.add(a, b);
  if (kind == 1) return f32x4.sub(a, b);
  if (kind == 2) return f32x4.mul(a, b);
  if (kind == 3) return f32x4.div(a, b);
  if (kind == 4) return f32x4.max(a, b);
  if (kind == 5) return f32x4.min(a, b);
  if (kind == 6) return power4(a, b);
  if (kind == 10) return truth(f32x4.eq(a, b));
  if (kind == 11) return truth(f32x4.ne(a, b));
  if (kind == 12) return truth(f32x4.lt(a, b));
  if (kind == 13) return truth(f32x4.le(a, b));
  if (kind == 14) return truth(i32x4.eq(a, b));
  if (kind == 15) return truth(i32x4.ne(a, b));
  if (kind == 16) return truth(i32x4.lt_s(a, b));
  if (kind == 17) return truth(i32x4.le_s(a, b));
  const zero = i32x4.splat(0);
  const x = i32x4.ne(a, zero), y = i32x4.ne(b, zero);
  return truth(kind == 18 ? v128.and(x, y) : v128.or(x, y));
}

// 1 where a mask has all bits.
// @ts-ignore: decorator
@inline function truth(mask: v128): v128 {
  return i32x4.shr_u(mask, 31);
}

// powf as in C, computed in doubles (AssemblyScript's port of musl's pow). It gives 1 for those powers of ±1 for which JavaScript gives NaN.
function power4(a: v128, b: v128): v128 {
  const one = f32x4.splat(1);
  const endless = f32x4.eq(f32x4.abs(b), f32x4.splat(Infinity));
  const isOne = v128.or(f32x4.eq(a, one), v128.and(f32x4.eq(a, f32x4.splat(-1)), endless));
  const power = f32x4(
    Mathf.pow(f32x4.extract_lane(a, 0), f32x4.extract_lane(b, 0)),
    Mathf.pow(f32x4.extract_lane(a, 1), f32x4.extract_lane(b, 1)),
    Mathf.pow(f32x4.extract_lane(a, 2), f32x4.extract_lane(b, 2)),
    Mathf.pow(f32x4.extract_lane(a, 3), f32x4.extract_lane(b, 3)),
  );
  return v128.bitselect(one, power, isOne);
}

// One row; aStep and bStep are 0 or 1 in the first three loops.
// @ts-ignore: decorator
@inline function pairRow(kind: i32, a: usize, aStep: i32, b: usize, bStep: i32, c: usize, bytes: usize): void {
  let i: usize = 0;
  if (aStep == 1 && bStep == 1) {
    for (; wide && kind != 6 && i + 32 <= bytes; i += 32)
      storePair(c + i, combine(kind, v128.load(a + i), v128.load(b + i)), combine(kind, v128.load(a + i, 16), v128.load(b + i, 16)));
    for (; i + 16 <= bytes; i += 16) v128.store(c + i, combine(kind, v128.load(a + i), v128.load(b + i)));
  } else if (aStep == 1 && bStep == 0) {
    const y = v128.load_splat<f32>(b);
    for (; wide && kind != 6 && i + 32 <= bytes; i += 32)
      storePair(c + i, combine(kind, v128.load(a + i), y), combine(kind, v128.load(a + i, 16), y));
    for (; i + 16 <= bytes; i += 16) v128.store(c + i, combine(kind, v128.load(a + i), y));
  } else if (aStep == 0 && bStep == 1) {
    const x = v128.load_splat<f32>(a);
    for (; wide && kind != 6 && i + 32 <= bytes; i += 32)
      storePair(c + i, combine(kind, x, v128.load(b + i)), combine(kind, x, v128.load(b + i, 16)));
    for (; i + 16 <= bytes; i += 16) v128.store(c + i, combine(kind, x, v128.load(b + i)));
  }
  a += i * <usize>aStep;
  b += i * <usize>bStep;
  for (; i < bytes; i += 4) {
    v128.store_lane<f32>(c + i, combine(kind, v128.load_splat<f32>(a), v128.load_splat<f32>(b)), 0);
    a += <usize>aStep << 2;
    b += <usize>bStep << 2;
  }
}

// c is contiguous.
// @ts-ignore: decorator
@inline function pairs(kind: i32, p: BinarySlots, task: i32): void {
  const length = p.length, aStep = p.aStep, bStep = p.bStep, rank = p.rank;
  const columnBlocks = p.columnBlocks, column = (task % columnBlocks) * p.columnsPerTask;
  const bytes = <usize>min(p.columnsPerTask, length - column) << 2;
  const first = (task / columnBlocks) * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const a = p.a + (<usize>(rowOffset(r, rank, p.extents, p.strides0) + column * aStep) << 2);
    const b = p.b + (<usize>(rowOffset(r, rank, p.extents, p.strides1) + column * bStep) << 2);
    const c = p.c + (<usize>(r * length + column) << 2);
    pairRow(kind, a, aStep, b, bStep, c, bytes);
  }
}

export function binary_add(p: BinarySlots, task: i32): void { pairs(0, p, task); }
export function binary_sub(p: BinarySlots, task: i32): void { pairs(1, p, task); }
export function binary_mul(p: BinarySlots, task: i32): void { pairs(2, p, task); }
export function binary_div(p: BinarySlots, task: i32): void { pairs(3, p, task); }
export function binary_max(p: BinarySlots, task: i32): void { pairs(4, p, task); }
export function binary_min(p: BinarySlots, task: i32): void { pairs(5, p, task); }
export function binary_pow(p: BinarySlots, task: i32): void { pairs(6, p, task); }
export function compare_equal_f32(p: CompareSlots, task: i32): void { pairs(10, p, task); }
export function compare_notEqual_f32(p: CompareSlots, task: i32): void { pairs(11, p, task); }
export function compare_less_f32(p: CompareSlots, task: i32): void { pairs(12, p, task); }
export function compare_lessEqual_f32(p: CompareSlots, task: i32): void { pairs(13, p, task); }
export function compare_equal_i32(p: CompareSlots, task: i32): void { pairs(14, p, task); }
export function compare_notEqual_i32(p: CompareSlots, task: i32): void { pairs(15, p, task); }
export function compare_less_i32(p: CompareSlots, task: i32): void { pairs(16, p, task); }
export function compare_lessEqual_i32(p: CompareSlots, task: i32): void { pairs(17, p, task); }
export function compare_and_i32(p: CompareSlots, task: i32): void { pairs(18, p, task); }
export function compare_or_i32(p: CompareSlots, task: i32): void { pairs(19, p, task); }
