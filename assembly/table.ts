// Embedding tables: gather, scatter-add, and the alignment of a table's gradient that is never formed.
import { SORT_BITS as DIGIT_BITS, SORT_VALUES as DIGITS } from "../src/backends/cpu/blocks";
import { dotRange, squareRange } from "./reduce";
import { int, ptr, scratch } from "./simd";

// Slots: 0 table, 1 ids, 2 out, 3 rows, 4 rows a task, 5 width, 6 tableRows.
export function gather(p: usize, task: i32): void {
  const bytes = <usize>int(p, 5) << 2, tableRows = int(p, 6);
  const first = task * int(p, 4), last = min(int(p, 3), first + int(p, 4));
  for (let r = first; r < last; r++) {
    const id = load<i32>(ptr(p, 1) + (<usize>r << 2)), out = ptr(p, 2) + <usize>r * bytes;
    let i: usize = 0;
    if (<u32>id < <u32>tableRows) {
      const from = ptr(p, 0) + <usize>id * bytes;
      for (; i + 16 <= bytes; i += 16) v128.store(out + i, v128.load(from + i));
      for (; i < bytes; i += 4) store<i32>(out + i, load<i32>(from + i));
    } else for (; i < bytes; i += 4) store<f32>(out + i, NaN);
  }
}

// A task owns a range of the table's rows and reads all ids. Slots: 0 x, 1 ids, 2 out, 3 rows, 4 width, 5 tableRows,
// 6 table rows a task, 7 accumulate.
export function scatterAdd(p: usize, task: i32): void {
  const bytes = <usize>int(p, 4) << 2, out = ptr(p, 2), ids = ptr(p, 1);
  const first = task * int(p, 6), count = min(int(p, 6), int(p, 5) - first);
  if (!int(p, 7)) memory.fill(out + <usize>first * bytes, 0, <usize>count * bytes);
  for (let r = 0; r < int(p, 3); r++) {
    const id = load<i32>(ids + (<usize>r << 2));
    if (<u32>(id - first) >= <u32>count) continue;
    const from = ptr(p, 0) + <usize>r * bytes, to = out + <usize>id * bytes;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) v128.store(to + i, f32x4.add(v128.load(to + i), v128.load(from + i)));
    for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(to + i) + load<f32>(from + i));
  }
}

// One stable pass of radix sort: `from` to `to`, pairs (id, row) of 8 bytes.
function sortPass(from: usize, to: usize, count: i32, shift: i32, counters: usize): void {
  memory.fill(counters, 0, DIGITS << 2);
  for (let n = 0; n < count; n++) {
    const at = counters + (<usize>((load<i32>(from + (<usize>n << 3)) >>> shift) & (DIGITS - 1)) << 2);
    store<i32>(at, load<i32>(at) + 1);
  }
  let start = 0;
  for (let d = 0; d < DIGITS; d++) {
    const at = counters + (<usize>d << 2), size = load<i32>(at);
    store<i32>(at, start);
    start += size;
  }
  for (let n = 0; n < count; n++) {
    const pair = load<i64>(from + (<usize>n << 3));
    const at = counters + (<usize>((<i32>pair >>> shift) & (DIGITS - 1)) << 2), place = load<i32>(at);
    store<i32>(at, place + 1);
    store<i64>(to + (<usize>place << 3), pair);
  }
}

// A task is a segment, or after those a group of segments. Pairs (id, row) are sorted by id, so that the rows of one id
// follow one another in order; their sum is squared in doubles, four columns at a time.
// Slots: 0 dy, 1 ids, 2 segments, 3 groups, 4 v, 5 dots, 6 sumsq, 7 groupSumsq, 8 width, 9 tableRows, 10 segments' count.
// Scratch bytes: 4·DIGITS + 16·(rows of the longest task).
export function embeddingAlign(p: usize, task: i32): void {
  const width = int(p, 8), tableRows = int(p, 9), segments = ptr(p, 2), bytes = <usize>width << 2;
  const group = task - int(p, 10);
  let first = 0, last = 0;
  if (group < 0) {
    first = load<i32>(segments + (<usize>task << 2));
    last = load<i32>(segments + (<usize>task << 2), 4);
  } else {
    const bounds = ptr(p, 3) + (<usize>group << 2);
    first = load<i32>(segments + (<usize>load<i32>(bounds) << 2));
    last = load<i32>(segments + (<usize>load<i32>(bounds, 4) << 2));
  }

  const counters = scratch(p);
  let pairs = counters + (DIGITS << 2), spare = pairs + (<usize>(last - first) << 3);
  let count = 0;
  let dot: f64 = 0;
  for (let r = first; r < last; r++) {
    const id = load<i32>(ptr(p, 1) + (<usize>r << 2));
    if (<u32>id >= <u32>tableRows) continue;
    store<i32>(pairs + (<usize>count << 3), id);
    store<i32>(pairs + (<usize>count << 3), r, 4);
    count++;
    if (group < 0 && ptr(p, 4))
      dot += dotRange(ptr(p, 0) + <usize>r * bytes, ptr(p, 4) + <usize>id * bytes, bytes);
  }
  for (let shift = 0; shift == 0 || tableRows >>> shift != 0; shift += DIGIT_BITS) {
    sortPass(pairs, spare, count, shift, counters);
    const other = pairs;
    pairs = spare;
    spare = other;
    if (shift + DIGIT_BITS >= 32) break;
  }

  let total: f64 = 0;
  for (let n = 0; n < count; ) {
    const run = pairs + (<usize>n << 3), id = load<i32>(run);
    let length = 1;
    while (n + length < count && load<i32>(run + (<usize>length << 3)) == id) length++;
    total += squaredSum(ptr(p, 0), bytes, run, length);
    n += length;
  }
  if (group < 0) {
    store<f32>(ptr(p, 5) + (<usize>task << 2), <f32>dot);
    store<f32>(ptr(p, 6) + (<usize>task << 2), <f32>total);
  } else store<f32>(ptr(p, 7) + (<usize>group << 2), <f32>total);
}

// ‖Σ_n x[row n]‖² over the rows of a run of pairs.
function squaredSum(x: usize, bytes: usize, run: usize, length: i32): f64 {
  if (length == 1) {
    const row = x + <usize>load<i32>(run, 4) * bytes;
    return squareRange(row, bytes);
  }
  let total = f64x2.splat(0);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    let low = f64x2.splat(0), high = low;
    for (let n = 0; n < length; n++) {
      const row = v128.load(x + <usize>load<i32>(run + (<usize>n << 3), 4) * bytes + i);
      low = f64x2.add(low, f64x2.promote_low_f32x4(row));
      high = f64x2.add(high, f64x2.promote_low_f32x4(i64x2.shuffle(row, row, 1, 1)));
    }
    total = f64x2.add(total, f64x2.add(f64x2.mul(low, low), f64x2.mul(high, high)));
  }
  let sum = f64x2.extract_lane(total, 0) + f64x2.extract_lane(total, 1);
  for (; i < bytes; i += 4) {
    let element: f64 = 0;
    for (let n = 0; n < length; n++)
      element += <f64>load<f32>(x + <usize>load<i32>(run + (<usize>n << 3), 4) * bytes + i);
    sum += element * element;
  }
  return sum;
}
