/**
 * Every result has a handle of its own. A caller who disposes the result of an op or a transformation must not affect the owner of the inputs, nor a
 * holder of another result.
 */
import { sizeOf } from "../tensor/shape.ts";
import { Tensor, lastSerial } from "../tensor/tensor.ts";
import { apply1 } from "./op.ts";
import { reshapeOp } from "./ops/broadcast.ts";
import { padOp } from "./ops/shape.ts";

/** Another handle on the same memory. */
export function alias(t: Tensor): Tensor {
  const own = apply1(reshapeOp, [t], { shape: t.shape });
  own.name = t.name;
  return own;
}

/** A copy of the elements in memory of its own. */
export function copied(t: Tensor): Tensor {
  // Two axes, since strided kernels handle only a few; the first stays, because it may be the batch.
  const shape = [t.shape.at(0) ?? 1, sizeOf(t.shape.slice(1))];
  const flat = apply1(reshapeOp, [t], { shape });
  return apply1(reshapeOp, [apply1(padOp, [flat], { starts: [0, 0], shape })], { shape: t.shape });
}

/** Returns what `fn` returns, with new handles for tensors that existed before, and for those that it returns more than once. */
export function fresh<R extends Tensor | readonly Tensor[]>(fn: () => R): R {
  const before = lastSerial();
  const result = fn();
  if (result instanceof Tensor) return (result.serial > before ? result : alias(result)) as R;
  const seen = new Set<Tensor>();
  return result.map((t) => {
    const own = t.serial > before && !seen.has(t) ? t : alias(t);
    seen.add(own);
    return own;
  }) as readonly Tensor[] as R;
}

/** Makes derivatives independent of each other and of `given`: copies those that share memory with any, because gradients may be written to. */
export function withOwnMemory(derivatives: readonly Tensor[], given: readonly Tensor[]): Tensor[] {
  const used = new Set(given.flatMap((t) => (t.disposed ? [] : [t.buffer])));
  return derivatives.map((t) => {
    const own = used.has(t.buffer) ? copied(t) : t;
    used.add(own.buffer);
    return own;
  });
}
