/**
 * The segmented weight gradient on a GPU.
 *
 * A workgroup goes through the segments in order and computes one tile of each segment's W (gemm-segmented-tiles.ts). At a segment's end it reads V and sums the
 * results of its invocations.
 *
 * If there are few tiles, the segments are divided into ranges, each with its own workgroups. The totals of the ranges go to scratch and are summed in order. The
 * number of ranges depends only on shapes. If the direction is the gradient of some segments, a first walk over these computes it.
 */
import type { View } from "../../../tensor/memory.ts";
import type { KernelParams } from "../../kernels/index.ts";
import { byFours, type KernelContext, nearestPower, operandsOf, u32 } from "../context.ts";
import { addParts } from "./columns.ts";
import {
  EDGE,
  floatTile,
  type FloatTileName,
  floatTileNames,
  type SegmentTile,
  tensorTile,
} from "./gemm-segmented-tiles.ts";
import { type Needs, tensorNeeds } from "./matrices.ts";

type Params = KernelParams["gemmSegmented"];

/**
 * Number of workgroups that a large GPU needs. Up to SPREAD workgroups are used if each has at least SPREAD_ROWS rows, since more of them finish at about the same
 * time (as for products, gemm.ts).
 */
const BUSY_WORKGROUPS = 256;
const SPREAD = 4608;
const SPREAD_ROWS = 512;

export interface Operands {
  readonly a: View;
  readonly b: View;
  readonly segments: View;
  readonly groups: View | null;
  readonly v: View | null;
  readonly total: View | null;
}

/** The division of W into tiles of workgroups, and into blocks for which partial results are written. */
interface Tiling {
  readonly tile: SegmentTile;
  readonly needs: Needs;
  readonly tilesN: number;
  readonly tiles: number;
  readonly blocksM: number;
  readonly blocksN: number;
}

export interface Tiled {
  readonly blocks: number;
  /** Writes partials[row · blocks + block]: dots, squares, groups, ‖V‖². */
  run(partials: View): void;
}

function tilingWith(tile: SegmentTile, needs: Needs, { m, n }: Params): Tiling {
  const tilesN = Math.ceil(n / tile.cols);
  const [blocksM, blocksN] = [Math.ceil(m / tile.block), Math.ceil(n / tile.block)];
  return { tile, needs, tilesN, tiles: Math.ceil(m / tile.rows) * tilesN, blocksM, blocksN };
}

/** Whether the larger of two tilings has enough workgroups and little area outside of W. If so, it is better, since it reads memory less often. */
function pays(large: Tiling, small: Tiling, segmentCount: number): boolean {
  const area = ({ tile, tiles }: Tiling): number => tiles * tile.rows * tile.cols;
  return area(large) <= 1.125 * area(small) && large.tiles * segmentCount >= BUSY_WORKGROUPS;
}

function tilingOf(context: KernelContext, params: Params, grouped: boolean): Tiling {
  const { rounds, tensorCores, workgroupStorage } = context.traits;
  const { rows, m, n, segmentCount } = params;
  if (rounds && tensorCores !== null) {
    const tiling = (size: boolean): Tiling =>
      tilingWith(tensorTile(size, tensorCores), tensorNeeds(tensorCores), params);
    const [large, small] = [tiling(true), tiling(false)];
    const fits = large.tile.bytes <= workgroupStorage;
    return !grouped && fits && pays(large, small, segmentCount) ? large : small;
  }
  const tiling = (name: FloatTileName): Tiling => tilingWith(floatTile(name), {}, params);
  // With a group's sums, larger tiles would need too many registers.
  if (grouped) return tiling("64x64");
  const fits = (name: FloatTileName): boolean => floatTile(name).bytes <= workgroupStorage;
  const larger = fits("128x64") && pays(tiling("128x64"), tiling("64x64"), segmentCount);
  const first = larger ? "128x64" : "64x64";
  const others = floatTileNames.filter((name) => name !== first && fits(name));
  const bucket = `gemmSegmented ${[segmentCount, rows, m, n].map(nearestPower).join("x")}`;
  return tiling(context.choose(bucket, [first, ...others]));
}

