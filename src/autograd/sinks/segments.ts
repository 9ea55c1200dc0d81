/**
 * Materialised gradients of segments of the batch, such as examples or domains. Memory is segments × parameters, so this is for small models, for
 * tests, and for uses that need the gradients themselves.
 */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, integerIn, list, object, required, show } from "../../options.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, isTensor, keep, scope, type Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import {
  checkExamples,
  checkOffsets,
  noRule,
  Offsets,
  oneEach,
  rowsOf,
  rowsPerExample,
  WholePass,
} from "./rows.ts";
import { weightGradient } from "./sum.ts";

/** Options of `segmentSink`. */
export interface SegmentSinkOptions {
  /** Where segments begin, in examples, and where the last one ends: S + 1 ascending numbers. */
  readonly segments: readonly number[];
  /** Parameters whose gradients are kept. */
  readonly parameters: Iterable<Tensor>;
  /** Number of examples in the batch, if not all of them belong to segments. Default: where the last segment ends. */
  readonly examples?: number;
}

/** A sink of one gradient per segment. `segmentSink`, `perDomainSink` and `perExampleSink` make one. */
export interface SegmentSink extends GradientSink {
  /**
   * The gradients of the last pass, parameter → [S, …shape of the parameter]. They belong to the sink. Throws `autograd` before the first pass, and after
   * a pass that failed.
   */
  result(): ReadonlyMap<Tensor, Tensor<"f32">>;
  /** Frees the gradients. The sink then takes no further pass (`disposed`). */
  dispose(): void;
}

/**
 * Makes a sink for the gradient of each segment of examples. Throws `config` for segments that do not ascend; a pass throws `shape` for a batch of
 * another size, and `autograd` for a loss that mixes examples (`gradients`).
 */
export function segmentSink(options: SegmentSinkOptions): SegmentSink {
  checkOptions("segmentSink", options, {
    segments: required(list),
    parameters: required(object),
    examples: integerIn(0),
  });
  const { examples: given } = options;
  const parameters = tensorsOf("segmentSink: parameters", options.parameters);
  const segments = options.segments.slice();
  checkOffsets("segmentSink", "segments", segments, given);
  const examples = given ?? segments[segments.length - 1]!;
  const gradients = segmentGradients(segments, parameters);
  const uploaded = new Offsets();
  const pass = new WholePass("segmentSink");
  const { segmentCount, kept, written, next } = gradients;
  const perExample = (parameter: Tensor, factor: Tensor): number =>
    rowsPerExample("segmentSink", parameter, factor, examples);
  const rowOffsets = (parameter: Tensor, factor: Tensor): Tensor =>
    uploaded.get(segments, perExample(parameter, factor), factor);

  return {
    name: "segments",
    result() {
      pass.want();
      return kept;
    },
    begin(_, batch) {
      pass.begin();
      checkExamples("segmentSink", batch, examples);
      written.clear();
    },
    end() {
      for (const [parameter, gradient] of kept)
        if (!written.has(parameter) && gradient.size > 0) run("fill", { value: 0 }, {}, { out: gradient });
      uploaded.dispose();
      pass.end();
    },
    linear(parameter, x, dy) {
      const { gradient, accumulate } = next(parameter);
      const [out, width] = extentsOf(parameter.shape, 2);
      eachSegment(segments, gradient, perExample(parameter, x), (into, cut) => {
        const rows = cut(x, width);
        if (rows.size > 0) weightGradient(rows, cut(dy, out), into, accumulate);
        else if (!accumulate) run("fill", { value: 0 }, {}, { out: into });
      });
    },
    bias(parameter, dy) {
      const { gradient, accumulate } = next(parameter);
      const params = {
        rows: rowsOf(dy),
        width: parameter.size,
        segmentCount,
        outStride: parameter.size,
        accumulate,
      };
      run("segmentSum", params, { x: dy, segments: rowOffsets(parameter, dy) }, { out: gradient });
    },
    gain(parameter, kind, x, stats, dy) {
      const { gradient, accumulate } = next(parameter);
      const params = {
        kind,
        rows: rowsOf(dy),
        width: parameter.size,
        segmentCount,
        outStride: parameter.size,
        accumulate,
      };
      run("normGainGrad", params, { x, stats, dy, segments: rowOffsets(parameter, dy) }, { dgain: gradient });
    },
    embedding(parameter, ids, dy) {
      const { gradient, accumulate } = next(parameter);
      const [tableRows, width] = extentsOf(parameter.shape, 2);
      eachSegment(segments, gradient, perExample(parameter, dy), (into, cut) => {
        const rows = cut(dy, width);
        const [count] = extentsOf(rows.shape, 2);
        const cutIds = ids.part([count], count === 0 ? 0 : (rows.offset - dy.offset) / width);
        const params = { rows: count, width, tableRows, accumulate };
        run("scatterAdd", params, { x: rows, ids: cutIds }, { out: into });
      });
    },
    dense(parameter, op) {
      throw noRule("segmentSink", parameter, op);
    },
    dispose() {
      pass.dispose();
      for (const gradient of kept.values()) gradient.dispose();
      kept.clear();
      uploaded.dispose();
    },
  };
}

