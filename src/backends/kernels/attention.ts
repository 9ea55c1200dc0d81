/** Kernels of attention, causal or with a mask, and of rotary positions. */
import {
  extent,
  f32,
  finite,
  flag,
  inPlaceOf,
  type KernelSpec,
  loose,
  optional,
  positive,
  type Signature,
  type Specs,
  type Tolerance,
} from "./spec.ts";

/** Parameters of the causal attention kernels. */
export interface AttentionParams {
  batch: number;
  time: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  scale: number;
}

/** Parameters of the masked attention kernels. */
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

/** Signatures of the attention kernels. */
export interface AttentionKernels {
  /**
   * [x: batch·time·cols] → [y]: rotates the first `heads` blocks of `headDim` columns by position·theta^(−2i/headDim)
   * (pairs i, i + headDim/2, as in the Llama code; positions offset … offset + time − 1, below 2³¹) and copies the other columns. `inverse` rotates in the
   * opposite direction, which is the vjp. `y` may be `x`.
   */
  rope: Signature<
    {
      batch: number;
      time: number;
      cols: number;
      heads: number;
      headDim: number;
      theta: number;
      /** Position of the first row of every item. */
      offset: number;
      inverse: boolean;
    },
    "x",
    "y"
  >;
  /**
   * Causal attention, tiled. [qkv: batch·time·(heads + 2·kvHeads)·headDim] → [o: batch·time·heads·headDim,
   * lse: batch·heads·time]: o = softmax(scale·q kᵀ + causal)·v; query head h reads key/value head ⌊h·kvHeads/heads⌋;
   * columns hold all q heads, then all k heads, then all v heads. lse is the log-sum-exp of the scaled scores.
   */
  attention: Signature<AttentionParams, "qkv", "o lse">;
  /** [qkv, o, lse, dOut] → [dqkv]: the vjp of `attention`. */
  attentionVjp: Signature<AttentionParams, "qkv o lse dOut", "dqkv">;
  /** [qkv, o, lse, dqkv] → [dOut]: the jvp of `attention`. */
  attentionJvp: Signature<AttentionParams, "qkv o lse dqkv", "dOut">;
  /**
   * Attention with an additive mask. [q: batch·heads·time·headDim, k: batch·kvHeads·keys·headDim, v: the same, mask: maskBatch·maskHeads·time·keys?] →
   * [o: as q, lse: batch·heads·time]: o = softmax(scale·q kᵀ + mask)·v; query head h reads key/value head ⌊h·kvHeads/heads⌋. The mask's first two extents are 1 or
   * those of q; −∞ hides a key. `causal` hides the keys s > t + keys − time from query t, so the last query sees all keys. A query from which every key is hidden gives
   * o = 0 and lse = −∞, and all of its derivatives are 0.
   */
  maskedAttention: Signature<MaskedAttentionParams, "q k v mask?", "o lse">;
  /** [q, k, v, mask?, o, lse, dOut] → [dq, dk, dv]: the vjp of `maskedAttention`. */
  maskedAttentionVjp: Signature<MaskedAttentionParams, "q k v mask? o lse dOut", "dq dk dv">;
  /** [q, k, v, mask?, o, lse, dq, dk, dv] → [dOut]: the jvp of `maskedAttention`. */
  maskedAttentionJvp: Signature<MaskedAttentionParams, "q k v mask? o lse dq dk dv", "dOut">;
}

const derivative: Tolerance = { rtol: 5e-5, atol: 5e-5 };

const causalParams = {
  ...{ batch: extent, time: extent, heads: positive, kvHeads: positive, headDim: positive },
  scale: finite,
};
const packed = (p: AttentionParams): number => p.batch * p.time * (p.heads + 2 * p.kvHeads) * p.headDim;
const attended = (p: AttentionParams): number => p.batch * p.time * p.heads * p.headDim;
const sums = (p: AttentionParams): number => p.batch * p.time * p.heads;
const headsShare = ({ heads, kvHeads }: AttentionParams): string | null =>
  heads % kvHeads === 0 ? null : `${heads} heads cannot share ${kvHeads} key/value heads`;

