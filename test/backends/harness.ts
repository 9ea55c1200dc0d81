/**
 * One kernel call as data, how to run it on a backend, and how to compare two runs. Every operand lies between guard elements in a larger buffer, so
 * that a kernel that writes outside of its output, or ignores a view's offset, is caught; inputs must be unchanged afterwards.
 */
import type { Backend } from "#dist/backends/backend.js";
import { checkCall, mapInputs, mapOutputs } from "#dist/backends/kernels/check.js";
import {
  type Inputs,
  type KernelName,
  type KernelParams,
  kernels,
  type NamedViews,
  type Outputs,
} from "#dist/backends/kernels/index.js";
import type { DType, TensorData } from "#dist/tensor/dtype.js";
import type { View } from "#dist/tensor/memory.js";

export interface Operand {
  readonly data: ArrayLike<number>;
  readonly dtype: DType;
}

export interface Case<K extends KernelName> {
  readonly name: string;
  readonly params: KernelParams[K];
  readonly inputs: Inputs<K, Operand>;
  /** Contents of the outputs before the call. */
  readonly outputs: Partial<Outputs<K, Operand>>;
  /** The input that the kernel's only output overwrites; that output is then not in `outputs`. */
  readonly inPlace?: string;
  /**
   * Factor on the table's tolerance, which is meant for operands of order one. For a sum of n products, whose rounding
   * errors add up like a random walk, it is √(n/64), at least 1 (`sumScale`).
   */
  readonly scale?: number;
  /** If given, the case only runs on backends of this family, whose blocks it crosses. */
  readonly family?: "cpu" | "webgpu";
  /** The expected outputs, if the reference would take long. */
  readonly expected?: () => (TensorData | null)[];
}

export const sumScale = (n: number): number => Math.max(1, Math.sqrt(n / 64));

/** Marks outputs that a kernel must overwrite and, with a number from `guard` added, elements that no kernel may change. */
const GUARD = 12345;
const GUARD_AFTER = 9;
/** Returns a different number for each operand and position, so that a guard that is copied onto another is noticed. */
const guard = (operand: number, at: number): number => GUARD + 100 * operand + (at % 97);
function guards(operand: number, count: number): Int32Array {
  const all = new Int32Array(count);
  for (let at = 0; at < count; at++) all[at] = guard(operand, at);
  return all;
}

/** Deterministic values in [low, high), rounded to f32, so that every backend gets the same ones. */
export function values(count: number, seed: number, low = -1, high = 1): number[] {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const made = new Array<number>(count);
  for (let at = 0; at < count; at++) {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    made[at] = Math.fround(low + ((high - low) * ((z ^ (z >>> 14)) >>> 0)) / 2 ** 32);
  }
  return made;
}

/** Integers in [low, high). */
export function integers(count: number, seed: number, low: number, high: number): number[] {
  return values(count, seed, 0, 1).map((u) => Math.min(high - 1, low + Math.floor(u * (high - low))));
}

/** An f32 operand. */
export function f(data: ArrayLike<number>): Operand {
  return { data: Float32Array.from(data), dtype: "f32" };
}

/** An i32 operand. */
export function i(data: ArrayLike<number>): Operand {
  return { data: Int32Array.from(data), dtype: "i32" };
}

/** An output that must be overwritten. */
export function out(count: number, dtype: DType = "f32"): Operand {
  return { data: new Array<number>(count).fill(GUARD), dtype };
}

const outputNames = (kernel: KernelName): string[] => Object.keys(kernels[kernel].outputs);

/** The outputs of a case by name, each made by `place`; an output in place is the input. */
export function outputsOf<K extends KernelName>(
  kernel: K,
  c: Case<K>,
  inputs: Inputs<K>,
  place: (operand: Operand) => View,
): Outputs<K> {
  const given: NamedViews<Operand> = c.outputs;
  const placed: NamedViews = inputs;
  const outputs = outputNames(kernel).map((name) => {
    if (c.inPlace !== undefined) return [name, placed[c.inPlace]] as const;
    const operand = given[name] ?? null;
    return [name, operand === null ? null : place(operand)] as const;
  });
  return Object.fromEntries(outputs) as unknown as Outputs<K>;
}

