/** Softmax attention of queries over keys and values with a mask, with or without causality; except for the mask, no time × keys matrix is kept. */
import { run } from "../../backends/backend.ts";
import type { MaskedAttentionParams } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, checkOptions, unchecked } from "../../options.ts";
import { MOST } from "../../tensor/dtype.ts";
import { extentsOf, formatShape, sameShape, type Shape } from "../../tensor/shape.ts";
import { empty, type Tensor } from "../../tensor/tensor.ts";
import { wantLike, wantTensor, wantTensors } from "../checks.ts";
import { allocate, apply, apply1, filled, type Op, type Spec, specOf, wantType } from "../op.ts";
import { exp, neg, relu } from "./activation.ts";
import { add, affine, maximum, mul, sign, sub, where } from "./arithmetic.ts";
import { reshape, stretch, sum, sumTo } from "./broadcast.ts";
import { matmul } from "./matmul.ts";
import { softmax } from "./reduce.ts";

interface AttentionAttrs {
  readonly causal: boolean;
  /** Whether there is a mask, after v. */
  readonly masked: boolean;
}

type Inputs<T> = readonly [q: T, k: T, v: T, ...others: T[]];

/** The inputs of attention. */
interface Given<T> {
  readonly q: T;
  readonly k: T;
  readonly v: T;
  readonly mask: T | null;
}

/** An op's inputs [q, k, v, mask?, …] by name; `rest` has those after them. */
function partsOf<T>(
  [q, k, v, ...others]: Inputs<T>,
  { masked }: AttentionAttrs,
): Given<T> & { readonly rest: readonly T[] } {
  return masked
    ? { q, k, v, mask: others[0]!, rest: others.slice(1) }
    : { q, k, v, mask: null, rest: others };
}

/** The same for the ops of the rules, whose inputs continue with o, lse and the tensors that they transform. */
function savedParts<T>(
  inputs: Inputs<T>,
  attrs: AttentionAttrs,
): Given<T> & { o: T; lse: T; moved: readonly T[] } {
  const { rest, ...given } = partsOf(inputs, attrs);
  return { ...given, o: rest[0]!, lse: rest[1]!, moved: rest.slice(2) };
}

function paramsOf({ q, k, mask }: Given<{ shape: Shape }>, causal: boolean): MaskedAttentionParams {
  const [batch, heads, time, headDim] = extentsOf(q.shape, 4);
  const [, kvHeads, keys] = extentsOf(k.shape, 4);
  const [maskBatch, maskHeads] = mask === null ? [1, 1] : extentsOf(mask.shape, 4);
  const scale = 1 / Math.sqrt(headDim);
  return { batch, heads, kvHeads, time, keys, headDim, scale, causal, maskBatch, maskHeads };
}

/** Throws for inputs from which attention cannot be computed. */
function wantGiven(name: string, { q, k, v, mask }: Given<Spec>, { causal, masked }: AttentionAttrs): void {
  boolean(`${name}: causal`, causal);
  boolean(`${name}: masked`, masked);
  wantType(name, "q", q, "f32");
  wantType(name, "k", k, "f32");
  const misfit = (): GradmixError =>
    new GradmixError(
      "shape",
      `${name}: q ${formatShape(q.shape)} and k ${formatShape(k.shape)} do not fit; wanted [batch, heads, time, width] and [batch, kvHeads, keys, width] with heads a multiple of kvHeads`,
    );
  if (q.shape.length !== 4 || k.shape.length !== 4) throw misfit();
  const [batch, heads, time, width] = extentsOf(q.shape, 4);
  const [items, kvHeads, keys, keyWidth] = extentsOf(k.shape, 4);
  if (items !== batch || keyWidth !== width) throw misfit();
  if (!(width > 0) || !(heads > 0) || !(kvHeads > 0) || heads % kvHeads !== 0) throw misfit();
  wantLike(name, "v", v, k);
  if (mask === null) return;
  wantType(name, "the mask", mask, "f32");
  const [one, own] = mask.shape;
  if (!sameShape(mask.shape, [one === 1 ? 1 : batch, own === 1 ? 1 : heads, time, keys]))
    throw new GradmixError(
      "shape",
      `${name}: the mask ${formatShape(mask.shape)} does not fit; wanted [${orOne(batch)}, ${orOne(heads)}, ${time}, ${keys}]`,
    );
}

