/** Launcher of random fill (assembly/random.ts). */
import type { Launchers } from "./launcher.ts";
import { elements, PER_TASK } from "./views.ts";

const KINDS = { bits: 0, uniform: 1, normal: 2 } as const;

export const random: Pick<Launchers, "random"> = {
  random(runtime, { kind, key0, key1, offset }, _inputs, [out]) {
    const count = elements(out);
    runtime.launch({
      kernel: "random",
      tasks: Math.ceil(count / PER_TASK),
      ints: [runtime.address(out), count, PER_TASK, KINDS[kind], key0, key1, offset],
      scratch: 32,
      work: count * 16,
    });
  },
};
