/** Ops that move elements: transpose, slice, pad, concat; split, stack, squeeze and unsqueeze are made of these. */
import { GradmixError } from "../../errors.ts";
import { integerIn } from "../../options.ts";
import type { DType } from "../../tensor/dtype.ts";
import {
  checkShape,
  formatShape,
  normaliseAxis,
  sameShape,
  type Shape,
  sizeOf,
  stridesOf,
} from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise } from "../batch.ts";
import { allocate, apply1, filled, type Op, specOf } from "../op.ts";
import { ownList, wantLike, wantList, wantTensor, wantTensors } from "../checks.ts";
import { axesOf, type Axis, moving, reshape } from "./broadcast.ts";
import { copyStrided } from "./strided.ts";

export const transposeOp: Op<{ perm: readonly number[] }> = moving(
  {
    name: "transpose",
    keepsBatch: (_slot, _inputs, _output, { perm }) => perm[0] === 0,
    infer([x], { perm }) {
      wantList("transpose", "the permutation", perm);
      if (perm.length !== x.shape.length || perm.some((_, axis) => !perm.includes(axis)))
        throw new GradmixError(
          "shape",
          `transpose: ${formatShape(perm)} is not a permutation of the axes of ${formatShape(x.shape)}`,
        );
      return [{ shape: perm.map((axis) => x.shape[axis]!), dtype: x.dtype }];
    },
    forward([x], { perm }, [spec]) {
      const y = allocate(spec, x);
      const strides = stridesOf(x.shape);
      const inStrides = perm.map((axis) => strides[axis]!);
      const outStrides = stridesOf(spec.shape);
      copyStrided({ shape: spec.shape, inStrides, inOffset: 0, outStrides, outOffset: 0 }, x, y);
      return { outputs: [y] };
    },
  },
  (t, { perm }) => transpose(t, perm),
  (ct, { perm }) =>
    transpose(
      ct,
      perm.map((_, axis) => perm.indexOf(axis)),
    ),
);

interface Window {
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
}

const offsetOf = (starts: readonly number[], strides: readonly number[]): number =>
  starts.reduce((offset, start, axis) => offset + start * strides[axis]!, 0);

export const sliceOp: Op<Window> = moving(
  {
    name: "slice",
    keepsBatch: keepsElementwise,
    infer([x], { starts, sizes }) {
      wantList("slice", "starts", starts);
      wantList("slice", "sizes", sizes);
      const fits = (extent: number, axis: number): boolean =>
        Number.isInteger(starts[axis]) &&
        Number.isInteger(sizes[axis]) &&
        starts[axis]! >= 0 &&
        sizes[axis]! >= 0 &&
        starts[axis]! + sizes[axis]! <= extent;
      if (starts.length !== x.shape.length || sizes.length !== x.shape.length || !x.shape.every(fits))
        throw new GradmixError(
          "shape",
          `slice: ${formatShape(sizes)} from ${formatShape(starts)} does not fit into ${formatShape(x.shape)}`,
        );
      return [{ shape: sizes, dtype: x.dtype }];
    },
    forward([x], { starts, sizes }, [spec]) {
      const strides = stridesOf(x.shape);
      const inOffset = offsetOf(starts, strides);
      // Whole consecutive rows are a view.
      const cut = x.shape.findLastIndex((extent, axis) => sizes[axis] !== extent);
      if (sizes.every((size, axis) => axis >= cut || size === 1))
        return { outputs: [x.part(sizes, sizeOf(sizes) === 0 ? 0 : inOffset)] };
      const y = allocate(spec, x);
      copyStrided(
        { shape: sizes, inStrides: strides, inOffset, outStrides: stridesOf(sizes), outOffset: 0 },
        x,
        y,
      );
      return { outputs: [y] };
    },
  },
  (t, { starts, sizes }) => slice(t, starts, sizes),
  (ct, { starts }, input) => pad(ct, starts, input.shape),
);