/** "3 or 1", or "1". */
const orOne = (extent: number): string => (extent === 1 ? "1" : `${extent} or 1`);

/** Repeats each key/value head for every query head that reads it. */
function repeated(t: Tensor, heads: number): Tensor {
  const [batch, kvHeads, keys, width] = extentsOf(t.shape, 4);
  if (kvHeads === heads) return t;
  const each = reshape(t, [batch, kvHeads, 1, keys, width]);
  return reshape(stretch(each, [batch, kvHeads, heads / kvHeads, keys, width]), [batch, heads, keys, width]);
}

/** The transpose of `repeated`. */
function gathered(t: Tensor, kvHeads: number): Tensor {
  const [batch, heads, keys, width] = extentsOf(t.shape, 4);
  if (kvHeads === heads) return t;
  return sum(reshape(t, [batch, kvHeads, heads / kvHeads, keys, width]), 2);
}

/** The mask combined with causality; null if nothing is hidden. */
function wholeMask({ q, k, mask }: Given<Tensor>, causal: boolean): Tensor | null {
  if (!causal) return mask;
  const [, , time] = extentsOf(q.shape, 4);
  const [, , keys] = extentsOf(k.shape, 4);
  const hidden = empty([1, 1, time, keys], "f32", q.memory);
  hidden.write(
    Float32Array.from({ length: time * keys }, (_, n) =>
      (n % keys) - keys > Math.floor(n / keys) - time ? -Infinity : 0,
    ),
  );
  return mask === null ? hidden : add(mask, hidden);
}

/** Scaled scores, in which a hidden key has the smallest finite one, and 1 for visible and 0 for hidden keys, or null if all are visible. */
function scoresOf(given: Given<Tensor>, causal: boolean): { scores: Tensor; seen: Tensor | null } {
  const { heads, scale } = paramsOf(given, causal);
  const scores = affine(matmul(given.q, repeated(given.k, heads), { transposeB: true }), scale, 0);
  const mask = wholeMask(given, causal);
  if (mask === null) return { scores, seen: null };
  const seen = affine(relu(neg(sign(affine(mask, 1, MOST)))), -1, 1);
  return { scores: add(scores, maximum(mask, -MOST)), seen };
}

/** The weights of the keys from the queries' lse; 0 for a query that sees no key. */
function weightsOf(given: Given<Tensor>, lse: Tensor, causal: boolean): Tensor {
  const { scores, seen } = scoresOf(given, causal);
  const weights = exp(sub(scores, reshape(maximum(lse, -MOST), [...lse.shape, 1])));
  return seen === null ? weights : mul(weights, seen);
}

/** The slope of the scores for the outputs' cotangent, before scaling; it is also that of the mask. */
function scoreSlopes(weights: Tensor, v: Tensor, o: Tensor, ct: Tensor): Tensor {
  const each = matmul(ct, repeated(v, extentsOf(o.shape, 4)[1]), { transposeB: true });
  return mul(weights, sub(each, sum(mul(ct, o), -1, true)));
}

/** The outputs' tangent for that of the scores. */
function pushScores(weights: Tensor, v: Tensor, o: Tensor, tangent: Tensor): Tensor {
  const moved = mul(weights, tangent);
  return sub(matmul(moved, repeated(v, extentsOf(o.shape, 4)[1])), mul(o, sum(moved, -1, true)));
}

