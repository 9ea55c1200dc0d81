/**
 * THE table of kernels: what each computes, its parameters, its operands, and how closely a backend must agree with
 * the double-precision reference. A backend implements all of them; tests enumerate this table.
 *
 * Conventions: everything is contiguous and row-major; extents and strides count elements; operands are f32 unless a
 * comment says i32; `| null` operands may be left out. Kernels marked "in place" allow the named output to be the
 * named input. Sums run in a fixed order that depends on the shapes only, so that results are the same bits for any
 * number of threads. NaN in gives NaN out, also of relu, max and min (not of what `compare` and `select` decide, of 1ᵖ and x⁰, and of what `dropout` drops). An in-place output is exactly the named input
 * (same offset and size); no other output may overlap an input or another output. Segment and group offsets ascend.
 *
 * Statistics that decide norms and alignments (dots, sumsq, groupSumsq, vSumsq, the results of dot and sumSquares) are
 * summed beyond single precision: on the cpu in doubles (a segment's gradient tile by tile, each tile of 32 in f32, or its rows' alignments in chunks of ALIGN_CHUNK), on
 * a GPU by compensated sums (Neumaier 1974) in parts of fixed size. However long a sum is and however it cancels, a sum
 * Σ x·y of f32 numbers has |error| ≤ STATISTICS·‖x‖·‖y‖.
 */
