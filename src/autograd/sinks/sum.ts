/** The training gradient: each parameter's contributions summed over the batch, into tensors that the caller owns. */
import { run } from "../../backends/backend.ts";
import { checkOptions } from "../../options.ts";
import { extentsOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import { checkedTarget, Offsets, rowsOf, Sums, type SumTarget, sumTargetChecks, wantApart } from "./rows.ts";
import { type Block, partsOf, spanning, type SumCall, Vectors } from "./vectors.ts";

/** A sink of sums over the batch; `sumSink` makes one. */
export interface SumSink extends GradientSink {
  /** Frees the memory that a failed pass left behind. */
  dispose(): void;
}

/** Makes a sink that sums gradients over the batch. Throws `config` for an invalid target. */
export function sumSink(given: SumTarget): SumSink {
  checkOptions("sumSink", given, sumTargetChecks);
  const target = checkedTarget("sumSink", given);
  const sums = new Sums(target);
  const offsets = new Offsets();
  const vectors = new Vectors([0, 1], offsets, (parameter) => [target.gradientOf(parameter)]);
  /** Writes the sum over the rows of a vector's gradient: where rows are many, of parts of them, which are added up at the end. */
  const vector = (parameter: Tensor, rows: number, sum: (call: SumCall) => void): void => {
    if (partsOf(rows, 1) > 1) {
      sum(vectors.next(parameter, rows, rows));
      return;
    }
    const { gradient, accumulate } = sums.next(parameter);
    const width = parameter.size;
    sum({
      segments: offsets.get([0, rows], 1, parameter),
      params: { rows, width, segmentCount: 1, outStride: width, accumulate },
      out: gradient,
    });
  };
  let watched: ReadonlySet<Tensor> = new Set();
  return {
    name: "sum",
    perExample: false,
    begin(parameters) {
      watched = parameters;
      wantApart("sumSink", parameters, target, null);
      sums.begin();
      vectors.begin(parameters);
    },
    end() {
      vectors.finish(
        (parameter) => sums.next(parameter).accumulate,
        (block) => addUp(target, block, offsets),
      );
      vectors.dispose();
      sums.end(watched);
      offsets.dispose();
    },
    linear(parameter, x, dy) {
      const { gradient, accumulate } = sums.next(parameter);
      weightGradient(x, dy, gradient, accumulate);
    },
    bias: (parameter, dy) =>
      vector(parameter, rowsOf(dy), ({ params, segments, out }) =>
        run("segmentSum", params, { x: dy, segments }, { out }),
      ),
    gain: (parameter, kind, x, stats, dy) =>
      vector(parameter, rowsOf(dy), ({ params, segments, out }) =>
        run("normGainGrad", { kind, ...params }, { x, stats, dy, segments }, { dgain: out }),
      ),
    embedding(parameter, ids, dy) {
      const { gradient, accumulate } = sums.next(parameter);
      const [tableRows, width] = extentsOf(parameter.shape, 2);
      run("scatterAdd", { rows: ids.size, width, tableRows, accumulate }, { x: dy, ids }, { out: gradient });
    },
    dense(parameter, _op, contribution) {
      const { gradient, accumulate } = sums.next(parameter);
      if (accumulate) run("accumulate", { scale: 1 }, { x: contribution }, { y: gradient });
      else run("affine", { scale: 1, shift: 0 }, { x: contribution }, { y: gradient });
    },
    dispose() {
      vectors.dispose();
      offsets.dispose();
    },
  };
}

/** Adds up the partial sums of vectors into their gradients. */
function addUp(target: SumTarget, { first, width, sums, parts, accumulate }: Block, offsets: Offsets): void {
  run(
    "segmentSum",
    { rows: parts, width, segmentCount: 1, outStride: width, accumulate },
    { x: sums, segments: offsets.get([0, parts], 1, sums) },
    { out: spanning(target.gradientOf(first), width) },
  );
}

/** dyᵀ·x over all rows: [out, in]. */
export function weightGradient(x: Tensor, dy: Tensor, into: Tensor, accumulate: boolean): void {
  const m = dy.shape[dy.rank - 1]!;
  const n = x.shape[x.rank - 1]!;
  run(
    "gemm",
    {
      m,
      n,
      k: rowsOf(x),
      transA: true,
      transB: false,
      batch: 1,
      strideA: 0,
      strideB: 0,
      strideC: 0,
      alpha: 1,
      accumulate,
      activation: "none",
    },
    { a: dy, b: x },
    { c: into },
  );
}
