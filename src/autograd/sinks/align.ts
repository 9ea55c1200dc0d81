/**
 * Alignments and norms of per-example or per-segment gradients, from one backward pass and without materialising the gradients.
 *
 * For every parameter the kernels compute ⟨g_s, V⟩ and ‖g_s‖² of each segment s of examples, and the training gradient Σ_s g_s. The direction V is the gradient of
 * the first segments (those of the target), or is given by the caller. The numbers are written to one small tensor, with one row per use of a parameter; they are
 * read in one transfer and summed in double precision.
 */
import { type Operand, run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { callback, checkOptions, integerIn, list, object, orNull, required } from "../../options.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, scope, type Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import {
  checkedTarget,
  checkExamples,
  checkOffsets,
  noRule,
  Offsets,
  oneEach,
  perParameter,
  rowsOf,
  rowsPerExample,
  Sums,
  type SumTarget,
  sumTargetChecks,
  wantApart,
  WholePass,
} from "./rows.ts";
import { type Row, Statistics } from "./statistics.ts";
import { type Block, spanning, type SumCall, Vectors } from "./vectors.ts";

/** The direction V: the sum of the gradients of the first segments, or one tensor per parameter. */
export type Direction =
  | {
      /** Number of segments at the beginning of the batch; V is the sum of their gradients. */
      readonly first: number;
    }
  | {
      /** Returns the part of V for a parameter, in the parameter's shape. */
      readonly given: (parameter: Tensor) => Tensor;
    };

/** Options of `alignSink`. */
export interface AlignSinkOptions {
  /** Number of examples of the batch, B. */
  readonly examples: number;
  /** Offsets of the segments in examples [S + 1]: where each segment begins, and where the last one ends. Default: every example is a segment. */
  readonly segments?: readonly number[];
  /** Offsets of groups of segments, in segments [G + 1]; the sink computes the norm of the summed gradient of each group. Default: no groups. */
  readonly groups?: readonly number[];
  /** The direction V; null computes norms only. */
  readonly direction: Direction | null;
  /** Receives the training gradient, the sum of the gradients of the segments from `from` on. Default: it is not computed. */
  readonly total?: SumTarget & {
    /** Index of the first segment of the sum. Default 0. */
    readonly from?: number;
  };
}

/** The numbers of a pass, each summed over the parameters. */
export interface AlignResult {
  /** ⟨g_s, V⟩ [S]; 0 for the segments that make up V, and for all segments if there is no direction. */
  readonly dots: Float64Array;
  /** ‖g_s‖², the squared norm of each segment's gradient [S]. */
  readonly squaredNorms: Float64Array;
  /** ‖Σ_{s in group} g_s‖², the squared norm of each group's summed gradient [G]. */
  readonly groupSquaredNorms: Float64Array;
  /** ‖V‖²; 0 without a direction. */
  readonly directionSquaredNorm: number;
  /**
   * The name of the first parameter that the pass used more than once ("(unnamed)" if it has no name); null if there is none. Fields that are quadratic in
   * its gradient then throw, and are not enumerable.
   */
  readonly tied: string | null;
}

/** A sink of inner products and norms per segment; `alignSink` makes one. */
export interface AlignSink extends GradientSink {
  /**
   * Reads the numbers of the last pass. Throws `autograd` before the first pass, and after a pass that failed. If the pass used a parameter more than once (tied weights), reading a field that is quadratic in gradients throws
   * `autograd`, because the square of a sum is not the sum of the squares of its parts. `dots` with a given direction are linear, so they remain readable.
   */
  result(): Promise<AlignResult>;
  /** Frees the tensors of the sink. It then takes no further pass (`disposed`). */
  dispose(): void;
}

/**
 * Makes a sink of inner products and norms per segment. Throws `config` for options that do not fit. A pass throws `shape` for a batch of a different size, and
 * `autograd` for a loss that mixes examples (see `gradients`).
 */
export function alignSink(options: AlignSinkOptions): AlignSink {
  return alignSinkOf("alignSink", options);
}

/** The options of a sink after all checks. */
interface Plan {
  /** Name of the function that made the sink, for messages. */
  readonly name: string;
  readonly examples: number;
  readonly segments: readonly number[];
  readonly segmentCount: number;
  /** Whether every segment is one example. If it is also one row, the gradient of a bias by segment is dy itself. */
  readonly oneExampleEach: boolean;
  readonly groups: readonly number[] | null;
  readonly groupCount: number;
  /** The direction V: the sum of the first `targets` segments, or `given`; 0 and null mean that there is no direction. */
  readonly targets: number;
  readonly given: ((parameter: Tensor) => Tensor) | null;
  readonly total: SumTarget | null;
  /** Index of the first segment of the total. */
  readonly from: number;
}

