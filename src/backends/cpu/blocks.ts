/**
 * Where the cpu's kernels cut their work: tiles, passes, tasks. The launchers and the kernels in assembly/ both import these numbers, so this file is also
 * AssemblyScript: plain integer constants only. The tests take their sizes from here, so that every cut is crossed.
 */

/** Rows and columns of the register tile of a product with a segmented or aligned operand, or at the end of the rows of a plain one. */
export const TILE_ROWS = 4;
export const TILE_COLS = 8;
/** Rows of the register tile of a plain product. */
export const GEMM_TILE_ROWS = 6;
/** Rows of A in a task of a product, a multiple of GEMM_TILE_ROWS, and k a pass at most: 96·512 floats stay in the second-level cache, the panels of a tile in the first. */
export const GEMM_ROWS = 96;
export const GEMM_K = 512;
/** Columns of a task of a product, at least. */
export const GEMM_COLS = 64;
/** Packed B holds at most this many elements (32 MiB); wider products run in column ranges. */
export const GEMM_PACKED = 8388608;
/** A of up to this many elements (64 MiB) is packed once for all tasks where several would pack the same rows. */
export const GEMM_SHARED = 16777216;
/** Rows and columns of a task of the segmented weight gradient, so that its blocks of V, total and group stay in the second-level cache. */
export const SEGMENTED_ROWS = 48;
export const SEGMENTED_COLS = 96;
/** Products of a row's alignment that are summed in f32 before doubles take over. */
export const ALIGN_CHUNK = 64;
/** Rows of a task of alignments that skip zeros, columns whose sums are in registers together, and products of a pass: 32·128 floats of V and the lists of a row stay in the first-level cache. */
export const SKIP_ROWS = 32;
export const SKIP_COLS = 32;
export const SKIP_K = 128;
/** Rows of a factor whose zeros are counted to estimate how many it has. */
export const SKIP_SAMPLE = 16;

/** Queries of a strip of attention; queries and keys of a block of its vjp; queries of a part of a head, at least. */
export const ATTENTION_STRIP = 4;
export const ATTENTION_QUERIES = 32;
export const ATTENTION_KEYS = 128;
export const ATTENTION_PART = 64;

/** Elements of a task of most kernels: enough to hide what taking a task costs, few enough to share a launch evenly. */
export const TASK_ELEMENTS = 16384;
/** Elements of a task of `fill`. */
export const FILL_ELEMENTS = 65536;
/** Elements of a partial sum of `dot` and `sumSquares`. */
export const DOT_ELEMENTS = 32768;
/** Long f32 sums run in chunks of so many elements of a row, or rows of a column. */
export const SUM_ELEMENTS = 2048;
export const SUM_ROWS = 64;

/** Ranges of a table's rows in `scatterAdd`; each reads all ids, so they are few. */
export const TABLE_RANGES = 16;
/** Values of a digit of the radix sort of `embeddingAlign`: 2^SORT_BITS. */
export const SORT_BITS = 11;
export const SORT_VALUES = 2048;

/** Rows of a task of `nearest`, and candidates that are kept of each before they are scored. */
export const NEAREST_ROWS = 96;
export const NEAREST_KEPT = 32;
/** Steps of four bytes that are summed in 16 bits. */
export const NEAREST_STEPS = 16;
/** Up to this width scores are screened in bytes, where relaxed SIMD has them: of longer rows bytes tell too little apart. */
export const NEAREST_NARROW = 1024;
