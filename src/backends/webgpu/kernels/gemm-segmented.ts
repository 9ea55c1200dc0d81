/**
 * The segmented weight gradient: a workgroup owns a tile of W and walks the segments in order. The tile of one segment stays in registers; at the
 * segment's end it is dotted with the tile of V, squared, and added to the total and to its group. What the tiles found is added up by a second kernel,
 * in order. On a software adapter an invocation is its own workgroup, without barriers.
 */
import { type Dispatch, given, type KernelContext, type Launchers, operandsOf, u32 } from "../context.ts";
import { byRow } from "./rows.ts";

const four = [0, 1, 2, 3];
const each = (line: (i: number, j: number) => string): string =>
  four.flatMap((i) => four.map((j) => line(i, j))).join("\n");
const sumOf = (term: (i: number, j: number) => string): string =>
  four.map((i) => four.map((j) => term(i, j)).join(" + ")).join("\n      + ");

export const gemmSegmented: Pick<Launchers, "gemmSegmented"> = {
  gemmSegmented(context, params, [a, b, segments, groups, v], [total, dots, sumsq, groupSumsq, vSumsq]) {
    const { m, n, segmentCount, groupCount, targetSegments, firstAccumulated, accumulate } = params;
    const { software } = context.traits;
    // An invocation makes 4 × 4, a workgroup 8 × 8 of those.
    const edge = software ? 4 : 32;
    const [tilesM, tilesN] = [Math.ceil(m / edge), Math.ceil(n / edge)];
    const tiles = tilesM * tilesN;
    // One partial for every tile of: dots, sumsq, groups, V.
    const partials = context.scratch(Math.max(1, tiles * (2 * segmentCount + groupCount + 1)));
    const grouped = groupSumsq !== null;
    const emit = (at: string, value: string): string =>
      software
        ? `set_partials(${at}, ${value});`
        : `{ let joined = join(${value}); if (local == 0u) { set_partials(${at}, joined); } }`;
    const dispatch: Dispatch = {
      key: `gemmSegmented ${[software, v !== null, total !== null, grouped, accumulate].join()}`,
      operands: operandsOf({ a, b, segments, groups: grouped ? groups : null, v }, { total, partials }),
      scalars: {
        m: u32(m),
        n: u32(n),
        tiles_n: u32(tilesN),
        tiles: u32(tiles),
        segment_count: u32(segmentCount),
        group_count: u32(grouped ? groupCount : 0),
        target_segments: u32(v === null ? targetSegments : 0),
        first: u32(firstAccumulated),
      },
      workgroup: 64,
      groups: software ? Math.ceil(tiles / 64) : tiles,
      declarations: `${
        software
          ? ""
          : `var<workgroup> lanes: array<f32, 64>;
var<private> lane_index: u32;
fn join(x: f32) -> f32 {
  workgroupBarrier();
  lanes[lane_index] = x;
  for (var width = 32u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane_index < width) { lanes[lane_index] += lanes[lane_index + width]; }
  }
  workgroupBarrier();
  return lanes[0];
}`
      }
// Beyond the edge of W the last row (column) is read again and counts 0.
fn value_a(r: u32, i: u32) -> f32 { return select(0.0, a(r * p.m + min(i, p.m - 1u)), i < p.m); }
fn value_b(r: u32, j: u32) -> f32 { return select(0.0, b(r * p.n + min(j, p.n - 1u)), j < p.n); }`,
      body: `${
        software
          ? `  let tile = thread;
  if (tile >= p.tiles) { return; }
  let i0 = (tile / p.tiles_n) * 4u;
  let j0 = (tile % p.tiles_n) * 4u;`
          : `  let tile = group;
  lane_index = local;
  let i0 = (tile / p.tiles_n) * 32u + (local / 8u) * 4u;
  let j0 = (tile % p.tiles_n) * 32u + (local % 8u) * 4u;`
      }
${each((i, j) => `  var v${i}${j} = 0.0; var t${i}${j} = 0.0; var g${i}${j} = 0.0;`)}
${each((i, j) => {
  const inside = `i0 + ${i}u < p.m && j0 + ${j}u < p.n`;
  const at = `(i0 + ${i}u) * p.n + j0 + ${j}u`;
  const lines = [
    v === null ? "" : `v${i}${j} = v(${at});`,
    total !== null && accumulate ? `t${i}${j} = total(${at});` : "",
  ].filter((line) => line !== "");
  return lines.length === 0 ? "" : `  if (${inside}) { ${lines.join(" ")} }`;
})}
  var next_group = 0u;
${grouped ? `  while (next_group < p.group_count && groups(next_group + 1u) == groups(next_group)) { ${emit("(2u * p.segment_count + next_group) * p.tiles + tile", "0.0")} next_group++; }` : ""}
  for (var s = 0u; s < p.segment_count; s++) {
${each((i, j) => `    var w${i}${j} = 0.0;`)}
    let end = u32(segments(s + 1u));
    for (var r = u32(segments(s)); r < end; r++) {
${four.map((i) => `      let a${i} = value_a(r, i0 + ${i}u);\n      let b${i} = value_b(r, j0 + ${i}u);`).join("\n")}
${each((i, j) => `      w${i}${j} = fma(a${i}, b${j}, w${i}${j});`)}
    }
    var along = ${sumOf((i, j) => `w${i}${j} * v${i}${j}`)};
    if (s < p.target_segments) {
      // These make V; where they point is not known yet.
      along = 0.0;
${each((i, j) => `      v${i}${j} += w${i}${j};`)}
    }
    let square = ${sumOf((i, j) => `w${i}${j} * w${i}${j}`)};
    ${emit("s * p.tiles + tile", "along")}
    ${emit("(p.segment_count + s) * p.tiles + tile", "square")}
    if (s >= p.first) {
${each((i, j) => `      t${i}${j} += w${i}${j};`)}
    }
${
  grouped
    ? `    if (next_group < p.group_count && s >= u32(groups(next_group))) {
${each((i, j) => `      g${i}${j} += w${i}${j};`)}
    }
    while (next_group < p.group_count && s + 1u >= u32(groups(next_group + 1u))) {
      let group_square = ${sumOf((i, j) => `g${i}${j} * g${i}${j}`)};
      ${emit("(2u * p.segment_count + next_group) * p.tiles + tile", "group_square")}
${each((i, j) => `      g${i}${j} = 0.0;`)}
      next_group++;
    }`
    : ""
}
  }
  let v_square = ${sumOf((i, j) => `v${i}${j} * v${i}${j}`)};
  ${emit("(2u * p.segment_count + p.group_count) * p.tiles + tile", "v_square")}
${
  total === null
    ? ""
    : each(
        (i, j) =>
          `  if (i0 + ${i}u < p.m && j0 + ${j}u < p.n) { set_total((i0 + ${i}u) * p.n + j0 + ${j}u, t${i}${j}); }`,
      )
}`,
    };
    if (tiles > 0) context.dispatch(dispatch);
    const gather = (first: number, count: number, out: Parameters<typeof operandsOf>[1]["out"]): void =>
      joinTiles(context, partials, first, count, tiles, given(out, "out"));
    gather(0, segmentCount, dots);
    gather(segmentCount, segmentCount, sumsq);
    if (grouped) gather(2 * segmentCount, groupCount, groupSumsq);
    gather(2 * segmentCount + (grouped ? groupCount : 0), 1, vSumsq);
  },
};

/** out[s] = Σ over tiles of what stands at row first + s. */
function joinTiles(
  context: KernelContext,
  partials: ReturnType<KernelContext["scratch"]>,
  first: number,
  count: number,
  tiles: number,
  out: ReturnType<KernelContext["scratch"]>,
): void {
  byRow(context, count, {
    key: "gemmSegmented join",
    operands: operandsOf({ partials }, { out }),
    scalars: { first: u32(first), tiles: u32(tiles) },
    body: `  var sum = 0.0;
  for (var e = lane; e < p.tiles; e += LANES) { sum += partials((p.first + row) * p.tiles + e); }
  let whole = join_sum(sum);
  if (lane == 0u) { set_out(row, whole); }`,
  });
}