/** Zeros of `shape` with x in the window that begins at `starts`: the transpose of slice. */
export const padOp: Op<{ starts: readonly number[]; shape: Shape }> = moving(
  {
    name: "pad",
    keepsBatch: keepsElementwise,
    infer([x], { starts, shape }) {
      wantList("pad", "starts", starts);
      checkShape(shape, "pad");
      const fits = (extent: number, axis: number): boolean =>
        Number.isInteger(starts[axis]) && starts[axis]! >= 0 && starts[axis]! + extent <= shape[axis]!;
      if (shape.length !== x.shape.length || starts.length !== x.shape.length || !x.shape.every(fits))
        throw new GradmixError(
          "shape",
          `pad: ${formatShape(x.shape)} at ${formatShape(starts)} does not fit into ${formatShape(shape)}`,
        );
      return [{ shape, dtype: x.dtype }];
    },
    forward([x], { starts }, [spec]) {
      const y = filled(0, spec, x);
      if (x.size > 0) copyInto(y, x, starts);
      return { outputs: [y] };
    },
  },
  (t, { starts, shape }) => pad(t, starts, shape),
  (ct, { starts }, input) => slice(ct, starts, input.shape),
);

/** y[starts + i] = x[i]. */
function copyInto(y: Tensor, x: Tensor, starts: readonly number[]): void {
  const outStrides = stridesOf(y.shape);
  const outOffset = offsetOf(starts, outStrides);
  copyStrided({ shape: x.shape, inStrides: stridesOf(x.shape), inOffset: 0, outStrides, outOffset }, x, y);
}

export const concatOp: Op<{ axis: number }, string, "y"> = {
  name: "concat",
  keepsBatch: (_slot, inputs, _output, { axis }) => axis > 0 || inputs.length === 1,
  infer(xs, { axis }) {
    const first = xs[0]!;
    integerIn(0, first.shape.length - 1)("concat: axis", axis);
    for (const x of xs) {
      const fits =
        x.dtype === first.dtype &&
        sameShape(
          x.shape,
          first.shape.map((extent, i) => (i === axis ? x.shape[i]! : extent)),
        );
      if (!fits)
        throw new GradmixError(
          "shape",
          `concat: ${first.dtype}${formatShape(first.shape)} and ${x.dtype}${formatShape(x.shape)} do not join along axis ${axis}`,
        );
    }
    const extent = xs.reduce((n, x) => n + x.shape[axis]!, 0);
    return [{ shape: first.shape.map((e, i) => (i === axis ? extent : e)), dtype: first.dtype }];
  },
  forward(xs, { axis }, [spec]) {
    const y = allocate(spec, xs[0]!);
    let at = 0;
    for (const x of xs) {
      if (x.size > 0) copyInto(y, x, startsAt(axis, at, spec.shape.length));
      at += x.shape[axis]!;
    }
    return { outputs: [y] };
  },
  vjp([ct], { attrs: { axis }, inputs, needs }) {
    let at = 0;
    return inputs.map((x, slot) => {
      const starts = startsAt(axis, at, x.shape.length);
      at += x.shape[axis]!;
      return ct !== null && needs[slot] ? slice(ct, starts, x.shape) : null;
    });
  },
  jvp(tangents, { attrs: { axis }, inputs }) {
    if (tangents.every((t) => t === null)) return [null];
    return [
      concat(
        tangents.map((t, slot) => t ?? filled(0, specOf(inputs[slot]!), inputs[slot]!)),
        axis,
      ),
    ];
  },
};

function startsAt(axis: number, start: number, rank: number): number[] {
  const starts = new Array<number>(rank).fill(0);
  starts[axis] = start;
  return starts;
}

/** Permutes the axes; by default it swaps the last two. */
export function transpose<D extends DType>(x: Tensor<D>, perm?: readonly number[]): Tensor<D> {
  wantTensor("transpose", "x", x);
  if (perm !== undefined) wantList("transpose", "the permutation", perm);
  if (perm !== undefined)
    return apply1(transposeOp, [x], { perm: perm.map((a) => (a < 0 ? a + x.rank : a)) });
  if (x.rank < 2)
    throw new GradmixError("shape", `transpose: ${formatShape(x.shape)} has fewer than two axes`);
  const last = x.rank - 1;
  const swapped = x.shape.map((_, axis) => (axis === last ? last - 1 : axis === last - 1 ? last : axis));
  return apply1(transposeOp, [x], { perm: swapped });
}

/** The window of x with extents `sizes` that begins at `starts`. Whole consecutive rows share memory with x. */
export function slice<D extends DType>(
  x: Tensor<D>,
  starts: readonly number[],
  sizes: readonly number[],
): Tensor<D> {
  return apply1(sliceOp, [x], { starts: ownList(starts), sizes: ownList(sizes) });
}

