/** The training gradient: each parameter's contributions summed over the batch, into tensors that the caller owns. */
import { run } from "../../backends/backend.ts";
import { checkOptions } from "../../options.ts";
import { extentsOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import { Offsets, rowsOf, Sums, type SumTarget, sumTargetChecks } from "./rows.ts";

/** A sink of sums over the batch; `sumSink` makes one. */
export interface SumSink extends GradientSink {
  /** Frees what a pass that failed has left. */
  dispose(): void;
}

/** Throws `config` for a target that is none. */
export function sumSink(target: SumTarget): SumSink {
  checkOptions("sumSink", target, sumTargetChecks);
  const sums = new Sums(target);
  const offsets = new Offsets();
  let watched: ReadonlySet<Tensor> = new Set();
  return {
    name: "sum",
    perExample: false,
    begin(parameters) {
      watched = parameters;
      sums.begin();
    },
    end() {
      sums.end(watched);
      offsets.dispose();
    },
    linear(parameter, x, dy) {
      const { gradient, accumulate } = sums.next(parameter);
      weightGradient(x, dy, gradient, accumulate);
    },
    bias(parameter, dy) {
      const { gradient, accumulate } = sums.next(parameter);
      const rows = rowsOf(dy);
      run(
        "segmentSum",
        { rows, width: parameter.size, segmentCount: 1, accumulate },
        { x: dy, segments: offsets.get([0, rows], 1, dy) },
        { out: gradient },
      );
    },
    gain(parameter, kind, x, stats, dy) {
      const { gradient, accumulate } = sums.next(parameter);
      const rows = rowsOf(dy);
      run(
        "normGainGrad",
        { kind, rows, width: parameter.size, segmentCount: 1, accumulate },
        { x, stats, dy, segments: offsets.get([0, rows], 1, dy) },
        { dgain: gradient },
      );
    },
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
      offsets.dispose();
    },
  };
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
