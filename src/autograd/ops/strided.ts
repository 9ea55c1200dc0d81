/**
 * Runs strided kernels, which support MAX_RANK axes, on any number of axes: neighbouring axes are merged, and the remaining ones are covered by
 * several calls.
 */
import { run } from "../../backends/backend.ts";
import { type KernelParams, MAX_RANK } from "../../backends/kernels/index.ts";
import { sizeOf, type Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** One number for each of two operands. */
type Pair = readonly [number, number];

/** An axis, with its stride in each of two operands. */
interface Axis {
  readonly extent: number;
  readonly strides: Pair;
}

/** The axes of extent above 1; neighbouring axes that every operand traverses as one are merged. */
function mergeAxes(shape: Shape, first: readonly number[], second: readonly number[]): Axis[] {
  const merged: Axis[] = [];
  for (const [at, extent] of shape.entries()) {
    if (extent === 1) continue;
    const axis: Axis = { extent, strides: [first[at]!, second[at]!] };
    const outer = merged.at(-1);
    if (outer?.strides.every((stride, o) => stride === axis.strides[o]! * extent))
      merged[merged.length - 1] = { extent: outer.extent * extent, strides: axis.strides };
    else merged.push(axis);
  }
  return merged;
}

/** Calls `visit` for every index of the axes, with the offset of each operand. */
function forEachIndex(axes: readonly Axis[], visit: (steps: Pair) => void, [first, second]: Pair): void {
  const [axis, ...rest] = axes;
  if (axis === undefined) visit([first, second]);
  else
    for (let i = 0; i < axis.extent; i++)
      forEachIndex(rest, visit, [first + i * axis.strides[0], second + i * axis.strides[1]]);
}

const extentsOf = (axes: readonly Axis[]): number[] => axes.map(({ extent }) => extent);
const stridesOf = (axes: readonly Axis[], operand: 0 | 1): number[] =>
  axes.map(({ strides }) => strides[operand]);

/** `stridedCopy` over any number of axes. */
export function copyStrided(params: KernelParams["stridedCopy"], x: Tensor, y: Tensor): void {
  if (params.shape.length <= MAX_RANK) {
    run("stridedCopy", params, { x }, { y });
    return;
  }
  // The order of the axes is free, so the shortest are covered by separate calls.
  const axes = mergeAxes(params.shape, params.inStrides, params.outStrides);
  const bySize = axes.toSorted((a, b) => a.extent - b.extent);
  const outer = bySize.slice(0, Math.max(0, axes.length - MAX_RANK));
  const together = axes.filter((axis) => !outer.includes(axis));
  const shape = extentsOf(together);
  const [inStrides, outStrides] = [stridesOf(together, 0), stridesOf(together, 1)];
  forEachIndex(
    outer,
    ([inOffset, outOffset]) =>
      run("stridedCopy", { shape, inStrides, inOffset, outStrides, outOffset }, { x }, { y }),
    [params.inOffset, params.outOffset],
  );
}

/** `binary` or `compare` over any number of axes. */
export function runPairs<K extends "binary" | "compare">(
  kernel: K,
  params: KernelParams[K],
  a: Tensor,
  b: Tensor,
  c: Tensor,
): void {
  if (params.shape.length <= MAX_RANK) {
    run<K>(kernel, params, { a, b }, { c });
    return;
  }
  const axes = mergeAxes(params.shape, params.aStrides, params.bStrides);
  // c is row-major, so the leading axes are covered by separate calls.
  const outer = axes.slice(0, Math.max(0, axes.length - MAX_RANK));
  const together = axes.slice(outer.length);
  const shape = extentsOf(together);
  const size = sizeOf(shape);
  const [aStrides, bStrides] = [stridesOf(together, 0), stridesOf(together, 1)];
  let at = 0;
  forEachIndex(
    outer,
    ([fromA, fromB]) => {
      const [partA, partB, partC] = [
        a.part([a.size - fromA], fromA),
        b.part([b.size - fromB], fromB),
        c.part([size], at),
      ];
      run(kernel, { ...params, shape, aStrides, bStrides }, { a: partA, b: partB }, { c: partC });
      for (const part of [partA, partB, partC]) part.dispose();
      at += size;
    },
    [0, 0],
  );
}
