/** Causal self-attention with grouped key/value heads, tiled: no time × time matrix is kept. */
import { run } from "../../backends/backend.ts";
import type { AttentionParams } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, integerIn, unchecked } from "../../options.ts";
import { extentsOf, formatShape, type Shape } from "../../tensor/shape.ts";
import { empty, isTensor, type Tensor } from "../../tensor/tensor.ts";
import { keepsRows } from "../batch.ts";
import { allocate, apply1, linearIn, type Op, type Spec, specOf, wantType } from "../op.ts";
import { wantLike } from "../checks.ts";
import { add, affine } from "./arithmetic.ts";
import { stretch, reshape } from "./broadcast.ts";
import { matmul } from "./matmul.ts";
import { softmax } from "./reduce.ts";
import { slice, transpose } from "./shape.ts";

interface AttentionAttrs {
  readonly heads: number;
  readonly kvHeads: number;
}

function paramsOf(qkv: { shape: Shape }, { heads, kvHeads }: AttentionAttrs): AttentionParams {
  const [batch, time, cols] = extentsOf(qkv.shape, 3);
  const headDim = cols / (heads + 2 * kvHeads);
  return { batch, time, heads, kvHeads, headDim, scale: 1 / Math.sqrt(headDim) };
}

/** The spec of o. Throws for inputs from which attention cannot be computed. */
function outputSpec(name: string, qkv: Spec, attrs: AttentionAttrs): Spec {
  wantType(name, "qkv", qkv, "f32");
  const { heads, kvHeads } = attrs;
  integerIn(1)(`${name}: heads`, heads);
  integerIn(1)(`${name}: kvHeads`, kvHeads);
  if (heads % kvHeads !== 0)
    throw new GradmixError("shape", `${name}: ${heads} heads cannot share ${kvHeads} key/value heads`);
  const misfit = (): GradmixError =>
    new GradmixError(
      "shape",
      `${name}: qkv ${formatShape(qkv.shape)} does not hold ${heads} query and 2·${kvHeads} key/value heads; wanted [batch, time, (heads + 2·kvHeads)·headDim]`,
    );
  if (qkv.shape.length !== 3) throw misfit();
  const { batch, time, headDim } = paramsOf(qkv, attrs);
  if (!Number.isInteger(headDim) || headDim < 1) throw misfit();
  return { shape: [batch, time, heads * headDim], dtype: "f32" };
}

export const causalAttentionOp: Op<AttentionAttrs, "qkv", "y", "qkv o lse"> = {
  name: "causalAttention",
  keepsBatch: keepsRows,
  infer([qkv], attrs) {
    return [outputSpec("causalAttention", qkv, attrs)];
  },
  forward([qkv], attrs, [spec]) {
    const params = paramsOf(qkv, attrs);
    const o = allocate(spec, qkv);
    const lse = allocate({ shape: [params.batch, params.heads, params.time], dtype: "f32" }, qkv);
    run("attention", params, { qkv }, { o, lse });
    return { outputs: [o], saved: [qkv, o, lse] };
  },
  vjp([ct], { attrs, saved }) {
    return [ct === null ? null : apply1(attentionVjpOp, [...saved, ct], attrs)];
  },
  jvp([tangent], { attrs, saved }) {
    return [tangent === null ? null : apply1(attentionJvpOp, [...saved, tangent], attrs)];
  },
  compose([qkv], attrs) {
    const { batch, time, heads, kvHeads, headDim, scale } = paramsOf(qkv, attrs);
    const part = (first: number, count: number): Tensor => {
      const columns = slice(qkv, [0, 0, first * headDim], [batch, time, count * headDim]);
      return transpose(reshape(columns, [batch, time, count, headDim]), [0, 2, 1, 3]);
    };
    // Each key/value head is repeated for the query heads that read it.
    const shared = (t: Tensor): Tensor =>
      reshape(
        stretch(reshape(t, [batch, kvHeads, 1, time, headDim]), [
          batch,
          kvHeads,
          heads / kvHeads,
          time,
          headDim,
        ]),
        [batch, heads, time, headDim],
      );
    const q = part(0, heads);
    const k = shared(part(heads, kvHeads));
    const v = shared(part(heads + kvHeads, kvHeads));
    const scores = affine(matmul(q, k, { transposeB: true }), scale, 0);
    const weights = softmax(add(scores, causalMask(time, qkv)));
    const o = transpose(matmul(weights, v), [0, 2, 1, 3]);
    return [reshape(o, [batch, time, heads * headDim])];
  },
};

