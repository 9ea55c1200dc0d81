/**
 * Alignments and norms of per-example or per-segment gradients, out of one backward pass, without the gradients.
 *
 * For every parameter the kernels give ⟨g_s, V⟩ and ‖g_s‖² of each segment s of examples, V being the gradient of the
 * first segments (the target's) or a direction given from outside, and with it the training gradient, Σ_s g_s. The
 * numbers of all uses of all parameters land in one small tensor, a row a use; they are read at once and added up in
 * double precision.
 */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { callback, checkOptions, integerIn, list, object, orNull, required } from "../../options.ts";
import { empty, keep, scope, type Tensor } from "../../tensor/tensor.ts";
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

/** What V is: the sum of the first segments, or a tensor a parameter. */
export type Direction = { readonly first: number } | { readonly given: (parameter: Tensor) => Tensor };

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
  readonly total?: SumTarget & { readonly from?: number };
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

function alignSinkOf(name: string, options: AlignSinkOptions): AlignSink {
  checkOptions(name, options, {
    examples: required(integerIn(0)),
    segments: list,
    groups: list,
    direction: required(orNull(object)),
    total: object,
  });
  const { examples, direction } = options;
  if (direction !== null) checkDirection(`${name}: direction`, direction);
  if (options.total !== undefined)
    checkOptions(`${name}: total`, options.total, { ...sumTargetChecks, from: integerIn(0) });
  const segments = options.segments ?? Array.from({ length: examples + 1 }, (_, i) => i);
  checkOffsets("alignSink", "segments", segments, examples);
  const segmentCount = segments.length - 1;
  const groups = options.groups ?? null;
  if (groups !== null) checkOffsets("alignSink", "groups", groups, segmentCount);
  const groupCount = groups === null ? 0 : groups.length - 1;
  const targets = direction !== null && "first" in direction ? direction.first : 0;
  const given = direction !== null && "given" in direction ? direction.given : null;
  if (!Number.isInteger(targets) || targets < 0 || targets > segmentCount)
    throw new GradmixError("config", `alignSink: direction.first is ${targets}, of ${segmentCount} segments`);
  const from = options.total?.from ?? 0;
  if (!Number.isInteger(from) || from < 0 || from > segmentCount)
    throw new GradmixError("config", `alignSink: total.from is ${from}, of ${segmentCount} segments`);

  const sums = options.total === undefined ? null : new Sums(options.total);
  const offsets = new Offsets();
  const statistics = new Statistics(segmentCount, groupCount);
  let watched: ReadonlySet<Tensor> = new Set();
  const used = new Set<Tensor>();
  let twice: Tensor | null = null;

  /** Notes a use of the parameter; gives the tensors that its numbers go to. */
  const begin = (parameter: Tensor): Row => {
    if (used.has(parameter)) twice ??= parameter;
    used.add(parameter);
    return statistics.next(parameter, watched.size);
  };
  const perExample = (parameter: Tensor, factor: Tensor): number =>
    rowsPerExample("alignSink", parameter, factor, examples);
  const groupOffsets = (like: Tensor): Tensor | null =>
    groups === null ? null : offsets.get(groups, 1, like);

  /** The numbers of a parameter of which every segment's gradient is at hand, as rows of `rows` [S, width]. */
  const alignVectors = (parameter: Tensor, row: Row, rows: Tensor): void => {
    const width = parameter.size;
    const sumOf = (bounds: readonly number[], source: Tensor, into: Tensor, accumulate: boolean): void =>
      run(
        "segmentSum",
        { rows: source.size / width, width, segmentCount: bounds.length - 1, accumulate },
        { x: source, segments: offsets.get(bounds, 1, source) },
        { out: into },
      );
    const scratch = (...shape: number[]): Tensor => empty(shape, "f32", parameter.memory);
    let v = given?.(parameter) ?? null;
    if (v === null && targets > 0) {
      v = scratch(width);
      sumOf([0, targets], rows, v, false);
    }
    // Without a direction any vector does; its products are not looked at.
    const along = v ?? rows.view([width]);
    run(
      "alignRows",
      { rows: segmentCount, width },
      { g: rows, v: along },
      { dots: row.dots, sumsq: row.squares },
    );
    if (v !== null) run("sumSquares", {}, { x: v }, { out: row.direction });
    if (groups !== null && groupCount > 0 && row.groups !== null) {
      const grouped = scratch(groupCount, width);
      sumOf(groups, rows, grouped, false);
      run(
        "alignRows",
        { rows: groupCount, width },
        { g: grouped, v: along },
        { dots: scratch(groupCount), sumsq: row.groups },
      );
    }
    if (sums !== null) {
      const { gradient, accumulate } = sums.next(parameter);
      sumOf([from, segmentCount], rows, gradient, accumulate);
    }
  };

  return {
    name: "align",
    begin(parameters, batch) {
      checkExamples("alignSink", batch, examples);
      watched = parameters;
      used.clear();
      twice = null;
      statistics.begin();
      sums?.begin();
    },
    end() {
      sums?.end(watched);
      // ‖V‖² counts what the direction holds for parameters that the loss does not depend on.
      if (given !== null)
        for (const parameter of watched)
          if (!used.has(parameter))
            scope(() => {
              const row = statistics.next(parameter, watched.size);
              run("sumSquares", {}, { x: given(parameter) }, { out: row.direction });
            });
    },
    linear(parameter, x, dy) {
      scope(() => {
        const row = begin(parameter);
        const sum = sums?.next(parameter) ?? null;
        const rows = rowsOf(x);
        const [m, n] = parameter.shape;
        run(
          "gemmSegmented",
          {
            rows,
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
            segments: offsets.get(segments, perExample(parameter, x), x),
            groups: groupOffsets(x),
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
      });
    },
    bias(parameter, dy) {
      scope(() => {
        const row = begin(parameter);
        const width = parameter.size;
        const sum = empty([segmentCount, width], "f32", dy.memory);
        run(
          "segmentSum",
          { rows: rowsOf(dy), width, segmentCount, accumulate: false },
          { x: dy, segments: offsets.get(segments, perExample(parameter, dy), dy) },
          { out: sum },
        );
        alignVectors(parameter, row, sum);
      });
    },
    gain(parameter, kind, x, stats, dy) {
      scope(() => {
        const row = begin(parameter);
        const width = parameter.size;
        const sum = empty([segmentCount, width], "f32", dy.memory);
        run(
          "normGainGrad",
          { kind, rows: rowsOf(dy), width, segmentCount, accumulate: false },
          { x, stats, dy, segments: offsets.get(segments, perExample(parameter, dy), dy) },
          { dgain: sum },
        );
        alignVectors(parameter, row, sum);
      });
    },
    embedding(parameter, ids, dy) {
      scope(() => {
        const row = begin(parameter);
        const [tableRows, width] = parameter.shape;
        const rowsEach = perExample(parameter, dy);
        /** Adds the rows of segments first … end − 1 into a table. */
        const scatter = (first: number, end: number, into: Tensor, accumulate: boolean): void => {
          const [start, rows] = [segments[first] * rowsEach, (segments[end] - segments[first]) * rowsEach];
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
          { dy, ids, segments: offsets.get(segments, rowsEach, dy), groups: groupOffsets(dy), v },
          { dots: row.dots, sumsq: row.squares, groupSumsq: row.groups },
        );
        if (v !== null) run("sumSquares", {}, { x: v }, { out: row.direction });
        if (sums !== null) {
          const { gradient, accumulate } = sums.next(parameter);
          scatter(from, segmentCount, gradient, accumulate);
        }
      });
    },
    dense(parameter, op) {
      throw noRule("alignSink", parameter, op);
    },
    async result() {
      const tied = twice;
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
    },
    dispose() {
      statistics.dispose();
      offsets.dispose();
    },
  };
}

/** `alignSink` without a direction: norms alone. */
export function normSink(options: Omit<AlignSinkOptions, "direction">): AlignSink {
  if (Object.hasOwn(options, "direction"))
    throw new GradmixError("config", 'normSink: there is no option "direction"; use alignSink');
  return alignSinkOf("normSink", { ...options, direction: null });
}

function checkDirection(where: string, direction: Direction): void {
  if ("given" in direction) checkOptions(where, direction, { given: required(callback) });
  else
    checkOptions<Extract<Direction, { first: number }>>(where, direction, { first: required(integerIn(0)) });
}

/** Where the numbers of one use of a parameter go. */
interface Row {
  readonly dots: Tensor;
  readonly squares: Tensor;
  readonly groups: Tensor | null;
  readonly direction: Tensor;
}

interface Numbers {
  readonly dots: Float64Array;
  readonly squares: Float64Array;
  readonly groups: Float64Array;
  readonly directions: readonly { readonly parameter: Tensor; readonly direction: number }[];
}

/** Rows of numbers on the device, [dots: S, squares: S, groups: G, direction: 1] each, in blocks that are reused. */
class Statistics {
  readonly #segments: number;
  readonly #groups: number;
  readonly #blocks: Tensor[] = [];
  #parameters: Tensor[] = [];

  constructor(segments: number, groups: number) {
    this.#segments = segments;
    this.#groups = groups;
  }

  get #width(): number {
    return 2 * this.#segments + this.#groups + 1;
  }

  begin(): void {
    this.#parameters = [];
    for (const block of this.#blocks) run("fill", { value: 0 }, {}, { out: block });
  }

  /** Views in the current scope. A pass whose parameters are each used once fits into one block of `expected` rows. */
  next(parameter: Tensor, expected: number): Row {
    let index = this.#parameters.push(parameter) - 1;
    let block: Tensor | null = null;
    for (const candidate of this.#blocks) {
      if (index < candidate.shape[0]) {
        block = candidate;
        break;
      }
      index -= candidate.shape[0];
    }
    if (block === null) {
      block = keep(empty([Math.max(1, expected), this.#width], "f32", parameter.memory));
      run("fill", { value: 0 }, {}, { out: block });
      this.#blocks.push(block);
    }
    const [s, g] = [this.#segments, this.#groups];
    const start = index * this.#width;
    return {
      dots: block.view([s], start),
      squares: block.view([s], start + s),
      groups: g === 0 ? null : block.view([g], start + 2 * s),
      direction: block.view([1], start + 2 * s + g),
    };
  }

  async read(): Promise<Numbers> {
    const [s, g] = [this.#segments, this.#groups];
    const parameters = this.#parameters;
    const blocks = await Promise.all(this.#blocks.map((block) => block.data()));
    const dots = new Float64Array(s);
    const squares = new Float64Array(s);
    const groups = new Float64Array(g);
    const add = (sum: Float64Array, values: ArrayLike<number>): void => {
      for (let i = 0; i < sum.length; i++) sum[i] += values[i];
    };
    const rows = blocks.flatMap((data) =>
      Array.from({ length: data.length / this.#width }, (_, i) =>
        data.subarray(i * this.#width, (i + 1) * this.#width),
      ),
    );
    const directions = parameters.map((parameter, i) => {
      add(dots, rows[i]);
      add(squares, rows[i].subarray(s));
      add(groups, rows[i].subarray(2 * s));
      return { parameter, direction: rows[i][2 * s + g] };
    });
    return { dots, squares, groups, directions };
  }

  dispose(): void {
    for (const block of this.#blocks) block.dispose();
    this.#blocks.length = 0;
    this.#parameters = [];
  }
}
