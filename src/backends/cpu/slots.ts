/** What a launch writes into its parameter block, by kernel. Made by scripts/slots.mjs out of assembly/slots.mjs: change that, and run `npm run build:wasm`. */

/** Views of the memory in which the block is. */
export interface Words {
  readonly i32: Int32Array;
  readonly f32: Float32Array;
}

export interface CumsumSlots {
  readonly x: number;
  readonly y: number;
  readonly outer: number;
  readonly outerPerTask: number;
  readonly length: number;
  readonly inner: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly reverse: number;
}

export interface TopkSlots {
  readonly x: number;
  readonly indices: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly length: number;
  readonly inner: number;
  readonly k: number;
}

export interface TakeAlongSlots {
  readonly x: number;
  readonly indices: number;
  readonly out: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly length: number;
  readonly inner: number;
  readonly count: number;
}

export interface ScatterAddAlongSlots {
  readonly y: number;
  readonly indices: number;
  readonly out: number;
  readonly outer: number;
  readonly outerPerTask: number;
  readonly length: number;
  readonly inner: number;
  readonly count: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
}

export interface AttentionSlots {
  readonly qkv: number;
  readonly o: number;
  readonly lse: number;
  readonly time: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly queriesPerTask: number;
  readonly parts: number;
  readonly scale: number;
}

export interface AttentionVjpSlots {
  readonly qkv: number;
  readonly o: number;
  readonly lse: number;
  readonly dOut: number;
  readonly dqkv: number;
  readonly time: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly scale: number;
}

export interface AttentionJvpSlots {
  readonly qkv: number;
  readonly o: number;
  readonly lse: number;
  readonly dqkv: number;
  readonly dOut: number;
  readonly time: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly queriesPerTask: number;
  readonly parts: number;
  readonly scale: number;
}

export interface MaskedAttentionSlots {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly mask: number;
  readonly o: number;
  readonly lse: number;
  readonly time: number;
  readonly keys: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly causal: number;
  readonly maskBatch: number;
  readonly maskHeads: number;
  readonly queriesPerTask: number;
  readonly parts: number;
  readonly scale: number;
}

export interface MaskedAttentionVjpSlots extends MaskedAttentionSlots {
  readonly dOut: number;
  readonly dq: number;
  readonly dk: number;
  readonly dv: number;
}

export interface MaskedAttentionJvpSlots extends MaskedAttentionSlots {
  readonly dq: number;
  readonly dk: number;
  readonly dv: number;
  readonly dOut: number;
}

export interface UnarySlots {
  readonly x: number;
  readonly y: number;
  readonly elements: number;
  readonly elementsPerTask: number;
}

export interface UnaryVjpSlots {
  readonly x: number;
  readonly dy: number;
  readonly dx: number;
  readonly elements: number;
  readonly elementsPerTask: number;
}

export interface AffineSlots {
  readonly x: number;
  readonly y: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly scale: number;
  readonly shift: number;
}

export interface AccumulateSlots {
  readonly x: number;
  readonly y: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly scale: number;
}

export interface SelectElementsSlots {
  readonly condition: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly elements: number;
  readonly elementsPerTask: number;
}

export interface CastSlots {
  readonly x: number;
  readonly y: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly conversion: number;
}

export interface SwigluSlots {
  readonly x: number;
  readonly y: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
}

export interface SwigluVjpSlots {
  readonly x: number;
  readonly dy: number;
  readonly dx: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
}

export interface SwigluJvpSlots {
  readonly x: number;
  readonly dx: number;
  readonly dy: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
}

export interface FillSlots {
  readonly out: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly bits: number;
}

export interface TrapSlots {
  readonly failing: number;
}

export interface PackPanelsSlots {
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly k: number;
  readonly kMajor: number;
  readonly panel: number;
  readonly panelsPerTask: number;
  readonly ld: number;
}

export interface GemmBlockSlots {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly slope: number;
  readonly bias: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly kMajor: number;
  readonly lda: number;
  readonly ldc: number;
  readonly accumulate: number;
  readonly activation: number;
  readonly rowsPerTask: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly ldb: number;
  readonly pass: number;
  readonly inPlaceA: number;
  readonly packedA: number;
  readonly alpha: number;
}

export interface SegmentedBlockSlots {
  readonly a: number;
  readonly b: number;
  readonly segments: number;
  readonly groups: number;
  readonly v: number;
  readonly total: number;
  readonly partials: number;
  readonly m: number;
  readonly n: number;
  readonly segmentCount: number;
  readonly groupCount: number;
  readonly targetSegments: number;
  readonly firstAccumulated: number;
  readonly accumulate: number;
  readonly rowsPerTask: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
}

export interface SegmentedReduceSlots {
  readonly partials: number;
  readonly tasks: number;
  readonly segmentCount: number;
  readonly groupCount: number;
  readonly dots: number;
  readonly sumsq: number;
  readonly groupSumsq: number;
  readonly vSumsq: number;
}

export interface AlignBlockSlots {
  readonly x: number;
  readonly v: number;
  readonly y: number;
  readonly partials: number;
  readonly rows: number;
  readonly n: number;
  readonly k: number;
  readonly rowsPerTask: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly pass: number;
}

