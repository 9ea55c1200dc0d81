/**
 * Random projections of the gradients of segments, without forming the gradients.
 *
 * A linear weight's gradient for a segment is W = Σ_rows dyᵀ x. With Gaussian A [r, out] and B [r, in], its sketch is A W Bᵀ / r, which is Σ_rows (A
 * dy)(B x)ᵀ / r: both factors are reduced to r numbers per row before they are multiplied. Inner products are preserved in expectation, and for any
 * two gradients of one weight
 *
 *     E⟨s(W), s(V)⟩ = ⟨W, V⟩,   Var⟨s(W), s(V)⟩ ≤ (4/r + 4/r²)·‖W‖²·‖V‖²
 *
 * (the Johnson–Lindenstrauss moment bound, once for A and once for B). Embeddings are treated the same way, with a column of A for x; biases and
 * gains are kept as they are, or projected once (2/r²) if they have more than r² numbers. Sketches of different weights are independent and stored
 * side by side, so the errors of their sums add in squares. They depend only on the seed, the parameter's position and r: sketches that were made at
 * different times, from different batches, can be aligned with each other.
 */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, integerIn, list, required } from "../../options.ts";
import { type Key, foldIn, key } from "../../tensor/rng.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, keep, scope, type Tensor } from "../../tensor/tensor.ts";
import { wantTensor } from "../checks.ts";
import type { GradientSink } from "../sink.ts";
import { checkExamples, checkOffsets, noRule, Offsets, rowsOf, rowsPerExample, WholePass } from "./rows.ts";

/** Options of `sketchSink`. */
export interface SketchSinkOptions {
  /** Where segments begin, in examples, and where the last one ends: S + 1 ascending numbers. */
  readonly segments: readonly number[];
  /** Parameters whose gradients are sketched. */
  readonly parameters: readonly Tensor[];
  /** Number of examples in the batch, if not all of them belong to segments. Default: where the last segment ends. */
  readonly examples?: number;
  /** Rank r: a matrix is sketched by r² numbers. Default 16. */
  readonly rank?: number;
  /** Seed of the projections. Default 1. */
  readonly seed?: number;
}

/** A sink of one sketch per segment. `sketchSink` makes one. */
export interface SketchSink extends GradientSink {
  /** Numbers per sketch, over all parameters. */
  readonly size: number;
  /** The sketches of the last pass, row-major [S, size]. Throws `autograd` before the first pass, and after a pass that failed. */
  result(): Promise<Float32Array>;
  /** Frees the sketches. The sink then takes no further pass (`disposed`). */
  dispose(): void;
}

/** The options and the buffers of a sink. */
interface State {
  readonly segments: readonly number[];
  readonly segmentCount: number;
  readonly examples: number;
  readonly rank: number;
  readonly root: Key;
  readonly parts: Map<Tensor, Part>;
  readonly offsets: Offsets;
  readonly pass: WholePass;
  /** The parts that the current pass has written. */
  readonly written: Set<Part>;
}

/** The part of a sketch that belongs to a parameter. */
interface Part {
  /** Sketches of the segments [S, numbers]. */
  readonly out: Tensor;
  readonly numbers: number;
  /** Projections by their purpose: made when first needed, and kept. */
  readonly projections: Map<string, Tensor>;
  readonly index: number;
}

/** Throws `config` for invalid options. */
function stateOf(options: SketchSinkOptions): State {
  checkOptions("sketchSink", options, {
    segments: required(list),
    parameters: required(list),
    examples: integerIn(0),
    rank: integerIn(1),
    seed: integerIn(0),
  });
  for (const [i, t] of options.parameters.entries()) wantTensor("sketchSink", `parameter ${i}`, t);
  const { parameters, rank = 16, seed = 1 } = options;
  const segments = options.segments.slice();
  checkOffsets("sketchSink", "segments", segments, options.examples);
  const segmentCount = segments.length - 1;
  const examples = options.examples ?? segments[segmentCount]!;
  const parts = partsOf(parameters, segmentCount, rank);
  return {
    ...{ segments, segmentCount, examples, rank, parts },
    ...{ root: key(seed), offsets: new Offsets(), pass: new WholePass("sketchSink"), written: new Set() },
  };
}

function partsOf(parameters: readonly Tensor[], segmentCount: number, rank: number): Map<Tensor, Part> {
  const parts = new Map<Tensor, Part>();
  try {
    for (const [index, parameter] of parameters.entries()) {
      const numbers = parameter.shape.length === 2 ? rank * rank : Math.min(parameter.size, rank * rank);
      const out = keep(empty([segmentCount, numbers], "f32", parameter.memory));
      parts.set(parameter, { out, numbers, projections: new Map(), index });
    }
  } catch (error) {
    for (const { out } of parts.values()) out.dispose();
    throw error;
  }
  return parts;
}