/** The tensors of a sink, and its records of a pass. */
interface State {
  readonly plan: Plan;
  readonly sums: Sums | null;
  readonly offsets: Offsets;
  readonly statistics: Statistics;
  readonly vectors: Vectors;
  readonly pass: WholePass;
  watched: ReadonlySet<Tensor>;
  readonly used: Set<Tensor>;
  /** The first parameter that the pass used more than once; null if there is none. */
  tied: Tensor | null;
}

/** Checks the options. Throws `config`, with a message that begins with `name`, for options that do not fit. */
function planOf(name: string, options: AlignSinkOptions): Plan {
  checkOptions(name, options, {
    examples: required(integerIn(0)),
    segments: list,
    groups: list,
    direction: required(orNull(object)),
    total: object,
  });
  const { examples, direction, total = null } = options;
  const groups = options.groups?.slice() ?? null;
  if (direction !== null) checkDirection(`${name}: direction`, direction);
  if (total !== null) checkOptions(`${name}: total`, total, { ...sumTargetChecks, from: integerIn(0) });
  const segments = options.segments?.slice() ?? oneEach(`${name}: examples`, examples);
  checkOffsets(name, "segments", segments, examples);
  const segmentCount = segments.length - 1;
  if (groups !== null) checkOffsets(name, "groups", groups, segmentCount);
  const groupCount = groups === null ? 0 : groups.length - 1;
  const targets = direction !== null && "first" in direction ? direction.first : 0;
  const given =
    direction !== null && "given" in direction
      ? perParameter(name, "direction.given", direction.given)
      : null;
  if (targets > segmentCount) throw beyondSegments(`${name}: direction.first`, targets, segmentCount);
  const from = total?.from ?? 0;
  if (from > segmentCount) throw beyondSegments(`${name}: total.from`, from, segmentCount);
  const oneExampleEach = segments.every((offset, s) => offset === s);
  return {
    name,
    examples,
    segments,
    segmentCount,
    oneExampleEach,
    groups,
    groupCount,
    targets,
    given,
    total: total === null ? null : checkedTarget(name, total),
    from,
  };
}

function beyondSegments(where: string, number: number, segmentCount: number): GradmixError {
  return new GradmixError("config", `${where} is ${number}; there are only ${segmentCount} segments`);
}

function checkDirection(where: string, direction: Direction): void {
  if ("given" in direction) checkOptions(where, direction, { given: required(callback) });
  else
    checkOptions<Extract<Direction, { first: number }>>(where, direction, { first: required(integerIn(0)) });
}

function alignSinkOf(name: string, options: AlignSinkOptions): AlignSink {
  const plan = planOf(name, options);
  const offsets = new Offsets();
  const state: State = {
    plan,
    sums: plan.total === null ? null : new Sums(plan.total),
    offsets,
    statistics: new Statistics(plan.segmentCount, plan.groupCount),
    vectors: new Vectors(plan.segments, offsets, (parameter) => [
      ...(plan.total === null ? [] : [plan.total.gradientOf(parameter)]),
      ...(plan.given === null ? [] : [plan.given(parameter)]),
    ]),
    pass: new WholePass(name),
    watched: new Set(),
    used: new Set(),
    tied: null,
  };
  return {
    name: "align",
    begin(parameters, batch) {
      state.pass.begin();
      checkExamples(name, batch, plan.examples);
      if (plan.total !== null) wantApart(`${name}: total`, parameters, plan.total, plan.given);
      state.watched = parameters;
      state.used.clear();
      state.tied = null;
      state.statistics.begin();
      state.sums?.begin();
      state.vectors.begin(parameters);
    },
    end() {
      scope(() =>
        state.vectors.finish(
          (parameter) => state.sums?.next(parameter).accumulate ?? false,
          (block) => scope(() => alignVectors(state, block)),
        ),
      );
      state.vectors.dispose();
      state.sums?.end(state.watched);
      squareUnused(state);
      state.pass.end();
    },
    linear: (parameter, x, dy) => scope(() => alignMatrix(state, parameter, x, dy)),
    bias(parameter, dy) {
      if (rowsOf(dy) === plan.segmentCount && plan.oneExampleEach) {
        recordUse(state, parameter);
        const accumulate = state.sums?.next(parameter).accumulate ?? false;
        scope(() =>
          alignVectors(state, { first: parameter, width: parameter.size, sums: dy, parts: 1, accumulate }),
        );
        return;
      }
      const { params, segments, out } = vectorSums(state, parameter, dy);
      run("segmentSum", params, { x: dy, segments }, { out });
    },
    gain(parameter, kind, x, stats, dy) {
      const { params, segments, out } = vectorSums(state, parameter, dy);
      run("normGainGrad", { kind, ...params }, { x, stats, dy, segments }, { dgain: out });
    },
    embedding: (parameter, ids, dy) => scope(() => alignTable(state, parameter, ids, dy)),
    dense(parameter, op) {
      throw noRule(name, parameter, op);
    },
    result: () => resultOf(state),
    dispose() {
      state.pass.dispose();
      state.statistics.dispose();
      state.vectors.dispose();
      state.offsets.dispose();
    },
  };
}

