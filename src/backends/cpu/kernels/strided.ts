/** Launchers of the kernels that read or write with strides (assembly/strided.ts): they merge axes first. */
import type { DType } from "../../../tensor/dtype.ts";
import type { View } from "../../../tensor/memory.ts";
import {
  type BinaryKind,
  binaryKinds,
  type CompareKind,
  compareKinds,
  type KernelParams,
} from "../../kernels/index.ts";
import type { Runtime } from "../runtime.ts";
import type { Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";

const OUTER_AXES = 5;

/** An axis, with its stride in each operand. */
interface Axis {
  readonly extent: number;
  readonly strides: readonly number[];
}

function asOne(outer: Axis, inner: Axis): boolean {
  for (let o = 0; o < outer.strides.length; o++)
    if (outer.strides[o] !== inner.strides[o]! * inner.extent) return false;
  return true;
}

/** Axes of extent above 1; neighbours that every operand steps through as one axis are merged. */
function mergeAxes(axes: readonly Axis[]): Axis[] {
  const merged: Axis[] = [];
  for (const axis of axes) {
    if (axis.extent === 1) continue;
    const outer = merged.at(-1);
    if (outer !== undefined && asOne(outer, axis))
      merged[merged.length - 1] = { extent: outer.extent * axis.extent, strides: axis.strides };
    else merged.push(axis);
  }
  return merged;
}

/** Adds rank, extents and strides of the outer axes to the kernels' integer slots. */
function pushOuter(slots: number[], axes: readonly Axis[]): void {
  slots.push(axes.length);
  for (let axis = 0; axis < OUTER_AXES; axis++) slots.push(axis < axes.length ? axes[axis]!.extent : 0);
  for (let o = 0; o < 2; o++)
    for (let axis = 0; axis < OUTER_AXES; axis++)
      slots.push(axis < axes.length ? axes[axis]!.strides[o]! : 0);
}

const rowCount = (axes: readonly Axis[]): number => axes.reduce((rows, axis) => rows * axis.extent, 1);

/** How rows of `length` elements are cut: whole rows, or pieces of long ones. */
function cutRows(
  rows: number,
  length: number,
): { rows: number; columns: number; blocks: number; tasks: number } {
  const columns = Math.min(length, PER_TASK);
  const perTask = Math.max(1, Math.floor(PER_TASK / length));
  const blocks = Math.ceil(length / columns);
  return { rows: perTask, columns, blocks, tasks: Math.ceil(rows / perTask) * blocks };
}

const SINGLE: Axis = { extent: 1, strides: [1, 1] };

/** What is greater is less the other way round. */
const TURNED: ReadonlyMap<CompareKind, CompareKind> = new Map([
  ["greater", "less"],
  ["greaterEqual", "lessEqual"],
]);
/** Exports by kind, so that no name is put together, and hashed, for every call. */
const BINARY: ReadonlyMap<BinaryKind, string> = new Map(binaryKinds.map((kind) => [kind, `binary_${kind}`]));
const comparing = (dtype: DType): ReadonlyMap<CompareKind, string> =>
  new Map(compareKinds.map((kind) => [kind, `compare_${TURNED.get(kind) ?? kind}_${dtype}`]));
const COMPARE: Readonly<Record<DType, ReadonlyMap<CompareKind, string>>> = {
  f32: comparing("f32"),
  i32: comparing("i32"),
};

/** A power against a sum. */
const COSTLY = 16;

/** Launches a kernel of two operands that are read with strides. */
function walkTwo(
  runtime: Runtime,
  kernel: string,
  cost: number,
  { shape, aStrides, bStrides }: Pick<KernelParams["binary"], "shape" | "aStrides" | "bStrides">,
  a: View,
  b: View,
  c: View,
): void {
  const [atA, atB, atC] = [runtime.address(a), runtime.address(b), runtime.address(c)];
  if (shape.length === 1 && aStrides[0]! <= 1 && bStrides[0]! <= 1) {
    // One row: nothing to merge. It is what most calls are, and on small tensors this function is what they cost.
    const count = shape[0]!;
    const tasks = Math.ceil(count / PER_TASK);
    const ints = [atA, atB, atC, count, aStrides[0]!, bStrides[0]!, 1, 1, PER_TASK, tasks, 0];
    runtime.launch({ kernel, tasks, ints, work: count * cost });
    return;
  }
  if (shape.includes(0)) return;
  const axes = mergeAxes(
    shape.map((extent, axis) => ({ extent, strides: [aStrides[axis]!, bStrides[axis]!] })),
  );
  const row = axes.pop() ?? SINGLE;
  const rows = rowCount(axes);
  const cut = cutRows(rows, row.extent);
  const ints = [atA, atB, atC, row.extent, row.strides[0]!, row.strides[1]!];
  ints.push(rows, cut.rows, cut.columns, cut.blocks);
  pushOuter(ints, axes);
  runtime.launch({ kernel, tasks: cut.tasks, ints, work: rows * row.extent * cost });
}

export const strided: Pick<Launchers, "stridedCopy" | "binary" | "compare"> = {
  stridedCopy(runtime, { shape, inStrides, inOffset, outStrides, outOffset }, { x: input }, { y: out }) {
    if (shape.includes(0)) return;
    const from = runtime.address(input) + 4 * inOffset;
    const to = runtime.address(out) + 4 * outOffset;
    // The order of the axes is free: that of `out` writes forwards.
    const axes = mergeAxes(
      shape
        .map((extent, axis) => ({ extent, strides: [inStrides[axis]!, outStrides[axis]!] }))
        .filter((axis) => axis.extent > 1)
        .sort((a, b) => b.strides[1]! - a.strides[1]!),
    );
    const row = axes.pop() ?? SINGLE;
    const work = rowCount(axes) * row.extent;
    const [rowIn, rowOut] = [row.strides[0]!, row.strides[1]!];
    const other = axes.find((axis) => axis.strides[0] === 1);
    if (rowOut === 1 && rowIn > 1 && other !== undefined) {
      axes.splice(axes.indexOf(other), 1);
      const perTask = Math.max(4, Math.ceil(PER_TASK / row.extent / 4) * 4);
      const blocks = Math.ceil(other.extent / perTask);
      const ints = [from, to, other.extent, row.extent, rowIn, other.strides[1]!, perTask, blocks, 0];
      pushOuter(ints, axes);
      runtime.launch({ kernel: "copyTiles", tasks: rowCount(axes) * blocks, ints, work });
      return;
    }
    const rows = rowCount(axes);
    const cut = cutRows(rows, row.extent);
    const ints = [from, to, row.extent, rowIn, rowOut];
    ints.push(rows, cut.rows, cut.columns, cut.blocks);
    pushOuter(ints, axes);
    runtime.launch({ kernel: "copyRows", tasks: cut.tasks, ints, work });
  },

  binary(runtime, params, { a, b }, { c }) {
    const { kind } = params;
    walkTwo(runtime, BINARY.get(kind) ?? kind, kind === "pow" ? COSTLY : 1, params, a, b, c);
  },

  compare(runtime, { kind, shape, aStrides, bStrides }, { a, b }, { c }) {
    const kernel = COMPARE[a.dtype].get(kind) ?? kind;
    if (TURNED.has(kind))
      walkTwo(runtime, kernel, 1, { shape, aStrides: bStrides, bStrides: aStrides }, b, a, c);
    else walkTwo(runtime, kernel, 1, { shape, aStrides, bStrides }, a, b, c);
  },
};
