/** Elementwise kernels, and random numbers. */
import { sizeOf } from "../../tensor/shape.ts";
import {
  type BinaryKind,
  binaryKinds,
  type CompareKind,
  compareKinds,
  type RandomKind,
  randomKinds,
  type UnaryKind,
  unaryKinds,
} from "./kinds.ts";
import {
  either,
  exact,
  extent,
  extents,
  f32,
  i32,
  inPlaceOf,
  loose,
  number,
  oneOf,
  type Signature,
  type Specs,
  tight,
  within,
  word,
} from "./spec.ts";

type Empty = Record<never, never>;

/** Shape and strides with which `binary` and `compare` read their operands; a stride of 0 broadcasts. */
export interface PairWalk {
  shape: readonly number[];
  aStrides: readonly number[];
  bStrides: readonly number[];
}

/** Signatures of the elementwise kernels. */
export interface ElementwiseKernels {
  /** [] → [out]: out[i] = value, in f32 or i32. */
  fill: Signature<{ value: number }, "", "out">;
  /**
   * y[Σ i·outStrides + outOffset] = x[Σ i·inStrides + inOffset] for every index i of `shape` (rank ≤ 6): transpose,
   * slice, broadcast (stride 0), concat. Elements of `y` that are not addressed keep their value. Both operands are f32, or both i32.
   */
  stridedCopy: Signature<
    {
      shape: readonly number[];
      inStrides: readonly number[];
      inOffset: number;
      outStrides: readonly number[];
      outOffset: number;
    },
    "x",
    "y"
  >;
  /**
   * [x] → [y]: y = kind(x). `y` may be `x`. Accurate over the whole range of f32. Outside the domain of a kind the result follows IEEE 754 (log 0 = −∞, √−1 = NaN,
   * 1/0 = ∞); at ±∞ silu, gelu, geluErf and the derivatives have their limits. A GPU may treat numbers smaller than 2⁻¹²⁶ as 0.
   */
  unary: Signature<{ kind: UnaryKind }, "x", "y">;
  /** [x, dy] → [dx]: dx = kind′(x) ⊙ dy, which is both the vjp and the jvp. At a kink (abs, relu at 0) kind′ = 0. `dx` may be `dy`. */
  unaryVjp: Signature<{ kind: UnaryKind }, "x dy", "dx">;
  /**
   * [a, b] → [c]: c = a kind b over `shape` (rank ≤ 6). The operands are read with their strides (0 = broadcast). `c` may be an operand that has the full
   * shape and is read row-major.
   */
  binary: Signature<{ kind: BinaryKind } & PairWalk, "a b", "c">;
  /**
   * [a, b] → [c i32]: c = a kind b ? 1 : 0, with shapes and strides as in `binary`; a and b are both f32 or both i32; "and" and "or" require i32. Exact: −0 equals
   * 0, and numbers smaller than 2⁻¹²⁶ do not. If an operand is NaN, only "notEqual" is true.
   */
  compare: Signature<{ kind: CompareKind } & PairWalk, "a b", "c">;
  /** [x] → [y]: y = scale·x + shift. `y` may be `x`. */
  affine: Signature<{ scale: number; shift: number }, "x", "y">;
  /** [x] → [y]: adds scale·x to `y`, which is read and written. */
  accumulate: Signature<{ scale: number }, "x", "y">;
  /** [condition i32, a, b] → [c]: c = condition ≠ 0 ? a : b. All operands have the same size; a, b and c have the same type. */
  select: Signature<Empty, "condition a b", "c">;
  /**
   * [x] → [y]: converts f32 to i32 or i32 to f32. To i32 it rounds towards zero, and numbers outside the range become the nearest end. To f32 it rounds to the nearest
   * number, ties to even.
   */
  cast: Signature<Empty, "x", "y">;
  /** [x: rows·2·width] → [y: rows·width]: y = silu(x[:, :width]) ⊙ x[:, width:]. */
  swiglu: Signature<{ rows: number; width: number }, "x", "y">;
  /** [x, dy] → [dx]: the vjp of `swiglu`. */
  swigluVjp: Signature<{ rows: number; width: number }, "x dy", "dx">;
  /** [x, dx] → [dy]: the jvp of `swiglu`. */
  swigluJvp: Signature<{ rows: number; width: number }, "x dx", "dy">;
  /**
   * Threefry-2x32: element i takes word (i & 1) of the block with counter (0, offset + (i >> 1)). "bits": the raw word (i32 out),
   * "uniform": [0, 1) from the top 24 bits, "normal": Box–Muller on pairs (u1 from word 0, u2 from word 1 of a block: element 2j is
   * the cosine, 2j+1 the sine; u1 = ((bits >>> 8) + 1)·2⁻²⁴, u2 = (bits >>> 8)·2⁻²⁴). `offset` counts blocks; offset + (i >> 1) wraps at 2³².
   */
  random: Signature<{ kind: RandomKind; key0: number; key1: number; offset: number }, "", "out">;
  /** [x] → [y]: y = scale·x, or 0 if the upper 24 bits of the word that `random` gives the element with offset 0 are less than `threshold`. */
  dropout: Signature<{ threshold: number; scale: number; key0: number; key1: number }, "x", "y">;
}