/** Adds the parts of a given direction for parameters that the loss does not depend on to ‖V‖². */
function squareUnused({ plan: { given }, statistics, watched, used }: State): void {
  if (given === null) return;
  for (const parameter of watched)
    if (!used.has(parameter))
      scope(() => {
        const row = statistics.next(parameter, watched.size);
        run("sumSquares", {}, { x: given(parameter) }, { out: row.direction });
      });
}

/** Records a use of a parameter. */
function recordUse(state: State, parameter: Tensor): void {
  if (state.used.has(parameter)) state.tied ??= parameter;
  state.used.add(parameter);
}

/** Records a use of a parameter and returns the tensors that its numbers are written to. */
function begin(state: State, parameter: Tensor): Row {
  recordUse(state, parameter);
  return state.statistics.next(parameter, state.watched.size);
}

const perExample = ({ plan }: State, parameter: Tensor, factor: Tensor): number =>
  rowsPerExample(plan.name, parameter, factor, plan.examples);

const groupOffsets = ({ plan, offsets }: State, like: Tensor): Tensor | null =>
  plan.groups === null ? null : offsets.get(plan.groups, 1, like);

/** Computes the numbers of a weight matrix; the gradient of a segment is Σ dy_r x_rᵀ over its rows. */
function alignMatrix(state: State, parameter: Tensor, x: Tensor, dy: Tensor): void {
  const { segments, segmentCount, groupCount, targets, given, from } = state.plan;
  const row = begin(state, parameter);
  const sum = state.sums?.next(parameter) ?? null;
  const [m, n] = extentsOf(parameter.shape, 2);
  run(
    "gemmSegmented",
    {
      rows: rowsOf(x),
      m,
      n,
      segmentCount,
      groupCount,
      targetSegments: targets,
      firstAccumulated: from,
      accumulate: sum?.accumulate ?? false,
    },
    {
      a: dy,
      b: x,
      segments: state.offsets.get(segments, perExample(state, parameter, x), x),
      groups: groupOffsets(state, x),
      v: given?.(parameter) ?? null,
    },
    {
      total: sum?.gradient ?? null,
      dots: row.dots,
      sumsq: row.squares,
      groupSumsq: row.groups,
      vSumsq: row.direction,
    },
  );
}

/** Records a use of a vector. Its numbers are computed at the end of the pass, together with those of the other vectors. */
function vectorSums(state: State, parameter: Tensor, dy: Tensor): SumCall {
  recordUse(state, parameter);
  return state.vectors.next(parameter, rowsOf(dy), perExample(state, parameter, dy));
}

/** Computes the numbers of a block of vectors from their sums by segment, with scratch tensors in the current scope. */
function alignVectors(state: State, { first, width, sums, parts, accumulate }: Block): void {
  const { segmentCount, groups, groupCount, targets, given, total, from } = state.plan;
  const row = state.statistics.next(first, state.watched.size);
  const scratch = (...shape: number[]): Tensor => empty(shape, "f32", sums.memory);
  const sumOf = (x: Tensor, bounds: readonly number[], into: Operand, adds = false): void =>
    run(
      "segmentSum",
      {
        rows: x.size / width,
        width,
        outStride: width,
        segmentCount: bounds.length - 1,
        accumulate: adds,
      },
      { x, segments: state.offsets.get(bounds, 1, x) },
      { out: into },
    );
  if (width === 0) return;
  let rows = sums;
  if (parts > 1) {
    rows = scratch(segmentCount, width);
    sumOf(
      sums,
      Array.from({ length: segmentCount + 1 }, (_, s) => s * parts),
      rows,
    );
  }
  let v: Operand | null = given === null ? null : spanning(given(first), width);
  if (v === null && targets > 0) {
    v = scratch(width);
    sumOf(rows, [0, targets], v);
  }
  // The kernel needs some vector even without a direction; `resultOf` discards the products.
  const along = v ?? (segmentCount === 0 ? scratch(width) : rows.part([width]));
  run(
    "alignRows",
    { rows: segmentCount, width },
    { g: rows, v: along },
    { dots: row.dots, sumsq: row.squares },
  );
  if (v !== null) run("sumSquares", {}, { x: v }, { out: row.direction });
  if (groups !== null && groupCount > 0 && row.groups !== null) {
    const grouped = scratch(groupCount, width);
    sumOf(rows, groups, grouped);
    const outputs = { dots: scratch(groupCount), sumsq: row.groups };
    run("alignRows", { rows: groupCount, width }, { g: grouped, v: along }, outputs);
  }
  if (total !== null) sumOf(rows, [from, segmentCount], spanning(total.gradientOf(first), width), accumulate);
}

