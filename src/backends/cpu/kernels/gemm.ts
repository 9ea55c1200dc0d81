/** Launchers of the matrix products (assembly/gemm.ts). */
import { activations } from "../../kernels.ts";
import {
  GEMM_COLS,
  GEMM_K,
  GEMM_PACKED,
  GEMM_ROWS,
  GEMM_SHARED,
  SEGMENTED_COLS,
  SEGMENTED_ROWS,
  TILE_COLS as NR,
  TILE_ROWS as MR,
} from "../blocks.ts";
import type { Runtime } from "../runtime.ts";
import type { Launcher } from "./launcher.ts";

/** Tasks wanted for a large product, so that threads end together. */
const TASKS = 16;

function pack(
  runtime: Runtime,
  from: number,
  kMajor: boolean,
  width: number,
  k: number,
  ld: number,
  panel: number,
): number {
  const panels = Math.ceil(width / panel);
  const to = runtime.workspace(panels * panel * k * 4);
  // Rows of a k-major operand are read in pieces of at least 256 bytes.
  const perTask = Math.max(kMajor ? 64 / panel : 1, Math.ceil(8192 / (panel * Math.max(1, k))));
  runtime.launch({
    kernel: "packPanels",
    tasks: Math.ceil(panels / perTask),
    ints: [from, to, width, k, kMajor ? 1 : 0, panel, perTask, ld],
    work: width * k,
  });
  return to;
}

export const gemm: Launcher<"gemm"> = (runtime, p, [a, b, bias], [c, pre]) => {
  const { m, n, k } = p;
  if (m === 0 || n === 0) return;
  const atA = runtime.address(a);
  const atB = runtime.address(b);
  const atC = runtime.address(c);
  const atPre = runtime.address(pre);
  const atBias = runtime.address(bias);
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
      const rows = Math.min(GEMM_ROWS, Math.ceil(m / MR) * MR);
      const rowBlocks = Math.ceil(m / rows);
      const wanted = Math.max(1, Math.ceil(TASKS / rowBlocks));
      const block = Math.max(GEMM_COLS, Math.ceil(width / wanted / NR) * NR);
      const columnBlocks = Math.ceil(width / block);
      const offset = 4 * (item * p.strideC + first);
      // Passes of about equal length, so that none is a short rest.
      const pass = k === 0 ? 1 : Math.ceil(k / Math.ceil(k / GEMM_K));
      const atItem = atA + 4 * item * p.strideA;
      const share = columnBlocks > 1 && m * k <= GEMM_SHARED;
      runtime.launch({
        kernel: "gemmBlock",
        tasks: rowBlocks * columnBlocks,
        ints: [
          share ? pack(runtime, atItem, p.transA, m, k, lda, MR) : atItem,
          packed,
          atC + offset,
          atPre === 0 ? 0 : atPre + offset,
          atBias === 0 ? 0 : atBias + 4 * first,
          m,
          width,
          k,
          p.transA ? 1 : 0,
          lda,
          n,
          p.accumulate ? 1 : 0,
          activations.indexOf(p.activation),
          rows,
          block,
          columnBlocks,
          pass,
          share ? 1 : 0,
        ],
        floats: [p.alpha],
        scratch: 256 + (share ? 0 : (rows + MR) * pass * 4),
        work: 2 * m * width * k,
      });
    }
  }
};

/** Panels of a task's block of the weight. */
const BLOCK_PANELS_A = SEGMENTED_ROWS / MR;
const BLOCK_PANELS_B = SEGMENTED_COLS / NR;

export const gemmSegmented: Launcher<"gemmSegmented"> = (
  runtime,
  p,
  [a, b, segments, groups, v],
  [total, dots, sumsq, groupSumsq, vSumsq],
) => {
  const { rows, m, n, segmentCount, groupCount } = p;
  const packedA = pack(runtime, runtime.address(a), true, m, rows, m, MR);
  const packedB = pack(runtime, runtime.address(b), true, n, rows, n, NR);
  const rowBlocks = Math.ceil(Math.ceil(m / MR) / BLOCK_PANELS_A);
  const columnBlocks = Math.ceil(Math.ceil(n / NR) / BLOCK_PANELS_B);
  const tasks = rowBlocks * columnBlocks;
  const block = BLOCK_PANELS_A * BLOCK_PANELS_B * MR * NR * 4;
  const partials = runtime.workspace(Math.max(1, tasks) * (2 * segmentCount + groupCount + 1) * 8);
  runtime.launch({
    kernel: "segmentedBlock",
    tasks,
    ints: [
      packedA,
      packedB,
      runtime.address(segments),
      runtime.address(groups),
      runtime.address(v),
      runtime.address(total),
      partials,
      rows,
      m,
      n,
      segmentCount,
      groups === null ? 0 : groupCount,
      p.targetSegments,
      p.firstAccumulated,
      p.accumulate ? 1 : 0,
      BLOCK_PANELS_A,
      BLOCK_PANELS_B,
      columnBlocks,
      block,
    ],
    scratch: 256 + 3 * block,
    work: 2 * rows * m * n,
  });
  runtime.launch({
    kernel: "segmentedReduce",
    tasks: 1,
    ints: [
      partials,
      tasks,
      segmentCount,
      groups === null ? 0 : groupCount,
      runtime.address(dots),
      runtime.address(sumsq),
      runtime.address(groupSumsq),
      runtime.address(vSumsq),
    ],
    work: 0,
  });
};
