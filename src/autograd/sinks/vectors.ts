/**
 * The gradients of vectors (biases, gains) by segment, gathered while a pass runs and finished at its end.
 *
 * A model has many vectors, and each is small. So their sums by segment go to one tensor, and what a sink makes of them it makes of all at once: vectors whose
 * gradients follow each other in memory, as in an arena, are one long vector to it.
 */
import { type Operand, run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { extentsOf } from "../../tensor/shape.ts";
import { empty, keep, type Tensor } from "../../tensor/tensor.ts";
import { Offsets } from "./rows.ts";

/** Rows that are worth a sum of their own, and how many sums there are for that. */
const PART_ROWS = 256;
const MOST_PARTS = 32;

/** Into how many parts of rows each of so many segments is cut, for devices that add up many at one time. */
export function partsOf(rows: number, segments: number): number {
  if (segments === 0) return 1;
  return Math.max(1, Math.min(Math.floor(MOST_PARTS / segments), Math.floor(rows / segments / PART_ROWS)));
}

/** Offsets of rows that cut each segment into so many parts of about equal length. */
function cut(segments: readonly number[], rowsEach: number, parts: number): number[] {
  const offsets = [segments[0]! * rowsEach];
  for (let s = 0; s + 1 < segments.length; s++) {
    const [start, end] = [segments[s]! * rowsEach, segments[s + 1]! * rowsEach];
    for (let part = 1; part <= parts; part++)
      offsets.push(start + Math.floor(((end - start) * part) / parts));
  }
  return offsets;
}

interface Member {
  readonly parameter: Tensor;
  /** Its first column in the run. */
  readonly column: number;
  written: boolean;
}

/** Vectors that follow each other. */
interface Run {
  readonly members: Member[];
  width: number;
  /** [segments · parts, width], once one of them is used. */
  sums: Tensor | null;
}

/** Vectors that are finished together. */
export interface Block {
  /** The first of them: what follows it in memory belongs to the others. */
  readonly first: Tensor;
  /** Elements of all of them. */
  readonly width: number;
  /** Their sums [segments · parts, width]. */
  readonly sums: Tensor;
  readonly accumulate: boolean;
}

/** What a kernel is called with that writes the sums of a vector by segment. */
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

/** Several tensors that follow each other in memory, as one vector. */
export function spanning(first: Tensor, width: number): Operand {
  const { memory, buffer, offset, dtype } = first;
  return { memory, buffer, offset, dtype, shape: [width], written: () => first.written() };
}

const follows = (before: Tensor, after: Tensor): boolean =>
  before.memory === after.memory &&
  before.buffer === after.buffer &&
  before.offset + before.size === after.offset;

export class Vectors {
  readonly #segments: readonly number[];
  readonly #placesOf: (parameter: Tensor) => readonly Tensor[];
  readonly #offsets = new Offsets();
  /** By rows of an example. */
  readonly #cuts = new Map<number, readonly number[]>();
  readonly #known = new Map<Tensor, { readonly own: Run; readonly member: Member }>();
  #parameters: Iterable<Tensor> = [];
  #runs: Run[] = [];
  #parts = 1;

  /**
   * `segments`: where segments begin, in examples, and where the last one ends. `placesOf` gives the tensors that a vector is finished with, in its shape: its
   * gradient, a direction.
   */
  constructor(segments: readonly number[], placesOf: (parameter: Tensor) => readonly Tensor[]) {
    this.#segments = segments;
    this.#placesOf = placesOf;
  }

  /** A pass begins; these are its parameters. */
  begin(parameters: Iterable<Tensor>): void {
    this.dispose();
    this.#parameters = parameters;
  }

  /** Parts of each segment in this pass. */
  get parts(): number {
    return this.#parts;
  }

  /** Where the sums go of a vector that is used on so many rows, so many of each example. */
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
    const cuts = this.#cuts.get(rowsEach) ?? cut(this.#segments, rowsEach, this.#parts);
    this.#cuts.set(rowsEach, cuts);
    const { memory, buffer, dtype } = sums;
    return {
      segments: this.#offsets.get(cuts, 1, parameter),
      params: { rows, width: parameter.size, segmentCount: count, outStride: own.width, accumulate },
      out: {
        ...{ memory, buffer, dtype, offset: sums.offset + member.column },
        shape: [count === 0 ? 0 : (count - 1) * own.width + parameter.size],
        written: () => sums.written(),
      },
    };
  }

  /** Calls `each` for what the pass has used, in the current scope. `accumulates` says of a vector whether its gradient is added to what is there. */
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
        each({ first: from.parameter, width: own, sums: block, accumulate });
      }
    }
  }

  dispose(): void {
    for (const { sums } of this.#runs) sums?.dispose();
    this.#runs = [];
    this.#known.clear();
    this.#cuts.clear();
    this.#offsets.dispose();
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

/** A copy of some columns, in the current scope. */
function columnsOf(sums: Tensor, column: number, width: number): Tensor {
  const [rows, stride] = extentsOf(sums.shape, 2);
  const out = empty([rows, width], "f32", sums.memory);
  const along = { shape: [rows, width], inOffset: column, outOffset: 0 };
  run("stridedCopy", { ...along, inStrides: [stride, 1], outStrides: [width, 1] }, { x: sums }, { y: out });
  return out;
}