/** Computes the numbers of an embedding without materialising the gradients of its segments. */
function alignTable(state: State, parameter: Tensor, ids: Tensor, dy: Tensor): void {
  const { segments, segmentCount, groupCount, targets, given, from } = state.plan;
  const row = begin(state, parameter);
  const [tableRows, width] = extentsOf(parameter.shape, 2);
  const rowsEach = perExample(state, parameter, dy);
  /** Adds the rows of the segments first … end − 1 to a table; sets the table to 0 before that unless `accumulate` is true. */
  const scatter = (first: number, end: number, into: Tensor, accumulate: boolean): void => {
    const start = segments[first]! * rowsEach;
    const rows = segments[end]! * rowsEach - start;
    const operands = { x: dy.part([rows, width], start * width), ids: ids.part([rows], start) };
    run("scatterAdd", { rows, width, tableRows, accumulate }, operands, { out: into });
  };
  let v = given?.(parameter) ?? null;
  if (v === null && targets > 0) {
    v = empty([tableRows, width], "f32", dy.memory);
    scatter(0, targets, v, false);
  }
  run(
    "embeddingAlign",
    { rows: ids.size, width, tableRows, segmentCount, groupCount },
    { dy, ids, segments: state.offsets.get(segments, rowsEach, dy), groups: groupOffsets(state, dy), v },
    { dots: row.dots, sumsq: row.squares, groupSumsq: row.groups },
  );
  if (v !== null) run("sumSquares", {}, { x: v }, { out: row.direction });
  if (state.sums !== null) {
    const { gradient, accumulate } = state.sums.next(parameter);
    scatter(from, segmentCount, gradient, accumulate);
  }
}

async function resultOf({ plan, statistics, tied, pass }: State): Promise<AlignResult> {
  pass.want();
  const { segmentCount, groupCount, targets, given } = plan;
  const numbers = await statistics.read();
  // The target's segments were multiplied by a part of the direction only, and without a direction no product is valid.
  numbers.dots.fill(0, 0, given === null && targets === 0 ? segmentCount : targets);
  const directions = new Map<Tensor, number>();
  for (const { parameter, direction } of numbers.directions) directions.set(parameter, direction);
  let directionSquaredNorm = 0;
  for (const squared of directions.values()) directionSquaredNorm += squared;
  const result: AlignResult = {
    dots: numbers.dots,
    squaredNorms: numbers.squares,
    groupSquaredNorms: numbers.groups,
    directionSquaredNorm,
    tied: tied === null ? null : (tied.name ?? "(unnamed)"),
  };
  if (result.tied !== null) {
    // The direction is a gradient of the pass too if it is that of the first segments.
    if (targets > 0) refuseField(plan.name, result, "dots", result.tied);
    refuseField(plan.name, result, "squaredNorms", result.tied);
    if (groupCount > 0) refuseField(plan.name, result, "groupSquaredNorms", result.tied);
    if (targets > 0) refuseField(plan.name, result, "directionSquaredNorm", result.tied);
  }
  return result;
}

/** Makes reading a field throw. The field is no longer enumerable, so that the others can be printed and copied. */
function refuseField(sink: string, result: AlignResult, field: keyof AlignResult, tied: string): void {
  Object.defineProperty(result, field, {
    enumerable: false,
    get(): never {
      throw new GradmixError(
        "autograd",
        `${sink}: parameter ${tied} is used twice in one pass, so ${field} (quadratic in its gradient) cannot be added up use by use; untie it or use segmentSink`,
      );
    },
  });
}

/** Makes an `alignSink` without a direction, which computes norms only. Throws `config` for options that do not fit. */
export function normSink(options: Omit<AlignSinkOptions, "direction">): AlignSink {
  object("normSink: the options", options);
  if (Object.hasOwn(options, "direction"))
    throw new GradmixError("config", 'normSink: there is no option "direction"; use alignSink');
  return alignSinkOf("normSink", { ...options, direction: null });
}
