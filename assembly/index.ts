// All functions that the CPU backend can launch: one export per kernel, with the parameter block and the number of the task as arguments.
export { setThread } from "./simd";
export { cumsum, scatterAddAlong, takeAlong, topk } from "./along";
export * from "./fill";
export {
  alignBlock, alignSegments, gemmBlock, gramSquares, microPeak, packPanels,
} from "./gemm";
export { segmentedBlock, segmentedReduce } from "./gemm-segmented";
export { attention, attentionJvp, attentionVjp } from "./attention";
export * from "./elementwise";
export { maskedAttention, maskedAttentionJvp, maskedAttentionVjp } from "./masked-attention";
export { nearest, nearestPack } from "./nearest";
export { norm, normJvp, normVjp } from "./norm";
export { adam, adamw, clipScale, sgd } from "./optimizer";
export * from "./random";
export { alignRows, dotPartials, dotTotal, reduceColumns, reduceRows, segmentColumns } from "./reduce";
export { rope } from "./rope";
export { alignNonzeros, countNonzeros } from "./skip";
export { crossEntropy, crossEntropyJvp, crossEntropyVjp, logSoftmax, logSoftmaxVjp, softmax, softmaxVjp } from "./softmax";
export * from "./strided";
export { embeddingAlign, gather, scatterAdd } from "./table";