import { GradmixError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import type { View } from "../tensor/memory.ts";
import { show } from "../options.ts";
import { formatShape, sizeOf } from "../tensor/shape.ts";

export type UnaryKind =
  | "neg" | "exp" | "log" | "sqrt" | "rsqrt" | "square" | "reciprocal" | "abs"
  | "tanh" | "sigmoid" | "relu" | "silu"
  /** Tanh approximation, as in GPT-2 ("gelu_new"). */
  | "gelu" | "sin" | "cos"
  /** The error function; and GELU by it, x·Φ(x) with the normal distribution's Φ (Hendrycks & Gimpel 2016). */
  | "erf" | "geluErf"
  /** log(1 + eˣ); log(1 + x) and eˣ − 1 without cancellation near 0. */
  | "softplus" | "log1p" | "expm1"; // prettier-ignore
/** "pow" is C's: xᵖ of x < 0 for integers p alone, else NaN; 1ᵖ and x⁰ are 1, of NaN too. */
export type BinaryKind = "add" | "sub" | "mul" | "div" | "max" | "min" | "pow";
/** "and" and "or" take what is not 0 for true. */
export type CompareKind =
  | "equal" | "notEqual" | "less" | "lessEqual" | "greater" | "greaterEqual" | "and" | "or"; // prettier-ignore
export type Activation = "none" | "gelu" | "relu" | "silu";
export type ReduceKind = "sum" | "max" | "min";

export const unaryKinds: readonly UnaryKind[] = [
  "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "abs",
  "tanh", "sigmoid", "relu", "silu", "gelu", "sin", "cos",
  "erf", "geluErf", "softplus", "log1p", "expm1",
]; // prettier-ignore
export const binaryKinds: readonly BinaryKind[] = ["add", "sub", "mul", "div", "max", "min", "pow"];
export const compareKinds: readonly CompareKind[] = [
  "equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual", "and", "or",
]; // prettier-ignore
export const reduceKinds: readonly ReduceKind[] = ["sum", "max", "min"];
export const activations: readonly Activation[] = ["none", "gelu", "relu", "silu"];
export type NormKind = "layer" | "rms";
export const normKinds: readonly NormKind[] = ["layer", "rms"];
export type RandomKind = "bits" | "uniform" | "normal";
const randomKinds: readonly RandomKind[] = ["bits", "uniform", "normal"];

/** Most axes that a strided kernel walks. */
export const MAX_RANK = 6;

/** Parameters of each kernel. */
export interface KernelParams {
  /** out[i] = value. f32 or i32. */
  fill: { value: number };
  /**
   * out[Σ i·outStrides + outOffset] = in[Σ i·inStrides + inOffset] for every index i of `shape` (rank ≤ 6): transpose,
   * slice, broadcast (stride 0), concat. Elements of `out` that are not addressed keep their value. f32 or i32.
   */
  stridedCopy: {
    shape: readonly number[];
    inStrides: readonly number[];
    inOffset: number;
    outStrides: readonly number[];
    outOffset: number;
  };
  /**
   * [x] → [y]: y = kind(x). In place. Right over the whole range of f32. Outside of a kind's domain: IEEE (log 0 = −∞, √−1 = NaN, 1/0 = ∞); at ±∞ silu,
   * gelu, geluErf and the slopes are their limits. A GPU may take numbers below 2⁻¹²⁶ for 0.
   */
  unary: { kind: UnaryKind };
  /** [x, dy] → [dx]: dx = kind′(x) ⊙ dy, the rule of both vjp and jvp. At a kink (abs, relu at 0) kind′ = 0. `dx` may be `dy`. */
  unaryVjp: { kind: UnaryKind };
  /** [a, b] → [c]: c = a kind b over `shape` (rank ≤ 6), operands read with their strides (0 = broadcast). `c` may be an operand of the full shape, read row-major. */
  binary: {
    kind: BinaryKind;
    shape: readonly number[];
    aStrides: readonly number[];
    bStrides: readonly number[];
  };
  /**
   * [a, b] → [c i32]: c = a kind b ? 1 : 0, with shapes and strides as in `binary`; a and b are both f32 or both i32, for "and" and "or" i32. Exact: −0 is 0,
   * numbers below 2⁻¹²⁶ are not. With NaN all are false but "notEqual".
   */
  compare: {
    kind: CompareKind;
    shape: readonly number[];
    aStrides: readonly number[];
    bStrides: readonly number[];
  };
  /** [x] → [y]: y = scale·x + shift. In place. */
  affine: { scale: number; shift: number };
  /** [x] → [y]: y += scale·x (y is read). */
  accumulate: { scale: number };
  /** [condition i32, a, b] → [c]: c = condition ≠ 0 ? a : b; all of one size, a, b and c of one type. */
  select: Record<never, never>;
  /** [x] → [y], f32 ↔ i32; towards zero to i32, out of range to the nearest end; to f32 the nearest, ties to even. */
  cast: Record<never, never>;
  /** [x: outer·length·inner] → [y: outer·inner]: reduces the middle axis. An empty sum is 0, an empty max −∞, an empty min +∞. */
  reduce: { kind: ReduceKind; outer: number; length: number; inner: number };
  /**
   * [x: outer·length·inner] → [y: the same]: running sums along the middle axis, y[l] = Σ_{i ≤ l} x[i], or, with `reverse`, Σ_{i ≥ l} x[i]. Summed beyond
   * single precision, as statistics are: each y has the error of one rounding, however long the axis is.
   */
  cumsum: { outer: number; length: number; inner: number; reverse: boolean };
  /**
   * [x: outer·length·inner] → [indices i32: outer·k·inner]: where the k largest elements of the middle axis are, the largest first; of equal ones (−0 and 0
   * are equal) the one with the lower index first; NaN is above +∞, every NaN alike. k ≤ length.
   */
  topk: { outer: number; length: number; inner: number; k: number };
  /**
   * [x: outer·length·inner, indices i32: outer·count·inner] → [out: outer·count·inner]: out[o, c, i] = x[o, indices[o, c, i], i]; an index outside of the
   * axis gives NaN.
   */
  takeAlong: AlongParams;
  /** [y: outer·count·inner, indices i32: the same] → [out: outer·length·inner]: out[o, indices[o, c, i], i] = Σ y[o, c, i], in order of c; 0 where nothing is added; indices outside are skipped. */
  scatterAddAlong: AlongParams;
  /** [x] → [y], rows of `cols`; −∞ gives 0; a row of −∞ only, or with +∞, gives NaN. In place. */
  softmax: { rows: number; cols: number };
  /** [y, dy] → [dx]: dx = y ⊙ (dy − Σ y·dy) by row; vjp and jvp alike. */
  softmaxVjp: { rows: number; cols: number };
  /** [x] → [y]: y = x − log Σ exp(x), rows of `cols`; −∞ gives −∞; a row of −∞ only, or with +∞, gives NaN. */
  logSoftmax: { rows: number; cols: number };
  /** [y, dy] → [dx]: dx = dy − exp(y)·Σ dy by row. */
  logSoftmaxVjp: { rows: number; cols: number };
  /** [table: tableRows·width, ids i32: rows] → [out: rows·width]: out[r] = table[ids[r]]; an id outside the table gives a row of NaN. */
  gather: { rows: number; width: number; tableRows: number };
  /** [x: rows·width, ids i32: rows] → [out: tableRows·width]: out[ids[r]] += x[r], in order of r; `accumulate` false zeroes `out` first; ids outside are skipped. */
  scatterAdd: { rows: number; width: number; tableRows: number; accumulate: boolean };
  /**
   * [a, b, bias | null] → [c, pre | null]: for each of `batch` items pre = alpha·op(a)·op(b) + bias (+ c when
   * `accumulate`), c = activation(pre). op(a) is m×k: `a` is stored m×k, or k×m with `transA`; op(b) is k×n: stored
   * k×n, or n×k with `transB`. `bias` has n elements. The strides between items count elements; 0 shares an operand
   * (never c). `pre` is written only when given. With `accumulate`, activation is "none".
   */
  gemm: {
    m: number;
    n: number;
    k: number;
    transA: boolean;
    transB: boolean;
    batch: number;
    strideA: number;
    strideB: number;
    strideC: number;
    alpha: number;
    accumulate: boolean;
    activation: Activation;
  };
  /**
   * The segmented weight gradient. [a: rows·m, b: rows·n, segments i32: S+1, groups i32: G+1 | null, v: m·n | null] →
   * [total: m·n | null, dots: S, sumsq: S, groupSumsq: G | null, vSumsq: 1].
   *
   * Segment s is the rows segments[s] … segments[s+1]−1 and W_s = Σ_rows aᵣ bᵣᵀ its gradient. The direction V is `v`,
   * or, when `v` is null, Σ_{s < targetSegments} W_s. Then dots[s] = ⟨W_s, V⟩ and sumsq[s] = ‖W_s‖² (for s <
   * targetSegments with `v` null, dots[s] = 0: V is not yet known); groupSumsq[g] = ‖Σ_{groups[g] ≤ s < groups[g+1]}
   * W_s‖²; vSumsq = ‖V‖²; total = Σ_{s ≥ firstAccumulated} W_s, added to `total` when `accumulate`. Segments ascend and may be empty; rows before the first and after the last are
   * ignored; groups ascend and cover consecutive segments (segments outside every group are allowed). No direction (`v`
   * null, targetSegments 0) is V = 0. With `v` given, dots are written for every segment. `groupSumsq` needs `groups`.
   */
  gemmSegmented: {
    rows: number;
    m: number;
    n: number;
    segmentCount: number;
    groupCount: number;
    targetSegments: number;
    firstAccumulated: number;
    accumulate: boolean;
  };
  /** [x: rows·width, y: rows·width | null, segments i32: S+1] → [out: S·width]: out[s] = Σ_{r in s} x[r] (⊙ y[r]). `accumulate` adds to out. */
  segmentSum: { rows: number; width: number; segmentCount: number; accumulate: boolean };
  /** [g: rows·width, v: width] → [dots: rows, sumsq: rows]: ⟨g_r, v⟩ and ‖g_r‖². */
  alignRows: { rows: number; width: number };
  /**
   * Alignment of an embedding's gradient without materialising it. [dy: rows·width, ids i32: rows, segments i32: S+1,
   * groups i32: G+1 | null, v: tableRows·width | null] → [dots: S, sumsq: S, groupSumsq: G | null]. W_s adds dy[r] into row ids[r]
   * for r in segment s; dots[s] = ⟨W_s, V⟩ (0 without v), sumsq[s] = ‖W_s‖²: rows of one id inside a segment are summed before
   * squaring; groupSumsq likewise over each group of segments. Rows whose id is outside of the table are skipped.
   */
  embeddingAlign: {
    rows: number;
    width: number;
    tableRows: number;
    segmentCount: number;
    groupCount: number;
  };
  /**
   * [x, gain | null, bias | null] → [y, stats: rows·2]: "layer": x̂ = (x − mean)·rstd with rstd = 1/√(var + eps), "rms":
   * x̂ = x·rstd with rstd = 1/√(mean x² + eps); y = x̂ ⊙ gain + bias. stats[r] = (mean, rstd); mean is 0 for "rms".
   */
  norm: { kind: NormKind; rows: number; width: number; eps: number };
  /** [x, gain | null, stats, dy] → [dx]. */
  normVjp: { kind: NormKind; rows: number; width: number };
  /** [x, gain | null, stats, dx, dgain | null, dbias | null] → [dy]. */
  normJvp: { kind: NormKind; rows: number; width: number };
  /** [x, stats, dy, segments i32: S+1] → [dgain: S·width]: Σ_{r in s} dy[r] ⊙ x̂[r]. `accumulate` adds. */
  normGainGrad: {
    kind: NormKind;
    rows: number;
    width: number;
    segmentCount: number;
    accumulate: boolean;
  };
  /**
   * [x: batch·time·cols] → [y]: rotates the first `heads` blocks of `headDim` columns by position·theta^(−2i/headDim)
   * (pairs i, i + headDim/2, as in the Llama code; positions offset … offset + time − 1, below 2³¹) and copies the other columns. `inverse` turns
   * back: it is the vjp. In place.
   */
  rope: {
    batch: number;
    time: number;
    cols: number;
    heads: number;
    headDim: number;
    theta: number;
    /** Position of the first row of every item. */
    offset: number;
    inverse: boolean;
  };
  /**
   * Causal attention, tiled. [qkv: batch·time·(heads + 2·kvHeads)·headDim] → [o: batch·time·heads·headDim,
   * lse: batch·heads·time]: o = softmax(scale·q kᵀ + causal)·v; query head h reads key/value head ⌊h·kvHeads/heads⌋;
   * columns hold all q heads, then all k heads, then all v heads. lse is the log-sum-exp of the scaled scores.
   */
  attention: AttentionParams;
  /** [qkv, o, lse, do] → [dqkv]. */
  attentionVjp: AttentionParams;
  /** [qkv, o, lse, dqkv] → [do]. */
  attentionJvp: AttentionParams;
  /**
   * Attention with an additive mask. [q: batch·heads·time·headDim, k: batch·kvHeads·keys·headDim, v: the same, mask: maskBatch·maskHeads·time·keys | null] →
   * [o: as q, lse: batch·heads·time]: o = softmax(scale·q kᵀ + mask)·v; query head h reads key/value head ⌊h·kvHeads/heads⌋. The mask's first two extents are 1 or
   * those of q; −∞ hides a key. `causal` hides the keys s > t + keys − time from query t: the last query sees all. A query from which every key is hidden gives o = 0 and
   * lse = −∞, and has no part in any derivative.
   */
  maskedAttention: MaskedAttentionParams;
  /** [q, k, v, mask | null, o, lse, do] → [dq, dk, dv]. */
  maskedAttentionVjp: MaskedAttentionParams;
  /** [q, k, v, mask | null, o, lse, dq, dk, dv] → [do]. */
  maskedAttentionJvp: MaskedAttentionParams;
  /** [logits: rows·cols, targets i32: rows] → [losses: rows, lse: rows]: −log softmax(logits)[target]; a target < 0 is ignored (loss 0); one ≥ cols gives NaN. */
  crossEntropy: { rows: number; cols: number };
  /** [logits, targets i32, lse, dlosses: rows] → [dlogits]: (softmax − onehot)·dloss by row; 0 for ignored rows, NaN where the loss is. `dlogits` may be `logits`. */
  crossEntropyVjp: { rows: number; cols: number };
  /** [logits, targets i32, lse, dlogits] → [dlosses: rows]; 0 for ignored rows, NaN where the loss is. */
  crossEntropyJvp: { rows: number; cols: number };
  /** [x: rows·2·width] → [y: rows·width]: y = silu(x[:, :width]) ⊙ x[:, width:]. */
  swiglu: { rows: number; width: number };
  /** [x, dy] → [dx]. */
  swigluVjp: { rows: number; width: number };
  /** [x, dx] → [dy]. */
  swigluJvp: { rows: number; width: number };
  /** [x] → [out: 1]: Σ x². */
  sumSquares: Record<never, never>;
  /** [x, y] → [out: 1]: Σ x·y. */
  dot: Record<never, never>;
  /** [sumsq: 1] → [scale: 1]: min(1, maxNorm/√sumsq); global-norm clipping without a read-back. NaN stays NaN, ∞ gives 0. */
  clipScale: { maxNorm: number };
  /**
   * Stochastic gradient descent with momentum (Polyak 1964), as PyTorch writes it, without dampening. [grad, gradScale: 1 | null] → [value,
   * velocity | null], updated in place: g = grad·gradScale + weightDecay·value; velocity = momentum·velocity + g; value −= lr·velocity, with
   * `nesterov` lr·(g + momentum·velocity). Without `velocity` value −= lr·g, and momentum is 0.
   */
  sgd: { lr: number; momentum: number; nesterov: boolean; weightDecay: number };
  /**
   * Adam (Kingma & Ba 2015) with L2 regularisation. [grad, gradScale: 1 | null] → [value, m, v], all updated in place: g = grad·gradScale +
   * weightDecay·value; m, v moving averages of g and g²; value −= lr·m̂/(√v̂ + eps), with m̂ = m/(1−beta1^step), v̂ = v/(1−beta2^step); step
   * counts from 1.
   */
  adam: AdamParams;
  /** AdamW with decoupled decay (Loshchilov & Hutter 2019): as `adam`, with g = grad·gradScale and value −= lr·(m̂/(√v̂ + eps) + weightDecay·value). */
  adamw: AdamParams;
  /**
   * Threefry-2x32: element i takes word (i & 1) of the block with counter (0, offset + (i >> 1)). "bits": the raw word (i32 out),
   * "uniform": [0, 1) from the top 24 bits, "normal": Box–Muller on pairs (u1 from word 0, u2 from word 1 of a block: element 2j is
   * the cosine, 2j+1 the sine; u1 is taken as ((bits >>> 8) + 1)·2⁻²⁴, u2 as (bits >>> 8)·2⁻²⁴). `offset` counts blocks; offset + (i >> 1) wraps at 2³².
   */
  random: { kind: RandomKind; key0: number; key1: number; offset: number };
  /** [x] → [y]: y = scale·x, and 0 where the upper 24 bits of the element's word of `random`, with offset 0, are below `threshold`. */
  dropout: { threshold: number; scale: number; key0: number; key1: number };
}

export interface AdamParams {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  step: number;
}

export interface AttentionParams {
  batch: number;
  time: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  scale: number;
}

export interface MaskedAttentionParams {
  batch: number;
  heads: number;
  kvHeads: number;
  time: number;
  keys: number;
  headDim: number;
  scale: number;
  causal: boolean;
  maskBatch: number;
  maskHeads: number;
}

/** Extents before, along and after an axis of x, and along that axis of the indices. */
export interface AlongParams {
  outer: number;
  length: number;
  inner: number;
  count: number;
}

export type KernelName = keyof KernelParams;

type Extent = (view: View | null) => number;

/** What a parameter must be, in words and as a test. */
interface ParamCheck {
  readonly what: string;
  fits(value: unknown): boolean;
}

export interface KernelSpec<P> {
  /** Operand names in order; a trailing "?" marks one that may be null, a leading "i32:" or "any:" its type (f32 otherwise). */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** One row per parameter. */
  readonly params: { readonly [K in keyof P]-?: ParamCheck };
  /** What the parameters must be together, and where strides may reach: null, or what is wrong. O(rank). */
  readonly together?: (
    p: P,
    inputs: readonly (View | null)[],
    outputs: readonly (View | null)[],
  ) => string | null;
  /** Elements each operand must have, in the order inputs then outputs; null where any count will do. */
  readonly sizes: (p: P, inputs: readonly (View | null)[], size: Extent) => readonly (number | null)[];
  /** Largest |got − reference| ≤ atol + rtol·|reference| on operands of order one. */
  readonly tolerance: { readonly rtol: number; readonly atol: number };
}

const elements: Extent = (view) => (view === null ? 0 : sizeOf(view.shape));

/** Error of a statistic Σ x·y in units of ‖x‖·‖y‖, at most. */
export const STATISTICS = 1e-6;

const loose = { rtol: 2e-5, atol: 2e-5 };
const tight = { rtol: 2e-6, atol: 1e-6 };
const exact = { rtol: 0, atol: 0 };

const attentionCols = (p: AttentionParams): number => (p.heads + 2 * p.kvHeads) * p.headDim;
const attentionQkv = (p: AttentionParams): number => p.batch * p.time * attentionCols(p);
const attentionOut = (p: AttentionParams): number => p.batch * p.time * p.heads * p.headDim;
const attentionRows = (p: AttentionParams): number => p.batch * p.time * p.heads;

const flag: ParamCheck = { what: "true or false", fits: (value) => typeof value === "boolean" };
const number: ParamCheck = { what: "a number", fits: (value) => typeof value === "number" };
const finite: ParamCheck = { what: "a finite number", fits: (value) => Number.isFinite(value) };
const atLeast = (least: number, what: string): ParamCheck => ({
  what,
  fits: (value) => typeof value === "number" && Number.isSafeInteger(value) && value >= least,
});
const extent = atLeast(0, "an integer of at least 0");
const positive = atLeast(1, "an integer of at least 1");
const word: ParamCheck = {
  what: "an integer of 32 bits",
  fits: (value) => typeof value === "number" && (value === value >>> 0 || value === (value | 0)),
};
const oneOf = (names: readonly string[]): ParamCheck => ({
  what: `one of ${names.map(show).join(", ")}`,
  fits: (value) => typeof value === "string" && names.includes(value),
});
const extents: ParamCheck = {
  what: `up to ${MAX_RANK} integers of at least 0`,
  fits(value) {
    if (!Array.isArray(value) || value.length > MAX_RANK) return false;
    const list: readonly unknown[] = value;
    for (let axis = 0; axis < list.length; axis++) if (!extent.fits(list[axis])) return false;
    return true;
  },
};

/** The last element, counted from the first, that such strides reach; −1 for an empty shape. */
function reach(shape: readonly number[], strides: readonly number[]): number {
  let last = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    if (shape[axis] === 0) return -1;
    last += (shape[axis] - 1) * strides[axis];
  }
  return last;
}

