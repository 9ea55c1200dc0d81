/** Kernels that find rows by index: gather, its adjoint, and sums over segments of rows. There are no atomics; sums run in the order of rows. */
import type { View } from "../../../tensor/memory.ts";
import { elementwise as each, type KernelContext, type Launchers, operandsOf, u32 } from "../context.ts";
import { columnSums } from "./columns.ts";
import { byRow } from "./rows.ts";

/**
 * Finds, for every row, the nearest rows before and after it with the same id; −1 and `rows` if there is none. Each row searches by itself in O(rows), which is
 * fast enough for a few thousand rows and needs no sort.
 */
function links(context: KernelContext, ids: View, rows: number): { before: View; after: View } {
  const before = context.scratch(rows, "i32");
  const after = context.scratch(rows, "i32");
  each(context, rows, {
    key: "links",
    operands: operandsOf({ ids }, { before, after }),
    body: `  let id = ids(i);
  var last = -1;
  for (var r = i; r > 0u; r--) {
    if (ids(r - 1u) == id) { last = i32(r - 1u); break; }
  }
  var next = p.count;
  for (var r = i + 1u; r < p.count; r++) {
    if (ids(r) == id) { next = r; break; }
  }
  set_before(i, last);
  set_after(i, i32(next));`,
  });
  return { before, after };
}

export const tables: Pick<
  Launchers,
  "gather" | "scatterAdd" | "embeddingAlign" | "segmentSum" | "normGainGrad"