export function tiled(
  context: KernelContext,
  params: Params,
  { a, b, segments, groups, v, total }: Operands,
): Tiled {
  const { m, n, segmentCount, firstAccumulated, accumulate } = params;
  const tiling = tilingOf(context, params, groups !== null);
  const targets = v === null ? params.targetSegments : 0;
  return {
    blocks: tiling.blocksM * tiling.blocksN,
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
      // The second walk includes the target's segments if the total contains some of them, or if a group does.
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
  /** Segments to go through; with groups, the walk begins at the first group. */
  readonly begin: number;
  readonly end: number;
  /** Segments before this one already have their dots and squares. */
  readonly known: number;
  /** First segment that is in the total. */
  readonly first: number;
  readonly accumulate: boolean;
  /** Whether this is the walk that reads V, if there is one. */
  readonly last: boolean;
  /** Whether V is added to the total. */
  readonly fromV: boolean;
}

/** Returns the number of ranges, which depends only on shapes, so that the bits do too. */
function rangesOf({ params, tiling, begin, end, groups }: Walk): number {
  const { m, n } = params;
  const rows = (params.rows / Math.max(1, params.segmentCount)) * (end - begin);
  const blocks = tiling.blocksM * tiling.blocksN;
  const target = Math.max(
    Math.ceil(BUSY_WORKGROUPS / blocks),
    Math.min(Math.floor(SPREAD / (Math.ceil(m / 64) * Math.ceil(n / 64))), Math.floor(rows / SPREAD_ROWS)),
  );
  const total = Math.max(1, groups === null ? end - begin : params.groupCount);
  // Ranges of equal length, since the longest range determines the time.
  return Math.ceil(total / Math.ceil(total / Math.min(total, target)));
}

/** Returns a function that reads V at a piece of W. Beyond the edge it reads another element and returns 0. */
function readV(piece: SegmentTile["piece"], fours: boolean): string {
  if (piece === "f32")
    return `fn v_at(i: u32, j: u32) -> f32 {
  return select(0.0, v(min(i, p.m - 1u) * p.n + min(j, p.n - 1u)), (i < p.m) & (j < p.n));
}`;
  if (fours)
    return `fn v_at(i: u32, j: u32) -> vec4f {
  let inside = (i < p.m) & (j < p.n);
  return select(vec4f(), v4(select(0u, i * p.n + j, inside) / 4u), inside);
}`;
  return `fn v_at(i: u32, j: u32) -> vec4f {
  let js = vec4u(j, j + 1u, j + 2u, j + 3u);
  let at = min(js, vec4u(p.n - 1u)) + min(i, p.m - 1u) * p.n;
  return select(vec4f(), vec4f(v(at.x), v(at.y), v(at.z), v(at.w)), (js < vec4u(p.n)) & vec4<bool>(i < p.m));
}`;
}

/** Returns a function that writes a piece of the total; with `adds`, it adds to the elements. */
function addTotal(piece: SegmentTile["piece"], fours: boolean, adds: boolean): string {
  const set = (at: string, x: string): string => `set_total(${at}, ${adds ? `total(${at}) + ` : ""}${x});`;
  const writes =
    piece === "f32"
      ? `if (j < p.n) { ${set("at", "x")} }`
      : fours
        ? `if (j < p.n) { set_total4(at / 4u, ${adds ? "total4(at / 4u) + " : ""}x); }`
        : [0, 1, 2, 3].map((c) => `if (j + ${c}u < p.n) { ${set(`at + ${c}u`, `x[${c}]`)} }`).join(" ");
  return `fn add_total(range: u32, i: u32, j: u32, x: ${piece}) {
  if (i >= p.m) { return; }
  let at = (range * p.m + i) * p.n + j;
  ${writes}
}`;
}

function walk(context: KernelContext, w: Walk): void {
  const { tiling, a, b, segments, groups, v, total, partials, last } = w;
  const { m, n, segmentCount, groupCount } = w.params;
  const { tile } = tiling;
  const ranges = rangesOf(w);
  const split = ranges > 1 && total !== null;
  const sums = split ? context.scratch(ranges * m * n) : total;
  const adds = w.accumulate && total !== null && !split;
  const fours = m % 4 === 0 && n % 4 === 0;
  const all = Array.from({ length: tile.pieces }, (_, piece) => piece);
  const each = (line: (piece: number) => string): string => all.map(line).join("\n");
  const perRow = tile.cols / tile.block;
  const blocks = Array.from({ length: (tile.rows / tile.block) * perRow }, (_, block) => block);
  /** Writes `value` of every block to the partial results. */
  const put = (row: string, value: (block: number) => string): string =>
    `if (local == 0u) {\n${blocks.map((block) => `      put(${row}, block_i + ${Math.floor(block / perRow)}u, block_j + ${block % perRow}u, ${value(block)});`).join("\n")}\n    }`;
  const perBlock = (text: (block: number) => string): string => blocks.map(text).join("\n");
  const sum = (x: string): string => (tile.piece === "f32" ? x : `${x}.x + ${x}.y + ${x}.z + ${x}.w`);
  const blockSums = (x: string): string =>
    blocks.map((block) => `vec2f(${sum(`${x}${block}`)}, 0.0)`).join(", ");
  const zero = `${tile.piece}(${tile.piece === "f32" ? "0.0" : ""})`;
  context.dispatch({
    key: `gemmSegmented ${tile.key} ${[fours, v !== null, total !== null, groups !== null, adds, last, w.fromV].join()}`,
    operands: byFours(
      operandsOf({ a, b, segments, groups, v }, { total: sums, partials }),
      fours ? ["a", "b", ...(tile.piece === "vec4f" ? ["v", "total"] : [])] : [],
    ),
    scalars: {
      m: u32(m),
      n: u32(n),
      tiles_n: u32(tiling.tilesN),
      tiles: u32(tiling.tiles),
      blocks_m: u32(tiling.blocksM),
      blocks_n: u32(tiling.blocksN),
      ranges: u32(ranges),
      segment_count: u32(segmentCount),
      group_count: u32(groupCount),
      begin: u32(w.begin),
      end: u32(w.end),
      known: u32(w.known),
      first: u32(w.first),
    },
    workgroup: tile.workgroup,
    ...tiling.needs,
    groups: tiling.tiles * ranges,
    declarations: () => `${tile.text(fours).declarations}
// A number or two of each block.
alias Found = array<vec2f, ${blocks.length}>;
${tile.lanes === "lanes" ? `var<workgroup> lanes: array<f32, ${2 * blocks.length * tile.workgroup}>;` : ""}
fn found_of(e: u32) -> Found {
  let at = ${2 * blocks.length}u * e;
  return Found(${blocks.map((block) => `vec2f(${tile.lanes}[at + ${2 * block}u], ${tile.lanes}[at + ${2 * block + 1}u])`).join(", ")});
}
fn keep_found(e: u32, x: Found) {
  let at = ${2 * blocks.length}u * e;
${perBlock((block) => `  ${tile.lanes}[at + ${2 * block}u] = x[${block}].x; ${tile.lanes}[at + ${2 * block + 1}u] = x[${block}].y;`)}
}
// What all invocations found, in a fixed order; only the first is told.
fn join(x: Found, local: u32) -> Found {
  workgroupBarrier();
  keep_found(local, x);
  workgroupBarrier();
  var sum = x;
  if (local < ${EDGE}u) {
    for (var e = local + ${EDGE}u; e < ${tile.workgroup}u; e += ${EDGE}u) {
      let other = found_of(e);
${perBlock((block) => `      sum[${block}] += other[${block}];`)}
    }
    keep_found(local, sum);
  }
  workgroupBarrier();
  if (local == 0u) {
    for (var e = 1u; e < ${EDGE}u; e++) {
      let other = found_of(e);
${perBlock((block) => `      sum[${block}] += other[${block}];`)}
    }
  }
  return sum;
}
// Blocks may lie beyond W.
fn put(row: u32, i: u32, j: u32, value: f32) {
  if (i < p.blocks_m && j < p.blocks_n) { set_partials((row * p.blocks_m + i) * p.blocks_n + j, value); }
}
${v === null ? "" : readV(tile.piece, fours)}
${total === null ? "" : addTotal(tile.piece, fours, adds)}`,
    body: () => {
      const text = tile.text(fours);
      return `  let tile = group % p.tiles;
  let range = group / p.tiles;
  let tile_i = (tile / p.tiles_n) * ${tile.rows}u;
  let tile_j = (tile % p.tiles_n) * ${tile.cols}u;
  let block_i = tile_i / ${tile.block}u;
  let block_j = tile_j / ${tile.block}u;
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
    ${put("2u * p.segment_count + next", () => "0.0")}
    next++;
  }
${each((piece) => `  var g${piece} = ${zero};`)}`
}
  // What is read next lies behind what is multiplied, in this segment or the ones that follow.
  var r = u32(segments(s_first));
  let rows_end = u32(segments(s_end));
${text.start}
${total === null ? "" : each((piece) => `  var t${piece} = ${zero};`)}
${w.fromV ? `  if (range == 0u) {\n${each((piece) => `    t${piece} = v_at(${text.place(piece)});`)}\n  }` : ""}
  for (var s = s_first; s < s_end; s++) {
    let end = u32(segments(s + 1u));
    let counts = s >= p.known;
    let adds = s >= p.first;
${groups === null ? "" : "    let in_group = next < groups_end && s >= u32(groups(next));"}
${text.clear}
${text.addRows}
${perBlock((block) => `    var squares${block} = ${zero};\n    var along${block} = ${zero};`)}
${text.found((pieces) => {
  const lines = (line: (piece: number, value: string) => string): string =>
    pieces.map(({ piece, value }) => line(piece, value)).join("\n");
  return `    if (counts) {
${v === null ? "" : lines((piece) => `      let v${piece} = v_at(${text.place(piece)});`)}
${lines((piece, value) => `      squares${tile.blockOf(piece)} += ${value} * ${value};`)}
${v === null ? "" : lines((piece, value) => `      along${tile.blockOf(piece)} += ${value} * v${piece};`)}
    }
${total === null ? "" : `    if (adds) {\n${lines((piece, value) => `      t${piece} += ${value};`)}\n    }`}
${groups === null ? "" : `    if (in_group) {\n${lines((piece, value) => `      g${piece} += ${value};`)}\n    }`}`;
})}
    if (counts) {
      let found = join(Found(${blocks.map((block) => `vec2f(${sum(`along${block}`)}, ${sum(`squares${block}`)})`).join(", ")}), local);
      ${put("s", (block) => `found[${block}].x`)}
      ${put("p.segment_count + s", (block) => `found[${block}].y`)}
    }
${
  groups === null
    ? ""
    : `    while (next < groups_end && s + 1u >= u32(groups(next + 1u))) {
${perBlock((block) => `      var group_squares${block} = ${zero};`)}
${each((piece) => `      group_squares${tile.blockOf(piece)} += g${piece} * g${piece};\n      g${piece} = ${zero};`)}
      let group_found = join(Found(${blockSums("group_squares")}), local);
      ${put("2u * p.segment_count + next", (block) => `group_found[${block}].x`)}
      next++;
    }`
}
  }
${total === null ? "" : each((piece) => `  add_total(range, ${text.place(piece)}, t${piece});`)}
${
  !last
    ? ""
    : v === null
      ? `  ${put("2u * p.segment_count + p.group_count", () => "0.0")}`
      : `  if (range == 0u) {
${perBlock((block) => `    var v_squares${block} = ${zero};`)}
${each((piece) => `    { let x = v_at(${text.place(piece)}); v_squares${tile.blockOf(piece)} += x * x; }`)}
    let v_found = join(Found(${blockSums("v_squares")}), local);
    ${put("2u * p.segment_count + p.group_count", (block) => `v_found[${block}].x`)}
  }`
}`;
    },
  });
  if (split && sums !== null)
    addParts(context, {
      ...{ partial: sums, parts: ranges, count: m * n, width: n, outStride: n },
      ...{ accumulate: w.accumulate, out: total },
    });
}
