/** What the launchers share: sizes of operands and cuts of rows into tasks, by shape alone. */
import type { View } from "../../../tensor/memory.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { TASK_ELEMENTS } from "../blocks.ts";

/** Elements of an operand; 0 when it is left out. */
export function elements(view: View | null): number {
  return view === null ? 0 : sizeOf(view.shape);
}

/** Rows a task when rows have `width` elements. */
export function rowsPerTask(width: number, perTask: number = TASK_ELEMENTS): number {
  return Math.max(1, Math.floor(perTask / Math.max(1, width)));
}

/** Columns a task (a multiple of 16, 64 bytes) when each column is a long sum. */
export function columnsPerTask(width: number): number {
  return Math.max(32, Math.ceil(width / 16 / 16) * 16);
}

/** The same where the columns are summed by segment: whole rows where there are segments enough, since each is a short sum. */
export function segmentColumnsPerTask(width: number, segmentCount: number): number {
  return segmentCount < 16 ? columnsPerTask(width) : Math.max(32, width);
}
