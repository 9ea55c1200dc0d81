/**
 * Every result has a handle of its own. Who disposes what an op or a transformation returned must not take anything from whoever gave the
 * inputs, nor from whoever holds another of the results.
 */
import { sizeOf } from "../tensor/shape.ts";
import { Tensor, youngest } from "../tensor/tensor.ts";
import { apply1 } from "./op.ts";
import { reshapeOp } from "./ops/broadcast.ts";
import { padOp } from "./ops/shape.ts";

/** Another handle on the same memory. */
export function alias(t: Tensor): Tensor {
  const own = apply1(reshapeOp, [t], { shape: t.shape });
  own.name = t.name;
  return own;
}

/** The same elements in memory of their own. */
export function copied(t: Tensor): Tensor {
  // Two axes, since strided kernels walk few of them; the first stays, since it may be the batch.
  const shape = [t.shape.at(0) ?? 1, sizeOf(t.shape.slice(1))];
  const flat = apply1(reshapeOp, [t], { shape });
  return apply1(reshapeOp, [apply1(padOp, [flat], { starts: [0, 0], shape })], { shape: t.shape });
}

/** What `fn` returns, with other handles for tensors that were there before, and for those that it returns more than once. */
export function fresh<R extends Tensor | readonly Tensor[]>(fn: () => R): R {
  const before = youngest();
  const result = fn();
  if (result instanceof Tensor) return (result.serial > before ? result : alias(result)) as R;
  const seen = new Set<Tensor>();
  return result.map((t) => {
    const own = t.serial > before && !seen.has(t) ? t : alias(t);
    seen.add(own);
    return own;
  }) as readonly Tensor[] as R;
}

/** Derivatives apart from each other and from what was `given`: copies of those that share memory with any, since gradients may be written to. */
export function apart(derivatives: readonly Tensor[], given: readonly Tensor[]): Tensor[] {
  const taken = new Set(given.flatMap((t) => (t.disposed ? [] : [t.buffer])));
  return derivatives.map((t) => {
    const own = taken.has(t.buffer) ? copied(t) : t;
    taken.add(own.buffer);
    return own;
  });
}
