/** Launchers of attention with a mask (assembly/masked-attention.ts). */
import type { View } from "../../../tensor/memory.ts";
import type { Inputs, MaskedAttentionParams } from "../../kernels/index.ts";
import type { Runtime } from "../runtime.ts";
import { ATTENTION_PART } from "../blocks.ts";
import type { MaskedAttentionSlots } from "../slots.ts";
import type { Launchers } from "./launcher.ts";

/** The properties of a launch besides its kernel and its slots. A task processes some queries of a head or, with `whole`, a key/value head. */
function shares(
  p: MaskedAttentionParams,
  wholeHeads: boolean,
  products: number,
): { tasks: number; scratch: number; work: number } {
  return {
    tasks: p.batch * (wholeHeads ? p.kvHeads : p.heads * partsOf(p)),
    scratch: 4 * (p.keys + 4),
    work: products * p.batch * p.heads * p.time * p.keys * p.headDim,
  };
}

const partsOf = (p: MaskedAttentionParams): number => Math.ceil(p.time / ATTENTION_PART);

/** The slots that all three kernels have. */
function slotsOf(
  runtime: Runtime,
  p: MaskedAttentionParams,
  { q, k, v, mask = null }: Pick<Inputs<"maskedAttention">, "q" | "k" | "v" | "mask">,
  o: View,
  lse: View,
): MaskedAttentionSlots {
  return {
    q: runtime.address(q),
    k: runtime.address(k),
    v: runtime.address(v),
    mask: runtime.address(mask),
    o: runtime.address(o),
    lse: runtime.address(lse),
    time: p.time,
    keys: p.keys,
    heads: p.heads,
    kvHeads: p.kvHeads,
    headDim: p.headDim,
    causal: p.causal ? 1 : 0,
    maskBatch: p.maskBatch,
    maskHeads: p.maskHeads,
    queriesPerTask: ATTENTION_PART,
    parts: partsOf(p),
    scale: p.scale,
  };
}

export const maskedAttention: Pick<
  Launchers,
  "maskedAttention" | "maskedAttentionVjp" | "maskedAttentionJvp"
> = {
  maskedAttention(runtime, p, inputs, { o, lse }) {
    const slots = slotsOf(runtime, p, inputs, o, lse);
    runtime.launch({ kernel: "maskedAttention", slots, ...shares(p, false, 2) });
  },

  maskedAttentionVjp(runtime, p, inputs, { dq, dk, dv }) {
    const slots = {
      ...slotsOf(runtime, p, inputs, inputs.o, inputs.lse),
      dOut: runtime.address(inputs.dOut),
      dq: runtime.address(dq),
      dk: runtime.address(dk),
      dv: runtime.address(dv),
    };
    runtime.launch({ kernel: "maskedAttentionVjp", slots, ...shares(p, true, 5) });
  },

  maskedAttentionJvp(runtime, p, inputs, { dOut }) {
    const slots = {
      ...slotsOf(runtime, p, inputs, inputs.o, inputs.lse),
      dq: runtime.address(inputs.dq),
      dk: runtime.address(inputs.dk),
      dv: runtime.address(inputs.dv),
      dOut: runtime.address(dOut),
    };
    runtime.launch({ kernel: "maskedAttentionJvp", slots, ...shares(p, false, 5) });
  },
};