/**
 * Makes a sink for sketches of the gradients of segments. Throws `config` for segments that do not ascend and a rank that is not a whole number of at
 * least 1; a pass throws `shape` for a batch of another size, and `autograd` for a loss that mixes examples (`gradients`).
 */
export function sketchSink(options: SketchSinkOptions): SketchSink {
  const state = stateOf(options);
  return {
    name: "sketch",
    size: sizeOfSketch(state),
    begin(_, batch) {
      state.pass.begin();
      checkExamples("sketchSink", batch, state.examples);
      state.written.clear();
    },
    end() {
      for (const part of state.parts.values())
        if (!state.written.has(part) && part.out.size > 0) run("fill", { value: 0 }, {}, { out: part.out });
      state.offsets.dispose();
      state.pass.end();
    },
    linear: (parameter, x, dy) => sketchMatrix(state, parameter, x, dy),
    bias: (parameter, dy) =>
      sketchVector(state, parameter, dy, (segments, params, sum) =>
        run("segmentSum", params, { x: dy, segments }, { out: sum }),
      ),
    gain: (parameter, kind, x, stats, dy) =>
      sketchVector(state, parameter, dy, (segments, params, sum) =>
        run("normGainGrad", { kind, ...params }, { x, stats, dy, segments }, { dgain: sum }),
      ),
    embedding: (parameter, ids, dy) => sketchTable(state, parameter, ids, dy),
    dense(parameter, op) {
      throw noRule("sketchSink", parameter, op);
    },
    result: () => resultOf(state),
    dispose: () => disposeState(state),
  };
}

/** Number of numbers in a segment's sketch. */
function sizeOfSketch({ parts }: State): number {
  let size = 0;
  for (const { numbers } of parts.values()) size += numbers;
  return size;
}

/** The part of a parameter, and whether the pass has written to it before. */
function next({ parts, written }: State, parameter: Tensor): { part: Part; accumulate: boolean } {
  const part = parts.get(parameter);
  if (part === undefined)
    throw new GradmixError(
      "autograd",
      `sketchSink: ${parameter.name ?? "a tensor"} is not one of the sink's parameters; name it in its options`,
    );
  const accumulate = written.has(part);
  written.add(part);
  return { part, accumulate };
}

const perExample = ({ examples }: State, parameter: Tensor, factor: Tensor): number =>
  rowsPerExample("sketchSink", parameter, factor, examples);

const PROJECTIONS = ["left", "right", "only"] as const;

/** The Gaussian matrix [width, columns] of a part; `what` distinguishes its projections. */
function projection(
  { root }: State,
  part: Part,
  what: (typeof PROJECTIONS)[number],
  width: number,
  columns: number,
): Tensor {
  const known = part.projections.get(what);
  if (known !== undefined) return known;
  const [key0, key1] = foldIn(foldIn(root, part.index), PROJECTIONS.indexOf(what));
  const gaussian = keep(empty([width, columns], "f32", part.out.memory));
  run("random", { kind: "normal", key0, key1, offset: 0 }, {}, { out: gaussian });
  part.projections.set(what, gaussian);
  return gaussian;
}

/** x [rows, width] times p [width, columns]. */
function project(x: Tensor, rows: number, p: Tensor): Tensor {
  const [width, columns] = extentsOf(p.shape, 2);
  const out = empty([rows, columns], "f32", x.memory);
  product(out, x, p, { m: rows, n: columns, k: width });
  return out;
}

/** Sketches a matrix's gradients Σ dyᵣ xᵣᵀ, projected on both sides. */
function sketchMatrix(state: State, parameter: Tensor, x: Tensor, dy: Tensor): void {
  const { part, accumulate } = next(state, parameter);
  const [out, width] = extentsOf(parameter.shape, 2);
  scope(() => {
    const left = project(dy, rowsOf(dy), projection(state, part, "left", out, state.rank));
    const right = project(x, rowsOf(x), projection(state, part, "right", width, state.rank));
    multiplyFactors(state, part, left, right, perExample(state, parameter, x), accumulate);
  });
}

/** Sketches a table's gradients: the projection of a row's index is a row of the left projection. */
function sketchTable(state: State, parameter: Tensor, ids: Tensor, dy: Tensor): void {
  const { part, accumulate } = next(state, parameter);
  const { rank } = state;
  const [tableRows, width] = extentsOf(parameter.shape, 2);
  const rows = rowsOf(dy);
  scope(() => {
    const left = empty([rows, rank], "f32", dy.memory);
    const table = projection(state, part, "left", tableRows, rank);
    run("gather", { rows, width: rank, tableRows }, { table, ids }, { out: left });
    const right = project(dy, rows, projection(state, part, "right", width, rank));
    multiplyFactors(state, part, left, right, perExample(state, parameter, dy), accumulate);
  });
}