/** The tensors of a list. Throws `config` for anything else, such as the parameters of a model in place of their list. */
function tensorsOf(where: string, given: Iterable<Tensor>): Tensor[] {
  const tensors: unknown[] = Symbol.iterator in given ? [...given] : [given];
  return tensors.map((t) => {
    if (isTensor(t)) return t;
    throw new GradmixError(
      "config",
      `${where}: ${show(t)} does not fit; it must be a list of tensors, such as the list of a model's parameters`,
    );
  });
}

interface SegmentGradients {
  readonly segmentCount: number;
  /** Parameter → [S, …shape of the parameter]. */
  readonly kept: Map<Tensor, Tensor<"f32">>;
  /** Parameters to whose gradients this pass has added something. */
  readonly written: Set<Tensor>;
  /** Returns the tensor for a parameter's next part, and whether the part is added to it or overwrites it. Throws `autograd` for a tensor that is not a parameter. */
  next(parameter: Tensor): { readonly gradient: Tensor; readonly accumulate: boolean };
}

function segmentGradients(segments: readonly number[], parameters: Iterable<Tensor>): SegmentGradients {
  const segmentCount = segments.length - 1;
  const kept = new Map<Tensor, Tensor<"f32">>();
  try {
    for (const p of parameters) kept.set(p, keep(empty([segmentCount, ...p.shape], "f32", p.memory)));
  } catch (error) {
    for (const gradient of kept.values()) gradient.dispose();
    throw error;
  }
  const written = new Set<Tensor>();
  return {
    ...{ segmentCount, kept, written },
    next(parameter) {
      const gradient = kept.get(parameter);
      if (gradient === undefined)
        throw new GradmixError(
          "autograd",
          `segmentSink: ${parameter.name ?? "a tensor"} is not one of the sink's parameters; name it in its options`,
        );
      const accumulate = written.has(parameter);
      written.add(parameter);
      return { gradient, accumulate };
    },
  };
}

/** Calls `fn` for each segment with its gradient and a cut that takes its rows, `per` for each example, out of a factor. */
function eachSegment(
  segments: readonly number[],
  gradient: Tensor,
  per: number,
  fn: (into: Tensor, cut: (t: Tensor, width: number) => Tensor) => void,
): void {
  const segmentCount = segments.length - 1;
  const size = gradient.size / segmentCount;
  for (let s = 0; s < segmentCount; s++)
    scope(() => {
      const first = segments[s]! * per;
      const rows = segments[s + 1]! * per - first;
      fn(gradient.part(gradient.shape.slice(1), s * size), (t, width) =>
        t.part([rows, width], first * width),
      );
    });
}

/** Makes a sink with one gradient per example of a batch of `examples`; see `segmentSink`. */
export function perExampleSink(examples: number, parameters: Iterable<Tensor>): SegmentSink {
  return segmentSink({ segments: oneEach("perExampleSink: examples", examples), parameters });
}

/**
 * Makes a sink with one gradient per domain, for examples sorted by domain. `segments` has the start of each domain and the end of the last one,
 * which is the end of the batch; see `segmentSink`.
 */
export function perDomainSink(segments: readonly number[], parameters: Iterable<Tensor>): SegmentSink {
  return segmentSink({ segments, parameters });
}
