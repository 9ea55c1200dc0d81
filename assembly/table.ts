// Embedding tables: gather, scatter-add, and the alignment of a table's gradient, which is never stored.
import { SORT_BITS as DIGIT_BITS, SORT_FEW as FEW, SORT_VALUES as DIGITS } from "../src/backends/cpu/blocks";
import { dotRange, squareRange } from "./reduce";
import { scratch } from "./simd";
import { EmbeddingAlignSlots, GatherSlots, ScatterAddSlots } from "./slots";

export function gather(p: GatherSlots, task: i32): void {
  const bytes = <usize>p.width << 2, tableRows = p.tableRows;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const id = load<i32>(p.ids + (<usize>r << 2)), out = p.out + <usize>r * bytes;
    let i: usize = 0;
    if (<u32>id < <u32>tableRows) {
      const from = p.table + <usize>id * bytes;
      for (; i + 16 <= bytes; i += 16) v128.store(out + i, v128.load(from + i));
      for (; i < bytes; i += 4) store<i32>(out + i, load<i32>(from + i));
    } else for (; i < bytes; i += 4) store<f32>(out + i, NaN);
  }
}

// A task updates a range of the table's rows and reads all ids.
export function scatterAdd(p: ScatterAddSlots, task: i32): void {
  const bytes = <usize>p.width << 2, out = p.out, ids = p.ids;
  const first = task * p.tableRowsPerTask, count = min(p.tableRowsPerTask, p.tableRows - first);
  if (!p.accumulate) memory.fill(out + <usize>first * bytes, 0, <usize>count * bytes);
  for (let r = 0; r < p.rows; r++) {
    const id = load<i32>(ids + (<usize>r << 2));
    if (<u32>(id - first) >= <u32>count) continue;
    const from = p.x + <usize>r * bytes, to = out + <usize>id * bytes;
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

// Sorts a few pairs by id in place, stably.
function sortFew(pairs: usize, count: i32): void {
  const end = pairs + (<usize>count << 3);
  for (let next = pairs + 8; next < end; next += 8) {
    const pair = load<i64>(next);
    let at = next;
    for (; at > pairs && load<i32>(at - 8) > <i32>pair; at -= 8) store<i64>(at, load<i64>(at - 8));
    store<i64>(at, pair);
  }
}

// The first tasks each process a segment, the others a group of segments. Pairs (id, row) are sorted by id, so that the rows of one id
// are consecutive and in order; their sum is squared in doubles, four columns at a time. Scratch bytes: 4·DIGITS +
// 16·(rows of the longest task).
export function embeddingAlign(p: EmbeddingAlignSlots, task: i32): void {
  const width = p.width, tableRows = p.tableRows, segments = p.segments, bytes = <usize>width << 2;
  const group = task - p.segmentCount;
  let first = 0, last = 0;
  if (group < 0) {
    first = load<i32>(segments + (<usize>task << 2));
    last = load<i32>(segments + (<usize>task << 2), 4);
  } else {
    const bounds = p.groups + (<usize>group << 2);
    first = load<i32>(segments + (<usize>load<i32>(bounds) << 2));
    last = load<i32>(segments + (<usize>load<i32>(bounds, 4) << 2));
  }

  const counters = scratch(p);
  let pairs = counters + (DIGITS << 2), spare = pairs + (<usize>(last - first) << 3);
  let count = 0;
  let dot: f64 = 0;
  for (let r = first; r < last; r++) {
    const id = load<i32>(p.ids + (<usize>r << 2));
    if (<u32>id >= <u32>tableRows) continue;
    store<i32>(pairs + (<usize>count << 3), id);
    store<i32>(pairs + (<usize>count << 3), r, 4);
    count++;
    if (group < 0 && p.v)
      dot += dotRange(p.dy + <usize>r * bytes, p.v + <usize>id * bytes, bytes);
  }
  if (count <= FEW) sortFew(pairs, count);
  else for (let shift = 0; shift == 0 || tableRows >>> shift != 0; shift += DIGIT_BITS) {
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
    total += squaredSum(p.dy, bytes, run, length);
    n += length;
  }
  if (group < 0) {
    store<f32>(p.dots + (<usize>task << 2), <f32>dot);
    store<f32>(p.sumsq + (<usize>task << 2), <f32>total);
  } else store<f32>(p.groupSumsq + (<usize>group << 2), <f32>total);
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
