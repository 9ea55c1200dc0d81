/**
 * Calls of every kernel: sizes 0 and 1, sizes that no vector width or tile divides, ragged and empty segments, absent operands, in-place outputs, ids
 * outside of the table, ignored targets, large values; and sizes around and beyond every block, tile and share into which a backend divides its work
 * (cuts.ts). A kernel without cases is an error of the compiler.
 */
import {
  type Activation,
  type AttentionParams,
  type BinaryKind,
  binaryKinds,
  compareKinds,
  type KernelName,
  type KernelParams,
  type MaskedAttentionParams,
  reduceKinds,
  type UnaryKind,
  unaryKinds,
} from "#dist/backends/kernels/index.js";
import { broadcastStrides, sizeOf, stridesOf } from "#dist/tensor/shape.js";
import { around, block, past } from "./cuts.ts";
import { type Case, f, i, integers, type Operand, out, sumScale, values } from "./harness.ts";
import { naiveAttention, naiveGemm, naiveLse, naiveMaskedAttention, naiveStats } from "./naive.ts";

/** The last one is large enough to be shared among threads. */
const SIZES = [0, 1, 3, 8, 31, 130, 1029, 70_003];
/** Around a task of the cpu. */
const TASKS = past("cpu", "TASK_ELEMENTS");
/** One more element than a row of the GPU's grid has invocations. */
const GRID = 64 * block("webgpu", "GRID_GROUPS") + 1;
const LARGE = [-80, -30, -9.5, -3, -1, -1e-4, 0, 1e-4, 1, 3, 9.5, 30, 80];

/** Ascending offsets with empty segments, a gap before the first row and one after the last. */
const ragged = (rows: number): number[] =>
  [0.05, 0.05, 0.25, 0.3, 0.8, 0.8, 0.95].map((x) => Math.floor(x * rows));

/** Segments around the rows that are summed together, and a GPU's lanes and parts. */
const SEGMENTS = [
  ...["SUM_ROWS" as const].flatMap((name) => past("cpu", name)),
  ...(["COLUMN_LANES", "COLUMN_SHORT", "COLUMN_ROWS"] as const).flatMap((name) => past("webgpu", name)),
].map((length) => [length, length + 1]);

const integersFrom = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, at) => first + at);

/** Offsets of segments with these lengths; the first begins at row `start`. */
const offsets = (lengths: readonly number[], start: number): number[] => {
  const ends = [start];
  for (const length of lengths) ends.push(ends[ends.length - 1] + length);
  return ends;
};

/** Rows of such segments, the first of which begins at row 4, and two that are in none. */
const rowsOf = (lengths: readonly number[]): number => lengths.reduce((sum, length) => sum + length, 6);

/** Elements between rows of sums by segment: some stand next to each other, some do not. */
const apart = (width: number, salt: number): number => width + (salt % 3);

/** Elements of the optimizers' steps. */
const STEPS = [0, 1, 7, 1029, ...TASKS];
const DOTS = [...SIZES, ...past("cpu", "DOT_ELEMENTS"), ...past("webgpu", "DOT_SHARE")];

const POSITIVE: readonly UnaryKind[] = ["log", "sqrt", "rsqrt", "reciprocal", "log1p"];
/** Values in the domain of a unary kind, of order one. */
const domain = (kind: UnaryKind, count: number, seed: number): number[] =>
  POSITIVE.includes(kind) ? values(count, seed, 0.1, 4) : values(count, seed, -4, 4);
const special: { readonly [K in UnaryKind]?: readonly number[] } = {
  exp: [-200, 100, -80, 80],
  log: [0, -1, 1, 1e-30, 1e30],
  sqrt: [0, -1, 1e-30, 1e30],
  rsqrt: [0, -1, 1e30],
  reciprocal: [0, -2, 1e30],
  tanh: LARGE,
  sigmoid: LARGE,
  relu: LARGE,
  silu: LARGE,
  gelu: LARGE,
  sin: [-30, 30],
  cos: [-30, 30],
  erf: LARGE,
  geluErf: LARGE,
  softplus: LARGE,
  log1p: [0, -0, -1, -2, 1, 1e-30, 1e30],
  expm1: [0, -0, -200, 100, -80, 80],
};
const SMOOTH_EVERYWHERE: readonly UnaryKind[] = [
  ...(["tanh", "sigmoid", "relu", "silu", "gelu", "erf", "geluErf", "softplus"] as const),
];

type Extents = Pick<KernelParams["gemm"], "m" | "n" | "k" | "transA" | "transB">;

/** Factors of the gradient; at 0 there is no step. */
const SCALES = [null, 0.37, 0] as const;

/** A gradient, with infinities and NaN in it if there is no step. */
const gradients = (n: number, gradScale: number | null): number[] =>
  values(n, 1).map((g, i) => (gradScale === 0 ? ([Infinity, NaN, g][i % 3] ?? g) : g));

/** Cases of `adam` and of `adamw`. */
function adamCases() {
  return STEPS.flatMap((n) =>
    [1, 10, 2000].flatMap((step) =>
      SCALES.map((gradScale) => ({
        name: `${n} elements, step ${step}, scale ${gradScale}`,
        params: {
          lr: 0.01,
          beta1: 0.9,
          beta2: 0.95,
          eps: 1e-8,
          weightDecay: gradScale === null ? 0 : 0.1,
          step,
        },
        inputs: { grad: f(gradients(n, gradScale)), gradScale: gradScale === null ? null : f([gradScale]) },
        outputs: { value: f(values(n, 2)), m: f(values(n, 3, -0.3, 0.3)), v: f(values(n, 4, 0.01, 0.3)) },
      })),
    ),
  );
}

/** A gemm case; strides default to packed items. */
function gemmCase(
  name: string,
  extents: Extents,
  more: Partial<KernelParams["gemm"]> & { bias?: boolean; slope?: boolean } = {},
): Case<"gemm"> {
  const { bias = false, slope = false, ...rest } = more;
  const { m, n, k } = extents;
  const params: KernelParams["gemm"] = {
    ...extents,
    batch: 1,
    strideA: m * k,
    strideB: k * n,
    strideC: m * n,
    alpha: 1,
    accumulate: false,
    activation: "none",
    ...rest,
  };
  const extent = (stride: number, size: number): number =>
    params.batch === 0 ? 0 : (params.batch - 1) * stride + size;
  const sizeC = extent(params.strideC, m * n);
  return {
    name: `${name} ${m}×${n}×${k} ${extents.transA ? "T" : "N"}${extents.transB ? "T" : "N"}`,
    params,
    inputs: {
      a: f(values(extent(params.strideA, m * k), 1)),
      b: f(values(extent(params.strideB, k * n), 2)),
      bias: bias ? f(values(n, 3)) : null,
    },
    outputs: { c: f(values(sizeC, 4)), slope: slope ? f(values(sizeC, 5)) : null },
    scale: sumScale(k),
  };
}

/** The same case with what it must give from plain loops: the reference takes long for large products. */
function byLoops(c: Case<"gemm">, family: "cpu" | "webgpu"): Case<"gemm"> {
  const [a, b] = [Float32Array.from(c.inputs.a.data), Float32Array.from(c.inputs.b.data)];
  const bias = c.inputs.bias ? Float32Array.from(c.inputs.bias.data) : null;
  const old = Float32Array.from(c.outputs.c?.data ?? []);
  return {
    ...c,
    family,
    expected: () => {
      const made = naiveGemm(c.params, a, b, bias, old);
      return [made.c, c.outputs.slope ? made.slope : null];
    },
  };
}

/** Epilogues of the product, which the cases use in turn. */
const EPILOGUES: readonly Parameters<typeof gemmCase>[2][] = [
  { bias: true, alpha: -0.5 },
  { bias: true, accumulate: true },
  { bias: true, slope: true, activation: "gelu" },
  {},
];

/** Products that cross one block of a backend at a time, in every layout or, as each costs a GPU a shader, in one. */
const blockedGemms = (): Case<"gemm">[] => {
  const cpu = (sizes: readonly number[], extents: (size: number) => [m: number, n: number, k: number]) =>
    TRANSPOSES.flatMap((trans, t) =>
      sizes.map((size, at) => {
        const [m, n, k] = extents(size);
        return byLoops(gemmCase("blocks", { m, n, k, ...trans }, EPILOGUES[(at + t) % 4]), "cpu");
      }),
    );
  const webgpu = (
    sizes: readonly number[],
    extents: (size: number) => [m: number, n: number, k: number],
    more: Parameters<typeof gemmCase>[2] = { bias: true, alpha: -0.5, accumulate: true },
  ) =>
    sizes.map((size) => {
      const [m, n, k] = extents(size);
      return byLoops(gemmCase("tiles", { m, n, k, transA: false, transB: false }, more), "webgpu");
    });
  const rows = block("cpu", "GEMM_ROWS") + 1;
  const several = block("cpu", "GEMM_COLS") + 6;
  const share = block("webgpu", "GEMM_SHARE");
  return [
    // Every way to end with panels of fewer rows.
    ...cpu(
      Array.from({ length: 2 * block("cpu", "GEMM_TILE_ROWS") + 1 }, (_, i) => i + 1),
      (m) => [m, 9, 11],
    ),
    ...cpu(past("cpu", "TILE_ROWS"), (m) => [m, several, 11]),
    ...cpu(past("cpu", "GEMM_ROWS"), (m) => [m, 9, 11]),
    ...cpu(past("cpu", "GEMM_ROWS"), (m) => [m, several, 11]),
    // Every rest of the rows of a task, whose panels must be those that were packed.
    ...cpu(integersFrom(2 * block("cpu", "GEMM_TILE_ROWS"), 4 * block("cpu", "GEMM_TILE_ROWS") + 2), (m) => [
      m,
      several,
      11,
    ]),
    // Panels of B, pairs of them (256-bit vectors), and tasks.
    ...cpu(
      [...past("cpu", "TILE_COLS"), ...past("cpu", "TILE_COLS", 2), ...past("cpu", "GEMM_COLS")],
      (n) => [9, n, 11],
    ),
    // With one block of columns, and with several, for which A is packed once.
    ...cpu(past("cpu", "GEMM_K"), (k) => [rows, 9, k]),
    ...cpu(past("cpu", "GEMM_K"), (k) => [rows, several, k]),
    // Operands in place: rows in panels of 6 and of 4 or an odd number, columns of whole tiles or not, passes, tasks of every size, and rows too far apart.
    ...cpu([...past("cpu", "GEMM_LEAST"), ...past("cpu", "GEMM_LEAST", 2), 16, 88, 90], (m) => [m, 24, 11]),
    ...cpu(past("cpu", "GEMM_DIVISION"), (n) => [18, n, 11]),
    ...cpu([24, 32, 48, 104, 200], (n) => [20, n, 11]),
    ...cpu(past("cpu", "GEMM_K"), (k) => [12, 24, k]),
    ...cpu(past("cpu", "GEMM_NEAR", 1 / block("cpu", "GEMM_APART")), (k) => [
      10,
      block("cpu", "GEMM_APART") / 4,
      k,
    ]),
    ...cpu(past("cpu", "GEMM_NEAR", 1 / block("cpu", "GEMM_APART")), (k) => [
      block("cpu", "GEMM_APART") / 4,
      9,
      k,
    ]),
    ...cpu([block("cpu", "GEMM_APART") / 2], (n) => [n, n, 11]),
    // The smaller extent decides which tile is taken.
    ...webgpu(around(32), (m) => [m, 5, 7]),
    ...webgpu(around(32), (n) => [5, n, 7]),
    ...webgpu(around(64), (m) => [m, 41, 7]),
    ...webgpu(around(64), (n) => [41, n, 7]),
    ...webgpu(around(128).slice(1), (m) => [m, 131, 7]),
    ...webgpu(around(128).slice(1), (n) => [131, n, 7]),
    ...webgpu(around(16), (k) => [5, 6, k]),
    ...webgpu(around(8), (k) => [131, 131, k]),
    ...webgpu([...around(share), ...around(2 * share), 3 * share + 1], (k) => [9, 10, k]),
    ...webgpu([2 * share + 1], (k) => [9, 10, k], { bias: true, slope: true, activation: "gelu" }),
    ...webgpu([3 * share + 1], (k) => [9, 10, k], { batch: 3, bias: true, accumulate: true }),
  ];
};

