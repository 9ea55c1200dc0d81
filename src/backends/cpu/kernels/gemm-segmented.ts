/**
 * The launcher of the segmented weight gradient (assembly/gemm-segmented.ts). It chooses the cheaper of two algorithms by the shape, the offsets and the zeros of the factors.
 *
 * With many rows per segment, each tile of the gradient goes through the segments (`walk`): every segment costs a pass over the gradient, however few its rows.
 * With few rows per segment, no segment's gradient is computed (`byRows`): its alignment is the sum of those of its rows (row-alignments.ts), its norm follows
 * from inner products of its rows, and the total is one product.
 */
import type { View } from "../../../tensor/memory.ts";
import type { KernelParams } from "../../kernels/index.ts";
import {
  SEGMENTED_CHUNK,
  SEGMENTED_COLS,
  SEGMENTED_ROWS,
  SEGMENTED_TASKS,
  SEGMENTED_TILE_COLS as TILE_COLS,
  SEGMENTED_TILE_ROWS as TILE_ROWS,
} from "../blocks.ts";
import type { Runtime } from "../runtime.ts";
import { gemmAt, TASKS } from "./gemm.ts";
import type { Launcher } from "./launcher.ts";
import { dotAt } from "./reduce.ts";
import { rowAlignments, type Rows, type Way, type WayOf, wayOf } from "./row-alignments.ts";

type Params = KernelParams["gemmSegmented"];
type Range = readonly [first: number, end: number];

/** Addresses of the operands; 0 if an operand is absent. */
interface Operands {
  readonly a: number;
  readonly b: number;
  readonly segments: number;
  readonly groups: number;
  readonly v: number;
  readonly total: number;
  readonly dots: number;
  readonly sumsq: number;
  readonly groupSumsq: number;
  readonly vSumsq: number;
}

/** Overhead of a segment in the walk, and the additional overhead of its group, in units of the products of one row; measured on one core. */
const WALK_ROWS = 6.5;
const GROUP_ROWS = 11;
/** With at least this many rows per segment on average, the walk is always chosen: it is as fast or faster. */
const MANY_ROWS = 16;
/** Cost of a product in doubles, in units of a product in f32. */
const DOUBLE = 4;
/** Overhead of computing a range's gradient beside the products of its rows: passes over the gradient, and launches in units of a product in f32. */
const PASSES = 4;
const LAUNCHES = 100_000;

/** The properties of a call that both algorithms need. */
interface Plan {
  /** The first row of each segment and of each group, and the end of the last. */
  readonly segments: Int32Array;
  readonly groups: Int32Array;
  /** Rows whose gradient is the direction, and rows of the total. */
  readonly target: Range;
  readonly summed: Range;
  /** The first segment that is aligned. */
  readonly aligned: number;
  /** How the alignments of these rows are computed. */
  readonly way: Way;
  /** Largest number of rows of a range whose norm is computed from inner products. The norm of a longer range is computed from its gradient. */
  readonly most: number;
  readonly few: boolean;
}

function planOf(runtime: Runtime, p: Params, o: Operands): Plan {
  const { segmentCount } = p;
  // A copy: the memory may grow.
  const segments = runtime.words(o.segments, segmentCount + 1).slice();
  const groups =
    o.groups === 0
      ? new Int32Array(0)
      : runtime.words(o.groups, p.groupCount + 1).map((segment) => segments[segment]!);
  const [first, end] = [segments[0]!, segments[segmentCount]!];
  const targets = o.v === 0 ? p.targetSegments : 0;
  const target: Range = [first, segments[targets]!];
  const aligned = o.v === 0 && targets === 0 ? segmentCount : targets;
  const from = o.total === 0 ? segmentCount : Math.min(p.firstAccumulated, segmentCount);
  const summed: Range = [segments[from]!, end];

  const size = p.m * p.n;
  const doubles = DOUBLE * (p.m + p.n);
  // The number of rows r at which r(r + 1)/2 inner products cost as much as r + PASSES products of the gradient's size and their launches.
  const half = 0.5 * doubles;
  const most = Math.max(
    1,
    Math.floor(
      (size - half + Math.sqrt((size - half) ** 2 + 4 * half * (PASSES * size + LAUNCHES))) / doubles,
    ),
  );
  /** Cost of the norms of ranges, in products of two numbers. */
  const costOfNorms = (offsets: Int32Array): number => {
    let products = 0;
    for (let i = 1; i < offsets.length; i++) {
      const rows = offsets[i]! - offsets[i - 1]!;
      products += rows > most ? (rows + PASSES) * size + LAUNCHES : (rows * (rows + 1) * doubles) / 2;
    }
    return products;
  };
  const each = WALK_ROWS + (groups.length > 1 ? GROUP_ROWS : 0);
  const walking = size * (end - first + each * segmentCount);
  const small = end - first < MANY_ROWS * segmentCount;
  const { way, share }: WayOf = small
    ? wayOf(runtime, alignedRows(p, o, segments, aligned))
    : { way: "dense", share: 1 };
  const rows = length(target) + share * (end - segments[aligned]!) + length(summed);
  const byRows = size * rows + costOfNorms(segments) + costOfNorms(groups);
  return { segments, groups, target, summed, aligned, way, most, few: small && byRows < walking };
}

