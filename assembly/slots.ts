// Made by scripts/slots.mjs out of assembly/slots.mjs: change that, and run `npm run build:wasm`.

// @ts-ignore: decorator
@unmanaged export class ScratchSlots {
  scratchAt: usize;
  scratchStride: usize;
}

// @ts-ignore: decorator
@unmanaged export class CumsumSlots extends ScratchSlots {
  x: usize;
  y: usize;
  outer: i32;
  outerPerTask: i32;
  length: i32;
  inner: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  reverse: i32;
}

// @ts-ignore: decorator
@unmanaged export class TopkSlots extends ScratchSlots {
  x: usize;
  indices: usize;
  rows: i32;
  rowsPerTask: i32;
  length: i32;
  inner: i32;
  k: i32;
}

// @ts-ignore: decorator
@unmanaged export class TakeAlongSlots extends ScratchSlots {
  x: usize;
  indices: usize;
  out: usize;
  elements: i32;
  elementsPerTask: i32;
  length: i32;
  inner: i32;
  count: i32;
}

// @ts-ignore: decorator
@unmanaged export class ScatterAddAlongSlots extends ScratchSlots {
  y: usize;
  indices: usize;
  out: usize;
  outer: i32;
  outerPerTask: i32;
  length: i32;
  inner: i32;
  count: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
}

