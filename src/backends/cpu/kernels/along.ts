/** Launchers of the kernels along an axis (assembly/along.ts). */
import { TASK_ELEMENTS } from "../blocks.ts";
import type { Launchers } from "./launcher.ts";
import { columnsPerTask, rowsPerTask } from "./views.ts";

/** How [outer, length, inner] is divided: some outer rows per task or, if inner is long, a block of columns of one. */
function cutColumns(
  outer: number,
  length: number,
  inner: number,
): { rows: number; columns: number; blocks: number; tasks: number } {
  const columns = columnsPerTask(inner);
  const blocks = Math.ceil(inner / columns);
  const rows = blocks > 1 ? 1 : rowsPerTask(length * inner);
  return { rows, columns, blocks, tasks: Math.ceil(outer / rows) * blocks };
}

export const along: Pick<Launchers, "cumsum" | "topk" | "takeAlong" | "scatterAddAlong"> = {
  cumsum(runtime, { outer, length, inner, reverse }, { x }, { y }) {
    const cut = cutColumns(outer, length, inner);
    runtime.launch({
      kernel: "cumsum",
      tasks: cut.tasks,
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        outer,
        outerPerTask: cut.rows,
        length,
        inner,
        columnsPerTask: cut.columns,
        columnBlocks: cut.blocks,
        reverse: reverse ? 1 : 0,
      },
      work: outer * length * inner * 2,
    });
  },

  topk(runtime, { outer, length, inner, k }, { x }, { indices }) {
    if (k === 0) return;
    const rows = outer * inner;
    const perTask = rowsPerTask(length);
    runtime.launch({
      kernel: "topk",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        indices: runtime.address(indices),
        rows,
        rowsPerTask: perTask,
        length,
        inner,
        k,
      },
      scratch: 8 * k,
      work: rows * length * 2,
    });
  },

  takeAlong(runtime, { outer, length, inner, count }, { x, indices }, { out }) {
    const size = outer * count * inner;
    runtime.launch({
      kernel: "takeAlong",
      tasks: Math.ceil(size / TASK_ELEMENTS),
      slots: {
        x: runtime.address(x),
        indices: runtime.address(indices),
        out: runtime.address(out),
        elements: size,
        elementsPerTask: TASK_ELEMENTS,
        length,
        inner,
        count,
      },
      work: size,
    });
  },

  scatterAddAlong(runtime, { outer, length, inner, count }, { y, indices }, { out }) {
    const cut = cutColumns(outer, Math.max(length, count), inner);
    runtime.launch({
      kernel: "scatterAddAlong",
      tasks: cut.tasks,
      slots: {
        y: runtime.address(y),
        indices: runtime.address(indices),
        out: runtime.address(out),
        outer,
        outerPerTask: cut.rows,
        length,
        inner,
        count,
        columnsPerTask: cut.columns,
        columnBlocks: cut.blocks,
      },
      work: outer * (length + count) * inner,
    });
  },
};