const length = ([first, end]: Range): number => end - first;

export const gemmSegmented: Launcher<"gemmSegmented"> = (
  runtime,
  p,
  { a, b, segments, groups = null, v = null },
  { total = null, dots, sumsq, groupSumsq = null, vSumsq },
) => {
  const at = (view: View | null | undefined): number => runtime.address(view);
  const operands: Operands = {
    a: at(a),
    b: at(b),
    segments: at(segments),
    groups: at(groups),
    v: at(v),
    total: at(total),
    dots: at(dots),
    sumsq: at(sumsq),
    groupSumsq: at(groupSumsq),
    vSumsq: at(vSumsq),
  };
  const plan = planOf(runtime, p, operands);
  if (plan.few) byRows(runtime, p, operands, plan);
  else walk(runtime, p, operands);
};

function byRows(runtime: Runtime, p: Params, o: Operands, plan: Plan): void {
  const size = p.m * p.n;
  if (o.total !== 0) gradientOf(runtime, p, o, plan.summed, o.total, p.accumulate);
  let { v } = o;
  if (v === 0 && p.targetSegments > 0) {
    v = runtime.workspace(4 * size);
    gradientOf(runtime, p, o, plan.target, v, false);
  }
  dotAt(runtime, v === 0 ? 0 : size, [v, v], o.vSumsq);
  norms(runtime, p, o, plan, { offsets: plan.segments, at: o.segments }, o.sumsq);
  if (o.groupSumsq !== 0)
    norms(runtime, p, o, plan, { offsets: plan.groups, at: runtime.integers(plan.groups) }, o.groupSumsq);
  alignments(runtime, p, o, plan, v);
}

/** Computes Σ a_r bᵣᵀ over a range of rows. */
function gradientOf(
  runtime: Runtime,
  { m, n }: Params,
  { a, b }: Operands,
  [first, end]: Range,
  to: number,
  accumulate: boolean,
): void {
  const params: KernelParams["gemm"] = {
    m,
    n,
    k: end - first,
    transA: true,
    transB: false,
    batch: 1,
    strideA: 0,
    strideB: 0,
    strideC: 0,
    alpha: 1,
    accumulate,
    activation: "none",
  };
  gemmAt(runtime, params, { a: a + 4 * first * m, b: b + 4 * first * n, bias: 0, c: to, slope: 0 });
}

/** Computes ‖Σ a_r bᵣᵀ‖² over each range of rows. */
function norms(
  runtime: Runtime,
  p: Params,
  o: Operands,
  { most }: Plan,
  { offsets, at }: { readonly offsets: Int32Array; readonly at: number },
  to: number,
): void {
  const ranges = offsets.length - 1;
  const perTask = Math.max(1, Math.ceil(ranges / TASKS));
  runtime.launch({
    kernel: "gramSquares",
    tasks: Math.ceil(ranges / perTask),
    slots: {
      a: o.a,
      b: o.b,
      offsets: at,
      squares: to,
      ranges,
      rangesPerTask: perTask,
      m: p.m,
      n: p.n,
      most,
    },
    scratch: 64,
    work: DOUBLE * (p.m + p.n) * (offsets[ranges]! - offsets[0]!),
  });
  const size = p.m * p.n;
  let gradient = 0;
  for (let i = 0; i < ranges; i++) {
    const range: Range = [offsets[i]!, offsets[i + 1]!];
    if (length(range) <= most) continue;
    if (gradient === 0) gradient = runtime.workspace(4 * size);
    gradientOf(runtime, p, o, range, gradient, false);
    dotAt(runtime, size, [gradient, gradient], to + 4 * i);
  }
}