/** Null when the operand has every element that strides reach, from `offset` on. */
function within(
  name: string,
  operand: View | null,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): string | null {
  if (strides.length !== shape.length)
    return `the strides ${formatShape(strides)} of "${name}" do not fit the shape ${formatShape(shape)}`;
  const last = reach(shape, strides);
  const size = elements(operand);
  if (last < 0 || offset + last < size) return null;
  return `"${name}" is addressed at element ${offset + last} of ${size}`;
}

const rowsOf = { rows: extent, cols: extent };
const along = { outer: extent, length: extent, inner: extent };
const widths = { rows: extent, width: extent };
const attentionParams = {
  ...{ batch: extent, time: extent, heads: positive, kvHeads: positive, headDim: positive },
  scale: finite,
};
const maskedParams = {
  ...{ batch: extent, heads: positive, kvHeads: positive, time: extent, keys: extent, headDim: positive },
  ...{ scale: finite, causal: flag, maskBatch: positive, maskHeads: positive },
};
const maskedQ = (p: MaskedAttentionParams): number => p.batch * p.heads * p.time * p.headDim;
const maskedK = (p: MaskedAttentionParams): number => p.batch * p.kvHeads * p.keys * p.headDim;
const maskedRows = (p: MaskedAttentionParams): number => p.batch * p.heads * p.time;
/** Of q, k, v and the mask. */
const maskedInputs = (p: MaskedAttentionParams): number[] => [
  ...[maskedQ(p), maskedK(p), maskedK(p)],
  p.maskBatch * p.maskHeads * p.time * p.keys,
];
const maskFits = (p: MaskedAttentionParams): string | null => {
  if (p.heads % p.kvHeads !== 0) return `${p.heads} heads cannot share ${p.kvHeads} key/value heads`;
  return [1, p.batch].includes(p.maskBatch) && [1, p.heads].includes(p.maskHeads)
    ? null
    : `a mask of ${p.maskBatch} items and ${p.maskHeads} heads does not fit ${p.batch} items and ${p.heads} heads`;
};
const normParams = { kind: oneOf(normKinds), ...widths };
const groupsGiven = (groups: View | null, sums: View | null): string | null =>
  sums === null || groups !== null ? null : `"groupSumsq" needs the operand "groups"`;
