/**
 * Where the WebGPU kernels cut their work, but for the tiles of products (gemm-tiled.ts, gemm-tensor.ts, gemm-segmented-tiles.ts) and attention
 * (attention-tiled.ts). The tests take their sizes from here, so that every cut is crossed.
 */

/** Dispatches before a submit: slots of the uniform buffer. */
export const SLOTS = 1024;
/** Workgroups of a row of the grid, the most that WebGPU promises. */
export const GRID_GROUPS = 65535;

/** Invocations of a row of numbers. */
export const ROW_LANES = 128;
/** Elements of a partial sum of `dot` and `sumSquares`. */
export const DOT_SHARE = 16384;
/** Rows to reduce are worth a workgroup from so many elements on, and are cut into parts of so many. */
export const REDUCE_ROW = 64;
export const REDUCE_PART = 4096;

/** Columns and lanes of a workgroup that sums columns of segments. */
export const COLUMN_WIDTH = 64;
export const COLUMN_LANES = 4;
/** Rows of a part of a segment, at least; segments that are shorter on average than the second number are not worth lanes. */
export const COLUMN_ROWS = 256;
export const COLUMN_SHORT = 8;

/** Elements that an invocation of `cumsum` adds up; longer axes go in blocks of so many. */
export const SCAN_BLOCK = 1024;

/** Positions of a table of angles, at least; tables of later positions begin at multiples. */
export const ROPE_BLOCK = 1024;

/** The least share of k of a product that is worth its own sum. */
export const GEMM_SHARE = 512;

/** Invocations that add up what the blocks of a segmented weight gradient found of a segment. */
export const SEGMENT_LANES = 16;

/** Scores that `nearest` holds at once. */
export const NEAREST_SCORES = 1048576;
