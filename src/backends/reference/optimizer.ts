/** The steps of the optimizers, each written as in its paper or in PyTorch's documentation. */
import type { AdamParams } from "../kernels/index.ts";
import type { Data, Kernels } from "./kernel.ts";

export const optimizer: Kernels<"sgd" | "adam" | "adamw"> = {
  sgd: (p, { grad, gradScale = null }, { value, velocity = null }) => {
    const scale = gradScale === null ? 1 : gradScale[0]!;
    if (scale === 0) return;
    for (let i = 0; i < grad.length; i++) {
      const g = grad[i]! * scale + p.weightDecay * value[i]!;
      if (velocity === null) value[i]! -= p.lr * g;
      else {
        const next = p.momentum * velocity[i]! + g;
        velocity[i] = next;
        value[i]! -= p.lr * (p.nesterov ? g + p.momentum * next : next);
      }
    }
  },
  adam: (p, { grad, gradScale = null }, { value, m, v }) => {
    const scale = gradScale === null ? 1 : gradScale[0]!;
    if (scale === 0) return;
    for (let i = 0; i < grad.length; i++) {
      const g = grad[i]! * scale + p.weightDecay * value[i]!;
      value[i]! -= p.lr * direction(p, g, m, v, i);
    }
  },
  adamw: (p, { grad, gradScale = null }, { value, m, v }) => {
    const scale = gradScale === null ? 1 : gradScale[0]!;
    if (scale === 0) return;
    for (let i = 0; i < grad.length; i++) {
      const g = grad[i]! * scale;
      value[i]! -= p.lr * (direction(p, g, m, v, i) + p.weightDecay * value[i]!);
    }
  },
};

/** Updates the moments of element `i` with g and returns m̂/(√v̂ + eps). */
function direction(p: AdamParams, g: number, m: Data, v: Data, i: number): number {
  const first = p.beta1 * m[i]! + (1 - p.beta1) * g;
  const second = p.beta2 * v[i]! + (1 - p.beta2) * g * g;
  m[i] = first;
  v[i] = second;
  const mHat = first / (1 - p.beta1 ** p.step);
  const vHat = second / (1 - p.beta2 ** p.step);
  return mHat / (Math.sqrt(vHat) + p.eps);
}
