/** Softmax attention of queries over keys and values with a mask, with or without causality; no time × keys matrix is kept but the mask. */
import { run } from "../../backends/backend.ts";
import type { MaskedAttentionParams } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, checkOptions, unchecked } from "../../options.ts";
import { formatShape, sameShape, type Shape } from "../../tensor/shape.ts";
import { empty, type Tensor } from "../../tensor/tensor.ts";
import { wantLike, wantTensor, wantTensors } from "../checks.ts";
import { allocate, apply, apply1, filled, type Op, type Spec, specOf, wantType } from "../op.ts";
import { exp, neg, relu } from "./activation.ts";
import { add, affine, maximum, MOST, mul, sign, sub, where } from "./arithmetic.ts";
import { reshape, stretch, sum, sumTo } from "./broadcast.ts";
import { matmul } from "./matmul.ts";
import { softmax } from "./reduce.ts";

interface AttentionAttrs {
  readonly causal: boolean;
  /** Is there a mask, after v? */
  readonly masked: boolean;
}

function paramsOf(
  inputs: readonly { shape: Shape }[],
  { causal, masked }: AttentionAttrs,
): MaskedAttentionParams {
  const [q, k] = inputs;
  const [batch, heads, time, headDim] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const [maskBatch, maskHeads] = masked ? inputs[3].shape : [1, 1];
  const scale = 1 / Math.sqrt(headDim);
  return { batch, heads, kvHeads, time, keys, headDim, scale, causal, maskBatch, maskHeads };
}

/** Throws for what attention cannot be computed of. */
function wantInputs(name: string, inputs: readonly Spec[], { causal, masked }: AttentionAttrs): void {
  const [q, k, v, mask] = inputs;
  boolean(`${name}: causal`, causal);
  boolean(`${name}: masked`, masked);
  wantType(name, "q", q, "f32");
  wantType(name, "k", k, "f32");
  const [batch, heads, time, width] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const fits = q.shape.length === 4 && k.shape.length === 4 && k.shape[0] === batch && k.shape[3] === width;
  if (!fits || !(width > 0) || !(heads > 0) || !(kvHeads > 0) || heads % kvHeads !== 0)
    throw new GradmixError(
      "shape",
      `${name}: q ${formatShape(q.shape)} and k ${formatShape(k.shape)} do not fit; wanted [batch, heads, time, width] and [batch, kvHeads, keys, width] with heads a multiple of kvHeads`,
    );
  wantLike(name, "v", v, k);
  if (!masked) return;
  wantType(name, "the mask", mask, "f32");
  const [items, own] = mask.shape;
  if (!sameShape(mask.shape, [items === 1 ? 1 : batch, own === 1 ? 1 : heads, time, keys]))
    throw new GradmixError(
      "shape",
      `${name}: the mask ${formatShape(mask.shape)} does not fit; wanted [${batch} or 1, ${heads} or 1, ${time}, ${keys}]`,
    );
}

/** Each key/value head once for every query head that reads it. */
function repeated(t: Tensor, heads: number): Tensor {
  const [batch, kvHeads, keys, width] = t.shape;
  if (kvHeads === heads) return t;
  const each = reshape(t, [batch, kvHeads, 1, keys, width]);
  return reshape(stretch(each, [batch, kvHeads, heads / kvHeads, keys, width]), [batch, heads, keys, width]);
}

/** The transpose of `repeated`. */
function gathered(t: Tensor, kvHeads: number): Tensor {
  const [batch, heads, keys, width] = t.shape;
  if (kvHeads === heads) return t;
  return sum(reshape(t, [batch, kvHeads, heads / kvHeads, keys, width]), 2);
}

/** The mask with what causality hides; null where nothing is hidden. */
function wholeMask(inputs: readonly Tensor[], { causal, masked }: AttentionAttrs): Tensor | null {
  const mask = masked ? inputs[3] : null;
  if (!causal) return mask;
  const [q, k] = inputs;
  const [time, keys] = [q.shape[2], k.shape[2]];
  const hidden = empty([1, 1, time, keys], "f32", q.memory);
  hidden.write(
    Float32Array.from({ length: time * keys }, (_, n) =>
      (n % keys) - keys > Math.floor(n / keys) - time ? -Infinity : 0,
    ),
  );
  return mask === null ? hidden : add(mask, hidden);
}

/** Scaled scores, where a hidden key has the least finite one, and 1 for what is seen and 0 for what is hidden, or null where all is seen. */
function scoresOf(inputs: readonly Tensor[], attrs: AttentionAttrs): { scores: Tensor; seen: Tensor | null } {
  const [q, k] = inputs;
  const { heads, scale } = paramsOf(inputs, attrs);
  const scores = affine(matmul(q, repeated(k, heads), { transposeB: true }), scale, 0);
  const mask = wholeMask(inputs, attrs);
  if (mask === null) return { scores, seen: null };
  const seen = affine(relu(neg(sign(affine(mask, 1, MOST)))), -1, 1);
  return { scores: add(scores, maximum(mask, -MOST)), seen };
}

