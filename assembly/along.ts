// Kernels along an axis, which need not be the last: running sums, the largest elements, elements by index. Operands are [outer, length, inner].
import { scratch } from "./simd";
import { CumsumSlots, ScatterAddAlongSlots, TakeAlongSlots, TopkSlots } from "./slots";

// A task processes some rows (outer) or, if inner is long, a block of columns of one row. Running sums are doubles.
export function cumsum(p: CumsumSlots, task: i32): void {
  const length = p.length, inner = p.inner, blocks = p.columnBlocks;
  const stride = <isize>inner << 2, step = p.reverse ? -stride : stride;
  const first = (task / blocks) * p.outerPerTask, last = min(p.outer, first + p.outerPerTask);
  const left = (task % blocks) * p.columnsPerTask, right = min(inner, left + p.columnsPerTask);
  for (let o = first; o < last; o++) {
    const top = <usize>(o * length + (p.reverse ? length - 1 : 0)) * <usize>stride;
    let column = left;
    for (; column + 4 <= right; column += 4) {
      let x = p.x + top + (<usize>column << 2), y = p.y + top + (<usize>column << 2);
      let low = f64x2.splat(0), high = low;
      for (let l = 0; l < length; l++) {
        const value = v128.load(x);
        low = f64x2.add(low, f64x2.promote_low_f32x4(value));
        high = f64x2.add(high, f64x2.promote_low_f32x4(i64x2.shuffle(value, value, 1, 1)));
        v128.store(y, i64x2.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2));
        x += step;
        y += step;
      }
    }
    for (; column < right; column++) {
      let x = p.x + top + (<usize>column << 2), y = p.y + top + (<usize>column << 2);
      let sum: f64 = 0;
      for (let l = 0; l < length; l++) {
        sum += <f64>load<f32>(x);
        store<f32>(y, <f32>sum);
        x += step;
        y += step;
      }
    }
  }
}

// The rank of an element, which is larger for elements that come first: by value, with −0 equal to 0 and every NaN above +∞, then by lower index.
// @ts-ignore: decorator
@inline function rankOf(x: usize, index: i32): u64 {
  const bits = load<u32>(x), size = bits & 0x7fffffff;
  let key: u32 = bits >> 31 ? ~bits : bits | 0x80000000;
  if (size == 0) key = 0x80000000;
  if (size > 0x7f800000) key = 0xffffffff;
  return (<u64>key << 32) | <u64>(<u32>~index);
}

// Sift-down of a binary heap: moves the rank at `at` down until its children are not smaller.
function siftDown(heap: usize, count: i32, at: i32): void {
  const rank = load<u64>(heap + (<usize>at << 3));
  for (;;) {
    let child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && load<u64>(heap + (<usize>child << 3), 8) < load<u64>(heap + (<usize>child << 3))) child++;
    const least = load<u64>(heap + (<usize>child << 3));
    if (least >= rank) break;
    store<u64>(heap + (<usize>at << 3), least);
    at = child;
  }
  store<u64>(heap + (<usize>at << 3), rank);
}

// A task processes some rows (an outer and an inner index). A heap holds the k largest ranks so far, with the least of them at the top.
// Scratch bytes: 8·k.
export function topk(p: TopkSlots, task: i32): void {
  const length = p.length, inner = p.inner, k = p.k, stride = <usize>inner << 2, heap = scratch(p);
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  for (let r = first; r < last; r++) {
    const outer = r / inner, column = <usize>(r % inner) << 2;
    let x = p.x + <usize>(outer * length) * stride + column;
    for (let l = 0; l < k; l++) {
      store<u64>(heap + (<usize>l << 3), rankOf(x, l));
      x += stride;
    }
    for (let at = (k >> 1) - 1; at >= 0; at--) siftDown(heap, k, at);
    for (let l = k; l < length; l++) {
      const rank = rankOf(x, l);
      x += stride;
      if (rank <= load<u64>(heap)) continue;
      store<u64>(heap, rank);
      siftDown(heap, k, 0);
    }
    // The least rank is written last, the next before it, and so on.
    for (let count = k - 1; count > 0; count--) {
      const least = load<u64>(heap);
      store<u64>(heap, load<u64>(heap + (<usize>count << 3)));
      store<u64>(heap + (<usize>count << 3), least);
      siftDown(heap, count, 0);
    }
    let out = p.indices + <usize>(outer * k) * stride + column;
    for (let n = 0; n < k; n++) {
      store<i32>(out, ~(<i32>load<u64>(heap + (<usize>n << 3))));
      out += stride;
    }
  }
}

// A task computes some elements of `out`.
export function takeAlong(p: TakeAlongSlots, task: i32): void {
  const length = p.length, inner = p.inner, item = p.count * inner;
  const first = task * p.elementsPerTask, last = min(p.elements, first + p.elementsPerTask);
  let outer = first / item, rest = first % item, column = first % inner;
  for (let e = first; e < last; e++) {
    const index = load<i32>(p.indices + (<usize>e << 2)), out = p.out + (<usize>e << 2);
    if (<u32>index < <u32>length)
      store<f32>(out, load<f32>(p.x + (<usize>((outer * length + index) * inner + column) << 2)));
    else store<f32>(out, NaN);
    if (++column == inner) column = 0;
    if (++rest == item) {
      rest = 0;
      outer++;
    }
  }
}

// The tasks are divided as in cumsum; each writes only its own outputs.
export function scatterAddAlong(p: ScatterAddAlongSlots, task: i32): void {
  const length = p.length, inner = p.inner, count = p.count, blocks = p.columnBlocks;
  const first = (task / blocks) * p.outerPerTask, last = min(p.outer, first + p.outerPerTask);
  const left = (task % blocks) * p.columnsPerTask, right = min(inner, left + p.columnsPerTask);
  for (let o = first; o < last; o++) {
    const out = p.out + (<usize>(o * length * inner) << 2);
    for (let l = 0; l < length; l++) memory.fill(out + (<usize>(l * inner + left) << 2), 0, <usize>(right - left) << 2);
    for (let c = 0; c < count; c++) {
      const at = <usize>((o * count + c) * inner) << 2;
      for (let column = left; column < right; column++) {
        const place = at + (<usize>column << 2), index = load<i32>(p.indices + place);
        if (<u32>index >= <u32>length) continue;
        const to = out + (<usize>(index * inner + column) << 2);
        store<f32>(to, load<f32>(to) + load<f32>(p.y + place));
      }
    }
  }
}