export const attentionOp: Op<AttentionAttrs, "q k v ...", "o", "q k v ..."> = {
  name: "attention",
  keepsBatch: (slot, inputs, output) => inputs[slot]!.shape[0] === output.shape[0],
  infer(inputs, attrs) {
    const given = partsOf(inputs, attrs);
    wantGiven("attention", given, attrs);
    return [specOf(given.q)];
  },
  forward(inputs, attrs, [spec]) {
    const { q, k, v, mask } = partsOf(inputs, attrs);
    const params = paramsOf({ q, k, v, mask }, attrs.causal);
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
    const { o, lse, ...given } = savedParts(saved, attrs);
    if (given.mask === null) return slopes;
    const ofMask = (mask: Tensor): Tensor =>
      sumTo(scoreSlopes(weightsOf(given, lse, attrs.causal), given.v, o, ct), mask.shape);
    return [...slopes, needs[3] ? ofMask(given.mask) : null];
  },
  jvp(tangents, { attrs, saved, inputs }) {
    const { o, lse, ...given } = savedParts(saved, attrs);
    const own = tangents.slice(0, 3);
    const zeroed = (): Tensor[] => inputs.slice(0, 3).map((x, slot) => own[slot] ?? filled(0, specOf(x), x));
    const moved = own.some((t) => t !== null)
      ? apply1(maskedAttentionJvpOp, [...saved, ...zeroed()], attrs)
      : null;
    const shift = tangents.at(3) ?? null;
    if (shift === null) return [moved];
    const pushed = pushScores(weightsOf(given, lse, attrs.causal), given.v, o, shift);
    return [moved === null ? pushed : add(moved, pushed)];
  },
  compose(inputs, attrs) {
    const given = partsOf(inputs, attrs);
    const { scores, seen } = scoresOf(given, attrs.causal);
    const weights = softmax(scores);
    const { heads } = paramsOf(given, attrs.causal);
    return [matmul(seen === null ? weights : mul(weights, seen), repeated(given.v, heads))];
  },
};

/** Throws unless o and lse are those of a forward pass over the inputs. Returns all of them by name. */
function wantSaved(
  name: string,
  inputs: Inputs<Spec>,
  attrs: AttentionAttrs,
): ReturnType<typeof savedParts<Spec>> {
  const parts = savedParts(inputs, attrs);
  const { q } = parts;
  wantGiven(name, parts, attrs);
  wantLike(name, "o", parts.o, q);
  wantLike(name, "lse", parts.lse, { shape: q.shape.slice(0, 3), dtype: "f32" });
  return parts;
}

/** Maps [q, k, v, mask?, o, lse, do] to [dq, dk, dv]. */
export const maskedAttentionVjpOp: Op<AttentionAttrs, "q k v ...", "dq dk dv"> = {
  name: "maskedAttentionVjp",
  keepsBatch: attentionOp.keepsBatch,
  infer(inputs, attrs) {
    const { q, k, v, moved } = wantSaved("maskedAttentionVjp", inputs, attrs);
    wantLike("maskedAttentionVjp", "the cotangent", moved[0]!, q);
    return [q, k, v].map(specOf);
  },
  forward(inputs, attrs, [forQ, forK, forV]) {
    const { moved, ...parts } = savedParts(inputs, attrs);
    const { q } = parts;
    const [dq, dk, dv] = [allocate(forQ, q), allocate(forK, q), allocate(forV, q)];
    const params = paramsOf(parts, attrs.causal);
    run("maskedAttentionVjp", params, { ...parts, dOut: moved[0]! }, { dq, dk, dv });
    return { outputs: [dq, dk, dv] };
  },
  compose(inputs, attrs) {
    const { o, lse, moved, ...given } = savedParts(inputs, attrs);
    const ct = moved[0]!;
    const { heads, kvHeads, scale } = paramsOf(given, attrs.causal);
    const weights = weightsOf(given, lse, attrs.causal);
    const slopes = affine(scoreSlopes(weights, given.v, o, ct), scale, 0);
    return [
      matmul(slopes, repeated(given.k, heads)),
      gathered(matmul(slopes, given.q, { transposeA: true }), kvHeads),
      gathered(matmul(weights, ct, { transposeA: true }), kvHeads),
    ];
  },
};

