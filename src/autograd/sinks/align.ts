/**
 * Alignments and norms of per-example or per-segment gradients, out of one backward pass, without the gradients.
 *
 * For every parameter the kernels give ⟨g_s, V⟩ and ‖g_s‖² of each segment s of examples, V being the gradient of the
 * first segments (the target's) or a direction given from outside, and with it the training gradient, Σ_s g_s. The
 * numbers of all uses of all parameters land in one small tensor, a row a use; they are read at once and added up in
 * double precision.
 */
import { type Operand, run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { callback, checkOptions, integerIn, list, object, orNull, required } from "../../options.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, scope, type Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";
import {
  checkExamples,
  checkOffsets,
  noRule,
  Offsets,
  rowsOf,
  rowsPerExample,
  Sums,
  type SumTarget,
  sumTargetChecks,
} from "./rows.ts";
import { type Row, Statistics } from "./statistics.ts";
import { type Block, spanning, type SumCall, Vectors } from "./vectors.ts";

/** What V is: the sum of the first segments, or one tensor per parameter. */
export type Direction =
  | {
      /** V is the sum of the gradients of so many segments, the first ones of the batch. */
      readonly first: number;
    }
  | {
      /** Gives V of a parameter, in the parameter's shape. */
      readonly given: (parameter: Tensor) => Tensor;
    };

/** Options of `alignSink`. */
export interface AlignSinkOptions {
  /** Examples of the batch, B. */
  readonly examples: number;
  /** Where segments begin, in examples, and where the last one ends (S + 1). Default: every example is a segment. */
  readonly segments?: readonly number[];
  /** Where groups of segments begin, in segments, and where the last one ends (G + 1): norms of their sums. */
  readonly groups?: readonly number[];
  /** null: norms only. */
  readonly direction: Direction | null;
  /** Where the training gradient goes, if it is wanted: the sum over the segments from `from` on (default 0). */
  readonly total?: SumTarget & {
    /** The first segment that counts. Default 0. */
    readonly from?: number;
  };
}

/** Each number is summed over the parameters. */
export interface AlignResult {
  /** ⟨g_s, V⟩ [S]; 0 for the target's own segments, and without a direction. */
  readonly dots: Float64Array;
  /** ‖g_s‖² [S]. */
  readonly squaredNorms: Float64Array;
  /** ‖Σ_{s in group} g_s‖² [G]. */
  readonly groupSquaredNorms: Float64Array;
  /** ‖V‖²; 0 without a direction. */
  readonly directionSquaredNorm: number;
  /** The name of a parameter that the pass used twice, because of which what is quadratic in gradients cannot be read; null where there is none. */
  readonly tied: string | null;
}

/** A sink of inner products and norms per segment; `alignSink` makes one. */
export interface AlignSink extends GradientSink {
  /**
   * The numbers of the last pass. Reading one of the result's fields throws `autograd` when it is quadratic in a
   * parameter that the pass used twice (tied weights): parts of one gradient cannot be squared one by one. `dots` along
   * a given direction are linear and stay right.
   */
  result(): Promise<AlignResult>;
  /** Frees what the sink holds. */
  dispose(): void;
}

/**
 * Makes the sink. Throws `config` for segments or groups that do not fit; a pass throws `shape` for a batch of another size, and `autograd` for a loss
 * that mixes examples (`gradients`).
 */
export function alignSink(options: AlignSinkOptions): AlignSink {
  return alignSinkOf("alignSink", options);
}

/** What a sink was made for: its options, checked. */
interface Plan {
  readonly examples: number;
  readonly segments: readonly number[];
  readonly segmentCount: number;
  readonly groups: readonly number[] | null;
  readonly groupCount: number;
  /** V: the sum of that many first segments, or one tensor per parameter; 0 and null mean no direction. */
  readonly targets: number;
  readonly given: ((parameter: Tensor) => Tensor) | null;
  readonly total: SumTarget | null;
  /** The first segment of the total. */
  readonly from: number;
}

/** What a sink holds, and what it notes of a pass. */
interface State {
  readonly plan: Plan;
  readonly sums: Sums | null;
  readonly offsets: Offsets;
  readonly statistics: Statistics;
  readonly vectors: Vectors;
  watched: ReadonlySet<Tensor>;
  readonly used: Set<Tensor>;
  /** The first parameter that was used a second time. */
  tied: Tensor | null;
}

/** Throws `config` for options that do not fit. */
function planOf(name: string, options: AlignSinkOptions): Plan {
  checkOptions(name, options, {
    examples: required(integerIn(0)),
    segments: list,
    groups: list,
    direction: required(orNull(object)),
    total: object,
  });
  const { examples, direction, groups = null, total = null } = options;
  if (direction !== null) checkDirection(`${name}: direction`, direction);
  if (total !== null) checkOptions(`${name}: total`, total, { ...sumTargetChecks, from: integerIn(0) });
  const segments = options.segments ?? Array.from({ length: examples + 1 }, (_, i) => i);
  checkOffsets("alignSink", "segments", segments, examples);
  const segmentCount = segments.length - 1;
  if (groups !== null) checkOffsets("alignSink", "groups", groups, segmentCount);
  const groupCount = groups === null ? 0 : groups.length - 1;
  const targets = direction !== null && "first" in direction ? direction.first : 0;
  const given = direction !== null && "given" in direction ? direction.given : null;
  if (!Number.isInteger(targets) || targets < 0 || targets > segmentCount)
    throw new GradmixError("config", `alignSink: direction.first is ${targets}, of ${segmentCount} segments`);
  const from = total?.from ?? 0;
  if (!Number.isInteger(from) || from < 0 || from > segmentCount)
    throw new GradmixError("config", `alignSink: total.from is ${from}, of ${segmentCount} segments`);
  return { examples, segments, segmentCount, groups, groupCount, targets, given, total, from };
}

function checkDirection(where: string, direction: Direction): void {
  if ("given" in direction) checkOptions(where, direction, { given: required(callback) });
  else
    checkOptions<Extract<Direction, { first: number }>>(where, direction, { first: required(integerIn(0)) });
}

function alignSinkOf(name: string, options: AlignSinkOptions): AlignSink {
  const plan = planOf(name, options);
  const state: State = {
    plan,
    sums: plan.total === null ? null : new Sums(plan.total),
    offsets: new Offsets(),
    statistics: new Statistics(plan.segmentCount, plan.groupCount),
    vectors: new Vectors(plan.segments, (parameter) => [
      ...(plan.total === null ? [] : [plan.total.gradientOf(parameter)]),
      ...(plan.given === null ? [] : [plan.given(parameter)]),
    ]),
    watched: new Set(),
    used: new Set(),
    tied: null,
  };
  return {
    name: "align",
    begin(parameters, batch) {
      checkExamples("alignSink", batch, plan.examples);
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
    },
    linear: (parameter, x, dy) => scope(() => alignMatrix(state, parameter, x, dy)),
    bias(parameter, dy) {
      const { params, segments, out } = vectorSums(state, parameter, dy);
      run("segmentSum", params, { x: dy, segments }, { out });
    },
    gain(parameter, kind, x, stats, dy) {
      const { params, segments, out } = vectorSums(state, parameter, dy);
      run("normGainGrad", { kind, ...params }, { x, stats, dy, segments }, { dgain: out });
    },
    embedding: (parameter, ids, dy) => scope(() => alignTable(state, parameter, ids, dy)),
    dense(parameter, op) {
      throw noRule("alignSink", parameter, op);
    },
    result: () => resultOf(state),
    dispose() {
      state.statistics.dispose();
      state.vectors.dispose();
      state.offsets.dispose();
    },
  };
}

/** ‖V‖² counts what the direction holds for parameters that the loss does not depend on. */
function squareUnused({ plan: { given }, statistics, watched, used }: State): void {
  if (given === null) return;
  for (const parameter of watched)
    if (!used.has(parameter))
      scope(() => {
        const row = statistics.next(parameter, watched.size);
        run("sumSquares", {}, { x: given(parameter) }, { out: row.direction });
      });
}

/** Notes a use of the parameter. */
function recordUse(state: State, parameter: Tensor): void {
  if (state.used.has(parameter)) state.tied ??= parameter;
  state.used.add(parameter);
}

/** Notes a use of the parameter; gives the tensors that its numbers go to. */
function begin(state: State, parameter: Tensor): Row {
  recordUse(state, parameter);
  return state.statistics.next(parameter, state.watched.size);
}

const perExample = ({ plan }: State, parameter: Tensor, factor: Tensor): number =>
  rowsPerExample("alignSink", parameter, factor, plan.examples);

const groupOffsets = ({ plan, offsets }: State, like: Tensor): Tensor | null =>
  plan.groups === null ? null : offsets.get(plan.groups, 1, like);

/** The numbers of a weight: the gradient of a segment is Σ dy_r x_rᵀ over its rows. */
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

/** Notes a use of a vector; its numbers are found at the end of the pass, with those of the others. */
function vectorSums(state: State, parameter: Tensor, dy: Tensor): SumCall {
  recordUse(state, parameter);
  return state.vectors.next(parameter, rowsOf(dy), perExample(state, parameter, dy));
}

/** The numbers of vectors from their sums. In the current scope. */
function alignVectors(state: State, { first, width, sums, accumulate }: Block): void {
  const { segmentCount, groups, groupCount, targets, given, total, from } = state.plan;
  const { parts } = state.vectors;
  const row = state.statistics.next(first, state.watched.size);
  const scratch = (...shape: number[]): Tensor => empty(shape, "f32", sums.memory);
  const sumOf = (x: Tensor, bounds: readonly number[], into: Operand, adds = false): void =>
    run(
      "segmentSum",
      {
        ...{ rows: x.size / width, width, outStride: width },
        ...{ segmentCount: bounds.length - 1, accumulate: adds },
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
  // Without a direction any vector does; its products are not looked at.
  const along = v ?? (segmentCount === 0 ? scratch(width) : rows.view([width]));
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

/** The numbers of an embedding, whose gradients are never made. */
function alignTable(state: State, parameter: Tensor, ids: Tensor, dy: Tensor): void {
  const { segments, segmentCount, groupCount, targets, given, from } = state.plan;
  const row = begin(state, parameter);
  const [tableRows, width] = extentsOf(parameter.shape, 2);
  const rowsEach = perExample(state, parameter, dy);
  /** Adds the rows of segments first … end − 1 into a table. */
  const scatter = (first: number, end: number, into: Tensor, accumulate: boolean): void => {
    const start = segments[first]! * rowsEach;
    const rows = segments[end]! * rowsEach - start;
    const operands = { x: dy.view([rows, width], start * width), ids: ids.view([rows], start) };
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

async function resultOf({ plan, statistics, tied }: State): Promise<AlignResult> {
  const { segmentCount, groupCount, targets, given } = plan;
  const numbers = await statistics.read();
  // The target's own rows meet only a part of the direction; without a direction nothing is met.
  numbers.dots.fill(0, 0, given === null && targets === 0 ? segmentCount : targets);
  const directions = new Map<Tensor, number>();
  for (const { parameter, direction } of numbers.directions) directions.set(parameter, direction);
  let directionSquaredNorm = 0;
  for (const squared of directions.values()) directionSquaredNorm += squared;
  const linear = <T>(value: T, name: string, isLinear: boolean): T => {
    if (tied !== null && !isLinear)
      throw new GradmixError(
        "autograd",
        `alignSink: parameter ${tied.name ?? "(unnamed)"} is used twice in one pass, so ${name} (quadratic in its gradient) cannot be added up use by use; untie it or use segmentSink`,
      );
    return value;
  };
  return {
    tied: tied === null ? null : (tied.name ?? "(unnamed)"),
    get dots() {
      return linear(numbers.dots, "dots", targets === 0);
    },
    get squaredNorms() {
      return linear(numbers.squares, "squaredNorms", false);
    },
    get groupSquaredNorms() {
      return linear(numbers.groups, "groupSquaredNorms", groupCount === 0);
    },
    get directionSquaredNorm() {
      return linear(directionSquaredNorm, "directionSquaredNorm", targets === 0);
    },
  };
}

/** `alignSink` without a direction: norms alone. */
export function normSink(options: Omit<AlignSinkOptions, "direction">): AlignSink {
  if (Object.hasOwn(options, "direction"))
    throw new GradmixError("config", 'normSink: there is no option "direction"; use alignSink');
  return alignSinkOf("normSink", { ...options, direction: null });
}