/** Zeros of `shape` with x in the window that begins at `starts`. */
export function pad<D extends DType>(x: Tensor<D>, starts: readonly number[], shape: Shape): Tensor<D> {
  return apply1(padOp, [x], { starts: ownList(starts), shape: ownList(shape) });
}

/** Joins tensors along an axis. */
export function concat<D extends DType>(xs: readonly Tensor<D>[], axis: number): Tensor<D> {
  wantList("concat", "what to join", xs, "tensors");
  wantTensors("concat", xs);
  if (xs.length === 0) throw new GradmixError("shape", "concat: no tensors were given");
  return apply1(concatOp, xs, { axis: normaliseAxis(axis, xs[0]!.rank, "concat") });
}

/** Extents of the parts of an axis. Throws `shape` unless they add up to its extent. */
function partsOf(parts: number | readonly number[], extent: number): number[] {
  if (typeof parts !== "number") {
    wantList("split", "the sizes of the parts", parts);
    for (const size of parts) integerIn(0)("split: the size of a part", size);
    const total = parts.reduce((sum, size) => sum + size, 0);
    if (total !== extent)
      throw new GradmixError(
        "shape",
        `split: parts of ${formatShape(parts)} make ${total}, the axis has ${extent}`,
      );
    return [...parts];
  }
  integerIn(1)("split: the number of parts", parts);
  if (extent % parts !== 0)
    throw new GradmixError(
      "shape",
      `split: an axis of ${extent} does not divide into ${parts} equal parts; give their sizes`,
    );
  return new Array<number>(parts).fill(extent / parts);
}

/**
 * Divides x along an axis (negative ones count from the end): a number makes that many equal parts, a list makes parts with these extents, which may
 * be 0. `concat` along the axis is the inverse. Parts that are contiguous in memory (for example along axis 0) share it with x, like those of
 * `slice`. Throws `shape` if the axis cannot be divided equally, or the extents do not add up to it.
 */
export function split<D extends DType>(
  x: Tensor<D>,
  parts: number | readonly number[],
  axis: number,
): Tensor<D>[] {
  wantTensor("split", "x", x);
  const along = normaliseAxis(axis, x.rank, "split");
  let at = 0;
  return partsOf(parts, x.shape[along]!).map((size) => {
    const starts = startsAt(along, at, x.rank);
    at += size;
    return slice(
      x,
      starts,
      x.shape.map((extent, i) => (i === along ? size : extent)),
    );
  });
}

/**
 * Joins tensors of the same shape along a new axis, which is `axis` of the result (negative ones count from its end): n of [a, b] along axis 1 → [a,
 * n, b]. Throws `shape` for an empty list, and for tensors of different shapes or types.
 */
export function stack<D extends DType>(xs: readonly Tensor<D>[], axis: number): Tensor<D> {
  wantList("stack", "what to join", xs, "tensors");
  wantTensors("stack", xs);
  if (xs.length === 0) throw new GradmixError("shape", "stack: no tensors were given");
  xs.forEach((x, n) => wantLike("stack", `tensor ${n}`, x, xs[0]!));
  const along = normaliseAxis(axis, xs[0]!.rank + 1, "stack");
  return concat(
    xs.map((x) => unsqueeze(x, along)),
    along,
  );
}

/** x without axes of extent 1: the given ones or, by default, all of them: [2, 1, 3] → [2, 3]. Throws `shape` if a given axis has another extent. */
export function squeeze<D extends DType>(x: Tensor<D>, axis?: Axis): Tensor<D> {
  wantTensor("squeeze", "x", x);
  const axes =
    axis === undefined
      ? x.shape.flatMap((extent, at) => (extent === 1 ? [at] : []))
      : axesOf(x, axis, "squeeze");
  for (const at of axes)
    if (x.shape[at] !== 1)
      throw new GradmixError(
        "shape",
        `squeeze: axis ${at} of ${formatShape(x.shape)} has extent ${x.shape[at]}, not 1`,
      );
  return reshape(
    x,
    x.shape.filter((_, at) => !axes.includes(at)),
  );
}

/** x with a new axis of extent 1, which is `axis` of the result (negative ones count from its end): [2, 3] with axis 1 → [2, 1, 3], with −1 → [2, 3, 1]. */
export function unsqueeze<D extends DType>(x: Tensor<D>, axis: number): Tensor<D> {
  wantTensor("unsqueeze", "x", x);
  const at = normaliseAxis(axis, x.rank + 1, "unsqueeze");
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}
