/** What the launchers share: sizes of operands and cuts of rows into tasks, by shape alone. */
import { TASK_ELEMENTS } from "../blocks.ts";

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
