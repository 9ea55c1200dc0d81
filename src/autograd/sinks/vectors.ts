/**
 * Collects the gradients of vectors (biases, gains) by segment during a pass, and processes them at its end.
 *
 * A model has many vectors, and each is small. Vectors whose gradients are adjacent in memory, as in an arena, are therefore treated as one long vector: their sums
 * by segment are columns of one tensor, which a sink processes with one call.
 */
import { type Operand, run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, keep, type Tensor } from "../../tensor/tensor.ts";
import type { Offsets } from "./rows.ts";

/** Smallest number of rows of a part, and largest number of parts of all segments together. */
const PART_ROWS = 256;
const MOST_PARTS = 32;

/** The number of parts that each segment is cut into. Several parts per segment keep devices busy that compute many sums at the same time. */
export function partsOf(rows: number, segments: number): number {
  if (segments === 0) return 1;
  return Math.max(1, Math.min(Math.floor(MOST_PARTS / segments), Math.floor(rows / segments / PART_ROWS)));
}

/** Offsets in rows that cut each segment into `parts` parts of about equal length. */
function cut(segments: readonly number[], rowsEach: number, parts: number): number[] {
  const offsets = [segments[0]! * rowsEach];
  for (let s = 0; s + 1 < segments.length; s++) {
    const [start, end] = [segments[s]! * rowsEach, segments[s + 1]! * rowsEach];
    for (let part = 1; part <= parts; part++)
      offsets.push(start + Math.floor(((end - start) * part) / parts));
  }
  return offsets;
}

/** A vector of a run. */
interface Member {
  readonly parameter: Tensor;
  /** The first column of the vector in the run. */
  readonly column: number;
  /** Whether the pass has written sums of the vector. */
  written: boolean;
}

/** Vectors whose tensors (see `placesOf`) are adjacent in memory. */
interface Run {
  readonly members: Member[];
  width: number;
  /** Sums of all members [segments · parts, width]; null before the pass uses one of them. */
  sums: Tensor | null;
}

/** Adjacent vectors of a run that are processed together. */
export interface Block {
  /** The first vector; in memory its tensors are followed by those of the others. */
  readonly first: Tensor;
  /** Number of elements of all vectors of the block. */
  readonly width: number;
  /** Sums of the vectors by segment [segments · parts, width]. */
  readonly sums: Tensor;
  /** Number of parts that each segment is cut into. */
  readonly parts: number;
  /** Whether the gradients of the vectors are added to existing values. */
  readonly accumulate: boolean;
}

/** The parameters and operands of a kernel call that writes the sums of a vector by segment. */
export interface SumCall {
  readonly segments: Tensor;
  readonly params: {
    readonly rows: number;
    readonly width: number;
    readonly segmentCount: number;
    readonly outStride: number;
    readonly accumulate: boolean;
  };
  readonly out: Operand;
}

/** `width` elements from the first element of `first` on, as one vector; they span several tensors that are adjacent in memory. */
export function spanning(first: Tensor, width: number): Operand {
  const { memory, buffer, offset, dtype } = first;
  return { memory, buffer, offset, dtype, shape: [width], written: () => first.written() };
}

const follows = (before: Tensor, after: Tensor): boolean =>
  before.memory === after.memory &&
  before.buffer === after.buffer &&
  before.offset + before.size === after.offset;

/** Collects the sums of the vectors of a pass. */
export class Vectors {
  readonly #segments: readonly number[];
  readonly #placesOf: (parameter: Tensor) => readonly Tensor[];
  readonly #offsets: Offsets;
  /** Offsets of the parts, by the number of rows per example. */
  readonly #cuts = new Map<number, readonly number[]>();
  readonly #known = new Map<Tensor, { readonly own: Run; readonly member: Member }>();
  #parameters: Iterable<Tensor> = [];
  #runs: Run[] = [];
  #parts = 1;

  /**
   * `segments` are the offsets of the segments in examples: where each begins, and where the last one ends. `placesOf` returns the tensors that a vector is processed
   * with, in its shape: its gradient and its part of a direction. Vectors form a run if these tensors are adjacent in memory. `offsets` uploads the offsets of
   * the parts; it belongs to the caller.
   */
  constructor(
    segments: readonly number[],
    offsets: Offsets,
    placesOf: (parameter: Tensor) => readonly Tensor[],
  ) {
    this.#segments = segments;
    this.#offsets = offsets;
    this.#placesOf = placesOf;
  }

