/** Matrix products, batched over leading axes. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, checkOptions, unchecked } from "../../options.ts";
import { broadcastShapes, formatShape, sameShape, type Shape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { allocate, apply1, type Op, type Spec, wantType } from "../op.ts";
import { wantTensors } from "../checks.ts";
import { add } from "./arithmetic.ts";
import { asRows, stretch, sumTo } from "./broadcast.ts";

interface MatmulAttrs {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

interface Plan {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly strideA: number;
  readonly strideB: number;
  readonly shape: number[];
}

const noAxes: Shape = [];
const batchOf = (shape: Shape): Shape => (shape.length === 2 ? noAxes : shape.slice(0, -2));

const describe = (a: Spec, b: Spec, { transposeA, transposeB }: MatmulAttrs): string =>
  `matmul: ${formatShape(a.shape)}${transposeA ? "ᵀ" : ""} and ${formatShape(b.shape)}${transposeB ? "ᵀ" : ""}`;

/** Either both operands have the same leading axes, or one has none and is shared. */
function plan(a: Spec, b: Spec, attrs: MatmulAttrs): Plan {
  const { transposeA, transposeB } = attrs;
  if (a.shape.length < 2 || b.shape.length < 2)
    throw new GradmixError("shape", `${describe(a, b, attrs)} must both have at least two axes`);
  const ra = a.shape[a.shape.length - 2]!;
  const ca = a.shape[a.shape.length - 1]!;
  const rb = b.shape[b.shape.length - 2]!;
  const cb = b.shape[b.shape.length - 1]!;
  const m = transposeA ? ca : ra;
  const k = transposeA ? ra : ca;
  const kb = transposeB ? cb : rb;
  const n = transposeB ? rb : cb;
  if (k !== kb)
    throw new GradmixError("shape", `${describe(a, b, attrs)} do not multiply: inner sizes ${k} and ${kb}`);
  const [batchA, batchB] = [batchOf(a.shape), batchOf(b.shape)];
  if (batchB.length > 0 && batchA.length > 0 && !sameShape(batchA, batchB))
    throw new GradmixError("shape", `${describe(a, b, attrs)} have different leading axes`);
  const lead = batchA.length > 0 ? batchA : batchB;
  const shape = [...lead, m, n];
  const batch = sizeOf(lead);
  // With a shared b, an a that is not transposed is one tall product.
  if (batchB.length === 0 && !transposeA)
    return { m: m * batch, n, k, batch: 1, strideA: 0, strideB: 0, shape };
  const strideA = batchA.length === 0 ? 0 : m * k;
  const strideB = batchB.length === 0 ? 0 : k * n;
  return { m, n, k, batch, strideA, strideB, shape };
}

export const matmulOp: Op<MatmulAttrs, "a b", "c", "a b"> = {
  name: "matmul",
  keepsBatch(slot, inputs, { shape }, { transposeA }) {
    const { length: rank } = inputs[slot]!.shape;
    // A leading axis or, for two matrices, the rows of the first.
    return rank > 2 ? rank === shape.length : shape.length === 2 && slot === 0 && !transposeA;
  },
  infer([a, b], attrs) {
    wantType("matmul", "the first operand", a, "f32");
    wantType("matmul", "the second operand", b, "f32");
    boolean("matmul: transposeA", attrs.transposeA);
    boolean("matmul: transposeB", attrs.transposeB);
    return [{ shape: plan(a, b, attrs).shape, dtype: "f32" }];
  },
  forward([a, b], attrs, [spec]) {
    const { m, n, k, batch, strideA, strideB } = plan(a, b, attrs);
    const c = allocate(spec, a);
    // Without items, a shared operand would be too large.
    if (c.size === 0) return { outputs: [c], saved: [a, b] };
    run(
      "gemm",
      {
        m,
        n,
        k,
        batch,
        strideA,
        strideB,
        strideC: m * n,
        transA: attrs.transposeA,
        transB: attrs.transposeB,
        alpha: 1,
        accumulate: false,
        activation: "none",
      },
      { a, b },
      { c },
    );
    return { outputs: [c], saved: [a, b] };
  },
  vjp([ct], { attrs: { transposeA, transposeB }, saved: [a, b], needs }) {
    if (ct === null) return [null, null];
    const forA = (): Tensor =>
      transposeA
        ? matmul(b, ct, { transposeA: transposeB, transposeB: true })
        : matmul(ct, b, { transposeB: !transposeB });
    const forB = (): Tensor => {
      if (b.rank === 2 && a.rank > 2 && !transposeA)
        return matmulVjpB(asRows(a), asRows(ct), false, transposeB);
      return matmulVjpB(a, ct, transposeA, transposeB);
    };
    return [needs[0] ? sumTo(forA(), a.shape) : null, needs[1] ? sumTo(forB(), b.shape) : null];
  },
  jvp([ta, tb], { attrs, inputs: [a, b] }) {
    const fromA = ta === null ? null : matmul(ta, b, attrs);
    const fromB = tb === null ? null : matmul(a, tb, attrs);
    return [fromA === null ? fromB : fromB === null ? fromA : add(fromA, fromB)];
  },
};

function matmulVjpB(a: Tensor, ct: Tensor, transposeA: boolean, transposeB: boolean): Tensor {
  return transposeB
    ? matmul(ct, a, { transposeA: true, transposeB: transposeA })
    : matmul(a, ct, { transposeA: !transposeA });
}

/**
 * Matrix product op(a)·op(b) over the last two axes: [… , m, k] and [… , k, n] → [… , m, n]; `transposeA` reads a as [… , k, m], `transposeB` reads b
 * as [… , n, k]. Leading axes broadcast. Throws `shape`, naming both shapes.
 */
export function matmul(
  a: Tensor,
  b: Tensor,
  options: { transposeA?: boolean; transposeB?: boolean } = {},
): Tensor<"f32"> {
  checkOptions("matmul", options, { transposeA: unchecked, transposeB: unchecked });
  const { transposeA = false, transposeB = false } = options;
  wantTensors("matmul", [a, b]);
  const [batchA, batchB] = [batchOf(a.shape), batchOf(b.shape)];
  if (a.rank > 2 && b.rank > 2 && !sameShape(batchA, batchB)) {
    const lead = broadcastShapes(batchA, batchB, "matmul");
    const to = (t: Tensor): Tensor => stretch(t, [...lead, ...t.shape.slice(-2)]);
    return apply1(matmulOp, [to(a), to(b)], { transposeA, transposeB });
  }
  return apply1(matmulOp, [a, b], { transposeA, transposeB });
}