const pairParams = { shape: extents, aStrides: extents, bStrides: extents };
const gatedParams = { rows: extent, width: extent };
const one = (p: { rows: number; width: number }): number => p.rows * p.width;
const two = (p: { rows: number; width: number }): number => p.rows * 2 * p.width;

export const elementwise: Specs<ElementwiseKernels> = {
  fill: {
    params: { value: number },
    inputs: {},
    outputs: { out: either() },
    tolerance: exact,
    together: ({ value }, _, { out }) =>
      out.dtype !== "i32" || value === (value | 0) ? null : `${value} is not an integer of 32 bits`,
  },
  stridedCopy: {
    params: { shape: extents, inStrides: extents, inOffset: extent, outStrides: extents, outOffset: extent },
    inputs: { x: either() },
    outputs: { y: either() },
    tolerance: exact,
    together({ shape, inStrides, inOffset, outStrides, outOffset }, { x }, { y }) {
      if (x.dtype !== y.dtype) return "both operands must be of one type";
      return within("x", x, shape, inStrides, inOffset) ?? within("y", y, shape, outStrides, outOffset);
    },
  },
  unary: {
    params: { kind: oneOf(unaryKinds) },
    inputs: { x: f32() },
    outputs: { y: inPlaceOf(["x"], f32("x")) },
    tolerance: tight,
  },
  unaryVjp: {
    params: { kind: oneOf(unaryKinds) },
    inputs: { x: f32(), dy: f32("x") },
    outputs: { dx: inPlaceOf(["dy"], f32("x")) },
    tolerance: loose,
  },
  binary: {
    params: { kind: oneOf(binaryKinds), ...pairParams },
    inputs: { a: f32(), b: f32() },
    outputs: {
      c: inPlaceOf(
        ["a", "b"],
        f32((p) => sizeOf(p.shape)),
      ),
    },
    tolerance: tight,
    together: ({ shape, aStrides, bStrides }, { a, b }) =>
      within("a", a, shape, aStrides) ?? within("b", b, shape, bStrides),
  },
  compare: {
    params: { kind: oneOf(compareKinds), ...pairParams },
    inputs: { a: either(), b: either() },
    outputs: { c: i32((p) => sizeOf(p.shape)) },
    tolerance: exact,
    together({ kind, shape, aStrides, bStrides }, { a, b }) {
      if (a.dtype !== b.dtype) return "both operands must be of one type";
      if ((kind === "and" || kind === "or") && a.dtype !== "i32") return `"${kind}" is of integers`;
      return within("a", a, shape, aStrides) ?? within("b", b, shape, bStrides);
    },
  },
  affine: {
    params: { scale: number, shift: number },
    inputs: { x: f32() },
    outputs: { y: inPlaceOf(["x"], f32("x")) },
    tolerance: tight,
  },
  accumulate: {
    params: { scale: number },
    inputs: { x: f32() },
    outputs: { y: f32("x") },
    tolerance: tight,
  },
  select: {
    params: {},
    inputs: { condition: i32(), a: either("condition"), b: either("condition") },
    outputs: { c: either("condition") },
    tolerance: exact,
    together: (_, { a, b }, { c }) =>
      a.dtype === b.dtype && a.dtype === c.dtype ? null : "a, b and c must be of one type",
  },
  cast: {
    params: {},
    inputs: { x: either() },
    outputs: { y: either("x") },
    tolerance: exact,
  },
  swiglu: {
    params: gatedParams,
    inputs: { x: f32(two) },
    outputs: { y: f32(one) },
    tolerance: loose,
  },
  swigluVjp: {
    params: gatedParams,
    inputs: { x: f32(two), dy: f32(one) },
    outputs: { dx: f32(two) },
    tolerance: loose,
  },
  swigluJvp: {
    params: gatedParams,
    inputs: { x: f32(two), dx: f32(two) },
    outputs: { dy: f32(one) },
    tolerance: loose,
  },
  random: {
    params: { kind: oneOf(randomKinds), key0: word, key1: word, offset: word },
    inputs: {},
    outputs: { out: either() },
    tolerance: { rtol: 1e-5, atol: 2e-6 },
    together: ({ kind }, _, { out }) =>
      (kind === "bits") === (out.dtype === "i32")
        ? null
        : `"${kind}" fills a tensor of type ${kind === "bits" ? "i32" : "f32"}`,
  },
  dropout: {
    params: {
      threshold: {
        what: "an integer from 0 to 2²⁴",
        fits: (value) => extent.fits(value) && Number(value) <= 2 ** 24,
      },
      ...{ scale: number, key0: word, key1: word },
    },
    inputs: { x: f32() },
    outputs: { y: f32("x") },
    tolerance: tight,
  },
};