> = {
  gather(context, { rows, width, tableRows }, { table, ids }, { out }) {
    each(context, rows * width, {
      key: "gather",
      operands: operandsOf({ table, ids }, { out }),
      scalars: { width: u32(width), table_rows: u32(tableRows) },
      body: `  let id = ids(i / p.width);
  if (id < 0 || u32(id) >= p.table_rows) { set_out(i, nan()); }
  else { set_out(i, table(u32(id) * p.width + i % p.width)); }`,
    });
  },
  scatterAdd(context, { rows, width, tableRows, accumulate }, { x, ids }, { out }) {
    if (!accumulate)
      each(context, tableRows * width, {
        key: "scatterAdd zero",
        operands: operandsOf({}, { out }),
        body: "  set_out(i, 0.0);",
      });
    if (rows === 0) return;
    const { before, after } = links(context, ids, rows);
    each(context, rows * width, {
      key: "scatterAdd",
      operands: operandsOf({ x, ids, before, after }, { out }),
      scalars: { rows: u32(rows), width: u32(width), table_rows: u32(tableRows) },
      body: `  let row = i / p.width;
  let j = i % p.width;
  let id = ids(row);
  // The first row of an id adds up all of them.
  if (before(row) >= 0 || id < 0 || u32(id) >= p.table_rows) { return; }
  let at = u32(id) * p.width + j;
  var sum = out(at);
  for (var r = row; r < p.rows; r = u32(after(r))) { sum += x(r * p.width + j); }
  set_out(at, sum);`,
    });
  },
  embeddingAlign(
    context,
    params,
    { dy, ids, segments, groups = null, v = null },
    { dots, sumsq, groupSumsq = null },
  ) {
    const { rows, width, tableRows, segmentCount, groupCount } = params;
    const { before, after } = links(context, ids, Math.max(1, rows));
    const scalars = { width: u32(width), table_rows: u32(tableRows) };
    if (rows > 0) {
      // ⟨dy, v⟩ of every row.
      const along = context.scratch(rows);
      byRow(context, rows, {
        key: `embeddingAlign dots ${v === null ? "" : "v"}`,
        operands: operandsOf({ dy, ids, v }, { along }),
        scalars,
        body: `  let id = ids(row);
  var sum = Sum();
  if (id >= 0 && u32(id) < p.table_rows) {
    for (var j = lane; j < p.width; j += LANES) { sum = plus(sum, ${v === null ? "0.0" : "dy(row * p.width + j) * v(u32(id) * p.width + j)"}); }
  }
  let total = join_sum(whole(sum));
  if (lane == 0u) { set_along(row, total); }`,
      });
      segmentTotals(context, along, segments, null, dots, segmentCount);
    } else zeros(context, dots, segmentCount);
    const squares = (ranges: View | null, count: number, out: View): void => {
      if (rows === 0) {
        zeros(context, out, count);
        return;
      }
      const square = context.scratch(rows);
      const bounds = context.scratch(2 * rows, "i32");
      zeros(context, bounds, 2 * rows);
      each(context, count, {
        key: `embeddingAlign bounds ${ranges === null ? "" : "groups"}`,
        operands: operandsOf({ segments, ranges }, { bounds }),
        body: `  let start = u32(${ranges === null ? "segments(i)" : "segments(u32(ranges(i)))"});
  let end = u32(${ranges === null ? "segments(i + 1u)" : "segments(u32(ranges(i + 1u)))"});
  for (var r = start; r < end; r++) {
    set_bounds(2u * r, i32(start));
    set_bounds(2u * r + 1u, i32(end));
  }`,
      });
      byRow(context, rows, {
        key: "embeddingAlign squares",
        operands: operandsOf({ dy, ids, before, after, bounds }, { square }),
        scalars,
        body: `  let id = ids(row);
  let start = bounds(2u * row);
  let end = bounds(2u * row + 1u);
  var sum = Sum();
  // The first row of an id within the range adds up all of them.
  if (end > start && before(row) < start && id >= 0 && u32(id) < p.table_rows) {
    for (var j = lane; j < p.width; j += LANES) {
      var value = 0.0;
      for (var r = i32(row); r < end; r = after(u32(r))) { value += dy(u32(r) * p.width + j); }
      sum = plus(sum, value * value);
    }
  }
  let total = join_sum(whole(sum));
  if (lane == 0u) { set_square(row, total); }`,
      });
      segmentTotals(context, square, segments, ranges, out, count);
    };
    squares(null, segmentCount, sumsq);
    if (groupSumsq !== null) squares(groups, groupCount, groupSumsq);
  },
  segmentSum(context, params, { x, y = null, segments }, { out }) {
    columnSums(context, {
      ...params,
      key: `segmentSum ${y === null ? "" : "y"}`,
      inputs: { x, y },
      segments,
      out,
      term(of) {
        const at = `r * p.${of("width")} + j`;
        return `${of("x")}(${at})${y === null ? "" : ` * ${of("y")}(${at})`}`;
      },
    });
  },
  normGainGrad(context, params, { x, stats, dy, segments }, { dgain }) {
    columnSums(context, {
      ...params,
      key: "normGainGrad",
      inputs: { x, stats, dy },
      segments,
      out: dgain,
      term(of) {
        const at = `r * p.${of("width")} + j`;
        return `${of("dy")}(${at}) * (${of("x")}(${at}) - ${of("stats")}(2u * r)) * ${of("stats")}(2u * r + 1u)`;
      },
    });
  },
};

function zeros(context: KernelContext, out: View, count: number): void {
  each(context, count, {
    key: `zeros ${out.dtype}`,
    operands: operandsOf({}, { out }),
    body: out.dtype === "f32" ? "  set_out(i, 0.0);" : "  set_out(i, 0);",
  });
}

/** Dispatches out[s] = Σ of one number per row over the rows of segment s, or of one number per segment over the segments of range s. */
function segmentTotals(
  context: KernelContext,
  x: View,
  segments: View,
  ranges: View | null,
  out: View,
  count: number,
): void {
  byRow(context, count, {
    key: `segmentTotals ${ranges === null ? "" : "ranges"}`,
    operands: operandsOf({ x, segments, ranges }, { out }),
    body: `  let start = u32(${ranges === null ? "segments(row)" : "segments(u32(ranges(row)))"});
  let end = u32(${ranges === null ? "segments(row + 1u)" : "segments(u32(ranges(row + 1u)))"});
  var sum = Sum();
  for (var r = start + lane; r < end; r += LANES) { sum = plus(sum, x(r)); }
  let total = join_sum(whole(sum));
  if (lane == 0u) { set_out(row, total); }`,
  });
}
