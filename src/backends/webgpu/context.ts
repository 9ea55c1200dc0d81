/** The type of WebGPU kernels, which are functions that turn a call of the table into dispatches, and the context that they receive. */
import type { DType } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Inputs, KernelName, KernelParams, NamedViews, Outputs } from "../kernels/index.ts";
import type { ScalarType } from "./shader.ts";

export interface Operand {
  readonly name: string;
  readonly view: View;
  readonly written?: boolean;
  /** Whether the body may also read it as vectors of four. If it is written, the body writes it only as vectors of four (shader.ts). */
  readonly fours?: boolean;
  /** If given, the operand consists of rows of `width` elements, whose first elements are `stride` elements apart. */
  readonly columns?: { readonly width: number; readonly stride: number };
}

/** Subgroup matrices of 16 × 16 × 16, f16 to f32. */
export interface TensorCores {
  /** Number of invocations per subgroup. */
  readonly subgroup: number;
  /** Whether the device has subgroups of several sizes, so that a shader must request this one. */
  readonly sized?: boolean;
  /** Whether there are no tensor cores, and the same shaders use matrices made of plain WGSL. Slow, but lets any device test them. */
  readonly emulated?: boolean;
}

/** Text of a shader. If computing it takes time, it is a function, which is called only when the shader is made. */
export type Text = string | (() => string);

export const textOf = (text: Text): string => (typeof text === "string" ? text : text());

export interface Dispatch {
  /**
   * Identifies the shader: calls with the same key have the same operands, scalars and body, except for which operands share a buffer. The key must contain
   * every constant that is compiled into the body.
   */
  readonly key: string;
  readonly operands: readonly Operand[];
  readonly scalars?: Readonly<Record<string, readonly [type: ScalarType, value: number]>>;
  /** Invocations per workgroup. Default 64. */
  readonly workgroup?: number;
  /** Number of workgroups, without a limit. */
  readonly groups: number;
  readonly declarations?: Text;
  /** Whether it may carry riders (riders.ts). If so, its body and its declarations must not use their names, which begin with "ride". */
  readonly carries?: boolean;
  /** The work that it carries: more workgroups after its own, with their own text. */
  readonly more?: {
    readonly groups: number;
    readonly text: () => { readonly declarations: string; readonly body: string };
  };
  /** WGSL features that the shader enables. */
  readonly features?: readonly string[];
  /** Number of invocations per subgroup, if the device has several sizes. */
  readonly subgroupSize?: number;
  readonly body: Text;
}

/** A dispatch that may be carried. `tag` is the prefix of the names of its operands and scalars in the shader's text. */
export interface Rider {
  /** Key of the shader, as in `Dispatch`. */
  readonly key: string;
  readonly operands: readonly Operand[];
  readonly scalars: NonNullable<Dispatch["scalars"]>;
  /** Invocations per workgroup if it is not carried. */
  readonly workgroup: number;
  /** Number of workgroups, if each has this many invocations. */
  groups(workgroup: number): number;
  declarations(workgroup: number, tag: string): string;
  body(workgroup: number, tag: string): string;
}

export interface DeviceTraits {
  /** Whether this is a software adapter: barriers and workgroup memory are slow there, and a few invocations keep every core busy. */
  readonly software: boolean;
  readonly workgroupStorage: number;
  /** Whether precision is mixed: matrix products round their operands to f16 and sum in f32. */
  readonly rounds: boolean;
  readonly tensorCores: TensorCores | null;
}

export interface KernelContext {
  readonly traits: DeviceTraits;
  dispatch(dispatch: Dispatch): void;
  /** Enqueues a small dispatch, which the next one may carry. */
  ride(rider: Rider): void;
  /** Allocates memory for the rest of this kernel call. */
  scratch(elements: number, dtype?: DType): View;
  /** Chooses among several ways to compute the same bits: the one that was fastest when timed on this device for similar calls (`bucket`), else the first. */
  choose<V extends string>(bucket: string, variants: readonly [V, ...V[]]): V;
  /** Returns numbers that do not change. They are made and uploaded once per key and belong to the backend. */
  constant(key: string, make: () => Float32Array): View;
}

export type Launcher<K extends KernelName> = (
  context: KernelContext,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
) => void;

/** All kernels; a missing one is an error of the compiler. */
export type Launchers = { readonly [K in KernelName]: Launcher<K> };

export const u32 = (value: number): readonly ["u32", number] => ["u32", value];
export const f32 = (value: number): readonly ["f32", number] => ["f32", value];

/** Returns the nearest power of two. Shapes whose extents round to the same powers of two belong to the same bucket. */
export const nearestPower = (x: number): number => 2 ** Math.round(Math.log2(Math.max(1, x)));

/** Makes operands from views by name; absent views are left out. */
export function operandsOf(read: NamedViews, written: NamedViews): Operand[] {
  const list = (views: NamedViews, isWritten: boolean): Operand[] =>
    Object.entries(views).flatMap(([name, view]) =>
      view === null || view === undefined ? [] : [{ name, view, written: isWritten }],
    );
  return [...list(read, false), ...list(written, true)];
}

/** Marks the named operands as read and written as vectors of four. */
export function byFours(operands: readonly Operand[], names: readonly string[]): Operand[] {
  return operands.map((operand) => (names.includes(operand.name) ? { ...operand, fours: true } : operand));
}

/** Dispatches one invocation for each of `count` elements; the body knows the index of its element as `i`. */
export function elementwise(
  context: KernelContext,
  count: number,
  dispatch: Omit<Dispatch, "groups" | "workgroup">,
): void {
  if (count === 0) return;
  context.dispatch({
    ...dispatch,
    scalars: { ...dispatch.scalars, count: u32(count) },
    groups: Math.ceil(count / 64),
    body: () => `  let i = thread;\n  if (i >= p.count) { return; }\n${textOf(dispatch.body)}`,
  });
}

/** Returns a function in WGSL that maps a row-major position in a shape to Σ index·stride: `fn name(i: u32) -> u32`, with extents and strides as constants. */
export function stridedIndex(name: string, shape: readonly number[], strides: readonly number[]): string {
  const lines: string[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== 0) lines.push(`  at += (rest % ${shape[axis]}u) * ${strides[axis]}u;`);
    lines.push(`  rest /= ${shape[axis]}u;`);
  }
  return `fn ${name}(i: u32) -> u32 {\n  var rest = i;\n  var at = 0u;\n${lines.join("\n")}\n  return at;\n}`;
}
