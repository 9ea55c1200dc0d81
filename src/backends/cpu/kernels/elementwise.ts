/** Launchers of the element-by-element kernels (assembly/elementwise.ts). */
import { sizeOf } from "../../../tensor/shape.ts";
import type { Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";
import { rowsPerTask } from "./views.ts";

/** Cost of a transcendental function relative to a plain load and store. */
const COSTLY = 8;

export const elementwise: Pick<
  Launchers,
  "unary" | "unaryVjp" | "affine" | "accumulate" | "select" | "cast" | "swiglu" | "swigluVjp" | "swigluJvp"
> = {
  unary(runtime, { kind }, { x }, { y }) {
    const count = sizeOf(x.shape);
    runtime.launch({
      kernel: "unary",
      entry: `unary_${kind}`,
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        elements: count,
        elementsPerTask: PER_TASK,
      },
      work: count * COSTLY,
    });
  },

  unaryVjp(runtime, { kind }, { x, dy }, { dx }) {
    const count = sizeOf(x.shape);
    runtime.launch({
      kernel: "unaryVjp",
      entry: `unaryVjp_${kind}`,
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        dy: runtime.address(dy),
        dx: runtime.address(dx),
        elements: count,
        elementsPerTask: PER_TASK,
      },
      work: count * COSTLY,
    });
  },

  affine(runtime, { scale, shift }, { x }, { y }) {
    const count = sizeOf(x.shape);
    runtime.launch({
      kernel: "affine",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        elements: count,
        elementsPerTask: PER_TASK,
        scale,
        shift,
      },
      work: count,
    });
  },

  accumulate(runtime, { scale }, { x }, { y }) {
    const count = sizeOf(x.shape);
    runtime.launch({
      kernel: "accumulate",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        elements: count,
        elementsPerTask: PER_TASK,
        scale,
      },
      work: count,
    });
  },

  select(runtime, _params, { condition, a, b }, { c }) {
    const count = sizeOf(c.shape);
    runtime.launch({
      kernel: "selectElements",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        condition: runtime.address(condition),
        a: runtime.address(a),
        b: runtime.address(b),
        c: runtime.address(c),
        elements: count,
        elementsPerTask: PER_TASK,
      },
      work: count,
    });
  },

  cast(runtime, _params, { x }, { y }) {
    const count = sizeOf(x.shape);
    const same = x.dtype === y.dtype;
    runtime.launch({
      kernel: "cast",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        elements: count,
        elementsPerTask: PER_TASK,
        conversion: same ? CAST.copy : y.dtype === "i32" ? CAST.toI32 : CAST.toF32,
      },
      work: count,
    });
  },

  swiglu(runtime, { rows, width }, { x }, { y }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "swiglu",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        rows,
        rowsPerTask: perTask,
        width,
      },
      work: rows * width * COSTLY,
    });
  },

  swigluVjp(runtime, { rows, width }, { x, dy }, { dx }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "swigluVjp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        dy: runtime.address(dy),
        dx: runtime.address(dx),
        rows,
        rowsPerTask: perTask,
        width,
      },
      work: rows * width * COSTLY,
    });
  },

  swigluJvp(runtime, { rows, width }, { x, dx }, { dy }) {
    const perTask = rowsPerTask(width);
    runtime.launch({
      kernel: "swigluJvp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        dx: runtime.address(dx),
        dy: runtime.address(dy),
        rows,
        rowsPerTask: perTask,
        width,
      },
      work: rows * width * COSTLY,
    });
  },
};

const CAST = { toF32: 0, toI32: 1, copy: 2 } as const;
