/** Launchers of the optimizer step (assembly/optimizer.ts). */
import type { Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";
import { elements } from "./views.ts";

export const optimizer: Pick<Launchers, "clipScale" | "adamw"> = {
  clipScale(runtime, { maxNorm }, [sumsq], [scale]) {
    runtime.launch({
      kernel: "clipScale",
      tasks: 1,
      ints: [runtime.address(sumsq), runtime.address(scale)],
      floats: [maxNorm],
      work: 1,
    });
  },

  adamw(runtime, { lr, beta1, beta2, eps, weightDecay, step }, [grad, gradScale], [value, m, v]) {
    const count = elements(grad);
    runtime.launch({
      kernel: "adamw",
      tasks: Math.ceil(count / PER_TASK),
      ints: [...[grad, gradScale, value, m, v].map((view) => runtime.address(view)), count, PER_TASK],
      floats: [
        ...[lr, beta1, 1 - beta1, beta2, 1 - beta2, eps, weightDecay],
        ...[1 / (1 - beta1 ** step), 1 / (1 - beta2 ** step)],
      ],
      work: count * 8,
    });
  },
};
