/** The launcher of matrix products (assembly/gemm.ts). */
import { activations, type KernelParams } from "../../kernels/index.ts";
import {
  GEMM_APART,
  GEMM_COLS,
  GEMM_DIVISION,
  GEMM_K,
  GEMM_LEAST,
  GEMM_NEAR,
  GEMM_PACKED,
  GEMM_ROWS,
  GEMM_SHARED,
  GEMM_TILE_ROWS as MR,
  TILE_COLS as NR,
  TILE_ROWS,
} from "../blocks.ts";
import type { Runtime } from "../runtime.ts";
import type { Launcher } from "./launcher.ts";

/** Least number of tasks of a large product, so that threads finish at about the same time. */
export const TASKS = 16;
/** Least number of rows of A per task: with fewer, reading B would take longer than multiplying. */
const LEAST_ROWS = 2 * MR;

/** What is packed: `width` rows (columns if k-major) of an operand, in panels of `panel`. */
interface Packing {
  readonly from: number;
  readonly kMajor: boolean;
  readonly width: number;
  readonly k: number;
  readonly ld: number;
  readonly panel: number;
  /** A task packs a multiple of this many panels, or just as many of A of a plain product. */
  readonly unit: number;
}

/** Packs an operand into workspace, and returns its address. */
export function pack(
  runtime: Runtime,
  from: number,
  kMajor: boolean,
  width: number,
  k: number,
  ld: number,
  panel: number,
  /** A task packs a multiple of this many panels. The default makes tasks read rows of a k-major operand in pieces of at least 256 bytes. */
  unit: number = kMajor ? 64 / panel : 1,
): number {
  // A of a plain product ends with panels of fewer rows, which need up to two more rows of padding than panels of equal height.
  const padding = panel === MR ? TILE_ROWS : 0;
  const to = runtime.workspace((Math.ceil(width / panel) * panel + padding) * k * 4);
  packTo(runtime, to, { from, kMajor, width, k, ld, panel, unit });
  return to;
}

/** Packs an operand to an address. */
export function packTo(
  runtime: Runtime,
  to: number,
  { from, kMajor, width, k, ld, panel, unit }: Packing,
): void {
  const panels = Math.ceil(width / panel);
  // A task cuts all of its rows into panels of 6 and 4 as `sixes` says, so it must pack just those rows that a task of the product reads.
  const perTask = panel === MR ? unit : Math.ceil(8192 / (unit * panel * Math.max(1, k))) * unit;
  runtime.launch({
    kernel: "packPanels",
    tasks: Math.ceil(panels / perTask),
    slots: {
      from,
      to,
      width,
      k,
      kMajor: kMajor ? 1 : 0,
      panel,
      panelsPerTask: perTask,
      ld,
    },
    work: width * k,
  });
}

/** Addresses of the operands of a product; 0 if an operand is absent. */
interface GemmAddresses {
  readonly a: number;
  readonly b: number;
  readonly bias: number;
  readonly c: number;
  readonly slope: number;
}

export const gemm: Launcher<"gemm"> = (runtime, p, { a, b, bias = null }, { c, slope = null }) =>
  gemmAt(runtime, p, {
    a: runtime.address(a),
    b: runtime.address(b),
    bias: runtime.address(bias),
    c: runtime.address(c),
    slope: runtime.address(slope),
  });

/** How a product is computed: in which parts, and which operands are read in place instead of being packed. */
interface Plan {
  readonly inPlaceA: boolean;
  readonly inPlaceB: boolean;
  /** Rows and columns of a task, and the part of k that it takes at a time. */
  readonly rows: number;
  readonly columns: number;
  readonly pass: number;
}

/** Rows of a task whose products cost as much as reading a column of B, and columns whose products cost as much as reading a row of A in place, or packing it. */
const READ_B = 10;
const READ_A = 6;
const PACK_A = 20;

/** The largest power of two, in bytes, that divides the distance between rows of this many elements. */
const alignment = (elements: number): number => 4 * (elements & -elements);

/**
 * A k-major operand is read in place if its columns are whole tiles. Rows at a distance of a large power of two map to few lines of the cache, so that operand is packed.
 */
function planOf({ m, n, k, transA, transB }: KernelParams["gemm"], width: number, threads: number): Plan {
  const inPlaceA = transA && m % 2 === 0 && alignment(m) <= GEMM_APART;
  const inPlaceB = !transB && n % NR === 0 && alignment(n) <= GEMM_APART;
  const longest = Math.min(
    GEMM_K,
    GEMM_NEAR / Math.max(inPlaceA ? alignment(m) : 1, inPlaceB ? alignment(n) : 1),
  );
  // The passes have about equal length, so that no short one remains.
  const pass = k === 0 ? 1 : Math.ceil(k / Math.ceil(k / longest));
  const division =
    transA && inPlaceB ? evenDivision(m, width, threads, inPlaceA ? READ_A : PACK_A) : rowDivision(m, width);
  return { inPlaceA, inPlaceB, pass, ...division };
}

