/**
 * gradmix: tensors, automatic differentiation, and backward passes that measure examples and domains. This is the entry for browsers;
 * index.node.ts is the entry for Node.js.
 */
export { GradmixError, type ErrorCode } from "./errors.ts";
export { init } from "./host-browser.ts";
export { type InitOptions, shutdown } from "./init.ts";
export type { CancelSignal } from "./cancel.ts";
export type { CpuUrls } from "./backends/cpu/options.ts";
export type { Backend, BackendName, Capabilities } from "./backends/backend.ts";
export type { Activation } from "./backends/kernels/index.ts";
export type { NestedNumbers } from "./tensor/data.ts";
export type { DataOf, DType, TensorData } from "./tensor/dtype.ts";
export { foldIn, type Key, key } from "./tensor/rng.ts";
export type { Shape } from "./tensor/shape.ts";
export { keep, scope, Tensor, tensor } from "./tensor/tensor.ts";
export {
  arange,
  eye,
  full,
  ones,
  randomBits,
  randomNormal,
  randomUniform,
  zeros,
} from "./autograd/create.ts";
export * from "./autograd/ops/index.ts";
export { checkpoint } from "./autograd/checkpoint.ts";
export {
  type BatchRule,
  customGradient,
  type CustomGradientOptions,
  defineOp,
  type Derivatives,
  type GradientContext,
  type OpDefinition,
  type RuleContext,
} from "./autograd/custom.ts";
export type { Spec } from "./autograd/op.ts";
export {
  forwardDerivative,
  grad,
  gradients,
  type Gradients,
  type GradientsOptions,
  jvp,
  type TensorFunction,
  valueAndGrad,
  type Vjp,
  vjp,
} from "./autograd/grad.ts";
export type { GradientSink } from "./autograd/sink.ts";
export { sketchSink, type SketchSink, type SketchSinkOptions } from "./autograd/sinks/sketch.ts";
export { type SumSink, sumSink } from "./autograd/sinks/sum.ts";
export type { SumTarget } from "./autograd/sinks/rows.ts";
export {
  perDomainSink,
  perExampleSink,
  type SegmentSink,
  segmentSink,
  type SegmentSinkOptions,
} from "./autograd/sinks/segments.ts";
export {
  type AlignResult,
  type AlignSink,
  alignSink,
  type AlignSinkOptions,
  type Direction,
  normSink,
} from "./autograd/sinks/align.ts";
