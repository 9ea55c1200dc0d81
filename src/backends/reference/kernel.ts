/** The type of reference kernels: one function on typed arrays per row of the table in ../kernels/. */
import { GradmixError } from "../../errors.ts";
import type { TensorData } from "../../tensor/dtype.ts";
import type { Inputs, KernelName, KernelParams, Outputs } from "../kernels/index.ts";

/** The elements of an operand, and no others. Reading gives a double; writing rounds to the storage type. */
export type Data = TensorData;
export type Optional = TensorData | null;

export type KernelFunction<K extends KernelName> = (
  params: KernelParams[K],
  inputs: Inputs<K, Data>,
  outputs: Outputs<K, Data>,
) => void;

/** Implementations of some kernels. An object over all of `KernelName` with a missing kernel is an error of the compiler. */
export type Kernels<K extends KernelName> = { readonly [N in K]: KernelFunction<N> };

/**
 * Returns the row ranges of `segments` (S + 1 ascending offsets into `rows`). Unlike a fast backend, the reference checks the offsets, since invalid ones
 * are a bug of the caller. Throws `backend`.
 */
export function segmentRanges(name: KernelName, segments: Data, rows: number): (readonly [number, number])[] {
  const ranges: [number, number][] = [];
  for (let s = 0; s + 1 < segments.length; s++) ranges.push([segments[s]!, segments[s + 1]!]);
  for (const [start, end] of ranges)
    if (start < 0 || end < start || end > rows)
      throw new GradmixError(
        "backend",
        `${name}: segment offsets must ascend within 0..${rows}, but one segment is ${start}..${end}`,
      );
  return ranges;
}

export function dotProduct(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
