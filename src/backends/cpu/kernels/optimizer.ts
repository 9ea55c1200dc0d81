/** Launchers of the optimizers' steps (assembly/optimizer.ts). */
import { sizeOf } from "../../../tensor/shape.ts";
import type { Launcher, Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";

export const optimizer: Pick<Launchers, "clipScale" | "sgd" | "adam" | "adamw"> = {
  clipScale(runtime, { maxNorm }, { sumsq }, { scale }) {
    runtime.launch({
      kernel: "clipScale",
      tasks: 1,
      slots: {
        sumsq: runtime.address(sumsq),
        scale: runtime.address(scale),
        maxNorm,
      },
      work: 1,
    });
  },

  sgd(
    runtime,
    { lr, momentum, nesterov, weightDecay },
    { grad, gradScale = null },
    { value, velocity = null },
  ) {
    const count = sizeOf(grad.shape);
    runtime.launch({
      kernel: "sgd",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        grad: runtime.address(grad),
        gradScale: runtime.address(gradScale),
        value: runtime.address(value),
        velocity: runtime.address(velocity),
        elements: count,
        elementsPerTask: PER_TASK,
        nesterov: Number(nesterov),
        lr,
        momentum,
        weightDecay,
      },
      work: count * 4,
    });
  },

  adam: adamLauncher("adam"),
  adamw: adamLauncher("adamw"),
};

function adamLauncher(kernel: "adam" | "adamw"): Launcher<"adam" | "adamw"> {
  return (runtime, { lr, beta1, beta2, eps, weightDecay, step }, { grad, gradScale }, { value, m, v }) => {
    const count = sizeOf(grad.shape);
    runtime.launch({
      kernel,
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        grad: runtime.address(grad),
        gradScale: runtime.address(gradScale),
        value: runtime.address(value),
        m: runtime.address(m),
        v: runtime.address(v),
        elements: count,
        elementsPerTask: PER_TASK,
        lr,
        beta1,
        rest1: 1 - beta1,
        beta2,
        rest2: 1 - beta2,
        eps,
        weightDecay,
        correction1: 1 / (1 - beta1 ** step),
        correction2: 1 / (1 - beta2 ** step),
      },
      work: count * 8,
    });
  };
}
