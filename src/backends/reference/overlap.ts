/**
 * Checks which outputs overlap an input. Fast backends trust their callers; the reference checks them, so that an op whose operands overlap against the
 * table fails in its test.
 */
import { GradmixError } from "../../errors.ts";
import type { View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { operandsOf } from "../kernels/check.ts";
import type { KernelName, NamedViews } from "../kernels/index.ts";

/** Throws `backend` if an output overlaps an input or another output although the table does not allow it. */
export function checkOverlap(kernel: KernelName, inputs: NamedViews, outputs: NamedViews): void {
  const earlier: { readonly name: string; readonly view: View }[] = [];
  for (const { name, inPlaceOf } of operandsOf(kernel, "outputs")) {
    const out = outputs[name];
    if (out === null || out === undefined) continue;
    for (const { name: other } of operandsOf(kernel, "inputs")) {
      const input = inputs[other];
      if (input === null || input === undefined || !overlap(input, out)) continue;
      const same = input.offset === out.offset && sizeOf(input.shape) === sizeOf(out.shape);
      if (same && inPlaceOf.includes(other)) continue;
      throw new GradmixError("backend", `${kernel}: output "${name}" overlaps input "${other}"`);
    }
    for (const { name: other, view } of earlier)
      if (overlap(view, out))
        throw new GradmixError("backend", `${kernel}: outputs "${other}" and "${name}" overlap`);
    earlier.push({ name, view: out });
  }
}

function overlap(a: View, b: View): boolean {
  const [sizeA, sizeB] = [sizeOf(a.shape), sizeOf(b.shape)];
  if (a.buffer !== b.buffer || sizeA === 0 || sizeB === 0) return false;
  return a.offset < b.offset + sizeB && b.offset < a.offset + sizeA;
}
