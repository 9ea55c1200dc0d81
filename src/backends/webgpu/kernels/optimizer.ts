/** The optimizers' steps. */
import { sizeOf } from "../../../tensor/shape.ts";
import type { View } from "../../../tensor/memory.ts";
import { elementwise as each, f32, type Launcher, type Launchers, operandsOf } from "../context.ts";

export const optimizer: Pick<Launchers, "sgd" | "adam" | "adamw"> = {
  sgd(
    context,
    { lr, momentum, nesterov, weightDecay },
    { grad, gradScale = null },
    { value, velocity = null },
  ) {
    each(context, sizeOf(grad.shape), {
      key: `sgd ${gradScale === null ? "" : "scaled"} ${velocity === null ? "" : nesterov ? "nesterov" : "momentum"}`,
      operands: operandsOf({ grad, grad_scale: gradScale }, { value, velocity }),
      scalars: {
        lr: f32(lr),
        decay: f32(weightDecay),
        ...(velocity === null ? {} : { momentum: f32(momentum) }),
      },
      body: `${skip(gradScale)}  let old = value(i);
  let g = grad(i)${gradScale === null ? "" : " * grad_scale(0u)"} + p.decay * old;
${
  velocity === null
    ? "  let step = g;"
    : `  let next = p.momentum * velocity(i) + g;
  set_velocity(i, next);
  let step = ${nesterov ? "g + p.momentum * next" : "next"};`
}
  set_value(i, old - p.lr * step);`,
    });
  },
  adam: adamLauncher("adam"),
  adamw: adamLauncher("adamw"),
};

/** A scale of 0 means that there is no step. */
function skip(gradScale: View | null): string {
  return gradScale === null ? "" : "  if (grad_scale(0u) == 0.0) { return; }\n";
}

function adamLauncher(kernel: "adam" | "adamw"): Launcher<"adam" | "adamw"> {
  const [coupled, decoupled] = kernel === "adam" ? [" + p.decay * old", ""] : ["", " + p.decay * old"];
  return (
    context,
    { lr, beta1, beta2, eps, weightDecay, step },
    { grad, gradScale = null },
    { value, m, v },
  ) => {
    each(context, sizeOf(grad.shape), {
      key: `${kernel} ${gradScale === null ? "" : "scaled"}`,
      operands: operandsOf({ grad, grad_scale: gradScale }, { value, m, v }),
      scalars: {
        lr: f32(lr),
        beta1: f32(beta1),
        beta2: f32(beta2),
        rest1: f32(1 - beta1),
        rest2: f32(1 - beta2),
        bias1: f32(1 / (1 - beta1 ** step)),
        bias2: f32(1 / (1 - beta2 ** step)),
        eps: f32(eps),
        decay: f32(weightDecay),
      },
      body: `${skip(gradScale)}  let old = value(i);
  let g = grad(i)${gradScale === null ? "" : " * grad_scale(0u)"}${coupled};
  let first = p.beta1 * m(i) + p.rest1 * g;
  let second = p.beta2 * v(i) + p.rest2 * g * g;
  set_m(i, first);
  set_v(i, second);
  set_value(i, old - p.lr * (first * p.bias1 / (sqrt(second * p.bias2) + p.eps)${decoupled}));`,
    });
  };
}
