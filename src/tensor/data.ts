/** Numbers from users: nested lists with their shape, and whether they fit the type of a tensor. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import type { DType } from "./dtype.ts";
import { formatShape, type Shape } from "./shape.ts";

/** Numbers, or lists of them to any depth; typed arrays may be the innermost lists. */
export type NestedNumbers = number | ArrayLike<number> | readonly NestedNumbers[];

/** Lists and typed arrays. */
function isList(value: unknown): value is ArrayLike<unknown> {
  if (typeof value !== "object" || value === null) return false;
  const length: unknown = Reflect.get(value, "length");
  return typeof length === "number" && Number.isSafeInteger(length) && length >= 0;
}

/** Typed arrays: their elements are numbers. */
function isTyped(value: unknown): boolean {
  return (
    ArrayBuffer.isView(value) &&
    !(value instanceof DataView) &&
    !(value instanceof BigInt64Array) &&
    !(value instanceof BigUint64Array)
  );
}

/** Limit of nesting, because a list that contains itself has no end. */
const MOST_DEPTH = 32;

/** "tensor: element [1, 2]" */
const place = (where: string, index: readonly number[]): string =>
  `${where}: ${index.length === 0 ? "the data" : `element ${formatShape(index)}`}`;

/** The numbers in row-major order, and their shape. Throws `shape`, with the index, for ragged lists and for values that are not numbers. */
export function flatten(where: string, data: unknown): { values: ArrayLike<number>; shape: Shape } {
  const shape: number[] = [];
  for (let at = data; isList(at); at = at[0]) {
    shape.push(at.length);
    if (at.length === 0) break;
    if (shape.length > MOST_DEPTH)
      throw new GradmixError("shape", `${where}: lists in lists go deeper than ${MOST_DEPTH}`);
  }
  // Not copied; its elements are checked with all others.
  if (shape.length === 1) return { values: data as ArrayLike<number>, shape };
  const values: number[] = [];
  const visit = (value: unknown, index: readonly number[]): void => {
    if (index.length === shape.length) {
      if (isList(value))
        throw new GradmixError("shape", `${place(where, index)} is a list, its neighbours are numbers`);
      values.push(value as number);
      return;
    }
    const extent = shape[index.length];
    if (!isList(value))
      throw new GradmixError("shape", `${place(where, index)} is ${show(value)}, its neighbours are lists`);
    if (value.length !== extent)
      throw new GradmixError(
        "shape",
        `${place(where, index)} has ${value.length} elements, its neighbours have ${extent}; all lists of one depth must be of one length`,
      );
    for (let i = 0; i < extent; i++) visit(value[i], [...index, i]);
  };
  visit(data, []);
  return { values, shape };
}

/**
 * The element type that typed arrays determine, null for plain numbers and other arrays, after `flatten`. Throws `shape` for arrays of both types,
 * and for another type than `wanted`.
 */
export function typedAs(where: string, data: unknown, requested: DType | undefined): DType | null {
  let found: DType | null = null;
  const visit = (value: unknown): void => {
    const own = value instanceof Int32Array ? "i32" : value instanceof Float32Array ? "f32" : null;
    if (own === null) {
      if (Array.isArray(value)) for (const item of value) if (isList(item)) visit(item);
      return;
    }
    const other = found ?? requested ?? own;
    if (own !== other)
      throw new GradmixError(
        "shape",
        `${where}: ${own === "i32" ? "an Int32Array is i32" : "a Float32Array is f32"}, and ${found === null ? `the requested type is ${other}` : "there are arrays of both types"}; convert it with ${other === "i32" ? "Int32Array" : "Float32Array"}.from`,
      );
    found = own;
  };
  visit(data);
  return found;
}

/**
 * Throws `shape`, with the index, for an element that is not a number, or that an i32 cannot hold. Numbers are rounded to the nearest f32. `shape` is
 * the tensor's, for the message.
 */
export function checkElements(where: string, data: ArrayLike<number>, dtype: DType, shape: Shape): void {
  const given: unknown = data;
  if (!isList(given))
    throw new GradmixError("shape", `${where}: the data is ${show(given)}, not a list of numbers`);
  // Typed arrays that need no check.
  if (given instanceof Int32Array || (dtype === "f32" && isTyped(given))) return;
  for (let at = 0; at < data.length; at++) {
    const value: unknown = given[at];
    if (typeof value === "number" && (dtype === "f32" || value === (value | 0))) continue;
    const index = new Array<number>(shape.length);
    for (let axis = shape.length - 1, rest = at; axis >= 0; axis--) {
      index[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    throw new GradmixError(
      "shape",
      `${place(where, index)} is ${show(value)}, not ${dtype === "f32" ? "a number" : "an integer of 32 bits, as i32 needs"}`,
    );
  }
}
