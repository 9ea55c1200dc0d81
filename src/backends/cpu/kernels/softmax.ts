/** Launchers of softmax, its logarithm and cross-entropy (assembly/softmax.ts). */
import type { Launchers } from "./launcher.ts";
import { rowsPerTask } from "./views.ts";

/** Approximate number of operations of an exponential. */
const EXP = 8;

export const softmax: Pick<
  Launchers,
  | "softmax"
  | "softmaxVjp"
  | "logSoftmax"
  | "logSoftmaxVjp"
  | "crossEntropy"
  | "crossEntropyVjp"
  | "crossEntropyJvp"
> = {
  softmax(runtime, { rows, cols }, { x }, { y }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "softmax",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },

  softmaxVjp(runtime, { rows, cols }, { y, dy }, { dx }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "softmaxVjp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        y: runtime.address(y),
        dy: runtime.address(dy),
        dx: runtime.address(dx),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * 2,
    });
  },

  logSoftmax(runtime, { rows, cols }, { x }, { y }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "logSoftmax",
      tasks: Math.ceil(rows / perTask),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },

  logSoftmaxVjp(runtime, { rows, cols }, { y, dy }, { dx }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "logSoftmaxVjp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        y: runtime.address(y),
        dy: runtime.address(dy),
        dx: runtime.address(dx),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },

  crossEntropy(runtime, { rows, cols }, { logits, targets }, { losses, lse }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "crossEntropy",
      tasks: Math.ceil(rows / perTask),
      slots: {
        logits: runtime.address(logits),
        targets: runtime.address(targets),
        losses: runtime.address(losses),
        lse: runtime.address(lse),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },

  crossEntropyVjp(runtime, { rows, cols }, { logits, targets, lse, dlosses }, { dlogits }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "crossEntropyVjp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        logits: runtime.address(logits),
        targets: runtime.address(targets),
        lse: runtime.address(lse),
        dlosses: runtime.address(dlosses),
        dlogits: runtime.address(dlogits),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },

  crossEntropyJvp(runtime, { rows, cols }, { logits, targets, lse, dlogits }, { dlosses }) {
    const perTask = rowsPerTask(cols);
    runtime.launch({
      kernel: "crossEntropyJvp",
      tasks: Math.ceil(rows / perTask),
      slots: {
        logits: runtime.address(logits),
        targets: runtime.address(targets),
        lse: runtime.address(lse),
        dlogits: runtime.address(dlogits),
        dlosses: runtime.address(dlosses),
        rows,
        rowsPerTask: perTask,
        cols,
      },
      work: rows * cols * EXP,
    });
  },
};
