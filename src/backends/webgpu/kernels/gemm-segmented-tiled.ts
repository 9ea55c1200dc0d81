/**
 * The segmented weight gradient on a GPU.
 *
 * A workgroup of 16 × 16 invocations owns a tile of W and walks segments in order; slices of 16 rows of both operands go through workgroup memory. An
 * invocation has R × 4 elements, each 16 rows or columns from the next, so that neighbours read and write neighbouring memory, and keeps their sums
 * in R vectors. At a segment's end V is read, and what the invocations found is joined.
 *
 * Where tiles are few the segments are divided among ranges of workgroups; what each adds to the total goes to scratch and is summed in order. How
 * many ranges there are depends on shapes alone. A direction that segments make is made first, by a walk over those.
 */
import type { View } from "../../../tensor/memory.ts";
import type { KernelParams } from "../../kernels.ts";
import { given, type KernelContext, operandsOf, u32 } from "../context.ts";
import { addParts } from "./columns.ts";

type Params = KernelParams["gemmSegmented"];

const EDGE = 16;
const LANES = EDGE * EDGE;
/** Workgroups that a large GPU needs, and more that it spreads better, if each has this many rows. */
const ENOUGH = 256;
const SPREAD = 1024;
const SPREAD_ROWS = 512;

export interface Operands {
  readonly a: View;
  readonly b: View;
  readonly segments: View;
  readonly groups: View | null;
  readonly v: View | null;
  readonly total: View | null;
}

/** How W is divided: rows of W an invocation has, and tiles. */
interface Tiling {
  readonly high: number;
  readonly tilesN: number;
  readonly tiles: number;
}

export interface Tiled {
  readonly tiles: number;
  /** Into partials[row · tiles + tile]: dots, squares, groups, ‖V‖². */
  run(partials: View): void;
}

function tilingOf({ m, n, segmentCount }: Params, grouped: boolean): Tiling {
  const tilesN = Math.ceil(n / (4 * EDGE));
  const tiling = (high: number): Tiling => ({ high, tilesN, tiles: Math.ceil(m / (high * EDGE)) * tilesN });
  const large = tiling(8);
  // The large tile reads workgroup memory less. A group's sums beside would cost too many registers, and it should not hang over W by half.
  const fits = m >= 512 || m % 128 === 0 || m % 128 > 64;
  return !grouped && fits && large.tiles * segmentCount >= ENOUGH ? large : tiling(4);
}

export function tiled(
  context: KernelContext,
  params: Params,
  { a, b, segments, groups, v, total }: Operands,
): Tiled {
  const { m, n, segmentCount, firstAccumulated, accumulate } = params;
  const tiling = tilingOf(params, groups !== null);
  const targets = v === null ? params.targetSegments : 0;
  return {
    tiles: tiling.tiles,
    run(partials) {
      if (tiling.tiles === 0) return;
      const shared = { params, tiling, a, b, segments, partials };
      if (targets === 0) {
        walk(context, {
          ...{ ...shared, groups, v, total, accumulate },
          ...{ begin: 0, end: segmentCount, known: 0, first: firstAccumulated, last: true, fromV: false },
        });
        return;
      }
      const direction = context.scratch(m * n);
      walk(context, {
        ...{ ...shared, groups: null, v: null, total: direction, accumulate: false },
        ...{ begin: 0, end: targets, known: 0, first: 0, last: false, fromV: false },
      });
      // The target's segments are walked once more if the total has some of them, or a group one.
      const fromV = total !== null && firstAccumulated === 0;
      const first = fromV || total === null ? targets : firstAccumulated;
      walk(context, {
        ...{ ...shared, groups, v: direction, total, accumulate },
        ...{ begin: Math.min(targets, first), end: segmentCount, known: targets, first, last: true, fromV },
      });
    },
  };
}

interface Walk {
  readonly params: Params;
  readonly tiling: Tiling;
  readonly a: View;
  readonly b: View;
  readonly segments: View;
  readonly groups: View | null;
  readonly v: View | null;
  readonly total: View | null;
  readonly partials: View;
  /** Segments to walk; with groups, from the first group's on. */
  readonly begin: number;
  readonly end: number;
  /** Segments before have their numbers. */
  readonly known: number;
  /** The first that is in the total. */
  readonly first: number;
  readonly accumulate: boolean;
  /** The walk that has V, if there is one. */
  readonly last: boolean;
  /** The total has V too. */
  readonly fromV: boolean;
}

/** Depends on shapes alone, and so do the bits. */
function rangesOf({ params, tiling, begin, end, groups }: Walk): number {
  const rows = (params.rows / Math.max(1, params.segmentCount)) * (end - begin);
  const wanted = Math.max(
    Math.ceil(ENOUGH / tiling.tiles),
    Math.min(Math.ceil(SPREAD / tiling.tiles), Math.floor(rows / SPREAD_ROWS)),
  );
  return Math.max(1, Math.min(groups === null ? end - begin : params.groupCount, wanted));
}

