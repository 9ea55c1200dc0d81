/** Moving elements: transpose, slice, pad, concat. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { integerIn } from "../../options.ts";
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
import { wantList, wantTensor, wantTensors } from "../checks.ts";
import { moving, wantRank } from "./broadcast.ts";

export const transposeOp: Op<{ perm: readonly number[] }> = moving(
  {
    name: "transpose",
    keepsBatch: (_slot, _inputs, _output, { perm }) => perm[0] === 0,
    infer([x], { perm }) {
      wantRank("transpose", x);
      wantList("transpose", "the permutation", perm);
      if (perm.length !== x.shape.length || perm.some((_, axis) => !perm.includes(axis)))
        throw new GradmixError(
          "shape",
          `transpose: ${formatShape(perm)} is not a permutation of the axes of ${formatShape(x.shape)}`,
        );
      return [{ shape: perm.map((axis) => x.shape[axis]), dtype: x.dtype }];
    },
    forward([x], { perm }, [spec]) {
      const y = allocate(spec, x);
      const strides = stridesOf(x.shape);
      const inStrides = perm.map((axis) => strides[axis]);
      const outStrides = stridesOf(spec.shape);
      run("stridedCopy", { shape: spec.shape, inStrides, inOffset: 0, outStrides, outOffset: 0 }, [x], [y]);
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
  starts.reduce((offset, start, axis) => offset + start * strides[axis], 0);

export const sliceOp: Op<Window> = moving(
  {
    name: "slice",
    keepsBatch: keepsElementwise,
    infer([x], { starts, sizes }) {
      wantRank("slice", x);
      wantList("slice", "starts", starts);
      wantList("slice", "sizes", sizes);
      const fits = (extent: number, axis: number): boolean =>
        Number.isInteger(starts[axis]) &&
        Number.isInteger(sizes[axis]) &&
        starts[axis] >= 0 &&
        sizes[axis] >= 0 &&
        starts[axis] + sizes[axis] <= extent;
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
      // Whole rows that follow one another are a view.
      const cut = x.shape.findLastIndex((extent, axis) => sizes[axis] !== extent);
      if (sizes.every((size, axis) => axis >= cut || size === 1))
        return { outputs: [x.view(sizes, sizeOf(sizes) === 0 ? 0 : inOffset)] };
      const y = allocate(spec, x);
      run(
        "stridedCopy",
        { shape: sizes, inStrides: strides, inOffset, outStrides: stridesOf(sizes), outOffset: 0 },
        [x],
        [y],
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
      wantRank("pad", x);
      wantList("pad", "starts", starts);
      checkShape(shape, "pad");
      const fits = (extent: number, axis: number): boolean =>
        Number.isInteger(starts[axis]) && starts[axis] >= 0 && starts[axis] + extent <= shape[axis];
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
  run(
    "stridedCopy",
    { shape: x.shape, inStrides: stridesOf(x.shape), inOffset: 0, outStrides, outOffset },
    [x],
    [y],
  );
}

export const concatOp: Op<{ axis: number }> = {
  name: "concat",
  keepsBatch: (_slot, inputs, _output, { axis }) => axis > 0 || inputs.length === 1,
  infer(xs, { axis }) {
    const [first] = xs;
    integerIn(0, first.shape.length - 1)("concat: axis", axis);
    for (const x of xs) {
      wantRank("concat", x);
      const fits =
        x.dtype === first.dtype &&
        sameShape(
          x.shape,
          first.shape.map((extent, i) => (i === axis ? x.shape[i] : extent)),
        );
      if (!fits)
        throw new GradmixError(
          "shape",
          `concat: ${first.dtype}${formatShape(first.shape)} and ${x.dtype}${formatShape(x.shape)} do not join along axis ${axis}`,
        );
    }
    const extent = xs.reduce((n, x) => n + x.shape[axis], 0);
    return [{ shape: first.shape.map((e, i) => (i === axis ? extent : e)), dtype: first.dtype }];
  },
  forward(xs, { axis }, [spec]) {
    const y = allocate(spec, xs[0]);
    let at = 0;
    for (const x of xs) {
      if (x.size > 0) copyInto(y, x, startsAt(axis, at, spec.shape.length));
      at += x.shape[axis];
    }
    return { outputs: [y] };
  },
  vjp([ct], { attrs: { axis }, inputs, needs }) {
    let at = 0;
    return inputs.map((x, slot) => {
      const starts = startsAt(axis, at, x.shape.length);
      at += x.shape[axis];
      return ct !== null && needs[slot] ? slice(ct, starts, x.shape) : null;
    });
  },
  jvp(tangents, { attrs: { axis }, inputs }) {
    if (tangents.every((t) => t === null)) return [null];
    return [
      concat(
        tangents.map((t, slot) => t ?? filled(0, specOf(inputs[slot]), inputs[slot])),
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
export function transpose(x: Tensor, perm?: readonly number[]): Tensor {
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

/** The window of `sizes` that begins at `starts`. */
export function slice(x: Tensor, starts: readonly number[], sizes: readonly number[]): Tensor {
  return apply1(sliceOp, [x], { starts, sizes });
}

/** Zeros of `shape` with x in the window that begins at `starts`. */
export function pad(x: Tensor, starts: readonly number[], shape: Shape): Tensor {
  return apply1(padOp, [x], { starts, shape });
}

/** Joins tensors along an axis. */
export function concat(xs: readonly Tensor[], axis: number): Tensor {
  wantList("concat", "what to join", xs);
  wantTensors("concat", xs);
  if (xs.length === 0) throw new GradmixError("shape", "concat: no tensors were given");
  return apply1(concatOp, xs, { axis: normaliseAxis(axis, xs[0].rank, "concat") });
}
