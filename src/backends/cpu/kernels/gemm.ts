/** The launcher of matrix products (assembly/gemm.ts). */
import { activations, type KernelParams } from "../../kernels/index.ts";
import {
  GEMM_COLS,
  GEMM_K,
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

/** Launches `gemm` for operands given by address. */
export function gemmAt(
  runtime: Runtime,
  p: KernelParams["gemm"],
  { a: atA, b: atB, bias: atBias, c: atC, slope: atSlope }: GemmAddresses,
): void {
  const { m, n, k } = p;
  if (m === 0 || n === 0) return;
  const lda = p.transA ? m : k;
  const columns = Math.max(NR, Math.floor(GEMM_PACKED / Math.max(1, k) / NR) * NR);
  for (let first = 0; first < n; first += columns) {
    const width = Math.min(columns, n - first);
    let packed = 0;
    for (let item = 0; item < p.batch; item++) {
      if (item === 0 || p.strideB !== 0) {
        const at = atB + 4 * (item * p.strideB + first * (p.transB ? k : 1));
        packed = pack(runtime, at, !p.transB, width, k, p.transB ? k : n, NR);
      }
      // With enough rows, only rows are divided, and each task packs its own rows of A in its cache. Otherwise columns are divided too, and A is packed once for all tasks.
      const rows = Math.min(GEMM_ROWS, Math.max(LEAST_ROWS, Math.ceil(m / TASKS / MR) * MR));
      const rowBlocks = Math.ceil(m / rows);
      const wanted = 2 * rowBlocks > TASKS ? 1 : Math.ceil(TASKS / rowBlocks);
      const block = Math.max(GEMM_COLS, Math.ceil(width / wanted / NR) * NR);
      const columnBlocks = Math.ceil(width / block);
      const offset = 4 * (item * p.strideC + first);
      // The passes have about equal length, so that no short one remains.
      const pass = k === 0 ? 1 : Math.ceil(k / Math.ceil(k / GEMM_K));
      const atItem = atA + 4 * item * p.strideA;
      const share = columnBlocks > 1 && m * k <= GEMM_SHARED;
      runtime.launch({
        kernel: "gemmBlock",
        tasks: rowBlocks * columnBlocks,
        slots: {
          a: share ? pack(runtime, atItem, p.transA, m, k, lda, MR, rows / MR) : atItem,
          b: packed,
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
          rowsPerTask: rows,
          columnsPerTask: block,
          columnBlocks,
          pass,
          packedA: share ? 1 : 0,
          alpha: p.alpha,
        },
        scratch: 512 + (share ? 0 : (rows + TILE_ROWS) * pass * 4),
        work: 2 * m * width * k,
      });
    }
  }
}
