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

/** How sums of columns by segment are divided into tasks. */
interface SegmentCut {
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly segmentsPerTask: number;
  readonly tasks: number;
}

/** Whole rows if there are enough segments, since each is a short sum; then as many segments per task as have about TASK_ELEMENTS elements. */
export function segmentTasks(rows: number, width: number, segmentCount: number): SegmentCut {
  const columns = segmentCount < 16 ? columnsPerTask(width) : Math.max(32, width);
  const columnBlocks = Math.ceil(width / columns);
  const elements = (rows * Math.min(columns, width)) / Math.max(1, segmentCount);
  const segments = rowsPerTask(elements);
  return {
    columnsPerTask: columns,
    columnBlocks,
    segmentsPerTask: segments,
    tasks: Math.ceil(segmentCount / segments) * columnBlocks,
  };
}
