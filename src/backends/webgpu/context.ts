/** What a WebGPU kernel is given, and what it is: a function that turns a call of the table into dispatches. */
import type { DType } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Inputs, KernelName, KernelParams, NamedViews, Outputs } from "../kernels/index.ts";
import type { ScalarType } from "./shader.ts";

export interface Operand {
  readonly name: string;
  readonly view: View;
  readonly written?: boolean;
  /** The body reads it by fours, too, and if it is written, writes it by fours alone (shader.ts). */
  readonly fours?: boolean;
  /** Of rows so far apart it has only the first elements: `width` of them. */
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

/** Of a shader; a function where making it takes time, as it is asked for only when the shader is made. */
export type Text = string | (() => string);

export const textOf = (text: Text): string => (typeof text === "string" ? text : text());

export interface Dispatch {
  /**
   * Names the shader: calls with the same key have the same operands, scalars and body, except for which operands share a buffer. Everything that is
   * compiled into the body must be part of it.
   */
  readonly key: string;
  readonly operands: readonly Operand[];
  readonly scalars?: Readonly<Record<string, readonly [type: ScalarType, value: number]>>;
  /** Invocations per workgroup. Default 64. */
  readonly workgroup?: number;
  /** Workgroups, however many. */
  readonly groups: number;
  readonly declarations?: Text;
  /** Whether it may carry riders (riders.ts): its body and its declarations use none of their names, which begin with "ride". */
  readonly carries?: boolean;
  /** What it carries: more workgroups after its own, with their own text. */
  readonly more?: {
    readonly groups: number;
    readonly text: () => { readonly declarations: string; readonly body: string };
  };
  /** WGSL features that the shader enables. */
  readonly features?: readonly string[];
  /** Number of invocations per subgroup, where the device leaves the choice. */
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
  /** Mixed precision: matrix products round their operands to f16 and sum in f32. */
  readonly rounds: boolean;
  readonly tensorCores: TensorCores | null;
}

export interface KernelContext {
  readonly traits: DeviceTraits;
  dispatch(dispatch: Dispatch): void;
  /** A small dispatch, which the next one may carry. */
  ride(rider: Rider): void;
  /** Memory for the rest of this kernel call. */
  scratch(elements: number, dtype?: DType): View;
  /** Chooses among several ways to compute the same bits: the one that was fastest when timed on this device for similar calls (`bucket`), else the first. */
  choose<V extends string>(bucket: string, variants: readonly [V, ...V[]]): V;
  /** Numbers that do not change, made and uploaded once for a key; they belong to the backend. */
  constant(key: string, make: () => Float32Array): View;
}

export type Launcher<K extends KernelName> = (
  context: KernelContext,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
) => void;

/** All kernels; a missing one does not compile. */
export type Launchers = { readonly [K in KernelName]: Launcher<K> };

export const u32 = (value: number): readonly ["u32", number] => ["u32", value];
export const f32 = (value: number): readonly ["f32", number] => ["f32", value];

/** Shapes belong to the same bucket if they round to the same powers of two. */
export const nearestPower = (x: number): number => 2 ** Math.round(Math.log2(Math.max(1, x)));

/** Operands by name; absent ones are left out. */
export function operandsOf(read: NamedViews, written: NamedViews): Operand[] {
  const list = (views: NamedViews, isWritten: boolean): Operand[] =>
    Object.entries(views).flatMap(([name, view]) =>
      view === null || view === undefined ? [] : [{ name, view, written: isWritten }],
    );
  return [...list(read, false), ...list(written, true)];
}

/** The same operands; those named are read and written by fours. */
export function byFours(operands: readonly Operand[], names: readonly string[]): Operand[] {
  return operands.map((operand) => (names.includes(operand.name) ? { ...operand, fours: true } : operand));
}

/** One invocation for each of `count` elements, which the body knows as `i`. */
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

/** A stride-free index into a shape, as WGSL: `fn name(i: u32) -> u32` sums index·stride over the axes. Extents and strides are baked in. */
export function stridedIndex(name: string, shape: readonly number[], strides: readonly number[]): string {
  const lines: string[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== 0) lines.push(`  at += (rest % ${shape[axis]}u) * ${strides[axis]}u;`);
    lines.push(`  rest /= ${shape[axis]}u;`);
  }
  return `fn ${name}(i: u32) -> u32 {\n  var rest = i;\n  var at = 0u;\n${lines.join("\n")}\n  return at;\n}`;
}