const TRANSPOSES = [
  { transA: false, transB: false },
  { transA: false, transB: true },
  { transA: true, transB: false },
  { transA: true, transB: true },
];

function segmentedCase(
  name: string,
  extents: { rows: number; m: number; n: number },
  segments: readonly number[],
  more: {
    target?: number;
    first?: number;
    v?: boolean;
    groups?: readonly number[];
    total?: boolean;
    accumulate?: boolean;
    /** Shares of a and of b that are 0, in places at random. */
    zeros?: readonly [a: number, b: number];
  } = {},
): Case<"gemmSegmented"> {
  const { rows, m, n } = extents;
  const [zerosA, zerosB] = more.zeros ?? [0, 0];
  const { target = 0, first = 0, v = false, groups = null, total = true, accumulate = false } = more;
  const segmentCount = segments.length - 1;
  const groupCount = groups === null ? 0 : groups.length - 1;
  return {
    name: `${name} rows ${rows}, ${m}×${n}, ${segmentCount} segments`,
    params: {
      rows,
      m,
      n,
      segmentCount,
      groupCount,
      targetSegments: target,
      firstAccumulated: first,
      accumulate,
    },
    inputs: {
      a: f(sparse(values(rows * m, 1), zerosA)),
      b: f(sparse(values(rows * n, 2), zerosB)),
      segments: i(segments),
      groups: groups === null ? null : i(groups),
      v: v ? f(values(m * n, 3)) : null,
    },
    outputs: {
      total: total ? f(values(m * n, 4)) : null,
      dots: out(segmentCount),
      sumsq: out(segmentCount),
      groupSumsq: groups === null ? null : out(groupCount),
      vSumsq: out(1),
    },
    // Each of the m·n elements of W_s carries the error of a sum over its rows.
    scale: sumScale(rows) * Math.max(1, Math.sqrt(m * n) / 8),
  };
}

/** Puts 0 in the place of so large a share of the numbers. */
function sparse(numbers: readonly number[], zeros: number): number[] {
  const drawn = values(numbers.length, 5, 0, 1);
  return numbers.map((number, at) => (drawn[at] < zeros ? 0 : number));
}

function embeddingCase(
  name: string,
  rows: number,
  width: number,
  tableRows: number,
  segments: readonly number[],
  more: { v?: boolean; groups?: readonly number[] } = {},
): Case<"embeddingAlign"> {
  const { v = true, groups = null } = more;
  const segmentCount = segments.length - 1;
  const groupCount = groups === null ? 0 : groups.length - 1;
  return {
    name: `${name} rows ${rows} of ${width}, table ${tableRows}`,
    params: { rows, width, tableRows, segmentCount, groupCount },
    inputs: {
      dy: f(values(rows * width, 1)),
      ids: i(integers(rows, 2, -1, tableRows + 2)),
      segments: i(segments),
      groups: groups === null ? null : i(groups),
      v: v ? f(values(tableRows * width, 3)) : null,
    },
    outputs: {
      dots: out(segmentCount),
      sumsq: out(segmentCount),
      groupSumsq: groups === null ? null : out(groupCount),
    },
    scale: sumScale(rows * width),
  };
}

/** Around the vectors of the cpu, and the invocations that share a row on a GPU. */
const ROW_SIZES = [...around(8), ...past("webgpu", "ROW_LANES")];
/** Rows of which the cpu takes sixteen a task, and how many of them. */
const ROW_OF_16 = block("cpu", "TASK_ELEMENTS") / 16;
const ROW_COUNTS = around(16);

interface NormShape {
  kind: "layer" | "rms";
  rows: number;
  width: number;
  /** Added to every x: a variance by E[x²] − E[x]² would lose its digits. */
  offset: number;
}
const NORMS: readonly NormShape[] = (["layer", "rms"] as const).flatMap((kind) => [
  { kind, rows: 0, width: 8, offset: 0 },
  { kind, rows: 1, width: 1, offset: 0 },
  { kind, rows: 5, width: 3, offset: 0 },
  { kind, rows: 7, width: 8, offset: 0 },
  { kind, rows: 3, width: 33, offset: 0 },
  { kind, rows: 5, width: 64, offset: 60 },
  { kind, rows: 130, width: 257, offset: 0 },
  ...ROW_SIZES.map((width) => ({ kind, rows: 5, width, offset: 0 })),
  ...ROW_COUNTS.map((rows) => ({ kind, rows, width: ROW_OF_16, offset: 0 })),
]);
const EPS = 1e-5;
const normX = (s: NormShape): number[] => values(s.rows * s.width, 1, s.offset - 1, s.offset + 1);
const normStats = (s: NormShape): Operand => f(naiveStats(normX(s), s.width, s.kind, EPS));
const normName = (s: NormShape): string => `${s.kind} ${s.rows} rows of ${s.width} around ${s.offset}`;
/** One ulp of x at the offset, in units of the rows' spread. */
const normScale = (s: NormShape): number => sumScale(s.width) * (1 + s.offset / 8);

const ATTENTIONS: readonly AttentionParams[] = [
  { batch: 0, time: 4, heads: 1, kvHeads: 1, headDim: 4, scale: 0.5 },
  { batch: 2, time: 0, heads: 1, kvHeads: 1, headDim: 4, scale: 0.5 },
  { batch: 1, time: 1, heads: 1, kvHeads: 1, headDim: 4, scale: 0.5 },
  { batch: 2, time: 5, heads: 2, kvHeads: 1, headDim: 20, scale: 0.22 },
  { batch: 1, time: 9, heads: 3, kvHeads: 3, headDim: 9, scale: 0.33 },
  { batch: 1, time: 33, heads: 4, kvHeads: 2, headDim: 16, scale: 0.25 },
  { batch: 2, time: 70, heads: 2, kvHeads: 2, headDim: 32, scale: 0.18 },
  { batch: 1, time: 129, heads: 3, kvHeads: 1, headDim: 20, scale: 0.22 },
  { batch: 1, time: 64, heads: 1, kvHeads: 1, headDim: 64, scale: 0.125 },
  { batch: 1, time: 301, heads: 2, kvHeads: 1, headDim: 9, scale: 0.33 },
  { batch: 1, time: 37, heads: 1, kvHeads: 1, headDim: 128, scale: 0.09 },
  // Around the blocks of queries and keys, and parts of a head; the GPU's blocks are of 16, 32 and 64.
  ...[
    ...past("cpu", "ATTENTION_STRIP"),
    ...past("cpu", "ATTENTION_QUERIES"),
    ...past("cpu", "ATTENTION_PART"),
    ...past("cpu", "ATTENTION_KEYS"),
    ...around(16),
  ].map((time, at) => ({ batch: 1, time, heads: 2, kvHeads: 1 + (at % 2), headDim: 9, scale: 0.33 })),
  // A window, of 1,024 bytes per position, that is too large to be fetched as a whole.
  {
    ...{ batch: 1, time: block("cpu", "ATTENTION_NEAR") / 1024 + 1, heads: 2, kvHeads: 1 },
    ...{ headDim: 64, scale: 0.125 },
  },
  // Scores up to about ±80.
  { batch: 1, time: 40, heads: 2, kvHeads: 1, headDim: 16, scale: 12 },
];
const attentionName = (p: AttentionParams): string =>
  `batch ${p.batch}, time ${p.time}, heads ${p.heads}/${p.kvHeads} of ${p.headDim}, scale ${p.scale}`;
const qkvSize = (p: AttentionParams): number => p.batch * p.time * (p.heads + 2 * p.kvHeads) * p.headDim;
const outSize = (p: AttentionParams): number => p.batch * p.time * p.heads * p.headDim;
/** An error of the scores is a relative error of the probabilities; scores grow with `scale`. */
const attentionScale = (p: AttentionParams): number => sumScale(p.time) * Math.max(1, 4 * p.scale);
const attentionQkv = (p: AttentionParams): number[] => values(qkvSize(p), 1);

type MaskedShape = Omit<MaskedAttentionParams, "maskBatch" | "maskHeads"> & {
  mask: "none" | "own" | "shared";
};
/** Few head widths: each costs a GPU shaders. */
const MASKED: readonly MaskedShape[] = [
  { batch: 0, time: 4, keys: 3, heads: 1, kvHeads: 1, headDim: 9, scale: 0.5, causal: false, mask: "none" },
  { batch: 2, time: 0, keys: 3, heads: 1, kvHeads: 1, headDim: 9, scale: 0.5, causal: true, mask: "own" },
  { batch: 2, time: 3, keys: 0, heads: 2, kvHeads: 1, headDim: 9, scale: 0.5, causal: false, mask: "shared" },
  { batch: 1, time: 1, keys: 1, heads: 1, kvHeads: 1, headDim: 9, scale: 0.5, causal: false, mask: "none" },
  ...(["none", "own", "shared"] as const).flatMap((mask) =>
    [false, true].flatMap((causal): MaskedShape[] => [
      { batch: 2, time: 5, keys: 7, heads: 4, kvHeads: 2, headDim: 9, scale: 0.33, causal, mask },
      // More queries than keys: the first see nothing where causal.
      { batch: 1, time: 9, keys: 5, heads: 3, kvHeads: 1, headDim: 9, scale: 0.33, causal, mask },
    ]),
  ),
  { batch: 2, time: 33, keys: 40, heads: 2, kvHeads: 2, headDim: 16, scale: 3, causal: false, mask: "own" },
  ...past("cpu", "ATTENTION_PART").map((time): MaskedShape => ({
    ...{ batch: 1, time, keys: 70, heads: 2, kvHeads: 1, headDim: 9, scale: 0.33 },
    ...{ causal: true, mask: "shared" as const },
  })),
];
const maskedName = (s: MaskedShape): string =>
  `batch ${s.batch}, ${s.time} × ${s.keys}, heads ${s.heads}/${s.kvHeads} of ${s.headDim}, ${s.causal ? "causal, " : ""}mask ${s.mask}`;