/** Computes ⟨W_s, V⟩ of each segment from the alignments of its rows. */
function alignments(
  runtime: Runtime,
  p: Params,
  o: Operands,
  { segments, aligned, way }: Plan,
  v: number,
): void {
  const rows = alignedRows(p, o, segments, aligned);
  const partials = rowAlignments(runtime, rows, v, finiteAt(runtime, o.vSumsq) ? way : "dense");
  runtime.launch({
    kernel: "alignSegments",
    tasks: 1,
    slots: {
      partials: partials.at,
      columnBlocks: partials.columnBlocks,
      rows: rows.rows,
      segments: o.segments,
      segmentCount: p.segmentCount,
      aligned,
      dots: o.dots,
    },
    work: 0,
  });
}

/** Returns the rows of the segments from `aligned` on. */
function alignedRows(
  { m, n, segmentCount }: Params,
  { a, b }: Operands,
  segments: Int32Array,
  aligned: number,
): Rows {
  const start = segments[aligned]!;
  return { a: a + 4 * start * m, b: b + 4 * start * n, m, n, rows: segments[segmentCount]! - start };
}

/** Whether the number at an address is finite. If the squared norm of V is finite, so is all of V. */
function finiteAt(runtime: Runtime, at: number): boolean {
  const [bits = 0] = runtime.words(at, 1);
  return (bits & EXPONENT) !== EXPONENT;
}

/** Bits of the exponent of a f32; all are set exactly for ∞ and NaN. */
const EXPONENT = 0x7f800000;

/** Returns the length of a block of whole tiles, at most `most`. */
const blockOf = (length: number, most: number, tile: number): number =>
  Math.max(tile, Math.min(most, Math.ceil(length / tile) * tile));

function walk(runtime: Runtime, p: Params, o: Operands): void {
  const { rows, m, n, segmentCount } = p;
  const groupCount = o.groups === 0 ? 0 : p.groupCount;
  // A product of few tasks is divided along its longer side.
  const few = Math.ceil(m / SEGMENTED_ROWS) * Math.ceil(n / SEGMENTED_COLS) < SEGMENTED_TASKS;
  const rowsPerTask = blockOf(m, few && m >= n ? SEGMENTED_ROWS / 2 : SEGMENTED_ROWS, TILE_ROWS);
  const columnsPerTask = blockOf(n, few && m < n ? SEGMENTED_COLS / 2 : SEGMENTED_COLS, TILE_COLS);
  const columnBlocks = Math.ceil(n / columnsPerTask);
  const tasks = Math.ceil(m / rowsPerTask) * columnBlocks;
  const partials = runtime.workspace(Math.max(1, tasks) * (2 * segmentCount + groupCount + 1) * 8);
  runtime.launch({
    kernel: "segmentedBlock",
    tasks,
    slots: {
      a: o.a,
      b: o.b,
      segments: o.segments,
      groups: o.groups,
      v: o.v,
      total: o.total,
      partials,
      m,
      n,
      segmentCount,
      groupCount,
      targetSegments: p.targetSegments,
      firstAccumulated: p.firstAccumulated,
      accumulate: p.accumulate ? 1 : 0,
      rowsPerTask,
      columnsPerTask,
      columnBlocks,
    },
    scratch: 1024 + 4 * (SEGMENTED_CHUNK * (rowsPerTask + columnsPerTask) + 4 * rowsPerTask * columnsPerTask),
    work: 2 * rows * m * n,
  });
  runtime.launch({
    kernel: "segmentedReduce",
    tasks: 1,
    slots: {
      partials,
      tasks,
      segmentCount,
      groupCount,
      dots: o.dots,
      sumsq: o.sumsq,
      groupSumsq: o.groupSumsq,
      vSumsq: o.vSumsq,
    },
    work: 0,
  });
}
