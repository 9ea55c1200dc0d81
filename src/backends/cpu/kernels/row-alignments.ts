/**
 * Alignments of segments, computed row by row: ⟨Σ a_r b_rᵀ, V⟩ is the sum over the rows of ⟨a_rᵀ V, b_r⟩ = ⟨V b_r, a_r⟩, which takes one product of all rows with V.
 *
 * If a factor has many zeros, like the gradients and the values after a ReLU, only its nonzero elements are multiplied by V (assembly/skip.ts). Otherwise the
 * product is dense (assembly/gemm.ts). The choice depends only on the shapes and the values, so it is the same for any number of threads.
 */
import {
  ALIGN_CHUNK,
  GEMM_COLS,
  GEMM_K,
  GEMM_ROWS,
  SKIP_COLS,
  SKIP_K,
  SKIP_NARROW,
  SKIP_NARROW_K,
  SKIP_ROWS,
  SKIP_SAMPLE,
  TILE_COLS as NR,
  TILE_ROWS as MR,
} from "../blocks.ts";
import type { Runtime } from "../runtime.ts";
import { pack, packTo, TASKS } from "./gemm.ts";

/** How to compute the alignments: skip the zeros of factor a or b, or multiply densely. */
export type Way = "a" | "b" | "dense";

/** The cheapest way and its cost. */
export interface WayOf {
  readonly way: Way;
  /** Estimated cost, divided by the cost of the dense product. */
  readonly share: number;
}

/** The rows of both factors. `a` and `b` are addresses; a has m columns, b has n. */
export interface Rows {
  readonly a: number;
  readonly b: number;
  readonly m: number;
  readonly n: number;
  readonly rows: number;
}

/**
 * Costs per row in units of one product of the dense way, measured on one core. PACKED: packing an element of either factor, in the dense way. When zeros are
 * skipped, PRODUCT: one product; LISTED: examining one element; MEETING: what a panel of V costs for every 64 elements, beside the products.
 */
const PACKED = 6;
const PRODUCT = 1.1;
const LISTED = 4;
const MEETING = 270;
/** Elements of a mask of nonzeros. */
const MASK = 64;

/** Chooses the cheapest way for these rows, from the share of nonzeros in a sample of them. The ways that skip zeros require that V is finite. */
export function wayOf(runtime: Runtime, { a, b, m, n, rows }: Rows): WayOf {
  if (rows * m * n === 0) return { way: "dense", share: 1 };
  const sampled = Math.min(rows, SKIP_SAMPLE);
  const counts = runtime.workspace(8);
  runtime.launch({
    kernel: "countNonzeros",
    tasks: 2,
    slots: { a, b, counts, rows, m, n, sampled },
    work: sampled * (m + n),
  });
  const [inA = 0, inB = 0] = runtime.words(counts, 2);
  const dense = Math.max(m, n) * Math.ceil(Math.min(m, n) / NR) * NR + PACKED * (m + n);
  const ways: readonly WayOf[] = [
    { way: "a", share: skipping(inA / sampled, m, n) / dense },
    { way: "b", share: skipping(inB / sampled, n, m) / dense },
  ];
  return ways.reduce((best, next) => (next.share < best.share ? next : best), { way: "dense", share: 1 });
}

/** Cost of a row whose factor has `nonzeros` nonzero elements among k; the other factor has `columns` columns. */
function skipping(nonzeros: number, k: number, columns: number): number {
  const padded = columns - lastColumns(columns) + lastPanel(columns);
  const meetings = Math.ceil(columns / SKIP_COLS) * Math.ceil(k / MASK);
  return PRODUCT * nonzeros * padded + LISTED * k + MEETING * meetings;
}

/** Partial sums of each row's alignment with V, in doubles [columnBlocks, rows]. */
export interface Partials {
  readonly at: number;
  readonly columnBlocks: number;
}

/** Computes the partial sums in the given way. Every way but "dense" requires that V is finite. */
export function rowAlignments(runtime: Runtime, of: Rows, v: number, way: Way): Partials {
  const { a, b, m, n, rows } = of;
  if (rows * m * n === 0) return { at: runtime.workspace(8 * Math.max(1, rows)), columnBlocks: 0 };
  if (way === "a") return skip(runtime, { x: a, k: m, y: b, columns: n, rows }, v, true);
  if (way === "b") return skip(runtime, { x: b, k: n, y: a, columns: m, rows }, v, false);
  // The product sums over the wider factor.
  return n >= m
    ? multiply(runtime, { x: b, k: n, y: a, columns: m, rows }, v, false)
    : multiply(runtime, { x: a, k: m, y: b, columns: n, rows }, v, true);
}