/** Runs a case with every view starting at element `margin` of its buffer. Returns the elements of the outputs in the order of the table. */
export async function runCase<K extends KernelName>(
  backend: Backend,
  kernel: K,
  c: Case<K>,
  margin: number,
): Promise<(TensorData | null)[]> {
  const mine: number[] = [];
  const numbers = new Map<number, number>();
  const place = (operand: Operand): View => {
    const size = operand.data.length;
    const buffer = backend.alloc(margin + size + GUARD_AFTER, operand.dtype);
    mine.push(buffer);
    const number = mine.length;
    backend.write(buffer, 0, guards(number, margin + size + GUARD_AFTER));
    backend.write(buffer, margin, operand.data);
    numbers.set(buffer, number);
    return { buffer, offset: margin, shape: [size], dtype: operand.dtype };
  };
  const contents = async (view: View | null | undefined, what: string): Promise<TensorData | null> => {
    if (view === null || view === undefined) return null;
    const [size = 0] = view.shape;
    const all = await backend.read(view.buffer, 0, margin + size + GUARD_AFTER);
    const number = numbers.get(view.buffer) ?? 0;
    for (let at = 0; at < all.length; at++) {
      if (at === margin) at += size;
      if (all[at] !== guard(number, at))
        throw new Error(
          `${kernel}, ${c.name}: ${what} was written outside, at its element ${at - margin} of ${size}`,
        );
    }
    return all.slice(margin, margin + size);
  };
  try {
    const inputs = mapInputs<K, Operand, View>(c.inputs, place);
    const outputs = outputsOf(kernel, c, inputs, place);
    checkCall(kernel, c.params, inputs, outputs);
    backend.run(kernel, c.params, inputs, outputs);
    backend.flush();

    const placed: NamedViews = inputs;
    const written: NamedViews = outputs;
    const given: NamedViews<Operand> = c.inputs;
    const [results, afterwards] = await Promise.all([
      Promise.all(outputNames(kernel).map((name) => contents(written[name], `output "${name}"`))),
      Promise.all(
        Object.entries(placed).map(
          async ([name, view]) => [name, await contents(view, `input "${name}"`)] as const,
        ),
      ),
    ]);
    for (const [name, after] of afterwards) {
      const original = given[name]?.data;
      if (after === null || original === undefined || name === c.inPlace) continue;
      for (let e = 0; e < after.length; e++)
        if (!Object.is(after[e], original[e]))
          throw new Error(`${kernel}, ${c.name}: input "${name}" was changed at element ${e}`);
    }
    return results;
  } finally {
    for (const buffer of mine) backend.free(buffer);
  }
}

/**
 * Compares a run with that of the oracle: i32 elements, infinities and NaN must be equal, and
 * other elements satisfy |got − want| ≤ scale·(atol + rtol·|want|). `want` is rounded to f32 first. Returns the first difference, or null.
 */
export function difference<K extends KernelName>(
  kernel: K,
  c: Case<K>,
  got: readonly (TensorData | null)[],
  want: readonly (TensorData | null)[],
): string | null {
  const { rtol, atol } = kernels[kernel].tolerance;
  const outputs: NamedViews<Operand> = c.outputs;
  for (const [o, name] of outputNames(kernel).entries()) {
    const [expected, actual] = [want[o] ?? null, got[o] ?? null];
    if (expected === null || actual === null) continue;
    const exact = outputs[name]?.dtype === "i32";
    let worst = 0;
    let where = -1;
    for (let e = 0; e < expected.length; e++) {
      const w = exact ? expected[e] : Math.fround(expected[e]);
      const g = Math.fround(actual[e]) === w ? w : actual[e];
      if (g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
      const allowed = exact ? 0 : (c.scale ?? 1) * (atol + rtol * Math.abs(w));
      const error = Math.abs(g - w);
      const ratio = Number.isFinite(error) && allowed > 0 ? error / allowed : Infinity;
      if (ratio > worst) [worst, where] = [ratio, e];
    }
    if (worst > 1)
      return (
        `${kernel}, ${c.name}: output "${name}" is ${actual[where]} at element ${where} of ` +
        `${expected.length}, the oracle says ${expected[where]} (${worst.toPrecision(3)} times the tolerance)`
      );
  }
  return null;
}

type Plain = Operand | ArrayLike<number>;

/** Runs one kernel on plain numbers, for checks of the oracle itself. A number as an output gives its element count. Returns the outputs in the order of the table. */
export async function evaluate<K extends KernelName>(
  backend: Backend,
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K, Plain>,
  outputs: Outputs<K, Plain | number>,
): Promise<number[][]> {
  const operand = (value: Plain | number): Operand => {
    if (typeof value === "number") return out(value);
    return "dtype" in value ? value : { data: value, dtype: "f32" };
  };
  const c: Case<K> = {
    ...{ name: "evaluate", params },
    inputs: mapInputs<K, Plain, Operand>(inputs, operand),
    outputs: mapOutputs<K, Plain | number, Operand>(outputs, operand),
  };
  const results = await runCase(backend, kernel, c, 0);
  return results.map((data) => (data === null ? [] : Array.from(data)));
}

/** The bytes of an output. All NaN are the same number: their sign and payload follow from which of its compilers V8 used. */
export function bytesOf(data: TensorData): Buffer {
  const same = data instanceof Float32Array ? data.map((x) => (Number.isNaN(x) ? NaN : x)) : data;
  return Buffer.from(same.buffer, same.byteOffset, same.byteLength);
}
