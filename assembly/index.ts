// Everything the CPU backend can launch: one export a kernel, (parameter block, task) → nothing.
export { setThread } from "./simd";
export * from "./fill";
export { gemmBlock, microPeak, packPanels, segmentedBlock, segmentedReduce } from "./gemm";
