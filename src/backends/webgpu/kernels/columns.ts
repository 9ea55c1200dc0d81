/**
 * Sums down the columns of segments of rows.
 *
 * On a GPU a workgroup takes a part of a segment and a block of columns: its lanes go through the part's rows with a stride and are joined in
 * workgroup memory, in order; where a segment has several parts a second kernel adds them, in order. How many depends on shapes alone. On a software
 * adapter, and where segments are short, an invocation walks a column of a segment.
 */
import type { View } from "../../../tensor/memory.ts";
import type { NamedViews } from "../../kernels/index.ts";
import { elementwise as each, type Dispatch, type KernelContext, operandsOf, u32 } from "../context.ts";
import {
  COLUMN_LANES as LANES,
  COLUMN_ROWS as LEAST_ROWS,
  COLUMN_SHORT as SHORT,
  COLUMN_WIDTH as COLUMNS,
} from "../blocks.ts";

export interface ColumnSums {
  /** Names `term`. */
  readonly key: string;
  readonly rows: number;
  readonly width: number;
  readonly segmentCount: number;
  /** Elements between rows of `out`. */
  readonly outStride: number;
  readonly accumulate: boolean;
  /** What `term` reads. */
  readonly inputs: NamedViews;
  readonly segments: View;
  readonly out: View;
  /** What row `r` adds to column `j`, in WGSL; p.width is known. */
  readonly term: string;
}

/** Workgroups that keep a large GPU busy. */
const ENOUGH = 256;

/** out[s, j] (+)= Σ term over the rows of segment s. */
export function columnSums(context: KernelContext, sums: ColumnSums): void {
  const { rows, width, segmentCount, outStride, accumulate, inputs, segments, out, term } = sums;
  const count = segmentCount * width;
  if (count === 0) return;
  const scalars: Dispatch["scalars"] = { width: u32(width), out_stride: u32(outStride) };
  if (context.traits.software || rows < SHORT * segmentCount) {
    each(context, count, {
      key: `${sums.key} alone ${accumulate}`,
      operands: operandsOf({ ...inputs, segments }, { out }),
      scalars,
      body: () => `  let s = i / p.width;
  let j = i % p.width;
  let at = s * p.out_stride + j;
  var sum = ${accumulate ? "out(at)" : "0.0"};
  let end = u32(segments(s + 1u));
  for (var r = u32(segments(s)); r < end; r++) { sum += ${term}; }
  set_out(at, sum);`,
    });
    return;
  }
  const blocks = Math.ceil(width / COLUMNS);
  const parts = Math.max(
    1,
    Math.min(Math.ceil(ENOUGH / (segmentCount * blocks)), Math.floor(rows / segmentCount / LEAST_ROWS)),
  );
  const whole = parts === 1;
  const into = whole ? out : context.scratch(parts * count);
  const adds = accumulate && whole;
  context.dispatch({
    key: `${sums.key} ${whole ? "" : "parts"} ${adds}`,
    operands: operandsOf({ ...inputs, segments }, { into }),
    scalars: { ...scalars, blocks: u32(blocks), parts: u32(parts), segment_count: u32(segmentCount) },
    workgroup: COLUMNS * LANES,
    groups: blocks * parts * segmentCount,
    declarations: () => `var<workgroup> lanes: array<f32, ${COLUMNS * LANES}>;`,
    body: () => `  let j = (group % p.blocks) * ${COLUMNS}u + local % ${COLUMNS}u;
  let part = (group / p.blocks) % p.parts;
  let s = group / p.blocks / p.parts;
  let first = u32(segments(s));
  let length = u32(segments(s + 1u)) - first;
  // The first length % parts parts have a row more.
  let start = first + part * (length / p.parts) + min(part, length % p.parts);
  let end = start + length / p.parts + select(0u, 1u, part < length % p.parts);
  var sum = 0.0;
  if (j < p.width) {
    for (var r = start + local / ${COLUMNS}u; r < end; r += ${LANES}u) { sum += ${term}; }
  }
  lanes[local] = sum;
  workgroupBarrier();
  if (local >= ${COLUMNS}u || j >= p.width) { return; }
  let at = ${whole ? "s * p.out_stride + j" : "(part * p.segment_count + s) * p.width + j"};
${Array.from({ length: LANES - 1 }, (_, lane) => `  sum += lanes[local + ${(lane + 1) * COLUMNS}u];`).join("\n")}
  set_into(at, sum${adds ? " + into(at)" : ""});`,
  });
  if (!whole) addParts(context, { partial: into, parts, count, width, outStride, accumulate, out });
}

export interface Parts {
  /** Blocks of `count` numbers. */
  readonly partial: View;
  readonly parts: number;
  readonly count: number;
  /** A block has rows of `width`, which stand `outStride` apart in `out`. */
  readonly width: number;
  readonly outStride: number;
  readonly accumulate: boolean;
  readonly out: View;
}

/** out (+)= Σ of blocks, in order. */
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
