/**
 * Sums down the columns of segments of rows.
 *
 * On a GPU a workgroup takes a part of a segment and a block of columns. Its lanes go through the part's rows with a stride, and their sums are added in
 * workgroup memory in order. If a segment has several parts, a second kernel adds them in order. The number of parts depends only on shapes. On a software
 * adapter, and for short segments, an invocation sums one column of a segment.
 */
import type { View } from "../../../tensor/memory.ts";
import type { NamedViews } from "../../kernels/index.ts";
import {
  elementwise as each,
  type KernelContext,
  type Operand,
  operandsOf,
  type Rider,
  u32,
} from "../context.ts";
import { separateDispatch } from "../riders.ts";
import {
  COLUMN_LANES as LANES,
  COLUMN_ROWS as LEAST_ROWS,
  COLUMN_SHORT as SHORT,
  COLUMN_WIDTH as COLUMNS,
} from "../blocks.ts";

export interface ColumnSums {
  /** Identifies `term` in the key of the shader. */
  readonly key: string;
  readonly rows: number;
  readonly width: number;
  readonly segmentCount: number;
  /** Elements between rows of `out`. */
  readonly outStride: number;
  readonly accumulate: boolean;
  /** The operands that `term` reads. */
  readonly inputs: NamedViews;
  readonly segments: View;
  readonly out: View;
  /** The summand of row `r` in column `j`, in WGSL. `of` maps the name of an operand or of a scalar (such as `width`, read as p.name) to its name in the shader. */
  readonly term: (of: (name: string) => string) => string;
}

/** Number of workgroups that keeps a large GPU busy. */
const BUSY_WORKGROUPS = 256;

/** Dispatches out[s, j] (+)= Σ term over the rows of segment s. */
export function columnSums(context: KernelContext, sums: ColumnSums): void {
  const { rows, width, segmentCount, outStride, accumulate, out } = sums;
  const count = segmentCount * width;
  if (count === 0) return;
  if (context.traits.software || rows < SHORT * segmentCount) {
    context.ride(byColumn(sums, context.traits.software ? 64 : COLUMNS * LANES));
    return;
  }
  const blocks = Math.ceil(width / COLUMNS);
  const parts = Math.max(
    1,
    Math.min(
      Math.ceil(BUSY_WORKGROUPS / (segmentCount * blocks)),
      Math.floor(rows / segmentCount / LEAST_ROWS),
    ),
  );
  if (parts === 1) {
    context.ride(inLanes(sums, 1, { out, outStride, accumulate }));
    return;
  }
  const into = context.scratch(parts * count);
  context.dispatch(
    separateDispatch(inLanes(sums, parts, { out: into, outStride: width, accumulate: false })),
  );
  addParts(context, { partial: into, parts, count, width, outStride, accumulate, out });
}

type Into = Pick<ColumnSums, "out" | "outStride" | "accumulate">;

/** Returns the operands. The last one is written, and contains the sums in some of its columns. */
function operandsInto({ inputs, segments, width }: ColumnSums, { out, outStride }: Into): Operand[] {
  return operandsOf({ ...inputs, segments }, { out }).map((operand) =>
    operand.written === true ? { ...operand, columns: { width, stride: outStride } } : operand,
  );
}

/** Returns a dispatch in which one invocation sums a column of a segment. */
function byColumn(sums: ColumnSums, workgroup: number): Rider {
  const { width, segmentCount, outStride, accumulate, term } = sums;
  const count = segmentCount * width;
  return {
    key: `${sums.key} alone ${accumulate}`,
    operands: operandsInto(sums, sums),
    scalars: { count: u32(count), width: u32(width), out_stride: u32(outStride) },
    workgroup,
    groups: (size) => Math.ceil(count / size),
    declarations: () => "",
    body(_, tag) {
      const of = (name: string): string => `${tag}${name}`;
      return `  if (thread >= p.${of("count")}) { return; }
  let s = thread / p.${of("width")};
  let j = thread % p.${of("width")};
  let at = s * p.${of("out_stride")} + j;
  var sum = ${accumulate ? `${of("out")}(at)` : "0.0"};
  let end = u32(${of("segments")}(s + 1u));
  for (var r = u32(${of("segments")}(s)); r < end; r++) { sum += ${term(of)}; }
  set_${of("out")}(at, sum);`;
    },
  };
}

