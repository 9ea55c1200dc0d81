/** Kernels along an axis, which need not be the last: running sums, the largest elements, elements by index. Operands are [outer, length, inner]. */
import { elementwise as each, type Launchers, operandsOf, u32 } from "../context.ts";
import { SCAN_BLOCK as BLOCK } from "../blocks.ts";
import { byRow, SUM } from "./rows.ts";

/** Compensated sums that begin with the total of the blocks before. */
const JOIN = `${SUM}
fn joined(sum: Sum, total: f32, lost: f32) -> Sum {
  let next = plus(sum, total);
  return Sum(next.total, next.lost + select(lost, 0.0, is_nan(lost)));
}
`;

export const along: Pick<Launchers, "cumsum" | "topk" | "takeAlong" | "scatterAddAlong"> = {
  cumsum(context, { outer, length, inner, reverse }, { x }, { y }) {
    if (outer * length * inner === 0) return;
    // An invocation sums one block of a column; the sum before a block follows from the totals of the blocks.
    const blocks = Math.ceil(length / BLOCK);
    const scalars = { length: u32(length), inner: u32(inner), blocks: u32(blocks) };
    const begin = `  let column = i % p.inner;
  let block = (i / p.inner) % p.blocks;
  let base = (i / (p.inner * p.blocks)) * p.length * p.inner + column;
  let first = block * ${BLOCK}u;
  let end = min(p.length, first + ${BLOCK}u);
`;
    const place = `base + ${reverse ? "(p.length - 1u - l)" : "l"} * p.inner`;
    const starts = blocks > 1 ? context.scratch(2 * outer * blocks * inner) : null;
    if (starts !== null) {
      each(context, outer * blocks * inner, {
        key: `cumsum totals ${reverse}`,
        operands: operandsOf({ x }, { starts }),
        scalars,
        declarations: JOIN,
        body: `${begin}  var sum = Sum();
  for (var l = first; l < end; l++) { sum = plus(sum, x(${place})); }
  set_starts(2u * i, sum.total);
  set_starts(2u * i + 1u, sum.lost);`,
      });
      each(context, outer * inner, {
        key: "cumsum starts",
        operands: operandsOf({}, { starts }),
        scalars,
        declarations: JOIN,
        body: `  var sum = Sum();
  for (var b = 0u; b < p.blocks; b++) {
    let at = 2u * (((i / p.inner) * p.blocks + b) * p.inner + i % p.inner);
    let next = joined(sum, starts(at), starts(at + 1u));
    set_starts(at, sum.total);
    set_starts(at + 1u, sum.lost);
    sum = next;
  }`,
      });
    }
    each(context, outer * blocks * inner, {
      key: `cumsum ${reverse} ${starts === null ? "" : "starts"}`,
      operands: operandsOf({ x, starts }, { y }),
      scalars,
      declarations: JOIN,
      body: `${begin}  var sum = ${starts === null ? "Sum()" : "Sum(starts(2u * i), starts(2u * i + 1u))"};
  for (var l = first; l < end; l++) {
    sum = plus(sum, x(${place}));
    set_y(${place}, whole(sum));
  }`,
    });
  },

  topk(context, { outer, length, inner, k }, { x }, { indices }) {
    if (k === 0) return;
    byRow(context, outer * inner, {
      key: "topk",
      operands: operandsOf({ x }, { indices }),
      scalars: { length: u32(length), inner: u32(inner), k: u32(k) },
      // Comparisons of floats are unreliable with NaN, so integers in the order of the numbers are compared.
      declarations: `fn order(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return 0xffffffffu; }
  if (size == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
// Joins are of floats, which hold 16 bits.
fn join_largest(x: u32) -> u32 {
  let high = join_max(f32(x >> 16u));
  let low = join_max(select(-1.0, f32(x & 0xffffu), f32(x >> 16u) == high));
  return (u32(high) << 16u) | u32(low);
}`,
      // Finds the next largest element repeatedly: the largest of those that come after the previous one. The index is negated, so that a lower index is larger.
      body: `  let base = (row / p.inner) * p.length * p.inner + row % p.inner;
  let out = (row / p.inner) * p.k * p.inner + row % p.inner;
  var last = 0xffffffffu;
  var last_turned = 0xffffffffu;
  for (var n = 0u; n < p.k; n++) {
    var best = 0u;
    var best_turned = 0u;
    for (var l = lane; l < p.length; l += LANES) {
      let key = order(x(base + l * p.inner));
      let turned = ~(l + 1u);
      let after = key < last || (key == last && turned < last_turned);
      if (after && (key > best || (key == best && turned > best_turned))) {
        best = key;
        best_turned = turned;
      }
    }
    last = join_largest(best);
    last_turned = join_largest(select(0u, best_turned, best == last));
    if (lane == 0u) { set_indices(out + n * p.inner, i32(~last_turned - 1u)); }
  }`,
    });
  },

  takeAlong(context, { outer, length, inner, count }, { x, indices }, { out }) {
    each(context, outer * count * inner, {
      key: "takeAlong",
      operands: operandsOf({ x, indices }, { out }),
      scalars: { length: u32(length), inner: u32(inner), item: u32(count * inner) },
      body: `  let index = indices(i);
  if (index < 0 || u32(index) >= p.length) { set_out(i, nan()); }
  else { set_out(i, x(((i / p.item) * p.length + u32(index)) * p.inner + i % p.inner)); }`,
    });
  },

  scatterAddAlong(context, { outer, length, inner, count }, { y, indices }, { out }) {
    each(context, outer * length * inner, {
      key: "scatterAddAlong zero",
      operands: operandsOf({}, { out }),
      body: "  set_out(i, 0.0);",
    });
    if (count === 0 || length === 0) return;
    // An invocation fills its own column, in order.
    each(context, outer * inner, {
      key: "scatterAddAlong",
      operands: operandsOf({ y, indices }, { out }),
      scalars: { length: u32(length), inner: u32(inner), items: u32(count) },
      body: `  let column = i % p.inner;
  let outer = i / p.inner;
  for (var c = 0u; c < p.items; c++) {
    let source = (outer * p.items + c) * p.inner + column;
    let index = indices(source);
    if (index < 0 || u32(index) >= p.length) { continue; }
    let to = (outer * p.length + u32(index)) * p.inner + column;
    set_out(to, out(to) + y(source));
  }`,
    });
  },
};
