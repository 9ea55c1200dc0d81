/** Launchers of random fill and dropout (assembly/random.ts). */
import { sizeOf } from "../../../tensor/shape.ts";
import type { Launchers } from "./launcher.ts";
import { TASK_ELEMENTS as PER_TASK } from "../blocks.ts";

export const random: Pick<Launchers, "random" | "dropout"> = {
  random(runtime, { kind, key0, key1, offset }, _inputs, { out }) {
    const count = sizeOf(out.shape);
    runtime.launch({
      kernel: "random",
      entry: `random_${kind}`,
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        out: runtime.address(out),
        elements: count,
        elementsPerTask: PER_TASK,
        key0,
        key1,
        offset,
      },
      scratch: 32,
      work: count * 16,
    });
  },

  dropout(runtime, { threshold, scale, key0, key1 }, { x }, { y }) {
    const count = sizeOf(x.shape);
    runtime.launch({
      kernel: "dropout",
      tasks: Math.ceil(count / PER_TASK),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        elements: count,
        elementsPerTask: PER_TASK,
        key0,
        key1,
        threshold,
        scale,
      },
      scratch: 32,
      work: count * 16,
    });
  },
};
