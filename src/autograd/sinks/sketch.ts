/**
 * Random projections of the gradients of segments, without the gradients.
 *
 * A linear weight's gradient of a segment is W = Σ_rows dyᵀ x. With Gaussian A [r, out] and B [r, in] its sketch is A W Bᵀ / r, which is
 * Σ_rows (A dy)(B x)ᵀ / r: both factors shrink to r numbers per row before they meet. Inner products survive in expectation, and for any two
 * gradients of one weight
 *
 *     E⟨s(W), s(V)⟩ = ⟨W, V⟩,   Var⟨s(W), s(V)⟩ ≤ (4/r + 4/r²)·‖W‖²·‖V‖²
 *
 * (the Johnson–Lindenstrauss moment bound, once for A and once for B). Embeddings are the same with a column of A for x; biases and gains are kept
 * as they are, or projected once (2/r²) where they have more than r² numbers. Sketches of different weights are independent and stand side by
 * side, so the errors of their sums add in squares. They depend on the seed, the parameter's place and r only: sketches that were made
 * at different times, of different batches, can be aligned with each other.
 */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, integerIn, list, required } from "../../options.ts";
import { foldIn, key } from "../../tensor/rng.ts";
import { empty, keep, scope, type Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import { checkExamples, checkOffsets, noRule, Offsets, rowsOf, rowsPerExample } from "./rows.ts";

export interface SketchSinkOptions {
  /** Where segments begin, in examples, and where the last one ends: S + 1 ascending numbers. */
  readonly segments: readonly number[];
  readonly parameters: readonly Tensor[];
  /** Examples of the batch, if not all of them belong to segments. Default: where the last segment ends. */
  readonly examples?: number;
  /** r: a matrix is sketched by r² numbers. Default 16. */
  readonly rank?: number;
  /** Of the projections. Default 1. */
  readonly seed?: number;
}

export interface SketchSink extends GradientSink {
  /** Numbers in a sketch, over all parameters. */
  readonly size: number;
  /** The sketches of the last pass, row-major [S, size]. */
  result(): Promise<Float32Array>;
  dispose(): void;
}

interface Part {
  /** Sketches of the segments [S, numbers]. */
  readonly out: Tensor;
  readonly numbers: number;
  /** Projections by what they project: made when first needed, and kept. */
  readonly projections: Map<string, Tensor>;
  readonly index: number;
}

/**
 * Sketches of the gradients of segments. Throws `config` for segments that do not ascend and a rank that is not a whole number of at least 1; a pass
 * throws `shape` for a batch of another size, and `autograd` for a loss that mixes examples (`gradients`).
 */
export function sketchSink(options: SketchSinkOptions): SketchSink {
  checkOptions("sketchSink", options, {
    segments: required(list),
    parameters: required(list),
    examples: integerIn(0),
    rank: integerIn(1),
    seed: integerIn(0),
  });
  const { segments, parameters, examples: given, rank = 16, seed = 1 } = options;
  checkOffsets("sketchSink", "segments", segments, given);
  const segmentCount = segments.length - 1;
  const examples = given ?? segments[segmentCount];
  const uploaded = new Offsets();
  const written = new Set<Part>();
  const root = key(seed);
  const parts = new Map<Tensor, Part>();
  try {
    parameters.forEach((parameter, index) => {
      const numbers = parameter.shape.length === 2 ? rank * rank : Math.min(parameter.size, rank * rank);
      const out = keep(empty([segmentCount, numbers], "f32", parameter.memory));
      parts.set(parameter, { out, numbers, projections: new Map(), index });
    });
  } catch (error) {
    for (const { out } of parts.values()) out.dispose();
    throw error;
  }

  const next = (parameter: Tensor): { part: Part; accumulate: boolean } => {
    const part = parts.get(parameter);
    if (part === undefined)
      throw new GradmixError(
        "autograd",
        `sketchSink: ${parameter.name ?? "a tensor"} is not one of the sink's parameters; name it in its options`,
      );
    const accumulate = written.has(part);
    written.add(part);
    return { part, accumulate };
  };
  /** Gaussian [width, columns] of a part; `what` tells its projections apart. */
  const projection = (
    part: Part,
    what: "left" | "right" | "only",
    width: number,
    columns: number,
  ): Tensor => {
    let made = part.projections.get(what);
    if (made === undefined) {
      const [key0, key1] = foldIn(foldIn(root, part.index), ["left", "right", "only"].indexOf(what));
      made = keep(empty([width, columns], "f32", part.out.memory));
      run("random", { kind: "normal", key0, key1, offset: 0 }, {}, { out: made });
      part.projections.set(what, made);
    }
    return made;
  };
  /** x [rows, width] times p [width, columns]. */
  const project = (x: Tensor, rows: number, p: Tensor): Tensor => {
    const [width, columns] = p.shape;
    const out = empty([rows, columns], "f32", x.memory);
    product(out, x, p, rows, columns, width, 1, false, false);
    return out;
  };
  /** Σ over each segment's rows of left [rows, r]ᵀ right [rows, r], over r, into the part. */
  const meet = (part: Part, left: Tensor, right: Tensor, perExample: number, accumulate: boolean): void => {
    const sizes = segments.slice(1).map((end, s) => (end - segments[s]) * perExample);
    const first = segments[0] * perExample;
    if (sizes.every((size) => size === sizes[0]) && sizes[0] > 0) {
      // Segments of one length are one batched product.
      const cut = (t: Tensor): Tensor => t.view([segmentCount * sizes[0], rank], first * rank);
      product(
        part.out,
        cut(left),
        cut(right),
        rank,
        rank,
        sizes[0],
        1 / rank,
        true,
        accumulate,
        segmentCount,
      );
      return;
    }
    let row = first;
    sizes.forEach((size, s) => {
      const into = part.out.view([rank, rank], s * part.numbers);
      if (size > 0) {
        const cut = (t: Tensor): Tensor => t.view([size, rank], row * rank);
        product(into, cut(left), cut(right), rank, rank, size, 1 / rank, true, accumulate);
      } else if (!accumulate) run("fill", { value: 0 }, {}, { out: into });
      row += size;
    });
  };
  const perExample = (parameter: Tensor, factor: Tensor): number =>
    rowsPerExample("sketchSink", parameter, factor, examples);
  const segmentsOf = (parameter: Tensor, factor: Tensor): Tensor =>
    uploaded.get(segments, perExample(parameter, factor), factor);
  /** A vector's gradients by segment [S, width], as they are or projected. */
  const vector = (
    part: Part,
    width: number,
    accumulate: boolean,
    fill: (into: Tensor, add: boolean) => void,
  ): void => {
    if (part.numbers === width) {
      fill(part.out, accumulate);
      return;
    }
    scope(() => {
      const whole = empty([segmentCount, width], "f32", part.out.memory);
      fill(whole, false);
      const p = projection(part, "only", width, part.numbers);
      product(
        part.out,
        whole,
        p,
        segmentCount,
        part.numbers,
        width,
        1 / Math.sqrt(part.numbers),
        false,
        accumulate,
      );
    });
  };

  return {
    name: "sketch",
    size: [...parts.values()].reduce((sum, { numbers }) => sum + numbers, 0),
    begin(_, batch) {
      checkExamples("sketchSink", batch, examples);
      written.clear();
    },
    end() {
      for (const part of parts.values())
        if (!written.has(part) && part.out.size > 0) run("fill", { value: 0 }, {}, { out: part.out });
      uploaded.dispose();
    },
    linear(parameter, x, dy) {
      const { part, accumulate } = next(parameter);
      const [out, width] = parameter.shape;
      scope(() => {
        const left = project(dy, rowsOf(dy), projection(part, "left", out, rank));
        const right = project(x, rowsOf(x), projection(part, "right", width, rank));
        meet(part, left, right, perExample(parameter, x), accumulate);
      });
    },
    bias(parameter, dy) {
      const { part, accumulate } = next(parameter);
      const width = parameter.size;
      const rows = segmentsOf(parameter, dy);
      vector(part, width, accumulate, (into, add) => {
        const params = { rows: rowsOf(dy), width, segmentCount, accumulate: add };
        run("segmentSum", params, { x: dy, segments: rows }, { out: into });
      });
    },
    gain(parameter, kind, x, stats, dy) {
      const { part, accumulate } = next(parameter);
      const width = parameter.size;
      const rows = segmentsOf(parameter, dy);
      vector(part, width, accumulate, (into, add) => {
        const params = { kind, rows: rowsOf(dy), width, segmentCount, accumulate: add };
        run("normGainGrad", params, { x, stats, dy, segments: rows }, { dgain: into });
      });
    },
    embedding(parameter, ids, dy) {
      const { part, accumulate } = next(parameter);
      const [tableRows, width] = parameter.shape;
      const rows = rowsOf(dy);
      scope(() => {
        const left = empty([rows, rank], "f32", dy.memory);
        const table = projection(part, "left", tableRows, rank);
        run("gather", { rows, width: rank, tableRows }, { table, ids }, { out: left });
        const right = project(dy, rows, projection(part, "right", width, rank));
        meet(part, left, right, perExample(parameter, dy), accumulate);
      });
    },
    dense(parameter, op) {
      throw noRule("sketchSink", parameter, op);
    },
    async result() {
      const all = [...parts.values()];
      const size = all.reduce((sum, { numbers }) => sum + numbers, 0);
      const out = new Float32Array(segmentCount * size);
      let at = 0;
      for (const { out: own, numbers } of all) {
        const values = await own.data();
        for (let s = 0; s < segmentCount; s++)
          out.set(Float32Array.from(values.subarray(s * numbers, (s + 1) * numbers)), s * size + at);
        at += numbers;
      }
      return out;
    },
    dispose() {
      for (const { out, projections } of parts.values()) {
        out.dispose();
        for (const made of projections.values()) made.dispose();
        projections.clear();
      }
      parts.clear();
      uploaded.dispose();
    },
  };
}

/** c [m, n] = alpha · op(a) b, `batch` times one after the other. */
function product(
  c: Tensor,
  a: Tensor,
  b: Tensor,
  m: number,
  n: number,
  k: number,
  alpha: number,
  transA: boolean,
  accumulate: boolean,
  batch = 1,
): void {
  run(
    "gemm",
    {
      ...{ m, n, k, transA, transB: false, batch, alpha, accumulate, activation: "none" },
      ...{ strideA: m * k, strideB: k * n, strideC: m * n },
    },
    { a, b },
    { c },
  );
}
