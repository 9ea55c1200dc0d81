/**
 * Sizes of the tiles, passes and tasks of the CPU kernels. The launchers and the kernels in assembly/ both import these numbers, so this file is also
 * AssemblyScript: plain integer constants only. The tests take their sizes from here, so that some case crosses every boundary.
 */

/** Rows and columns of the register tile of an aligned product, and of the last rows of a plain product. */
export const TILE_ROWS = 4;
export const TILE_COLS = 8;
/** Rows of the register tile of a plain product. */
export const GEMM_TILE_ROWS = 6;
/** Rows of A per task of a product (a multiple of GEMM_TILE_ROWS), and the largest k per pass: 96·512 floats stay in the second-level cache, the panels of a tile in the first. */
export const GEMM_ROWS = 96;
export const GEMM_K = 512;
/** Least number of columns of a task of a product. */
export const GEMM_COLS = 64;
/** Largest number of elements of packed B (32 MiB); wider products run in column ranges. */
export const GEMM_PACKED = 8388608;
/** Largest number of elements of A (64 MiB) that is packed once for all tasks, if several tasks would otherwise pack the same rows. */
export const GEMM_SHARED = 16777216;
/**
 * Operands of a product that are read in place: the largest power of two, in bytes, that may divide the distance between rows; the largest product of k per pass and of
 * that power; the largest and the least number of rows and of columns of a task.
 */
export const GEMM_APART = 512;
export const GEMM_NEAR = 131072;
export const GEMM_DIVISION = 96;
export const GEMM_LEAST = 12;
/** Rows and columns of the tile of the segmented weight gradient; rows of a segment that are multiplied at a time. */
export const SEGMENTED_TILE_ROWS = 6;
export const SEGMENTED_TILE_COLS = 16;
export const SEGMENTED_CHUNK = 256;
/** Largest rows and columns of a task of the segmented weight gradient: its blocks of V, of the total and of the group stay in the second-level cache. */
export const SEGMENTED_ROWS = 96;
export const SEGMENTED_COLS = 96;
/** A product of fewer tasks than this has tasks half as large. */
export const SEGMENTED_TASKS = 8;
/** Largest product of the rows of a chunk and of the power of two, in bytes, that divides their distance, with which an operand is read in place. */
export const SEGMENTED_NEAR = 32768;
/** Products of a row's alignment that are summed in f32 before doubles take over. */
export const ALIGN_CHUNK = 64;
/**
 * For alignments that skip zeros: rows per task, columns whose sums are in registers together, and products per pass. 48·128 floats of V stay in the first-level
 * cache. If there are at most SKIP_NARROW columns, a pass has SKIP_NARROW_K products.
 */
export const SKIP_ROWS = 32;
export const SKIP_COLS = 48;
export const SKIP_K = 128;
export const SKIP_NARROW = 16;
export const SKIP_NARROW_K = 256;
/** Number of rows of a factor whose zeros are counted, to estimate the share of zeros. */
export const SKIP_SAMPLE = 16;

/** Queries per strip of attention; queries and keys per block of its vjp; least number of queries of a part of a head. */
export const ATTENTION_STRIP = 4;
export const ATTENTION_QUERIES = 32;
export const ATTENTION_KEYS = 128;
export const ATTENTION_PART = 64;
/** Largest window, in bytes of its queries, keys and values, that attention brings into the second-level cache as a whole. */
export const ATTENTION_NEAR = 262144;

/** Elements per task of most kernels: enough to hide the cost of taking a task, few enough to divide a launch evenly. */
export const TASK_ELEMENTS = 16384;
/** Elements per task of `fill`. */
export const FILL_ELEMENTS = 65536;
/** Elements per partial sum of `dot` and `sumSquares`. */
export const DOT_ELEMENTS = 32768;
/** Chunk of a long f32 sum: elements of a row, or rows of a column. */
export const SUM_ELEMENTS = 2048;
export const SUM_ROWS = 64;

/** Number of ranges of a table's rows in `scatterAdd`. Each range reads all ids, so there are few. */
export const TABLE_RANGES = 16;
/** Digit of the radix sort of `embeddingAlign`: its bits, and its number of values, 2^SORT_BITS. */
export const SORT_BITS = 11;
export const SORT_VALUES = 2048;
/** Largest number of rows of a segment that are sorted by insertion instead. */
export const SORT_FEW = 96;

/** Rows per task of `nearest`, and candidates that are kept for each row before they are scored. */
export const NEAREST_ROWS = 96;
export const NEAREST_KEPT = 32;
/** Number of steps of four bytes each that are summed in 16 bits. */
export const NEAREST_STEPS = 16;
/** Largest width at which scores are screened in bytes, if relaxed SIMD is available. The bytes of longer rows are too coarse. */
export const NEAREST_NARROW = 1024;