interface MaskedGiven {
  readonly q: number[];
  readonly k: number[];
  readonly v: number[];
  readonly mask: number[] | null;
}
/** Parameters, q, k, v and a mask in which some keys are hidden, and all of some rows. */
function maskedCall(s: MaskedShape): { params: MaskedAttentionParams; given: MaskedGiven } {
  const { mask, ...rest } = s;
  const [maskBatch, maskHeads] = mask === "own" ? [Math.max(1, s.batch), s.heads] : [1, 1];
  const q = values(s.batch * s.heads * s.time * s.headDim, 1);
  const [k, v] = [2, 3].map((seed) => values(s.batch * s.kvHeads * s.keys * s.headDim, seed));
  const shifts = values(maskBatch * maskHeads * s.time * s.keys, 4, -2, 2).map((x, n) =>
    x > 1.2 || Math.floor(n / s.keys) % 5 === 3 ? -Infinity : x,
  );
  return {
    params: { ...rest, maskBatch, maskHeads },
    given: { q, k, v, mask: mask === "none" ? null : shifts },
  };
}
const maskedInputs = ({ q, k, v, mask }: MaskedGiven) => ({
  ...{ q: f(q), k: f(k), v: f(v), mask: mask === null ? null : f(mask) },
});
/** NaN at one place. */
const spoilt = (data: number[], at: number): number[] => data.map((x, n) => (n === at ? NaN : x));
const maskedScale = (s: MaskedShape): number =>
  sumScale(Math.max(s.keys, s.time * (s.heads / s.kvHeads))) * Math.max(1, 4 * s.scale);
/** Inputs, and what a forward pass leaves. */
function maskedSaved(s: MaskedShape) {
  const { params, given } = maskedCall(s);
  const { o, lse } = naiveMaskedAttention(params, given);
  return { ...maskedInputs(given), o: f(o), lse: f(lse) };
}

interface LossShape {
  rows: number;
  cols: number;
  low: number;
  high: number;
}
const LOSSES: readonly LossShape[] = [
  { rows: 0, cols: 5, low: -3, high: 3 },
  { rows: 1, cols: 1, low: -3, high: 3 },
  { rows: 9, cols: 3, low: -3, high: 3 },
  { rows: 17, cols: 33, low: -3, high: 3 },
  { rows: 12, cols: 70, low: -80, high: 80 },
  { rows: 66, cols: 1030, low: -3, high: 3 },
  ...ROW_SIZES.map((cols) => ({ rows: 5, cols, low: -3, high: 3 })),
  ...ROW_COUNTS.map((rows) => ({ rows, cols: ROW_OF_16, low: -3, high: 3 })),
];
const lossName = (s: LossShape): string => `${s.rows} rows of ${s.cols} in ${s.low}..${s.high}`;
/** Some ignored (−1, −2) and some beyond the columns. */
const lossTargets = (s: LossShape): Operand => i(integers(s.rows, 2, -2, s.cols + 1));
const lossLogits = (s: LossShape): number[] => values(s.rows * s.cols, 1, s.low, s.high);
/** An error of lse (about one ulp of 80) is a relative error of the probabilities. */
const lossScale = (s: LossShape): number => sumScale(s.cols) * Math.max(1, s.high / 10);

/** Rows of three. */
const EXTREME_ROWS = [
  ...[-Infinity, -Infinity, -Infinity],
  ...[1, Infinity, 2],
  ...[NaN, 1, 2],
  ...[3e38, -3e38, 1],
  ...[-Infinity, 4, 5],
];

const SWIGLU = [
  { rows: 0, width: 4 },
  { rows: 1, width: 1 },
  { rows: 5, width: 3 },
  { rows: 7, width: 33 },
  { rows: 130, width: 260 },
  ...ROW_COUNTS.map((rows) => ({ rows, width: ROW_OF_16 })),
];

const SOFTMAX = [
  { rows: 0, cols: 5, high: 3 },
  { rows: 1, cols: 1, high: 3 },
  { rows: 9, cols: 3, high: 3 },
  { rows: 12, cols: 70, high: 80 },
  { rows: 150, cols: 517, high: 3 },
  ...ROW_SIZES.map((cols) => ({ rows: 5, cols, high: 3 })),
  ...ROW_COUNTS.map((rows) => ({ rows, cols: ROW_OF_16, high: 3 })),
];

/** Some indices lie outside of the axis. */
const ALONG = [
  [0, 3, 2, 4],
  [2, 0, 3, 4],
  [2, 3, 4, 0],
  [2, 3, 0, 2],
  [1, 1, 1, 1],
  [3, 7, 1, 5],
  [2, 5, 9, 33],
  [2, 5, 700, 3],
  [1, 300, 1, 70_003],
  [2, 3, 33, ROW_OF_16],
  ...ROW_COUNTS.map((outer) => [outer, 5, 1, ROW_OF_16]),
  ...ROW_COUNTS.map((outer) => [outer, ROW_OF_16, 1, 5]),
].map(([outer = 0, length = 0, inner = 0, count = 0]) => ({
  name: `${count} of ${outer}·${length}·${inner}`,
  params: { outer, length, inner, count },
  indices: i(integers(outer * count * inner, 2, -1, length + 1)),
  ...{ whole: outer * length * inner, picked: outer * count * inner },
  scale: sumScale(count / Math.max(1, length)),
}));

const KEYED = { key0: 0x12345678, key1: 0x9abcdef0 };

const ofCpu = <K extends KernelName>(c: Case<K>): Case<K> => ({ ...c, family: "cpu" });

