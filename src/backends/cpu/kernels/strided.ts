/** Launchers of the kernels that read or write with strides (assembly/strided.ts); they merge axes first. */
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

/** The axes of extent above 1; neighbouring axes that every operand traverses as one are merged. */
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

/** Slots of the outer axes, at most five. */
interface OuterSlots {
  readonly rank: number;
  readonly extents: readonly number[];
  readonly strides0: readonly number[];
  readonly strides1: readonly number[];
}

const NONE: readonly number[] = [];

function outerSlots(axes: readonly Axis[]): OuterSlots {
  return {
    rank: axes.length,
    extents: axes.map((axis) => axis.extent),
    strides0: axes.map((axis) => axis.strides[0]!),
    strides1: axes.map((axis) => axis.strides[1]!),
  };
}

const rowCount = (axes: readonly Axis[]): number => axes.reduce((rows, axis) => rows * axis.extent, 1);

/** How rows of `length` elements are divided: whole rows, or pieces of long ones. */
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

/** "greater" is "less" with the operands swapped. */
const TURNED: ReadonlyMap<CompareKind, CompareKind> = new Map([
  ["greater", "less"],
  ["greaterEqual", "lessEqual"],
]);
/** Exports by kind, so that no name is composed and hashed for every call. */
const BINARY: ReadonlyMap<BinaryKind, `binary_${string}`> = new Map(
  binaryKinds.map((kind) => [kind, `binary_${kind}`]),
);
const comparing = (dtype: DType): ReadonlyMap<CompareKind, `compare_${string}`> =>
  new Map(compareKinds.map((kind) => [kind, `compare_${TURNED.get(kind) ?? kind}_${dtype}`]));
const COMPARE: Readonly<Record<DType, ReadonlyMap<CompareKind, `compare_${string}`>>> = {
  f32: comparing("f32"),
  i32: comparing("i32"),
};

/** Cost of a power relative to a sum. */
const COSTLY = 16;

/** Launches a kernel of two operands that are read with strides. */
function walkTwo<K extends "binary" | "compare">(
  runtime: Runtime,
  kernel: K,
  entry: `${K}_${string}`,
  cost: number,
  { shape, aStrides, bStrides }: Pick<KernelParams["binary"], "shape" | "aStrides" | "bStrides">,
  a: View,
  b: View,
  c: View,
): void {
  const [atA, atB, atC] = [runtime.address(a), runtime.address(b), runtime.address(c)];
  if (shape.length === 1 && aStrides[0]! <= 1 && bStrides[0]! <= 1) {
    // One row: nothing to merge. Most calls are like this, and on small tensors this function is most of their cost.
    const count = shape[0]!;
    const tasks = Math.ceil(count / PER_TASK);
    runtime.launch({
      kernel,
      entry,
      tasks,
      slots: {
        a: atA,
        b: atB,
        c: atC,
        length: count,
        aStep: aStrides[0]!,
        bStep: bStrides[0]!,
        rows: 1,
        rowsPerTask: 1,
        columnsPerTask: PER_TASK,
        columnBlocks: tasks,
        rank: 0,
        extents: NONE,
        strides0: NONE,
        strides1: NONE,
      },
      work: count * cost,
    });
    return;
  }
  if (shape.includes(0)) return;
  const axes = mergeAxes(
    shape.map((extent, axis) => ({ extent, strides: [aStrides[axis]!, bStrides[axis]!] })),
  );
  const row = axes.pop() ?? SINGLE;
  const rows = rowCount(axes);
  const cut = cutRows(rows, row.extent);
  const { rank, extents, strides0, strides1 } = outerSlots(axes);
  runtime.launch({
    kernel,
    entry,
    tasks: cut.tasks,
    slots: {
      a: atA,
      b: atB,
      c: atC,
      length: row.extent,
      aStep: row.strides[0]!,
      bStep: row.strides[1]!,
      rows,
      rowsPerTask: cut.rows,
      columnsPerTask: cut.columns,
      columnBlocks: cut.blocks,
      rank,
      extents,
      strides0,
      strides1,
    },
    work: rows * row.extent * cost,
  });
}

export const strided: Pick<Launchers, "stridedCopy" | "binary" | "compare"> = {
  stridedCopy(runtime, { shape, inStrides, inOffset, outStrides, outOffset }, { x: input }, { y: out }) {
    if (shape.includes(0)) return;
    const from = runtime.address(input) + 4 * inOffset;
    const to = runtime.address(out) + 4 * outOffset;
    // The order of the axes is free. With the order of `out`, the kernel writes in ascending order.
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
      runtime.launch({
        kernel: "copyTiles",
        tasks: rowCount(axes) * blocks,
        slots: {
          from,
          to,
          rows: other.extent,
          columns: row.extent,
          fromColumn: rowIn,
          toRow: other.strides[1]!,
          rowsPerTask: perTask,
          rowBlocks: blocks,
          ...outerSlots(axes),
        },
        work,
      });
      return;
    }
    const rows = rowCount(axes);
    const cut = cutRows(rows, row.extent);
    runtime.launch({
      kernel: "copyRows",
      tasks: cut.tasks,
      slots: {
        from,
        to,
        length: row.extent,
        fromStep: rowIn,
        toStep: rowOut,
        rows,
        rowsPerTask: cut.rows,
        columnsPerTask: cut.columns,
        columnBlocks: cut.blocks,
        ...outerSlots(axes),
      },
      work,
    });
  },

  binary(runtime, params, { a, b }, { c }) {
    const { kind } = params;
    walkTwo(
      runtime,
      "binary",
      BINARY.get(kind) ?? `binary_${kind}`,
      kind === "pow" ? COSTLY : 1,
      params,
      a,
      b,
      c,
    );
  },

  compare(runtime, { kind, shape, aStrides, bStrides }, { a, b }, { c }) {
    const entry = COMPARE[a.dtype].get(kind) ?? `compare_${kind}`;
    if (TURNED.has(kind))
      walkTwo(runtime, "compare", entry, 1, { shape, aStrides: bStrides, bStrides: aStrides }, b, a, c);
    else walkTwo(runtime, "compare", entry, 1, { shape, aStrides, bStrides }, a, b, c);
  },
};
