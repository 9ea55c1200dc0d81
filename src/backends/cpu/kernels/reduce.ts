/** Launchers of the reductions (assembly/reduce.ts). */
import type { View } from "../../../tensor/memory.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { reduceKinds } from "../../kernels/index.ts";
import type { Runtime } from "../runtime.ts";
import { DOT_ELEMENTS as PARTIAL } from "../blocks.ts";
import type { Launchers } from "./launcher.ts";
import { columnsPerTask, rowsPerTask, segmentTasks } from "./views.ts";

function dot(runtime: Runtime, x: View, y: View, out: View): void {
  dotAt(runtime, sizeOf(x.shape), [runtime.address(x), runtime.address(y)], runtime.address(out));
}

/** Computes ⟨x, y⟩ of `count` elements at two addresses and writes it to `out`. */
export function dotAt(runtime: Runtime, count: number, [x, y]: readonly [number, number], out: number): void {
  const tasks = Math.ceil(count / PARTIAL);
  const partials = runtime.workspace(8 * Math.max(1, tasks));
  runtime.launch({
    kernel: "dotPartials",
    tasks,
    slots: {
      x,
      y,
      partials,
      elements: count,
      elementsPerTask: PARTIAL,
    },
    work: count * 2,
  });
  runtime.launch({
    kernel: "dotTotal",
    tasks: 1,
    slots: {
      partials,
      count: tasks,
      out,
    },
    work: tasks,
  });
}

export const reduce: Pick<Launchers, "reduce" | "segmentSum" | "alignRows" | "sumSquares" | "dot"> = {
  reduce(runtime, { kind, outer, length, inner }, { x }, { y }) {
    const work = outer * length * inner;
    if (inner === 1) {
      const perTask = rowsPerTask(length);
      runtime.launch({
        kernel: "reduceRows",
        tasks: Math.ceil(outer / perTask),
        slots: {
          x: runtime.address(x),
          y: runtime.address(y),
          rows: outer,
          rowsPerTask: perTask,
          length,
          kind: reduceKinds.indexOf(kind),
        },
        work,
      });
      return;
    }
    const perTask = columnsPerTask(inner);
    const blocks = Math.ceil(inner / perTask);
    runtime.launch({
      kernel: "reduceColumns",
      tasks: outer * blocks,
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        outer,
        length,
        inner,
        columnsPerTask: perTask,
        columnBlocks: blocks,
        kind: reduceKinds.indexOf(kind),
      },
      work,
    });
  },

  segmentSum(
    runtime,
    { rows, width, segmentCount, outStride, accumulate },
    { x, y = null, segments },
    { out },
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
        y: runtime.address(y),
        stats: 0,
        segments: runtime.address(segments),
        out: runtime.address(out),
        segmentCount,
        segmentsPerTask,
        width,
        outStride,
        columnsPerTask: perTask,
        columnBlocks,
        accumulate: accumulate ? 1 : 0,
      },
      work: rows * width,
    });
  },

  alignRows(runtime, { rows, width }, { g, v }, { dots, sumsq }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "alignRows",
      tasks: Math.ceil(rows / perTask),
      slots: {
        g: runtime.address(g),
        v: runtime.address(v),
        dots: runtime.address(dots),
        sumsq: runtime.address(sumsq),
        rows,
        rowsPerTask: perTask,
        width,
      },
      work: rows * width * 4,
    });
  },

  sumSquares: (runtime, _params, { x }, { out }) => dot(runtime, x, x, out),

  dot: (runtime, _params, { x, y }, { out }) => dot(runtime, x, y, out),
};
