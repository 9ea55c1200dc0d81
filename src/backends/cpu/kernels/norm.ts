/** Launchers of LayerNorm and RMSNorm (assembly/norm.ts; the gain's gradient in assembly/reduce.ts). */
import type { Launchers } from "./launcher.ts";
import { segmentColumnsPerTask, rowsPerTask } from "./views.ts";

export const norm: Pick<Launchers, "norm" | "normVjp" | "normJvp" | "normGainGrad"> = {
  norm(runtime, { kind, rows, width, eps }, { x, gain, bias }, { y, stats }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "norm",
      tasks: Math.ceil(rows / perTask),
      ints: [
        ...[x, gain, bias, y, stats].map((view) => runtime.address(view)),
        ...[rows, perTask, width, kind === "layer" ? 1 : 0],
      ],
      floats: [eps],
      work: rows * width * 3,
    });
  },

  normVjp(runtime, { kind, rows, width }, { x, gain, stats, dy }, { dx }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "normVjp",
      tasks: Math.ceil(rows / perTask),
      ints: [
        ...[x, gain, stats, dy, dx].map((view) => runtime.address(view)),
        ...[rows, perTask, width, kind === "layer" ? 1 : 0],
      ],
      work: rows * width * 4,
    });
  },

  normJvp(runtime, { kind, rows, width }, { x, gain, stats, dx, dgain, dbias }, { dy }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "normJvp",
      tasks: Math.ceil(rows / perTask),
      ints: [
        ...[x, gain, stats, dx, dgain, dbias, dy].map((view) => runtime.address(view)),
        ...[rows, perTask, width, kind === "layer" ? 1 : 0],
      ],
      work: rows * width * 4,
    });
  },

  normGainGrad(runtime, { rows, width, segmentCount, accumulate }, { x, stats, dy, segments }, { dgain }) {
    const perTask = segmentColumnsPerTask(width, segmentCount);
    const blocks = Math.ceil(width / perTask);
    runtime.launch({
      kernel: "segmentColumns",
      tasks: segmentCount * blocks,
      ints: [
        ...[x, dy, stats, segments, dgain].map((view) => runtime.address(view)),
        ...[segmentCount, width, perTask, blocks, accumulate ? 1 : 0],
      ],
      work: rows * width * 2,
    });
  },
};