/** Maps [q, k, v, mask?, o, lse, tangents of q, k, v] to the tangent of o. */
export const maskedAttentionJvpOp: Op<AttentionAttrs, "q k v ...", "tangent"> = {
  name: "maskedAttentionJvp",
  keepsBatch: attentionOp.keepsBatch,
  infer(inputs, attrs) {
    const { q, k, v, moved } = wantSaved("maskedAttentionJvp", inputs, attrs);
    for (const [slot, [name, x]] of Object.entries({ q, k, v }).entries())
      wantLike("maskedAttentionJvp", `the tangent of ${name}`, moved[slot]!, x);
    return [specOf(q)];
  },
  forward(inputs, attrs, [spec]) {
    const { moved, ...parts } = savedParts(inputs, attrs);
    const out = allocate(spec, parts.q);
    const tangents = { dq: moved[0]!, dk: moved[1]!, dv: moved[2]! };
    const params = paramsOf(parts, attrs.causal);
    run("maskedAttentionJvp", params, { ...parts, ...tangents }, { dOut: out });
    return { outputs: [out] };
  },
  compose(inputs, attrs) {
    const { o, lse, moved, ...given } = savedParts(inputs, attrs);
    const [tq, tk, tv] = [moved[0]!, moved[1]!, moved[2]!];
    const { heads, scale } = paramsOf(given, attrs.causal);
    const weights = weightsOf(given, lse, attrs.causal);
    const shift = add(
      matmul(tq, repeated(given.k, heads), { transposeB: true }),
      matmul(given.q, repeated(tk, heads), { transposeB: true }),
    );
    return [
      add(pushScores(weights, given.v, o, affine(shift, scale, 0)), matmul(weights, repeated(tv, heads))),
    ];
  },
};

/** Options of `attention`. */
export interface AttentionOptions {
  /**
   * Hides the keys s > t + keys − time from query t, so that the last query sees all keys: with cached keys of earlier positions, the queries are the
   * last positions. Default false.
   */
  readonly causal?: boolean;
  /**
   * Mask `[batch or 1, heads or 1, time, keys]`. An f32 mask is added to the scaled scores (−∞ hides a key) and has a gradient; an i32 mask shows the
   * keys where it is not 0. Default: none.
   */
  readonly mask?: Tensor;
}

/**
 * Softmax attention: softmax(q kᵀ/√width + mask)·v with q [batch, heads, time, width], k and v [batch, kvHeads, keys, width] → [batch, heads, time,
 * width]. Query head h reads key/value head ⌊h·kvHeads/heads⌋. A query for which every key is hidden gives 0, and has no gradient. Scores are not
 * kept, but a gradient of the mask itself needs matrices of [batch, heads, time, keys]. For training on windows, `causalAttention` is faster. Throws
 * `shape` for shapes and types that do not fit.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor<"f32"> {
  wantTensors("attention", [q, k, v]);
  checkOptions("attention", options, { causal: unchecked, mask: unchecked });
  const { causal = false, mask } = options;
  if (mask === undefined) return apply1(attentionOp, [q, k, v], { causal, masked: false });
  wantTensor("attention", "mask", mask);
  // The shape is checked before the mask is converted.
  const shifts = mask.dtype === "i32" ? { shape: mask.shape, dtype: "f32" as const } : mask;
  wantGiven("attention", { q, k, v, mask: shifts }, { causal, masked: true });
  const own = mask.dtype === "i32" ? where(mask, filled(0, { shape: [], dtype: "f32" }, q), -Infinity) : mask;
  return apply1(attentionOp, [q, k, v, own], { causal, masked: true });
}
