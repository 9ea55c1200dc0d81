/** The launcher of the largest score of each row (assembly/nearest.ts). */
import { NEAREST_KEPT, NEAREST_ROWS, TILE_COLS, TILE_ROWS } from "../blocks.ts";
import type { Launchers } from "./launcher.ts";

/** Bytes of the data that are kept per panel of columns, and of the state of a row. */
const COLUMNS = 4 * 32 + 16;
const ROW = 40 + NEAREST_KEPT * 8;

export const nearest: Pick<Launchers, "nearest"> = {
  nearest(runtime, { rows, count, width }, { x, y, bias = null }, { ids, scores }) {
    if (rows === 0) return;
    const panels = Math.ceil(count / TILE_COLS);
    // Room for pairs of 16-bit numbers. Bytes, with the offsets of their blocks' sums, take less, except for the narrowest rows.
    const pairs = Math.ceil(width / 2) + 1;
    const packed = runtime.workspace(panels * pairs * 32);
    const columns = runtime.workspace(panels * COLUMNS);
    const flag = runtime.integers([0]);
    const [atX, atY, atBias] = [runtime.address(x), runtime.address(y), runtime.address(bias)];
    const perTask = Math.max(1, Math.ceil(1024 / Math.max(1, width)));
    runtime.launch({
      kernel: "nearestPack",
      tasks: Math.ceil(panels / perTask),
      slots: {
        y: atY,
        bias: atBias,
        panels: packed,
        columns,
        count,
        width,
        panelsPerTask: perTask,
        unbounded: flag,
      },
      work: count * width * 4,
    });
    const blocks = NEAREST_ROWS / TILE_ROWS;
    runtime.launch({
      kernel: "nearest",
      tasks: Math.ceil(rows / NEAREST_ROWS),
      slots: {
        x: atX,
        panels: packed,
        columns,
        y: atY,
        bias: atBias,
        ids: runtime.address(ids),
        scores: runtime.address(scores),
        rows,
        width,
        count,
        rowsPerTask: NEAREST_ROWS,
        unbounded: flag,
      },
      scratch: 256 + blocks * pairs * 16 + NEAREST_ROWS * ROW,
      work: 2 * rows * count * width,
    });
  },
};
