/** Points as rows of one array, and their checks. */
import { GradmixError } from "../../errors.ts";
import { object, show } from "../../options.ts";

/** Points as rows of one array. */
export interface Points {
  /** The points, row by row [n · dim]. */
  readonly values: Float32Array;
  /** Numbers per point. */
  readonly dim: number;
}

/** Number of points. Throws `shape` and `data`. */
export function countOf(points: Points): number {
  object("points", points);
  const { values, dim } = points;
  if (!(values instanceof Float32Array))
    throw new GradmixError("data", `points: values: ${show(values)} does not fit; it must be a Float32Array`);
  if (!(Number.isInteger(dim) && dim > 0) || values.length % dim !== 0)
    throw new GradmixError("shape", `points: ${values.length} numbers are not rows of ${dim}`);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new GradmixError(
      "data",
      `points: number ${bad % dim} of point ${Math.floor(bad / dim)} is ${values[bad]}; all must be finite`,
    );
  return values.length / dim;
}

/** The squared lengths that f32 can compare: four times the larger one is finite, and a 2⁻²⁴ of the smaller one is normal. */
const LONGEST = 2 ** 124;
const SHORTEST = 2 ** -100;

/**
 * Throws like `countOf`, and `data` for points with a squared length that is too large for f32, and if all are too short for it. Distances would then be
 * infinite or 0, and every point would be as near to one centroid as to another.
 */
export function checkLengths(...all: readonly Points[]): void {
  let longest = 0;
  for (const points of all) {
    countOf(points);
    for (const square of squaredNorms(points)) longest = Math.max(longest, square);
  }
  if (longest <= LONGEST && (longest >= SHORTEST || longest === 0)) {
    // Squares that underflow look like points that are all 0.
    if (longest > 0 || all.every(({ values }) => values.every((value) => value === 0))) return;
  }
  throw new GradmixError(
    "data",
    `points: the longest has a squared length of ${longest}, which is too ${longest > LONGEST ? "large" : "small"} for distances in f32; multiply all points by one number, so that it comes near 1`,
  );
}

/** The squared length of each point [n]. */
export function squaredNorms({ values, dim }: Points): Float32Array {
  const out = new Float32Array(values.length / dim);
  for (let i = 0, at = 0; i < out.length; i++) {
    let sum = 0;
    for (const end = at + dim; at < end; at++) sum += values[at]! * values[at]!;
    out[i] = sum;
  }
  return out;
}

/** The points with these indices, in their order. */
export function rowsOf({ values, dim }: Points, indices: ArrayLike<number>): Float32Array {
  const out = new Float32Array(indices.length * dim);
  for (let i = 0; i < indices.length; i++)
    out.set(values.subarray(indices[i]! * dim, (indices[i]! + 1) * dim), i * dim);
  return out;
}

/** The sum, in order and without correction of what rounding loses; `sumOf` of dga/simplex.ts corrects it. */
export function sumOf(numbers: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < numbers.length; i++) sum += numbers[i]!;
  return sum;
}
