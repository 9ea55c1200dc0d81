/** Prints tensors: name, type, shape, and the elements, or why they are not available. */
import type { DType } from "./dtype.ts";
import { formatShape, type Shape, sizeOf, stridesOf } from "./shape.ts";

/** Largest number of elements of a tensor that is printed in full. */
const LARGEST_FULL = 64;
/** Number of elements at each end of an axis of a larger tensor. */
const EDGE = 3;
/** Digits of an f32, which holds slightly more than seven. */
const DIGITS = 7;

/** For example "Tensor weight f32[2, 3]". */
export function heading(t: {
  readonly name: string | undefined;
  readonly dtype: DType;
  readonly shape: Shape;
}): string {
  return `Tensor ${t.name === undefined ? "" : `${t.name} `}${t.dtype}${formatShape(t.shape)}`;
}

/** Elements in nested brackets, one line per row; long axes are shortened with "…". `at` returns the elements by position. */
export function elements(at: (position: number) => number, shape: Shape, dtype: DType): string {
  const strides = stridesOf(shape);
  const number = (value: number): string =>
    dtype === "i32" ? String(value) : String(Number(value.toPrecision(DIGITS)));
  const isFull = sizeOf(shape) <= LARGEST_FULL;
  const part = (axis: number, offset: number): string => {
    if (axis === shape.length) return number(at(offset));
    const extent = shape[axis]!;
    const cut = !isFull && extent > 2 * EDGE;
    const item = (i: number): string => part(axis + 1, offset + i * strides[axis]!);
    const range = (from: number, to: number): string[] =>
      Array.from({ length: to - from }, (_, i) => item(from + i));
    const items = cut ? [...range(0, EDGE), "…", ...range(extent - EDGE, extent)] : range(0, extent);
    // Rows begin below one another; a blank line separates the blocks of higher axes.
    const deeper = shape.length - 1 - axis;
    return `[${items.join(deeper === 0 ? ", " : `,${"\n".repeat(deeper)}${" ".repeat(axis + 1)}`)}]`;
  };
  return part(0, 0);
}
