/**
 * The segmented weight gradient. For each tile of W, the segments are processed in order. The tile of one segment stays in registers; at the segment's end
 * it is multiplied with the tile of V, squared, and added to the total and to its group. A last kernel sums the results of the tiles, in order. On a
 * GPU a workgroup computes a tile (gemm-segmented-walk.ts), on a software adapter a single invocation, without barriers.
 */
import type { KernelParams } from "../../kernels/index.ts";
import {
  elementwise,
  type KernelContext,
  type Launchers,
  type Operand,
  operandsOf,
  type Rider,
  u32,
} from "../context.ts";
import { SEGMENT_LANES } from "../blocks.ts";
import { type Operands, tiled, type Tiled } from "./gemm-segmented-walk.ts";
import { HALF } from "./matrices.ts";

type Params = KernelParams["gemmSegmented"];

const four = [0, 1, 2, 3];
const each = (line: (i: number, j: number) => string): string =>
  four.flatMap((i) => four.map((j) => line(i, j))).join("\n");
const put = (at: string, value: string): string => `set_partials(${at}, ${value});`;
const sumOf = (term: (i: number, j: number) => string): string =>
  four.map((i) => four.map((j) => term(i, j)).join(" + ")).join("\n      + ");

export const gemmSegmented: Pick<Launchers, "gemmSegmented"> = {
  gemmSegmented(
    context,
    asked,
    { a, b, segments, groups = null, v = null },
    { total = null, dots, sumsq, groupSumsq = null, vSumsq },
  ) {
    const grouped = groupSumsq !== null;
    const params = { ...asked, groupCount: grouped ? asked.groupCount : 0 };
    const { segmentCount, groupCount } = params;
    const operands: Operands = {
      ...{ a, b, segments },
      groups: groupCount > 0 ? groups : null,
      v,
      total,
    };
    const { blocks, run } = (context.traits.software ? plain : tiled)(context, params, operands);
    const rows = 2 * segmentCount + groupCount + 1;
    const partials = context.scratch(Math.max(1, blocks * rows));
    run(partials);
    context.ride(
      join(
        { segmentCount, groupCount, blocks, lanes: context.traits.software ? 1 : SEGMENT_LANES },
        operandsOf({ partials }, { dots, sumsq, group_sumsq: groupSumsq, v_sumsq: vSumsq }),
        grouped,
      ),
    );
  },
};

interface Joining {
  readonly segmentCount: number;
  readonly groupCount: number;
  /** Number of blocks: partial results per row. */
  readonly blocks: number;
  /** Invocations per row. */
  readonly lanes: number;
}

/** Sums the results of the blocks, with compensation as for all statistics. */
function join(
  { segmentCount, groupCount, blocks, lanes }: Joining,
  operands: readonly Operand[],
  grouped: boolean,
): Rider {
  const rows = 2 * segmentCount + groupCount + 1;
  const add = (x: string): string => `{ let x = ${x};
    let next = total + x;
    lost += select((x - next) + total, (total - next) + x, abs(total) >= abs(x));
    total = next; }`;
  const whole = "total + select(lost, 0.0, is_nan(lost))";
  const height = (workgroup: number): number => Math.floor(workgroup / lanes);
  return {
    key: `gemmSegmented join ${grouped} ${lanes}`,
    operands,
    scalars: {
      ...{ segment_count: u32(segmentCount), group_count: u32(groupCount), blocks: u32(blocks) },
      rows: u32(rows),
    },
    workgroup: 64,
    groups: (workgroup) => Math.ceil(rows / height(workgroup)),
    declarations: (workgroup, tag) =>
      lanes === 1 ? "" : `var<workgroup> ${tag}lanes: array<f32, ${workgroup}>;`,
    body(workgroup, tag) {
      const of = (name: string): string => `${tag}${name}`;
      return `  let row = group * ${height(workgroup)}u + local / ${lanes}u;
  let lane = local % ${lanes}u;
  let mine = row < p.${of("rows")} && local < ${height(workgroup) * lanes}u;
  var total = 0.0;
  var lost = 0.0;
  if (mine) {
    for (var e = lane; e < p.${of("blocks")}; e += ${lanes}u) ${add(`${of("partials")}(row * p.${of("blocks")} + e)`)}
  }
${
  lanes === 1
    ? "  if (!mine) { return; }"
    : `  ${tag}lanes[local] = ${whole};
  workgroupBarrier();
  if (lane > 0u || !mine) { return; }
  total = 0.0;
  lost = 0.0;
  for (var other = local; other < local + ${lanes}u; other++) ${add(`${tag}lanes[other]`)}`
}
  let found = ${whole};
  let own = row - 2u * p.${of("segment_count")};
  if (row < p.${of("segment_count")}) { set_${of("dots")}(row, found); }
  else if (row < 2u * p.${of("segment_count")}) { set_${of("sumsq")}(row - p.${of("segment_count")}, found); }
${grouped ? `  else if (own < p.${of("group_count")}) { set_${of("group_sumsq")}(own, found); }\n` : ""}  else { set_${of("v_sumsq")}(0u, found); }`;
    },
  };
}