export type AlignNonzerosSlots = AlignBlockSlots;

export interface CountNonzerosSlots {
  readonly a: number;
  readonly b: number;
  readonly counts: number;
  readonly rows: number;
  readonly m: number;
  readonly n: number;
  readonly sampled: number;
}

export interface AlignSegmentsSlots {
  readonly partials: number;
  readonly columnBlocks: number;
  readonly rows: number;
  readonly segments: number;
  readonly segmentCount: number;
  readonly aligned: number;
  readonly dots: number;
}

export interface GramSquaresSlots {
  readonly a: number;
  readonly b: number;
  readonly offsets: number;
  readonly squares: number;
  readonly ranges: number;
  readonly rangesPerTask: number;
  readonly m: number;
  readonly n: number;
  readonly most: number;
}

export interface MicroPeakSlots {
  readonly rounds: number;
}

export interface NearestPackSlots {
  readonly y: number;
  readonly bias: number;
  readonly panels: number;
  readonly columns: number;
  readonly count: number;
  readonly width: number;
  readonly panelsPerTask: number;
  readonly unbounded: number;
}

export interface NearestSlots {
  readonly x: number;
  readonly panels: number;
  readonly columns: number;
  readonly y: number;
  readonly bias: number;
  readonly ids: number;
  readonly scores: number;
  readonly rows: number;
  readonly width: number;
  readonly count: number;
  readonly rowsPerTask: number;
  readonly unbounded: number;
}

export interface NormSlots {
  readonly x: number;
  readonly gain: number;
  readonly bias: number;
  readonly residual: number;
  readonly y: number;
  readonly stats: number;
  readonly sum: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
  readonly layer: number;
  readonly eps: number;
}

export interface NormVjpSlots {
  readonly x: number;
  readonly gain: number;
  readonly stats: number;
  readonly dy: number;
  readonly also: number;
  readonly dx: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
  readonly layer: number;
}

export interface NormJvpSlots {
  readonly x: number;
  readonly gain: number;
  readonly stats: number;
  readonly dx: number;
  readonly dgain: number;
  readonly dbias: number;
  readonly dy: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
  readonly layer: number;
}

export interface ClipScaleSlots {
  readonly sumsq: number;
  readonly scale: number;
  readonly maxNorm: number;
}

export interface AdamSlots {
  readonly grad: number;
  readonly gradScale: number;
  readonly value: number;
  readonly m: number;
  readonly v: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly lr: number;
  readonly beta1: number;
  readonly rest1: number;
  readonly beta2: number;
  readonly rest2: number;
  readonly eps: number;
  readonly weightDecay: number;
  readonly correction1: number;
  readonly correction2: number;
}

export type AdamwSlots = AdamSlots;

export interface SgdSlots {
  readonly grad: number;
  readonly gradScale: number;
  readonly value: number;
  readonly velocity: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly nesterov: number;
  readonly lr: number;
  readonly momentum: number;
  readonly weightDecay: number;
}

export interface RandomSlots {
  readonly out: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly key0: number;
  readonly key1: number;
  readonly offset: number;
}

export interface DropoutSlots {
  readonly x: number;
  readonly y: number;
  readonly elements: number;
  readonly elementsPerTask: number;
  readonly key0: number;
  readonly key1: number;
  readonly threshold: number;
  readonly scale: number;
}

export interface ReduceRowsSlots {
  readonly x: number;
  readonly y: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly length: number;
  readonly kind: number;
}

export interface ReduceColumnsSlots {
  readonly x: number;
  readonly y: number;
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly kind: number;
}

export interface SegmentColumnsSlots {
  readonly x: number;
  readonly y: number;
  readonly stats: number;
  readonly segments: number;
  readonly out: number;
  readonly segmentCount: number;
  readonly segmentsPerTask: number;
  readonly width: number;
  readonly outStride: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly accumulate: number;
}

export interface AlignRowsSlots {
  readonly g: number;
  readonly v: number;
  readonly dots: number;
  readonly sumsq: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
}

export interface DotPartialsSlots {
  readonly x: number;
  readonly y: number;
  readonly partials: number;
  readonly elements: number;
  readonly elementsPerTask: number;
}

export interface DotTotalSlots {
  readonly partials: number;
  readonly count: number;
  readonly out: number;
}

export interface RopeSlots {
  readonly x: number;
  readonly y: number;
  readonly batch: number;
  readonly time: number;
  readonly positionsPerTask: number;
  readonly cols: number;
  readonly heads: number;
  readonly headDim: number;
  readonly frequencies: number;
  readonly inverse: number;
  readonly offset: number;
}

