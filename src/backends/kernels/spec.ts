/**
 * How the table describes a kernel. A `Signature` is for callers and implementations: the types of its parameters and the names of its operands. A
 * `KernelSpec` is for the checks at run time: what each parameter must be, and for each operand the type, the size, and the inputs that it may
 * overwrite. A specification that does not match its signature does not compile.
 */
import { show } from "../../options.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import { formatShape, sizeOf } from "../../tensor/shape.ts";

/** Parameters and operands of a kernel. Names of operands are separated by spaces; those with a "?" are optional. */
export interface Signature<P extends object, I extends string, O extends string> {
  readonly params: P;
  readonly inputs: I;
  readonly outputs: O;
}
export type AnySignature = Signature<object, string, string>;

type Marked<S extends string> = S extends `${infer First} ${infer Rest}`
  ? First | Marked<Rest>
  : S extends ""
    ? never
    : S;
type Optional<S extends string> =
  Marked<S> extends infer N ? (N extends `${infer Name}?` ? Name : never) : never;
type Required<S extends string> = Exclude<Marked<S>, `${string}?`>;

/** Operands by name, each of type `V`. */
export type Named<S extends string, V> = { readonly [N in Required<S>]: V } & {
  readonly [N in Optional<S>]?: V | null;
};

/** Operands of any kernel. */
export type NamedViews<V = View> = Readonly<Record<string, V | null | undefined>>;

/** The condition on a parameter: `what` describes values that fit, in messages. */
export interface ParamCheck {
  readonly what: string;
  fits(value: unknown): boolean;
}

/** The requirements on an operand. */
export interface OperandSpec<P> {
  /** Element type; null for any. */
  readonly dtype: DType | null;
  readonly optional: boolean;
  /** Required number of elements: a number, the name of an input with as many, or null for any number. */
  readonly size: ((params: P) => number) | string | null;
  /** The inputs that this output may overwrite, with exactly the same elements. It must not overlap any other operand. */
  readonly inPlaceOf: readonly string[];
}

type OperandSpecs<P, S extends string> = {
  readonly [N in Required<S>]: OperandSpec<P> & { readonly optional: false };
} & { readonly [N in Optional<S>]: OperandSpec<P> & { readonly optional: true } };

/** How closely a backend must agree with the reference on operands of order one: |result − reference| ≤ atol + rtol·|reference|. */
export interface Tolerance {
  readonly rtol: number;
  readonly atol: number;
}
export const loose: Tolerance = { rtol: 2e-5, atol: 2e-5 };
export const tight: Tolerance = { rtol: 2e-6, atol: 1e-6 };
export const exact: Tolerance = { rtol: 0, atol: 0 };

/** The specification of a kernel, for the checks at run time. */
export interface KernelSpec<S extends AnySignature> {
  readonly params: { readonly [N in keyof S["params"]]-?: ParamCheck };
  readonly inputs: OperandSpecs<S["params"], S["inputs"]>;
  readonly outputs: OperandSpecs<S["params"], S["outputs"]>;
  readonly tolerance: Tolerance;
  /**
   * A condition on several parameters, or on the elements that strides reach. Returns the problem, or null if there is none, in O(rank) time. Default: no
   * such condition.
   */
  readonly together?: (
    params: S["params"],
    inputs: Named<S["inputs"], View>,
    outputs: Named<S["outputs"], View>,
  ) => string | null;
}

/** The specifications of kernels whose signatures are the members of `T`. */
export type Specs<T> = { readonly [K in keyof T]: T[K] extends AnySignature ? KernelSpec<T[K]> : never };

type Size<P> = ((params: P) => number) | string | null;
type RequiredOperand<P> = OperandSpec<P> & { readonly optional: false };
type OptionalOperand<P> = OperandSpec<P> & { readonly optional: true };

const operand = <P>(dtype: DType | null, size: Size<P>): RequiredOperand<P> => ({
  ...{ dtype, size, optional: false, inPlaceOf: [] },
});
/** A required f32 operand. `size` is its number of elements, the name of an input with as many, or null for any number. */
export const f32 = <P>(size: Size<P> = null): RequiredOperand<P> => operand("f32", size);
/** A required i32 operand; `size` is as in `f32`. */
export const i32 = <P>(size: Size<P> = null): RequiredOperand<P> => operand("i32", size);
/** A required operand of type f32 or i32; `size` is as in `f32`. */
export const either = <P>(size: Size<P> = null): RequiredOperand<P> => operand(null, size);
/** Makes an operand optional. */
export const optional = <P>(spec: OperandSpec<P>): OptionalOperand<P> => ({ ...spec, optional: true });
/** An output that may overwrite one of these inputs. */
export const inPlaceOf = <P>(inputs: readonly string[], spec: RequiredOperand<P>): RequiredOperand<P> => ({
  ...spec,
  inPlaceOf: inputs,
});

/** Largest number of axes of a strided kernel. */
export const MAX_RANK = 6;

export const flag: ParamCheck = { what: "true or false", fits: (value) => typeof value === "boolean" };
export const number: ParamCheck = { what: "a number", fits: (value) => typeof value === "number" };
export const finite: ParamCheck = { what: "a finite number", fits: (value) => Number.isFinite(value) };
const atLeast = (least: number, what: string): ParamCheck => ({
  what,
  fits: (value) => typeof value === "number" && Number.isSafeInteger(value) && value >= least,
});
export const extent: ParamCheck = atLeast(0, "an integer of at least 0");
export const positive: ParamCheck = atLeast(1, "an integer of at least 1");
export const word: ParamCheck = {
  what: "an integer of 32 bits",
  fits: (value) => typeof value === "number" && (value === value >>> 0 || value === (value | 0)),
};
export const oneOf = (names: readonly string[]): ParamCheck => ({
  what: `one of ${names.map(show).join(", ")}`,
  fits: (value) => typeof value === "string" && names.includes(value),
});
export const extents: ParamCheck = {
  what: `up to ${MAX_RANK} integers of at least 0`,
  fits(value) {
    if (!Array.isArray(value) || value.length > MAX_RANK) return false;
    const list: readonly unknown[] = value;
    for (let axis = 0; axis < list.length; axis++) if (!extent.fits(list[axis])) return false;
    return true;
  },
};

/** The index of the last element, relative to the first, that these strides reach; −1 for an empty shape. */
function reach(shape: readonly number[], strides: readonly number[]): number {
  let last = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    if (shape[axis] === 0) return -1;
    last += (shape[axis]! - 1) * strides[axis]!;
  }
  return last;
}

/** Checks that the operand contains every element that the strides reach, counted from `offset`. Returns the problem, or null if there is none. */
export function within(
  name: string,
  operand: View,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): string | null {
  if (strides.length !== shape.length)
    return `the strides ${formatShape(strides)} of "${name}" do not fit the shape ${formatShape(shape)}`;
  const last = reach(shape, strides);
  const size = sizeOf(operand.shape);
  if (last < 0 || offset + last < size) return null;
  return `"${name}" is addressed at element ${offset + last} of ${size}`;
}

/** Checks that `groups` is given if sums over groups are requested. Returns the problem, or null if there is none. */
export const groupsGiven = (groups: View | null | undefined, sums: View | null | undefined): string | null =>
  sums === null || sums === undefined || (groups !== null && groups !== undefined)
    ? null
    : `"groupSumsq" needs the operand "groups"`;
