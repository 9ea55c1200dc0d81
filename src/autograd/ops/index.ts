/** All ops, and the registry that tests enumerate. */
import type { Op } from "../op.ts";
import { swigluJvpOp, swigluOp, swigluVjpOp, unaryOps, unaryVjpOp } from "./activation.ts";
import {
  addOp,
  affineOp,
  castOp,
  clipOp,
  divOp,
  maximumOp,
  minimumOp,
  mulOp,
  signOp,
  stopGradientOp,
  subOp,
  whereOp,
} from "./arithmetic.ts";
import { attentionJvpOp, attentionVjpOp, causalAttentionOp } from "./attention.ts";
import { broadcastToOp, reshapeOp, sumOp } from "./broadcast.ts";
import { compareOps } from "./compare.ts";
import { dropoutOp } from "./dropout.ts";
import { embeddingOp } from "./embedding.ts";
import { gatherOp, scatterAddAlongAxisOp, scatterAddOp, takeAlongAxisOp } from "./indexing.ts";
import { linearOp } from "./linear.ts";
import { crossEntropyJvpOp, crossEntropyOp, crossEntropyVjpOp, oneHotOp } from "./loss.ts";
import { attentionOp, maskedAttentionJvpOp, maskedAttentionVjpOp } from "./masked-attention.ts";
import { matmulOp } from "./matmul.ts";
import { addLayerNormOp, addRmsNormOp, layerNormOp, normJvpOp, normVjpOp, rmsNormOp } from "./norm.ts";
import { powOp } from "./pow.ts";
import { logSoftmaxOp, logSoftmaxVjpOp, maxOp, minOp, softmaxOp, softmaxVjpOp } from "./reduce.ts";
import { ropeOp } from "./rope.ts";
import { argmaxOp, cumsumOp, topkOp } from "./scan.ts";
import { concatOp, padOp, sliceOp, transposeOp } from "./shape.ts";

export {
  abs,
  cos,
  erf,
  exp,
  expm1,
  gelu,
  type GeluOptions,
  log,
  log1p,
  neg,
  reciprocal,
  relu,
  rsqrt,
  sigmoid,
  silu,
  sin,
  softplus,
  sqrt,
  square,
  swiglu,
  tanh,
} from "./activation.ts";
export {
  add,
  affine,
  cast,
  clip,
  div,
  maximum,
  minimum,
  mul,
  type Operand,
  sign,
  stopGradient,
  sub,
  where,
} from "./arithmetic.ts";
export { causalAttention } from "./attention.ts";
export { type Axis, broadcastTo, reshape, sum } from "./broadcast.ts";
export {
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  logicalAnd,
  logicalNot,
  logicalOr,
  notEqual,
} from "./compare.ts";
export { dropout, type DropoutOptions } from "./dropout.ts";
export { embedding } from "./embedding.ts";
export { einsum } from "./einsum.ts";
export { gather, scatterAdd, scatterAddAlongAxis, takeAlongAxis } from "./indexing.ts";
export { linear } from "./linear.ts";
export { crossEntropy, exampleLosses, oneHot } from "./loss.ts";
export { attention, type AttentionOptions } from "./masked-attention.ts";
export { matmul } from "./matmul.ts";
export { layerNorm, rmsNorm } from "./norm.ts";
export { pow } from "./pow.ts";
export { logSoftmax, logSumExp, max, mean, min, softmax, variance, type VarianceOptions } from "./reduce.ts";
export { rope, type RopeOptions } from "./rope.ts";
export { argmax, cumsum, topk, type TopK } from "./scan.ts";
export { concat, pad, slice, split, squeeze, stack, transpose, unsqueeze } from "./shape.ts";

/** Every op by its name. Attributes differ between ops, hence `never`. */
export const ops: { readonly [name: string]: Op<never> } = Object.fromEntries(
  [
    ...Object.values(unaryOps),
    addOp,
    subOp,
    mulOp,
    divOp,
    maximumOp,
    minimumOp,
    powOp,
    clipOp,
    ...Object.values(compareOps),
    affineOp,
    signOp,
    whereOp,
    castOp,
    stopGradientOp,
    reshapeOp,
    broadcastToOp,
    sumOp,
    transposeOp,
    sliceOp,
    padOp,
    concatOp,
    maxOp,
    minOp,
    softmaxOp,
    logSoftmaxOp,
    gatherOp,
    scatterAddOp,
    takeAlongAxisOp,
    scatterAddAlongAxisOp,
    cumsumOp,
    argmaxOp,
    topkOp,
    matmulOp,
    linearOp,
    embeddingOp,
    layerNormOp,
    rmsNormOp,
    addLayerNormOp,
    addRmsNormOp,
    ropeOp,
    causalAttentionOp,
    attentionOp,
    swigluOp,
    crossEntropyOp,
    oneHotOp,
    dropoutOp,
    // Ops that only rules use.
    unaryVjpOp,
    softmaxVjpOp,
    logSoftmaxVjpOp,
    swigluVjpOp,
    swigluJvpOp,
    normVjpOp,
    normJvpOp,
    attentionVjpOp,
    attentionJvpOp,
    maskedAttentionVjpOp,
    maskedAttentionJvpOp,
    crossEntropyVjpOp,
    crossEntropyJvpOp,
  ].map((op): [string, Op<never>] => [op.name, op as Op<never>]),
);