  /** Starts a pass with these parameters, and frees the sums of the last pass. */
  begin(parameters: Iterable<Tensor>): void {
    this.dispose();
    this.#parameters = parameters;
  }

  /**
   * The call that writes the sums of a vector. `rows` is the number of rows of the batch that use it, `rowsEach` the number per example. Throws `autograd`
   * for a tensor that is not a vector among the pass's parameters.
   */
  next(parameter: Tensor, rows: number, rowsEach: number): SumCall {
    const segmentCount = this.#segments.length - 1;
    if (this.#known.size === 0) this.#plan(partsOf(rows, segmentCount));
    const found = this.#known.get(parameter);
    if (found === undefined)
      throw new GradmixError(
        "autograd",
        `${parameter.name ?? "a tensor"} is not one of the parameters that the pass began with`,
      );
    const { own, member } = found;
    const count = segmentCount * this.#parts;
    const sums = (own.sums ??= keep(empty([count, own.width], "f32", parameter.memory)));
    const accumulate = member.written;
    member.written = true;
    const whole = this.#parts === 1;
    const cuts = whole
      ? this.#segments
      : (this.#cuts.get(rowsEach) ?? cut(this.#segments, rowsEach, this.#parts));
    if (!whole) this.#cuts.set(rowsEach, cuts);
    const { memory, buffer, dtype } = sums;
    return {
      segments: this.#offsets.get(cuts, whole ? rowsEach : 1, parameter),
      params: { rows, width: parameter.size, segmentCount: count, outStride: own.width, accumulate },
      out: {
        memory,
        buffer,
        dtype,
        offset: sums.offset + member.column,
        shape: [count === 0 ? 0 : (count - 1) * own.width + parameter.size],
        written: () => sums.written(),
      },
    };
  }

  /**
   * Calls `each` for every block of vectors that the pass has used, with tensors in the current scope. `accumulates` returns whether the gradient of a vector
   * is added to existing values.
   */
  finish(accumulates: (parameter: Tensor) => boolean, each: (block: Block) => void): void {
    for (const { members, width, sums } of this.#runs) {
      if (sums === null) continue;
      const flags = members.map(({ parameter, written }) => (written ? accumulates(parameter) : null));
      for (let first = 0, end = 0; first < members.length; first = end) {
        while (end < members.length && flags[end] === flags[first]) end++;
        const [from, accumulate] = [members[first]!, flags[first]];
        if (accumulate === null || accumulate === undefined) continue;
        const own = (members[end]?.column ?? width) - from.column;
        const block = own === width ? sums : columnsOf(sums, from.column, own);
        each({ first: from.parameter, width: own, sums: block, parts: this.#parts, accumulate });
      }
    }
  }

  /** Frees the sums. */
  dispose(): void {
    for (const { sums } of this.#runs) sums?.dispose();
    this.#runs = [];
    this.#known.clear();
    this.#cuts.clear();
  }

  #plan(parts: number): void {
    this.#parts = parts;
    const vectors = [...this.#parameters]
      .filter(({ rank }) => rank === 1)
      .map((parameter) => ({ parameter, places: this.#placesOf(parameter) }))
      .sort((a, b) => (a.places[0]?.offset ?? 0) - (b.places[0]?.offset ?? 0));
    let before: readonly Tensor[] | null = null;
    for (const { parameter, places } of vectors) {
      const previous: readonly Tensor[] | null = before;
      const next = previous !== null && places.every((place, i) => follows(previous[i]!, place));
      const own: Run = (next ? this.#runs.at(-1) : undefined) ?? { members: [], width: 0, sums: null };
      if (own.members.length === 0) this.#runs.push(own);
      const member = { parameter, column: own.width, written: false };
      own.members.push(member);
      own.width += parameter.size;
      this.#known.set(parameter, { own, member });
      before = places;
    }
  }
}

/** A copy of `width` columns of `sums`, beginning with `column`, in the current scope. */
function columnsOf(sums: Tensor, column: number, width: number): Tensor {
  const [rows, stride] = extentsOf(sums.shape, 2);
  const out = empty([rows, width], "f32", sums.memory);
  const along = { shape: [rows, width], inOffset: column, outOffset: 0 };
  run("stridedCopy", { ...along, inStrides: [stride, 1], outStrides: [width, 1] }, { x: sums }, { y: out });
  return out;
}