/** The weights of the keys from the queries' lse; none for a query that sees nothing. */
function weightsOf(inputs: readonly Tensor[], lse: Tensor, attrs: AttentionAttrs): Tensor {
  const { scores, seen } = scoresOf(inputs, attrs);
  const weights = exp(sub(scores, reshape(maximum(lse, -MOST), [...lse.shape, 1])));
  return seen === null ? weights : mul(weights, seen);
}

/** The slope of the scores by the outputs' cotangent, before scaling: that of the mask. */
function scoreSlopes(weights: Tensor, v: Tensor, o: Tensor, ct: Tensor): Tensor {
  const each = matmul(ct, repeated(v, o.shape[1]), { transposeB: true });
  return mul(weights, sub(each, sum(mul(ct, o), -1, true)));
}

/** The outputs' tangent by that of the scores. */
function pushScores(weights: Tensor, v: Tensor, o: Tensor, tangent: Tensor): Tensor {
  const moved = mul(weights, tangent);
  return sub(matmul(moved, repeated(v, o.shape[1])), mul(o, sum(moved, -1, true)));
}

export const attentionOp: Op<AttentionAttrs> = {
  name: "attention",
  keepsBatch: (slot, inputs, output) => inputs[slot].shape[0] === output.shape[0],
  infer(inputs, attrs) {
    wantInputs("attention", inputs, attrs);
    return [specOf(inputs[0])];
  },
  forward(inputs, attrs, [spec]) {
    const [q, k, v, mask = null] = inputs;
    const params = paramsOf(inputs, attrs);
    const o = allocate(spec, q);
    const lse = allocate({ shape: q.shape.slice(0, 3), dtype: "f32" }, q);
    run("maskedAttention", params, { q, k, v, mask }, { o, lse });
    return { outputs: [o], saved: [...inputs, o, lse] };
  },
  vjp([ct], { attrs, saved, needs }) {
    if (ct === null) return needs.map(() => null);
    const slopes: (Tensor | null)[] = needs.slice(0, 3).some((need) => need)
      ? apply(maskedAttentionVjpOp, [...saved, ct], attrs)
      : [null, null, null];
    if (attrs.masked) {
      const [, , v, mask, o, lse] = saved;
      slopes.push(needs[3] ? sumTo(scoreSlopes(weightsOf(saved, lse, attrs), v, o, ct), mask.shape) : null);
    }
    return slopes;
  },
  jvp(tangents, { attrs, saved, inputs }) {
    const [o, lse] = saved.slice(-2);
    const own = tangents.slice(0, 3);
    const zeroed = (): Tensor[] => own.map((t, slot) => t ?? filled(0, specOf(inputs[slot]), inputs[slot]));
    const moved = own.some((t) => t !== null)
      ? apply1(maskedAttentionJvpOp, [...saved, ...zeroed()], attrs)
      : null;
    const shift = tangents.at(3) ?? null;
    if (shift === null) return [moved];
    const pushed = pushScores(weightsOf(inputs, lse, attrs), inputs[2], o, shift);
    return [moved === null ? pushed : add(moved, pushed)];
  },
  compose(inputs, attrs) {
    const { scores, seen } = scoresOf(inputs, attrs);
    const weights = softmax(scores);
    return [matmul(seen === null ? weights : mul(weights, seen), repeated(inputs[2], scores.shape[1]))];
  },
};

/** Throws unless o and lse are those of a forward pass over the inputs. Gives what comes after them. */
function wantSaved(name: string, inputs: readonly Spec[], attrs: AttentionAttrs): readonly Spec[] {
  wantInputs(name, inputs, attrs);
  const [q] = inputs;
  const at = attrs.masked ? 4 : 3;
  wantLike(name, "o", inputs[at], q);
  wantLike(name, "lse", inputs[at + 1], { shape: q.shape.slice(0, 3), dtype: "f32" });
  return inputs.slice(at + 2);
}

/** q, k, v and the mask, and after them what the forward pass left and what is moved. */
const partsOf = (inputs: readonly Tensor[], { masked }: AttentionAttrs) => {
  const at = masked ? 4 : 3;
  return { given: inputs.slice(0, at), mask: masked ? inputs[3] : null, rest: inputs.slice(at) };
};

