/** AdamW with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2). */
import { type Data, kernel, type Kernels, type Optional } from "./kernel.ts";

export const optimizer: Kernels<"adamw"> = {
  adamw: kernel((p, [grad, gradScale]: [Data, Optional], [value, m, v]: [Data, Data, Data]) => {
    const scale = gradScale === null ? 1 : gradScale[0];
    for (let i = 0; i < grad.length; i++) {
      const g = grad[i] * scale;
      const first = p.beta1 * m[i] + (1 - p.beta1) * g;
      const second = p.beta2 * v[i] + (1 - p.beta2) * g * g;
      const mHat = first / (1 - p.beta1 ** p.step);
      const vHat = second / (1 - p.beta2 ** p.step);
      m[i] = first;
      v[i] = second;
      value[i] -= p.lr * (mHat / (Math.sqrt(vHat) + p.eps) + p.weightDecay * value[i]);
    }
  }),
};
