/** Launchers of the embedding kernels (assembly/table.ts). */
import { SORT_VALUES, TABLE_RANGES } from "../blocks.ts";
import type { Launchers } from "./launcher.ts";
import { rowsPerTask } from "./views.ts";

/** Bytes of the radix sort's counters. */
const COUNTERS = 4 * SORT_VALUES;

export const table: Pick<Launchers, "gather" | "scatterAdd" | "embeddingAlign"> = {
  gather(runtime, { rows, width, tableRows }, { table: source, ids }, { out }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "gather",
      tasks: Math.ceil(rows / perTask),
      slots: {
        table: runtime.address(source),
        ids: runtime.address(ids),
        out: runtime.address(out),
        rows,
        rowsPerTask: perTask,
        width,
        tableRows,
      },
      work: rows * width,
    });
  },

  scatterAdd(runtime, { rows, width, tableRows, accumulate }, { x, ids }, { out }) {
    const perTask = Math.max(1, Math.ceil(tableRows / TABLE_RANGES));
    runtime.launch({
      kernel: "scatterAdd",
      tasks: Math.ceil(tableRows / perTask),
      slots: {
        x: runtime.address(x),
        ids: runtime.address(ids),
        out: runtime.address(out),
        rows,
        width,
        tableRows,
        tableRowsPerTask: perTask,
        accumulate: accumulate ? 1 : 0,
      },
      work: (rows + (accumulate ? 0 : tableRows)) * width,
    });
  },

  embeddingAlign(
    runtime,
    { rows, width, tableRows, segmentCount, groupCount },
    { dy, ids, segments, groups, v },
    { dots, sumsq, groupSumsq = null },
  ) {
    const grouped = groupSumsq === null ? 0 : groupCount;
    runtime.launch({
      kernel: "embeddingAlign",
      tasks: segmentCount + grouped,
      slots: {
        dy: runtime.address(dy),
        ids: runtime.address(ids),
        segments: runtime.address(segments),
        groups: runtime.address(groups),
        v: runtime.address(v),
        dots: runtime.address(dots),
        sumsq: runtime.address(sumsq),
        groupSumsq: runtime.address(groupSumsq),
        width,
        tableRows,
        segmentCount,
      },
      scratch: COUNTERS + 16 * rows,
      work: rows * width * 4,
    });
  },
};