// @ts-ignore: decorator
@unmanaged export class AttentionSlots extends ScratchSlots {
  qkv: usize;
  o: usize;
  lse: usize;
  time: i32;
  heads: i32;
  kvHeads: i32;
  headDim: i32;
  queriesPerTask: i32;
  parts: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class AttentionVjpSlots extends ScratchSlots {
  qkv: usize;
  o: usize;
  lse: usize;
  dOut: usize;
  dqkv: usize;
  time: i32;
  heads: i32;
  kvHeads: i32;
  headDim: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class AttentionJvpSlots extends ScratchSlots {
  qkv: usize;
  o: usize;
  lse: usize;
  dqkv: usize;
  dOut: usize;
  time: i32;
  heads: i32;
  kvHeads: i32;
  headDim: i32;
  queriesPerTask: i32;
  parts: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class MaskedAttentionSlots extends ScratchSlots {
  q: usize;
  k: usize;
  v: usize;
  mask: usize;
  o: usize;
  lse: usize;
  time: i32;
  keys: i32;
  heads: i32;
  kvHeads: i32;
  headDim: i32;
  causal: i32;
  maskBatch: i32;
  maskHeads: i32;
  queriesPerTask: i32;
  parts: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class MaskedAttentionVjpSlots extends MaskedAttentionSlots {
  dOut: usize;
  dq: usize;
  dk: usize;
  dv: usize;
}

// @ts-ignore: decorator
@unmanaged export class MaskedAttentionJvpSlots extends MaskedAttentionSlots {
  dq: usize;
  dk: usize;
  dv: usize;
  dOut: usize;
}

// @ts-ignore: decorator
@unmanaged export class UnarySlots extends ScratchSlots {
  x: usize;
  y: usize;
  elements: i32;
  elementsPerTask: i32;
}

// @ts-ignore: decorator
@unmanaged export class UnaryVjpSlots extends ScratchSlots {
  x: usize;
  dy: usize;
  dx: usize;
  elements: i32;
  elementsPerTask: i32;
}

// @ts-ignore: decorator
@unmanaged export class AffineSlots extends ScratchSlots {
  x: usize;
  y: usize;
  elements: i32;
  elementsPerTask: i32;
  scale: f32;
  shift: f32;
}

// @ts-ignore: decorator
@unmanaged export class AccumulateSlots extends ScratchSlots {
  x: usize;
  y: usize;
  elements: i32;
  elementsPerTask: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class SelectElementsSlots extends ScratchSlots {
  condition: usize;
  a: usize;
  b: usize;
  c: usize;
  elements: i32;
  elementsPerTask: i32;
}

// @ts-ignore: decorator
@unmanaged export class CastSlots extends ScratchSlots {
  x: usize;
  y: usize;
  elements: i32;
  elementsPerTask: i32;
  conversion: i32;
}

// @ts-ignore: decorator
@unmanaged export class SwigluSlots extends ScratchSlots {
  x: usize;
  y: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
}

// @ts-ignore: decorator
@unmanaged export class SwigluVjpSlots extends ScratchSlots {
  x: usize;
  dy: usize;
  dx: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
}

// @ts-ignore: decorator
@unmanaged export class SwigluJvpSlots extends ScratchSlots {
  x: usize;
  dx: usize;
  dy: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
}

// @ts-ignore: decorator
@unmanaged export class FillSlots extends ScratchSlots {
  out: usize;
  elements: i32;
  elementsPerTask: i32;
  bits: i32;
}

// @ts-ignore: decorator
@unmanaged export class TrapSlots extends ScratchSlots {
  failing: i32;
}

// @ts-ignore: decorator
@unmanaged export class PackPanelsSlots extends ScratchSlots {
  from: usize;
  to: usize;
  width: i32;
  k: i32;
  kMajor: i32;
  panel: i32;
  panelsPerTask: i32;
  ld: i32;
}

// @ts-ignore: decorator
@unmanaged export class GemmBlockSlots extends ScratchSlots {
  a: usize;
  b: usize;
  c: usize;
  slope: usize;
  bias: usize;
  m: i32;
  n: i32;
  k: i32;
  kMajor: i32;
  lda: i32;
  ldc: i32;
  accumulate: i32;
  activation: i32;
  rowsPerTask: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  ldb: i32;
  pass: i32;
  inPlaceA: i32;
  packedA: i32;
  alpha: f32;
}

// @ts-ignore: decorator
@unmanaged export class SegmentedBlockSlots extends ScratchSlots {
  a: usize;
  b: usize;
  segments: usize;
  groups: usize;
  v: usize;
  total: usize;
  partials: usize;
  m: i32;
  n: i32;
  segmentCount: i32;
  groupCount: i32;
  targetSegments: i32;
  firstAccumulated: i32;
  accumulate: i32;
  rowsPerTask: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
}

// @ts-ignore: decorator
@unmanaged export class SegmentedReduceSlots extends ScratchSlots {
  partials: usize;
  tasks: i32;
  segmentCount: i32;
  groupCount: i32;
  dots: usize;
  sumsq: usize;
  groupSumsq: usize;
  vSumsq: usize;
}

// @ts-ignore: decorator
@unmanaged export class AlignBlockSlots extends ScratchSlots {
  x: usize;
  v: usize;
  y: usize;
  partials: usize;
  rows: i32;
  n: i32;
  k: i32;
  rowsPerTask: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  pass: i32;
}

// @ts-ignore: decorator
@unmanaged export class AlignNonzerosSlots extends AlignBlockSlots {
}

// @ts-ignore: decorator
@unmanaged export class CountNonzerosSlots extends ScratchSlots {
  a: usize;
  b: usize;
  counts: usize;
  rows: i32;
  m: i32;
  n: i32;
  sampled: i32;
}

// @ts-ignore: decorator
@unmanaged export class AlignSegmentsSlots extends ScratchSlots {
  partials: usize;
  columnBlocks: i32;
  rows: i32;
  segments: usize;
  segmentCount: i32;
  aligned: i32;
  dots: usize;
}

// @ts-ignore: decorator
@unmanaged export class GramSquaresSlots extends ScratchSlots {
  a: usize;
  b: usize;
  offsets: usize;
  squares: usize;
  ranges: i32;
  rangesPerTask: i32;
  m: i32;
  n: i32;
  most: i32;
}

// @ts-ignore: decorator
@unmanaged export class MicroPeakSlots extends ScratchSlots {
  rounds: i32;
}

// @ts-ignore: decorator
@unmanaged export class NearestPackSlots extends ScratchSlots {
  y: usize;
  bias: usize;
  panels: usize;
  columns: usize;
  count: i32;
  width: i32;
  panelsPerTask: i32;
  unbounded: usize;
}

// @ts-ignore: decorator
@unmanaged export class NearestSlots extends ScratchSlots {
  x: usize;
  panels: usize;
  columns: usize;
  y: usize;
  bias: usize;
  ids: usize;
  scores: usize;
  rows: i32;
  width: i32;
  count: i32;
  rowsPerTask: i32;
  unbounded: usize;
}

// @ts-ignore: decorator
@unmanaged export class NormSlots extends ScratchSlots {
  x: usize;
  gain: usize;
  bias: usize;
  residual: usize;
  y: usize;
  stats: usize;
  sum: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
  layer: i32;
  eps: f32;
}

// @ts-ignore: decorator
@unmanaged export class NormVjpSlots extends ScratchSlots {
  x: usize;
  gain: usize;
  stats: usize;
  dy: usize;
  also: usize;
  dx: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
  layer: i32;
}

// @ts-ignore: decorator
@unmanaged export class NormJvpSlots extends ScratchSlots {
  x: usize;
  gain: usize;
  stats: usize;
  dx: usize;
  dgain: usize;
  dbias: usize;
  dy: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
  layer: i32;
}

// @ts-ignore: decorator
@unmanaged export class ClipScaleSlots extends ScratchSlots {
  sumsq: usize;
  scale: usize;
  maxNorm: f32;
}

// @ts-ignore: decorator
@unmanaged export class AdamSlots extends ScratchSlots {
  grad: usize;
  gradScale: usize;
  value: usize;
  m: usize;
  v: usize;
  elements: i32;
  elementsPerTask: i32;
  lr: f32;
  beta1: f32;
  rest1: f32;
  beta2: f32;
  rest2: f32;
  eps: f32;
  weightDecay: f32;
  correction1: f32;
  correction2: f32;
}

// @ts-ignore: decorator
@unmanaged export class AdamwSlots extends AdamSlots {
}

// @ts-ignore: decorator
@unmanaged export class SgdSlots extends ScratchSlots {
  grad: usize;
  gradScale: usize;
  value: usize;
  velocity: usize;
  elements: i32;
  elementsPerTask: i32;
  nesterov: i32;
  lr: f32;
  momentum: f32;
  weightDecay: f32;
}

// @ts-ignore: decorator
@unmanaged export class RandomSlots extends ScratchSlots {
  out: usize;
  elements: i32;
  elementsPerTask: i32;
  key0: i32;
  key1: i32;
  offset: i32;
}

// @ts-ignore: decorator
@unmanaged export class DropoutSlots extends ScratchSlots {
  x: usize;
  y: usize;
  elements: i32;
  elementsPerTask: i32;
  key0: i32;
  key1: i32;
  threshold: i32;
  scale: f32;
}

// @ts-ignore: decorator
@unmanaged export class ReduceRowsSlots extends ScratchSlots {
  x: usize;
  y: usize;
  rows: i32;
  rowsPerTask: i32;
  length: i32;
  kind: i32;
}

// @ts-ignore: decorator
@unmanaged export class ReduceColumnsSlots extends ScratchSlots {
  x: usize;
  y: usize;
  outer: i32;
  length: i32;
  inner: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  kind: i32;
}

// @ts-ignore: decorator
@unmanaged export class SegmentColumnsSlots extends ScratchSlots {
  x: usize;
  y: usize;
  stats: usize;
  segments: usize;
  out: usize;
  segmentCount: i32;
  segmentsPerTask: i32;
  width: i32;
  outStride: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  accumulate: i32;
}

// @ts-ignore: decorator
@unmanaged export class AlignRowsSlots extends ScratchSlots {
  g: usize;
  v: usize;
  dots: usize;
  sumsq: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
}

// @ts-ignore: decorator
@unmanaged export class DotPartialsSlots extends ScratchSlots {
  x: usize;
  y: usize;
  partials: usize;
  elements: i32;
  elementsPerTask: i32;
}

// @ts-ignore: decorator
@unmanaged export class DotTotalSlots extends ScratchSlots {
  partials: usize;
  count: i32;
  out: usize;
}

// @ts-ignore: decorator
@unmanaged export class RopeSlots extends ScratchSlots {
  x: usize;
  y: usize;
  batch: i32;
  time: i32;
  positionsPerTask: i32;
  cols: i32;
  heads: i32;
  headDim: i32;
  frequencies: usize;
  inverse: i32;
  offset: i32;
}

// @ts-ignore: decorator
@unmanaged export class SoftmaxSlots extends ScratchSlots {
  x: usize;
  y: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class SoftmaxVjpSlots extends ScratchSlots {
  y: usize;
  dy: usize;
  dx: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class LogSoftmaxSlots extends ScratchSlots {
  x: usize;
  y: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class LogSoftmaxVjpSlots extends ScratchSlots {
  y: usize;
  dy: usize;
  dx: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class CrossEntropySlots extends ScratchSlots {
  logits: usize;
  targets: usize;
  losses: usize;
  lse: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class CrossEntropyVjpSlots extends ScratchSlots {
  logits: usize;
  targets: usize;
  lse: usize;
  dlosses: usize;
  dlogits: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class CrossEntropyJvpSlots extends ScratchSlots {
  logits: usize;
  targets: usize;
  lse: usize;
  dlogits: usize;
  dlosses: usize;
  rows: i32;
  rowsPerTask: i32;
  cols: i32;
}

// @ts-ignore: decorator
@unmanaged export class CopyRowsSlots extends ScratchSlots {
  from: usize;
  to: usize;
  length: i32;
  fromStep: i32;
  toStep: i32;
  rows: i32;
  rowsPerTask: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  rank: i32;
  @inline get extents(): usize { return changetype<usize>(this) + offsetof<CopyRowsSlots>("extents_0"); }
  private extents_0: i32;
  private extents_1: i32;
  private extents_2: i32;
  private extents_3: i32;
  private extents_4: i32;
  @inline get strides0(): usize { return changetype<usize>(this) + offsetof<CopyRowsSlots>("strides0_0"); }
  private strides0_0: i32;
  private strides0_1: i32;
  private strides0_2: i32;
  private strides0_3: i32;
  private strides0_4: i32;
  @inline get strides1(): usize { return changetype<usize>(this) + offsetof<CopyRowsSlots>("strides1_0"); }
  private strides1_0: i32;
  private strides1_1: i32;
  private strides1_2: i32;
  private strides1_3: i32;
  private strides1_4: i32;
}

// @ts-ignore: decorator
@unmanaged export class CopyTilesSlots extends ScratchSlots {
  from: usize;
  to: usize;
  rows: i32;
  columns: i32;
  fromColumn: i32;
  toRow: i32;
  rowsPerTask: i32;
  rowBlocks: i32;
  rank: i32;
  @inline get extents(): usize { return changetype<usize>(this) + offsetof<CopyTilesSlots>("extents_0"); }
  private extents_0: i32;
  private extents_1: i32;
  private extents_2: i32;
  private extents_3: i32;
  private extents_4: i32;
  @inline get strides0(): usize { return changetype<usize>(this) + offsetof<CopyTilesSlots>("strides0_0"); }
  private strides0_0: i32;
  private strides0_1: i32;
  private strides0_2: i32;
  private strides0_3: i32;
  private strides0_4: i32;
  @inline get strides1(): usize { return changetype<usize>(this) + offsetof<CopyTilesSlots>("strides1_0"); }
  private strides1_0: i32;
  private strides1_1: i32;
  private strides1_2: i32;
  private strides1_3: i32;
  private strides1_4: i32;
}

// @ts-ignore: decorator
@unmanaged export class BinarySlots extends ScratchSlots {
  a: usize;
  b: usize;
  c: usize;
  length: i32;
  aStep: i32;
  bStep: i32;
  rows: i32;
  rowsPerTask: i32;
  columnsPerTask: i32;
  columnBlocks: i32;
  rank: i32;
  @inline get extents(): usize { return changetype<usize>(this) + offsetof<BinarySlots>("extents_0"); }
  private extents_0: i32;
  private extents_1: i32;
  private extents_2: i32;
  private extents_3: i32;
  private extents_4: i32;
  @inline get strides0(): usize { return changetype<usize>(this) + offsetof<BinarySlots>("strides0_0"); }
  private strides0_0: i32;
  private strides0_1: i32;
  private strides0_2: i32;
  private strides0_3: i32;
  private strides0_4: i32;
  @inline get strides1(): usize { return changetype<usize>(this) + offsetof<BinarySlots>("strides1_0"); }
  private strides1_0: i32;
  private strides1_1: i32;
  private strides1_2: i32;
  private strides1_3: i32;
  private strides1_4: i32;
}

// @ts-ignore: decorator
@unmanaged export class CompareSlots extends BinarySlots {
}

// @ts-ignore: decorator
@unmanaged export class GatherSlots extends ScratchSlots {
  table: usize;
  ids: usize;
  out: usize;
  rows: i32;
  rowsPerTask: i32;
  width: i32;
  tableRows: i32;
}

// @ts-ignore: decorator
@unmanaged export class ScatterAddSlots extends ScratchSlots {
  x: usize;
  ids: usize;
  out: usize;
  rows: i32;
  width: i32;
  tableRows: i32;
  tableRowsPerTask: i32;
  accumulate: i32;
}

// @ts-ignore: decorator
@unmanaged export class EmbeddingAlignSlots extends ScratchSlots {
  dy: usize;
  ids: usize;
  segments: usize;
  groups: usize;
  v: usize;
  dots: usize;
  sumsq: usize;
  groupSumsq: usize;
  width: i32;
  tableRows: i32;
  segmentCount: i32;
}
