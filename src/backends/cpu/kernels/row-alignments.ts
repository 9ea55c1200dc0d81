/**
 * Alignments of segments row by row: ⟨Σ a_r b_rᵀ, V⟩ is the sum of the rows' ⟨a_rᵀ V, b_r⟩ = ⟨V b_r, a_r⟩, one product of all rows with V.
 *
 * Where a factor has many zeros, as the gradients and the values behind a ReLU have, V meets only what is not zero of it (assembly/skip.ts). Otherwise the
 * product is a dense one (assembly/gemm.ts). Shapes and numbers say which costs less, so the choice is the same for any number of threads.
 */
import {
  ALIGN_CHUNK,
  GEMM_COLS,
  GEMM_K,
  GEMM_ROWS,
  SKIP_COLS,
  SKIP_K,
  SKIP_ROWS,
  SKIP_SAMPLE,
  TILE_COLS as NR,
  TILE_ROWS as MR,
} from "../blocks.ts";
import type { Runtime } from "../runtime.ts";
import { pack, TASKS } from "./gemm.ts";

/** The factor of which zeros are skipped, or neither. */
export type Way = "a" | "b" | "dense";

export interface WayOf {
  readonly way: Way;
  /** What it costs, over what the dense product costs. */
  readonly share: number;
}

/** Rows of both factors, by address: a has m columns, b has n. */
export interface Rows {
  readonly a: number;
  readonly b: number;
  readonly m: number;
  readonly n: number;
  readonly rows: number;
}

/**
 * What a row costs, in products of the dense way, measured on one core: packing an element of either factor there; and where zeros are skipped, a product,
 * an element that is listed, and each time a list meets a panel.
 */
const PACKED = 6;
const PRODUCT = 1.1;
const LISTED = 8;
const MEETING = 250;

/** The cheapest way for these rows, if V is finite. */
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

/** What a row costs whose factor has so many elements that are not zero, of k. */
function skipping(nonzeros: number, k: number, columns: number): number {
  const panels = Math.ceil(columns / SKIP_COLS);
  return PRODUCT * nonzeros * panels * SKIP_COLS + LISTED * k + MEETING * panels * Math.ceil(k / SKIP_K);
}

/** Sums of each row's alignment with V, in doubles: one for each block of columns and row. */
export interface Partials {
  readonly at: number;
  readonly columnBlocks: number;
}

/** Computes them in one way or another; in any but the dense way V must be finite. */
export function rowAlignments(runtime: Runtime, of: Rows, v: number, way: Way): Partials {
  const { a, b, m, n, rows } = of;
  if (rows * m * n === 0) return { at: runtime.workspace(8 * Math.max(1, rows)), columnBlocks: 0 };
  if (way === "a") return skip(runtime, { x: a, k: m, y: b, columns: n, rows }, v, true);
  if (way === "b") return skip(runtime, { x: b, k: n, y: a, columns: m, rows }, v, false);
  // The longer factor is summed over.
  return n >= m
    ? multiply(runtime, { x: b, k: n, y: a, columns: m, rows }, v, false)
    : multiply(runtime, { x: a, k: m, y: b, columns: n, rows }, v, true);
}

/** The product of x [rows, k] with V, met with y [rows, columns]. */
interface Product {
  readonly x: number;
  readonly k: number;
  readonly y: number;
  readonly columns: number;
  readonly rows: number;
}

/** `kMajor`: V is [k, columns], else [columns, k]. */
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

/** The same without what x has of zeros. */
function skip(runtime: Runtime, { x, k, y, columns, rows }: Product, v: number, kMajor: boolean): Partials {
  const rowsPerTask = Math.min(SKIP_ROWS, rows);
  // A list is made anew for every block, which costs as much as a panel or two.
  const cut = columnsOf(columns, Math.ceil(rows / rowsPerTask), SKIP_COLS, 8 * SKIP_COLS);
  // Passes of about equal length, in fours.
  const pass = Math.ceil(k / Math.ceil(k / SKIP_K) / 4) * 4;
  const partials = runtime.workspace(8 * cut.columnBlocks * rows);
  runtime.launch({
    kernel: "alignNonzeros",
    tasks: cut.tasks,
    slots: {
      x,
      v: pack(runtime, v, kMajor, columns, k, kMajor ? columns : k, SKIP_COLS),
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
    scratch: 4 * SKIP_COLS + rowsPerTask * (20 + 2 * (4 * pass + 16)),
    work: 2 * rows * k * columns,
  });
  return { at: partials, columnBlocks: cut.columnBlocks };
}

interface Cut {
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly tasks: number;
}

/** Cuts columns into blocks, in whole panels, so that there are tasks enough. */
function columnsOf(columns: number, rowBlocks: number, panel: number, least: number): Cut {
  const wanted = Math.ceil(TASKS / rowBlocks);
  const columnsPerTask = Math.max(least, Math.ceil(columns / wanted / panel) * panel);
  const columnBlocks = Math.ceil(columns / columnsPerTask);
  return { columnsPerTask, columnBlocks, tasks: rowBlocks * columnBlocks };
}
