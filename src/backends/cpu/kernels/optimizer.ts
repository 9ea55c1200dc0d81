/** Launchers of the optimizers' steps (assembly/optimizer.ts). */
import { sizeOf } from "../../../tensor/shape.ts";
import type { Launcher, Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";

export const optimizer: Pick<Launchers, "clipScale" | "sgd" | "adam" | "adamw"> = {
  clipScale(runtime, { maxNorm }, { sumsq }, { scale }) {
    runtime.launch({
      kernel: "clipScale",
      tasks: 1,
      ints: [runtime.address(sumsq), runtime.address(scale)],
      floats: [maxNorm],
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
      ints: [
        ...[grad, gradScale, value, velocity].map((view) => runtime.address(view)),
        ...[count, PER_TASK, Number(nesterov)],
      ],
      floats: [lr, momentum, weightDecay],
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
      ints: [...[grad, gradScale, value, m, v].map((view) => runtime.address(view)), count, PER_TASK],
      floats: [
        ...[lr, beta1, 1 - beta1, beta2, 1 - beta2, eps, weightDecay],
        ...[1 / (1 - beta1 ** step), 1 / (1 - beta2 ** step)],
      ],
      work: count * 8,
    });
  };
}