/** Writes the gradient of every segment into `sum` [S, width], or adds it. */
type SumSegments = (
  segments: Tensor,
  params: { rows: number; width: number; segmentCount: number; outStride: number; accumulate: boolean },
  sum: Tensor,
) => void;

/** Sketches a vector's gradients by segment [S, width], as they are or projected. */
function sketchVector(state: State, parameter: Tensor, dy: Tensor, sumSegments: SumSegments): void {
  const { part, accumulate } = next(state, parameter);
  const { segmentCount } = state;
  const { out, numbers } = part;
  const width = parameter.size;
  const segments = state.offsets.get(state.segments, perExample(state, parameter, dy), dy);
  const params = { rows: rowsOf(dy), width, segmentCount, outStride: width };
  if (numbers === width) {
    sumSegments(segments, { ...params, accumulate }, out);
    return;
  }
  scope(() => {
    const sums = empty([segmentCount, width], "f32", out.memory);
    sumSegments(segments, { ...params, accumulate: false }, sums);
    const p = projection(state, part, "only", width, numbers);
    const alpha = 1 / Math.sqrt(numbers);
    product(out, sums, p, { m: segmentCount, n: numbers, k: width, alpha, accumulate });
  });
}

/** Writes Σ over each segment's rows of left [rows, r]ᵀ right [rows, r], divided by r, into the part. `rowsEach` is the number of rows per example. */
function multiplyFactors(
  { segments, segmentCount, rank }: State,
  part: Part,
  left: Tensor,
  right: Tensor,
  rowsEach: number,
  accumulate: boolean,
): void {
  const first = segments[0]! * rowsEach;
  const sizes = segments.slice(1).map((end, s) => (end - segments[s]!) * rowsEach);
  const [length] = sizes;
  const alpha = 1 / rank;
  if (length !== undefined && length > 0 && sizes.every((size) => size === length)) {
    // Segments of one length are one batched product.
    const cut = (t: Tensor): Tensor => t.part([segmentCount * length, rank], first * rank);
    product(part.out, cut(left), cut(right), {
      m: rank,
      n: rank,
      k: length,
      alpha,
      transA: true,
      accumulate,
      batch: segmentCount,
    });
    return;
  }
  let row = first;
  for (const [s, size] of sizes.entries()) {
    const into = part.out.part([rank, rank], s * part.numbers);
    const cut = (t: Tensor): Tensor => t.part([size, rank], row * rank);
    if (size > 0)
      product(into, cut(left), cut(right), { m: rank, n: rank, k: size, alpha, transA: true, accumulate });
    else if (!accumulate) run("fill", { value: 0 }, {}, { out: into });
    row += size;
  }
}

async function resultOf(state: State): Promise<Float32Array> {
  state.pass.want();
  const { segmentCount } = state;
  const parts = [...state.parts.values()];
  const size = sizeOfSketch(state);
  const sketches = new Float32Array(segmentCount * size);
  let at = 0;
  // All are read before the first wait: another pass may begin during it.
  const read = await Promise.all(parts.map(({ out }) => out.data()));
  for (const [i, { numbers }] of parts.entries()) {
    const values = read[i]!;
    for (let s = 0; s < segmentCount; s++)
      sketches.set(Float32Array.from(values.subarray(s * numbers, (s + 1) * numbers)), s * size + at);
    at += numbers;
  }
  return sketches;
}

function disposeState({ parts, offsets, pass }: State): void {
  pass.dispose();
  for (const { out, projections } of parts.values()) {
    out.dispose();
    for (const tensor of projections.values()) tensor.dispose();
    projections.clear();
  }
  parts.clear();
  offsets.dispose();
}

interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly alpha?: number;
  readonly transA?: boolean;
  readonly accumulate?: boolean;
  /** Number of products, one after the other. */
  readonly batch?: number;
}

/** c [m, n] = alpha · op(a) b. */
function product(
  c: Tensor,
  a: Tensor,
  b: Tensor,
  { m, n, k, alpha = 1, transA = false, accumulate = false, batch = 1 }: Product,
): void {
  run(
    "gemm",
    {
      m,
      n,
      k,
      transA,
      transB: false,
      batch,
      alpha,
      accumulate,
      activation: "none",
      strideA: m * k,
      strideB: k * n,
      strideC: m * n,
    },
    { a, b },
    { c },
  );
}
