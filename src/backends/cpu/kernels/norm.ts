/** Launchers of LayerNorm and RMSNorm (assembly/norm.ts; the gain's gradient in assembly/reduce.ts). */
import type { Launchers } from "./launcher.ts";
import { segmentTasks, rowsPerTask } from "./views.ts";

export const norm: Pick<Launchers, "norm" | "normVjp" | "normJvp" | "normGainGrad"> = {
  norm(runtime, { kind, rows, width, eps }, { x, gain, bias, residual }, { y, stats, sum }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "norm",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        gain: runtime.address(gain),
        bias: runtime.address(bias),
        residual: runtime.address(residual),
        y: runtime.address(y),
        stats: runtime.address(stats),
        sum: runtime.address(sum),
        rows,
        rowsPerTask: perTask,
        width,
        layer: kind === "layer" ? 1 : 0,
        eps,
      },
      work: rows * width * 3,
    });
  },

  normVjp(runtime, { kind, rows, width }, { x, gain, stats, dy, also }, { dx }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "normVjp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        gain: runtime.address(gain),
        stats: runtime.address(stats),
        dy: runtime.address(dy),
        also: runtime.address(also),
        dx: runtime.address(dx),
        rows,
        rowsPerTask: perTask,
        width,
        layer: kind === "layer" ? 1 : 0,
      },
      work: rows * width * 4,
    });
  },

  normJvp(runtime, { kind, rows, width }, { x, gain, stats, dx, dgain, dbias }, { dy }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "normJvp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        gain: runtime.address(gain),
        stats: runtime.address(stats),
        dx: runtime.address(dx),
        dgain: runtime.address(dgain),
        dbias: runtime.address(dbias),
        dy: runtime.address(dy),
        rows,
        rowsPerTask: perTask,
        width,
        layer: kind === "layer" ? 1 : 0,
      },
      work: rows * width * 4,
    });
  },

  normGainGrad(
    runtime,
    { rows, width, segmentCount, outStride, accumulate },
    { x, stats, dy, segments },
    { dgain },
  ) {
    const {
      tasks,
      segmentsPerTask,
      columnsPerTask: perTask,
      columnBlocks,
    } = segmentTasks(rows, width, segmentCount);
    runtime.launch({
      kernel: "segmentColumns",
      tasks,
      slots: {
        x: runtime.address(x),
        y: runtime.address(dy),
        stats: runtime.address(stats),
        segments: runtime.address(segments),
        out: runtime.address(dgain),
        segmentCount,
        segmentsPerTask,
        width,
        outStride,
        columnsPerTask: perTask,
        columnBlocks,
        accumulate: accumulate ? 1 : 0,
      },
      work: rows * width * 2,
    });
  },
};