type Division = Pick<Plan, "rows" | "columns">;

/** With enough rows, only rows are divided, and each task packs its own rows of A in its cache. Otherwise columns are divided too. */
function rowDivision(m: number, width: number): Division {
  const rows = Math.min(GEMM_ROWS, Math.max(LEAST_ROWS, Math.ceil(m / TASKS / MR) * MR));
  const rowBlocks = Math.ceil(m / rows);
  const wanted = 2 * rowBlocks > TASKS ? 1 : Math.ceil(TASKS / rowBlocks);
  return { rows, columns: Math.max(GEMM_COLS, Math.ceil(width / wanted / NR) * NR) };
}

/**
 * If B is read in place, larger tasks read less of it. Of the divisions into tasks of about equal size, this is the one whose threads should finish first. No sum
 * depends on it.
 */
function evenDivision(m: number, width: number, threads: number, readA: number): Division {
  let best: Division = { rows: MR, columns: 2 * NR };
  let least = Infinity;
  for (let high = GEMM_DIVISION; high >= GEMM_LEAST; high /= 2)
    for (let wide = GEMM_DIVISION; wide >= GEMM_LEAST; wide /= 2) {
      const columns = evenly(width, wide, 2 * NR, 1);
      const columnBlocks = Math.ceil(width / columns);
      const rows = evenly(m, high, MR, columnBlocks > 1 ? 1 : threads);
      const rounds = Math.ceil((Math.ceil(m / rows) * columnBlocks) / threads);
      const cost = rounds * (rows * columns + READ_B * columns + readA * rows);
      if (cost >= least) continue;
      least = cost;
      best = { rows, columns };
    }
  return best;
}

/** Returns a multiple of `unit` that cuts `length` into parts of about equal length of at most about `most`; the number of parts is a multiple of `factor`. */
function evenly(length: number, most: number, unit: number, factor: number): number {
  const parts = Math.ceil(length / most / factor) * factor;
  return Math.ceil(length / parts / unit) * unit;
}

/** Launches `gemm` for operands given by address. */
export function gemmAt(
  runtime: Runtime,
  p: KernelParams["gemm"],
  { a: atA, b: atB, bias: atBias, c: atC, slope: atSlope }: GemmAddresses,
): void {
  const { m, n, k } = p;
  if (m === 0 || n === 0) return;
  const lda = p.transA ? m : k;
  const widest = Math.max(NR, Math.floor(GEMM_PACKED / Math.max(1, k) / NR) * NR);
  for (let first = 0; first < n; first += widest) {
    const width = Math.min(widest, n - first);
    const plan = planOf(p, width, runtime.threads);
    const rowBlocks = Math.ceil(m / plan.rows);
    const columnBlocks = Math.ceil(width / plan.columns);
    const share = !plan.inPlaceA && columnBlocks > 1 && m * k <= GEMM_SHARED;
    let b = 0;
    for (let item = 0; item < p.batch; item++) {
      if (item === 0 || p.strideB !== 0) {
        const at = atB + 4 * (item * p.strideB + first * (p.transB ? k : 1));
        b = plan.inPlaceB ? at : pack(runtime, at, !p.transB, width, k, p.transB ? k : n, NR);
      }
      const atItem = atA + 4 * item * p.strideA;
      const offset = 4 * (item * p.strideC + first);
      runtime.launch({
        kernel: "gemmBlock",
        tasks: rowBlocks * columnBlocks,
        slots: {
          a: share ? pack(runtime, atItem, p.transA, m, k, lda, MR, plan.rows / MR) : atItem,
          b,
          c: atC + offset,
          slope: atSlope === 0 ? 0 : atSlope + offset,
          bias: atBias === 0 ? 0 : atBias + 4 * first,
          m,
          n: width,
          k,
          kMajor: p.transA ? 1 : 0,
          lda,
          ldc: n,
          accumulate: p.accumulate ? 1 : 0,
          activation: activations.indexOf(p.activation),
          rowsPerTask: plan.rows,
          columnsPerTask: plan.columns,
          columnBlocks,
          ldb: plan.inPlaceB ? n : 0,
          pass: plan.pass,
          inPlaceA: plan.inPlaceA ? 1 : 0,
          packedA: share ? 1 : 0,
          alpha: p.alpha,
        },
        scratch: 512 + (share || plan.inPlaceA ? 0 : (plan.rows + TILE_ROWS) * plan.pass * 4),
        work: 2 * m * width * k,
      });
    }
  }
}
