/** Shape arithmetic: sizes, row-major strides, broadcasting, axes. Pure. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";

/** Extents of the axes; [] is the shape of a scalar. */
export type Shape = readonly number[];

export function sizeOf(shape: Shape): number {
  let size = 1;
  for (let axis = 0; axis < shape.length; axis++) size *= shape[axis]!;
  return size;
}

/** Number of rows: the product of all extents but the last. */
export function rowsIn(shape: Shape): number {
  let rows = 1;
  for (let axis = 0; axis < shape.length - 1; axis++) rows *= shape[axis]!;
  return rows;
}

export function formatShape(shape: Shape): string {
  return `[${shape.map(show).join(", ")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** The NumPy broadcast of two shapes. Throws `shape`, naming both. */
export function broadcastShapes(a: Shape, b: Shape, op: string): number[] {
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const x = i <= a.length ? a[a.length - i]! : 1;
    const y = i <= b.length ? b[b.length - i]! : 1;
    if (x !== y && x !== 1 && y !== 1)
      throw new GradmixError(
        "shape",
        `${op}: shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast`,
      );
    out[rank - i] = x === 1 ? y : x;
  }
  return out;
}

interface Extents {
  1: readonly [number];
  2: readonly [number, number];
  3: readonly [number, number, number];
  4: readonly [number, number, number, number];
}

/** The extents of a shape with `rank` axes. Throws `shape` if it has another number of axes. */
export function extentsOf<N extends keyof Extents>(shape: Shape, rank: N): Extents[N] {
  if (shape.length !== rank)
    throw new GradmixError("shape", `${formatShape(shape)} does not have ${rank} axes`);
  return shape as Extents[N];
}

/** Strides that read a tensor of `shape` as if it had the shape `to`: 0 on broadcast axes. */
export function broadcastStrides(shape: Shape, to: Shape): number[] {
  const strides = new Array<number>(to.length).fill(0);
  for (let axis = shape.length - 1, at = to.length - 1, stride = 1; axis >= 0; axis--, at--) {
    if (shape[axis] !== 1) strides[at] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** The axis as a number in 0..rank−1; negative axes count from the end. Throws `shape` if it does not exist. */
export function normaliseAxis(axis: number, rank: number, op: string): number {
  const normal = typeof axis === "number" && axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(normal) || normal < 0 || normal >= rank)
    throw new GradmixError("shape", `${op}: axis ${show(axis)} is out of range for a tensor of rank ${rank}`);
  return normal;
}

/** A shape as three extents: all axes before `axis`, the axis itself, and all axes after it. */
export function aroundAxis(shape: Shape, axis: number): { outer: number; length: number; inner: number } {
  return { outer: sizeOf(shape.slice(0, axis)), length: shape[axis]!, inner: sizeOf(shape.slice(axis + 1)) };
}

/** Throws `shape` for a value that is not a list of extents, or has more elements than can be counted. */
export function checkShape(shape: Shape, op: string): void {
  if (!Array.isArray(shape))
    throw new GradmixError(
      "shape",
      `${op}: ${show(shape)} is not a shape; a shape is a list of integers ≥ 0`,
    );
  const extents: Shape = shape;
  let size = 1;
  for (let axis = 0; axis < extents.length; axis++) {
    const extent = extents[axis]!;
    if (!Number.isSafeInteger(extent) || extent < 0)
      throw new GradmixError(
        "shape",
        `${op}: ${formatShape(shape)} is not a shape; extents are integers ≥ 0`,
      );
    size *= extent;
  }
  if (!Number.isSafeInteger(size))
    throw new GradmixError("shape", `${op}: ${formatShape(shape)} has more elements than any memory`);
}