export interface SoftmaxSlots {
  readonly x: number;
  readonly y: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface SoftmaxVjpSlots {
  readonly y: number;
  readonly dy: number;
  readonly dx: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface LogSoftmaxSlots {
  readonly x: number;
  readonly y: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface LogSoftmaxVjpSlots {
  readonly y: number;
  readonly dy: number;
  readonly dx: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface CrossEntropySlots {
  readonly logits: number;
  readonly targets: number;
  readonly losses: number;
  readonly lse: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface CrossEntropyVjpSlots {
  readonly logits: number;
  readonly targets: number;
  readonly lse: number;
  readonly dlosses: number;
  readonly dlogits: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface CrossEntropyJvpSlots {
  readonly logits: number;
  readonly targets: number;
  readonly lse: number;
  readonly dlogits: number;
  readonly dlosses: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly cols: number;
}

export interface CopyRowsSlots {
  readonly from: number;
  readonly to: number;
  readonly length: number;
  readonly fromStep: number;
  readonly toStep: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly rank: number;
  readonly extents: readonly number[];
  readonly strides0: readonly number[];
  readonly strides1: readonly number[];
}

export interface CopyTilesSlots {
  readonly from: number;
  readonly to: number;
  readonly rows: number;
  readonly columns: number;
  readonly fromColumn: number;
  readonly toRow: number;
  readonly rowsPerTask: number;
  readonly rowBlocks: number;
  readonly rank: number;
  readonly extents: readonly number[];
  readonly strides0: readonly number[];
  readonly strides1: readonly number[];
}

export interface BinarySlots {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly length: number;
  readonly aStep: number;
  readonly bStep: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly columnsPerTask: number;
  readonly columnBlocks: number;
  readonly rank: number;
  readonly extents: readonly number[];
  readonly strides0: readonly number[];
  readonly strides1: readonly number[];
}

export type CompareSlots = BinarySlots;

export interface GatherSlots {
  readonly table: number;
  readonly ids: number;
  readonly out: number;
  readonly rows: number;
  readonly rowsPerTask: number;
  readonly width: number;
  readonly tableRows: number;
}

export interface ScatterAddSlots {
  readonly x: number;
  readonly ids: number;
  readonly out: number;
  readonly rows: number;
  readonly width: number;
  readonly tableRows: number;
  readonly tableRowsPerTask: number;
  readonly accumulate: number;
}

export interface EmbeddingAlignSlots {
  readonly dy: number;
  readonly ids: number;
  readonly segments: number;
  readonly groups: number;
  readonly v: number;
  readonly dots: number;
  readonly sumsq: number;
  readonly groupSumsq: number;
  readonly width: number;
  readonly tableRows: number;
  readonly segmentCount: number;
}

export interface KernelSlots {
  readonly cumsum: CumsumSlots;
  readonly topk: TopkSlots;
  readonly takeAlong: TakeAlongSlots;
  readonly scatterAddAlong: ScatterAddAlongSlots;
  readonly attention: AttentionSlots;
  readonly attentionVjp: AttentionVjpSlots;
  readonly attentionJvp: AttentionJvpSlots;
  readonly maskedAttention: MaskedAttentionSlots;
  readonly maskedAttentionVjp: MaskedAttentionVjpSlots;
  readonly maskedAttentionJvp: MaskedAttentionJvpSlots;
  readonly unary: UnarySlots;
  readonly unaryVjp: UnaryVjpSlots;
  readonly affine: AffineSlots;
  readonly accumulate: AccumulateSlots;
  readonly selectElements: SelectElementsSlots;
  readonly cast: CastSlots;
  readonly swiglu: SwigluSlots;
  readonly swigluVjp: SwigluVjpSlots;
  readonly swigluJvp: SwigluJvpSlots;
  readonly fill: FillSlots;
  readonly trap: TrapSlots;
  readonly packPanels: PackPanelsSlots;
  readonly gemmBlock: GemmBlockSlots;
  readonly segmentedBlock: SegmentedBlockSlots;
  readonly segmentedReduce: SegmentedReduceSlots;
  readonly alignBlock: AlignBlockSlots;
  readonly alignNonzeros: AlignNonzerosSlots;
  readonly countNonzeros: CountNonzerosSlots;
  readonly alignSegments: AlignSegmentsSlots;
  readonly gramSquares: GramSquaresSlots;
  readonly microPeak: MicroPeakSlots;
  readonly nearestPack: NearestPackSlots;
  readonly nearest: NearestSlots;
  readonly norm: NormSlots;
  readonly normVjp: NormVjpSlots;
  readonly normJvp: NormJvpSlots;
  readonly clipScale: ClipScaleSlots;
  readonly adam: AdamSlots;
  readonly adamw: AdamwSlots;
  readonly sgd: SgdSlots;
  readonly random: RandomSlots;
  readonly dropout: DropoutSlots;
  readonly reduceRows: ReduceRowsSlots;
  readonly reduceColumns: ReduceColumnsSlots;
  readonly segmentColumns: SegmentColumnsSlots;
  readonly alignRows: AlignRowsSlots;
  readonly dotPartials: DotPartialsSlots;
  readonly dotTotal: DotTotalSlots;
  readonly rope: RopeSlots;
  readonly softmax: SoftmaxSlots;
  readonly softmaxVjp: SoftmaxVjpSlots;
  readonly logSoftmax: LogSoftmaxSlots;
  readonly logSoftmaxVjp: LogSoftmaxVjpSlots;
  readonly crossEntropy: CrossEntropySlots;
  readonly crossEntropyVjp: CrossEntropyVjpSlots;
  readonly crossEntropyJvp: CrossEntropyJvpSlots;
  readonly copyRows: CopyRowsSlots;
  readonly copyTiles: CopyTilesSlots;
  readonly binary: BinarySlots;
  readonly compare: CompareSlots;
  readonly gather: GatherSlots;
  readonly scatterAdd: ScatterAddSlots;
  readonly embeddingAlign: EmbeddingAlignSlots;
}

/** Write the slots of a block that begins at word `at`. Each is a function of its own, so that it meets objects of one shape only. */
export const writeSlots: {
  readonly [K in keyof KernelSlots]: (words: Words, at: number, slots: KernelSlots[K]) => void;
} = {
  cumsum({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.outer;
    i32[at + 5] = slots.outerPerTask;
    i32[at + 6] = slots.length;
    i32[at + 7] = slots.inner;
    i32[at + 8] = slots.columnsPerTask;
    i32[at + 9] = slots.columnBlocks;
    i32[at + 10] = slots.reverse;
  },
  topk({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.indices;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.rowsPerTask;
    i32[at + 6] = slots.length;
    i32[at + 7] = slots.inner;
    i32[at + 8] = slots.k;
  },
  takeAlong({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.indices;
    i32[at + 4] = slots.out;
    i32[at + 5] = slots.elements;
    i32[at + 6] = slots.elementsPerTask;
    i32[at + 7] = slots.length;
    i32[at + 8] = slots.inner;
    i32[at + 9] = slots.count;
  },
  scatterAddAlong({ i32 }, at, slots) {
    i32[at + 2] = slots.y;
    i32[at + 3] = slots.indices;
    i32[at + 4] = slots.out;
    i32[at + 5] = slots.outer;
    i32[at + 6] = slots.outerPerTask;
    i32[at + 7] = slots.length;
    i32[at + 8] = slots.inner;
    i32[at + 9] = slots.count;
    i32[at + 10] = slots.columnsPerTask;
    i32[at + 11] = slots.columnBlocks;
  },
  attention({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.qkv;
    i32[at + 3] = slots.o;
    i32[at + 4] = slots.lse;
    i32[at + 5] = slots.time;
    i32[at + 6] = slots.heads;
    i32[at + 7] = slots.kvHeads;
    i32[at + 8] = slots.headDim;
    i32[at + 9] = slots.queriesPerTask;
    i32[at + 10] = slots.parts;
    f32[at + 11] = slots.scale;
  },
  attentionVjp({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.qkv;
    i32[at + 3] = slots.o;
    i32[at + 4] = slots.lse;
    i32[at + 5] = slots.dOut;
    i32[at + 6] = slots.dqkv;
    i32[at + 7] = slots.time;
    i32[at + 8] = slots.heads;
    i32[at + 9] = slots.kvHeads;
    i32[at + 10] = slots.headDim;
    f32[at + 11] = slots.scale;
  },
  attentionJvp({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.qkv;
    i32[at + 3] = slots.o;
    i32[at + 4] = slots.lse;
    i32[at + 5] = slots.dqkv;
    i32[at + 6] = slots.dOut;
    i32[at + 7] = slots.time;
    i32[at + 8] = slots.heads;
    i32[at + 9] = slots.kvHeads;
    i32[at + 10] = slots.headDim;
    i32[at + 11] = slots.queriesPerTask;
    i32[at + 12] = slots.parts;
    f32[at + 13] = slots.scale;
  },
  maskedAttention({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.q;
    i32[at + 3] = slots.k;
    i32[at + 4] = slots.v;
    i32[at + 5] = slots.mask;
    i32[at + 6] = slots.o;
    i32[at + 7] = slots.lse;
    i32[at + 8] = slots.time;
    i32[at + 9] = slots.keys;
    i32[at + 10] = slots.heads;
    i32[at + 11] = slots.kvHeads;
    i32[at + 12] = slots.headDim;
    i32[at + 13] = slots.causal;
    i32[at + 14] = slots.maskBatch;
    i32[at + 15] = slots.maskHeads;
    i32[at + 16] = slots.queriesPerTask;
    i32[at + 17] = slots.parts;
    f32[at + 18] = slots.scale;
  },
  maskedAttentionVjp({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.q;
    i32[at + 3] = slots.k;
    i32[at + 4] = slots.v;
    i32[at + 5] = slots.mask;
    i32[at + 6] = slots.o;
    i32[at + 7] = slots.lse;
    i32[at + 8] = slots.time;
    i32[at + 9] = slots.keys;
    i32[at + 10] = slots.heads;
    i32[at + 11] = slots.kvHeads;
    i32[at + 12] = slots.headDim;
    i32[at + 13] = slots.causal;
    i32[at + 14] = slots.maskBatch;
    i32[at + 15] = slots.maskHeads;
    i32[at + 16] = slots.queriesPerTask;
    i32[at + 17] = slots.parts;
    f32[at + 18] = slots.scale;
    i32[at + 19] = slots.dOut;
    i32[at + 20] = slots.dq;
    i32[at + 21] = slots.dk;
    i32[at + 22] = slots.dv;
  },
  maskedAttentionJvp({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.q;
    i32[at + 3] = slots.k;
    i32[at + 4] = slots.v;
    i32[at + 5] = slots.mask;
    i32[at + 6] = slots.o;
    i32[at + 7] = slots.lse;
    i32[at + 8] = slots.time;
    i32[at + 9] = slots.keys;
    i32[at + 10] = slots.heads;
    i32[at + 11] = slots.kvHeads;
    i32[at + 12] = slots.headDim;
    i32[at + 13] = slots.causal;
    i32[at + 14] = slots.maskBatch;
    i32[at + 15] = slots.maskHeads;
    i32[at + 16] = slots.queriesPerTask;
    i32[at + 17] = slots.parts;
    f32[at + 18] = slots.scale;
    i32[at + 19] = slots.dq;
    i32[at + 20] = slots.dk;
    i32[at + 21] = slots.dv;
    i32[at + 22] = slots.dOut;
  },
  unary({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.elements;
    i32[at + 5] = slots.elementsPerTask;
  },
  unaryVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.dy;
    i32[at + 4] = slots.dx;
    i32[at + 5] = slots.elements;
    i32[at + 6] = slots.elementsPerTask;
  },
  affine({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.elements;
    i32[at + 5] = slots.elementsPerTask;
    f32[at + 6] = slots.scale;
    f32[at + 7] = slots.shift;
  },
  accumulate({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.elements;
    i32[at + 5] = slots.elementsPerTask;
    f32[at + 6] = slots.scale;
  },
  selectElements({ i32 }, at, slots) {
    i32[at + 2] = slots.condition;
    i32[at + 3] = slots.a;
    i32[at + 4] = slots.b;
    i32[at + 5] = slots.c;
    i32[at + 6] = slots.elements;
    i32[at + 7] = slots.elementsPerTask;
  },
  cast({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.elements;
    i32[at + 5] = slots.elementsPerTask;
    i32[at + 6] = slots.conversion;
  },
  swiglu({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.rowsPerTask;
    i32[at + 6] = slots.width;
  },
  swigluVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.dy;
    i32[at + 4] = slots.dx;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.rowsPerTask;
    i32[at + 7] = slots.width;
  },
  swigluJvp({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.dx;
    i32[at + 4] = slots.dy;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.rowsPerTask;
    i32[at + 7] = slots.width;
  },
  fill({ i32 }, at, slots) {
    i32[at + 2] = slots.out;
    i32[at + 3] = slots.elements;
    i32[at + 4] = slots.elementsPerTask;
    i32[at + 5] = slots.bits;
  },
  trap({ i32 }, at, slots) {
    i32[at + 2] = slots.failing;
  },
  packPanels({ i32 }, at, slots) {
    i32[at + 2] = slots.from;
    i32[at + 3] = slots.to;
    i32[at + 4] = slots.width;
    i32[at + 5] = slots.k;
    i32[at + 6] = slots.kMajor;
    i32[at + 7] = slots.panel;
    i32[at + 8] = slots.panelsPerTask;
    i32[at + 9] = slots.ld;
  },
  gemmBlock({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.c;
    i32[at + 5] = slots.slope;
    i32[at + 6] = slots.bias;
    i32[at + 7] = slots.m;
    i32[at + 8] = slots.n;
    i32[at + 9] = slots.k;
    i32[at + 10] = slots.kMajor;
    i32[at + 11] = slots.lda;
    i32[at + 12] = slots.ldc;
    i32[at + 13] = slots.accumulate;
    i32[at + 14] = slots.activation;
    i32[at + 15] = slots.rowsPerTask;
    i32[at + 16] = slots.columnsPerTask;
    i32[at + 17] = slots.columnBlocks;
    i32[at + 18] = slots.ldb;
    i32[at + 19] = slots.pass;
    i32[at + 20] = slots.inPlaceA;
    i32[at + 21] = slots.packedA;
    f32[at + 22] = slots.alpha;
  },
  segmentedBlock({ i32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.segments;
    i32[at + 5] = slots.groups;
    i32[at + 6] = slots.v;
    i32[at + 7] = slots.total;
    i32[at + 8] = slots.partials;
    i32[at + 9] = slots.m;
    i32[at + 10] = slots.n;
    i32[at + 11] = slots.segmentCount;
    i32[at + 12] = slots.groupCount;
    i32[at + 13] = slots.targetSegments;
    i32[at + 14] = slots.firstAccumulated;
    i32[at + 15] = slots.accumulate;
    i32[at + 16] = slots.rowsPerTask;
    i32[at + 17] = slots.columnsPerTask;
    i32[at + 18] = slots.columnBlocks;
  },
  segmentedReduce({ i32 }, at, slots) {
    i32[at + 2] = slots.partials;
    i32[at + 3] = slots.tasks;
    i32[at + 4] = slots.segmentCount;
    i32[at + 5] = slots.groupCount;
    i32[at + 6] = slots.dots;
    i32[at + 7] = slots.sumsq;
    i32[at + 8] = slots.groupSumsq;
    i32[at + 9] = slots.vSumsq;
  },
  alignBlock({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.v;
    i32[at + 4] = slots.y;
    i32[at + 5] = slots.partials;
    i32[at + 6] = slots.rows;
    i32[at + 7] = slots.n;
    i32[at + 8] = slots.k;
    i32[at + 9] = slots.rowsPerTask;
    i32[at + 10] = slots.columnsPerTask;
    i32[at + 11] = slots.columnBlocks;
    i32[at + 12] = slots.pass;
  },
  alignNonzeros({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.v;
    i32[at + 4] = slots.y;
    i32[at + 5] = slots.partials;
    i32[at + 6] = slots.rows;
    i32[at + 7] = slots.n;
    i32[at + 8] = slots.k;
    i32[at + 9] = slots.rowsPerTask;
    i32[at + 10] = slots.columnsPerTask;
    i32[at + 11] = slots.columnBlocks;
    i32[at + 12] = slots.pass;
  },
  countNonzeros({ i32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.counts;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.m;
    i32[at + 7] = slots.n;
    i32[at + 8] = slots.sampled;
  },
  alignSegments({ i32 }, at, slots) {
    i32[at + 2] = slots.partials;
    i32[at + 3] = slots.columnBlocks;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.segments;
    i32[at + 6] = slots.segmentCount;
    i32[at + 7] = slots.aligned;
    i32[at + 8] = slots.dots;
  },
  gramSquares({ i32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.offsets;
    i32[at + 5] = slots.squares;
    i32[at + 6] = slots.ranges;
    i32[at + 7] = slots.rangesPerTask;
    i32[at + 8] = slots.m;
    i32[at + 9] = slots.n;
    i32[at + 10] = slots.most;
  },
  microPeak({ i32 }, at, slots) {
    i32[at + 2] = slots.rounds;
  },
  nearestPack({ i32 }, at, slots) {
    i32[at + 2] = slots.y;
    i32[at + 3] = slots.bias;
    i32[at + 4] = slots.panels;
    i32[at + 5] = slots.columns;
    i32[at + 6] = slots.count;
    i32[at + 7] = slots.width;
    i32[at + 8] = slots.panelsPerTask;
    i32[at + 9] = slots.unbounded;
  },
  nearest({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.panels;
    i32[at + 4] = slots.columns;
    i32[at + 5] = slots.y;
    i32[at + 6] = slots.bias;
    i32[at + 7] = slots.ids;
    i32[at + 8] = slots.scores;
    i32[at + 9] = slots.rows;
    i32[at + 10] = slots.width;
    i32[at + 11] = slots.count;
    i32[at + 12] = slots.rowsPerTask;
    i32[at + 13] = slots.unbounded;
  },
  norm({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.gain;
    i32[at + 4] = slots.bias;
    i32[at + 5] = slots.residual;
    i32[at + 6] = slots.y;
    i32[at + 7] = slots.stats;
    i32[at + 8] = slots.sum;
    i32[at + 9] = slots.rows;
    i32[at + 10] = slots.rowsPerTask;
    i32[at + 11] = slots.width;
    i32[at + 12] = slots.layer;
    f32[at + 13] = slots.eps;
  },
  normVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.gain;
    i32[at + 4] = slots.stats;
    i32[at + 5] = slots.dy;
    i32[at + 6] = slots.also;
    i32[at + 7] = slots.dx;
    i32[at + 8] = slots.rows;
    i32[at + 9] = slots.rowsPerTask;
    i32[at + 10] = slots.width;
    i32[at + 11] = slots.layer;
  },
  normJvp({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.gain;
    i32[at + 4] = slots.stats;
    i32[at + 5] = slots.dx;
    i32[at + 6] = slots.dgain;
    i32[at + 7] = slots.dbias;
    i32[at + 8] = slots.dy;
    i32[at + 9] = slots.rows;
    i32[at + 10] = slots.rowsPerTask;
    i32[at + 11] = slots.width;
    i32[at + 12] = slots.layer;
  },
  clipScale({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.sumsq;
    i32[at + 3] = slots.scale;
    f32[at + 4] = slots.maxNorm;
  },
  adam({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.grad;
    i32[at + 3] = slots.gradScale;
    i32[at + 4] = slots.value;
    i32[at + 5] = slots.m;
    i32[at + 6] = slots.v;
    i32[at + 7] = slots.elements;
    i32[at + 8] = slots.elementsPerTask;
    f32[at + 9] = slots.lr;
    f32[at + 10] = slots.beta1;
    f32[at + 11] = slots.rest1;
    f32[at + 12] = slots.beta2;
    f32[at + 13] = slots.rest2;
    f32[at + 14] = slots.eps;
    f32[at + 15] = slots.weightDecay;
    f32[at + 16] = slots.correction1;
    f32[at + 17] = slots.correction2;
  },
  adamw({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.grad;
    i32[at + 3] = slots.gradScale;
    i32[at + 4] = slots.value;
    i32[at + 5] = slots.m;
    i32[at + 6] = slots.v;
    i32[at + 7] = slots.elements;
    i32[at + 8] = slots.elementsPerTask;
    f32[at + 9] = slots.lr;
    f32[at + 10] = slots.beta1;
    f32[at + 11] = slots.rest1;
    f32[at + 12] = slots.beta2;
    f32[at + 13] = slots.rest2;
    f32[at + 14] = slots.eps;
    f32[at + 15] = slots.weightDecay;
    f32[at + 16] = slots.correction1;
    f32[at + 17] = slots.correction2;
  },
  sgd({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.grad;
    i32[at + 3] = slots.gradScale;
    i32[at + 4] = slots.value;
    i32[at + 5] = slots.velocity;
    i32[at + 6] = slots.elements;
    i32[at + 7] = slots.elementsPerTask;
    i32[at + 8] = slots.nesterov;
    f32[at + 9] = slots.lr;
    f32[at + 10] = slots.momentum;
    f32[at + 11] = slots.weightDecay;
  },
  random({ i32 }, at, slots) {
    i32[at + 2] = slots.out;
    i32[at + 3] = slots.elements;
    i32[at + 4] = slots.elementsPerTask;
    i32[at + 5] = slots.key0;
    i32[at + 6] = slots.key1;
    i32[at + 7] = slots.offset;
  },
  dropout({ i32, f32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.elements;
    i32[at + 5] = slots.elementsPerTask;
    i32[at + 6] = slots.key0;
    i32[at + 7] = slots.key1;
    i32[at + 8] = slots.threshold;
    f32[at + 9] = slots.scale;
  },
  reduceRows({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.rowsPerTask;
    i32[at + 6] = slots.length;
    i32[at + 7] = slots.kind;
  },
  reduceColumns({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.outer;
    i32[at + 5] = slots.length;
    i32[at + 6] = slots.inner;
    i32[at + 7] = slots.columnsPerTask;
    i32[at + 8] = slots.columnBlocks;
    i32[at + 9] = slots.kind;
  },
  segmentColumns({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.stats;
    i32[at + 5] = slots.segments;
    i32[at + 6] = slots.out;
    i32[at + 7] = slots.segmentCount;
    i32[at + 8] = slots.segmentsPerTask;
    i32[at + 9] = slots.width;
    i32[at + 10] = slots.outStride;
    i32[at + 11] = slots.columnsPerTask;
    i32[at + 12] = slots.columnBlocks;
    i32[at + 13] = slots.accumulate;
  },
  alignRows({ i32 }, at, slots) {
    i32[at + 2] = slots.g;
    i32[at + 3] = slots.v;
    i32[at + 4] = slots.dots;
    i32[at + 5] = slots.sumsq;
    i32[at + 6] = slots.rows;
    i32[at + 7] = slots.rowsPerTask;
    i32[at + 8] = slots.width;
  },
  dotPartials({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.partials;
    i32[at + 5] = slots.elements;
    i32[at + 6] = slots.elementsPerTask;
  },
  dotTotal({ i32 }, at, slots) {
    i32[at + 2] = slots.partials;
    i32[at + 3] = slots.count;
    i32[at + 4] = slots.out;
  },
  rope({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.batch;
    i32[at + 5] = slots.time;
    i32[at + 6] = slots.positionsPerTask;
    i32[at + 7] = slots.cols;
    i32[at + 8] = slots.heads;
    i32[at + 9] = slots.headDim;
    i32[at + 10] = slots.frequencies;
    i32[at + 11] = slots.inverse;
    i32[at + 12] = slots.offset;
  },
  softmax({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.rowsPerTask;
    i32[at + 6] = slots.cols;
  },
  softmaxVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.y;
    i32[at + 3] = slots.dy;
    i32[at + 4] = slots.dx;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.rowsPerTask;
    i32[at + 7] = slots.cols;
  },
  logSoftmax({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.y;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.rowsPerTask;
    i32[at + 6] = slots.cols;
  },
  logSoftmaxVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.y;
    i32[at + 3] = slots.dy;
    i32[at + 4] = slots.dx;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.rowsPerTask;
    i32[at + 7] = slots.cols;
  },
  crossEntropy({ i32 }, at, slots) {
    i32[at + 2] = slots.logits;
    i32[at + 3] = slots.targets;
    i32[at + 4] = slots.losses;
    i32[at + 5] = slots.lse;
    i32[at + 6] = slots.rows;
    i32[at + 7] = slots.rowsPerTask;
    i32[at + 8] = slots.cols;
  },
  crossEntropyVjp({ i32 }, at, slots) {
    i32[at + 2] = slots.logits;
    i32[at + 3] = slots.targets;
    i32[at + 4] = slots.lse;
    i32[at + 5] = slots.dlosses;
    i32[at + 6] = slots.dlogits;
    i32[at + 7] = slots.rows;
    i32[at + 8] = slots.rowsPerTask;
    i32[at + 9] = slots.cols;
  },
  crossEntropyJvp({ i32 }, at, slots) {
    i32[at + 2] = slots.logits;
    i32[at + 3] = slots.targets;
    i32[at + 4] = slots.lse;
    i32[at + 5] = slots.dlogits;
    i32[at + 6] = slots.dlosses;
    i32[at + 7] = slots.rows;
    i32[at + 8] = slots.rowsPerTask;
    i32[at + 9] = slots.cols;
  },
  copyRows({ i32 }, at, slots) {
    i32[at + 2] = slots.from;
    i32[at + 3] = slots.to;
    i32[at + 4] = slots.length;
    i32[at + 5] = slots.fromStep;
    i32[at + 6] = slots.toStep;
    i32[at + 7] = slots.rows;
    i32[at + 8] = slots.rowsPerTask;
    i32[at + 9] = slots.columnsPerTask;
    i32[at + 10] = slots.columnBlocks;
    i32[at + 11] = slots.rank;
    for (let i = 0; i < 5 && i < slots.extents.length; i++) i32[at + 12 + i] = slots.extents[i]!;
    for (let i = 0; i < 5 && i < slots.strides0.length; i++) i32[at + 17 + i] = slots.strides0[i]!;
    for (let i = 0; i < 5 && i < slots.strides1.length; i++) i32[at + 22 + i] = slots.strides1[i]!;
  },
  copyTiles({ i32 }, at, slots) {
    i32[at + 2] = slots.from;
    i32[at + 3] = slots.to;
    i32[at + 4] = slots.rows;
    i32[at + 5] = slots.columns;
    i32[at + 6] = slots.fromColumn;
    i32[at + 7] = slots.toRow;
    i32[at + 8] = slots.rowsPerTask;
    i32[at + 9] = slots.rowBlocks;
    i32[at + 10] = slots.rank;
    for (let i = 0; i < 5 && i < slots.extents.length; i++) i32[at + 11 + i] = slots.extents[i]!;
    for (let i = 0; i < 5 && i < slots.strides0.length; i++) i32[at + 16 + i] = slots.strides0[i]!;
    for (let i = 0; i < 5 && i < slots.strides1.length; i++) i32[at + 21 + i] = slots.strides1[i]!;
  },
  binary({ i32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.c;
    i32[at + 5] = slots.length;
    i32[at + 6] = slots.aStep;
    i32[at + 7] = slots.bStep;
    i32[at + 8] = slots.rows;
    i32[at + 9] = slots.rowsPerTask;
    i32[at + 10] = slots.columnsPerTask;
    i32[at + 11] = slots.columnBlocks;
    i32[at + 12] = slots.rank;
    for (let i = 0; i < 5 && i < slots.extents.length; i++) i32[at + 13 + i] = slots.extents[i]!;
    for (let i = 0; i < 5 && i < slots.strides0.length; i++) i32[at + 18 + i] = slots.strides0[i]!;
    for (let i = 0; i < 5 && i < slots.strides1.length; i++) i32[at + 23 + i] = slots.strides1[i]!;
  },
  compare({ i32 }, at, slots) {
    i32[at + 2] = slots.a;
    i32[at + 3] = slots.b;
    i32[at + 4] = slots.c;
    i32[at + 5] = slots.length;
    i32[at + 6] = slots.aStep;
    i32[at + 7] = slots.bStep;
    i32[at + 8] = slots.rows;
    i32[at + 9] = slots.rowsPerTask;
    i32[at + 10] = slots.columnsPerTask;
    i32[at + 11] = slots.columnBlocks;
    i32[at + 12] = slots.rank;
    for (let i = 0; i < 5 && i < slots.extents.length; i++) i32[at + 13 + i] = slots.extents[i]!;
    for (let i = 0; i < 5 && i < slots.strides0.length; i++) i32[at + 18 + i] = slots.strides0[i]!;
    for (let i = 0; i < 5 && i < slots.strides1.length; i++) i32[at + 23 + i] = slots.strides1[i]!;
  },
  gather({ i32 }, at, slots) {
    i32[at + 2] = slots.table;
    i32[at + 3] = slots.ids;
    i32[at + 4] = slots.out;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.rowsPerTask;
    i32[at + 7] = slots.width;
    i32[at + 8] = slots.tableRows;
  },
  scatterAdd({ i32 }, at, slots) {
    i32[at + 2] = slots.x;
    i32[at + 3] = slots.ids;
    i32[at + 4] = slots.out;
    i32[at + 5] = slots.rows;
    i32[at + 6] = slots.width;
    i32[at + 7] = slots.tableRows;
    i32[at + 8] = slots.tableRowsPerTask;
    i32[at + 9] = slots.accumulate;
  },
  embeddingAlign({ i32 }, at, slots) {
    i32[at + 2] = slots.dy;
    i32[at + 3] = slots.ids;
    i32[at + 4] = slots.segments;
    i32[at + 5] = slots.groups;
    i32[at + 6] = slots.v;
    i32[at + 7] = slots.dots;
    i32[at + 8] = slots.sumsq;
    i32[at + 9] = slots.groupSumsq;
    i32[at + 10] = slots.width;
    i32[at + 11] = slots.tableRows;
    i32[at + 12] = slots.segmentCount;
  },
};

/** Writes where the first thread's scratch memory is, and the bytes of each thread's. */
export function writeScratch({ i32 }: Words, at: number, scratchAt: number, scratchStride: number): void {
  i32[at] = scratchAt;
  i32[at + 1] = scratchStride;
}