/** Operands of ⟨x_r V, y_r⟩ for every row r: x [rows, k] and y [rows, columns], by address. */
interface Product {
  readonly x: number;
  readonly k: number;
  readonly y: number;
  readonly columns: number;
  readonly rows: number;
}

/** Multiplies densely. If `kMajor` is true, V is stored [k, columns], otherwise [columns, k]. */
function multiply(
  runtime: Runtime,
  { x, k, y, columns, rows }: Product,
  v: number,
  kMajor: boolean,
): Partials {
  const rowsPerTask = Math.min(GEMM_ROWS, Math.ceil(rows / MR) * MR);
  const cut = columnsOf(columns, Math.ceil(rows / rowsPerTask), NR, GEMM_COLS);
  const partials = runtime.workspace(8 * cut.columnBlocks * rows);
  runtime.launch({
    kernel: "alignBlock",
    tasks: cut.tasks,
    slots: {
      x: pack(runtime, x, false, rows, k, k, MR),
      v: pack(runtime, v, kMajor, columns, k, kMajor ? columns : k, NR),
      y: pack(runtime, y, true, columns, rows, columns, NR),
      partials,
      rows,
      n: columns,
      k,
      rowsPerTask,
      columnsPerTask: cut.columnsPerTask,
      columnBlocks: cut.columnBlocks,
      pass: Math.ceil(GEMM_K / ALIGN_CHUNK) * ALIGN_CHUNK,
    },
    scratch: 256 + 8 * rowsPerTask,
    work: 2 * rows * k * columns,
  });
  return { at: partials, columnBlocks: cut.columnBlocks };
}

/** Like `multiply`, but skips the zeros of x. */
function skip(runtime: Runtime, { x, k, y, columns, rows }: Product, v: number, kMajor: boolean): Partials {
  const rowsPerTask = Math.min(SKIP_ROWS, rows);
  // Every block makes its own masks, so a block has several panels.
  const cut = columnsOf(columns, Math.ceil(rows / rowsPerTask), SKIP_COLS, 5 * SKIP_COLS);
  // Passes of about equal length, in fours.
  const most = columns <= SKIP_NARROW ? SKIP_NARROW_K : SKIP_K;
  const pass = Math.ceil(k / Math.ceil(k / most) / 4) * 4;
  const partials = runtime.workspace(8 * cut.columnBlocks * rows);
  runtime.launch({
    kernel: "alignNonzeros",
    tasks: cut.tasks,
    slots: {
      x,
      v: packPanelsOf(runtime, v, kMajor, columns, k),
      y,
      partials,
      rows,
      n: columns,
      k,
      rowsPerTask,
      columnsPerTask: cut.columnsPerTask,
      columnBlocks: cut.columnBlocks,
      pass,
    },
    scratch: 4 * SKIP_COLS + rowsPerTask * (16 + 4 * SKIP_COLS + 8 * Math.ceil(pass / MASK)),
    work: 2 * rows * k * columns,
  });
  return { at: partials, columnBlocks: cut.columnBlocks };
}

/** Number of columns in the last panel of V, and of those that it has room for: as many as the kernel takes at once. */
const lastColumns = (columns: number): number => columns - (Math.ceil(columns / SKIP_COLS) - 1) * SKIP_COLS;
const lastPanel = (columns: number): number => Math.ceil(lastColumns(columns) / 16) * 16;

/** Packs V in panels of SKIP_COLS columns, the last of which may have fewer. */
function packPanelsOf(runtime: Runtime, v: number, kMajor: boolean, columns: number, k: number): number {
  const [last, panel] = [lastColumns(columns), lastPanel(columns)];
  const whole = panel === SKIP_COLS ? columns : columns - last;
  const ld = kMajor ? columns : k;
  const to = runtime.workspace(4 * k * (columns - last + panel));
  if (whole > 0) packTo(runtime, to, { from: v, kMajor, width: whole, k, ld, panel: SKIP_COLS, unit: 1 });
  if (whole < columns) {
    const from = v + 4 * whole * (kMajor ? 1 : k);
    packTo(runtime, to + 4 * whole * k, { from, kMajor, width: last, k, ld, panel, unit: 1 });
  }
  return to;
}

/** Blocks of columns, and the tasks that process them. */
interface Cut {
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly tasks: number;
}

/** Cuts the columns into blocks of whole panels, so that there are enough tasks. A block has at least `least` columns. */
function columnsOf(columns: number, rowBlocks: number, panel: number, least: number): Cut {
  const wanted = Math.ceil(TASKS / rowBlocks);
  const columnsPerTask = Math.max(least, Math.ceil(columns / wanted / panel) * panel);
  const columnBlocks = Math.ceil(columns / columnsPerTask);
  return { columnsPerTask, columnBlocks, tasks: rowBlocks * columnBlocks };
}