/** 0 up to the diagonal; above it, low enough for a weight of 0. */
function causalMask(time: number, like: Tensor): Tensor {
  const mask = empty([time, time], "f32", like.memory);
  mask.write(
    Float32Array.from({ length: time * time }, (_, i) => (i % time > Math.floor(i / time) ? -1e30 : 0)),
  );
  return mask;
}

/** Throws unless these are the unchanged results of the forward pass. */
function wantSaved(name: string, attrs: AttentionAttrs, qkv: Spec, o: Spec, lse: Spec): void {
  wantLike(name, "o", o, outputSpec(name, qkv, attrs));
  const [batch, time] = extentsOf(qkv.shape, 3);
  wantLike(name, "lse", lse, { shape: [batch, attrs.heads, time], dtype: "f32" });
}

/** Maps [qkv, o, lse, do] to dqkv; linear in do, with `attentionJvp` as its transpose. */
export const attentionVjpOp: Op<AttentionAttrs, "qkv o lse ct", "y", "qkv o lse"> = {
  name: "attentionVjp",
  keepsBatch: keepsRows,
  infer([qkv, o, lse, ct], attrs) {
    wantSaved("attentionVjp", attrs, qkv, o, lse);
    wantLike("attentionVjp", "the cotangent", ct, o);
    return [specOf(qkv)];
  },
  forward([qkv, o, lse, ct], attrs, [spec]) {
    const out = allocate(spec, qkv);
    run("attentionVjp", paramsOf(qkv, attrs), { qkv, o, lse, dOut: ct }, { dqkv: out });
    return { outputs: [out], saved: [qkv, o, lse] };
  },
  ...linearIn<AttentionAttrs>(
    "attentionVjp",
    3,
    (constants, t, attrs) => apply1(attentionVjpOp, [...constants, t], attrs),
    (constants, ct, attrs) => apply1(attentionJvpOp, [...constants, ct], attrs),
  ),
};

/** Maps [qkv, o, lse, tangent of qkv] to the tangent of o. */
export const attentionJvpOp: Op<AttentionAttrs, "qkv o lse tangent", "y", "qkv o lse"> = {
  name: "attentionJvp",
  keepsBatch: keepsRows,
  infer([qkv, o, lse, tangent], attrs) {
    wantSaved("attentionJvp", attrs, qkv, o, lse);
    wantLike("attentionJvp", "the tangent", tangent, qkv);
    return [outputSpec("attentionJvp", qkv, attrs)];
  },
  forward([qkv, o, lse, tangent], attrs, [spec]) {
    const out = allocate(spec, qkv);
    run("attentionJvp", paramsOf(qkv, attrs), { qkv, o, lse, dqkv: tangent }, { dOut: out });
    return { outputs: [out], saved: [qkv, o, lse] };
  },
  ...linearIn<AttentionAttrs>(
    "attentionJvp",
    3,
    (constants, t, attrs) => apply1(attentionJvpOp, [...constants, t], attrs),
    (constants, ct, attrs) => apply1(attentionVjpOp, [...constants, ct], attrs),
  ),
};

/**
 * Softmax attention of each position to itself and the positions before: qkv [batch, time, (heads + 2·kvHeads)·headDim], with columns in the order
 * all q heads, all k heads, all v heads → [batch, time, heads·headDim]. Scores are scaled by 1/√headDim; query head h reads key/value head
 * ⌊h·kvHeads/heads⌋. `kvHeads` defaults to `heads`.
 */
export function causalAttention(qkv: Tensor, options: { heads: number; kvHeads?: number }): Tensor<"f32"> {
  const given: unknown = options;
  if (isTensor(given))
    throw new GradmixError(
      "config",
      "causalAttention: the options are a tensor; q, k and v are one tensor here, joined in the last axis, and attention takes them one by one",
    );
  checkOptions("causalAttention", options, { heads: unchecked, kvHeads: unchecked });
  const { heads, kvHeads = heads } = options;
  return apply1(causalAttentionOp, [qkv], { heads, kvHeads });
}