/** [q, k, v, mask?, o, lse, do] → [dq, dk, dv]. */
export const maskedAttentionVjpOp: Op<AttentionAttrs> = {
  name: "maskedAttentionVjp",
  keepsBatch: attentionOp.keepsBatch,
  infer(inputs, attrs) {
    const [ct] = wantSaved("maskedAttentionVjp", inputs, attrs);
    wantLike("maskedAttentionVjp", "the cotangent", ct, inputs[0]);
    return inputs.slice(0, 3).map(specOf);
  },
  forward(inputs, attrs, specs) {
    const { given, mask, rest } = partsOf(inputs, attrs);
    const [[q, k, v], [o, lse, dOut]] = [given, rest];
    const outputs = specs.map((spec) => allocate(spec, q));
    const [dq, dk, dv] = outputs;
    run("maskedAttentionVjp", paramsOf(given, attrs), { q, k, v, mask, o, lse, dOut }, { dq, dk, dv });
    return { outputs };
  },
  compose(inputs, attrs) {
    const { given, rest } = partsOf(inputs, attrs);
    const [[q, k, v], [o, lse, ct]] = [given, rest];
    const { heads, kvHeads, scale } = paramsOf(given, attrs);
    const weights = weightsOf(given, lse, attrs);
    const slopes = affine(scoreSlopes(weights, v, o, ct), scale, 0);
    return [
      matmul(slopes, repeated(k, heads)),
      gathered(matmul(slopes, q, { transposeA: true }), kvHeads),
      gathered(matmul(weights, ct, { transposeA: true }), kvHeads),
    ];
  },
};

/** [q, k, v, mask?, o, lse, tangents of q, k, v] → the tangent of o. */
export const maskedAttentionJvpOp: Op<AttentionAttrs> = {
  name: "maskedAttentionJvp",
  keepsBatch: attentionOp.keepsBatch,
  infer(inputs, attrs) {
    const tangents = wantSaved("maskedAttentionJvp", inputs, attrs);
    ["q", "k", "v"].forEach((name, slot) =>
      wantLike("maskedAttentionJvp", `the tangent of ${name}`, tangents[slot], inputs[slot]),
    );
    return [specOf(inputs[0])];
  },
  forward(inputs, attrs, [spec]) {
    const { given, mask, rest } = partsOf(inputs, attrs);
    const [[q, k, v], [o, lse, dq, dk, dv]] = [given, rest];
    const out = allocate(spec, q);
    const operands = { q, k, v, mask, o, lse, dq, dk, dv };
    run("maskedAttentionJvp", paramsOf(given, attrs), operands, { dOut: out });
    return { outputs: [out] };
  },
  compose(inputs, attrs) {
    const { given, rest } = partsOf(inputs, attrs);
    const [[q, k, v], [o, lse, tq, tk, tv]] = [given, rest];
    const { heads, scale } = paramsOf(given, attrs);
    const weights = weightsOf(given, lse, attrs);
    const moved = add(
      matmul(tq, repeated(k, heads), { transposeB: true }),
      matmul(q, repeated(tk, heads), { transposeB: true }),
    );
    return [add(pushScores(weights, v, o, affine(moved, scale, 0)), matmul(weights, repeated(tv, heads)))];
  },
};

export interface AttentionOptions {
  /** Hides the keys s > t + keys − time from query t, so that the last query sees all: with the keys of earlier positions kept, the queries are the last ones. Default false. */
  readonly causal?: boolean;
  /** [batch or 1, heads or 1, time, keys]: f32 is added to the scaled scores (−∞ hides a key) and has a gradient; i32 shows the keys where it is not 0. */
  readonly mask?: Tensor;
}

/**
 * Softmax attention: softmax(q kᵀ/√width + mask)·v of q [batch, heads, time, width], k and v [batch, kvHeads, keys, width] → [batch, heads, time, width]. Query head h
 * reads key/value head ⌊h·kvHeads/heads⌋. A query from which every key is hidden gives 0, and has no gradient. Scores are not kept, but a gradient of the mask itself
 * makes matrices of [batch, heads, time, keys]. For training on windows `causalAttention` is faster. Throws `shape` for shapes and types that do not fit.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor<"f32"> {
  wantTensors("attention", [q, k, v]);
  checkOptions("attention", options, { causal: unchecked, mask: unchecked });
  const { causal = false, mask } = options;
  if (mask === undefined) return apply1(attentionOp, [q, k, v], { causal, masked: false });
  wantTensor("attention", "mask", mask);
  // Whether it fits is asked before numbers are made of it.
  const shifts = mask.dtype === "i32" ? { shape: mask.shape, dtype: "f32" as const } : mask;
  wantInputs("attention", [q, k, v, shifts], { causal, masked: true });
  const own = mask.dtype === "i32" ? where(mask, filled(0, { shape: [], dtype: "f32" }, q), -Infinity) : mask;
  return apply1(attentionOp, [q, k, v, own], { causal, masked: true });
}
