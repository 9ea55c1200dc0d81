// The parameter block of every kernel: its slots, in order, by name and kind. This is the only description: `npm run build:wasm` makes from it the classes that
// the kernels read (assembly/slots.ts) and the writers that the launchers call (src/backends/cpu/slots.ts).
//
// Kinds: `pointer`, the address of an operand, or 0 if it is absent; `i32`; `f32`; `i32[N]`, up to N consecutive integers, of which a launch writes as many as it
// has. A slot takes four bytes (an array N times four), and a block has room for 62 slots in addition to the two of the scratch memory.
// If the first slots of a kernel are those of another, `extends` names the other kernel, so that functions that read its slots serve both.
// A kernel with one export per kind (`unary_exp`, …) is described once, under the part of the name before the underscore.

/** Rows that are divided into tasks. */
const ROWS = { rows: "i32", rowsPerTask: "i32" };
/** Elements that are divided into tasks. */
const ELEMENTS = { elements: "i32", elementsPerTask: "i32" };
/** Columns that are divided into blocks, one per task. */
const BLOCKS = { columnsPerTask: "i32", columnBlocks: "i32" };
/** The outer axes of an operation with strides: extents, then strides in each of two operands, in elements. */
const AXES = { rank: "i32", extents: "i32[5]", strides0: "i32[5]", strides1: "i32[5]" };

