/** Launchers of attention with a mask (assembly/masked-attention.ts). */
import type { View } from "../../../tensor/memory.ts";
import type { MaskedAttentionParams } from "../../kernels/index.ts";
import type { Runtime } from "../runtime.ts";
import { ATTENTION_PART } from "../blocks.ts";
import type { Launchers } from "./launcher.ts";

/** `operands` are the slots from the first on. A task takes some queries of a head, or a key/value head. */
function launch(
  runtime: Runtime,
  kernel: "maskedAttention" | "maskedAttentionVjp" | "maskedAttentionJvp",
  p: MaskedAttentionParams,
  operands: readonly (View | null | undefined)[],
  products: number,
): void {
  const parts = Math.ceil(p.time / ATTENTION_PART);
  runtime.launch({
    kernel,
    tasks: p.batch * (kernel === "maskedAttentionVjp" ? p.kvHeads : p.heads * parts),
    ints: [
      ...operands.map((view) => runtime.address(view)),
      ...new Array<number>(12 - operands.length).fill(0),
      ...[p.time, p.keys, p.heads, p.kvHeads, p.headDim, p.causal ? 1 : 0],
      ...[p.maskBatch, p.maskHeads, ATTENTION_PART, parts],
    ],
    floats: [p.scale],
    scratch: 4 * (p.keys + 4),
    work: products * p.batch * p.heads * p.time * p.keys * p.headDim,
  });
}

export const maskedAttention: Pick<
  Launchers,
  "maskedAttention" | "maskedAttentionVjp" | "maskedAttentionJvp"
> = {
  maskedAttention: (runtime, p, { q, k, v, mask }, { o, lse }) =>
    launch(runtime, "maskedAttention", p, [q, k, v, mask, o, lse], 2),
  maskedAttentionVjp: (runtime, p, { q, k, v, mask, o, lse, dOut }, { dq, dk, dv }) =>
    launch(runtime, "maskedAttentionVjp", p, [q, k, v, mask, o, lse, dOut, dq, dk, dv], 5),
  maskedAttentionJvp: (runtime, p, { q, k, v, mask, o, lse, dq, dk, dv }, { dOut }) =>
    launch(runtime, "maskedAttentionJvp", p, [q, k, v, mask, o, lse, dq, dk, dv, dOut], 5),
};