function plain(
  context: KernelContext,
  params: Params,
  { a, b, segments, groups, v, total }: Operands,
): Tiled {
  const { m, n, segmentCount, groupCount, targetSegments, firstAccumulated, accumulate } = params;
  // An invocation computes 4 × 4 elements.
  const [tilesM, tilesN] = [Math.ceil(m / 4), Math.ceil(n / 4)];
  const tiles = tilesM * tilesN;
  const grouped = groups !== null;
  const { rounds } = context.traits;
  const round = (x: string): string => (rounds ? `half(${x})` : x);
  return {
    blocks: tiles,
    run(partials) {
      elementwise(context, tiles, {
        key: `gemmSegmented plain ${rounds ? "rounded " : ""}${[v !== null, total !== null, grouped, accumulate].join()}`,
        operands: operandsOf({ a, b, segments, groups, v }, { total, partials }),
        scalars: {
          m: u32(m),
          n: u32(n),
          tiles_n: u32(tilesN),
          segment_count: u32(segmentCount),
          group_count: u32(groupCount),
          target_segments: u32(v === null ? targetSegments : 0),
          first: u32(firstAccumulated),
        },
        declarations: () => `
// Beyond the edge of W the last row (column) is read again and counts 0.
fn value_a(r: u32, i: u32) -> f32 { return select(0.0, ${round("a(r * p.m + min(i, p.m - 1u))")}, i < p.m); }
fn value_b(r: u32, j: u32) -> f32 { return select(0.0, ${round("b(r * p.n + min(j, p.n - 1u))")}, j < p.n); }${rounds ? HALF : ""}`,
        body: () => `  let tile = i;
  let i0 = (tile / p.tiles_n) * 4u;
  let j0 = (tile % p.tiles_n) * 4u;
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
${grouped ? `  while (next_group < p.group_count && groups(next_group + 1u) == groups(next_group)) { ${put("(2u * p.segment_count + next_group) * p.count + tile", "0.0")} next_group++; }` : ""}
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
    ${put("s * p.count + tile", "along")}
    ${put("(p.segment_count + s) * p.count + tile", "square")}
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
      ${put("(2u * p.segment_count + next_group) * p.count + tile", "group_square")}
${each((i, j) => `      g${i}${j} = 0.0;`)}
      next_group++;
    }`
    : ""
}
  }
  let v_square = ${sumOf((i, j) => `v${i}${j} * v${i}${j}`)};
  ${put("(2u * p.segment_count + p.group_count) * p.count + tile", "v_square")}
${
  total === null
    ? ""
    : each(
        (i, j) =>
          `  if (i0 + ${i}u < p.m && j0 + ${j}u < p.n) { set_total((i0 + ${i}u) * p.n + j0 + ${j}u, t${i}${j}); }`,
      )
}`,
      });
    },
  };
}