export const cases: { readonly [K in KernelName]: () => Case<K>[] } = {
  fill: () =>
    SIZES.flatMap((n): Case<"fill">[] => [
      { name: `f32 ${n}`, params: { value: 0.1 }, inputs: {}, outputs: { out: out(n) } },
      { name: `i32 ${n}`, params: { value: -7 }, inputs: {}, outputs: { out: out(n, "i32") } },
    ]).concat(
      past("cpu", "FILL_ELEMENTS").map((n) => ({
        ...{ name: `${n}`, params: { value: 3 }, inputs: {}, outputs: { out: out(n) }, family: "cpu" },
      })),
      {
        name: "more than a row of the grid",
        params: { value: 2 },
        inputs: {},
        outputs: { out: out(GRID) },
        family: "webgpu",
        expected: () => [new Float32Array(GRID).fill(2)],
      },
    ),

  stridedCopy: () => {
    const copy = (
      name: string,
      shape: readonly number[],
      inStrides: readonly number[],
      outStrides: readonly number[],
      more: { inOffset?: number; outOffset?: number; inSize?: number; outSize?: number } = {},
    ): Case<"stridedCopy">[] => {
      const { inOffset = 0, outOffset = 0, inSize = sizeOf(shape), outSize = sizeOf(shape) } = more;
      const params = { shape, inStrides, inOffset, outStrides, outOffset };
      return [
        {
          name: `${name} f32`,
          params,
          inputs: { x: f(values(inSize, 1)) },
          outputs: { y: f(values(outSize, 2)) },
        },
        {
          name: `${name} i32`,
          params,
          inputs: { x: i(integers(inSize, 1, -99, 99)) },
          outputs: { y: out(outSize, "i32") },
        },
      ];
    };
    return [
      ...SIZES.flatMap((n) => copy(`plain ${n}`, [n], [1], [1])),
      ...copy("one element, rank 0", [], [], []),
      ...copy("an empty axis", [3, 0, 2], [0, 2, 1], [0, 2, 1]),
      ...copy("transpose", [33, 70], [1, 33], [70, 1]),
      ...copy("large transpose", [300, 211], [1, 300], [211, 1]),
      ...copy("permute 0 2 1 3", [2, 5, 3, 7], [105, 7, 35, 1], stridesOf([2, 5, 3, 7])),
      ...copy("rank 6, reversed", [2, 3, 2, 3, 2, 3], [1, 2, 6, 12, 36, 72], stridesOf([2, 3, 2, 3, 2, 3])),
      ...copy("slice", [3, 4], [10, 2], [4, 1], { inOffset: 11, inSize: 50 }),
      ...copy("broadcast a row", [5, 9], [0, 1], [9, 1], { inSize: 9 }),
      ...copy("broadcast a column", [5, 9], [1, 0], [9, 1], { inSize: 5 }),
      ...copy("broadcast one", [5, 9], [0, 0], [9, 1], { inSize: 1 }),
      ...copy("concat on the last axis", [4, 3], [3, 1], [8, 1], { outOffset: 5, outSize: 32 }),
      ...copy("scatter with gaps", [6, 2], [2, 1], [7, 3], { outOffset: 2, outSize: 41 }),
      // Rows that are longer than a task, rows of which a task takes several, and wide transposes.
      ...TASKS.flatMap((n) =>
        copy("long rows", [2, n], [n + 3, 1], [n, 1], { inSize: 2 * n + 3 }).map(ofCpu<"stridedCopy">),
      ),
      ...ROW_COUNTS.flatMap((rows) =>
        copy("rows", [rows, ROW_OF_16], [ROW_OF_16 + 1, 1], [ROW_OF_16, 1], {
          inSize: rows * (ROW_OF_16 + 1),
        }).map(ofCpu<"stridedCopy">),
      ),
      ...ROW_COUNTS.flatMap((rows) =>
        copy("transposes", [rows, ROW_OF_16], [1, rows], [ROW_OF_16, 1]).map(ofCpu<"stridedCopy">),
      ),
    ];
  },

  unary: () =>
    unaryKinds.flatMap((kind): Case<"unary">[] => [
      ...SIZES.map((n): Case<"unary"> => {
        const x = domain(kind, n, n + 1);
        return { name: `${kind} ${n}`, params: { kind }, inputs: { x: f(x) }, outputs: { y: out(n) } };
      }),
      ...(kind === "neg" ? TASKS : []).map((n): Case<"unary"> => ({
        ...{ name: `${kind} ${n}`, params: { kind }, inputs: { x: f(values(n, n)) }, outputs: { y: out(n) } },
      })),
      {
        name: `${kind} in place`,
        params: { kind },
        inputs: { x: f(domain(kind, 37, 5)) },
        outputs: {},
        inPlace: "x",
      },
      {
        name: `${kind} NaN and special values`,
        params: { kind },
        inputs: { x: f([NaN, 1, ...(special[kind] ?? []), NaN]) },
        outputs: { y: out(3 + (special[kind]?.length ?? 0)) },
      },
    ]),

  unaryVjp: () =>
    unaryKinds.flatMap((kind): Case<"unaryVjp">[] => {
      const edge = SMOOTH_EVERYWHERE.includes(kind) ? LARGE : kind === "abs" ? [-2, 0, 2] : [1];
      return [
        ...SIZES.map((n): Case<"unaryVjp"> => ({
          name: `${kind} ${n}`,
          params: { kind },
          inputs: { x: f(domain(kind, n, n + 1)), dy: f(values(n, n + 2)) },
          outputs: { dx: out(n) },
        })),
        ...(kind === "neg" ? TASKS : []).map((n): Case<"unaryVjp"> => ({
          ...{ name: `${kind} ${n}`, params: { kind } },
          inputs: { x: f(values(n, n)), dy: f(values(n, n + 2)) },
          outputs: { dx: out(n) },
        })),
        {
          name: `${kind} dx is dy`,
          params: { kind },
          inputs: { x: f(domain(kind, 37, 5)), dy: f(values(37, 6)) },
          outputs: {},
          inPlace: "dy",
        },
        {
          name: `${kind} large values and kinks`,
          params: { kind },
          inputs: { x: f(edge), dy: f(values(edge.length, 3)) },
          outputs: { dx: out(edge.length) },
        },
      ];
    }),

  binary: () => {
    const operand = (kind: BinaryKind, seed: number, size: number): Operand =>
      f(
        (kind === "div" && seed === 2) || (kind === "pow" && seed === 1)
          ? values(size, seed, 0.5, 3)
          : values(size, seed, -2, 2),
      );
    const broadcast = (kind: BinaryKind, a: readonly number[], b: readonly number[], c: readonly number[]) =>
      ({
        name: `${kind} [${a.join()}] with [${b.join()}]`,
        params: { kind, shape: c, aStrides: broadcastStrides(a, c), bStrides: broadcastStrides(b, c) },
        inputs: { a: operand(kind, 1, sizeOf(a)), b: operand(kind, 2, sizeOf(b)) },
        outputs: { c: out(sizeOf(c)) },
      }) satisfies Case<"binary">;
    return binaryKinds.flatMap((kind): Case<"binary">[] => [
      ...SIZES.map((n) => broadcast(kind, [n], [n], [n])),
      broadcast(kind, [], [], []),
      broadcast(kind, [33, 70], [70], [33, 70]),
      broadcast(kind, [33, 70], [33, 1], [33, 70]),
      broadcast(kind, [33, 1], [1, 70], [33, 70]),
      broadcast(kind, [], [5, 3], [5, 3]),
      broadcast(kind, [37], [1], [37]),
      broadcast(kind, [1], [37], [37]),
      broadcast(kind, [3, 0, 2], [2], [3, 0, 2]),
      broadcast(kind, [2, 1, 3, 1], [4, 1, 5], [2, 4, 3, 5]),
      broadcast(kind, [2, 1, 2, 1, 2, 3], [3, 1, 2, 1, 1], [2, 3, 2, 2, 2, 3]),
      broadcast(kind, [260, 301], [301], [260, 301]),
      ...(kind === "sub"
        ? [
            ...TASKS.flatMap((n) => [
              broadcast(kind, [n], [n], [n]),
              broadcast(kind, [2, n], [2, 1], [2, n]),
            ]),
            ...ROW_COUNTS.map((rows) => broadcast(kind, [rows, 1], [ROW_OF_16], [rows, ROW_OF_16])),
          ].map(ofCpu<"binary">)
        : []),
      {
        name: `${kind} of a transposed operand`,
        params: { kind, shape: [5, 7], aStrides: [1, 5], bStrides: [7, 1] },
        inputs: { a: operand(kind, 1, 35), b: operand(kind, 2, 35) },
        outputs: { c: out(35) },
      },
      { ...broadcast(kind, [5, 33], [33], [5, 33]), name: `${kind} c is a`, outputs: {}, inPlace: "a" },
      { ...broadcast(kind, [33], [5, 33], [5, 33]), name: `${kind} c is b`, outputs: {}, inPlace: "b" },
      { ...broadcast(kind, [37], [37], [37]), name: `${kind} c is a, flat`, outputs: {}, inPlace: "a" },
    ]);
  },

  compare: () => {
    // A few values, so that many are equal; then every pair of values that are hard to distinguish.
    const some = (dtype: Operand["dtype"], count: number, seed: number): Operand =>
      dtype === "f32" ? f(integers(count, seed, -2, 3).map((x) => x / 2)) : i(integers(count, seed, -1, 2));
    const care = {
      f32: [NaN, -Infinity, -3e38, -1, -1e-38, -1e-45, -0, 0, 1e-45, 1e-38, 1, 1.0000001, 3e38, Infinity],
      i32: [-2147483648, -2147483647, -1, 0, 1, 16777217, 16777216, 2147483647],
    };
    return compareKinds.flatMap((kind) =>
      (["f32", "i32"] as const).flatMap((dtype): Case<"compare">[] => {
        if (dtype === "f32" && (kind === "and" || kind === "or")) return [];
        const pair = (a: readonly number[], b: readonly number[], c: readonly number[]): Case<"compare"> => ({
          name: `${kind} ${dtype} [${a.join()}] with [${b.join()}]`,
          params: { kind, shape: c, aStrides: broadcastStrides(a, c), bStrides: broadcastStrides(b, c) },
          inputs: { a: some(dtype, sizeOf(a), 1), b: some(dtype, sizeOf(b), 2) },
          outputs: { c: out(sizeOf(c), "i32") },
        });
        const list = care[dtype];
        const of = dtype === "f32" ? f : i;
        return [
          ...SIZES.map((n) => pair([n], [n], [n])),
          pair([], [], []),
          pair([37], [], [37]),
          pair([], [37], [37]),
          pair([33, 70], [33, 1], [33, 70]),
          pair([33, 1], [1, 70], [33, 70]),
          pair([3, 0, 2], [2], [3, 0, 2]),
          pair([2, 1, 3, 1], [4, 1, 5], [2, 4, 3, 5]),
          ...(kind === "less" ? TASKS.map((n) => ofCpu<"compare">(pair([n], [n], [n]))) : []),
          {
            ...pair([list.length, 1], [list.length], [list.length, list.length]),
            name: `${kind} of ${dtype} with care`,
            inputs: { a: of(list), b: of(list) },
          },
        ];
      }),
    );
  },

  affine: () => [
    ...[...SIZES, ...TASKS].map((n): Case<"affine"> => ({
      name: `${n}`,
      params: { scale: -1.75, shift: 0.3 },
      inputs: { x: f(values(n, 1)) },
      outputs: { y: out(n) },
    })),
    {
      name: "in place",
      params: { scale: 3, shift: 0 },
      inputs: { x: f(values(37, 1)) },
      outputs: {},
      inPlace: "x",
    },
  ],

  accumulate: () =>
    [...SIZES, ...TASKS].map((n) => ({
      name: `${n}`,
      params: { scale: -0.7 },
      inputs: { x: f(values(n, 1)) },
      outputs: { y: f(values(n, 2)) },
    })),

  select: () =>
    [...SIZES, ...TASKS].flatMap((n): Case<"select">[] => {
      const condition = i(integers(n, 1, -1, 2));
      const [a, b] = [integers(n, 2, -99, 99), integers(n, 3, -99, 99)];
      const params = {};
      return [
        {
          name: `${n}`,
          params,
          inputs: { condition, a: f(values(n, 2)), b: f(values(n, 3)) },
          outputs: { c: out(n) },
        },
        { name: `i32 ${n}`, params, inputs: { condition, a: i(a), b: i(b) }, outputs: { c: out(n, "i32") } },
      ];
    }),

  cast: () => [
    ...[...SIZES, ...TASKS].flatMap((n): Case<"cast">[] => [
      {
        name: `to i32 ${n}`,
        params: {},
        inputs: { x: f(values(n, 1, -99, 99)) },
        outputs: { y: out(n, "i32") },
      },
      { name: `to f32 ${n}`, params: {}, inputs: { x: i(integers(n, 1, -99, 99)) }, outputs: { y: out(n) } },
    ]),
    {
      name: "towards zero, the ends kept",
      params: {},
      inputs: { x: f([1.9, -1.9, -0.5, 0.5, 2e9, -2e9, 3e9, -3e9]) },
      outputs: { y: out(8, "i32") },
    },
    {
      name: "large integers round",
      params: {},
      inputs: { x: i([16777217, 2147483647, -16777219]) },
      outputs: { y: out(3) },
    },
  ],

  reduce: () =>
    reduceKinds.flatMap((kind) => [
      {
        name: `${kind} of rows with NaN`,
        params: { kind, outer: 2, length: 200, inner: 1 },
        inputs: { x: f(values(400, 1).map((x, at) => (at === 150 ? NaN : x))) },
        outputs: { y: out(2) },
      },
      ...[
        [1, 0, 3],
        [0, 3, 2],
        [1, 1, 1],
        [3, 7, 1],
        [1, 1029, 1],
        [5, 33, 8],
        [2, 70, 5],
        [1, 3, 1003],
        [300, 70, 1],
        [1, 300, 260],
        [2, 9001, 1],
        ...[...past("cpu", "SUM_ELEMENTS"), ...past("webgpu", "REDUCE_PART")].map((length) => [2, length, 1]),
        ...past("webgpu", "REDUCE_ROW").flatMap((length) => [
          [3, length, 1],
          [2, length, 17],
        ]),
        ...past("cpu", "SUM_ROWS").map((length) => [2, length, 33]),
        ...ROW_COUNTS.map((outer) => [outer, ROW_OF_16, 1]),
      ].map(([outer = 0, length = 0, inner = 0]) => ({
        name: `${kind} ${outer}·${length}·${inner}`,
        params: { kind, outer, length, inner },
        inputs: { x: f(values(outer * length * inner, 1)) },
        outputs: { y: out(outer * inner) },
        scale: sumScale(length),
      })),
    ]),

  cumsum: () =>
    [
      [0, 3, 2],
      [3, 0, 2],
      [2, 3, 0],
      [1, 1, 1],
      [3, 7, 1],
      [5, 33, 9],
      [2, 70, 5],
      [1, 3, 1003],
      [300, 70, 1],
      ...past("webgpu", "SCAN_BLOCK").flatMap((length) => [
        [2, length, 1],
        [2, length, 3],
      ]),
      [1, 70_003, 1],
      ...ROW_COUNTS.map((outer) => [outer, ROW_OF_16, 1]),
      // Columns in blocks.
      [2, 5, 700],
    ]
      .flatMap(([outer = 0, length = 0, inner = 0]) =>
        [false, true].map((reverse): Case<"cumsum"> => ({
          name: `${outer}·${length}·${inner}, reverse ${reverse}`,
          params: { outer, length, inner, reverse },
          inputs: { x: f(values(outer * length * inner, 1)) },
          outputs: { y: out(outer * length * inner) },
        })),
      )
      .concat(
        // Digits that a sum in single precision loses, within a block and between blocks.
        [false, true].map((reverse): Case<"cumsum"> => ({
          name: `a large number comes and goes, reverse ${reverse}`,
          params: { outer: 1, length: 5000, inner: 1, reverse },
          inputs: { x: f(values(5000, 1, 0, 1).map((x, l) => (l === 9 ? 1e8 : l === 4300 ? -1e8 : x))) },
          outputs: { y: out(5000) },
        })),
        {
          name: "NaN and infinity stay",
          params: { outer: 1, length: 2100, inner: 2, reverse: false },
          inputs: { x: f(values(4200, 1).map((x, at) => (at === 600 ? NaN : at === 901 ? Infinity : x))) },
          outputs: { y: out(4200) },
        },
      ),

  nearest: () => {
    const of = (
      name: string,
      [rows, count, width]: readonly [number, number, number],
      given: { x?: readonly number[]; y?: readonly number[]; bias?: readonly number[] | null } = {},
      family?: "cpu" | "webgpu",
    ): Case<"nearest"> => {
      const { x = values(rows * width, 1), y = values(count * width, 2), bias = values(count, 3) } = given;
      return {
        name: `${name}, ${rows} rows among ${count} of ${width}`,
        params: { rows, count, width },
        inputs: { x: f(x), y: f(y), ...(bias === null ? {} : { bias: f(bias) }) },
        outputs: { ids: out(rows, "i32"), scores: out(rows) },
        scale: sumScale(width),
        ...(family === undefined ? {} : { family }),
      };
    };
    const kept = block("cpu", "NEAREST_KEPT");
    const width = 70;
    const spiky = (count: number, seed: number): number[] =>
      values(count * width, seed).map((value, at) => (at % width === 66 ? 900 * value : value));
    return [
      of("no rows", [0, 3, 2]),
      of("no width", [2, 3, 0]),
      of("one", [1, 1, 1]),
      of("without bias", [5, 11, 3], { bias: null }),
      ...[1, 2, 3, 4, 5, 6, 7, 9, 17].map((w) => of("odd width", [5, 13, w])),
      ...past("cpu", "TILE_COLS").map((count) => of("columns", [6, count, 20])),
      ...past("cpu", "NEAREST_ROWS").map((rows) => of("rows", [rows, 19, 6])),
      ...past("cpu", "NEAREST_STEPS", 4).map((w) => of("blocks", [9, 21, w])),
      ...past("cpu", "NEAREST_NARROW").map((w) => of("screened wide", [5, 40, w], {}, "cpu")),
      // More equal scores than candidates are kept.
      of("ties", [40, 6 * kept, 3], {
        x: integers(120, 4, -2, 3),
        y: integers(18 * kept, 5, -2, 3),
        bias: integers(6 * kept, 6, 0, 2),
      }),
      of("alike", [3, 2 * kept + 3, 33], { y: new Array<number>((2 * kept + 3) * 33).fill(0.3), bias: null }),
      // The first or the last score is the largest, by less than bytes can distinguish.
      ...[1e-4, -1e-4].map((step) =>
        of("close", [9, 3 * kept, 24], {
          x: values(216, 7, 0.5, 1),
          y: Array.from({ length: 72 * kept }, (_, at) => 1 + step * Math.floor(at / 24)),
          bias: null,
        }),
      ),
      of("one number is large", [24, 90, width], { x: spiky(24, 8), y: spiky(90, 9) }),
      of("zeros", [5, 9, 12], { x: new Array<number>(60).fill(0), y: new Array<number>(108).fill(0) }),
      of("large", [6, 50, 12], { y: values(600, 10, -1e20, 1e20), bias: null }, "cpu"),
      of("small", [6, 50, 12], { x: values(72, 11, -1e-32, 1e-32), bias: null }, "cpu"),
      ...[NaN, Infinity].flatMap((odd) => [
        of("odd x", [5, 9, 4], {
          x: [...values(6, 12, 0.1), odd, ...values(13, 13)],
          y: values(36, 14, 0.5),
        }),
        of("odd y", [5, 9, 4], { x: values(20, 15, 0.5), y: [...values(13, 16), odd, ...values(22, 17)] }),
        of("odd bias", [5, 9, 4], { bias: [...values(7, 18), odd, 0] }),
      ]),
      of("blocks of rows", [block("webgpu", "NEAREST_SCORES") / 8192 + 1, 8192, 2], {}, "webgpu"),
    ];
  },

  topk: () => {
    const of = (
      name: string,
      outer: number,
      inner: number,
      k: number,
      x: readonly number[],
    ): Case<"topk"> => ({
      name: `${name}, ${k} of ${outer}·${x.length / (outer * inner)}·${inner}`,
      params: { outer, length: x.length / (outer * inner), inner, k },
      inputs: { x: f(x) },
      outputs: { indices: out(outer * k * inner, "i32") },
    });
    const empty = { outer: 0, length: 3, inner: 2, k: 2 };
    return [
      { name: "no rows", params: empty, inputs: { x: f([]) }, outputs: { indices: out(0, "i32") } },
      { ...of("none", 2, 3, 0, values(30, 1)) },
      ...[1, 2, 7].map((k) => of("few", 3, 2, k, values(42, k))),
      ...[1, 5, 130].map((k) => of("one row", 1, 1, k, values(1029, k))),
      ...past("webgpu", "ROW_LANES").map((length) =>
        of("lanes", 2, 3, Math.min(3, length), values(6 * length, 4)),
      ),
      ...ROW_COUNTS.map((rows) => of("rows", rows, 1, 2, values(rows * ROW_OF_16, 5))),
      of("all of a row", 1, 1, 260, values(260, 6)),
      // Many are equal.
      ...[1, 9, 200].map((k) => of("ties", 1, 2, k, integers(400, 7, -2, 3))),
      of("alike", 2, 1, 5, new Array<number>(400).fill(0.25)),
      ...[1, 4, 11].map((k) =>
        of("special values", 1, 1, k, [
          -Infinity,
          0,
          -0,
          NaN,
          3e38,
          Infinity,
          NaN,
          1e-40,
          -1e-40,
          -3e38,
          Infinity,
        ]),
      ),
      of("nothing but −∞", 1, 1, 3, [-Infinity, -Infinity, -Infinity]),
    ];
  },

  takeAlong: () =>
    ALONG.map(({ whole, picked, indices, ...c }) => ({
      ...c,
      inputs: { x: f(values(whole, 1)), indices },
      outputs: { out: out(picked) },
    })),

  scatterAddAlong: () =>
    ALONG.map(({ whole, picked, indices, ...c }) => ({
      ...c,
      inputs: { y: f(values(picked, 1)), indices },
      outputs: { out: out(whole) },
    })),

  softmax: () => [
    ...SOFTMAX.map(({ rows, cols, high }): Case<"softmax"> => ({
      name: `${rows} rows of ${cols} up to ${high}`,
      params: { rows, cols },
      inputs: { x: f(values(rows * cols, 1, -high, high)) },
      outputs: { y: out(rows * cols) },
      scale: sumScale(cols) * Math.max(1, high / 10),
    })),
    {
      name: "masked by −∞, in place",
      params: { rows: 2, cols: 5 },
      inputs: { x: f([0, 1, -Infinity, 2, -Infinity, -Infinity, -Infinity, -Infinity, -Infinity, 3]) },
      outputs: {},
      inPlace: "x",
    },
    {
      name: "only −∞, and with +∞, NaN or the largest numbers",
      params: { rows: 5, cols: 3 },
      inputs: { x: f(EXTREME_ROWS) },
      outputs: { y: out(15) },
    },
  ],

  softmaxVjp: () =>
    SOFTMAX.map(({ rows, cols }) => {
      const logits = values(rows * cols, 1, -3, 3);
      const lse = naiveLse(logits, cols);
      return {
        name: `${rows} rows of ${cols}`,
        params: { rows, cols },
        inputs: {
          y: f(logits.map((x, at) => Math.exp(x - lse[Math.floor(at / cols)]))),
          dy: f(values(rows * cols, 2)),
        },
        outputs: { dx: out(rows * cols) },
      };
    }),

  dropout: () => [
    ...[...SIZES, ...TASKS].map((n): Case<"dropout"> => ({
      name: `${n}`,
      params: { ...KEYED, threshold: 5_033_165, scale: 1 / 0.7 },
      inputs: { x: f(values(n, n)) },
      outputs: { y: out(n) },
    })),
    ...[0, 1, 2 ** 24 - 1, 2 ** 24].map((threshold): Case<"dropout"> => ({
      name: `threshold ${threshold}`,
      params: { ...KEYED, key0: -1, threshold, scale: 1 },
      inputs: { x: f(values(1029, 3)) },
      outputs: { y: out(1029) },
    })),
    {
      name: "what is dropped is 0, whatever it was",
      params: { ...KEYED, threshold: 2 ** 23, scale: 2 },
      inputs: { x: f(Array.from({ length: 67 }, (_, n) => [NaN, Infinity, -Infinity, 3e38, -0][n % 5])) },
      outputs: { y: out(67) },
    },
  ],

  logSoftmax: () => [
    ...SOFTMAX.map(({ rows, cols, high }): Case<"logSoftmax"> => ({
      name: `${rows} rows of ${cols} up to ${high}`,
      params: { rows, cols },
      inputs: { x: f(values(rows * cols, 1, -high, high)) },
      outputs: { y: out(rows * cols) },
    })),
    {
      name: "a small probability beside one of almost 1, far from 0",
      params: { rows: 2, cols: 3 },
      inputs: { x: f([1000, 988, 900, -1e6, -1000012, -1000000]) },
      outputs: { y: out(6) },
    },
    {
      name: "masked by −∞, only −∞, and with +∞, NaN or the largest numbers",
      params: { rows: 5, cols: 3 },
      inputs: { x: f(EXTREME_ROWS) },
      outputs: { y: out(15) },
    },
  ],

  logSoftmaxVjp: () =>
    SOFTMAX.map(({ rows, cols }) => {
      const logits = values(rows * cols, 1, -3, 3);
      const lse = naiveLse(logits, cols);
      return {
        name: `${rows} rows of ${cols}`,
        params: { rows, cols },
        inputs: {
          y: f(logits.map((x, at) => x - lse[Math.floor(at / cols)])),
          dy: f(values(rows * cols, 2)),
        },
        outputs: { dx: out(rows * cols) },
        scale: sumScale(cols),
      };
    }),

  gather: () =>
    [
      [0, 4, 3],
      [1, 1, 1],
      [7, 3, 5],
      [33, 8, 4],
      [130, 260, 70],
      [300, 260, 70],
      [3, 4, 0],
      ...ROW_COUNTS.map((rows) => [rows, ROW_OF_16, 5]),
    ].map(([rows = 0, width = 0, tableRows = 0]) => ({
      name: `${rows} rows of ${width} from ${tableRows}`,
      params: { rows, width, tableRows },
      inputs: { table: f(values(tableRows * width, 1)), ids: i(integers(rows, 2, -1, tableRows + 1)) },
      outputs: { out: out(rows * width) },
    })),

  scatterAdd: () =>
    [
      [0, 4, 3],
      [1, 1, 1],
      [7, 3, 5],
      [33, 8, 4],
      [260, 130, 70],
      [700, 130, 70],
      [3, 4, 0],
      ...past("cpu", "TABLE_RANGES").map((tableRows) => [90, 3, tableRows]),
    ].flatMap(([rows = 0, width = 0, tableRows = 0]) =>
      [false, true].map((accumulate) => ({
        name: `${rows} rows of ${width} into ${tableRows}, accumulate ${accumulate}`,
        params: { rows, width, tableRows, accumulate },
        inputs: { x: f(values(rows * width, 1)), ids: i(integers(rows, 2, -1, tableRows + 1)) },
        outputs: { out: f(values(tableRows * width, 3)) },
      })),
    ),

  gemm: () => {
    const NN = { transA: false, transB: false };
    const activations: readonly Activation[] = ["none", "gelu", "relu", "silu"];
    return [
      ...TRANSPOSES.flatMap((trans) =>
        [
          [1, 1, 1],
          [0, 3, 2],
          [3, 0, 2],
          [3, 2, 0],
          [1, 33, 70],
          [33, 1, 70],
          [6, 8, 4],
          [6, 16, 32],
          [7, 9, 5],
          [12, 24, 64],
          [13, 31, 129],
          [65, 70, 300],
          [150, 133, 65],
        ].flatMap(([m = 0, n = 0, k = 0]) => [
          gemmCase("plain", { m, n, k, ...trans }),
          gemmCase(
            "bias, alpha, accumulate",
            { m, n, k, ...trans },
            { bias: true, alpha: -0.5, accumulate: true },
          ),
        ]),
      ),
      ...TRANSPOSES.flatMap((trans) => [
        gemmCase("batch 5", { m: 7, n: 9, k: 5, ...trans }, { batch: 5 }),
        gemmCase(
          "batch 4, shared b, bias",
          { m: 13, n: 10, k: 17, ...trans },
          { batch: 4, strideB: 0, bias: true },
        ),
        gemmCase(
          "batch 3, gaps",
          { m: 5, n: 6, k: 7, ...trans },
          { batch: 3, strideA: 41, strideB: 50, strideC: 37 },
        ),
        gemmCase("batch 9, accumulate", { m: 33, n: 34, k: 35, ...trans }, { batch: 9, accumulate: true }),
      ]),
      gemmCase("batch 0", { m: 2, n: 3, k: 4, ...NN }, { batch: 0 }),
      ...activations.flatMap((activation) =>
        [false, true].flatMap((slope) => [
          gemmCase(
            `${activation}, slope ${slope}`,
            { m: 13, n: 31, k: 20, ...NN },
            { activation, slope, bias: true },
          ),
          gemmCase(
            `${activation}, slope ${slope}, large`,
            { m: 70, n: 90, k: 33, ...NN, transB: true },
            { activation, slope, alpha: 6 },
          ),
        ]),
      ),
      gemmCase(
        "batch 3, slope, gelu",
        { m: 5, n: 6, k: 7, ...NN },
        { batch: 3, slope: true, activation: "gelu", bias: true },
      ),
      ...blockedGemms(),
    ];
  },

  gemmSegmented: () => [
    segmentedCase("no rows", { rows: 0, m: 3, n: 2 }, [0, 0, 0], { target: 1 }),
    segmentedCase("no segments", { rows: 4, m: 3, n: 2 }, [2]),
    segmentedCase("one row", { rows: 1, m: 1, n: 1 }, [0, 1], { v: true }),
    segmentedCase("target first", { rows: 40, m: 6, n: 8 }, ragged(40), { target: 2, first: 2 }),
    segmentedCase("target first, counted in the total", { rows: 40, m: 7, n: 9 }, ragged(40), { target: 3 }),
    segmentedCase("direction given", { rows: 37, m: 33, n: 70 }, ragged(37), { v: true }),
    segmentedCase("direction given, target first too", { rows: 37, m: 13, n: 10 }, ragged(37), {
      v: true,
      target: 2,
    }),
    segmentedCase("accumulate", { rows: 37, m: 13, n: 31 }, ragged(37), {
      target: 1,
      first: 1,
      accumulate: true,
    }),
    segmentedCase("nothing accumulated", { rows: 20, m: 5, n: 6 }, ragged(20), { target: 1, first: 6 }),
    segmentedCase("nothing accumulated, kept", { rows: 20, m: 5, n: 6 }, ragged(20), {
      first: 6,
      accumulate: true,
    }),
    segmentedCase("no total", { rows: 20, m: 5, n: 6 }, ragged(20), { target: 1, total: false }),
    segmentedCase("groups", { rows: 60, m: 12, n: 17 }, ragged(60), {
      target: 2,
      first: 2,
      groups: [2, 3, 3, 6],
    }),
    segmentedCase("groups, a given direction", { rows: 60, m: 9, n: 9 }, ragged(60), {
      v: true,
      groups: [0, 4],
    }),
    segmentedCase("one segment for each row", { rows: 9, m: 9, n: 5 }, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], {
      target: 1,
    }),
    segmentedCase("no direction", { rows: 9, m: 4, n: 5 }, [0, 3, 9]),
    // Inner products of rows two by two, with a row that is left over and columns that are.
    ...[false, true].map((v) =>
      segmentedCase(
        `one to eight rows, direction given ${v}`,
        { rows: 41, m: 33, n: 47 },
        offsets([1, 2, 3, 4, 5, 6, 7, 8, 0, 4], 1),
        { v, target: 1, groups: [0, 2, 9] },
      ),
    ),
    segmentedCase("large", { rows: 261, m: 130, n: 100 }, [0, 64, 129, 190, 261], {
      target: 1,
      first: 1,
      groups: [1, 3, 4],
      accumulate: true,
    }),
    // Several tiles of a GPU, segments of less and more than a slice of rows, ranges of segments and of groups.
    ...[false, true].map((accumulate) =>
      segmentedCase(
        `slices, accumulate ${accumulate}`,
        { rows: 120, m: 67, n: 130 },
        offsets([33, 0, 16, 1, 17, 48], 2),
        { v: true, first: 1, accumulate },
      ),
    ),
    // More segments than ranges, and the larger tile.
    segmentedCase("many segments", { rows: 300, m: 100, n: 70 }, offsets(integers(260, 1, 0, 3), 1), {
      v: true,
      first: 3,
      accumulate: true,
    }),
    segmentedCase("one segment, accumulate", { rows: 37, m: 66, n: 65 }, [1, 36], {
      v: true,
      accumulate: true,
    }),
    ...[
      { first: 0, accumulate: true },
      { first: 1, groups: [1, 1, 2, 4, 4] },
      { first: 1, accumulate: true },
      { first: 3, groups: [4, 4, 5, 6, 6], accumulate: true },
      { first: 3, accumulate: true },
      { first: 5 },
      { first: 5, groups: [0, 2, 7] },
      { first: 7, groups: [2, 6] },
    ].map((more) =>
      segmentedCase(
        `three make the direction, total from ${more.first}, groups ${more.groups?.join() ?? "none"}`,
        { rows: 52, m: 66, n: 9 },
        offsets([5, 18, 0, 9, 0, 3, 15], 1),
        { target: 3, ...more },
      ),
    ),
    ...[
      ...past("cpu", "SEGMENTED_TILE_ROWS").map((m) => ({ m, n: 16, family: "cpu" as const })),
      ...past("cpu", "SEGMENTED_TILE_COLS").map((n) => ({ m: 12, n, family: "cpu" as const })),
      ...past("cpu", "SEGMENTED_ROWS").map((m) => ({ m, n: 9, family: "cpu" as const })),
      ...past("cpu", "SEGMENTED_COLS").map((n) => ({ m: 5, n, family: "cpu" as const })),
      ...past("cpu", "SEGMENTED_TASKS").map((tasks) => ({
        m: 9,
        n: block("cpu", "SEGMENTED_COLS") * tasks - 90,
        family: "cpu" as const,
      })),
      ...around(64).map((m) => ({ m, n: 9, family: "webgpu" as const })),
      ...around(64).map((n) => ({ m: 5, n, family: "webgpu" as const })),
      ...past("webgpu", "SEGMENT_LANES").map((tiles) => ({ m: 64 * tiles, n: 9, family: "webgpu" as const })),
    ].map(({ m, n, family }): Case<"gemmSegmented"> => ({
      ...segmentedCase("blocks", { rows: 52, m, n }, offsets([5, 18, 0, 9, 0, 3, 15], 1), {
        ...{ target: 3, first: 1, accumulate: true },
      }),
      family,
    })),
    // Segments of several chunks of the cpu, and rows that it reads in place or copies.
    ...past("cpu", "SEGMENTED_CHUNK").flatMap((long) =>
      [
        { v: true, first: 1, accumulate: true },
        { target: 1, first: 1, groups: [0, 1, 3] },
        { total: false, groups: [1, 3] },
      ].map((more) =>
        segmentedCase(
          "chunks",
          { rows: 2 * long + 40, m: 20, n: 24 },
          [1, long + 1, 2 * long + 1, 2 * long + 40],
          more,
        ),
      ),
    ),
    // Rows of 64 and of 192 elements are at a distance of a multiple of 256 bytes.
    ...past("cpu", "SEGMENTED_NEAR", 1 / 256).flatMap((k) =>
      [
        { m: 12, n: 64 },
        { m: 192, n: 16 },
      ].map((size) => segmentedCase("near", { rows: 2 * k, ...size }, [0, k, 2 * k], { v: true })),
    ),
    // Few rows per segment, which the cpu takes row by row: chunks, passes and blocks of the longer factor, either of the two; long segments between.
    ...past("cpu", "ALIGN_CHUNK").flatMap((long) => [
      segmentedCase(
        "one row per segment",
        { rows: 40, m: 19, n: long },
        offsets(Array<number>(38).fill(1), 1),
        {
          ...{ v: true, first: 2, accumulate: true },
        },
      ),
      segmentedCase("few rows", { rows: 101, m: long, n: 18 }, offsets(integers(60, 3, 0, 3), 1), {
        ...{ target: 2, first: 1, groups: [0, 3, 3, 60] },
      }),
    ]),
    // Many zeros, of either factor, which the cpu skips: past its rows of a task, columns of a panel, products of a pass.
    ...[
      ...past("cpu", "SKIP_K").flatMap((k) => [
        segmentedCase("zeros in a", { rows: 9, m: k, n: 40 }, offsets(Array<number>(8).fill(1), 1), {
          ...{ v: true, zeros: [0.6, 0] },
        }),
        segmentedCase("zeros in b", { rows: 9, m: 40, n: k }, offsets(Array<number>(8).fill(1), 0), {
          ...{ target: 2, first: 1, zeros: [0, 0.6] },
        }),
      ]),
      ...past("cpu", "SKIP_COLS").flatMap((columns) => [
        segmentedCase("zeros in a", { rows: 20, m: 133, n: columns }, offsets(Array<number>(19).fill(1), 1), {
          ...{ v: true, zeros: [0.8, 0] },
        }),
        segmentedCase("zeros in b", { rows: 21, m: columns, n: 90 }, offsets(Array<number>(10).fill(2), 1), {
          ...{ v: true, zeros: [0, 0.8] },
        }),
      ]),
      ...[1, 2].flatMap((times) =>
        past("cpu", "SKIP_NARROW", times).map((n) =>
          segmentedCase("zeros in a", { rows: 9, m: 133, n }, offsets(Array<number>(8).fill(1), 1), {
            ...{ v: true, zeros: [0.7, 0] },
          }),
        ),
      ),
      ...past("cpu", "SKIP_NARROW_K").map((n) =>
        segmentedCase("zeros in b", { rows: 9, m: 10, n }, offsets(Array<number>(8).fill(1), 1), {
          ...{ v: true, zeros: [0, 0.7] },
        }),
      ),
      ...[...past("cpu", "SKIP_ROWS"), ...past("cpu", "SKIP_SAMPLE")].map((rows) =>
        segmentedCase("zeros in both", { rows, m: 66, n: 35 }, offsets(Array<number>(rows).fill(1), 0), {
          ...{ v: true, zeros: [0.7, 0.5] },
        }),
      ),
      segmentedCase("zeros, blocks of columns", { rows: 5, m: 70, n: 600 }, [0, 1, 2, 3, 4, 5], {
        ...{ v: true, zeros: [0.7, 0] },
      }),
      segmentedCase("nothing but zeros", { rows: 12, m: 70, n: 40 }, offsets(Array<number>(12).fill(1), 0), {
        ...{ v: true, zeros: [1, 1] },
      }),
    ].map((c): Case<"gemmSegmented"> => ({ ...c, family: "cpu" })),
    segmentedCase(
      "few rows, several passes and blocks",
      { rows: 130, m: 140, n: 1100 },
      offsets(Array<number>(43).fill(3), 1),
      {
        ...{ v: true, groups: [2, 4, 40] },
      },
    ),
    segmentedCase(
      "a long segment first",
      { rows: 160, m: 30, n: 33 },
      offsets([90, ...Array<number>(60).fill(1)], 2),
      {
        ...{ target: 1, first: 1 },
      },
    ),
    segmentedCase(
      "few rows, norms alone",
      { rows: 64, m: 30, n: 33 },
      offsets(Array<number>(32).fill(2), 0),
      {
        total: false,
      },
    ),
    segmentedCase("all make the direction", { rows: 30, m: 9, n: 66 }, [0, 11, 30], { target: 2, first: 2 }),
    segmentedCase("groups only of nothing", { rows: 9, m: 4, n: 5 }, [0, 3, 9], {
      v: true,
      groups: [2, 2, 2],
    }),
  ],

  segmentSum: () =>
    [
      [0, 3],
      [1, 1],
      [37, 3],
      [40, 33],
      [300, 250],
    ]
      .flatMap(([rows = 0, width = 0]) =>
        [false, true].flatMap((withY) =>
          [false, true].map((accumulate): Case<"segmentSum"> => ({
            name: `${rows} rows of ${width}, y ${withY}, accumulate ${accumulate}`,
            params: { rows, width, segmentCount: 6, outStride: apart(width, rows), accumulate },
            inputs: {
              x: f(values(rows * width, 1)),
              y: withY ? f(values(rows * width, 2)) : null,
              segments: i(ragged(rows)),
            },
            outputs: { out: f(values(5 * apart(width, rows) + width, 3)) },
            scale: sumScale(rows),
          })),
        ),
      )
      // Long segments, which a GPU takes in parts.
      .concat(
        [...[[600], [301, 0, 599], [7, 590, 3]], ...SEGMENTS].map((lengths): Case<"segmentSum"> => {
          const [rows, width, segmentCount] = [rowsOf(lengths), 67, lengths.length];
          const outStride = apart(width, lengths[0]);
          return {
            name: `segments of ${lengths.join()} rows`,
            params: { rows, width, segmentCount, outStride, accumulate: segmentCount > 1 },
            inputs: { x: f(values(rows * width, 1)), segments: i(offsets(lengths, 4)) },
            outputs: { out: f(values((segmentCount - 1) * outStride + width, 3)) },
            scale: sumScale(rows),
          };
        }),
      )
      // Short segments, which the cpu takes several in a task.
      .concat(
        past("cpu", "TASK_ELEMENTS").flatMap((elements) =>
          [false, true].map((accumulate): Case<"segmentSum"> => {
            const width = 37;
            const lengths = integers(Math.ceil(elements / width), 3, 0, 3);
            const [rows, segmentCount] = [rowsOf(lengths), lengths.length];
            return {
              name: `${segmentCount} short segments, accumulate ${accumulate}`,
              params: { rows, width, segmentCount, outStride: width + 1, accumulate },
              inputs: { x: f(values(rows * width, 1)), segments: i(offsets(lengths, 4)) },
              outputs: { out: f(values((segmentCount - 1) * (width + 1) + width, 3)) },
              scale: sumScale(4),
            };
          }),
        ),
      )
      .concat(
        past("webgpu", "COLUMN_WIDTH").map((width): Case<"segmentSum"> => ({
          name: `columns ${width}`,
          params: { rows: 70, width, segmentCount: 2, outStride: width, accumulate: true },
          inputs: { x: f(values(70 * width, 1)), y: f(values(70 * width, 2)), segments: i([1, 33, 69]) },
          outputs: { out: f(values(2 * width, 3)) },
          scale: 2,
        })),
      ),

  alignRows: () =>
    [
      [0, 3],
      [1, 0],
      [1, 1],
      [7, 33],
      [70, 1029],
      ...ROW_SIZES.map((width) => [5, width]),
      ...ROW_COUNTS.map((rows) => [rows, ROW_OF_16]),
    ].map(([rows = 0, width = 0]) => ({
      name: `${rows} rows of ${width}`,
      params: { rows, width },
      inputs: { g: f(values(rows * width, 1)), v: f(values(width, 2)) },
      outputs: { dots: out(rows), sumsq: out(rows) },
      scale: sumScale(width),
    })),

  embeddingAlign: () => [
    embeddingCase("no rows", 0, 4, 3, [0, 0]),
    embeddingCase("no segments", 3, 4, 3, [1]),
    embeddingCase("one", 1, 1, 1, [0, 1]),
    embeddingCase("ragged", 41, 7, 5, ragged(41)),
    embeddingCase("no direction", 41, 8, 5, ragged(41), { v: false }),
    embeddingCase("groups", 60, 9, 6, ragged(60), { groups: [1, 3, 3, 5] }),
    embeddingCase("groups, no direction", 60, 9, 40, ragged(60), { groups: [0, 6], v: false }),
    embeddingCase("large", 300, 130, 70, [0, 64, 129, 300], { groups: [0, 1, 3] }),
    ...past("cpu", "SORT_FEW").map((rows) =>
      embeddingCase("sorted by insertion or by digits", rows + 20, 3, 50, [0, rows, rows + 20], {
        groups: [0, 1, 2],
      }),
    ),
    // Digits of the sort by id; without a direction there is no table to have.
    ...[
      ...past("cpu", "SORT_VALUES").map((tableRows) => ({ tableRows, v: true })),
      ...past("cpu", "SORT_VALUES", block("cpu", "SORT_VALUES")).map((tableRows) => ({
        tableRows,
        v: false,
      })),
    ].map(({ tableRows, v }): Case<"embeddingAlign"> => {
      const c = embeddingCase("digits", 340, 3, tableRows, [0, 170, 171, 340], { v, groups: [0, 1, 3] });
      // Few ids, far apart, which have some digits in common.
      const digit = 2 ** block("cpu", "SORT_BITS");
      const ids = [
        0,
        1,
        digit - 1,
        digit,
        digit + 1,
        2 * digit,
        digit * digit,
        digit * digit + 1,
        tableRows - 1,
      ];
      return {
        ...c,
        inputs: { ...c.inputs, ids: i(integers(340, 5, 0, ids.length).map((n) => ids[n] % tableRows)) },
      };
    }),
  ],

  norm: () =>
    NORMS.flatMap((s) =>
      [
        [false, false],
        [true, false],
        [false, true],
        [true, true],
      ].map(([gain = false, bias = false]): Case<"norm"> => ({
        name: `${normName(s)}, gain ${gain}, bias ${bias}`,
        params: { kind: s.kind, rows: s.rows, width: s.width, eps: EPS },
        inputs: {
          x: f(normX(s)),
          gain: gain ? f(values(s.width, 2)) : null,
          bias: bias ? f(values(s.width, 3)) : null,
        },
        outputs: { y: out(s.rows * s.width), stats: out(2 * s.rows) },
        scale: normScale(s),
      })),
    ).concat(
      NORMS.map((s) => ({
        name: `${normName(s)}, of a sum`,
        params: { kind: s.kind, rows: s.rows, width: s.width, eps: EPS },
        inputs: { x: f(normX(s)), gain: f(values(s.width, 2)), residual: f(values(s.rows * s.width, 5)) },
        outputs: { y: out(s.rows * s.width), stats: out(2 * s.rows), sum: out(s.rows * s.width) },
        scale: normScale(s),
      })),
      // Their squares overflow, or vanish.
      (["layer", "rms"] as const).flatMap((kind) =>
        [1e30, 1e25, 1e-15, 1e-30].map((size) => ({
          name: `${kind} rows of about ${size}`,
          params: { kind, rows: 3, width: 33, eps: EPS },
          inputs: { x: f(values(99, 1).map((x) => x * size + size)) },
          outputs: { y: out(99), stats: out(6) },
          scale: 1,
        })),
      ),
    ),

  normVjp: () =>
    NORMS.flatMap((s) =>
      [
        [false, false],
        [true, false],
        [true, true],
      ].map(([gain = false, also = false]) => ({
        name: `${normName(s)}, gain ${gain}, also ${also}`,
        params: { kind: s.kind, rows: s.rows, width: s.width },
        inputs: {
          x: f(normX(s)),
          gain: gain ? f(values(s.width, 2)) : null,
          stats: normStats(s),
          dy: f(values(s.rows * s.width, 4)),
          also: also ? f(values(s.rows * s.width, 5)) : null,
        },
        outputs: { dx: out(s.rows * s.width) },
        scale: normScale(s),
      })),
    ),

  normJvp: () =>
    NORMS.flatMap((s) =>
      [
        [false, false, false],
        [true, false, false],
        [true, true, false],
        [true, true, true],
        [false, false, true],
      ].map(([gain = false, dgain = false, dbias = false]) => ({
        name: `${normName(s)}, gain ${gain}, dgain ${dgain}, dbias ${dbias}`,
        params: { kind: s.kind, rows: s.rows, width: s.width },
        inputs: {
          x: f(normX(s)),
          gain: gain ? f(values(s.width, 2)) : null,
          stats: normStats(s),
          dx: f(values(s.rows * s.width, 4)),
          dgain: dgain ? f(values(s.width, 5)) : null,
          dbias: dbias ? f(values(s.width, 6)) : null,
        },
        outputs: { dy: out(s.rows * s.width) },
        scale: normScale(s),
      })),
    ),

  normGainGrad: () =>
    NORMS.flatMap((s) =>
      [false, true].map((accumulate) => ({
        name: `${normName(s)}, accumulate ${accumulate}`,
        params: {
          ...{ kind: s.kind, rows: s.rows, width: s.width },
          ...{ segmentCount: 6, outStride: apart(s.width, s.rows), accumulate },
        },
        inputs: {
          x: f(normX(s)),
          stats: normStats(s),
          dy: f(values(s.rows * s.width, 4)),
          segments: i(ragged(s.rows)),
        },
        outputs: { dgain: f(values(5 * apart(s.width, s.rows) + s.width, 5)) },
        scale: normScale(s) * sumScale(s.rows),
      })),
    ).concat(
      // Long segments, which a GPU takes in parts.
      [...[[600], [301, 0, 599]], ...SEGMENTS].map((lengths) => {
        const s = { kind: "layer" as const, rows: rowsOf(lengths), width: 67, offset: 0 };
        const outStride = apart(s.width, lengths[0]);
        return {
          name: `segments of ${lengths.join()} rows`,
          params: {
            ...{ kind: s.kind, rows: s.rows, width: s.width },
            ...{ segmentCount: lengths.length, outStride, accumulate: lengths.length > 1 },
          },
          inputs: {
            x: f(normX(s)),
            stats: normStats(s),
            dy: f(values(s.rows * s.width, 4)),
            segments: i(offsets(lengths, 4)),
          },
          outputs: { dgain: f(values((lengths.length - 1) * outStride + s.width, 5)) },
          scale: normScale(s) * sumScale(s.rows),
        };
      }),
    ),

  rope: () =>
    [
      { batch: 0, time: 3, cols: 4, heads: 1, headDim: 4 },
      { batch: 1, time: 1, cols: 2, heads: 1, headDim: 2 },
      { batch: 2, time: 5, cols: 16, heads: 2, headDim: 8 },
      { batch: 1, time: 33, cols: 23, heads: 3, headDim: 6 },
      { batch: 3, time: 129, cols: 96, heads: 4, headDim: 16 },
      { batch: 2, time: 1, cols: 12, heads: 2, headDim: 6, offset: 77 },
      { batch: 1, time: 5, cols: 9, heads: 1, headDim: 8, offset: 100_003 },
      ...past("webgpu", "ROPE_BLOCK").map((offset) => ({
        ...{ batch: 2, time: 3, cols: 4, heads: 1, headDim: 4, offset },
      })),
    ].flatMap(({ offset = 0, ...shape }) =>
      [false, true].flatMap((inverse): Case<"rope">[] => {
        const size = shape.batch * shape.time * shape.cols;
        const common = {
          params: { ...shape, theta: 10000, offset, inverse },
          inputs: { x: f(values(size, 1)) },
          // An angle of up to `time` radians has that many ulps.
          scale: Math.max(1, shape.time / 32),
        };
        const name = `batch ${shape.batch}, time ${shape.time}, ${shape.heads}·${shape.headDim} of ${shape.cols}, from ${offset}, inverse ${inverse}`;
        return [
          { ...common, name, outputs: { y: out(size) } },
          { ...common, name: `${name}, in place`, outputs: {}, inPlace: "x" },
        ];
      }),
    ),

  attention: () =>
    ATTENTIONS.map((p) => ({
      name: attentionName(p),
      params: p,
      inputs: { qkv: f(attentionQkv(p)) },
      outputs: { o: out(outSize(p)), lse: out(p.batch * p.time * p.heads) },
      scale: attentionScale(p),
    })).concat(
      // NaN in a query is seen by its own row alone.
      [9, 33].map((time) => {
        const p = { batch: 1, time, heads: 2, kvHeads: 1, headDim: 9, scale: 0.33 };
        const cols = (p.heads + 2 * p.kvHeads) * p.headDim;
        const bad = [(time - 1) * cols + 3, Math.floor(time / 2) * cols + p.headDim + 2];
        return {
          name: `NaN in two queries of ${time}`,
          params: p,
          inputs: { qkv: f(attentionQkv(p).map((x, at) => (bad.includes(at) ? NaN : x))) },
          outputs: { o: out(outSize(p)), lse: out(p.batch * p.time * p.heads) },
          scale: attentionScale(p),
        };
      }),
    ),

  attentionVjp: () =>
    ATTENTIONS.map((p) => {
      const qkv = attentionQkv(p);
      const { o, lse } = naiveAttention(p, qkv);
      return {
        name: attentionName(p),
        params: p,
        inputs: { qkv: f(qkv), o: f(o), lse: f(lse), dOut: f(values(outSize(p), 2)) },
        outputs: { dqkv: out(qkvSize(p)) },
        scale: attentionScale(p),
      };
    }),

  attentionJvp: () =>
    ATTENTIONS.map((p) => {
      const qkv = attentionQkv(p);
      const { o, lse } = naiveAttention(p, qkv);
      return {
        name: attentionName(p),
        params: p,
        inputs: { qkv: f(qkv), o: f(o), lse: f(lse), dqkv: f(values(qkvSize(p), 2)) },
        outputs: { dOut: out(outSize(p)) },
        scale: attentionScale(p),
      };
    }),

  maskedAttention: () =>
    MASKED.map((s): Case<"maskedAttention"> => {
      const { params, given } = maskedCall(s);
      const queries = s.batch * s.heads * s.time;
      return {
        name: maskedName(s),
        params,
        inputs: maskedInputs(given),
        outputs: { o: out(queries * s.headDim), lse: out(queries) },
        scale: maskedScale(s),
      };
    }).concat(
      [false, true].map((causal): Case<"maskedAttention"> => {
        const s = { ...MASKED[4], causal, mask: "own" as const };
        const { params, given } = maskedCall(s);
        const queries = s.batch * s.heads * s.time;
        return {
          name: `NaN in a query, a key and the mask, causal ${causal}`,
          params,
          inputs: maskedInputs({
            ...{ q: spoilt(given.q, 40), k: spoilt(given.k, 39), v: given.v },
            mask: given.mask && spoilt(given.mask, 37),
          }),
          outputs: { o: out(queries * s.headDim), lse: out(queries) },
          scale: maskedScale(s),
        };
      }),
    ),

  maskedAttentionVjp: () =>
    MASKED.map((s) => {
      const { params } = maskedCall(s);
      const queries = s.batch * s.heads * s.time * s.headDim;
      const keys = s.batch * s.kvHeads * s.keys * s.headDim;
      return {
        name: maskedName(s),
        params,
        inputs: { ...maskedSaved(s), dOut: f(values(queries, 5)) },
        outputs: { dq: out(queries), dk: out(keys), dv: out(keys) },
        scale: maskedScale(s),
      };
    }),

  maskedAttentionJvp: () =>
    MASKED.map((s) => {
      const { params } = maskedCall(s);
      const queries = s.batch * s.heads * s.time * s.headDim;
      const keys = s.batch * s.kvHeads * s.keys * s.headDim;
      return {
        name: maskedName(s),
        params,
        inputs: {
          ...maskedSaved(s),
          ...{ dq: f(values(queries, 5)), dk: f(values(keys, 6)), dv: f(values(keys, 7)) },
        },
        outputs: { dOut: out(queries) },
        scale: maskedScale(s),
      };
    }),

  crossEntropy: () => [
    ...LOSSES.map((s): Case<"crossEntropy"> => ({
      name: lossName(s),
      params: { rows: s.rows, cols: s.cols },
      inputs: { logits: f(lossLogits(s)), targets: lossTargets(s) },
      outputs: { losses: out(s.rows), lse: out(s.rows) },
    })),
    ...[0, 1].map((target): Case<"crossEntropy"> => ({
      name: `target ${target} among −∞, +∞, NaN and the largest numbers`,
      params: { rows: 5, cols: 3 },
      inputs: { logits: f(EXTREME_ROWS), targets: i(new Array<number>(5).fill(target)) },
      outputs: { losses: out(5), lse: out(5) },
    })),
  ],

  crossEntropyVjp: () =>
    LOSSES.flatMap((s): Case<"crossEntropyVjp">[] => {
      const logits = lossLogits(s);
      const common = {
        params: { rows: s.rows, cols: s.cols },
        inputs: {
          logits: f(logits),
          targets: lossTargets(s),
          lse: f(naiveLse(logits, s.cols)),
          dlosses: f(values(s.rows, 3)),
        },
        scale: lossScale(s),
      };
      return [
        { ...common, name: lossName(s), outputs: { dlogits: out(s.rows * s.cols) } },
        { ...common, name: `${lossName(s)}, dlogits is logits`, outputs: {}, inPlace: "logits" },
      ];
    }).concat({
      name: "among −∞, +∞, NaN and the largest numbers",
      params: { rows: 5, cols: 3 },
      // As the forward pass leaves them.
      inputs: {
        logits: f(EXTREME_ROWS),
        targets: i([0, 1, 2, 0, 1]),
        lse: f([NaN, NaN, NaN, 3e38, 5.3132617]),
        dlosses: f([1, 1, 1, 1, 1]),
      },
      outputs: { dlogits: out(15) },
    }),

  crossEntropyJvp: () =>
    LOSSES.map((s) => {
      const logits = lossLogits(s);
      return {
        name: lossName(s),
        params: { rows: s.rows, cols: s.cols },
        inputs: {
          logits: f(logits),
          targets: lossTargets(s),
          lse: f(naiveLse(logits, s.cols)),
          dlogits: f(values(s.rows * s.cols, 3)),
        },
        outputs: { dlosses: out(s.rows) },
        scale: lossScale(s),
      };
    }),

  swiglu: () => [
    {
      name: "far values",
      params: { rows: 1, width: 6 },
      inputs: { x: f([1e30, -1e30, -1e38, -Infinity, -100, 1e-30, 1e-30, 1e30, 1e38, 2, 1e30, 1e30]) },
      outputs: { y: out(6) },
    },
    ...SWIGLU.map(({ rows, width }): Case<"swiglu"> => ({
      name: `${rows} rows of ${width}`,
      params: { rows, width },
      inputs: { x: f(values(2 * rows * width, 1, -4, 4)) },
      outputs: { y: out(rows * width) },
    })),
    {
      name: "large values",
      params: { rows: 1, width: LARGE.length },
      inputs: { x: f([...LARGE, ...LARGE]) },
      outputs: { y: out(LARGE.length) },
    },
  ],

  swigluVjp: () =>
    SWIGLU.map(({ rows, width }) => ({
      name: `${rows} rows of ${width}`,
      params: { rows, width },
      inputs: { x: f(values(2 * rows * width, 1, -4, 4)), dy: f(values(rows * width, 2)) },
      outputs: { dx: out(2 * rows * width) },
    })),

  swigluJvp: () =>
    SWIGLU.map(({ rows, width }) => ({
      name: `${rows} rows of ${width}`,
      params: { rows, width },
      inputs: { x: f(values(2 * rows * width, 1, -4, 4)), dx: f(values(2 * rows * width, 2)) },
      outputs: { dy: out(rows * width) },
    })),

  sumSquares: () =>
    DOTS.map((n) => ({
      name: `${n}`,
      params: {},
      inputs: { x: f(values(n, 1, -3, 3)) },
      outputs: { out: out(1) },
    })),

  dot: () =>
    DOTS.map((n) => ({
      name: `${n}`,
      params: {},
      inputs: { x: f(values(n, 1)), y: f(values(n, 2)) },
      outputs: { out: out(1) },
    })),

  clipScale: () =>
    [0, 0.25, 1, 4, 1e10, Infinity, NaN].map((sumsq) => ({
      name: `${sumsq}`,
      params: { maxNorm: 1 },
      inputs: { sumsq: f([sumsq]) },
      outputs: { scale: out(1) },
    })),

  sgd: () =>
    STEPS.flatMap((n) =>
      [0, 0.9].flatMap((momentum) =>
        SCALES.map((gradScale) => {
          const nesterov = momentum > 0 && gradScale !== null;
          return {
            name: `${n} elements, momentum ${momentum}${nesterov ? " (Nesterov)" : ""}, scale ${gradScale}`,
            params: { lr: 0.1, momentum, nesterov, weightDecay: gradScale === null ? 0 : 0.2 },
            inputs: {
              grad: f(gradients(n, gradScale)),
              gradScale: gradScale === null ? null : f([gradScale]),
            },
            outputs: { value: f(values(n, 2)), velocity: momentum === 0 ? null : f(values(n, 3)) },
          };
        }),
      ),
    ),

  adam: adamCases,
  adamw: adamCases,

  random: () =>
    [0, 1, 2, 7, 33, 70_003].flatMap((n) =>
      [
        { key0: 0, key1: 0, offset: 0 },
        { key0: 0x13198a2e, key1: 0xffffffff, offset: 2 ** 31 + 5 },
      ].flatMap((where): Case<"random">[] => [
        {
          name: `bits ${n}`,
          params: { kind: "bits", ...where },
          inputs: {},
          outputs: { out: out(n, "i32") },
        },
        { name: `uniform ${n}`, params: { kind: "uniform", ...where }, inputs: {}, outputs: { out: out(n) } },
        { name: `normal ${n}`, params: { kind: "normal", ...where }, inputs: {}, outputs: { out: out(n) } },
      ]),
    ),
};
