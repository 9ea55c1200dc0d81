/**
 * The linear ops behind broadcasting, each the transpose of another: reshape of itself, broadcastTo of sum. All reductions share their forward
 * function here.
 */
import { run } from "../../backends/backend.ts";
import type { ReduceKind } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, integerIn } from "../../options.ts";
import type { DType } from "../../tensor/dtype.ts";
import {
  broadcastShapes,
  broadcastStrides,
  checkShape,
  formatShape,
  normaliseAxis,
  sameShape,
  type Shape,
  sizeOf,
  stridesOf,
  rowsIn,
} from "../../tensor/shape.ts";
import { empty, type Tensor } from "../../tensor/tensor.ts";
import { ownList, wantList, wantTensor } from "../checks.ts";
import { keepsElementwise } from "../batch.ts";
import { allocate, apply1, type Op, type Spec, wantType } from "../op.ts";
import { copyStrided } from "./strided.ts";

/** A linear op of one input: the same function moves tangents, and `back` moves cotangents. */
export function moving<A>(
  op: Pick<Op<A, "x", "y">, "name" | "infer" | "keepsBatch" | "forward">,
  move: (t: Tensor, attrs: A) => Tensor,
  back: (ct: Tensor, attrs: A, input: Spec) => Tensor,
): Op<A, "x", "y"> {
  return {
    ...op,
    vjp([ct], { attrs, inputs: [x] }) {
      return [ct === null ? null : back(ct, attrs, x)];
    },
    jvp([tangent], { attrs }) {
      return [tangent === null ? null : move(tangent, attrs)];
    },
  };
}

export const reshapeOp: Op<{ shape: Shape }> = moving(
  {
    name: "reshape",
    // In memory order, so blocks that fit both shapes stay together.
    keepsBatch: () => true,
    infer([x], { shape }) {
      checkShape(shape, "reshape");
      if (sizeOf(shape) !== sizeOf(x.shape))
        throw new GradmixError(
          "shape",
          `reshape: ${formatShape(x.shape)} has ${sizeOf(x.shape)} elements, ${formatShape(shape)} has ${sizeOf(shape)}`,
        );
      return [{ shape, dtype: x.dtype }];
    },
    forward([x], { shape }) {
      return { outputs: [x.part(shape)] };
    },
  },
  (t, { shape }) => reshape(t, shape),
  (ct, _, input) => reshape(ct, input.shape),
);

export const broadcastToOp: Op<{ shape: Shape }> = moving(
  {
    name: "broadcastTo",
    keepsBatch: keepsElementwise,
    infer([x], { shape }) {
      checkShape(shape, "broadcastTo");
      if (!sameShape(broadcastShapes(x.shape, shape, "broadcastTo"), shape))
        throw new GradmixError(
          "shape",
          `broadcastTo: ${formatShape(x.shape)} does not broadcast to ${formatShape(shape)}`,
        );
      return [{ shape, dtype: x.dtype }];
    },
    forward([x], { shape }, [spec]) {
      if (sameShape(x.shape, shape)) return { outputs: [x.part(shape)] };
      const y = allocate(spec, x);
      const inStrides = broadcastStrides(x.shape, shape);
      copyStrided({ shape, inStrides, inOffset: 0, outStrides: stridesOf(shape), outOffset: 0 }, x, y);
      return { outputs: [y] };
    },
  },
  (t, { shape }) => stretch(t, shape),
  (ct, _, input) => sumTo(ct, input.shape),
);

export interface ReduceAttrs {
  /** The axes, ascending. */
  readonly axes: readonly number[];
  readonly keepDims: boolean;
}

/** One axis or several; a negative axis counts from the last. */
export type Axis = number | readonly number[];

export const keptShape = (shape: Shape, axes: readonly number[]): number[] =>
  shape.map((extent, axis) => (axes.includes(axis) ? 1 : extent));

/** Reduces each run of neighbouring axes with one kernel call, the last run first. */
function reduceForward(kind: ReduceKind, x: Tensor, { axes }: ReduceAttrs, spec: Spec): Tensor {
  const runs: [first: number, end: number][] = [];
  for (const axis of axes) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === axis) last[1] = axis + 1;
    else runs.push([axis, axis + 1]);
  }
  // Nothing to reduce: the same elements under a new handle.
  if (runs.length === 0) return x.part(spec.shape);
  let current = x;
  let shape = x.shape;
  for (const [first, end] of runs.reverse()) {
    const outer = sizeOf(shape.slice(0, first));
    const inner = sizeOf(shape.slice(end));
    const length = sizeOf(shape.slice(first, end));
    shape = [...shape.slice(0, first), ...shape.slice(end)];
    const isLast = shape.length === x.rank - axes.length;
    const out = isLast ? allocate(spec, x) : empty(shape, "f32", x.memory);
    run("reduce", { kind, outer, length, inner }, { x: current }, { y: out });
    if (current !== x) current.dispose();
    current = out;
  }
  return current;
}