/** Returns a dispatch in which lanes sum a column of a part of a segment, and are then added in order. */
function inLanes(sums: ColumnSums, parts: number, into: Into): Rider {
  const { width, segmentCount, term } = sums;
  const { outStride, accumulate } = into;
  const columns = (workgroup: number): number => Math.floor(workgroup / LANES);
  const blocks = (workgroup: number): number => Math.ceil(width / columns(workgroup));
  return {
    key: `${sums.key} ${accumulate}`,
    operands: operandsInto(sums, into),
    scalars: {
      ...{ width: u32(width), out_stride: u32(outStride) },
      ...{ parts: u32(parts), segment_count: u32(segmentCount) },
    },
    workgroup: COLUMNS * LANES,
    groups: (workgroup) => blocks(workgroup) * parts * segmentCount,
    declarations: (workgroup, tag) => `var<workgroup> ${tag}lanes: array<f32, ${workgroup}>;`,
    body(workgroup, tag) {
      const of = (name: string): string => `${tag}${name}`;
      const wide = columns(workgroup);
      const others = Array.from({ length: LANES - 1 }, (_, lane) => (lane + 1) * wide);
      return `  let blocks = (p.${of("width")} + ${wide - 1}u) / ${wide}u;
  let j = (group % blocks) * ${wide}u + local % ${wide}u;
  let lane = local / ${wide}u;
  let part = (group / blocks) % p.${of("parts")};
  let s = group / blocks / p.${of("parts")};
  let first = u32(${of("segments")}(s));
  let length = u32(${of("segments")}(s + 1u)) - first;
  // The first length % parts parts have a row more.
  let start = first + part * (length / p.${of("parts")}) + min(part, length % p.${of("parts")});
  let end = start + length / p.${of("parts")} + select(0u, 1u, part < length % p.${of("parts")});
  var sum = 0.0;
  if (j < p.${of("width")} && lane < ${LANES}u) {
    for (var r = start + lane; r < end; r += ${LANES}u) { sum += ${term(of)}; }
  }
  ${tag}lanes[local] = sum;
  workgroupBarrier();
  if (lane > 0u || j >= p.${of("width")}) { return; }
  let at = (part * p.${of("segment_count")} + s) * p.${of("out_stride")} + j;
${others.map((at) => `  sum += ${tag}lanes[local + ${at}u];`).join("\n")}
  set_${of("out")}(at, sum${accumulate ? ` + ${of("out")}(at)` : ""});`;
    },
  };
}

export interface Parts {
  /** The partial sums: `parts` blocks of `count` numbers. */
  readonly partial: View;
  readonly parts: number;
  readonly count: number;
  /** Width of the rows of a block, whose first elements are `outStride` elements apart in `out`. */
  readonly width: number;
  readonly outStride: number;
  readonly accumulate: boolean;
  readonly out: View;
}

/** Dispatches out (+)= Σ of blocks, in order. */
export function addParts(
  context: KernelContext,
  { partial, parts, count, width, outStride, accumulate, out }: Parts,
): void {
  each(context, count, {
    key: `addParts ${accumulate}`,
    operands: operandsOf({ partial }, { out }),
    scalars: { parts: u32(parts), width: u32(width), out_stride: u32(outStride) },
    body: () => `  let at = (i / p.width) * p.out_stride + i % p.width;
  var sum = ${accumulate ? "out(at)" : "0.0"};
  for (var part = 0u; part < p.parts; part++) { sum += partial(part * p.count + i); }
  set_out(at, sum);`,
  });
}
