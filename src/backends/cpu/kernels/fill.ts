/** Launcher of fill (assembly/fill.ts). */
import { sizeOf } from "../../../tensor/shape.ts";
import { FILL_ELEMENTS as PER_TASK } from "../blocks.ts";
import type { Launcher } from "./launcher.ts";

const bits = new Float32Array(1);
const words = new Int32Array(bits.buffer);

export const fill: Launcher<"fill"> = (runtime, { value }, _inputs, { out }) => {
  if (out === null) return;
  const count = sizeOf(out.shape);
  bits[0] = value;
  runtime.launch({
    kernel: "fill",
    tasks: Math.ceil(count / PER_TASK),
    slots: {
      out: runtime.address(out),
      elements: count,
      elementsPerTask: PER_TASK,
      bits: out.dtype === "i32" ? value : words[0]!,
    },
    work: count,
  });
};