const heads = ({ heads, kvHeads }: AttentionParams): string | null =>
  heads % kvHeads === 0 ? null : `${heads} heads cannot share ${kvHeads} key/value heads`;

function spec<P>(
  inputs: string,
  outputs: string,
  tolerance: KernelSpec<P>["tolerance"],
  params: KernelSpec<NoInfer<P>>["params"],
  sizes: KernelSpec<P>["sizes"],
  together?: KernelSpec<P>["together"],
): KernelSpec<P> {
  const names = (list: string): string[] => (list === "" ? [] : list.split(" "));
  return {
    ...{ inputs: names(inputs), outputs: names(outputs), params, sizes, tolerance },
    ...(together === undefined ? {} : { together }),
  };
}

const adamSpec: KernelSpec<AdamParams> = spec(
  "grad gradScale?",
  "value m v",
  loose,
  { lr: number, beta1: number, beta2: number, eps: number, weightDecay: number, step: positive },
  (_, [grad], n) => [null, 1, n(grad), n(grad), n(grad)],
);

const batched = (items: number, stride: number, size: number): number =>
  items === 0 ? 0 : (items - 1) * stride + size;

export const kernels: { readonly [K in KernelName]: KernelSpec<KernelParams[K]> } = {
  fill: spec(
    "",
    "any:out",
    exact,
    { value: number },
    () => [null],
    ({ value }, _, [out]) =>
      out?.dtype !== "i32" || value === (value | 0) ? null : `${value} is not an integer of 32 bits`,
  ),
  stridedCopy: spec(
    "any:in",
    "any:out",
    exact,
    { shape: extents, inStrides: extents, inOffset: extent, outStrides: extents, outOffset: extent },
    () => [null, null],
    ({ shape, inStrides, inOffset, outStrides, outOffset }, [input], [out]) => {
      if (input?.dtype !== out?.dtype) return "both operands must be of one type";
      return (
        within("in", input, shape, inStrides, inOffset) ?? within("out", out, shape, outStrides, outOffset)
      );
    },
  ),
  unary: spec("x", "y", tight, { kind: oneOf(unaryKinds) }, (_, [x], n) => [null, n(x)]),
  unaryVjp: spec("x dy", "dx", loose, { kind: oneOf(unaryKinds) }, (_, [x], n) => [null, n(x), n(x)]),
  binary: spec(
    "a b",
    "c",
    tight,
    { kind: oneOf(binaryKinds), shape: extents, aStrides: extents, bStrides: extents },
    (p) => [null, null, sizeOf(p.shape)],
    ({ shape, aStrides, bStrides }, [a, b]) =>
      within("a", a, shape, aStrides) ?? within("b", b, shape, bStrides),
  ),
  compare: spec(
    "any:a any:b",
    "i32:c",
    exact,
    { kind: oneOf(compareKinds), shape: extents, aStrides: extents, bStrides: extents },
    (p) => [null, null, sizeOf(p.shape)],
    ({ kind, shape, aStrides, bStrides }, [a, b]) => {
      if (a?.dtype !== b?.dtype) return "both operands must be of one type";
      if ((kind === "and" || kind === "or") && a?.dtype !== "i32") return `"${kind}" is of integers`;
      return within("a", a, shape, aStrides) ?? within("b", b, shape, bStrides);
    },
  ),
  affine: spec("x", "y", tight, { scale: number, shift: number }, (_, [x], n) => [null, n(x)]),
  accumulate: spec("x", "y", tight, { scale: number }, (_, [x], n) => [null, n(x)]),
  select: spec(
    "i32:condition any:a any:b",
    "any:c",
    exact,
    {},
    (_, [c], n) => [null, n(c), n(c), n(c)],
    (_, [, a, b], [c]) =>
      a?.dtype === b?.dtype && a?.dtype === c?.dtype ? null : "a, b and c must be of one type",
  ),
  cast: spec("any:x", "any:y", exact, {}, (_, [x], n) => [null, n(x)]),
  reduce: spec("x", "y", loose, { kind: oneOf(reduceKinds), ...along }, (p) => [
    p.outer * p.length * p.inner,
    p.outer * p.inner,
  ]),
  cumsum: spec("x", "y", tight, { ...along, reverse: flag }, (p) => [
    p.outer * p.length * p.inner,
    p.outer * p.length * p.inner,
  ]),
  topk: spec(
    "x",
    "i32:indices",
    exact,
    { ...along, k: extent },
    (p) => [p.outer * p.length * p.inner, p.outer * p.k * p.inner],
    ({ length, k }) => (k <= length ? null : `there are not ${k} elements along an axis of ${length}`),
  ),
  takeAlong: spec("x i32:indices", "out", exact, { ...along, count: extent }, (p) => [
    p.outer * p.length * p.inner,
    p.outer * p.count * p.inner,
    p.outer * p.count * p.inner,
  ]),
  scatterAddAlong: spec("y i32:indices", "out", loose, { ...along, count: extent }, (p) => [
    p.outer * p.count * p.inner,
    p.outer * p.count * p.inner,
    p.outer * p.length * p.inner,
  ]),
  softmax: spec("x", "y", tight, rowsOf, (p) => [p.rows * p.cols, p.rows * p.cols]),
  softmaxVjp: spec("y dy", "dx", loose, rowsOf, (p) => [p.rows * p.cols, p.rows * p.cols, p.rows * p.cols]),
  logSoftmax: spec("x", "y", loose, rowsOf, (p) => [p.rows * p.cols, p.rows * p.cols]),
  logSoftmaxVjp: spec("y dy", "dx", loose, rowsOf, (p) => [
    p.rows * p.cols,
    p.rows * p.cols,
    p.rows * p.cols,
  ]),
  gather: spec("table i32:ids", "out", exact, { ...widths, tableRows: extent }, (p) => [
    p.tableRows * p.width,
    p.rows,
    p.rows * p.width,
  ]),
  scatterAdd: spec("x i32:ids", "out", loose, { ...widths, tableRows: extent, accumulate: flag }, (p) => [
    p.rows * p.width,
    p.rows,
    p.tableRows * p.width,
  ]),
  gemm: spec(
    "a b bias?",
    "c pre?",
    loose,
    {
      ...{ m: extent, n: extent, k: extent, transA: flag, transB: flag },
      ...{ batch: extent, strideA: extent, strideB: extent, strideC: extent },
      ...{ alpha: number, accumulate: flag, activation: oneOf(activations) },
    },
    (p) => [
      batched(p.batch, p.strideA, p.m * p.k),
      batched(p.batch, p.strideB, p.k * p.n),
      p.n,
      batched(p.batch, p.strideC, p.m * p.n),
      batched(p.batch, p.strideC, p.m * p.n),
    ],
    (p) => {
      if (p.accumulate && p.activation !== "none")
        return `"accumulate" goes with the activation "none", not ${show(p.activation)}`;
      return p.batch < 2 || p.strideC >= p.m * p.n
        ? null
        : `items of c overlap: they are ${p.strideC} elements apart`;
    },
  ),
  gemmSegmented: spec(
    "a b i32:segments i32:groups? v?",
    "total? dots sumsq groupSumsq? vSumsq",
    { rtol: 5e-5, atol: 1e-4 },
    {
      ...{ rows: extent, m: extent, n: extent, segmentCount: extent, groupCount: extent },
      ...{ targetSegments: extent, firstAccumulated: extent, accumulate: flag },
    },
    (p) => [
      p.rows * p.m,
      p.rows * p.n,
      p.segmentCount + 1,
      p.groupCount + 1,
      p.m * p.n,
      p.m * p.n,
      p.segmentCount,
      p.segmentCount,
      p.groupCount,
      1,
    ],
    (p, [, , , groups], [, , , groupSumsq]) =>
      p.targetSegments > p.segmentCount
        ? `${p.targetSegments} of ${p.segmentCount} segments cannot make the direction`
        : groupsGiven(groups, groupSumsq),
  ),
  segmentSum: spec(
    "x y? i32:segments",
    "out",
    loose,
    { ...widths, segmentCount: extent, accumulate: flag },
    (p) => [p.rows * p.width, p.rows * p.width, p.segmentCount + 1, p.segmentCount * p.width],
  ),
  alignRows: spec("g v", "dots sumsq", loose, widths, (p) => [p.rows * p.width, p.width, p.rows, p.rows]),
  embeddingAlign: spec(
    "dy i32:ids i32:segments i32:groups? v?",
    "dots sumsq groupSumsq?",
    loose,
    { ...widths, tableRows: extent, segmentCount: extent, groupCount: extent },
    (p) => [
      p.rows * p.width,
      p.rows,
      p.segmentCount + 1,
      p.groupCount + 1,
      p.tableRows * p.width,
      p.segmentCount,
      p.segmentCount,
      p.groupCount,
    ],
    (_, [, , , groups], [, , groupSumsq]) => groupsGiven(groups, groupSumsq),
  ),
  norm: spec(
    "x gain? bias?",
    "y stats",
    loose,
    {
      ...normParams,
      eps: {
        what: "a finite number of at least 0",
        fits: (eps) => typeof eps === "number" && eps >= 0 && eps < Infinity,
      },
    },
    (p) => [p.rows * p.width, p.width, p.width, p.rows * p.width, p.rows * 2],
  ),
  normVjp: spec("x gain? stats dy", "dx", loose, normParams, (p) => [
    p.rows * p.width,
    p.width,
    p.rows * 2,
    p.rows * p.width,
    p.rows * p.width,
  ]),
  normJvp: spec("x gain? stats dx dgain? dbias?", "dy", loose, normParams, (p) => [
    p.rows * p.width,
    p.width,
    p.rows * 2,
    p.rows * p.width,
    p.width,
    p.width,
    p.rows * p.width,
  ]),
  normGainGrad: spec(
    "x stats dy i32:segments",
    "dgain",
    loose,
    { ...normParams, segmentCount: extent, accumulate: flag },
    (p) => [p.rows * p.width, p.rows * 2, p.rows * p.width, p.segmentCount + 1, p.segmentCount * p.width],
  ),
  rope: spec(
    "x",
    "y",
    loose,
    {
      ...{ batch: extent, time: extent, cols: extent, heads: extent, headDim: extent },
      theta: {
        what: "a finite number above 0",
        fits: (theta) => typeof theta === "number" && theta > 0 && theta < Infinity,
      },
      offset: extent,
      inverse: flag,
    },
    (p) => [p.batch * p.time * p.cols, p.batch * p.time * p.cols],
    ({ heads, headDim, cols, time, offset }) => {
      if (offset + time > 2 ** 31 - 1) return `positions go up to ${offset + time}; at most 2³¹ − 1 fit`;
      if (headDim % 2 !== 0) return `headDim must be even, it is ${headDim}`;
      return heads * headDim <= cols ? null : `${heads} heads of ${headDim} do not fit into ${cols} columns`;
    },
  ),
  attention: spec(
    "qkv",
    "o lse",
    loose,
    attentionParams,
    (p) => [attentionQkv(p), attentionOut(p), attentionRows(p)],
    heads,
  ),
  attentionVjp: spec(
    "qkv o lse do",
    "dqkv",
    { rtol: 5e-5, atol: 5e-5 },
    attentionParams,
    (p) => [attentionQkv(p), attentionOut(p), attentionRows(p), attentionOut(p), attentionQkv(p)],
    heads,
  ),
  attentionJvp: spec(
    "qkv o lse dqkv",
    "do",
    { rtol: 5e-5, atol: 5e-5 },
    attentionParams,
    (p) => [attentionQkv(p), attentionOut(p), attentionRows(p), attentionQkv(p), attentionOut(p)],
    heads,
  ),
  maskedAttention: spec(
    "q k v mask?",
    "o lse",
    loose,
    maskedParams,
    (p) => [...maskedInputs(p), maskedQ(p), maskedRows(p)],
    maskFits,
  ),
  maskedAttentionVjp: spec(
    "q k v mask? o lse do",
    "dq dk dv",
    { rtol: 5e-5, atol: 5e-5 },
    maskedParams,
    (p) => [
      ...[...maskedInputs(p), maskedQ(p), maskedRows(p), maskedQ(p)],
      ...[maskedQ(p), maskedK(p), maskedK(p)],
    ],
    maskFits,
  ),
  maskedAttentionJvp: spec(
    "q k v mask? o lse dq dk dv",
    "do",
    { rtol: 5e-5, atol: 5e-5 },
    maskedParams,
    (p) => [
      ...[...maskedInputs(p), maskedQ(p), maskedRows(p)],
      ...[maskedQ(p), maskedK(p), maskedK(p), maskedQ(p)],
    ],
    maskFits,
  ),
  crossEntropy: spec("logits i32:targets", "losses lse", loose, rowsOf, (p) => [
    p.rows * p.cols,
    p.rows,
    p.rows,
    p.rows,
  ]),
  crossEntropyVjp: spec("logits i32:targets lse dlosses", "dlogits", loose, rowsOf, (p) => [
    p.rows * p.cols,
    p.rows,
    p.rows,
    p.rows,
    p.rows * p.cols,
  ]),
  crossEntropyJvp: spec("logits i32:targets lse dlogits", "dlosses", loose, rowsOf, (p) => [
    p.rows * p.cols,
    p.rows,
    p.rows,
    p.rows * p.cols,
    p.rows,
  ]),
  swiglu: spec("x", "y", loose, widths, (p) => [p.rows * 2 * p.width, p.rows * p.width]),
  swigluVjp: spec("x dy", "dx", loose, widths, (p) => [
    p.rows * 2 * p.width,
    p.rows * p.width,
    p.rows * 2 * p.width,
  ]),
  swigluJvp: spec("x dx", "dy", loose, widths, (p) => [
    p.rows * 2 * p.width,
    p.rows * 2 * p.width,
    p.rows * p.width,
  ]),
  sumSquares: spec("x", "out", loose, {}, () => [null, 1]),
  dot: spec("x y", "out", loose, {}, (_, [x], n) => [null, n(x), 1]),
  clipScale: spec("sumsq", "scale", tight, { maxNorm: number }, () => [1, 1]),
  sgd: spec(
    "grad gradScale?",
    "value velocity?",
    loose,
    { lr: number, momentum: number, nesterov: flag, weightDecay: number },
    (_, [grad], n) => [null, 1, n(grad), n(grad)],
    ({ momentum }, _, [, velocity]) =>
      momentum === 0 || velocity !== null ? null : `momentum ${momentum} needs the operand "velocity"`,
  ),
  adam: adamSpec,
  adamw: adamSpec,
  random: spec(
    "",
    "any:out",
    { rtol: 1e-5, atol: 2e-6 },
    { kind: oneOf(randomKinds), key0: word, key1: word, offset: word },
    () => [null],
    ({ kind }, _, [out]) =>
      (kind === "bits") === (out?.dtype === "i32")
        ? null
        : `"${kind}" fills a tensor of type ${kind === "bits" ? "i32" : "f32"}`,
  ),
  dropout: spec(
    "x",
    "y",
    tight,
    {
      threshold: {
        what: "an integer from 0 to 2²⁴",
        fits: (value) => extent.fits(value) && Number(value) <= 2 ** 24,
      },
      ...{ scale: number, key0: word, key1: word },
    },
    (_, [x], n) => [null, n(x)],
  ),
};

