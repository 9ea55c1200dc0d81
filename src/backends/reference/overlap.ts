/**
 * Which outputs may stand on an input. Fast backends trust their callers; the reference checks, so that an op that
 * overlaps operands the table keeps apart fails where it is tested.
 */
import { GradmixError } from "../../errors.ts";
import type { View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { kernels, type KernelName } from "../kernels.ts";

/** Kernels that the table marks "in place": the inputs that the first output may be. */
const inPlace: { readonly [K in KernelName]?: readonly number[] } = {
  unary: [0],
  unaryVjp: [1],
  binary: [0, 1],
  affine: [0],
  softmax: [0],
  rope: [0],
  crossEntropyVjp: [0],
};

/** Throws `backend` when an output overlaps an input or another output against the table. */
export function checkOverlap(
  kernel: KernelName,
  inputs: readonly (View | null)[],
  outputs: readonly (View | null)[],
): void {
  const row = kernels[kernel];
  outputs.forEach((out, o) => {
    if (out === null) return;
    inputs.forEach((input, i) => {
      if (input === null || !overlap(input, out)) return;
      const same = input.offset === out.offset && sizeOf(input.shape) === sizeOf(out.shape);
      if (same && o === 0 && (inPlace[kernel]?.includes(i) ?? false)) return;
      throw new GradmixError(
        "backend",
        `${kernel}: output "${row.outputs[o]}" overlaps input "${row.inputs[i]}"`,
      );
    });
    for (let other = 0; other < o; other++) {
      const earlier = outputs[other];
      if (earlier !== null && overlap(earlier, out))
        throw new GradmixError(
          "backend",
          `${kernel}: outputs "${row.outputs[other]}" and "${row.outputs[o]}" overlap`,
        );
    }
  });
}

function overlap(a: View, b: View): boolean {
  const [sizeA, sizeB] = [sizeOf(a.shape), sizeOf(b.shape)];
  if (a.buffer !== b.buffer || sizeA === 0 || sizeB === 0) return false;
  return a.offset < b.offset + sizeB && b.offset < a.offset + sizeA;
}