function walk(context: KernelContext, w: Walk): void {
  const { tiling, a, b, segments, groups, v, total, partials, last } = w;
  const { m, n, segmentCount, groupCount } = w.params;
  const { high } = tiling;
  const ranges = rangesOf(w);
  const split = ranges > 1 && total !== null;
  const sums = split ? context.scratch(ranges * m * n) : total;
  const adds = w.accumulate && total !== null && !split;
  const rows = Array.from({ length: high }, (_, r) => r);
  const quads = Array.from({ length: high / 4 }, (_, h) => h);
  const each = (line: (r: number) => string): string => rows.map(line).join("\n");
  /** Σ over an invocation's elements. */
  const dot = (x: string, y: (r: number) => string): string => `let ${x} = ${rows.map(y).join(" + ")};`;
  const put = (row: string, value: string): string =>
    `if (local == 0u) { set_partials((${row}) * p.tiles + tile, ${value}); }`;
  const load = (r: string): string =>
    [
      `      next_b = b4(${r}, j0);`,
      ...quads.map((h) => `      next_a${h} = a4(${r}, i0 + ${64 * h}u);`),
    ].join("\n");
  const step = (k: number): string =>
    `        {
          let b = tile_b[part][${k}][column];
${quads.map((h) => `          let a${h} = tile_a[${h}][part][${k}][row];`).join("\n")}
${rows.map((r) => `          w${r} = fma(vec4f(a${r >> 2}.${"xyzw"[r & 3]}), b, w${r});`).join("\n")}
        }`;
  context.dispatch({
    key: `gemmSegmented tiled ${[high, v !== null, total !== null, groups !== null, adds, last, w.fromV].join()}`,
    operands: operandsOf({ a, b, segments, groups, v }, { total: sums, partials }),
    scalars: {
      m: u32(m),
      n: u32(n),
      tiles_n: u32(tiling.tilesN),
      tiles: u32(tiling.tiles),
      ranges: u32(ranges),
      segment_count: u32(segmentCount),
      group_count: u32(groupCount),
      begin: u32(w.begin),
      end: u32(w.end),
      known: u32(w.known),
      first: u32(w.first),
    },
    workgroup: LANES,
    groups: tiling.tiles * ranges,
    declarations: () => `
// A slice of rows. An element holds four of a row, ${EDGE} apart, as they are read from memory; invocations write whole elements. Indices are apart
// and most are constants, so that bounds are not checked for every read.
alias Slice = array<array<array<vec4f, ${EDGE}>, 4>, ${EDGE / 4}>;
var<workgroup> tile_a: array<Slice, ${high / 4}>;
var<workgroup> tile_b: Slice;
var<workgroup> lanes: array<vec2f, ${LANES}>;
// What all invocations found, in a fixed order; only the first is told.
fn join(x: vec2f, local: u32) -> vec2f {
  workgroupBarrier();
  lanes[local] = x;
  workgroupBarrier();
  var sum = x;
  if (local < ${EDGE}u) {
    for (var e = 1u; e < ${EDGE}u; e++) { sum += lanes[local + e * ${EDGE}u]; }
    lanes[local] = sum;
  }
  workgroupBarrier();
  if (local == 0u) {
    for (var e = 1u; e < ${EDGE}u; e++) { sum += lanes[e]; }
  }
  return sum;
}
fn four(j: u32) -> vec4u { return vec4u(j, j + ${EDGE}u, j + ${2 * EDGE}u, j + ${3 * EDGE}u); }
// Beyond the edge of W the last element is read again and counts 0.
fn a4(r: u32, i: u32) -> vec4f {
  let at = min(four(i), vec4u(p.m - 1u)) + r * p.m;
  return select(vec4f(), vec4f(a(at.x), a(at.y), a(at.z), a(at.w)), four(i) < vec4u(p.m));
}
fn b4(r: u32, j: u32) -> vec4f {
  let at = min(four(j), vec4u(p.n - 1u)) + r * p.n;
  return select(vec4f(), vec4f(b(at.x), b(at.y), b(at.z), b(at.w)), four(j) < vec4u(p.n));
}
${
  v === null
    ? ""
    : `fn v4(i: u32, j: u32) -> vec4f {
  let at = min(four(j), vec4u(p.n - 1u)) + min(i, p.m - 1u) * p.n;
  return select(vec4f(), vec4f(v(at.x), v(at.y), v(at.z), v(at.w)), (four(j) < vec4u(p.n)) & vec4<bool>(i < p.m));
}`
}
${
  total === null
    ? ""
    : `fn add_total(range: u32, i: u32, j: u32, x: vec4f) {
  if (i >= p.m) { return; }
  let at = (range * p.m + i) * p.n + j;
${[0, 1, 2, 3].map((c) => `  if (j + ${c * EDGE}u < p.n) { set_total(at + ${c * EDGE}u, ${adds ? `total(at + ${c * EDGE}u) + ` : ""}x[${c}]); }`).join("\n")}
}`
}`,
    body: () => `  let tile = group % p.tiles;
  let range = group / p.tiles;
  let row = local / ${EDGE}u;
  let column = local % ${EDGE}u;
  let i0 = (tile / p.tiles_n) * ${high * EDGE}u + column;
  let j0 = (tile % p.tiles_n) * ${4 * EDGE}u + column;
  // Its elements of W begin here.
  let i = (tile / p.tiles_n) * ${high * EDGE}u + row;
${
  groups === null
    ? `  // Segments times ranges may be too much for 32 bits.
  let count = p.end - p.begin;
  let share = count / p.ranges;
  let more = count % p.ranges;
  let s_first = p.begin + range * share + min(range, more);
  let s_end = s_first + share + select(0u, 1u, range < more);`
    : `  // Ranges of whole groups; the first and the last have the segments outside of them too.
  let share = p.group_count / p.ranges;
  let more = p.group_count % p.ranges;
  var next = range * share + min(range, more);
  let groups_end = next + share + select(0u, 1u, range < more);
  let s_first = select(u32(groups(next)), min(p.begin, u32(groups(0u))), range == 0u);
  let s_end = select(u32(groups(groups_end)), p.end, range + 1u == p.ranges);
  while (next < groups_end && u32(groups(next + 1u)) <= s_first) {
    ${put("2u * p.segment_count + next", "0.0")}
    next++;
  }
${each((r) => `  var g${r} = vec4f();`)}`
}
${total === null ? "" : each((r) => `  var t${r} = vec4f();`)}
${w.fromV ? `  if (range == 0u) {\n${each((r) => `    t${r} = v4(i + ${r * EDGE}u, j0);`)}\n  }` : ""}
  // What is read next lies behind what is multiplied, in this segment or the ones that follow.
  var r = u32(segments(s_first));
  let rows_end = u32(segments(s_end));
  var next_b: vec4f;
${quads.map((h) => `  var next_a${h}: vec4f;`).join("\n")}
  if (r + row < rows_end) {
${load("r + row")}
  }
  for (var s = s_first; s < s_end; s++) {
${each((r) => `    var w${r} = vec4f();`)}
    let end = u32(segments(s + 1u));
    while (r < end) {
      let inside = r + row < end;
      workgroupBarrier();
      tile_b[row / 4u][row % 4u][column] = select(vec4f(), next_b, inside);
${quads.map((h) => `      tile_a[${h}][row / 4u][row % 4u][column] = select(vec4f(), next_a${h}, inside);`).join("\n")}
      workgroupBarrier();
      let depth = min(${EDGE}u, end - r);
      r += depth;
      if (r + row < rows_end) {
${load("r + row")}
      }
      for (var part = 0u; part < ${EDGE / 4}u; part++) {
        // Rows of a slice beyond the segment are 0.
        if (4u * part >= depth) { break; }
${[0, 1, 2, 3].map(step).join("\n")}
      }
    }
    if (s >= p.known) {
      ${dot("squares", (r) => `w${r} * w${r}`)}
      ${v === null ? "let along = vec4f();" : dot("along", (r) => `w${r} * v4(i + ${r * EDGE}u, j0)`)}
      let found = join(vec2f(along.x + along.y + along.z + along.w, squares.x + squares.y + squares.z + squares.w), local);
      ${put("s", "found.x")}
      ${put("p.segment_count + s", "found.y")}
    }
${total === null ? "" : `    if (s >= p.first) {\n${each((r) => `      t${r} += w${r};`)}\n    }`}
${
  groups === null
    ? ""
    : `    if (next < groups_end && s >= u32(groups(next))) {
${each((r) => `      g${r} += w${r};`)}
    }
    while (next < groups_end && s + 1u >= u32(groups(next + 1u))) {
      ${dot("group_squares", (r) => `g${r} * g${r}`)}
      let group_found = join(vec2f(group_squares.x + group_squares.y, group_squares.z + group_squares.w), local);
      ${put("2u * p.segment_count + next", "group_found.x + group_found.y")}
${each((r) => `      g${r} = vec4f();`)}
      next++;
    }`
}
  }
${total === null ? "" : each((r) => `  add_total(range, i + ${r * EDGE}u, j0, t${r});`)}
${
  !last
    ? ""
    : v === null
      ? `  ${put("2u * p.segment_count + p.group_count", "0.0")}`
      : `  if (range == 0u) {
    var v_squares = vec4f();
${each((r) => `    { let x = v4(i + ${r * EDGE}u, j0); v_squares += x * x; }`)}
    let v_found = join(vec2f(v_squares.x + v_squares.y, v_squares.z + v_squares.w), local);
    ${put("2u * p.segment_count + p.group_count", "v_found.x + v_found.y")}
  }`
}`,
  });
  if (split) addParts(context, given(sums, "sums"), ranges, m * n, w.accumulate, given(total, "total"));
}