export const SLOTS = {
  // along.ts: operands are [outer, length, inner].
  cumsum: {
    ...{ x: "pointer", y: "pointer", outer: "i32", outerPerTask: "i32", length: "i32", inner: "i32" },
    ...BLOCKS,
    ...{ reverse: "i32" },
  },
  // Rows are pairs of an outer and an inner index.
  topk: { x: "pointer", indices: "pointer", ...ROWS, length: "i32", inner: "i32", k: "i32" },
  // Elements are those of `out`.
  takeAlong: {
    ...{ x: "pointer", indices: "pointer", out: "pointer" },
    ...ELEMENTS,
    ...{ length: "i32", inner: "i32", count: "i32" },
  },
  scatterAddAlong: {
    ...{ y: "pointer", indices: "pointer", out: "pointer", outer: "i32", outerPerTask: "i32" },
    ...{ length: "i32", inner: "i32", count: "i32" },
    ...BLOCKS,
  },

  // attention.ts. The queries of a task are a multiple of 4; parts are those of a head.
  attention: {
    ...{ qkv: "pointer", o: "pointer", lse: "pointer" },
    ...{ time: "i32", heads: "i32", kvHeads: "i32", headDim: "i32", queriesPerTask: "i32", parts: "i32" },
    ...{ scale: "f32" },
  },
  attentionVjp: {
    ...{ qkv: "pointer", o: "pointer", lse: "pointer", dOut: "pointer", dqkv: "pointer" },
    ...{ time: "i32", heads: "i32", kvHeads: "i32", headDim: "i32", scale: "f32" },
  },
  attentionJvp: {
    ...{ qkv: "pointer", o: "pointer", lse: "pointer", dqkv: "pointer", dOut: "pointer" },
    ...{ time: "i32", heads: "i32", kvHeads: "i32", headDim: "i32", queriesPerTask: "i32", parts: "i32" },
    ...{ scale: "f32" },
  },

  // masked-attention.ts. `maskBatch` and `maskHeads` are the mask's own extents; parts are the tasks per head.
  maskedAttention: {
    ...{ q: "pointer", k: "pointer", v: "pointer", mask: "pointer", o: "pointer", lse: "pointer" },
    ...{ time: "i32", keys: "i32", heads: "i32", kvHeads: "i32", headDim: "i32", causal: "i32" },
    ...{ maskBatch: "i32", maskHeads: "i32", queriesPerTask: "i32", parts: "i32", scale: "f32" },
  },
  maskedAttentionVjp: {
    extends: "maskedAttention",
    ...{ dOut: "pointer", dq: "pointer", dk: "pointer", dv: "pointer" },
  },
  maskedAttentionJvp: {
    extends: "maskedAttention",
    ...{ dq: "pointer", dk: "pointer", dv: "pointer", dOut: "pointer" },
  },

  // elementwise.ts
  unary: { x: "pointer", y: "pointer", ...ELEMENTS },
  unaryVjp: { x: "pointer", dy: "pointer", dx: "pointer", ...ELEMENTS },
  affine: { x: "pointer", y: "pointer", ...ELEMENTS, scale: "f32", shift: "f32" },
  accumulate: { x: "pointer", y: "pointer", ...ELEMENTS, scale: "f32" },
  selectElements: { condition: "pointer", a: "pointer", b: "pointer", c: "pointer", ...ELEMENTS },
  // `conversion`: to f32 (0), to i32 (1), or a copy (2).
  cast: { x: "pointer", y: "pointer", ...ELEMENTS, conversion: "i32" },
  swiglu: { x: "pointer", y: "pointer", ...ROWS, width: "i32" },
  swigluVjp: { x: "pointer", dy: "pointer", dx: "pointer", ...ROWS, width: "i32" },
  swigluJvp: { x: "pointer", dx: "pointer", dy: "pointer", ...ROWS, width: "i32" },

  // fill.ts. `bits`: those of the value. `trap` is for tests: a kernel that fails in its task number `failing`.
  fill: { out: "pointer", ...ELEMENTS, bits: "i32" },
  trap: { failing: "i32" },

  // gemm.ts. `kMajor` is 1 for an operand whose consecutive rows (columns) are adjacent; leading dimensions are in elements.
  // `width`: rows of panels to cut; `panel`: 4, 8 or 32 of them.
  packPanels: {
    ...{ from: "pointer", to: "pointer", width: "i32", k: "i32", kMajor: "i32", panel: "i32" },
    ...{ panelsPerTask: "i32", ld: "i32" },
  },
  // `b` is packed, and so is `a` if `packedA` is 1. The rows of a task are a multiple of 4, the columns of 8; `pass` is the part of k per pass.
  // `ldb` is 0 if B is packed, or the elements from row to row if it is read in place.
  gemmBlock: {
    ...{ a: "pointer", b: "pointer", c: "pointer", slope: "pointer", bias: "pointer" },
    ...{ m: "i32", n: "i32", k: "i32", kMajor: "i32", lda: "i32", ldc: "i32", accumulate: "i32", activation: "i32" },
    ...{ rowsPerTask: "i32", ...BLOCKS, ldb: "i32", pass: "i32", inPlaceA: "i32", packedA: "i32", alpha: "f32" },
  },
  // `partials` (f64): for each task a dot and a square per segment, a square per group, and the square of V.
  segmentedBlock: {
    ...{ a: "pointer", b: "pointer", segments: "pointer", groups: "pointer", v: "pointer", total: "pointer" },
    ...{ partials: "pointer", m: "i32", n: "i32", segmentCount: "i32", groupCount: "i32" },
    ...{ targetSegments: "i32", firstAccumulated: "i32", accumulate: "i32", rowsPerTask: "i32", ...BLOCKS },
  },
  segmentedReduce: {
    ...{ partials: "pointer", tasks: "i32", segmentCount: "i32", groupCount: "i32" },
    ...{ dots: "pointer", sumsq: "pointer", groupSumsq: "pointer", vSumsq: "pointer" },
  },
  // `x`, `v` and `y` are packed, y in panels of 8; `partials` is a f64 for each block of columns and row; `n` is the columns of y. The rows of a task are a multiple
  // of 4, columns of 8; `pass`, the part of k per pass, is a multiple of the chunk.
  alignBlock: {
    ...{ x: "pointer", v: "pointer", y: "pointer", partials: "pointer", rows: "i32", n: "i32", k: "i32" },
    ...{ rowsPerTask: "i32", ...BLOCKS, pass: "i32" },
  },
  // skip.ts. `x` and `y` are not packed, `v` is in panels of 32; `pass` is a multiple of 4.
  alignNonzeros: { extends: "alignBlock" },
  // Task 0 counts in a, task 1 in b, in `sampled` of the rows.
  countNonzeros: {
    ...{ a: "pointer", b: "pointer", counts: "pointer", rows: "i32", m: "i32", n: "i32", sampled: "i32" },
  },
  // The partials begin at the first row of segment `aligned`; earlier segments get 0.
  alignSegments: {
    ...{ partials: "pointer", columnBlocks: "i32", rows: "i32", segments: "pointer", segmentCount: "i32" },
    ...{ aligned: "i32", dots: "pointer" },
  },
  // `offsets` are those of the ranges of rows; ranges of more than `most` rows are skipped.
  gramSquares: {
    ...{ a: "pointer", b: "pointer", offsets: "pointer", squares: "pointer", ranges: "i32", rangesPerTask: "i32" },
    ...{ m: "i32", n: "i32", most: "i32" },
  },
  microPeak: { rounds: "i32" },

  // nearest.ts. `panels` has the packed rows of y, `columns` the data of each; `count` is the number of rows of y; `unbounded` is set to 1 if a bound is not finite.
  nearestPack: {
    ...{ y: "pointer", bias: "pointer", panels: "pointer", columns: "pointer", count: "i32", width: "i32" },
    ...{ panelsPerTask: "i32", unbounded: "pointer" },
  },
  nearest: {
    ...{ x: "pointer", panels: "pointer", columns: "pointer", y: "pointer", bias: "pointer" },
    ...{ ids: "pointer", scores: "pointer", rows: "i32", width: "i32", count: "i32", rowsPerTask: "i32" },
    ...{ unbounded: "pointer" },
  },

  // norm.ts. `layer` is 1 for LayerNorm, 0 for RMSNorm.
  norm: {
    ...{ x: "pointer", gain: "pointer", bias: "pointer", residual: "pointer" },
    ...{ y: "pointer", stats: "pointer", sum: "pointer" },
    ...ROWS,
    ...{ width: "i32", layer: "i32", eps: "f32" },
  },
  normVjp: {
    ...{ x: "pointer", gain: "pointer", stats: "pointer", dy: "pointer", also: "pointer", dx: "pointer" },
    ...ROWS,
    ...{ width: "i32", layer: "i32" },
  },
  normJvp: {
    ...{ x: "pointer", gain: "pointer", stats: "pointer", dx: "pointer", dgain: "pointer", dbias: "pointer" },
    ...{ dy: "pointer", ...ROWS, width: "i32", layer: "i32" },
  },

  // optimizer.ts. `rest1` is 1 − beta1, `correction1` is 1/(1 − beta1^step), and so on; the launcher computes them in doubles.
  clipScale: { sumsq: "pointer", scale: "pointer", maxNorm: "f32" },
  adam: {
    ...{ grad: "pointer", gradScale: "pointer", value: "pointer", m: "pointer", v: "pointer", ...ELEMENTS },
    ...{ lr: "f32", beta1: "f32", rest1: "f32", beta2: "f32", rest2: "f32", eps: "f32", weightDecay: "f32" },
    ...{ correction1: "f32", correction2: "f32" },
  },
  adamw: { extends: "adam" },
  sgd: {
    ...{ grad: "pointer", gradScale: "pointer", value: "pointer", velocity: "pointer", ...ELEMENTS },
    ...{ nesterov: "i32", lr: "f32", momentum: "f32", weightDecay: "f32" },
  },

  // random.ts. The elements of a task are a multiple of 8.
  random: { out: "pointer", ...ELEMENTS, key0: "i32", key1: "i32", offset: "i32" },
  dropout: {
    ...{ x: "pointer", y: "pointer", ...ELEMENTS, key0: "i32", key1: "i32", threshold: "i32", scale: "f32" },
  },

  // reduce.ts. `kind`: sum, max, min.
  reduceRows: { x: "pointer", y: "pointer", ...ROWS, length: "i32", kind: "i32" },
  reduceColumns: {
    ...{ x: "pointer", y: "pointer", outer: "i32", length: "i32", inner: "i32" },
    ...BLOCKS,
    ...{ kind: "i32" },
  },
  // Plain sums (no y, no stats), products (y), or the gradient of a norm's gain (stats too).
  segmentColumns: {
    ...{ x: "pointer", y: "pointer", stats: "pointer", segments: "pointer", out: "pointer" },
    ...{ segmentCount: "i32", segmentsPerTask: "i32", width: "i32", outStride: "i32", ...BLOCKS, accumulate: "i32" },
  },
  alignRows: { g: "pointer", v: "pointer", dots: "pointer", sumsq: "pointer", ...ROWS, width: "i32" },
  // `partials`: one f64 per task.
  dotPartials: { x: "pointer", y: "pointer", partials: "pointer", ...ELEMENTS },
  dotTotal: { partials: "pointer", count: "i32", out: "pointer" },

  // rope.ts. `frequencies`: headDim/2 of f64, one more when that is odd; `offset`: position of the first row.
  rope: {
    ...{ x: "pointer", y: "pointer", batch: "i32", time: "i32", positionsPerTask: "i32", cols: "i32" },
    ...{ heads: "i32", headDim: "i32", frequencies: "pointer", inverse: "i32", offset: "i32" },
  },

  // softmax.ts
  softmax: { x: "pointer", y: "pointer", ...ROWS, cols: "i32" },
  softmaxVjp: { y: "pointer", dy: "pointer", dx: "pointer", ...ROWS, cols: "i32" },
  logSoftmax: { x: "pointer", y: "pointer", ...ROWS, cols: "i32" },
  logSoftmaxVjp: { y: "pointer", dy: "pointer", dx: "pointer", ...ROWS, cols: "i32" },
  crossEntropy: {
    ...{ logits: "pointer", targets: "pointer", losses: "pointer", lse: "pointer", ...ROWS, cols: "i32" },
  },
  crossEntropyVjp: {
    ...{ logits: "pointer", targets: "pointer", lse: "pointer", dlosses: "pointer", dlogits: "pointer" },
    ...{ ...ROWS, cols: "i32" },
  },
  crossEntropyJvp: {
    ...{ logits: "pointer", targets: "pointer", lse: "pointer", dlogits: "pointer", dlosses: "pointer" },
    ...{ ...ROWS, cols: "i32" },
  },

  // strided.ts. Steps are strides of the innermost axis, in elements; its `length` is divided into blocks; rows are those of all outer axes.
  copyRows: {
    ...{ from: "pointer", to: "pointer", length: "i32", fromStep: "i32", toStep: "i32", ...ROWS },
    ...{ ...BLOCKS, ...AXES },
  },
  // A transpose for each index of the outer axes: to[r·toRow + c] = from[c·fromColumn + r].
  copyTiles: {
    ...{ from: "pointer", to: "pointer", rows: "i32", columns: "i32", fromColumn: "i32", toRow: "i32" },
    ...{ rowsPerTask: "i32", rowBlocks: "i32", ...AXES },
  },
  // c is contiguous.
  binary: {
    ...{ a: "pointer", b: "pointer", c: "pointer", length: "i32", aStep: "i32", bStep: "i32", ...ROWS },
    ...{ ...BLOCKS, ...AXES },
  },
  compare: { extends: "binary" },

  // table.ts
  gather: { table: "pointer", ids: "pointer", out: "pointer", ...ROWS, width: "i32", tableRows: "i32" },
  scatterAdd: {
    ...{ x: "pointer", ids: "pointer", out: "pointer", rows: "i32", width: "i32", tableRows: "i32" },
    ...{ tableRowsPerTask: "i32", accumulate: "i32" },
  },
  embeddingAlign: {
    ...{ dy: "pointer", ids: "pointer", segments: "pointer", groups: "pointer", v: "pointer", dots: "pointer" },
    ...{ sumsq: "pointer", groupSumsq: "pointer", width: "i32", tableRows: "i32", segmentCount: "i32" },
  },
};