export const kernelNames: readonly KernelName[] = Object.keys(kernels).filter(isKernelName);

function isKernelName(name: string): name is KernelName {
  return name in kernels;
}

/** What the table says of a kernel, as lists that are quick to go through: every call is checked. */
interface Checks {
  readonly params: readonly { readonly name: string; readonly check: ParamCheck }[];
  /** Inputs first; a type of null is any. */
  readonly operands: readonly {
    readonly label: string;
    readonly optional: boolean;
    readonly dtype: DType | null;
  }[];
}

function checksOf(kernel: KernelName): Checks {
  const { params, inputs, outputs } = kernels[kernel];
  return {
    params: Object.entries<ParamCheck>(params).map(([name, check]) => ({ name, check })),
    operands: [...inputs, ...outputs].map((label) => ({
      label,
      optional: label.endsWith("?"),
      dtype: label.startsWith("any:") ? null : label.startsWith("i32:") ? "i32" : "f32",
    })),
  };
}

const checks: ReadonlyMap<string, Checks> = new Map(kernelNames.map((kernel) => [kernel, checksOf(kernel)]));

/**
 * The table's rule for parameters, sizes and types, and for where strides may reach. Throws `shape`, naming the kernel and the parameter or operand. What
 * stands in i32 operands (ids, targets, segments) cannot be seen from here: kernels pass over ids outside of a table.
 */
