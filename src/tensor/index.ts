export type { DType, TensorData } from "./dtype.ts";
export { currentMemory, type Memory, setCurrentMemory, type View } from "./memory.ts";
export { foldIn, type Key, key, threefry2x32, uniformAt } from "./rng.ts";
export * from "./shape.ts";
export { empty, forEachTensor, keep, scope, Tensor, tensor } from "./tensor.ts";
