/**
 * Sizes of the blocks of the WebGPU kernels, except the tiles of products (gemm-tiled.ts, gemm-tensor.ts, gemm-segmented-tiles.ts) and of attention
 * (attention-tiled.ts). The tests take their sizes from here, so that some case crosses every boundary.
 */

/** Largest number of dispatches per submit: slots of the uniform buffer. */
export const SLOTS = 1024;
/** Workgroups per row of the grid: the largest number that WebGPU guarantees. */
export const GRID_GROUPS = 65535;

/** Invocations that process a row together. */
export const ROW_LANES = 128;
/** Elements per partial sum of `dot` and `sumSquares`. */
export const DOT_SHARE = 16384;
/** Least number of elements of a row that a workgroup reduces, and number of elements of the parts of long rows. */
export const REDUCE_ROW = 64;
export const REDUCE_PART = 4096;

/** Columns and lanes of a workgroup that sums the columns of segments. */
export const COLUMN_WIDTH = 64;
export const COLUMN_LANES = 4;
/** Least number of rows of a part of a segment, and the least average number of rows per segment for which lanes are used. */
export const COLUMN_ROWS = 256;
export const COLUMN_SHORT = 8;

/** Elements that one invocation of `cumsum` sums; longer axes are divided into blocks of this size. */
export const SCAN_BLOCK = 1024;

/** Least number of positions of a table of angles; tables of later positions begin at multiples of it. */
export const ROPE_BLOCK = 1024;

/** Least share of a product's k that is summed separately. */
export const GEMM_SHARE = 512;

/** Invocations that sum the partial results of the blocks of a segmented weight gradient for one segment. */
export const SEGMENT_LANES = 16;

/** Number of scores that `nearest` stores at once. */
export const NEAREST_SCORES = 1048576;
