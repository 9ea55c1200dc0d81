/** Helpers of the launchers: sizes of operands and the division of rows into tasks, by shape alone. */
import { TASK_ELEMENTS } from "../blocks.ts";

/** Returns the number of rows per task, for rows of `width` elements. */
export function rowsPerTask(width: number, perTask: number = TASK_ELEMENTS): number {
  return Math.max(1, Math.floor(perTask / Math.max(1, width)));
}

/** Returns the number of columns per task (a multiple of 16, or 64 bytes), if each column is a long sum. */
export function columnsPerTask(width: number): number {
  return Math.max(32, Math.ceil(width / 16 / 16) * 16);
}

/** Like `columnsPerTask`, for columns that are summed by segment: whole rows if there are enough segments, since each sum is short. */
export function segmentColumnsPerTask(width: number, segmentCount: number): number {
  return segmentCount < 16 ? columnsPerTask(width) : Math.max(32, width);
}