const maskedParams = {
  ...{ batch: extent, heads: positive, kvHeads: positive, time: extent, keys: extent, headDim: positive },
  ...{ scale: finite, causal: flag, maskBatch: positive, maskHeads: positive },
};
const queries = (p: MaskedAttentionParams): number => p.batch * p.heads * p.time * p.headDim;
const keys = (p: MaskedAttentionParams): number => p.batch * p.kvHeads * p.keys * p.headDim;
const maskedSums = (p: MaskedAttentionParams): number => p.batch * p.heads * p.time;
const maskedInputs: KernelSpec<AttentionKernels["maskedAttention"]>["inputs"] = {
  ...{ q: f32(queries), k: f32(keys), v: f32(keys) },
  mask: optional(f32((p) => p.maskBatch * p.maskHeads * p.time * p.keys)),
};
const maskFits = (p: MaskedAttentionParams): string | null => {
  if (p.heads % p.kvHeads !== 0) return `${p.heads} heads cannot share ${p.kvHeads} key/value heads`;
  return [1, p.batch].includes(p.maskBatch) && [1, p.heads].includes(p.maskHeads)
    ? null
    : `a mask of ${p.maskBatch} items and ${p.maskHeads} heads does not fit ${p.batch} items and ${p.heads} heads`;
};

export const attention: Specs<AttentionKernels> = {
  rope: {
    params: {
      ...{ batch: extent, time: extent, cols: extent, heads: extent, headDim: extent },
      theta: {
        what: "a finite number above 0",
        fits: (theta) => typeof theta === "number" && theta > 0 && theta < Infinity,
      },
      offset: extent,
      inverse: flag,
    },
    inputs: { x: f32((p) => p.batch * p.time * p.cols) },
    outputs: {
      y: inPlaceOf(
        ["x"],
        f32((p) => p.batch * p.time * p.cols),
      ),
    },
    tolerance: loose,
    together({ heads, headDim, cols, time, offset }) {
      if (offset + time > 2 ** 31 - 1) return `positions go up to ${offset + time}; at most 2³¹ − 1 fit`;
      if (headDim % 2 !== 0) return `headDim must be even, it is ${headDim}`;
      return heads * headDim <= cols ? null : `${heads} heads of ${headDim} do not fit into ${cols} columns`;
    },
  },
  attention: {
    params: causalParams,
    inputs: { qkv: f32(packed) },
    outputs: { o: f32(attended), lse: f32(sums) },
    tolerance: loose,
    together: headsShare,
  },
  attentionVjp: {
    params: causalParams,
    inputs: { qkv: f32(packed), o: f32(attended), lse: f32(sums), dOut: f32(attended) },
    outputs: { dqkv: f32(packed) },
    tolerance: derivative,
    together: headsShare,
  },
  attentionJvp: {
    params: causalParams,
    inputs: { qkv: f32(packed), o: f32(attended), lse: f32(sums), dqkv: f32(packed) },
    outputs: { dOut: f32(attended) },
    tolerance: derivative,
    together: headsShare,
  },
  maskedAttention: {
    params: maskedParams,
    inputs: maskedInputs,
    outputs: { o: f32(queries), lse: f32(maskedSums) },
    tolerance: loose,
    together: maskFits,
  },
  maskedAttentionVjp: {
    params: maskedParams,
    inputs: { ...maskedInputs, o: f32(queries), lse: f32(maskedSums), dOut: f32(queries) },
    outputs: { dq: f32(queries), dk: f32(keys), dv: f32(keys) },
    tolerance: derivative,
    together: maskFits,
  },
  maskedAttentionJvp: {
    params: maskedParams,
    inputs: {
      ...{ ...maskedInputs, o: f32(queries), lse: f32(maskedSums) },
      ...{ dq: f32(queries), dk: f32(keys), dv: f32(keys) },
    },
    outputs: { dOut: f32(queries) },
    tolerance: derivative,
    together: maskFits,
  },
};