export function checkCall<K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: readonly (View | null)[],
  outputs: readonly (View | null)[],
): void {
  const row = kernels[kernel];
  if (inputs.length !== row.inputs.length || outputs.length !== row.outputs.length)
    throw new GradmixError(
      "shape",
      `${kernel}: wants inputs (${row.inputs.join(", ")}) and outputs (${row.outputs.join(", ")})`,
    );
  const { params: known, operands } = checks.get(kernel) ?? checksOf(kernel);
  const given = params as Readonly<Record<string, unknown>>;
  for (let i = 0; i < known.length; i++) {
    const { name, check } = known[i];
    const value = given[name];
    if (!check.fits(value))
      throw new GradmixError("shape", `${kernel}: ${name} is ${show(value)}, not ${check.what}`);
  }
  const sizes = row.sizes(params, inputs, elements);
  for (let i = 0; i < operands.length; i++) {
    const { label, optional, dtype } = operands[i];
    const operand = i < inputs.length ? inputs[i] : outputs[i - inputs.length];
    if (operand === null) {
      if (!optional) throw new GradmixError("shape", `${kernel}: operand "${label}" is missing`);
      continue;
    }
    const size = sizes[i];
    if (size !== null && sizeOf(operand.shape) !== size)
      throw new GradmixError(
        "shape",
        `${kernel}: operand "${label}" has shape ${formatShape(operand.shape)}, ${size} elements are needed`,
      );
    if (dtype !== null && operand.dtype !== dtype)
      throw new GradmixError("shape", `${kernel}: operand "${label}" has the type ${operand.dtype}`);
  }
  const wrong = row.together?.(params, inputs, outputs) ?? null;
  if (wrong !== null) throw new GradmixError("shape", `${kernel}: ${wrong}`);
}