/** A reduction; all except the sum save x and y. */
export function reduceOp<Saved extends string>(
  kind: ReduceKind,
  rules: Pick<Op<ReduceAttrs, "x", "y", Saved>, "vjp" | "jvp">,
): Op<ReduceAttrs, "x", "y", Saved> {
  return {
    name: kind,
    keepsBatch: (_slot, _inputs, _output, { axes }) => !axes.includes(0),
    infer([x], { axes, keepDims }) {
      wantType(kind, "x", x, "f32");
      wantList(kind, "axes", axes);
      axes.forEach((axis, at) =>
        integerIn(at === 0 ? 0 : axes[at - 1]! + 1, x.shape.length - 1)(`${kind}: axis`, axis),
      );
      boolean(`${kind}: keepDims`, keepDims);
      const shape = keepDims ? keptShape(x.shape, axes) : x.shape.filter((_, axis) => !axes.includes(axis));
      return [{ shape, dtype: "f32" }];
    },
    forward([x], attrs, [spec]) {
      const y = reduceForward(kind, x, attrs, spec);
      return { outputs: [y], saved: kind === "sum" ? [] : [x, y] };
    },
    ...rules,
  };
}

/** Restores the reduced axes as extents of 1, then repeats them. */
export const spread = (t: Tensor, shape: Shape, axes: readonly number[]): Tensor =>
  stretch(reshape(t, keptShape(shape, axes)), shape);

export const sumOp: Op<ReduceAttrs> = reduceOp<"">("sum", {
  vjp([ct], { attrs, inputs: [x] }) {
    return [ct === null ? null : spread(ct, x.shape, attrs.axes)];
  },
  jvp([tangent], { attrs }) {
    return [tangent === null ? null : sum(tangent, attrs.axes, attrs.keepDims)];
  },
});

/** The same elements with another shape; one extent may be −1 and is then computed. */
export function reshape<D extends DType>(x: Tensor<D>, shape: Shape): Tensor<D> {
  wantTensor("reshape", "x", x);
  wantList("reshape", "the shape", shape);
  const unknown = shape.indexOf(-1);
  if (unknown < 0) return apply1(reshapeOp, [x], { shape: ownList(shape) });
  const rest = sizeOf(shape.filter((_, axis) => axis !== unknown));
  if (!Number.isInteger(x.size / rest))
    throw new GradmixError(
      "shape",
      `reshape: ${formatShape(x.shape)} has ${x.size} elements, which do not divide into ${formatShape(shape)}`,
    );
  return apply1(reshapeOp, [x], { shape: shape.map((e, axis) => (axis === unknown ? x.size / rest : e)) });
}

/** The rows of x: [… , n] → [rows, n]. */
export const asRows = (x: Tensor): Tensor => reshape(x, [rowsIn(x.shape), x.shape[x.rank - 1]!]);

/** x repeated along its axes of extent 1 and along new leading axes. */
export function broadcastTo<D extends DType>(x: Tensor<D>, shape: Shape): Tensor<D> {
  return apply1(broadcastToOp, [x], { shape: ownList(shape) });
}

/** `broadcastTo` for rules: x itself if it has the shape. */
export function stretch<D extends DType>(x: Tensor<D>, shape: Shape): Tensor<D> {
  return sameShape(x.shape, shape) ? x : broadcastTo(x, shape);
}

/** Sums over the axes along which `shape` was broadcast, the transpose of `stretch`; x itself if there are none. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.rank - shape.length;
  const axes = x.shape.flatMap((extent, axis) => (shape[axis - lead] === extent ? [] : [axis]));
  const summed = sum(x, axes);
  return sameShape(summed.shape, shape) ? summed : reshape(summed, shape);
}

export function axesOf(x: Tensor, axis: Axis | undefined, name: string): number[] {
  wantTensor(name, "x", x);
  if (axis === undefined) return x.shape.map((_, i) => i);
  const given = typeof axis === "number" ? [axis] : axis;
  wantList(name, "axis", given);
  const axes = given.map((a) => normaliseAxis(a, x.rank, name)).sort((a, b) => a - b);
  if (new Set(axes).size < axes.length)
    throw new GradmixError("shape", `${name}: an axis is named twice in ${formatShape(given)}`);
  return axes;
}

export function reduce(
  op: Op<ReduceAttrs>,
  x: Tensor,
  axis: Axis | undefined,
  keepDims: boolean,
): Tensor<"f32"> {
  const axes = axesOf(x, axis, op.name);
  boolean(`${op.name}: keepDims`, keepDims);
  return apply1(op, [x], { axes, keepDims });
}

/** Sum over the axes (default: all). With `keepDims` they stay with extent 1. */
export function sum(x: Tensor, axis?: Axis, keepDims = false): Tensor<"f32"> {
  return reduce(sumOp, x, axis, keepDims);
}
